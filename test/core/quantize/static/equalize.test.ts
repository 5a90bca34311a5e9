import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { arrayOf, floatsOf, type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { checkInvariants } from "../../../../src/core/passes/pass.ts";
import { observe } from "../../../../src/core/quantize/calibration/calibrate.ts";
import { ChannelObserver } from "../../../../src/core/quantize/calibration/observers.ts";
import { calibrate } from "../../../../src/core/quantize/static/calibration.ts";
import { scalingSites } from "../../../../src/core/quantize/static/channel-scaling.ts";
import {
  type BalanceOptions,
  balanceChannels,
  equalizeWeights,
} from "../../../../src/core/quantize/static/equalize.ts";
import {
  prepareStatic,
  quantizeStatic,
  type StaticOptions,
} from "../../../../src/core/quantize/static/quantize-static.ts";
import { GraphMaker, mobilenet, randomFeeds, resnet, transformer, uniformSource } from "../../../support/graphs.ts";
import { openModel, runModel, sqnrDb } from "../../../support/open-model.ts";
import { assertRecorded } from "../../../support/recorded.ts";

type Feeds = Record<string, Tensor>;

const OPTIONS: StaticOptions = {
  method: "minmax",
  percentile: 99.999,
  activationDType: "uint8",
  perChannel: true,
  reduceRange: true,
};
const BALANCE: BalanceOptions = { perChannel: true, layers: true, normalizations: "auto" };

async function* streamOf(feeds: readonly Feeds[]): AsyncGenerator<Feeds> {
  yield* feeds;
}

function feedsFor(model: Model, count: number, first = 1): Feeds[] {
  return Array.from({ length: count }, (_, i) => randomFeeds(model, { seed: first + i, dims: { n: 2 } }));
}

async function prepare(model: Model): Promise<Model> {
  return (await prepareStatic(model, randomFeeds(model), { openModel })).model;
}

/** Scales channels against each other by up to 2^±octaves, as training leaves them, without changing what the model computes. */
function spreadChannels(model: Model, octaves: number): void {
  const uniform = uniformSource(5);
  for (const site of scalingSites(model)) {
    if (site.isClipped) continue;
    site.apply(Float64Array.from({ length: site.channels }, () => 2 ** (octaves * (2 * uniform() - 1))));
  }
}

test("weights whose channels are scaled take the place and the name of those that were", async () => {
  const model = await prepare(mobilenet());
  const names = (of: Model) => [...of.graph.initializers].map(({ name }) => name).toSorted();
  const before = names(model);
  spreadChannels(model, 3);
  assert.deepEqual(names(model), before);
  assert.ok([...model.graph.initializers].every(({ useCount, isGraphOutput }) => useCount > 0 || isGraphOutput));
});

/** The same model with its weights in Constant nodes, as exports of Paddle and bodies of silero VAD have them. */
function inConstantNodes(model: Model): Model {
  const { graph } = model;
  for (const value of [...graph.initializers]) {
    const { name, constant } = value;
    const attrs = { value: { type: "tensor", value: constant! } } as const;
    const [held] = graph.prepend({ opType: "Constant", inputs: [], attrs, outputs: [`${name}_held`] }).outputs;
    graph.replaceUses(value, held!);
    graph.removeInitializer(value);
    held!.name = name;
  }
  return model;
}

async function channelStatistics(model: Model, feeds: readonly Feeds[]): Promise<ReadonlyMap<string, ChannelObserver>> {
  const observers = new Map<string, ChannelObserver>();
  for (const { producer, producerOperand, consumers } of scalingSites(model)) {
    for (const { input, operand } of consumers) observers.set(input.name, new ChannelObserver(operand.activationAxis));
    if (producerOperand) {
      observers.set(producer.inputs[0]!.name, new ChannelObserver(producerOperand.activationAxis));
    }
  }
  await observe(model, observers, streamOf(feeds), { openModel });
  return observers;
}

async function balance(model: Model, feeds: readonly Feeds[], options = BALANCE): Promise<Model> {
  const copy = model.clone();
  const statistics = await channelStatistics(copy, feeds);
  balanceChannels(
    copy,
    (name) => statistics.get(name),
    options,
    () => {},
  );
  return copy;
}

async function quantizedSqnrDb(
  reference: Model,
  model: Model,
  feeds: readonly Feeds[],
  options = OPTIONS,
): Promise<number> {
  const calibration = await calibrate(model, streamOf(feeds), { openModel });
  const quantized = quantizeStatic(model, calibration, options).model;
  const [test] = feedsFor(reference, 1, 100);
  return sqnrDb(await runModel(reference, test!), await runModel(quantized, test!));
}

async function assertSameFunction(a: Model, b: Model): Promise<void> {
  for (const feeds of feedsFor(a, 2, 50)) {
    const [before, after] = [await runModel(a, feeds), await runModel(b, feeds)];
    for (const [name, tensor] of Object.entries(before)) {
      const [x, y] = [floatsOf(tensor), floatsOf(after[name]!)];
      const peak = x.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
      x.forEach((value, i) => {
        assert.ok(Math.abs(value - y[i]!) <= 1e-5 * peak, `${name}: ${value} and ${y[i]}`);
      });
    }
  }
}

test("any positive scales at any site leave the function as it is", async () => {
  for (const network of [
    resnet({ width: 8, size: 32, classes: 10 }),
    mobilenet({ blocks: 2 }),
    transformer({ layers: 1 }),
  ]) {
    const model = await prepare(network);
    assert.ok(scalingSites(model).length >= 2);
    for (const scaled of [model.clone(), inConstantNodes(model.clone())]) {
      assert.equal(scalingSites(scaled).length, scalingSites(model).length);
      spreadChannels(scaled, 3);
      checkInvariants(scaled, "scaling");
      await assertSameFunction(model, scaled);
    }
  }
});

test("gates and pooling let scales through, a residual sum and a second reader do not", async () => {
  const network = (build: (make: GraphMaker) => void) => {
    const make = new GraphMaker();
    build(make);
    return prepare(make.model);
  };
  const gated = await network((make) => {
    const x = make.op("Relu", [make.conv(make.input("x", ["n", 4, 8, 8]), [4, 8], 3)]);
    const gate = make.op("Sigmoid", [make.conv(make.op("GlobalAveragePool", [x]), [8, 8], 1)]);
    make.output(make.conv(make.op("MaxPool", [make.op("Mul", [x, gate])], { kernel_shape: [2, 2] }), [8, 4], 1), "y");
  });
  const [site] = scalingSites(gated);
  assert.equal(site!.consumers.length, 2);
  spreadChannels(gated, 2);
  const sloped = await network((make) => {
    const x = make.conv(make.input("x", ["n", 4, 8, 8]), [4, 8], 3);
    const active = make.op("PRelu", [x, make.weight("slope", [8, 1, 1], 0.5)]);
    make.output(make.conv(make.op("GlobalMaxPool", [active]), [8, 4], 1), "y");
  });
  const [through] = scalingSites(sloped);
  assert.equal(through!.consumers.length, 1, "PRelu and GlobalMaxPool are homogeneous as Relu and MaxPool are");
  const before = sloped.clone();
  spreadChannels(sloped, 2);
  await assertSameFunction(before, sloped);
  const summed = await network((make) => {
    const x = make.input("x", ["n", 4, 8, 8]);
    const y = make.op("Relu", [make.conv(x, [4, 4], 3)]);
    make.output(make.op("Add", [make.conv(y, [4, 4], 3), y]), "y");
  });
  assert.equal(scalingSites(summed).length, 0);
  const shared = await network((make) => {
    const weight = make.weight("w", [4, 4, 1, 1], 0.5);
    const x = make.op("Conv", [make.input("x", ["n", 4, 8, 8]), weight]);
    make.output(make.op("Conv", [x, weight]), "y");
  });
  assert.equal(scalingSites(shared).length, 0);
});

test("a normalization that a residual sum reads too is divided by a product of its own, for the layers alone", async () => {
  for (const isGivenOut of [false, true]) {
    const make = new GraphMaker();
    const x = make.layerNorm(make.input("x", ["n", 4, 8]), 8);
    const [a, b] = [make.linear(x, 8, 8), make.linear(x, 8, 8)];
    make.output(make.op("Add", [make.op("Mul", [a, b]), x]), "y");
    if (isGivenOut) make.output(x, "normal", ["n", 4, 8]);
    const model = await prepare(make.model);
    assert.equal(scalingSites(model).length, 0);
    const scaled = model.clone();
    const [site, ...others] = scalingSites(scaled, { inserting: true });
    assert.deepEqual([others.length, site!.inserts, site!.consumers.length], [0, true, 2]);
    const { name } = site!.consumers[0]!.input;
    const changed = site!.apply(Float64Array.from({ length: 8 }, (_, c) => 2 ** (c - 4)));
    await assertSameFunction(model, scaled);
    const layers = scaled.graph.nodes.filter(({ opType }) => opType === "MatMul");
    const [sum] = scaled.graph.nodes.filter(
      ({ opType, inputs }) => opType === "Add" && !inputs.some((it) => it?.constant),
    );
    const product = layers[0]!.inputs[0];
    const factors = Float64Array.from({ length: 8 }, (_, c) => 2 ** (4 - c));
    assert.deepEqual(changed.get(product!.name), { base: name, by: { factors, limit: Number.POSITIVE_INFINITY } });
    // What the sum reads has another name where the product has taken its own.
    assert.deepEqual([...changed.values()].slice(1), isGivenOut ? [] : [{ base: name, by: undefined }]);
    assert.ok(layers.length === 2 && layers.every(({ inputs }) => inputs[0] === product));
    assert.ok(!sum!.inputs.includes(product));
    // What calibration and plans know is what the layers read.
    assert.equal(product!.name === name, !isGivenOut);
    assert.deepEqual(
      scaled.graph.outputs.map((value) => value.name),
      model.graph.outputs.map((value) => value.name),
    );
  }
});

test("grouped convolutions: each group's channels meet its own weights", async () => {
  const make = new GraphMaker();
  const x = make.op("Relu", [make.conv(make.input("x", ["n", 4, 6, 6]), [4, 8], 1)]);
  const grouped = make.op("Relu", [make.conv(x, [8, 6], 3, { group: 2 })]);
  make.output(make.conv(grouped, [6, 2], 1), "y");
  const model = await prepare(make.model);
  const scaled = model.clone();
  assert.equal(scalingSites(model).length, 2);
  spreadChannels(scaled, 3);
  await assertSameFunction(model, scaled);
});

test("cross-layer equalisation: pairs meet, and a depthwise triple ends at the geometric mean", () => {
  const make = new GraphMaker();
  const constant = (name: string, dims: readonly number[], values: readonly number[]) =>
    make.constant(name, tensorOf("float32", dims, values));
  const x = make.input("x", ["n", 1, 4, 4]);
  const narrow = make.op("Relu", [make.op("Conv", [x, constant("w0", [2, 1, 1, 1], [8, 0.5])])]);
  const depthwise = make.node("Conv", [narrow, constant("w1", [2, 1, 1, 1], [1, 3])], { group: 2 }).outputs[0]!;
  make.output(make.op("Conv", [make.op("Relu", [depthwise]), constant("w2", [1, 2, 1, 1], [27, 0.25])]), "y");
  equalizeWeights(make.model);
  const weights = make.graph.nodes
    .filter(({ opType }) => opType === "Conv")
    .map((node) => [...arrayOf(node.inputs[1]!.constant!, "float32")]);
  [0, 1].forEach((c) => {
    const mean = [8 * 1 * 27, 0.5 * 3 * 0.25][c]! ** (1 / 3);
    for (const weight of weights) assert.ok(Math.abs(weight[c]! / mean - 1) < 3e-3, `${weight[c]} and ${mean}`);
  });
});

test("equalisation and balancing leave the function as it is", async () => {
  const model = await prepare(mobilenet({ blocks: 2 }));
  spreadChannels(model, 2);
  const equal = model.clone();
  equalizeWeights(equal);
  await assertSameFunction(model, equal);
  const encoder = await prepare(transformer());
  spreadChannels(encoder, 3);
  await assertSameFunction(encoder, await balance(encoder, feedsFor(encoder, 4)));
});

test("Relu6 is equalised with its limit: exact on everything that was seen", async () => {
  const model = await prepare(mobilenet({ blocks: 2 }));
  const feeds = feedsFor(model, 8);
  const statistics = await channelStatistics(model, feeds);
  const scaled = model.clone();
  const sites = scalingSites(scaled).filter(({ isClipped }) => isClipped);
  assert.ok(sites.length >= 4);
  for (const site of sites) site.apply(statistics.get(site.consumers[0]!.input.name)!.max.map((max) => max || 1));
  for (const seen of feeds) {
    const [before, after] = [await runModel(model, seen), await runModel(scaled, seen)];
    floatsOf(before.logits!).forEach((value, i) => {
      assert.ok(Math.abs(value - floatsOf(after.logits!)[i]!) < 1e-4);
    });
  }
});

test("SmoothQuant rescues an encoder with outlier channels, by itself or with the α it is given", async () => {
  const model = await prepare(transformer({ hidden: 64 }));
  const feeds = feedsFor(model, 8);
  spreadChannels(model, 4);
  const before = await quantizedSqnrDb(model, model, feeds);
  const automatic = await quantizedSqnrDb(model, await balance(model, feeds), feeds);
  const fixed = await quantizedSqnrDb(model, await balance(model, feeds, { ...BALANCE, normalizations: 0.5 }), feeds);
  const off = await quantizedSqnrDb(
    model,
    await balance(model, feeds, { ...BALANCE, normalizations: undefined }),
    feeds,
  );
  assertRecorded(before, 6.1, 1.5);
  assertRecorded(automatic, 37.7, 1.5);
  assertRecorded(fixed, 37.5, 1.5);
  assert.equal(off, before);
});

test("balanced channels are left alone", async () => {
  const model = await prepare(resnet({ width: 16, size: 32, classes: 10 }));
  const feeds = feedsFor(model, 8);
  assertRecorded(await quantizedSqnrDb(model, await balance(model, feeds), feeds), 35.6, 1.5);
  const statistics = await channelStatistics(model, feeds);
  const notes: string[] = [];
  balanceChannels(
    model.clone(),
    (name) => statistics.get(name),
    BALANCE,
    ({ name }) => notes.push(name),
  );
  assert.ok(notes.length <= 2, notes.join());
});
