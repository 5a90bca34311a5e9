/** What every mode of distillation is given, and what comes of it. */
import type { Model } from "../onnx/ir.ts";
import type { PhaseHooks } from "../train/phases.ts";
import { type Samples, splitSamples } from "../train/samples.ts";
import { exportTrained, type TrainableModel } from "../train/trainable.ts";
import type { NetworkResult, TrainingResult, TrainingSettings } from "../train/training-task.ts";
import type { ValidationMetric } from "../train/validate.ts";
import type { Choice } from "./choice.ts";
import { type Judge, judgeNetwork } from "./judge.ts";

/** What modes learn from and are judged by. */
export interface DistillationData {
  /** What the models' inputs take; labels, if any, are the target `labels`. */
  readonly samples: Samples;
  /** Part of the samples that is held out to judge epochs by. */
  readonly validationSplit: number;
  /** Samples for the final numbers; those held out when there are none. */
  readonly evaluation?: Samples | undefined;
  /** How well the output of this name fits the labels. */
  readonly metricOf: (output: string) => ValidationMetric;
}

/** One of the networks that were trained. */
export interface DistilledNetwork {
  readonly name: string;
  readonly model: Model;
  readonly run: NetworkResult;
  /** On the samples of the final numbers; null where there are none. */
  readonly before: number | null;
  readonly metric: number | null;
}

export interface Distillation {
  /** The network that was chosen. */
  readonly student: Model;
  readonly run: TrainingResult;
  readonly networks: readonly DistilledNetwork[];
  /** The name of the network that `student` is. */
  readonly chosen: string;
  /** What the choice was made by, where it also decided how long to go on; null where there was nothing to choose from, or no interval is known. */
  readonly choice?: Choice | null;
  /** Of the mean of all networks' answers; null where there is nothing to average or to judge by. */
  readonly ensemble: number | null;
  readonly baseline: { readonly model: Model; readonly run: TrainingResult } | null;
  /** On `evaluation`, or on the held-out samples; null where nothing was held out. */
  readonly metrics: {
    readonly name: string;
    readonly samples: number;
    readonly teacher: number | null;
    readonly studentBefore: number;
    readonly studentAfter: number;
    readonly baseline: number | null;
  } | null;
}

/** Judges a network by one of its outputs, against labels. */
export function labelJudge(
  { samples, validationSplit, evaluation, metricOf }: DistillationData,
  output: string,
  { batchSize, threads, seed }: TrainingSettings,
  { openSession, signal }: PhaseHooks,
): Judge {
  const held = evaluation ?? splitSamples(samples, validationSplit, seed).validation;
  return { samples: held, metric: metricOf(output), batchSize, threads, openSession, signal, teacher: null };
}

/** A network as it came out of a run. */
export async function distilled(
  name: string,
  judge: Judge,
  trainable: TrainableModel,
  { run, before }: { readonly run: NetworkResult; readonly before: number | null },
): Promise<DistilledNetwork> {
  const metric = await judgeNetwork(judge, trainable, run.values);
  return { name, model: exportTrained(trainable, run.values), run, before, metric };
}

/** The final numbers; null where nothing was held out to take them on. */
export function finalNumbers(
  { samples, metric }: Judge,
  {
    teacher = null,
    before,
    after,
    baseline,
  }: {
    readonly teacher?: number | null;
    readonly before: number | null;
    readonly after: number | null;
    readonly baseline: number | null;
  },
): Distillation["metrics"] {
  if (!samples || before === null || after === null) return null;
  const { name } = metric;
  return { name, samples: samples.count, teacher, studentBefore: before, studentAfter: after, baseline };
}

/** The best of several networks by the samples that were held out. Throws nothing: the first, where none was judged. */
export function bestOf<T extends { readonly run: NetworkResult }>(
  networks: readonly T[],
  better: ValidationMetric["better"],
): T {
  const sign = better === "higher" ? 1 : -1;
  const scoreOf = ({ run }: T) => (run.bestMetric === null ? Number.NEGATIVE_INFINITY : sign * run.bestMetric);
  return networks.reduce((best, network) => (scoreOf(network) > scoreOf(best) ? network : best));
}
