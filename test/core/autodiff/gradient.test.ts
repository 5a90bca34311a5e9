import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { EXPANSIONS, expandOperators } from "../../../src/core/autodiff/expand.ts";
import { buildGradients, TRAINING_OPSET } from "../../../src/core/autodiff/gradient.ts";
import { GRADIENT_RULES } from "../../../src/core/autodiff/rules.ts";
import { GraphBuilder } from "../../../src/core/onnx/graph-builder.ts";
import { Model, type Value } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { elementCount, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { resolveStatics } from "../../../src/core/train/statics.ts";
import { GRADIENT_CASES, type GradientCase, type Input } from "./gradient-cases.ts";

/** Relative to the largest element of the gradient. */
const TOLERANCE = { float64: 1e-6, float32: 1e-3 } as const;
const STEP = { float64: 1e-5, float32: 1e-2 } as const;

describe("every gradient agrees with central finite differences", () => {
  for (const [index, entry] of GRADIENT_CASES.entries()) {
    const shapes = entry.inputs.map((input) => (input ? `[${input.dims}]` : "-")).join(" ");
    test(`${entry.op} ${entry.of ?? ""} ${shapes}`, () => checkGradient(entry, index + 1));
  }
});

test("every rule and every expansion has a case", () => {
  const covered = new Set(GRADIENT_CASES.map(({ op }) => op));
  // What straight-through rules give is not what finite differences find: `straight-through.test.ts` has the values.
  const exact = Object.keys(GRADIENT_RULES).filter((op) => !GRADIENT_RULES[op]!.straightThrough);
  const missing = [...exact, ...Object.keys(EXPANSIONS)].filter((op) => !covered.has(op));
  assert.deepEqual(missing, []);
});

async function checkGradient(entry: GradientCase, seed: number): Promise<void> {
  const dtype = entry.float32 ? "float32" : "float64";
  const random = generator(seed);
  const model = new Model({
    irVersion: 10,
    opsets: [["", entry.op === "RMSNormalization" ? 23 : TRAINING_OPSET]],
    graphName: "case",
  });
  const feeds: Record<string, Tensor> = {};
  const wanted: Value[] = [];
  const inputs = entry.inputs.map((input, i) => {
    if (!input) return undefined;
    if (input.values) {
      return model.graph.addInitializer(`c${i}`, tensorOf(input.dtype ?? dtype, input.dims, input.values));
    }
    const value = model.graph.addInput(`x${i}`, dtype, input.dims);
    feeds[value.name] = tensorOf(dtype, input.dims, sample(input, random));
    if (input.wanted !== false) wanted.push(value);
    return value;
  });
  const names = Array.from({ length: entry.outputs ?? 1 }, (_, i) => `y${i}`);
  const node = model.graph.append({
    opType: entry.op,
    name: entry.op,
    inputs,
    outputs: names,
    ...(entry.attrs && { attrs: entry.attrs }),
  });
  // Only real-valued outputs that the loss may use: not indices, not running averages.
  const used = entry.op === "TopK" || entry.op === "BatchNormalization" ? node.outputs.slice(0, 1) : node.outputs;
  for (const value of used) model.graph.addOutput(value);
  await resolveStatics(model, feeds, openSession);

  const forward = await openSession({ bytes: modelToBytes(model) });
  const weights = used.map((value) =>
    Array.from({ length: elementCount(value.shape as number[]) }, () => random() * 2 - 1),
  );
  const loss = async (point: Readonly<Record<string, Tensor>>): Promise<number> => {
    const results = await forward.run(point);
    let total = 0;
    weights.forEach((weight, output) => {
      const values = numbers(results[names[output]!]!);
      weight.forEach((w, i) => {
        total += w * values[i]!;
      });
    });
    return total;
  };

  const gradients = await backward(model, used, weights, wanted, feeds);
  const step = entry.step ?? STEP[dtype];
  for (const value of wanted) {
    const at = feeds[value.name]!;
    const actual = gradients[value.name]!;
    assert.deepEqual(actual.dims, at.dims, `shape of the gradient of ${value.name}`);
    const base = numbers(at);
    const expected: number[] = [];
    for (let i = 0; i < base.length; i++) {
      const moved = (by: number) =>
        tensorOf(
          dtype,
          at.dims,
          base.map((x, j) => (i === j ? x + by : x)),
        );
      const [above, below] = [moved(step), moved(-step)];
      const distance = numbers(above)[i]! - numbers(below)[i]!;
      expected.push(
        ((await loss({ ...feeds, [value.name]: above })) - (await loss({ ...feeds, [value.name]: below }))) / distance,
      );
    }
    const scale = Math.max(1e-2, ...expected.map(Math.abs));
    numbers(actual).forEach((x, i) => {
      const error = Math.abs(x - expected[i]!) / scale;
      assert.ok(
        error <= TOLERANCE[dtype],
        `d/d${value.name}[${i}]: ${x}, by differences ${expected[i]} (${error} relative)`,
      );
    });
  }
  await forward.close();
}

/** dL/d(wanted) of L = Σ weight · output, by the walk. */
async function backward(
  model: Model,
  outputs: readonly Value[],
  weights: readonly (readonly number[])[],
  wanted: readonly Value[],
  feeds: Readonly<Record<string, Tensor>>,
): Promise<Record<string, Tensor>> {
  if (expandOperators(model.graph)) await resolveStatics(model, feeds, openSession);
  const g = new GraphBuilder(model.graph);
  const results = [...model.graph.outputs];
  const terms = results.map((value, i) =>
    g.sumAll(g.mul(value, g.constant(value.dtype as "float32", value.shape as number[], weights[i]!))),
  );
  const loss = terms.reduce((sum, term) => g.add(sum, term));
  for (const value of results) model.graph.removeOutput(value);
  model.graph.addOutput(loss);
  await resolveStatics(model, feeds, openSession);
  assert.equal(outputs.length, weights.length);
  const gradients = buildGradients(g, loss, wanted);
  model.graph.removeOutput(loss);
  for (const value of wanted) {
    const gradient = gradients.get(value);
    assert.ok(gradient, `no gradient reaches ${value.name}`);
    model.graph.addOutput(gradient);
  }
  const session = await openSession({ bytes: modelToBytes(model) });
  const run = await session.run(feeds);
  await session.close();
  return Object.fromEntries(wanted.map((value) => [value.name, run[gradients.get(value)!.name]!]));
}

function numbers(value: Tensor): number[] {
  const { buffer, byteOffset, byteLength } = value.bytes;
  return value.dtype === "float64"
    ? Array.from(new Float64Array(buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer))
    : Array.from(new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer));
}

function sample({ dims, kind }: Input, random: () => number): number[] {
  const count = elementCount(dims);
  if (kind === "positive") return Array.from({ length: count }, () => 0.5 + random());
  if (kind !== "spread") return Array.from({ length: count }, () => gaussian(random) * (kind === "small" ? 0.4 : 1));
  // Multiples of 0.13 plus an offset that differs for each draw: no two values, and no kink, closer than the step.
  const offset = 0.031 + 0.03 * random();
  const order = Array.from({ length: count }, (_, i) => i).sort(() => random() - 0.5);
  return order.map((rank) => (rank - Math.floor(count / 2)) * 0.13 + offset);
}

function gaussian(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** A small generator of its own (Numerical Recipes' LCG), so that the cases do not depend on code under test. */
function generator(seed: number): () => number {
  let state = (seed * 2654435761) >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
