/** What a static job holds results to: a metric or fidelity that was asked for, or what no result should be below. */
import {
  type AccuracyTarget,
  LOW_SQNR_DB,
  type MetricName,
  type Model,
  measureSpeedup,
  type PipelineOptions,
  type PipelineResult,
  type Session,
  scoreFidelity,
  scoreModel,
  scoreOf,
} from "../../../../core/index.ts";
import { metricOf } from "../../evaluation.ts";
import type { Compressed, JobEnvironment } from "../../run/job-environment.ts";
import type { StaticParams, StaticSpec } from "../spec.ts";
import type { CalibrationSamples } from "./calibration-samples.ts";

/** The original model, loaded when something is first compared with it. */
export interface SpeedComparison {
  original(): Promise<Session>;
  /** Median latency of the original over that of a model. */
  speedup(model: Model): Promise<number>;
  close(): Promise<void>;
}

export function speedComparison(
  spec: StaticSpec,
  samples: CalibrationSamples,
  originalPath: string,
  environment: JobEnvironment,
  signal: AbortSignal,
): SpeedComparison {
  const { threads } = spec.evaluation.latency;
  let opened: Promise<Session> | undefined;
  const original = () => (opened ??= environment.openSession({ path: originalPath }, { threads }));
  return {
    original,
    speedup: async (model) => {
      const [reference, feeds] = [await original(), await samples.first()];
      return usingModel(model, threads, environment, (session) => measureSpeedup(reference, session, feeds, signal));
    },
    close: async () => (await opened)?.close(),
  };
}

async function usingModel<T>(
  model: Model,
  threads: number,
  { openTemporary }: JobEnvironment,
  use: (session: Session) => Promise<T>,
): Promise<T> {
  const session = await openTemporary(model, { threads });
  try {
    return await use(session);
  } finally {
    await session.close();
  }
}

export interface Control {
  readonly target: AccuracyTarget;
  /** What is scored: a metric, or `sqnr_db`. */
  readonly score: string;
  readonly originalScore: number | null;
}

export const SQNR = "sqnr_db";

/** A limit that was asked for and is not kept. */
export function limitWarnings(
  { score, target }: Control,
  found: PipelineResult["control"],
): NonNullable<Compressed["warnings"]> {
  if (!found || found.reached) return [];
  const best = Math.max(...found.trials.map((trial) => trial.score));
  // Of a metric that is better when lower, the score is its negative.
  const told = (value: number) => `${Math.abs(value).toPrecision(4)}${score === SQNR ? " dB" : ""}`;
  const message = `The best of ${found.trials.length} models has ${score} ${told(best)} on the samples that it was chosen by, and ${told(target.target)} was asked for.`;
  return [{ code: "target_not_reached", message, value: best }];
}

/** What accuracy control is to hold, if anything was asked for. */
export async function accuracyTarget(
  spec: StaticSpec,
  samples: CalibrationSamples,
  { original, speedup }: SpeedComparison,
  environment: JobEnvironment,
  signal: AbortSignal,
): Promise<Control | undefined> {
  const { max_metric_drop: maxDrop, min_sqnr_db: minSqnrDb, max_trials: maxTrials } = spec.params;
  const { threads } = spec.evaluation.latency;
  const batches = () => samples.scored.batches({ batchSize: samples.batchSize, signal });
  const using = <T>(model: Model, use: (session: Session) => Promise<T>) =>
    usingModel(model, threads, environment, use);
  if (maxDrop === null) {
    if (typeof minSqnrDb !== "number") return undefined;
    const reference = await original();
    const score = (model: Model) => using(model, (session) => scoreFidelity(reference, session, batches(), signal));
    return { target: { score, speedup, target: minSqnrDb, maxTrials }, score: SQNR, originalScore: null };
  }
  const { ignore_label } = spec.evaluation;
  const scored = (session: Session, metric: MetricName | null) =>
    scoreModel(session, batches(), metric, ignore_label, signal);
  const { metric, value } = await scored(await original(), metricOf(spec.evaluation));
  const score = (model: Model) =>
    using(model, async (session) => scoreOf(metric, (await scored(session, metric)).value));
  const originalScore = scoreOf(metric, value);
  const target = originalScore - maxDrop;
  return { target: { score, speedup, target, maxTrials }, score: metric, originalScore };
}

/** What a poor result that nothing was asked of has to reach on few samples, so that it is above `LOW_SQNR_DB` on others. */
export const RESCUED_DB = LOW_SQNR_DB + 1;

/** What a poor result is brought to where nothing was asked for. */
export function rescueOf(
  { max_metric_drop, min_sqnr_db, max_trials: maxTrials }: StaticParams,
  { speedup }: SpeedComparison,
): PipelineOptions["rescue"] {
  const isWanted = max_metric_drop === null && min_sqnr_db === "auto";
  return isWanted ? { target: RESCUED_DB, speedup, maxTrials } : undefined;
}
