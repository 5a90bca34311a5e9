import assert from "node:assert/strict";

/**
 * Holds a number against the one that was recorded when the test was written, above and below. Seeds make it the same in every run on
 * one machine; kernels of other processors round otherwise, so that training ends a few samples away, and `within` is for that.
 */
export function assertRecorded(actual: number | null | undefined, recorded: number, within: number, what = ""): void {
  const off = typeof actual === "number" ? Math.abs(actual - recorded) : Number.NaN;
  assert.ok(off <= within, `${what} ${actual}, and ${recorded} ± ${within} when it was recorded`);
}
