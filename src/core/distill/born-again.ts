/**
 * Born-again networks (Furlanello et al. 2018): generations of one architecture, each from a fresh start and taught by the one before; the first
 * learns from the labels alone. A generation that is no better than the one before, on the samples that are held out, is the last, and the best by them
 * is the result. Few samples do not tell generations apart that differ by the point or so that this gains: were only what they tell for certain taken
 * for better, none would ever be. So the better number counts, and the result says how sure that is.
 */
import { GraphBuilder, int } from "../onnx/graph-builder.ts";
import type { Model } from "../onnx/ir.ts";
import { logitsOf } from "../train/losses.ts";
import { type Phase, type PhaseHooks, runPhases } from "../train/phases.ts";
import { splitSamples } from "../train/samples.ts";
import { mergeNetworks, withPrefix } from "../train/step-networks.ts";
import { createTrainable, exportTrained, type TrainableModel } from "../train/trainable.ts";
import type { NetworksResult, TrainingSettings } from "../train/training-task.ts";
import { choiceOf } from "./choice.ts";
import { type ComparedOutputs, comparedOutputs } from "./compared-outputs.ts";
import {
  bestOf,
  type Distillation,
  type DistillationData,
  type DistilledNetwork,
  distilled,
  finalNumbers,
  labelJudge,
} from "./distillation.ts";
import { judgeEnsemble, judgeNetwork } from "./judge.ts";
import { type DistillationLoss, distillationObjective, teacherValues } from "./objective.ts";
import { onLabels } from "./online.ts";
import { openTeacher, type Teacher, teachSamples } from "./teacher.ts";

export interface BornAgainDistillation extends DistillationData {
  readonly model: Model;
  /** Whether the first generation draws its weights anew; later ones always do. */
  readonly reinitialize: boolean;
  /** How many at the most, 2 or more. */
  readonly generations: number;
  /** Make one model of all generations that answers with their mean. */
  readonly average: boolean;
  /** Of all generations but the first. Its hints are not used. */
  readonly loss: DistillationLoss;
  readonly training: TrainingSettings;
}

/** Throws what `trainNetworks` throws, and `invalid_params` where network, losses and samples do not fit together. */
export async function distillBornAgain(spec: BornAgainDistillation, hooks: PhaseHooks): Promise<Distillation> {
  const { training: settings, loss, model } = spec;
  const { openSession, signal } = hooks;
  const output = model.graph.outputs[0]!.name;
  const pairs = comparedOutputs(model, model, { outputLoss: loss.outputLoss });
  const judge = labelJudge(spec, output, settings, hooks);
  const { metric } = judge;
  const generations = Array.from({ length: spec.generations }, (_, i) => ({
    name: `generation_${i + 1}`,
    trainable: createTrainable(
      model,
      i > 0 || spec.reinitialize ? { reinitializeSeed: (settings.seed + i) >>> 0 } : {},
    ),
  }));
  const befores: (number | null)[] = [];
  let teacher: Teacher | undefined;
  const phases = generations.map(({ name, trainable }, i): Phase => {
    const networks = [{ prefix: "", trainable, metric }];
    const train = async (done: ReadonlyMap<string, NetworksResult>, progress: Parameters<Phase["prepare"]>[1]) => {
      const previous = generations[i - 1];
      const taughtBy = previous && done.get(previous.name);
      if (previous && (!taughtBy || !hasHelped(done, i, metric.better))) return null;
      befores[i] = await judgeNetwork(judge, trainable);
      if (!previous || !taughtBy) {
        const updates = [{ trains: [""], objective: onLabels(loss, model, output) }];
        return { networks, updates, ...splitSamples(spec.samples, spec.validationSplit, settings.seed) };
      }
      await teacher?.close();
      teacher = undefined;
      const parent = exportTrained(previous.trainable, taughtBy.networks[""]!.values);
      teacher = await openTeacher(parent, teacherValues(loss, pairs), { openSession, threads: settings.threads });
      const { samples, moreTargets } = await teachSamples(teacher, spec.samples, { settings, signal })(progress);
      return {
        networks,
        updates: [{ trains: [""], objective: distillationObjective({ ...loss, hints: [] }, pairs) }],
        ...splitSamples(samples, spec.validationSplit, settings.seed),
        moreTargets,
      };
    };
    return { name, share: 1, prepare: train };
  });
  try {
    const done = await runPhases(phases, settings, hooks);
    return await resultOf(spec, { done, generations, befores, judge });
  } finally {
    await teacher?.close();
  }

  /** Whether generation `i` − 1 (from 0) was better than the one before it. */
  function hasHelped(done: ReadonlyMap<string, NetworksResult>, i: number, better: "higher" | "lower"): boolean {
    if (i < 2) return true;
    const [before, after] = [i - 2, i - 1].map((k) => done.get(generations[k]!.name)?.networks[""]?.bestMetric);
    if (before == null || after == null) return true;
    return better === "higher" ? after > before : after < before;
  }
}

async function resultOf(
  spec: BornAgainDistillation,
  found: {
    readonly done: ReadonlyMap<string, NetworksResult>;
    readonly generations: readonly { readonly name: string; readonly trainable: TrainableModel }[];
    readonly befores: readonly (number | null)[];
    readonly judge: ReturnType<typeof labelJudge>;
  },
): Promise<Distillation> {
  const { done, judge } = found;
  const output = spec.model.graph.outputs[0]!.name;
  const networks: DistilledNetwork[] = [];
  for (const [i, { name, trainable }] of found.generations.entries()) {
    const result = done.get(name);
    if (!result) break;
    networks.push(
      await distilled(name, judge, trainable, { run: result.networks[""]!, before: found.befores[i] ?? null }),
    );
  }
  const [first] = networks;
  const best = bestOf(networks, judge.metric.better);
  const pairs = comparedOutputs(spec.model, spec.model, { outputLoss: spec.loss.outputLoss });
  const models = networks.map(({ model }) => model);
  const members = models.map((model) => ({ model, output }));
  const ensemble = await judgeEnsemble(judge, members, { output, reading: pairs[0]!.reading });
  const run = { ...best.run, samplesPerSecond: done.get(best.name)!.samplesPerSecond };
  const metric = spec.average ? ensemble : best.metric;
  return {
    student: spec.average ? averageModels(models, pairs) : best.model,
    run,
    networks,
    chosen: spec.average ? "average" : best.name,
    choice: spec.average
      ? null
      : await choiceOf(
          { ...judge, samples: splitSamples(spec.samples, spec.validationSplit, spec.training.seed).validation },
          networks.map((network, i) => ({ ...network, trainable: found.generations[i]!.trainable })),
        ),
    ensemble,
    // The first generation is the network trained without a teacher.
    baseline: {
      model: first!.model,
      run: { ...first!.run, samplesPerSecond: done.get(first!.name)!.samplesPerSecond },
    },
    metrics: finalNumbers(judge, { before: best.before, after: metric, baseline: first!.metric }),
  };
}

/**
 * One model that answers with the mean of several of one architecture, whose outputs are compared like `pairs`: of the probabilities where an
 * output is class scores (as their logarithms, where the models give logits), else of the outputs themselves.
 */
export function averageModels(models: readonly Model[], pairs: readonly ComparedOutputs[]): Model {
  const [first] = models;
  const names = first!.graph.outputs.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
  const merged = mergeNetworks(models.map((model, i) => withPrefix(model, `generation_${i + 1}/`)));
  const { graph } = merged;
  const g = new GraphBuilder(graph);
  const outputs = [...graph.outputs];
  for (const value of outputs) graph.removeOutput(value);
  for (const [k, { name, dtype, shape }] of names.entries()) {
    const answers = models.map((_, i) => outputs[i * names.length + k]!);
    const { reading } = pairs.find(({ student }) => student === name)!;
    const classAxis = reading.kind === "scores" ? reading.classAxis : null;
    const areLogits = reading.kind === "scores" && answers.every((value) => logitsOf(value, classAxis) === value);
    const axis = int(classAxis ?? -1);
    const summed = answers.map((value) => (areLogits ? g.op("Softmax", [value], { axis }) : value));
    const mean = g.mul(
      summed.reduce((sum, value) => g.add(sum, value)),
      1 / models.length,
    );
    const answer = areLogits ? g.log(g.add(mean, 1e-30)) : mean;
    answer.name = merged.freshName(name);
    answer.retype(dtype, shape);
    graph.addOutput(answer);
  }
  return merged;
}
