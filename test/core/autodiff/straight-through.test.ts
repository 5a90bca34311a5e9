import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { buildGradients, findUndifferentiable, TRAINING_OPSET } from "../../../src/core/autodiff/gradient.ts";
import { GRADIENT_RULES } from "../../../src/core/autodiff/rules.ts";
import { GraphBuilder, int, ints } from "../../../src/core/onnx/graph-builder.ts";
import { Model, type Value } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { type ArrayDType, floatsOf, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { resolveStatics } from "../../../src/core/train/statics.ts";

/** Gradients of Σ w·y for y = `build`(x, scale). */
async function gradientsOf(
  x: Tensor,
  scale: Tensor,
  weights: readonly number[],
  build: (g: GraphBuilder, x: Value, scale: Value) => Value,
): Promise<{ readonly dx: readonly number[]; readonly ds: readonly number[] | undefined }> {
  const model = new Model({ irVersion: 10, opsets: [["", TRAINING_OPSET]], graphName: "test" });
  const g = new GraphBuilder(model.graph);
  const inputs = [
    model.graph.addInput("x", "float32", x.dims),
    model.graph.addInput("scale", "float32", scale.dims),
  ] as const;
  const y = build(g, ...inputs);
  y.dtype = "float32";
  const loss = g.sumAll(g.mul(y, g.constant("float32", x.dims, weights)));
  model.graph.addOutput(loss);
  const feeds = { x, scale };
  await resolveStatics(model, feeds, openSession);
  assert.deepEqual(findUndifferentiable(model, inputs), []);
  const gradients = buildGradients(g, loss, inputs);
  const [dx, ds] = inputs.map((value) => gradients.get(value));
  for (const value of [dx, ds]) if (value && !value.isGraphOutput) model.graph.addOutput(value);
  const session = await openSession({ bytes: modelToBytes(model) });
  const results = await session.run(feeds);
  await session.close();
  const numbers = (value: Value | undefined) => value && [...floatsOf(results[value.name]!)];
  return { dx: numbers(dx)!, ds: numbers(ds) };
}

const near = (actual: readonly number[] | undefined, expected: readonly number[]) => {
  assert.equal(actual?.length, expected.length);
  for (const [i, value] of expected.entries()) {
    assert.ok(Math.abs(actual![i]! - value) < 1e-5, `[${i}]: ${actual![i]} and not ${value}`);
  }
};

const quantized = (g: GraphBuilder, x: Value, scale: Value, zero: Value, axis = 1) => {
  const q = g.op("QuantizeLinear", [x, scale, zero], { axis: int(axis) });
  q.dtype = zero.dtype;
  return q;
};
const dequantized = (g: GraphBuilder, q: Value, scale: Value, zero: Value, axis = 1) =>
  g.op("DequantizeLinear", [q, scale, zero], { axis: int(axis) });

/** The gradients of fake quantization as LSQ has them. */
function expected(
  x: readonly number[],
  weights: readonly number[],
  scaleOf: (i: number) => number,
  range: { readonly zero: number; readonly low: number; readonly high: number },
) {
  const { zero, low, high } = range;
  const inside = x.map((value, i) => value / scaleOf(i) + zero >= low && value / scaleOf(i) + zero <= high);
  const ofScale = x.map((value, i) => {
    const ratio = value / scaleOf(i);
    const q = Math.min(high, Math.max(low, Math.round(ratio) + zero));
    return weights[i]! * (inside[i] ? q - zero - ratio : q - zero);
  });
  return { dx: weights.map((w, i) => (inside[i] ? w : 0)), ofScale };
}

describe("straight-through rules", () => {
  test("they are these, and are marked", () => {
    const marked = Object.keys(GRADIENT_RULES).filter((op) => GRADIENT_RULES[op]!.straightThrough);
    assert.deepEqual(marked.sort(), ["DequantizeLinear", "QuantizeLinear", "Round"]);
  });

  test("Round lets the gradient through as it is", async () => {
    const { dx, ds } = await gradientsOf(
      tensorOf("float32", [4], [0.4, -1.6, 2.5, 7]),
      tensorOf("float32", [], [2]),
      [1, -2, 3, 0.5],
      (g, x, scale) => g.mul(g.op("Round", [g.div(x, scale)]), scale),
    );
    near(dx, [1, -2, 3, 0.5]);
    // d/ds s·round(x/s) = round(x/s) − x/s: 0 − 0.2, −1 + 0.8, 1 − 1.25, 4 − 3.5 (halves round to even)
    near(ds, [-0.2 + 0.4 - 0.75 + 0.25]);
  });

  const x = [0.1, -0.26, 0.9, -3, 13, 0.04, -13, 1.27];
  const weights = [1, 2, -1, 0.5, 3, -2, 4, 1.5];
  for (const [dtype, zero, low, high] of [
    ["int8", 0, -128, 127],
    ["uint8", 100, 0, 255],
    ["uint8", 3, 0, 255],
  ] as const satisfies readonly (readonly [ArrayDType, number, number, number])[]) {
    test(`one scale, ${dtype} around ${zero}: nothing through where it is clipped, the scale as in LSQ`, async () => {
      const result = await gradientsOf(
        tensorOf("float32", [2, 4], x),
        tensorOf("float32", [], [0.1]),
        weights,
        (g, value, scale) => {
          const point = g.constant(dtype, [], [zero]);
          return dequantized(g, quantized(g, value, scale, point), scale, point);
        },
      );
      const { dx, ofScale } = expected(x, weights, () => Math.fround(0.1), { zero, low, high });
      near(result.dx, dx);
      near(result.ds, [ofScale.reduce((sum, value) => sum + value, 0)]);
    });
  }

  for (const [dtype, zero, low, high] of [
    ["int8", 0, -128, 127],
    ["uint8", 100, 0, 255],
  ] as const satisfies readonly (readonly [ArrayDType, number, number, number])[]) {
    test(`the least and the largest ${dtype} are not clipped yet, half a step more is`, async () => {
      const edges = [low - zero - 0.5, low - zero, high - zero, high - zero + 0.5].map((ratio) => ratio / 4);
      const result = await gradientsOf(
        tensorOf("float32", [2, 2], edges),
        tensorOf("float32", [], [0.25]),
        [1, 2, 3, 4],
        (g, value, scale) => {
          const point = g.constant(dtype, [], [zero]);
          return dequantized(g, quantized(g, value, scale, point), scale, point);
        },
      );
      near(result.dx, [0, 2, 3, 0]);
      near(result.ds, [low - zero + 4 * (high - zero)]);
    });
  }

  for (const [rows, columns] of [
    [0, 1],
    [-2, -1],
  ] as const)
    test(`a scale for each row, axis ${rows}, and what moves elements between the two operators`, async () => {
      const scales = [0.02, 0.2];
      const result = await gradientsOf(
        tensorOf("float32", [2, 4], x),
        tensorOf("float32", [2], scales),
        weights,
        (g, value, scale) => {
          const point = g.constant("int8", [2], [0, 0]);
          const turned = g.op("Transpose", [quantized(g, value, scale, point, rows)], { perm: ints([1, 0]) });
          return g.transpose(dequantized(g, turned, scale, point, columns), [1, 0]);
        },
      );
      const scaleOf = (i: number) => Math.fround(scales[i >> 2]!);
      const { dx, ofScale } = expected(x, weights, scaleOf, { zero: 0, low: -128, high: 127 });
      near(result.dx, dx);
      near(
        result.ds,
        [0, 1].map((row) => ofScale.slice(4 * row, 4 * row + 4).reduce((sum, value) => sum + value, 0)),
      );
    });

  test("what computes with quantized values has no rule, and is named", () => {
    const model = new Model({ irVersion: 10, opsets: [["", TRAINING_OPSET]], graphName: "test" });
    const g = new GraphBuilder(model.graph);
    const value = model.graph.addInput("x", "float32", [2, 2]);
    const q = quantized(g, value, g.constant("float32", [], [0.1]), g.constant("int8", [], [0]));
    const product = g.op("MatMulInteger", [q, g.constant("int8", [2, 2], [1, 2, 3, 4])]);
    product.dtype = "int32";
    model.graph.addOutput(g.cast(product, "float32"));
    assert.deepEqual(
      findUndifferentiable(model, [value]).map(({ node }) => node.opType),
      ["MatMulInteger"],
    );
  });
});
