import assert from "node:assert/strict";
import { test } from "node:test";
import { encoder } from "../../../../bench/seasoned-nets.ts";
import type { Model, Value } from "../../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../../src/core/onnx/load.ts";
import { modelToBytes, predictedBytes } from "../../../../src/core/onnx/save.ts";
import { arrayOf, floatsOf, type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { CALIBRATION_METHODS } from "../../../../src/core/quantize/calibration/calibration-methods.ts";
import { adaround } from "../../../../src/core/quantize/rounding/adaround.ts";
import { gptq } from "../../../../src/core/quantize/rounding/gptq.ts";
import { scalingSites } from "../../../../src/core/quantize/static/channel-scaling.ts";
import { compressStatic, type PipelineOptions } from "../../../../src/core/quantize/static/pipeline.ts";
import { branches, GraphMaker, mobilenet, randomFeeds, transformer, uniformSource } from "../../../support/graphs.ts";
import { fusedOperators, openModel, runModel, sqnrDb } from "../../../support/open-model.ts";
import { readRealModel } from "../../../support/real-models.ts";
import { assertRecorded } from "../../../support/recorded.ts";

const OPTIONS: PipelineOptions = {
  samples: 32,
  method: "mse",
  percentile: 99.999,
  activationDType: "uint8",
  perChannel: true,
  reduceRange: true,
  equalize: "auto",
  smoothQuantAlpha: "auto",
  biasCorrection: true,
};

function dataFor(model: Model, more: Record<string, Tensor> = {}) {
  return {
    async *batches(count: number) {
      for (let i = 0; i < count; i++) yield { ...randomFeeds(model, { seed: i + 1, dims: { n: 2 } }), ...more };
    },
  };
}

/** Scales the channels of a network, over so many powers of two, so that 8 bits per tensor cannot hold them. */
function spread(model: Model, octaves = 8): Model {
  const uniform = uniformSource(5);
  for (const site of scalingSites(model)) {
    if (site.isClipped) continue;
    site.apply(Float64Array.from({ length: site.channels }, () => 2 ** (octaves * (uniform() - 0.5))));
  }
  return model;
}

async function heldOutSqnrDb(reference: Model, model: Model): Promise<number> {
  const feeds = randomFeeds(reference, { seed: 1000, dims: { n: 2 } });
  return sqnrDb(await runModel(reference, feeds), await runModel(model, feeds));
}

test("networks of several kinds, end to end", async () => {
  for (const network of [mobilenet(), transformer(), spread(transformer())]) {
    const result = await compressStatic(network, dataFor(network), OPTIONS, { openModel });
    const reached = await heldOutSqnrDb(network, result.model);
    assert.ok(reached > 35, `${reached} dB`);
    assert.ok(result.notes.some(({ outcome }) => outcome === "changed"));
  }
});

test("a transformer that normalizes sums: what its residuals read is no obstacle to scaling channels", async () => {
  const shape = { layers: 2, width: 64, heads: 2, length: 16, vocabulary: 100 };
  const model = encoder({ ...shape, norm: "after" });
  const dims = { n: 2 };
  const feedsOf = (seed: number) => ({
    ...randomFeeds(model, { seed, dims }),
    mask: tensorOf("int64", [2, 16], new BigInt64Array(32).fill(1n)),
  });
  const data = {
    async *batches(count: number) {
      for (let i = 0; i < count; i++) yield feedsOf(i + 1);
    },
  };
  const made = (smoothQuantAlpha: "auto" | null) =>
    compressStatic(model, data, { ...OPTIONS, smoothQuantAlpha }, { openModel });
  const reached = async ({ model: result }: { readonly model: Model }) =>
    sqnrDb(await runModel(model, feedsOf(1000)), await runModel(result, feedsOf(1000)));
  const [scaled, plain] = [await made("auto"), await made(null)];
  const [with8, without] = [await reached(scaled), await reached(plain)];
  assertRecorded(with8 - without, 6.5, 1, `${without} dB, and ${with8} dB with scaled channels:`);
  // One in front of each of the two layers that read a normalization, and of none that is there for its own.
  const products = [...scaled.float.nodes()].filter(({ name }) => name.endsWith("_balance"));
  assert.equal(products.length, 4);
  const told = (notes: typeof plain.notes) => notes.map(({ name, code }) => `${name} ${code}`).toSorted();
  assert.deepEqual(told(scaled.notes), told(plain.notes), "nothing is said of nodes that users do not know");
  assert.equal(scaled.prepared.filter(({ message }) => message.includes("by a product")).length, 4);
});

/** Types that onnxruntime computes with and no session can give out. */
const INNER_TYPES = { bfloat16: 16, float8e4m3fn: 17, float8e5m2: 19 } as const;

for (const [dtype, onnx] of Object.entries(INNER_TYPES)) {
  for (const inBranch of [false, true]) {
    test(`${dtype} inside ${inBranch ? "a branch" : "the model"} stays as it is; the layers around it are quantized`, async () => {
      const make = new GraphMaker({ opset: 19, irVersion: 9 });
      const x = make.input("x", ["n", 64]);
      const hidden = make.op("MatMul", [x, make.weight("w", [64, 64], 1 / 8)]);
      const rounded = (at: GraphMaker, value: Value) => {
        const narrow = at.op("Cast", [value], { to: onnx });
        // Of floats of 8 bits onnxruntime only has casts.
        const moved = dtype === "bfloat16" ? at.op("Reshape", [narrow, at.ints("shape", [-1, 64])]) : narrow;
        return at.op("Cast", [moved], { to: 1 });
      };
      let between: Value;
      if (inBranch) {
        const branch = () => {
          const body = make.body();
          body.output(rounded(body, hidden), "rounded", ["n", 64]);
          return body.graph;
        };
        const condition = make.constant("condition", tensorOf("bool", [], [1]));
        between = make.op("If", [condition], { then_branch: branch(), else_branch: branch() });
      } else between = rounded(make, hidden);
      const y = make.op("MatMul", [make.op("Relu", [between]), make.weight("v", [64, 64], 1 / 8)]);
      make.output(y, "y", ["n", 64]);
      const { model, notes } = await compressStatic(make.model, dataFor(make.model), OPTIONS, { openModel });
      const reached = await heldOutSqnrDb(make.model, model);
      // An error in front of a rounding to 2 or 3 bits can become one of its steps.
      assert.ok(reached > 28, `${reached} dB`);
      const covered = notes.filter(({ op, outcome }) => op === "MatMul" && outcome === "changed");
      assert.equal(covered.length, 2);
    });
  }
}

test("weights of 4 and 2 bits take half and a quarter of the file, AdaRound makes them better, and integer kernels still compute", async () => {
  const model = transformer();
  const made = (weightBits: 8 | 4 | 2, rounding?: PipelineOptions["rounding"]) =>
    compressStatic(model, dataFor(model), { ...OPTIONS, weightBits, rounding }, { openModel });
  const [eight, four, two] = [await made(8), await made(4), await made(2)];
  const bytes = ({ model: result }: { readonly model: Model }) => modelToBytes(result).length;
  assert.ok(bytes(four) < bytes(eight) && bytes(two) < bytes(four), `${bytes(eight)}, ${bytes(four)}, ${bytes(two)}`);
  const sizes = ({ model: result }: { readonly model: Model }) =>
    new Map([...result.graph.initializers].map(({ name, constant }) => [name, constant!.byteLength]));
  const packed = [...sizes(four)].filter(([name]) => name.endsWith("_q4"));
  assert.ok(packed.length > 2);
  for (const [name, size] of packed) {
    assert.equal(2 * size, sizes(eight).get(name.slice(0, -1)));
    assert.equal(size, 2 * sizes(two).get(`${name.slice(0, -1)}2`)!);
  }
  assert.equal(predictedBytes(four.model), bytes(four));
  const forms = Object.values(four.plan.weights).flat();
  assert.ok(forms.some(({ scheme }) => scheme.bits === 4 && scheme.symmetric));
  assert.ok(four.notes.some(({ message }) => message === "It computes in 8 bits, with weights of 4."));
  // A table is looked up in blocks of 4 bits instead of in rows of 8.
  const { GatherBlockQuantized: tables, ...computed } = await fusedOperators(four.model);
  assert.deepEqual({ ...computed, Gather: 2 * tables!, Cast: tables, Mul: tables }, await fusedOperators(eight.model));

  const better = await made(4, adaround({ openModel, threads: 1 }));
  const reached = [two, four, better, eight].map(({ model: result }) => heldOutSqnrDb(model, result));
  const [db2, db4, learned, db8] = await Promise.all(reached);
  assert.ok(db2! < db4! && db4! < learned! && learned! < db8!, `${db2}, ${db4}, ${learned}, ${db8} dB`);
});

test("weights that are stored in 4 bits and computed with in float are rounded by samples too", async () => {
  const model = transformer({ hidden: 64 });
  const layers = model.graph.nodes.filter(({ opType, inputs }) => opType === "MatMul" && inputs[1]?.constant);
  const slower = { code: "slower", message: "Here.", storesWeights: true } as const;
  const excludeNodes = new Map(layers.map(({ name }) => [name, slower]));
  const made = async (rounding?: PipelineOptions["rounding"]) => {
    const options: PipelineOptions = { ...OPTIONS, weightBits: 4, excludeNodes, rounding };
    const result = await compressStatic(model, dataFor(model), options, { openModel });
    const stored = Object.values(result.plan.weights)
      .flat()
      .filter(({ storage }) => storage === "stored_codes");
    assert.equal(stored.length, layers.length);
    assert.ok(stored.every(({ scheme }) => scheme.bits === 4));
    return { ...result, db: await heldOutSqnrDb(model, result.model), bytes: modelToBytes(result.model).length };
  };
  const nearest = await made();
  for (const rounding of [adaround({ openModel, threads: 1 }), gptq()]) {
    const better = await made(rounding);
    assert.ok(better.db > nearest.db, `${nearest.db} dB, ${better.db} dB with ${rounding.title}`);
    assert.equal(better.bytes, nearest.bytes);
    const said = better.prepared.filter(({ code }) => code === rounding.name);
    assert.ok(said.length > layers.length / 2, `${said.length} of ${layers.length}`);
  }
});

test("a real network of grouped convolutions and gates takes weights of 4 bits, rounded by AdaRound, and is better for it", async () => {
  const model = loadModel(readRealModel("ppocr-cls"));
  const feedsOf = (seed: number) => {
    const uniform = uniformSource(seed);
    const x = Float32Array.from({ length: 3 * 48 * 192 }, () => 2 * uniform() - 1);
    return { [model.graph.inputs[0]!.name]: tensorOf("float32", [1, 3, 48, 192], x) };
  };
  const data = {
    async *batches(count: number) {
      for (let i = 0; i < count; i++) yield feedsOf(i + 1);
    },
  };
  const options = { ...OPTIONS, samples: 8, weightBits: 4 as const };
  const made = async (rounding?: PipelineOptions["rounding"]) => {
    const { model: result } = await compressStatic(model, data, { ...options, rounding }, { openModel });
    return sqnrDb(await runModel(model, feedsOf(1000)), await runModel(result, feedsOf(1000)));
  };
  const [nearest, learned] = [await made(), await made(adaround({ openModel, threads: 1 }))];
  assert.ok(learned > nearest, `${nearest} dB, and ${learned} dB with AdaRound`);
});

test("the same input gives the same bytes", async () => {
  const network = mobilenet();
  const run = async () => {
    const result = await compressStatic(network.clone(), dataFor(network), OPTIONS, { openModel });
    return Buffer.from(modelToBytes(result.model)).toString("base64");
  };
  assert.equal(await run(), await run());
});

test("where int8 misses a target, layers are left in float until it holds, and no more than are needed", async () => {
  const network = spread(transformer());
  // Without what would mend them, layers differ much in what 8 bits do to them.
  const options: PipelineOptions = { ...OPTIONS, equalize: false, smoothQuantAlpha: null, biasCorrection: false };
  const plain = await compressStatic(network, dataFor(network), options, { openModel });
  const before = await heldOutSqnrDb(network, plain.model);
  assertRecorded(before, 5.6, 1.5, "int8 alone:");
  const control = {
    score: (model: Model) => heldOutSqnrDb(network, model),
    speedup: async () => 1,
    target: before + 4,
    maxTrials: 12,
  };
  const result = await compressStatic(network, dataFor(network), { ...options, control }, { openModel });
  const layers = 2 * 6;
  const { floatLayers, reached, trials } = result.control!;
  assert.ok(reached);
  assert.ok(
    floatLayers.length > 0 && floatLayers.length < layers / 2,
    `${floatLayers.length} of ${layers} in float, ${before} dB before`,
  );
  assert.ok((await heldOutSqnrDb(network, result.model)) >= before + 4);
  assert.equal(result.sensitivity.length, layers);
  assert.ok(trials.length <= 12 && trials[0]!.floatLayers.length === 0);
  const kept = result.notes.filter(({ message }) => message.includes(KEPT)).map(({ name }) => name);
  assert.deepEqual(new Set(kept), new Set(floatLayers));
  const operators = await fusedOperators(result.model);
  assert.ok(
    (operators.MatMulIntegerToFloat ?? 0) + (operators.QLinearMatMul ?? 0) + (operators.QGemm ?? 0) > layers / 2,
  );
});

/** Two layers, and inputs of which a few are large: they are what the outputs are made of, and ranges that cut them lose most of the signal. */
/** Two of the 32 inputs are `size` times as large as the others. */
function outlierNetwork(size = 100) {
  const make = new GraphMaker();
  const x = make.input("x", ["n", 32]);
  make.output(make.linear(make.op("Relu", [make.linear(x, 32, 64, 2)]), 64, 8), "y", ["n", 8]);
  const data = {
    async *batches(count: number) {
      for (let i = 0; i < count; i++) {
        const uniform = uniformSource(i + 1);
        const values = Float32Array.from({ length: 16 * 32 }, (_, k) => (uniform() - 0.5) * (k % 32 < 2 ? size : 1));
        yield { x: tensorOf("float32", [16, 32], values) };
      }
    },
  };
  return { model: make.model, data };
}

/** What is said of layers that stay in float for it. */
const KEPT = "It stays in float so that the model is as accurate as it has to be.";

test("a poor result is mended without being asked: layers stay in float until it is not, their weights in 8 bits; a good one is left alone", async () => {
  const { model: network, data } = outlierNetwork();
  // Cuts off the values that the outputs are made of.
  const options: PipelineOptions = { ...OPTIONS, method: "percentile", percentile: 90, biasCorrection: false };
  const rescue = { target: 20, speedup: async () => 2, maxTrials: 12 };
  const plain = await compressStatic(network, data, options, { openModel });
  const { model, notes, control } = await compressStatic(network, data, { ...options, rescue }, { openModel });
  const { floatLayers, reached, trials } = control!;
  assert.ok(reached && floatLayers.length > 0);
  assert.ok(trials[0]!.floatLayers.length === 0 && trials[0]!.score < 1, JSON.stringify(trials[0]));
  const kept = notes.filter(({ message }) => message.includes(KEPT));
  assert.deepEqual(new Set(kept.map(({ name }) => name)), new Set(floatLayers));
  assert.ok(kept.every(({ code }) => code === "stored_codes"));
  // The chosen trial is the model that goes out.
  const chosen = trials.find((trial) => trial.floatLayers.length === floatLayers.length)!;
  assertRecorded(chosen.score, 42.8, 1.5);
  assert.equal(chosen.bytes, predictedBytes(model));
  assert.ok(predictedBytes(model) < 0.95 * predictedBytes(plain.model));

  const good = { ...options, method: "mse" } as const;
  const left = await compressStatic(network, data, { ...good, rescue }, { openModel });
  assert.deepEqual([left.control, left.sensitivity], [undefined, []]);
  assert.deepEqual(
    modelToBytes(left.model),
    modelToBytes((await compressStatic(network, data, good, { openModel })).model),
  );
});

test("of layers that stay in float, those keep float weights that 8 bits would spoil, and the others do not", async () => {
  const make = new GraphMaker();
  // Half of the hidden values are a thousandth of the others, and have weights behind them that are a thousand times as large.
  const uneven = (name: string, dims: readonly [number, number], factorAt: (i: number) => number) => {
    const weight = make.random(dims, 0.3);
    const values = arrayOf(weight, "float32");
    for (let i = 0; i < values.length; i++) values[i]! *= factorAt(i);
    return make.constant(name, weight);
  };
  const x = make.input("x", ["n", 32]);
  const first = make.op("MatMul", [x, uneven("w1", [32, 64], (i) => (i % 64 < 32 ? 1e-3 : 1))]);
  const last = make.op("MatMul", [make.op("Relu", [first]), uneven("w2", [64, 8], (i) => (i < 32 * 8 ? 1e3 : 1))]);
  make.output(last, "y", ["n", 8]);
  const options: PipelineOptions = {
    ...{ ...OPTIONS, perChannel: false, equalize: false, method: "percentile", percentile: 90, biasCorrection: false },
    rescue: { target: 20, speedup: async () => 1, maxTrials: 12 },
  };
  const { control, notes } = await compressStatic(make.model, outlierNetwork().data, options, { openModel });
  const codes = Object.fromEntries(notes.map(({ name, code }) => [name, code]));
  const [even, spoilt] = [first, last].map(({ producer }) => producer!.name) as [string, string];
  assert.ok(control!.reached, JSON.stringify(control));
  assert.deepEqual([control!.floatLayers.toSorted(), [...control!.stored]], [[even, spoilt].toSorted(), [even]]);
  assert.deepEqual([codes[even], codes[spoilt]], ["stored_codes", "kept_for_accuracy"]);
});

test("left to choose, calibration tries no other method where the default is good", async () => {
  const network = transformer();
  const auto = await compressStatic(network, dataFor(network), { ...OPTIONS, method: "auto" }, { openModel });
  assert.deepEqual(
    auto.methodsTried.map(({ method }) => method),
    ["mse"],
  );
  assertRecorded(auto.methodsTried[0]!.sqnrDb, 36.6, 1.5);
});

test("where the default is poor, calibration takes the method whose model is measured to be best, and says what each reached", async () => {
  const { model: network, data } = outlierNetwork(400);
  // What the large channels hold reaches no output: a range that has them all leaves one value to the small ones.
  const [weight] = [...network.graph.initializers].filter(({ constant }) => String(constant!.dims) === "32,64");
  floatsOf(weight!.constant!).fill(0, 0, 2 * 64);
  const options: PipelineOptions = { ...OPTIONS, percentile: 93.5, equalize: false, smoothQuantAlpha: null };
  const auto = await compressStatic(network, data, { ...options, method: "auto" }, { openModel });
  assert.deepEqual(auto.methodsTried.map(({ method }) => method).sort(), [...CALIBRATION_METHODS].sort());
  assert.equal(auto.method, auto.methodsTried[0]!.method);
  const reached = new Map(auto.methodsTried.map(({ method, sqnrDb }) => [method, sqnrDb]));
  const best = Math.max(...reached.values());
  assert.ok(reached.get(auto.method)! >= best - 0.5, JSON.stringify([...reached]));
  assert.equal(auto.method, "percentile");
  assertRecorded(reached.get("mse"), 1.7, 1);
  assertRecorded(best, 14.1, 1.5);
  const named = await compressStatic(network, data, { ...options, method: auto.method }, { openModel });
  assert.deepEqual(named.methodsTried, []);
  assert.deepEqual(modelToBytes(named.model), modelToBytes(auto.model));
});

test("what cannot be quantized is a note, and the model is otherwise as it was", async () => {
  const make = new GraphMaker();
  const scaled = make.op("Mul", [make.input("x", ["n", 64]), make.weight("gains", [64], 1)]);
  make.output(make.op("Tanh", [scaled]), "y");
  const result = await compressStatic(make.model, dataFor(make.model), OPTIONS, { openModel });
  assert.deepEqual(
    result.notes.filter(({ outcome }) => outcome === "changed"),
    [],
  );
  assert.ok(result.notes.some(({ op, code }) => op === "Mul" && code === "constant_operand"));
  assert.ok((await heldOutSqnrDb(make.model, result.model)) > 100);
});

test("a branch that calibration never takes stays in float and says why", async () => {
  const network = branches();
  const always = { condition: randomFeeds(network).condition! };
  const result = await compressStatic(network, dataFor(network, always), OPTIONS, { openModel });
  const unreached = result.notes.filter(({ message }) => message.includes("Calibration never reached it"));
  // The first layer of that branch reads what the graph around it has computed.
  assert.deepEqual(
    unreached.map(({ code }) => code),
    ["stored_codes", "stored_codes"],
  );
  assert.equal(result.notes.filter(({ code }) => code === "quantized").length, 4);
  assertRecorded(await heldOutSqnrDb(network, result.model), 36.9, 1.5);
});

test("progress names every step, and cancelling stops the work", async () => {
  const network = mobilenet();
  const steps: string[] = [];
  const controller = new AbortController();
  const work = compressStatic(network, dataFor(network), OPTIONS, {
    openModel,
    signal: controller.signal,
    onProgress: (step, fraction) => {
      steps.push(step);
      assert.ok(fraction >= 0 && fraction <= 1);
      if (step === "calibrate") controller.abort();
    },
  });
  await assert.rejects(work, { code: "cancelled" });
  assert.deepEqual([...new Set(steps)], ["prepare", "equalize", "calibrate"]);
});

test("a real model of If in If: layers in the body that runs are quantized, and it computes nearly the same", async () => {
  const model = loadModel(readRealModel("silero-vad"));
  const feeds = {
    input: tensorOf(
      "float32",
      [1, 576],
      Float32Array.from({ length: 576 }, (_, i) => 0.3 * Math.sin(i / 7)),
    ),
    state: tensorOf("float32", [2, 1, 128], new Float32Array(256)),
    sr: tensorOf("int64", [], BigInt64Array.of(16_000n)),
  };
  const data = {
    async *batches(count: number) {
      for (let i = 0; i < Math.min(count, 4); i++) yield feeds;
    },
  };
  const result = await compressStatic(model, data, OPTIONS, { openModel });
  const quantized = result.notes.filter(({ code }) => code === "quantized").map(({ name }) => name);
  const layers = [...result.float.nodes()].filter(({ opType, name }) => opType === "Conv" && quantized.includes(name));
  // One branch is for each of two sampling rates; the other one never runs.
  assert.equal(layers.length, 6);
  assert.ok(layers.every(({ graph }) => graph.owner?.opType === "If"));
  const reached = sqnrDb(await runModel(model, feeds), await runModel(result.model, feeds));
  assert.ok(reached > 12, `${reached} dB`);
});
