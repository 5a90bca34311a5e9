import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Model, Value } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { printModel } from "../../../src/core/onnx/print.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import type { Evaluate } from "../../../src/core/passes/fold-constants.ts";
import { sealWeights, simplify, simplifyPasses } from "../../../src/core/passes/simplify.ts";
import {
  branches,
  cnn,
  GraphMaker,
  loop,
  lstm,
  mlp,
  mobilenet,
  randomFeeds,
  resnet,
  transformer,
} from "../../support/graphs.ts";
import { runModel } from "../../support/open-model.ts";
import { REAL_MODEL_NAMES, type RealModel, readRealModel } from "../../support/real-models.ts";
import { assertSameFunction } from "../../support/same-function.ts";

const evaluate: Evaluate = (model) => runModel(model, {});

function countOf(model: Model, opType: string): number {
  return [...model.nodes()].filter((node) => node.opType === opType).length;
}

// ---- real models -----------------------------------------------------------------------------------------------------

/** Dark bars on light ground: noise would leave the outputs of the detector at zero. */
function image(height: number, width: number): Record<string, Tensor> {
  const data = new Float32Array(3 * height * width);
  data.forEach((_, i) => {
    const [x, y] = [i % width, Math.floor(i / width) % height];
    const inLine = y > 0.32 * height && y < 0.69 * height && x > 16 && x < width - 16;
    data[i] = inLine && (x % 12 < 5 || y === height / 2) ? -2 : 2;
  });
  return { x: tensorOf("float32", [1, 3, height, width], data) };
}

function sound(): Record<string, Tensor> {
  const wave = Array.from({ length: 512 }, (_, i) => 0.3 * Math.sin(i / 5) + 0.1 * Math.sin(i / 1.7));
  return {
    input: tensorOf("float32", [1, 512], wave),
    state: tensorOf("float32", [2, 1, 128], new Float32Array(256).fill(0.1)),
    sr: tensorOf("int64", [], [16_000]),
  };
}

/**
 * The detector's sigmoid stands at the end of a steep network: onnxruntime's own optimizations move it by 9e-6. An LSTM whose weights are
 * constants runs another matrix kernel, which adds up in another order.
 */
const REAL: Record<
  RealModel,
  { feeds: () => Record<string, Tensor>; fewer: Record<string, number>; tolerance?: number }
> = {
  "ppocr-rec": { feeds: () => image(48, 320), fewer: { BatchNormalization: 6, Mul: 28, Add: 28, Cast: 15 } },
  "ppocr-det": { feeds: () => image(64, 160), fewer: { BatchNormalization: 3, Mul: 28, Add: 30 }, tolerance: 3e-5 },
  "ppocr-cls": { feeds: () => image(48, 192), fewer: { BatchNormalization: 35 } },
  "silero-vad": { feeds: sound, fewer: { Identity: 6, Slice: 48, Concat: 20 }, tolerance: 3e-5 },
  "silero-16k": { feeds: sound, fewer: { Unsqueeze: 19, Slice: 24, Cast: 1 }, tolerance: 3e-5 },
  "silero-half": { feeds: sound, fewer: { Unsqueeze: 7, Slice: 24 } },
  "silero-ifless": { feeds: sound, fewer: {} },
};

for (const name of REAL_MODEL_NAMES) {
  test(`${name}: simplified it is smaller and computes the same`, async () => {
    const { feeds, fewer, tolerance } = REAL[name];
    const bytes = readRealModel(name);
    const before = loadModel(bytes);
    const { model: after } = await simplify(before, { evaluate });
    for (const [opType, count] of Object.entries(fewer)) {
      assert.equal(countOf(before, opType) - countOf(after, opType), count, `fewer ${opType}`);
    }
    assert.ok(modelToBytes(after).length < bytes.length, "the file is smaller");
    assert.ok(Buffer.from(bytes).equals(modelToBytes(before)), "the original is untouched");
    await assertSameFunction(before, after, feeds(), tolerance);
    const again = await simplify(after, { evaluate });
    assert.equal(printModel(again.model), printModel(after), "there is nothing left to do");
  });
}

// ---- built networks --------------------------------------------------------------------------------------------------

const NETWORKS: Record<string, Model> = {
  mlp: mlp(),
  "cnn in Constant nodes": cnn({ storage: "constant" }),
  resnet: resnet({ width: 8, size: 32, classes: 10 }),
  mobilenet: mobilenet(),
  transformer: transformer(),
  "transformer with tied embeddings": transformer({ tied: true }),
  lstm: lstm(),
  branches: branches(),
  "loop in Constant nodes": loop({ storage: "constant" }),
};

for (const [name, model] of Object.entries(NETWORKS)) {
  test(`${name}: computes the same, saves and loads`, async () => {
    const { model: after } = await simplify(model, { evaluate });
    await assertSameFunction(model, after, randomFeeds(model));
    const loaded = loadModel(modelToBytes(after));
    assert.equal(printModel(loaded, { digests: true }), printModel(after, { digests: true }));
  });
}

test("passes can be left out by name", () => {
  const names = simplifyPasses().map(({ name }) => name);
  assert.deepEqual(names, [
    "seal weights",
    "bypass identities",
    "fold moved weights",
    "fuse affine operators",
    "merge duplicate constants",
    "remove dead code",
    "drop traces",
  ]);
  assert.equal(simplifyPasses({ except: ["fuse affine operators"] }).length, 6);
});

// ---- weights among the inputs ----------------------------------------------------------------------------------------

test("weights leave the inputs; below IR version 4 everything with a default does", () => {
  const make = new GraphMaker();
  const x = make.input("x", [1, 4]);
  const w = make.weight("w", [4, 4], 1);
  const rate = make.graph.addInitializer("rate", tensorOf("int64", [], [16_000]));
  const gain = make.graph.addInitializer("gain", tensorOf("float32", [], [2]));
  for (const value of [w, rate, gain]) make.graph.setOverridable(value, true);
  const scaled = make.op("Mul", [make.op("MatMul", [x, w]), gain]);
  make.output(make.op("Add", [scaled, make.op("Cast", [rate], { to: 1 })]), "y");
  const inputsOf = (model: Model) => model.graph.inputs.map(({ name }) => name);

  const modern = make.model.clone();
  assert.equal(
    sealWeights.run(modern, () => {}),
    true,
  );
  assert.deepEqual(inputsOf(modern), ["x", "rate", "gain"]);
  assert.equal(
    sealWeights.run(modern, () => {}),
    false,
  );

  const old = make.model.clone();
  old.irVersion = 3;
  assert.equal(
    sealWeights.run(old, () => {}),
    true,
  );
  assert.deepEqual([inputsOf(old), old.irVersion], [["x"], 4]);
});

test("an option with a default is not folded away", async () => {
  const make = new GraphMaker();
  const x = make.input("x", [1, 4]);
  const gain = make.graph.addInitializer("gain", tensorOf("float32", [], [2]));
  make.graph.setOverridable(gain, true);
  make.output(make.op("Mul", [x, make.op("Sqrt", [gain])]), "y");
  const { model } = await simplify(make.model, { evaluate });
  assert.equal(countOf(model, "Sqrt"), 1);
  assert.deepEqual(
    model.graph.inputs.map(({ name }) => name),
    ["x", "gain"],
  );
});

// ---- random graphs ---------------------------------------------------------------------------------------------------

type Step = readonly [kind: number, a: number, b: number];

/** A graph over x [2, 4, 6, 6] made of whatever the passes care for: every value keeps that shape. */
function randomGraph(steps: readonly Step[], storage: "initializer" | "constant"): Model {
  const make = new GraphMaker({ storage });
  const values: Value[] = [make.input("x", [2, 4, 6, 6])];
  const shared = make.weight("shared", [4, 4, 1, 1], 0.5);
  // Three tables large enough to be merged wherever they appear again, in bodies too.
  const table = (maker: GraphMaker, b: number) =>
    maker.constant("table", tensorOf("float32", [4, 6, 6], new Float32Array(144).fill(1 - (b % 3) / 10)));
  const kinds: ((x: Value, y: Value, b: number) => Value)[] = [
    (x) => make.conv(x, [4, 4], 3, { gain: 1 }),
    (x) => make.op("Conv", [x, shared]),
    (x) => make.op("ConvTranspose", [x, make.weight("t", [4, 4, 1, 1], 0.5)]),
    (x) => make.batchNorm(x, 4),
    (x, _, b) => make.op("Mul", [x, make.weight("c", [[], [4, 1, 1], [1, 4, 1, 1], [6, 6]][b % 4]!, 1)]),
    (x, _, b) => make.op("Add", [make.weight("c", [[], [4, 1, 1], [6], [2, 1, 1, 1]][b % 4]!, 1), x]),
    (x, y) => make.op("Add", [x, y]),
    (x) => make.op("Tanh", [x]),
    (x) => make.op("Identity", [x]),
    (x) => make.op("Dropout", [x]),
    (x) => make.op("Concat", [x], { axis: 1 }),
    (x) => make.op("Mul", [x, make.op("Sqrt", [make.op("Abs", [make.weight("c", [4, 1, 1], 1)])])]),
    (x) => make.op("Add", [x, make.op("Transpose", [make.weight("c", [6, 6], 1)], { perm: [1, 0] })]),
    (x, _, b) => make.op("Mul", [x, table(make, b)]),
    (x, y, b) => {
      const body = (value: Value, which: number) => {
        const inner = make.body();
        inner.output(inner.op("Mul", [inner.op("Identity", [value]), table(inner, which)]), "inner");
        return inner.graph;
      };
      const condition = make.constant("condition", tensorOf("bool", [], [1]));
      return make.op("If", [condition], { then_branch: body(x, b), else_branch: body(y, b + 1) });
    },
  ];
  for (const [kind, a, b] of steps) {
    const x = values[a % values.length]!;
    const y = values[b % values.length]!;
    values.push(kinds[kind % kinds.length]!(x, y, b));
  }
  const outputs = new Set([values.at(-1)!, values[Math.floor(values.length / 2)]!]);
  for (const value of outputs) if (value.producer) make.output(value, "y");
  if (make.graph.outputs.length === 0) make.output(make.op("Relu", [values[0]!]), "y");
  return make.model;
}

test("random graphs compute the same after all passes", async () => {
  const steps = fc.array(fc.tuple(fc.nat(14), fc.nat(30), fc.nat(30)), { minLength: 1, maxLength: 14 });
  await fc.assert(
    fc.asyncProperty(steps, fc.constantFrom("initializer" as const, "constant" as const), async (list, storage) => {
      const model = randomGraph(list, storage);
      const { model: after } = await simplify(model, { evaluate });
      await assertSameFunction(model, after, randomFeeds(model), 2e-5);
    }),
    { numRuns: 150, seed: 6 },
  );
});
