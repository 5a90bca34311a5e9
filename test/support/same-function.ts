import assert from "node:assert/strict";
import type { Model } from "../../src/core/onnx/ir.ts";
import { arrayOf, type Tensor } from "../../src/core/onnx/tensor.ts";
import { runModel } from "./open-model.ts";

/**
 * Runs both models in onnxruntime on the same feeds. Float outputs must agree to `tolerance` times the largest magnitude of the
 * output, everything else exactly. Both run with graph optimizations off, so that the graphs are compared and not what the runtime makes
 * of them.
 */
export async function assertSameFunction(
  before: Model,
  after: Model,
  feeds: Readonly<Record<string, Tensor>>,
  tolerance = 1e-5,
): Promise<void> {
  const options = { optimization: "disabled" } as const;
  const [expected, actual] = [await runModel(before, feeds, options), await runModel(after, feeds, options)];
  assert.deepEqual(Object.keys(actual), Object.keys(expected), "the same outputs");
  for (const [name, x] of Object.entries(expected)) {
    const y = actual[name]!;
    assert.deepEqual([y.dtype, [...y.dims]], [x.dtype, [...x.dims]], `${name}: type and shape`);
    if (x.dtype !== "float32") {
      assert.deepEqual(y.bytes, x.bytes, name);
      continue;
    }
    const error = relativeError(arrayOf(x, "float32"), arrayOf(y, "float32"));
    assert.ok(error <= tolerance, `${name} differs by ${error} of its largest value (at most ${tolerance})`);
  }
}

/** max|x − y| / max|x|; infinite when one of them is not finite where the other is. */
export function relativeError(x: Float32Array, y: Float32Array): number {
  let difference = 0;
  let largest = 0;
  for (let i = 0; i < x.length; i++) {
    if (Object.is(x[i], y[i])) continue;
    difference = Math.max(difference, Math.abs(x[i]! - y[i]!));
    if (Number.isNaN(difference)) return Number.POSITIVE_INFINITY;
  }
  for (const value of x) largest = Math.max(largest, Math.abs(value));
  return difference === 0 ? 0 : difference / largest;
}
