import assert from "node:assert/strict";
import { test } from "node:test";
import { inspectModel } from "../../../src/core/evaluate/model-facts.ts";
import type { ModelFacts } from "../../../src/core/facts.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { type OpenSession, openSession } from "../../../src/core/runtime/session.ts";
import { branches, GraphMaker, loop, lstm, mlp, resnet, transformer } from "../../support/graphs.ts";
import { REAL_MODELS, type RealModel, readRealModel } from "../../support/real-models.ts";

function inspect(
  model: Model,
  dims: Record<string, number> = {},
  open: OpenSession = openSession,
): Promise<ModelFacts> {
  return inspectModel(model, { openSession: open, source: { bytes: modelToBytes(model) }, dims });
}

function inspectReal(name: RealModel, dims: Record<string, number> = {}): Promise<ModelFacts> {
  return inspectModel(loadModel(readRealModel(name)), { openSession, source: { path: REAL_MODELS[name] }, dims });
}

test("whether a model can be trained, and what is in the way", async () => {
  assert.deepEqual((await inspect(mlp({ sizes: [4, 2] }))).trainable, { ok: true, subject: null, message: null });
  assert.equal((await inspectReal("ppocr-cls")).trainable.ok, true);
  assert.deepEqual((await inspectReal("silero-16k")).trainable, {
    ok: false,
    subject: "/model/decoder/If_1",
    message: 'The model cannot be trained through "/model/decoder/If_1". No gradient is known for If.',
  });
});

// ---- known networks --------------------------------------------------------------------------------------------------

test("ResNet-50 at 224: 25.6 M parameters, 4.1 G multiply-accumulates", async () => {
  const facts = await inspect(resnet({ depth: 50 }));
  // The published 25 557 032, and mean and variance of 53 normalizations, which files hold as weights too.
  assert.equal(facts.parameters, 25_557_032 + 2 * 26_560);
  assert.equal(facts.weight_bytes, 4 * facts.parameters);
  assert.deepEqual(facts.weight_bytes_by_dtype, { float32: facts.weight_bytes });
  assert.equal(facts.macs, 4_089_184_256);
  assert.deepEqual(facts.inputs, [{ name: "x", dtype: "float32", shape: ["n", 3, 224, 224] }]);
  assert.deepEqual(facts.outputs, [
    {
      ...{ name: "logits", dtype: "float32", shape: ["n", 1000] },
      meaning: { kind: "class_scores", class_axis: null, evident: false },
    },
  ]);
  assert.equal(facts.operators.Conv, 53);
  assert.equal(
    facts.nodes,
    Object.values(facts.operators).reduce((a, b) => a + b),
  );
});

test("ResNet-18 at 224: 1.8 G multiply-accumulates; four times the pixels are four times the work", async () => {
  const convolutions = ({ macs }: ModelFacts) => macs! - 512 * 1000;
  const small = await inspect(resnet({ size: "size" }), { size: 224 });
  assert.equal(small.macs, 1_814_073_344);
  const large = await inspect(resnet({ size: "size" }), { size: 448 });
  assert.equal(convolutions(large), 4 * convolutions(small));
  const batch = await inspect(resnet({ size: "size" }), { size: 224, n: 3 });
  assert.equal(batch.macs, 3 * small.macs!);
});

test("a small network, counted by hand", async () => {
  const facts = await inspect(mlp({ sizes: [16, 32, 8] }));
  assert.equal(facts.parameters, 16 * 32 + 32 + 32 * 8 + 8);
  assert.equal(facts.macs, 16 * 32 + 32 * 8);
  assert.equal(facts.activation_bytes, 4 * (32 + 32 + 8));
  assert.deepEqual(facts.operators, { Gemm: 2, Relu: 1 });
  assert.deepEqual([facts.ir_version, facts.opset_imports], [8, { "ai.onnx": 17 }]);
});

test("operators are listed by how often they occur, and those that occur as often by name", async () => {
  const make = new GraphMaker();
  const x = ["Sqrt", "Relu", "Abs", "Sqrt", "Relu", "Tanh", "Neg"].reduce(
    (value, op) => make.op(op, [value]),
    make.input("x", [2]),
  );
  make.output(x, "y", [2]);
  const { operators } = await inspect(make.model);
  assert.deepEqual(Object.entries(operators), [
    ["Relu", 2],
    ["Sqrt", 2],
    ["Abs", 1],
    ["Neg", 1],
    ["Tanh", 1],
  ]);
});

test("a transformer: shape arithmetic does not hide its products, and weights may be tied", async () => {
  const [hidden, sequence, vocabulary, layers] = [32, 8, 64, 2];
  const options = { hidden, sequence, vocabulary, layers };
  const perLayer = sequence * 12 * hidden * hidden + 2 * sequence * sequence * hidden;
  assert.equal((await inspect(transformer(options))).macs, layers * perLayer);
  const tied = await inspect(transformer({ ...options, tied: true }));
  assert.equal(tied.macs, layers * perLayer + sequence * hidden * vocabulary);
  assert.equal(tied.parameters, (await inspect(transformer(options))).parameters, "one table, read twice");
});

test("an LSTM counts both of its matrices at every step", async () => {
  const facts = await inspect(lstm({ inputs: 12, hidden: 16, bidirectional: true }), { time: 10, n: 1 });
  assert.equal(facts.macs, 10 * 2 * 4 * 16 * (12 + 16));
});

test("the storage of weights makes no difference, and Constant nodes are no nodes", async () => {
  const [inInitializers, inNodes] = [await inspect(transformer()), await inspect(transformer({ storage: "constant" }))];
  assert.deepEqual(inNodes, inInitializers);
});

// ---- bodies ----------------------------------------------------------------------------------------------------------

test("an If costs its dearer branch, once", async () => {
  const facts = await inspect(branches({ features: 16 }));
  assert.equal(facts.macs, 16 * 32 + 32 * 16 + 16 * 16);
  assert.equal(facts.activation_bytes, 4 * (3 * 32 + 2 * 16 + 16));
  assert.equal(facts.operators.MatMul, 6);
});

test("a Loop with a constant trip count costs all its rounds", async () => {
  assert.equal((await inspect(loop({ features: 16, steps: 5 }))).macs, 5 * 2 * 16 * 16);
});

test("a Loop whose trip count is an input has no known cost", async () => {
  const model = loop();
  const trips = [...model.graph.initializers].find(({ name }) => name === "trips")!;
  model.graph.nodes[0]!.setInput(0, model.graph.addInput("count", "int64", []));
  model.graph.removeInitializer(trips);
  const facts = await inspect(model);
  assert.deepEqual([facts.macs, facts.activation_bytes], [null, null]);
});

// ---- real models -----------------------------------------------------------------------------------------------------

const REAL: { name: RealModel; nodes: number; parameters: number; dims: Record<string, number>; macs: number }[] = [
  { name: "ppocr-rec", nodes: 440, parameters: 2_690_109, dims: { "p2o.DynamicDimension.1": 320 }, macs: 702_469_440 },
  {
    name: "ppocr-cls",
    nodes: 221,
    parameters: 133_628,
    dims: { "p2o.DynamicDimension.1": 48, "p2o.DynamicDimension.2": 192 },
    macs: 16_315_376,
  },
  { name: "silero-16k", nodes: 190, parameters: 309_632, dims: { sequence: 512 }, macs: 563_968 },
  // Its inputs have no names for their sizes, and its branch for 8 kHz takes no frame of 512 samples.
  { name: "silero-vad", nodes: 348, parameters: 545_280, dims: { "input.1": 512, "state.1": 1 }, macs: 563_968 },
];

for (const { name, nodes, parameters, dims, macs } of REAL) {
  test(`${name}: ${(parameters / 1e6).toFixed(2)} M parameters; its cost is known when its sizes are`, async () => {
    const plain = await inspectReal(name);
    assert.deepEqual(
      [plain.nodes, plain.parameters, plain.macs, plain.activation_bytes],
      [nodes, parameters, null, null],
    );
    assert.equal(plain.weight_bytes, 4 * parameters);
    const sized = await inspectReal(name, dims);
    assert.equal(sized.macs, macs);
    assert.deepEqual({ ...sized, macs: null, activation_bytes: null }, plain);
  });
}

// ---- weights ---------------------------------------------------------------------------------------------------------

test("what steers an operator, shapes and single numbers are no weights", async () => {
  const make = new GraphMaker();
  const x = make.input("x", [1, 1, 4, 4]);
  const clipped = make.op("Clip", [x, make.floats("lo", [], [0]), make.floats("hi", [], [6])]);
  const resized = make.op("Resize", [clipped, undefined, make.floats("scales", [4], [1, 1, 2, 2])], {
    mode: "nearest",
  });
  const scaled = make.op("Mul", [resized, make.floats("k", [], [2])]);
  const shaped = make.op("Reshape", [scaled, make.ints("shape", [1, 64])]);
  make.output(make.op("MatMul", [shaped, make.weight("w", [64, 3], 1)]), "y");
  const facts = await inspect(make.model);
  assert.deepEqual([facts.parameters, facts.weight_bytes], [192, 768]);
});

test("a quantized weight has as many parameters as the float one; scales and zero points count in bytes", async () => {
  const [k, n, block] = [64, 8, 32];
  const make = new GraphMaker({ opset: 21, irVersion: 10 });
  const x = make.input("x", [1, k]);
  const bytes = (count: number) => new Uint8Array(count);
  const packed = [
    make.constant("b", tensor("uint8", [n, k / block, block / 2], bytes((n * k) / 2))),
    make.constant("b_scales", tensor("float32", [n, k / block], bytes((4 * n * k) / block))),
    make.constant("b_zero_points", tensor("uint8", [n, 1], bytes(n))),
  ];
  const attrs = { K: k, N: n, bits: 4, block_size: block };
  const first = make.node("MatMulNBits", [x, ...packed], attrs, 1, "com.microsoft").outputs[0]!;
  const codes = make.constant("codes", tensor("int8", [n, k], bytes(n * k)));
  const scales = make.constant("scales", tensor("float32", [k], bytes(4 * k)));
  const weight = make.op("DequantizeLinear", [codes, scales, make.constant("zeros", tensor("int8", [k], bytes(k)))], {
    axis: 1,
  });
  make.output(make.op("MatMul", [first, weight]), "y");
  const facts = await inspect(make.model);
  assert.equal(facts.parameters, 2 * k * n);
  assert.deepEqual(facts.weight_bytes_by_dtype, {
    uint8: (n * k) / 2 + n,
    float32: (4 * n * k) / block + 4 * k,
    int8: n * k + k,
  });
  assert.equal(facts.macs, 2 * k * n);
  assert.equal(facts.operators["com.microsoft.MatMulNBits"], 1);
});

test("the scale of an activation is no weight", async () => {
  const make = new GraphMaker();
  const x = make.input("x", [1, 4]);
  const scale = make.floats("scale", [4], [1, 2, 3, 4]);
  const zero = make.constant("zero", tensorOf("uint8", [4], [0, 0, 0, 0]));
  const quantized = make.op("QuantizeLinear", [x, scale, zero], { axis: 1 });
  make.output(make.op("DequantizeLinear", [quantized, scale, zero], { axis: 1 }), "y");
  const facts = await inspect(make.model);
  assert.deepEqual([facts.parameters, facts.weight_bytes], [0, 0]);
});

// ---- sessions and refusals -------------------------------------------------------------------------------------------

test("a model is loaded once as it is, and once more only where sizes are known; weights are loaded once", async () => {
  const sizes: number[] = [];
  const counting: OpenSession = (source, options) => {
    sizes.push("bytes" in source ? source.bytes.length : 0);
    return openSession(source, options);
  };
  const model = resnet({ width: 16, size: "size" });
  await inspect(model, {}, counting);
  assert.equal(sizes.length, 1);
  await inspect(model, { size: 64 }, counting);
  assert.equal(sizes.length, 3);
  assert.ok(sizes[2]! < sizes[1]! / 10, `${sizes[2]} bytes for the shapes of a model of ${sizes[1]}`);
});

test("a model that the runtime cannot load is refused with the node at fault", async () => {
  const make = new GraphMaker();
  make.output(make.op("NoSuchOperator", [make.input("x", [1])]), "y");
  await assert.rejects(inspect(make.model), { code: "invalid_model", message: /NoSuchOperator/ });
});

test("sizes for dimensions that are not there, or that cannot be, are refused", async () => {
  const model = mlp();
  await assert.rejects(inspect(model, { w: 3 }), { code: "invalid_params", subject: "w", message: /there are "n"/ });
  for (const size of [0, -1, 1.5, Number.NaN, 2 ** 53]) {
    await assert.rejects(inspect(model, { n: size }), { code: "invalid_params", subject: "n" });
  }
  await assert.rejects(inspect(model, { n: 2 ** 50 }), { code: "invalid_params", subject: "x" });
});

test("sizes that the network cannot have make its cost unknown, and nothing else", async () => {
  const facts = await inspect(resnet({ width: 8, size: "size" }), { size: 1 });
  assert.ok(facts.parameters > 0);
  const make = new GraphMaker();
  const x = make.input("x", ["n", "k"]);
  make.output(make.op("MatMul", [x, make.weight("w", [16, 4], 1)]), "y");
  assert.equal((await inspect(make.model, { k: 15 })).macs, null);
  assert.equal((await inspect(make.model, { k: 16 })).macs, 64);
});

test("a cancelled inspection stops", async () => {
  const model = mlp();
  const options = { openSession, source: { bytes: modelToBytes(model) }, signal: AbortSignal.abort() };
  await assert.rejects(inspectModel(model, options), { code: "cancelled" });
});

test("an ensemble of trees is loaded once as a whole: what its values are is asked with a single leaf", async () => {
  const [trees, leaves] = [2000, 4];
  const all = Array.from({ length: trees * (2 * leaves - 1) }, (_, i) => i);
  const at = (i: number) => i % (2 * leaves - 1);
  const tree = (i: number) => Math.floor(i / (2 * leaves - 1));
  const isLeaf = (i: number) => at(i) >= leaves - 1;
  const floats = (value: readonly number[]) => ({ type: "floats", value }) as const;
  const ends = all.filter(isLeaf);
  const make = new GraphMaker();
  // The first version that says what shapes come of it.
  make.model.requireOpset("ai.onnx.ml", 3);
  const { outputs } = make.node(
    "TreeEnsembleClassifier",
    [make.input("x", ["n", 3])],
    {
      nodes_treeids: all.map(tree),
      nodes_nodeids: all.map(at),
      nodes_featureids: all.map((i) => i % 3),
      nodes_modes: { type: "strings", value: all.map((i) => (isLeaf(i) ? "LEAF" : "BRANCH_LEQ")) },
      nodes_values: floats(all.map((i) => (i % 7) - 3)),
      nodes_truenodeids: all.map((i) => (isLeaf(i) ? 0 : 2 * at(i) + 1)),
      nodes_falsenodeids: all.map((i) => (isLeaf(i) ? 0 : 2 * at(i) + 2)),
      class_treeids: ends.map(tree),
      class_nodeids: ends.map(at),
      class_ids: ends.map((i) => i % 5),
      class_weights: floats(ends.map((i) => i % 3)),
      classlabels_int64s: [10, 20, 30, 40, 50],
    },
    2,
    "ai.onnx.ml",
  );
  make.output(make.op("Identity", [outputs[0]!]), "label", ["n"], "int64");
  make.output(make.op("Mul", [outputs[1]!, make.floats("two", [], [2])]), "scores", ["n", 5]);
  // As a file has it: long lists are read when they are asked for.
  const model = loadModel(modelToBytes(make.model));
  const sizes: number[] = [];
  const facts = await inspect(model, { n: 4 }, (source, options) => {
    if ("bytes" in source) sizes.push(source.bytes.length);
    return openSession(source, options);
  });
  assert.ok(sizes.length === 2 && sizes[0]! > 200_000 && sizes[1]! < 2000, `${sizes}`);
  assert.equal(facts.activation_bytes, 4 * (2 * 8 + 2 * 5 * 4), "labels and scores, twice each");
  assert.deepEqual(facts.operators, { "ai.onnx.ml.TreeEnsembleClassifier": 1, Identity: 1, Mul: 1 });
  // The model itself has all its trees still.
  const { nodes_modes: modes } = Object.fromEntries(model.graph.nodes[0]!.attrs);
  assert.equal((modes!.value as readonly string[]).length, all.length);
  assert.deepEqual(modelToBytes(model), modelToBytes(make.model));
});
