import { type JobMetrics, type LayerError, type ModelFacts, verdictOf } from "../../../core/index.ts";
import type { JobSpec } from "../kinds.ts";
import { type RequestBody, requestOf } from "../requests.ts";
import { YOUR_DATASET } from "./remedies.ts";

/** Something worth doing after a job, and the request that does it. */
export interface NextStep {
  readonly title: string;
  readonly why: string;
  /** A body of `POST /v1/jobs`. */
  readonly job: RequestBody;
}

export interface Finished {
  readonly metrics: JobMetrics;
  readonly layerErrors: readonly LayerError[] | null;
  /** Of the original. */
  readonly facts: ModelFacts;
}

export interface Outcome extends Finished {
  /** Whether the outputs differ more than they should. */
  readonly isPoor: boolean;
  /** The limits that were not kept. */
  readonly missed: ReadonlySet<string>;
}

/** What a kind of job knows to go on with. */
export interface Continuations {
  /** After a poor result, before all else. */
  readonly repairs?: (outcome: Outcome) => readonly NextStep[];
  readonly further?: (outcome: Outcome) => readonly NextStep[];
}

const MAX_STEPS = 5;

/** What the service knows to try next, the most useful first. */
export function nextSteps(spec: JobSpec, finished: Finished, { repairs, further }: Continuations): readonly NextStep[] {
  const { metrics } = finished;
  const { grade } = verdictOf(metrics);
  const missed = new Set(metrics.acceptance.filter(({ ok }) => !ok).map(({ name }) => name));
  const isPoor =
    grade === "check_accuracy" ||
    grade === "broken" ||
    missed.has("max_metric_drop") ||
    missed.has("min_sqnr_db") ||
    metrics.warnings.some(({ code }) => code === "low_fidelity");
  const outcome = { ...finished, isPoor, missed };
  const steps = [
    ...(isPoor ? (repairs?.(outcome) ?? []) : []),
    ...(metrics.fidelity.data === "synthetic" ? [judgedOnData(spec)] : []),
    ...(further?.(outcome) ?? []),
  ];
  const seen = new Set<string>();
  return steps
    .filter(({ job }) => {
      const text = JSON.stringify(job);
      return !seen.has(text) && seen.add(text);
    })
    .slice(0, MAX_STEPS);
}

function judgedOnData(spec: JobSpec): NextStep {
  return {
    title: "Judge it on your own data",
    why: "Random inputs show that nothing broke. Whether answers stay right, only data can tell.",
    job: requestOf({ ...spec, evaluation: { ...spec.evaluation, dataset_id: YOUR_DATASET, dims: {} } }),
  };
}

/** Epochs that are worth trying after this many. */
export const moreEpochs = (epochs: number) => Math.min(500, 3 * epochs);
