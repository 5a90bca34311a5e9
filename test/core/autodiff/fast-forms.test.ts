import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { buildGradients, TRAINING_OPSET } from "../../../src/core/autodiff/gradient.ts";
import { GraphBuilder } from "../../../src/core/onnx/graph-builder.ts";
import { Model, type Value } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { Random } from "../../../src/core/random.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { resolveStatics } from "../../../src/core/train/statics.ts";

type Feeds = Readonly<Record<string, Tensor>>;
type Values = Readonly<Record<string, Value>>;

/** The gradient by input `wanted` of Σ weight ⊙ y, where `y` emits y of the other feeds. */
async function gradientOf(feeds: Feeds, wanted: string, y: (g: GraphBuilder, v: Values) => Value) {
  const model = new Model({ irVersion: 10, opsets: [["", TRAINING_OPSET]], graphName: "forms" });
  const g = new GraphBuilder(model.graph);
  const values = Object.fromEntries(
    Object.entries(feeds).map(([name, { dims }]) => [name, model.graph.addInput(name, "float32", dims)]),
  );
  const loss = g.sumAll(g.mul(y(g, values), values.weight!));
  model.graph.addOutput(loss);
  await resolveStatics(model, feeds, openSession);
  const gradient = buildGradients(g, loss, [values[wanted]!]).get(values[wanted]!)!;
  model.graph.addOutput(gradient);
  const session = await openSession({ bytes: modelToBytes(model) });
  const result = floatsOf((await session.run(feeds))[gradient.name]!);
  await session.close();
  return { gradient: result, operators: model.graph.nodes.map(({ opType }) => opType) };
}

function drawn(stream: string, ...dims: number[]): Tensor {
  const data = new Float32Array(elementCount(dims));
  new Random(1, stream).fillNormal(data);
  return tensorOf("float32", dims, data);
}

describe("weights of a layer of many rows", () => {
  const rows = 1100;
  for (const [k, n] of [
    [24, 7],
    [7, 24],
    [16, 16],
  ] as const) {
    const x = drawn("x", rows, k);
    const weight = drawn("weight", rows, n);
    const expected = (i: number, j: number) => {
      let sum = 0;
      for (let row = 0; row < rows; row++) sum += floatsOf(x)[row * k + i]! * floatsOf(weight)[row * n + j]!;
      return sum;
    };
    const check = (gradient: ArrayLike<number>, at: (i: number, j: number) => number) => {
      for (let i = 0; i < k; i++) {
        for (let j = 0; j < n; j++) assert.ok(Math.abs(gradient[at(i, j)]! - expected(i, j)) < 2e-4, `${i}, ${j}`);
      }
    };

    test(`MatMul, ${k} to ${n}`, async () => {
      const { gradient } = await gradientOf({ x, w: drawn("w", k, n), weight }, "w", (g, { x: from, w }) =>
        g.matMul(from!, w!),
      );
      check(gradient, (i, j) => i * n + j);
    });

    test(`Gemm of a transposed weight, ${k} to ${n}`, async () => {
      const { gradient } = await gradientOf({ x, w: drawn("w", n, k), weight }, "w", (g, { x: from, w }) =>
        g.gemm(from!, w!, { transB: true }),
      );
      check(gradient, (i, j) => j * k + i);
    });
  }
});

test("Relu passes all of a gradient or nothing, however small or large the value", async () => {
  const numbers = [0, -0, 2 ** -126, -(2 ** -126), 1e-30, 1e-7, 0.3, 1, -1, 3e38, -3e38, Infinity, -Infinity];
  const x = tensorOf("float32", [numbers.length], numbers);
  const weight = drawn("weight", numbers.length);
  const { gradient, operators } = await gradientOf({ x, weight }, "x", (g, v) => g.op("Relu", [v.x]));
  assert.deepEqual(
    [...gradient],
    numbers.map((value, i) => (value > 0 ? floatsOf(weight)[i]! : 0 * floatsOf(weight)[i]!)),
  );
  assert.ok(!operators.includes("Cast"));
});
