import type { AutoSpec } from "../spec.ts";
import { distanceTo, type Measured, sqnrOf } from "./front.ts";
import type { Tried } from "./search.ts";

/** What is worth trying early where plain static quantization misses a limit of quality. Pure: the same trials give the same answer. */

/** What trials may say too much of the signal to noise ratio, on few samples. */
export const TRIAL_DB = 0.5;
/**
 * Rounding with more care takes up to so many times as long as plain static quantization, which has calibrated and measured kernels for it, and a candidate of mixed
 * precision, should that be needed, half as long.
 */
const CAREFUL_SLOWER = 1.5;
const MIXED_SLOWER = 0.5;

/** So near to a limit few samples say little of whether it is held, in dB: a few of them may have most of the noise. */
const NEAR_DB = 3;

/** Whether few samples leave it open whether the limits of quality are held. */
export function isOpen(
  { fidelity, accuracy }: Pick<Measured, "fidelity" | "accuracy">,
  { max_metric_drop: most, min_sqnr_db: least }: AutoSpec["params"]["constraints"],
): boolean {
  const [low, high] = accuracy?.interval ?? [0, 0];
  const isDropOpen = most !== null && accuracy !== null && low <= most && most <= high;
  return isDropOpen || (least !== null && Math.abs(sqnrOf({ fidelity }) - least) <= NEAR_DB);
}

/** Whether a candidate has kept to the limits of quality in its trial, and not so narrowly that other samples are likely to say otherwise. */
export function keepsToLimits({ trial, dropped }: Tried, { constraints }: AutoSpec["params"]): boolean {
  if (!trial || dropped) return false;
  const { max_metric_drop, min_sqnr_db: least } = constraints;
  const none = { max_size_bytes: null, max_size_ratio: null, min_speedup: null, max_latency_ms: null };
  const min_sqnr_db = least === null ? null : least + TRIAL_DB;
  return distanceTo({ ...none, max_memory_bytes: null, max_metric_drop, min_sqnr_db }, trial) === 0;
}

/**
 * Whether rounding weights with more care may be all that is needed, and there is time for it before layers are measured: without what the weights alone lose the
 * rest must be within the limit. `weights` is the model with 8-bit weights that computes in float.
 */
export function careMayDo(
  plain: Tried,
  weights: Tried | undefined,
  { constraints: { min_sqnr_db: least } }: AutoSpec["params"],
  leftMs: number,
): boolean {
  if (!plain.trial || leftMs < (CAREFUL_SLOWER + MIXED_SLOWER) * plain.ms) return false;
  if (least === null || !weights?.trial) return true;
  const noise = ({ trial }: Tried) => 10 ** (-sqnrOf(trial!) / 10);
  return noise(plain) - noise(weights) <= 10 ** (-least / 10);
}
