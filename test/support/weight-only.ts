/** What tests of weight-only quantization share: its pass with defaults, and what a dequantized weight may be off by. */
import assert from "node:assert/strict";
import { type WeightOnlyOptions, weightOnlyPass } from "../../src/core/quantize/weights/weight-only.ts";

export const DEFAULTS: WeightOnlyOptions = {
  bits: 8,
  blockSize: 32,
  symmetric: false,
  format: "matmulnbits",
  embeddings: true,
  accuracyLevel: 1,
  exclude: { nodes: [], ops: [] },
};

export function weightOnly(options: Partial<WeightOnlyOptions> = {}) {
  return weightOnlyPass({ ...DEFAULTS, ...options });
}

/** The largest |x − x̂| of a block of values: half a step of its own range (a whole one past the shorter side of signed symmetric codes). */
function blockTolerance(values: readonly number[], bits: number, symmetric: boolean): number {
  const lo = Math.min(0, ...values);
  const hi = Math.max(0, ...values);
  if (!symmetric) return (hi - lo) / (2 ** bits - 1) / 2;
  const reach = Math.max(-lo, hi);
  return bits === 8 ? reach / 127 / 2 : reach / 2 ** (bits - 1);
}

/** Checks a dequantized weight [rows, depth] against the original, block by block. */
export function assertDequantized(
  original: (row: number, d: number) => number,
  actual: (row: number, d: number) => number,
  [rows, depth]: readonly [number, number],
  { bits, blockSize, symmetric }: { bits: number; blockSize: number; symmetric: boolean },
  scaleError = 2 ** -22,
): void {
  for (let row = 0; row < rows; row++) {
    for (let from = 0; from < depth; from += blockSize) {
      const to = Math.min(depth, from + blockSize);
      const block = Array.from({ length: to - from }, (_, i) => original(row, from + i));
      const tolerance = blockTolerance(block, bits, symmetric);
      const slack = Math.max(...block.map(Math.abs)) * scaleError;
      block.forEach((value, i) => {
        const error = Math.abs(value - actual(row, from + i));
        assert.ok(error <= tolerance + slack, `[${row}, ${from + i}]: ${error} is more than ${tolerance}`);
      });
    }
  }
}
