import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { arrayOf, floatsOf, type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { correctBiases, shiftBias } from "../../../../src/core/quantize/static/bias-correction.ts";
import { calibrate } from "../../../../src/core/quantize/static/calibration.ts";
import {
  prepareStatic,
  quantizeStatic,
  type StaticOptions,
} from "../../../../src/core/quantize/static/quantize-static.ts";
import { GraphMaker, randomFeeds, transformer, uniformSource } from "../../../support/graphs.ts";
import { openModel, runModel, sqnrDb } from "../../../support/open-model.ts";
import { assertRecorded } from "../../../support/recorded.ts";

type Feeds = Record<string, Tensor>;

const OPTIONS: StaticOptions = {
  method: "minmax",
  percentile: 99.999,
  activationDType: "uint8",
  // One scale for a whole weight rounds coarsely: there is something to correct.
  perChannel: false,
  reduceRange: true,
};

async function* streamOf(feeds: readonly Feeds[]): AsyncGenerator<Feeds> {
  yield* feeds;
}

/** Large enough for the errors of single positions to average out in each part of a sample. */
const SIZE = 32;

/** Three layers with very uneven weights, the last one without a bias. */
function unevenNetwork(): Model {
  const make = new GraphMaker();
  let x = make.input("x", ["n", 4, SIZE, SIZE]);
  for (const bias of [true, true, false]) {
    const weight = make.random([4, 4, 3, 3], 0.3);
    const values = arrayOf(weight, "float32");
    values.forEach((value, i) => {
      values[i] = value * (i < 36 ? 12 : 1);
    });
    const inputs = [x, make.constant("w", weight), ...(bias ? [make.weight("b", [4], 0.2)] : [])];
    x = make.op("Relu", [make.op("Conv", inputs, { pads: [1, 1, 1, 1] })]);
  }
  make.output(x, "y", ["n", 4, SIZE, SIZE]);
  return make.model;
}

async function correct(network: Model, options = OPTIONS) {
  const feeds = Array.from({ length: 24 }, (_, i) => randomFeeds(network, { seed: i + 1, dims: { n: 2 } }));
  const { model } = await prepareStatic(network, feeds[0]!, { openModel });
  const calibration = await calibrate(model, streamOf(feeds), { openModel });
  const plain = quantizeStatic(model, calibration, options);
  const biasShifts = await correctBiases(model, plain.model, plain.layers, feeds.slice(0, 16), { openModel });
  return { model, plain, biasShifts, corrected: quantizeStatic(model, calibration, { ...options, biasShifts }) };
}

test("after correction the means of the outputs are closer, also on other data", async () => {
  const { model, plain, corrected, biasShifts } = await correct(unevenNetwork());
  assert.equal(biasShifts.size, 3);
  const held = Array.from({ length: 8 }, (_, i) => randomFeeds(model, { seed: 100 + i, dims: { n: 2 } }));
  const meanError = async (quantized: Model) => {
    const sums = new Float64Array(4);
    for (const feeds of held) {
      const [expected, actual] = [await runModel(model, feeds), await runModel(quantized, feeds)];
      floatsOf(expected.y!).forEach((value, i) => {
        sums[Math.floor(i / SIZE ** 2) % 4]! += floatsOf(actual.y!)[i]! - value;
      });
    }
    return Math.hypot(...sums) / (held.length * 2 * SIZE ** 2);
  };
  const [before, after] = [await meanError(plain.model), await meanError(corrected.model)];
  // What differs from place to place stays: a third of the shift goes, not all of it.
  assertRecorded(after / before, 0.669, 0.01, `${after} after, ${before} before:`);
  const mean = async (quantized: Model) => {
    let sum = 0;
    for (const feeds of held) sum += sqnrDb(await runModel(model, feeds), await runModel(quantized, feeds));
    return sum / held.length;
  };
  const gain = (await mean(corrected.model)) - (await mean(plain.model));
  // The mean is a small part of the error here: what counts is that the rest of it does not grow.
  assertRecorded(gain, 0.135, 0.1, "dB gained:");
});

test("layers of a transformer are corrected in the sum behind their product", async () => {
  const { model, biasShifts } = await correct(transformer());
  const products = model.graph.nodes.filter(({ opType, inputs }) => opType === "MatMul" && inputs[1]!.constant);
  assert.deepEqual(new Set(biasShifts.keys()), new Set(products.map(({ name }) => name)));
  const shifted = model.clone();
  const [product] = products;
  const shift = new Float64Array(biasShifts.get(product!.name)!.length).fill(0.25);
  shiftBias(shifted.graph.nodes.find(({ name }) => name === product!.name)!, shift);
  const biasOf = (which: Model) =>
    arrayOf(
      which.graph.nodes
        .find(({ name }) => name === product!.name)!
        .outputs[0]!.uses[0]!.node.inputs.find((input) => input?.constant)!.constant!,
      "float32",
    );
  biasOf(model).forEach((value, i) => {
    assert.ok(Math.abs(biasOf(shifted)[i]! - value - 0.25) < 1e-6);
  });
});

/** A copy that takes samples of two only. */
function ofTwo(model: Model): Model {
  const copy = model.clone();
  for (const input of copy.graph.inputs) if (!input.constant) input.retype(input.dtype, [2, ...input.shape!.slice(1)]);
  return copy;
}

for (const [kind, network] of [
  ["convolutions", unevenNetwork()],
  ["a transformer", transformer()],
] as const) {
  test(`samples at once and one after the other lead to the same corrections: ${kind}`, async () => {
    const { model, plain, biasShifts } = await correct(network);
    const feeds = Array.from({ length: 16 }, (_, i) => randomFeeds(network, { seed: i + 1, dims: { n: 2 } }));
    let loaded = 0;
    const counting: typeof openModel = (...args) => {
      loaded++;
      return openModel(...args);
    };
    const [float, quantized] = [ofTwo(model), ofTwo(plain.model)];
    const inTurns = await correctBiases(float, quantized, plain.layers, feeds, { openModel: counting });
    assert.ok(loaded > plain.layers.length, "each layer is a model of its own");
    loaded = 0;
    await correctBiases(model, plain.model, plain.layers, feeds, { openModel: counting });
    assert.equal(loaded, 3);
    assert.deepEqual([...biasShifts.keys()], [...inTurns.keys()]);
    // Integer kernels of a transformer's other operators round differently from floats that are rounded: what follows them differs a little.
    const [first] = inTurns.keys();
    for (const [name, expected] of inTurns) {
      if (kind !== "convolutions" && name !== first) continue;
      const apart = Math.hypot(...expected.map((shift, c) => biasShifts.get(name)![c]! - shift));
      assert.ok(apart <= 1e-3 * Math.hypot(...expected), `${name}: ${apart} apart, of ${Math.hypot(...expected)}`);
    }
  });
}

/** A row of positions: noise in the first 12, one value over and over in the other 20, as lines of text are padded. */
function paddedRows(count: number, seed: number): Feeds[] {
  const uniform = uniformSource(seed);
  return Array.from({ length: count }, () => {
    const data = Float32Array.from({ length: 4 * SIZE }, (_, i) =>
      i % SIZE < WRITTEN ? 2 * uniform() - 1 : 0.31 * (1 + Math.floor(i / SIZE)),
    );
    return { x: tensorOf("float32", [1, 4, 1, SIZE], data) };
  });
}
const WRITTEN = 12;

test("what padding errs by is not taken out on what is written", async () => {
  const make = new GraphMaker({ seed: 2 });
  const weight = make.random([8, 4, 1, 1], 1);
  const x = make.input("x", [1, 4, 1, SIZE]);
  const layer = make.op("Conv", [x, make.constant("w", weight), make.weight("b", [8], 0.2)]);
  make.output(make.op("Relu", [layer]), "y", [1, 8, 1, SIZE]);
  const feeds = paddedRows(24, 1);
  const { model } = await prepareStatic(make.model, feeds[0]!, { openModel });
  const calibration = await calibrate(model, streamOf(feeds), { openModel });
  const plain = quantizeStatic(model, calibration, OPTIONS);
  const biasShifts = await correctBiases(model, plain.model, plain.layers, feeds.slice(0, 16), { openModel });
  const corrected = quantizeStatic(model, calibration, { ...OPTIONS, biasShifts });
  const written = async (quantized: Model) => {
    let noise = 0;
    for (const sample of paddedRows(16, 7)) {
      const [expected, actual] = [await runModel(model, sample), await runModel(quantized, sample)];
      const y = floatsOf(actual.y!);
      floatsOf(expected.y!).forEach((value, i) => {
        if (i % SIZE < WRITTEN) noise += (value - y[i]!) ** 2;
      });
    }
    return noise;
  };
  const [before, after] = [await written(plain.model), await written(corrected.model)];
  assert.ok(after < 1.005 * before, `${after} after, ${before} before`);
});

test("differences that are not the same everywhere are not corrected", async () => {
  // Per-channel weights on this small network leave next to no shift: what little is measured is mostly noise.
  const { biasShifts } = await correct(unevenNetwork(), { ...OPTIONS, perChannel: true });
  const shifts = [...biasShifts.values()].flatMap((shift) => [...shift]);
  assert.ok(shifts.some((shift) => shift === 0));
});
