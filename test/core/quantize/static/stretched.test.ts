import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model, Value } from "../../../../src/core/onnx/ir.ts";
import { predictedBytes } from "../../../../src/core/onnx/save.ts";
import { type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { type Calibration, calibrate } from "../../../../src/core/quantize/static/calibration.ts";
import { compressStatic, type PipelineOptions } from "../../../../src/core/quantize/static/pipeline.ts";
import {
  prepareStatic,
  quantizeStatic,
  type StaticOptions,
} from "../../../../src/core/quantize/static/quantize-static.ts";
import {
  chooseStretched,
  nodesInFloat,
  type StretchedForm,
  type StretchedForms,
  type StretchedGroup,
  stretchesIn,
} from "../../../../src/core/quantize/static/stretched.ts";
import { GraphMaker, uniformSource } from "../../../support/graphs.ts";
import { openModel, runModel, sqnrDb } from "../../../support/open-model.ts";
import { assertRecorded } from "../../../support/recorded.ts";

type Feeds = Readonly<Record<string, Tensor>>;

const OPTIONS: StaticOptions = {
  method: "mse",
  percentile: 99.999,
  activationDType: "uint8",
  perChannel: true,
  reduceRange: true,
};
const SAMPLES = 1024;
const WINDOW = 64;
const BINS = 24;

/** A loud tone that swells, one that is 40 to 60 dB below it, and less noise still. */
function sound(seed: number): Feeds {
  const uniform = uniformSource(seed);
  const [low, high] = [0.05 + 0.2 * uniform(), 0.3 + 0.1 * uniform()];
  const [loud, soft] = [0.5 + 0.5 * uniform(), 10 ** (-2 - uniform())];
  const data = Float32Array.from({ length: SAMPLES }, (_, i) => {
    const swell = 0.5 + 0.5 * Math.sin(i / 150);
    const tones = loud * swell * Math.sin(2 * Math.PI * low * i) + soft * Math.sin(2 * Math.PI * high * i);
    return tones + 1e-4 * (uniform() - 0.5);
  });
  return { x: tensorOf("float32", [1, 1, SAMPLES], data) };
}

/** Row k: a window that rings at frequency k + 1; [24, 64]. */
function filters(phase: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: BINS * WINDOW }, (_, i) => {
    const [k, t] = [Math.floor(i / WINDOW), i % WINDOW];
    const angle = (2 * Math.PI * t) / WINDOW;
    return ((1 - Math.cos(angle)) * Math.cos((k + 1) * angle + phase)) / WINDOW;
  });
}

function transposed(rows: Float32Array<ArrayBuffer>, columns: number): Float32Array<ArrayBuffer> {
  const count = rows.length / columns;
  return rows.map((_, i) => rows[(i % count) * columns + Math.floor(i / count)]!);
}

const banks = {
  conv: (make: GraphMaker, x: Value, phase: number) =>
    make.op("Conv", [x, make.constant("bank", tensorOf("float32", [BINS, 1, WINDOW], filters(phase)))], {
      kernel_shape: [WINDOW],
      strides: [16],
    }),
  matmul(make: GraphMaker, x: Value, phase: number) {
    const frames = make.op("Reshape", [x, make.ints("frames", [1, SAMPLES / WINDOW, WINDOW])]);
    const bank = tensorOf("float32", [WINDOW, BINS], transposed(filters(phase), WINDOW));
    return make.op("Transpose", [make.op("MatMul", [frames, make.constant("bank", bank)])], { perm: [0, 2, 1] });
  },
};

/** Real part² + imaginary part², [1, 24, frames]. */
function power(make: GraphMaker, x: Value, bank: keyof typeof banks = "conv"): Value {
  const [real, imaginary] = [banks[bank](make, x, 0), banks[bank](make, x, Math.PI / 2)];
  const squares = [make.op("Mul", [real, real]), make.op("Pow", [imaginary, make.floats("two", [], [2])])];
  return make.op("Add", squares);
}

function decibels(make: GraphMaker, x: Value): Value {
  return make.op("Log", [make.op("Add", [x, make.floats("floor", [], [1e-8])])]);
}

/** Triangles over neighbouring bins: [1, 24, frames] → [1, 12, frames]. */
function mel(make: GraphMaker, x: Value): Value {
  const swap = (value: Value) => make.op("Transpose", [value], { perm: [0, 2, 1] });
  const half = BINS / 2;
  const data = Float32Array.from({ length: BINS * half }, (_, i) =>
    Math.max(0, 1 - Math.abs(Math.floor(i / half) - 2 * (i % half)) / 2),
  );
  return swap(make.op("MatMul", [swap(x), make.constant("mel", tensorOf("float32", [BINS, half], data))]));
}

function resampled(make: GraphMaker, x: Value): Value {
  return make.op("Conv", [x, make.floats("low", [1, 1, 3], [0.25, 0.5, 0.25])], { kernel_shape: [3], pads: [1, 1] });
}

/** Layers behind a spectrum: what there is to quantize. */
const HEAD_LAYERS = 4;

function listening(make: GraphMaker, spectrum: Value, bins: number): Model {
  let y = spectrum;
  let from = bins;
  for (let i = 1; i < HEAD_LAYERS; i++) {
    const weights = [make.weight("w", [16, from, 3], Math.sqrt(2 / (3 * from))), make.weight("b", [16], 0.1)];
    y = make.op("Relu", [make.op("Conv", [y, ...weights], { kernel_shape: [3], pads: [1, 1] })]);
    from = 16;
  }
  make.output(make.op("Conv", [y, make.weight("w", [4, 16, 1], 0.25)], { kernel_shape: [1] }), "y");
  return make.model;
}

function signalModel(spectrum: (make: GraphMaker, x: Value) => Value, bins = BINS): Model {
  const make = new GraphMaker();
  return listening(make, spectrum(make, make.input("x", [1, 1, SAMPLES])), bins);
}

async function* eachOf(feeds: readonly Feeds[]): AsyncGenerator<Feeds> {
  yield* feeds;
}

async function observed(raw: Model, feeds: readonly Feeds[]) {
  const { model } = await prepareStatic(raw, feeds[0]!, { openModel });
  return { model, calibration: await calibrate(model, eachOf(feeds), { openModel }) };
}

const HEARD = Array.from({ length: 16 }, (_, i) => sound(i + 1));
const HELD_OUT = Array.from({ length: 4 }, (_, i) => sound(1000 + i));

async function worstSqnrDb(reference: Model, model: Model): Promise<number> {
  let worst = Number.POSITIVE_INFINITY;
  for (const feeds of HELD_OUT) {
    worst = Math.min(worst, sqnrDb(await runModel(reference, feeds), await runModel(model, feeds)));
  }
  return worst;
}

/** As if it were not known what the operators that stretch have read. */
function withoutStretches(model: Model, { activations, ...others }: Calibration): Calibration {
  const hidden = new Set(stretchesIn(model).map(({ input }) => input.name));
  return { ...others, activations: new Map([...activations].filter(([name]) => !hidden.has(name))) };
}

const SPECTRA: Readonly<Record<string, { model: () => Model; layersInFloat: number }>> = {
  "a bank of convolutions": { model: () => signalModel((make, x) => decibels(make, power(make, x))), layersInFloat: 2 },
  "a bank of matrix products": {
    model: () => signalModel((make, x) => decibels(make, power(make, x, "matmul"))),
    layersInFloat: 2,
  },
  "a mel matrix behind a bank": {
    model: () => signalModel((make, x) => decibels(make, mel(make, power(make, x))), BINS / 2),
    layersInFloat: 3,
  },
  "a bank behind a resampler": {
    model: () => signalModel((make, x) => decibels(make, power(make, resampled(make, x)))),
    layersInFloat: 3,
  },
  "a fifth root": {
    model: () => signalModel((make, x) => make.op("Pow", [power(make, x), make.floats("exponent", [], [0.2])])),
    layersInFloat: 2,
  },
  "a denominator": {
    model: () =>
      signalModel((make, x) => {
        const loudness = make.op("Add", [power(make, x), make.floats("floor", [], [1e-4])]);
        return make.op("Div", [make.floats("one", [], [1e-4]), loudness]);
      }),
    layersInFloat: 2,
  },
};

for (const [name, { model: build, layersInFloat }] of Object.entries(SPECTRA)) {
  test(`${name} in front of what stretches small values stays in float, the network behind it does not`, async () => {
    const { model, calibration } = await observed(build(), HEARD);
    const { model: quantized, notes } = quantizeStatic(model, calibration, OPTIONS);
    const layers = notes.filter(({ op }) => op === "Conv" || op === "MatMul");
    assert.equal(layers.filter(({ code }) => code === "stretched").length, layersInFloat);
    assert.equal(layers.filter(({ code }) => code === "quantized").length, HEAD_LAYERS);
    const before = await worstSqnrDb(model, quantizeStatic(model, withoutStretches(model, calibration), OPTIONS).model);
    const reached = await worstSqnrDb(model, quantized);
    assert.ok(before < 22, `${before} dB when all of it is in 8 bits`);
    assert.ok(reached > 28, `${reached} dB, ${before} dB when all of it is in 8 bits`);
    // A plan knows few samples.
    const first = await calibrate(model, eachOf(HEARD.slice(0, 1)), { openModel });
    const planned = quantizeStatic(model, first, OPTIONS).notes;
    assert.deepEqual(
      planned.map(({ name, code }) => [name, code]),
      notes.map(({ name, code }) => [name, code]),
    );
  });
}

test("the root of a power, whose amplitude 8 bits hold, stretches nothing", async () => {
  const raw = signalModel((make, x) => make.op("Sqrt", [power(make, x)]));
  // Every bin has to have been loud once: kernels without 8-bit dot products saturate where one is louder than was ever seen.
  const { model, calibration } = await observed(
    raw,
    Array.from({ length: 32 }, (_, i) => sound(i + 1)),
  );
  const { model: quantized, notes } = quantizeStatic(model, calibration, OPTIONS);
  assert.equal(notes.filter(({ code }) => code === "stretched").length, 0);
  const reached = await worstSqnrDb(model, quantized);
  assertRecorded(reached, 37.7, 1.5);
});

test("a normalization written out, and a softmax written out, leave their layers in 8 bits", async () => {
  const make = new GraphMaker();
  const x = make.input("x", ["n", 32]);
  const hidden = make.op("Add", [make.linear(x, 32, 32), x]);
  const mean = (value: Value) => make.op("ReduceMean", [value], { axes: [-1] });
  const centred = make.op("Sub", [hidden, mean(hidden)]);
  const variance = mean(make.op("Pow", [centred, make.floats("two", [], [2])]));
  const deviation = make.op("Sqrt", [make.op("Add", [variance, make.floats("epsilon", [], [1e-4])])]);
  const normalized = make.op("Div", [centred, deviation]);
  const logits = make.linear(normalized, 32, 10);
  const powers = make.op("Exp", [make.op("Sub", [logits, make.op("ReduceMax", [logits], { axes: [-1] })])]);
  const sum = make.op("ReduceSum", [powers, make.ints("axes", [-1])]);
  make.output(make.op("Div", [powers, sum]), "y", ["n", 10]);
  const feeds = Array.from({ length: 8 }, () => ({ x: make.random([16, 32]) }));
  const { model, calibration } = await observed(make.model, feeds);
  const { notes } = quantizeStatic(model, calibration, OPTIONS);
  const layers = notes.filter(({ op }) => op === "MatMul");
  assert.deepEqual(
    layers.map(({ code }) => code),
    ["quantized", "quantized"],
  );
});

test("a Relu between layers ends what stays in float: only the last layer in front of a logarithm does", async () => {
  const make = new GraphMaker();
  let y = make.input("x", [1, 1, SAMPLES]);
  let from = 1;
  for (const to of [8, 8, 8]) {
    const weight = make.weight("w", [to, from, 5], Math.sqrt(2 / (5 * from)));
    y = make.op("Relu", [make.op("Conv", [y, weight], { kernel_shape: [5], pads: [2, 2] })]);
    from = to;
  }
  make.output(decibels(make, y), "y");
  const { model, calibration } = await observed(make.model, HEARD);
  const { notes } = quantizeStatic(model, calibration, OPTIONS);
  assert.deepEqual(
    notes.filter(({ op }) => op === "Conv").map(({ code }) => code),
    ["quantized", "quantized", "stretched"],
  );
  const reason = notes.find(({ code }) => code === "stretched")!;
  assert.match(reason.message, /reaches Log "log_node\w*": of 8-bit values, that would leave/);
});

const { floatWhereSlower: _, ...QUANTIZED } = OPTIONS;

const PIPELINE: PipelineOptions = {
  ...QUANTIZED,
  samples: HEARD.length,
  equalize: "auto",
  smoothQuantAlpha: "auto",
  biasCorrection: true,
};

/** Calibrated on what was heard, and tried on what follows that. */
const HEARD_DATA = {
  async *batches(count: number) {
    for (let i = 0; i < Math.min(count, 24); i++) yield sound(i + 1);
  },
};

for (const [name, { model: build, layersInFloat }] of Object.entries(SPECTRA)) {
  test(`${name} stays in float where the outputs are measured to need it`, async () => {
    const result = await compressStatic(build(), HEARD_DATA, PIPELINE, { openModel });
    const facts = result.corrections.find((it) => it.name === "float_where_stretched")!;
    assert.ok(facts.applied && facts.sqnr_after_db > facts.sqnr_before_db + 8, JSON.stringify(facts));
    const layers = result.notes.filter(({ op }) => op === "Conv" || op === "MatMul");
    assert.equal(layers.filter(({ message }) => message.includes("Its result reaches")).length, layersInFloat);
    assert.equal(layers.filter(({ code }) => code === "quantized").length, HEAD_LAYERS);
    const reached = await worstSqnrDb(result.float, result.model);
    // With 3 to 8 samples to correct biases by, 27.4 to 28.9 dB for the denominator, in no order.
    assert.ok(reached > 27, `${reached} dB`);
  });
}

test("a logarithm that the outputs hardly depend on leaves its bank in 8 bits", async () => {
  const make = new GraphMaker();
  const x = make.input("x", [1, 1, SAMPLES]);
  const whisper = make.op("Mul", [decibels(make, power(make, x)), make.floats("little", [], [1e-4])]);
  const shout = banks.conv(make, resampled(make, x), 0);
  const raw = listening(make, make.op("Add", [shout, whisper]), BINS);
  const result = await compressStatic(raw, HEARD_DATA, PIPELINE, { openModel });
  const facts = result.corrections.find((it) => it.name === "float_where_stretched")!;
  assert.ok(!facts.applied && facts.sqnr_after_db === facts.sqnr_before_db, JSON.stringify(facts));
  assert.equal(result.notes.filter(({ code }) => code === "stretched").length, 0);
  assertRecorded(await worstSqnrDb(result.float, result.model), 31.7, 1.5);
});

/** What outputs reach with each form, by operator; the worst counts. */
function measured(table: Readonly<Record<string, Readonly<Record<StretchedForm, number>>>>) {
  const groups = Object.keys(table).map(
    (operator): StretchedGroup => ({
      operator,
      nodes: new Set([operator]),
      reason: { code: "stretched", message: "" },
    }),
  );
  const tried: StretchedForms[] = [];
  const sqnrDb = async (forms: StretchedForms) => {
    tried.push(forms);
    return Math.min(...groups.map(({ operator }) => table[operator]![forms.get(operator) ?? "float"]));
  };
  return { groups, sqnrDb, tried };
}

test("of the forms of nodes in front of a stretch, the cheapest that costs the outputs no more than a dB is taken, for each", async () => {
  const { groups, sqnrDb } = measured({
    log: { quantized: 8, stored: 30, float: 35 },
    root: { quantized: 20, stored: 34.1, float: 36 },
    power: { quantized: 35.5, stored: 36, float: 36 },
  });
  const { forms, quantizedDb, chosenDb } = await chooseStretched(groups, sqnrDb);
  assert.deepEqual(Object.fromEntries(forms), { log: "float", root: "stored", power: "quantized" });
  assert.deepEqual([quantizedDb, chosenDb], [8, 34.1]);
});

test("where all of it may be in 8 bits, or stored in 8 bits, no more is tried", async () => {
  const cheap = measured({ log: { quantized: 24.6, stored: 25, float: 25 } });
  assert.deepEqual(Object.fromEntries((await chooseStretched(cheap.groups, cheap.sqnrDb)).forms), { log: "quantized" });
  assert.equal(cheap.tried.length, 2);
  const stored = measured({ log: { quantized: 10, stored: 24.6, float: 25 } });
  assert.deepEqual(Object.fromEntries((await chooseStretched(stored.groups, stored.sqnrDb)).forms), { log: "stored" });
  assert.equal(stored.tried.length, 3);
});

test("a node in front of two operators has the more careful of their forms", () => {
  const reason = (message: string) => ({ code: "stretched", message }) as const;
  const groups: StretchedGroup[] = [
    { operator: "a", nodes: new Set(["both", "mine"]), reason: reason("In front of a.") },
    { operator: "b", nodes: new Set(["both", "yours"]), reason: reason("In front of b.") },
  ];
  const storing = (forms: Record<string, StretchedForm>) =>
    Object.fromEntries(
      [...nodesInFloat(groups, new Map(Object.entries(forms)))].map(([name, it]) => [name, it.storesWeights]),
    );
  assert.deepEqual(storing({ a: "stored", b: "float" }), { both: false, mine: true, yours: false });
  assert.deepEqual(storing({ a: "quantized", b: "stored" }), { both: true, yours: true });
  assert.deepEqual(storing({ a: "quantized", b: "quantized" }), {});
  assert.deepEqual(storing({}), { both: false, mine: false, yours: false });
  // The first of those that want the same says why.
  const why = (a: StretchedForm, b: StretchedForm) =>
    nodesInFloat(groups, new Map(Object.entries({ a, b }))).get("both")!.message;
  assert.deepEqual(
    [why("float", "float"), why("float", "stored"), why("stored", "stored"), why("stored", "float")],
    ["In front of a.", "In front of a.", "In front of a.", "In front of b."],
  );
});

test("nodes in front of a stretch compute in float from weights that are stored in 8 bits, where that is their form", async () => {
  const { model, calibration } = await observed(SPECTRA["a bank of convolutions"]!.model(), HEARD);
  const operator = model.graph.nodes.find(({ opType }) => opType === "Log")!.name;
  const made = (form: StretchedForm) =>
    quantizeStatic(model, calibration, { ...OPTIONS, stretched: new Map([[operator, form]]) });
  const [float, stored] = [made("float"), made("stored")];
  const bytes = 2 * BINS * WINDOW * 4;
  const saved = predictedBytes(float.model) - predictedBytes(stored.model);
  assertRecorded(saved / bytes, 0.72, 0.005, `${saved} of ${bytes} bytes:`);
  const banked = stored.notes.filter(({ op, code }) => op === "Conv" && code === "stored_codes");
  assert.equal(banked.length, 2);
  assert.match(banked[0]!.message, /Its result reaches Log/);
});
