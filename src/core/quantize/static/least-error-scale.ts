/** The scale at which rounding loses least. */
import type { CodeRange } from "../params.ts";

/** Parts of the largest value that are tried as the end of the range. */
const SHARES = Array.from({ length: 81 }, (_, i) => 1 - i / 100);

/**
 * The scale s of the least Σ (w − s·clip(round(w/s), min, max))², out of those that clip nothing to those that clip the upper 80 % of the range. 0 for
 * zeros.
 */
export function leastErrorScale(values: Float32Array, { min, max }: CodeRange): number {
  let largest = 0;
  for (const w of values) largest = Math.max(largest, Math.abs(w));
  let [best, least] = [largest / max, Number.POSITIVE_INFINITY];
  for (const share of largest > 0 ? SHARES : []) {
    const scale = (share * largest) / max;
    let error = 0;
    for (const w of values) {
      const q = Math.min(Math.max(Math.round(w / scale), min), max);
      error += (w - scale * q) ** 2;
    }
    if (error < least) [best, least] = [scale, error];
  }
  return best;
}
