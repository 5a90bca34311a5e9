import assert from "node:assert/strict";
import { test } from "node:test";
import { CoreError } from "../../../src/core/errors.ts";
import { float, GraphBuilder, int } from "../../../src/core/onnx/graph-builder.ts";
import { Model, type Value } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { crossEntropy } from "../../../src/core/train/losses.ts";
import { decays } from "../../../src/core/train/parameters.ts";
import { drawMask } from "../../../src/core/train/rewrites.ts";
import { batchFeeds, buildStepGraph, type StepGraph, soloNetwork } from "../../../src/core/train/step-graph.ts";
import {
  checkTrainable,
  createTrainable,
  exportTrained,
  type TrainableModel,
} from "../../../src/core/train/trainable.ts";
import { branches } from "../../support/graphs.ts";
import { NetworkBuilder, resNet18, transformer } from "../../support/networks.ts";

const wave = (dims: readonly number[], phase = 0.5) =>
  tensorOf(
    "float32",
    dims,
    Float32Array.from({ length: elementCount(dims) }, (_, i) => Math.sin(1.3 * i + phase)),
  );

/** A model with weights in initializers, in a Constant node and behind a Transpose, one of them used twice. */
function mixed(): Model {
  const model = new Model({ irVersion: 8, opsets: [["", 13]], graphName: "mixed" });
  const { graph } = model;
  const g = new GraphBuilder(graph);
  const x = graph.addInput("x", "float32", ["n", 3]);
  const scaled = g.div(g.sub(x, g.constant("float32", [3], [0.1, 0.2, 0.3])), g.constant("float32", [3], [2, 3, 4]));
  const tied = graph.addInitializer("tied", wave([3, 3]));
  const first = g.matMul(scaled, g.op("Transpose", [tied], {}));
  const bias = graph.append({
    opType: "Constant",
    inputs: [],
    outputs: ["bias"],
    attrs: { value: { type: "tensor", value: wave([3], 2) } },
  }).outputs[0]!;
  model.claimName("bias");
  const hidden = g.op("Relu", [g.add(g.matMul(first, tied), bias)]);
  const y = g.op("Clip", [hidden, g.constant("float32", [], [0]), g.constant("float32", [], [6])]);
  graph.addOutput(y);
  return model;
}

const names = (trainable: TrainableModel) => trainable.parameters.map(({ name }) => name);

test("weights are found wherever they are kept; constants that normalise the input are not weights", () => {
  const trainable = createTrainable(mixed());
  assert.deepEqual(names(trainable), ["tied", "bias"]);
  assert.deepEqual(trainable.parameters.map(decays), [true, false]);
});

test("every weight of a transformer and of a residual network is found", () => {
  const encoder = createTrainable(
    transformer({ layers: 2, width: 8, heads: 2, length: 4, vocabulary: 11, classes: 3 }),
  );
  // Embedding, positions, per layer 2 norms and 6 dense layers, a last norm and the classifier.
  assert.equal(encoder.parameters.length, 2 + 2 * (4 + 12) + 4);
  assert.deepEqual(
    encoder.parameters
      .filter(decays)
      .map(({ role }) => role)
      .sort(),
    ["bias", "embedding", ...Array(13).fill("weight")].filter((role) => role !== "bias"),
  );
  const residual = createTrainable(resNet18({ size: 8, classes: 3, width: 4 }));
  assert.equal(residual.statistics.length, 20);
  assert.equal(residual.parameters.length, 20 + 40 + 2);
});

test("frozen constants stay, unknown names are refused", () => {
  assert.deepEqual(names(createTrainable(mixed(), { frozen: ["tied"] })), ["bias"]);
  const refused = (run: () => void, code: string, subject?: string) =>
    assert.throws(run, (error) => error instanceof CoreError && error.code === code && error.subject === subject);
  refused(() => createTrainable(mixed(), { frozen: ["nothing"] }), "invalid_params", "nothing");
  refused(() => createTrainable(mixed(), { watch: ["nothing"] }), "invalid_params", "nothing");
  const net = new NetworkBuilder();
  const bare = net.output(net.relu(net.input(["n", 2])), ["n", 2]);
  refused(() => checkTrainable(bare), "unsupported");
});

test("a model without anything to train says why", () => {
  const inBodies = branches();
  const [owner] = inBodies.graph.nodes;
  for (const [run, code, message, subject] of [
    [
      () => checkTrainable(inBodies),
      "unsupported",
      /in the bodies of ".*", and no gradient is known for If/,
      owner!.label,
    ],
    [
      () => checkTrainable(mixed(), { frozen: ["tied", "bias"] }),
      "invalid_params",
      /All weights .* are frozen/,
      undefined,
    ],
  ] as const) {
    assert.throws(run, (error) => {
      assert.ok(error instanceof CoreError);
      assert.match(error.message, message);
      assert.deepEqual([error.code, error.subject], [code, subject]);
      return true;
    });
  }
});

test("a constant is a weight by any of its uses, and an operator that nobody knows is refused by name", () => {
  const net = new NetworkBuilder();
  const x = net.input(["n", 3]);
  const weight = net.model.graph.addInitializer("w", wave([3, 3]));
  const y = net.g.matMul(net.g.add(x, weight), weight);
  assert.deepEqual(
    createTrainable(net.output(y, ["n", 3])).parameters.map(({ name, role }) => [name, role]),
    [["w", "weight"]],
  );
  net.model.requireOpset("custom", 1);
  net.output(net.g.op("Unknown", [y], {}, "custom"), ["n", 3], "unknown");
  assert.throws(() => createTrainable(net.model), { code: "unsupported", message: /custom\.Unknown/ });
});

test("weights that are not float32 are refused by name", () => {
  const model = new Model({ irVersion: 8, opsets: [["", 13]], graphName: "half" });
  const weight = model.graph.addInitializer("w", tensorOf("float16", [2, 2], new Float16Array(4)));
  const g = new GraphBuilder(model.graph);
  model.graph.addOutput(g.matMul(model.graph.addInput("x", "float16", ["n", 2]), weight));
  assert.throws(
    () => createTrainable(model),
    (error) => error instanceof CoreError && error.code === "unsupported" && error.subject === "w",
  );
});

test("the exported model is the source with other numbers", () => {
  const source = mixed();
  const trainable = createTrainable(source);
  for (const { data } of trainable.parameters) data.fill(0.25);
  const exported = exportTrained(trainable);
  assert.equal(exported.opset, 13);
  assert.deepEqual(
    exported.graph.nodes.map(({ opType }) => opType),
    source.graph.nodes.map(({ opType }) => opType).filter((opType) => opType !== "Constant"),
  );
  const reloaded = loadModel(modelToBytes(exported));
  const constants = new Map([...reloaded.graph.initializers].map((value) => [value.name, value.constant!]));
  for (const name of ["tied", "bias"]) assert.ok(floatsOf(constants.get(name)!).every((x) => x === 0.25));
  const untouched = createTrainable(mixed());
  assert.deepEqual(
    untouched.parameters.map(({ data }) => [...data]),
    [[...floatsOf(wave([3, 3]))], [...floatsOf(wave([3], 2))]],
  );
});

test("weights drawn anew have the variance of their layer, and only depend on the seed and their name", () => {
  const net = new NetworkBuilder();
  const wide = net.relu(net.linear(net.input(["n", 400]), 400, 300));
  const model = net.output(net.linear(wide, 300, 50), ["n", 50]);
  const [a, b] = [1, 1].map((seed) => createTrainable(model, { reinitializeSeed: seed }));
  assert.deepEqual(a!.parameters, b!.parameters);
  const variance = (data: Float32Array) => data.reduce((sum, x) => sum + x * x, 0) / data.length;
  const [first, bias, last] = a!.parameters.map(({ data }) => data);
  // The variance of n normal numbers has a relative standard deviation of √(2/n): four of them.
  assert.ok(Math.abs(variance(first!) / (2 / 400) - 1) < 4 * Math.sqrt(2 / (400 * 300)));
  assert.ok(Math.abs(variance(last!) / (2 / 350) - 1) < 4 * Math.sqrt(2 / (300 * 50)));
  assert.ok(bias!.every((x) => x === 0));
});

test("a loss that reads nothing trained is refused", async () => {
  const net = new NetworkBuilder();
  const model = net.output(net.linear(net.input(["n", 3]), 3, 2), ["n", 2]);
  const step = buildStepGraph([soloNetwork(createTrainable(model))], {
    batch: { feeds: { x: wave([4, 3]) }, targets: {} },
    objective: ({ g, value }) => [{ name: "input", weight: 1, value: g.meanAll(g.square(value("x"))) }],
    seed: 1,
    openSession,
  });
  await assert.rejects(step, { code: "invalid_params", message: /does not depend on anything that can be trained/ });
});

/** Runs a step graph on a batch. */
async function runStep(graph: StepGraph, feeds: Readonly<Record<string, Tensor>>) {
  const session = await openSession({ bytes: graph.model });
  const results = await session.run({ ...graph.feeds, ...feeds });
  await session.close();
  return results;
}

/** Convolution, BatchNormalization, Dropout, two branches that meet, and a dense layer. */
function branching(): Model {
  const net = new NetworkBuilder(4);
  const x = net.batchNorm(net.conv(net.input(["n", 2, 6, 6]), 2, 3, { stride: 2 }), 3);
  const left = net.g.op("Sigmoid", [net.conv(x, 3, 3, { group: 3 })]);
  const dropped = net.g.op("Dropout", [net.g.add(left, x), net.g.constant("float32", [], [0.5])]);
  return net.output(net.linear(net.globalAverage(dropped), 3, 4), ["n", 4]);
}

test("the gradient of a whole network agrees with finite differences of its own loss", async () => {
  const trainable = createTrainable(branching());
  const batch = { feeds: { x: wave([5, 2, 6, 6]) }, targets: { labels: tensorOf("int64", [5], [0, 3, 1, 2, 3]) } };
  const graph = await buildStepGraph([soloNetwork(trainable)], {
    batch,
    objective: ({ g, value, target }) => [
      { name: "label", weight: 2, value: crossEntropy(g, value("logits"), target("labels"), 0.1) },
    ],
    seed: 1,
    openSession,
  });
  const masks = Object.assign({}, ...graph.parts.map((part) => part.feeds?.(0)));
  assert.equal(Object.keys(masks).length, 1);
  const feeds = { ...batchFeeds(batch), ...masks };
  const session = await openSession({ bytes: graph.model });
  const loss = async () => floatsOf((await session.run({ ...graph.feeds, ...feeds }, [graph.loss]))[graph.loss]!)[0]!;
  const results = await session.run({ ...graph.feeds, ...feeds });
  let squares = 0;
  for (const { name, parameter, gradient: output } of graph.parameters) {
    const { data } = parameter;
    const gradient = [...floatsOf(results[output!]!)];
    squares += gradient.reduce((sum, x) => sum + x * x, 0);
    const scale = Math.max(...gradient.map(Math.abs));
    if (scale < 1e-5) continue; // The bias that BatchNormalization takes out again, for instance.
    for (let k = 0; k < Math.min(data.length, 12); k++) {
      const kept = data[k]!;
      const step = 0.01;
      data[k] = kept + step;
      const above = await loss();
      data[k] = kept - step;
      const below = await loss();
      data[k] = kept;
      const difference = (above - below) / (2 * step);
      assert.ok(
        Math.abs(difference - gradient[k]!) < 5e-3 * Math.max(scale, 0.02),
        `${name}[${k}]: ${gradient[k]} and ${difference}`,
      );
    }
  }
  const reported = floatsOf(results[graph.squares]!).reduce((sum, x) => sum + x, 0);
  assert.ok(Math.abs(reported / squares - 1) < 1e-5);
  await session.close();
});

test("a step gives the mean and variance of its batch", async () => {
  const net = new NetworkBuilder(1);
  const model = net.output(net.linear(net.batchNorm(net.input(["n", 2]), 2), 2, 2), ["n", 2]);
  const trainable = createTrainable(model);
  const x = [1, 10, 2, 30, 6, 20];
  const batch = { feeds: { x: tensorOf("float32", [3, 2], x) }, targets: {} };
  const graph = await buildStepGraph([soloNetwork(trainable)], {
    batch,
    objective: ({ g, value }) => [{ name: "sum", weight: 1, value: g.sumAll(g.square(value("logits"))) }],
    seed: 1,
    openSession,
  });
  const results = await runStep(graph, batchFeeds(batch));
  const [{ outputs, after }] = graph.parts as [(typeof graph.parts)[0]];
  const [mean, variance] = outputs.map((name) => results[name]!);
  assert.deepEqual([...floatsOf(mean!)], [3, 20]);
  const expected = [14 / 3, 200 / 3];
  floatsOf(variance!).forEach((v, i) => {
    assert.ok(Math.abs(v / expected[i]! - 1) < 1e-5);
  });
  const [running] = trainable.statistics;
  assert.ok(Math.abs(running!.momentum - 0.9) < 1e-6);
  after!([mean!, variance!], 1);
  for (const [kept, batch] of [
    [running!.mean, [3, 20]],
    [running!.variance, expected],
  ] as const) {
    // From 0 and 1, a tenth of the way.
    const from = kept === running!.mean ? 0 : 1;
    kept.forEach((value, i) => {
      assert.ok(Math.abs(value - (0.9 * from + 0.1 * batch[i]!)) < 1e-5);
    });
  }
  const frozen = createTrainable(model, { freezeStatistics: true });
  assert.deepEqual(frozen.statistics, []);
});

test("a mask drops the ratio it was asked to and keeps the mean", () => {
  const mask = { input: "m", dims: [100, 100], ratio: 0.3 };
  const drawn = floatsOf(drawMask(mask, 1, 5));
  const dropped = drawn.filter((x) => x === 0).length / 1e4;
  // Four standard deviations of a share of 10,000 draws.
  assert.ok(Math.abs(dropped - 0.3) < 4 * Math.sqrt((0.3 * 0.7) / 1e4));
  assert.ok(drawn.every((x) => x === 0 || Math.abs(x - 1 / 0.7) < 1e-6));
  assert.deepEqual(drawMask(mask, 1, 5), drawMask(mask, 1, 5));
  assert.notDeepEqual(drawMask(mask, 1, 5), drawMask(mask, 1, 6));
});

test("a model exported for one sample trains in batches where its shapes allow it", async () => {
  const net = new NetworkBuilder(1);
  const x = net.conv(net.input([1, 1, 4, 4]), 1, 2);
  // Shape arithmetic as old exporters write it: [first dimension of x, −1].
  const first = net.g.op("Gather", [net.g.op("Shape", [x]), net.g.constant("int64", [], [0])], { axis: int(0) });
  const target = net.g.op("Concat", [net.g.unsqueeze(first, [0]), net.g.shape([-1])], { axis: int(0) });
  const flat: Value = net.g.op("Reshape", [x, target]);
  const model = net.output(net.linear(net.g.op("LeakyRelu", [flat], { alpha: float(0.1) }), 32, 3), [1, 3]);
  const batch = { feeds: { x: wave([6, 1, 4, 4]) }, targets: { labels: tensorOf("int64", [6], [0, 1, 2, 0, 1, 2]) } };
  const graph = await buildStepGraph([soloNetwork(createTrainable(model))], {
    batch,
    objective: ({ g, value, target: t }) => [
      { name: "label", weight: 1, value: crossEntropy(g, value("logits"), t("labels")) },
    ],
    seed: 1,
    openSession,
  });
  const results = await runStep(graph, batchFeeds(batch));
  assert.ok(Number.isFinite(floatsOf(results[graph.loss]!)[0]!));
});

test("rows that a session of one thread adds as a whole make the same bytes as rows that any session adds", async () => {
  const trainable = createTrainable(
    transformer({ layers: 1, width: 8, heads: 2, length: 12, vocabulary: 5, classes: 3 }),
  );
  const tokens = BigInt64Array.from({ length: 48 }, (_, i) => BigInt((7 * i) % 5) - (i % 3 === 0 ? 5n : 0n));
  const batch = {
    feeds: { tokens: tensorOf("int64", [4, 12], tokens) },
    targets: { labels: tensorOf("int64", [4], [0, 2, 1, 2]) },
  };
  const gradients = async (threads?: number) => {
    const graph = await buildStepGraph([soloNetwork(trainable)], {
      batch,
      objective: ({ g, value, target }) => [
        { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")) },
      ],
      seed: 1,
      openSession,
      ...(threads !== undefined && { threads }),
    });
    const model = loadModel(graph.model);
    const scatters = model.graph.nodes.filter(
      ({ opType, name }) => opType.startsWith("Scatter") && name.includes("Gather/"),
    );
    const results = await runStep(graph, batchFeeds(batch));
    const bytes = graph.parameters.map(({ gradient }) => Buffer.from(results[gradient!]!.bytes).toString("base64"));
    return { operators: scatters.map(({ opType }) => opType), bytes };
  };
  const [one, any] = [await gradients(1), await gradients()];
  assert.deepEqual(any.operators, ["ScatterElements"]);
  assert.deepEqual(one.operators, ["ScatterND"]);
  assert.deepEqual(one.bytes, any.bytes);
});
