import assert from "node:assert/strict";
import { test } from "node:test";
import { float, GraphBuilder, int } from "../../../src/core/onnx/graph-builder.ts";
import { Model } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { Random } from "../../../src/core/random.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { crossEntropy } from "../../../src/core/train/losses.ts";
import { shareNormalizations } from "../../../src/core/train/shared-normalizations.ts";
import { batchFeeds, buildStepGraph, soloNetwork } from "../../../src/core/train/step-graph.ts";
import { createTrainable } from "../../../src/core/train/trainable.ts";
import { resNet18 } from "../../support/networks.ts";

const EPSILON = 1e-5;

function drawn(stream: string, dims: readonly number[], mean = 0, deviation = 1): Tensor {
  const data = new Float32Array(elementCount(dims));
  new Random(5, stream).fillNormal(data);
  return tensorOf(
    "float32",
    dims,
    data.map((value) => mean + deviation * value),
  );
}

/** A BatchNormalization by batch statistics and a Relu behind it. */
function normalization(dims: readonly number[], { training = true, mean = 0 } = {}) {
  const channels = [dims[1]!];
  const feeds: Record<string, Tensor> = {
    x: drawn("x", dims, mean),
    gamma: drawn("gamma", channels, 1, 0.3),
    beta: drawn("beta", channels),
    mean: drawn("mean", channels),
    variance: drawn("variance", channels, 1, 0.1),
  };
  const model = new Model({ irVersion: 10, opsets: [["", 21]], graphName: "normalization" });
  const { graph } = model;
  const g = new GraphBuilder(graph);
  const inputs = Object.entries(feeds).map(([name, value]) => graph.addInput(name, "float32", value.dims));
  const made = g.ops("BatchNormalization", inputs, training ? 3 : 1, {
    epsilon: float(EPSILON),
    ...(training && { training_mode: int(1), momentum: float(0) }),
  });
  const relu = g.op("Relu", [made[0]]);
  for (const [i, value] of [relu, ...made].entries()) {
    value.name = ["relu", "y", "mean_out", "variance_out"][i]!;
    graph.addOutput(value);
  }
  return { model, feeds };
}

async function run(model: Model, feeds: Record<string, Tensor>, threads: number) {
  const session = await openSession({ bytes: modelToBytes(model) }, { threads });
  const results = await session.run(feeds);
  await session.close();
  return Object.fromEntries(Object.entries(results).map(([name, value]) => [name, floatsOf(value)]));
}

/** y, mean and variance in float64. */
function exact({ x, gamma, beta }: Record<string, Tensor>) {
  const [n, channels, ...space] = x!.dims as [number, number, number, number];
  const positions = elementCount(space);
  const values = floatsOf(x!);
  const y = new Float64Array(values.length);
  const [means, variances] = [new Float64Array(channels), new Float64Array(channels)];
  for (let c = 0; c < channels; c++) {
    const at = (i: number) => (Math.floor(i / positions) * channels + c) * positions + (i % positions);
    const count = n * positions;
    for (let i = 0; i < count; i++) means[c]! += values[at(i)]! / count;
    for (let i = 0; i < count; i++) variances[c]! += (values[at(i)]! - means[c]!) ** 2 / count;
    const scale = floatsOf(gamma!)[c]! / Math.sqrt(variances[c]! + EPSILON);
    for (let i = 0; i < count; i++) y[at(i)] = scale * (values[at(i)]! - means[c]!) + floatsOf(beta!)[c]!;
  }
  return { y, mean_out: means, variance_out: variances, relu: y.map((value) => Math.max(value, 0)) };
}

for (const mean of [0, 50]) {
  test(`a shared normalization computes what float64 does, values around ${mean}`, async () => {
    const { model, feeds } = normalization([3, 5, 40, 26], { mean });
    assert.equal(shareNormalizations(model.graph), 1);
    const expected = exact(feeds);
    const first = await run(model, feeds, 2);
    for (const [name, values] of Object.entries(expected)) {
      const actual = first[name]!;
      assert.equal(actual.length, values.length);
      // What float32 holds of x is a part in 10⁷ of the mean.
      const tolerance = 2e-6 * (1 + mean);
      for (const [i, value] of values.entries()) {
        assert.ok(Math.abs(actual[i]! - value) <= tolerance * Math.max(1, Math.abs(value)), `${name} ${i}`);
      }
    }
    assert.deepEqual(await run(model, feeds, 2), first);
  });
}

test("small maps, given statistics and other ranks stay as they are", () => {
  assert.equal(shareNormalizations(normalization([6, 5, 28, 28]).model.graph), 0);
  assert.equal(shareNormalizations(normalization([3, 5, 40, 26], { training: false }).model.graph), 0);
  assert.equal(shareNormalizations(normalization([3, 5, 1040]).model.graph), 0);
});

test("the step of two threads has the loss, the gradients and the statistics of the step of one", async () => {
  const trainable = createTrainable(resNet18({ size: 32, classes: 10, width: 8 }));
  const batch = {
    feeds: { x: drawn("images", [8, 3, 32, 32]) },
    targets: {
      labels: tensorOf(
        "int64",
        [8],
        BigInt64Array.from({ length: 8 }, (_, i) => BigInt(i % 10)),
      ),
    },
  };
  const steps = [];
  for (const threads of [1, 2]) {
    const graph = await buildStepGraph([soloNetwork(trainable)], {
      batch,
      objective: ({ g, value, target }) => [
        { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")), overSamples: true },
      ],
      ...{ seed: 1, threads, openSession },
    });
    const session = await openSession({ bytes: graph.model }, { threads });
    const results = await session.run({ ...graph.feeds, ...batchFeeds(batch) });
    await session.close();
    const names = [graph.loss, ...graph.parameters.map(({ gradient }) => gradient!), ...graph.parts[0]!.outputs];
    steps.push(names.map((name) => floatsOf(results[name]!)));
  }
  const [one, two] = steps as [Float32Array[], Float32Array[]];
  for (const [i, values] of one.entries()) {
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    for (const [j, value] of values.entries()) assert.ok(Math.abs(value - two[i]![j]!) <= 2e-5 * largest + 1e-7);
  }
});
