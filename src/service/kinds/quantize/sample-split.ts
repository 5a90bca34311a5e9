import { type CalibratedSpec, isStatic } from "./spec.ts";

/** With fewer labelled samples than this besides those for calibration, candidates are scored on all there are. */
const MIN_SCORED_SAMPLES = 100;

/** Candidates of accuracy control are scored on so many samples unless the job says how many: there may be dozens of them. */
const MAX_SCORED_SAMPLES = 256;

/** Places in the shuffled order of a dataset: from the first to before the second. */
export type Span = readonly [number, number];

/**
 * Which of `total` samples serve what: calibration, then candidates of accuracy control, then the judgement of the result. A model that
 * takes `batchSize` samples at a time gets no fewer.
 */
export function splitSamples(
  spec: CalibratedSpec,
  total: number,
  batchSize: number,
): { readonly calibrating: Span; readonly scored: Span; readonly unseen: Span } {
  const { params, evaluation } = spec;
  const whole = (count: number) => count - (count % batchSize);
  const calibrated = whole(Math.min(params.samples + batchSize - 1, total));
  const left = total - calibrated;
  const wanted = whole((evaluation.samples ?? MAX_SCORED_SAMPLES) + batchSize - 1);
  const from = left < MIN_SCORED_SAMPLES ? 0 : calibrated;
  const scored = whole(Math.min(wanted, total - from));
  const isScored =
    isStatic(spec) && (spec.params.max_metric_drop !== null || typeof spec.params.min_sqnr_db === "number");
  return {
    calibrating: [0, calibrated],
    scored: [from, from + scored],
    unseen: [isScored ? Math.max(calibrated, from + scored) : calibrated, total],
  };
}
