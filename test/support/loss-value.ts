/** The value of a loss that is written as ONNX operators, and its gradient; and what it is held against: arithmetic in float64. */
import assert from "node:assert/strict";
import { buildGradients, TRAINING_OPSET } from "../../src/core/autodiff/gradient.ts";
import { GraphBuilder } from "../../src/core/onnx/graph-builder.ts";
import { Model, type Value } from "../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../../src/core/onnx/tensor.ts";
import { openSession } from "../../src/core/runtime/session.ts";
import { resolveStatics } from "../../src/core/train/statics.ts";

/** The value of a loss of these inputs, and its gradient with respect to `s`. */
export async function lossValue(
  inputs: Readonly<Record<string, Tensor>>,
  build: (g: GraphBuilder, v: Record<string, Value>) => Value,
): Promise<{ readonly loss: number; readonly gradient: readonly number[] }> {
  const model = new Model({ irVersion: 10, opsets: [["", TRAINING_OPSET]], graphName: "loss" });
  const values = Object.fromEntries(
    Object.entries(inputs).map(([name, { dtype, dims }]) => [name, model.graph.addInput(name, dtype, dims)]),
  );
  const g = new GraphBuilder(model.graph);
  const loss = build(g, values);
  model.graph.addOutput(loss);
  await resolveStatics(model, inputs, openSession);
  assert.deepEqual(loss.shape, [], "a loss is a scalar");
  const gradient = buildGradients(g, loss, [values.s!]).get(values.s!)!;
  model.graph.addOutput(gradient);
  const session = await openSession({ bytes: modelToBytes(model) });
  const results = await session.run(inputs);
  await session.close();
  return { loss: floatsOf(results[loss.name]!)[0]!, gradient: [...floatsOf(results[gradient.name]!)] };
}

export const floats = (dims: readonly number[], data: readonly number[]) => tensorOf("float32", dims, data);
export const classes = (...data: number[]) => tensorOf("int64", [data.length], data);
/** Numbers without a pattern. */
export const wave = (dims: readonly number[], phase: number) =>
  floats(
    dims,
    Array.from({ length: elementCount(dims) }, (_, i) => Math.sin(1.7 * i + phase) * 1.5),
  );

export function near(actual: number, expected: number, tolerance = 1e-5): void {
  assert.ok(
    Math.abs(actual - expected) <= tolerance * Math.max(1, Math.abs(expected)),
    `${actual}, expected ${expected}`,
  );
}

export const rowsOf = (value: Tensor, width = value.dims.at(-1)!): number[][] => {
  const data = [...floatsOf(value)];
  return Array.from({ length: data.length / width }, (_, i) => data.slice(i * width, (i + 1) * width));
};
export const mean = (values: readonly number[]) => values.reduce((sum, x) => sum + x, 0) / values.length;
export const sum = (values: readonly number[]) => values.reduce((total, x) => total + x, 0);
export const softmax = (z: readonly number[], t = 1) => {
  const e = z.map((x) => Math.exp(x / t));
  return e.map((x) => x / sum(e));
};
export const kl = (p: readonly number[], q: readonly number[]) =>
  sum(p.map((x, i) => (x > 0 ? x * Math.log(x / q[i]!) : 0)));
export const smoothL1 = (d: number) => (Math.abs(d) <= 1 ? (d * d) / 2 : Math.abs(d) - 0.5);
export const dot = (a: readonly number[], b: readonly number[]) => sum(a.map((x, i) => x * b[i]!));
