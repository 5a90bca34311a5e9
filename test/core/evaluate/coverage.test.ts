import assert from "node:assert/strict";
import { test } from "node:test";
import { completeNotes, coverageWarnings } from "../../../src/core/evaluate/coverage.ts";
import { listLayers } from "../../../src/core/evaluate/layer-facts.ts";
import type { Model, Node } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import { float16Pass } from "../../../src/core/passes/float16.ts";
import { type Exclusions, type Note, noteOn, type Pass, runPasses } from "../../../src/core/passes/pass.ts";
import { simplifyPasses } from "../../../src/core/passes/simplify.ts";
import { dynamicPass } from "../../../src/core/quantize/weights/dynamic.ts";
import { weightOnlyPass } from "../../../src/core/quantize/weights/weight-only.ts";
import { branches, cnn, GraphMaker, lstm, mlp, transformer } from "../../support/graphs.ts";

const uploaded = (model: Model) => loadModel(modelToBytes(model));
const NONE: Exclusions = { nodes: [], ops: [] };
const METHODS: Readonly<Record<string, (exclude: Exclusions) => Pass>> = {
  float16: (exclude) => float16Pass({ keepIo: true, exclude }),
  dynamic: (exclude) => dynamicPass({ perChannel: true, reduceRange: false, exclude }),
  weight_only: (exclude) =>
    weightOnlyPass({
      ...{ bits: 4, blockSize: 32, symmetric: false, format: "matmulnbits", embeddings: true, accuracyLevel: 4 },
      exclude,
    }),
};

function compressed(method: string, original: Model, exclude = NONE) {
  const { model, notes } = runPasses(original, [...simplifyPasses(), METHODS[method]!(exclude)]);
  return { model, notes: completeNotes(original, model, notes) };
}

/** Layers, so small that some methods pass them over in silence, and of operators that no method knows. */
function odd(): Model {
  const m = new GraphMaker({ opset: 19 });
  const x = m.input("x", [1, 2, 6, 6]);
  const offsets = m.floats("offsets", [1, 8, 5, 5], new Array(200).fill(0.25));
  const deformed = m.op("DeformConv", [x, m.weight("dw", [2, 2, 2, 2], 0.5), offsets], { kernel_shape: [2, 2] });
  const flat = m.op("Flatten", [deformed]);
  m.output(m.op("MatMul", [flat, m.weight("w", [50, 2], 0.1)]), "y", [1, 2]);
  return m.model;
}

const NETWORKS = { mlp: mlp(), cnn: cnn(), transformer: transformer(), lstm: lstm(), branches: branches(), odd: odd() };

for (const method of Object.keys(METHODS)) {
  for (const [name, network] of Object.entries(NETWORKS)) {
    test(`${method} accounts for every layer of the ${name} network, once`, () => {
      const original = uploaded(network);
      const { model, notes } = compressed(method, original);
      for (const label of new Set(listLayers(original).map((layer) => layer.name))) {
        const about = notes.filter((note) => note.name === label && note.outcome !== "simplified");
        assert.equal(about.length, 1, `${label}: ${JSON.stringify(about)}`);
      }
      assert.deepEqual(coverageWarnings(original, model, notes), []);
    });
  }
}

test("a model that is float16 has nothing left for float16, and is said to be", () => {
  const half = uploaded(compressed("float16", uploaded(mlp())).model);
  const { model, notes } = compressed("float16", half);
  const layers = listLayers(half).map(({ name }) => name);
  assert.deepEqual(
    notes.filter(({ outcome }) => outcome !== "simplified").map(({ name, outcome, code }) => [name, outcome, code]),
    layers.map((name) => [name, "skipped", "already_float16"]),
  );
  assert.deepEqual(
    coverageWarnings(half, model, notes).map(({ code, message }) => [code, message]),
    [["nothing_quantized", `Nothing was changed: nodes that were left alone: ${layers.length} already_float16.`]],
  );
});

test("float16 has changed a layer whose weights are too few to be noted one by one", () => {
  const { notes } = compressed("float16", uploaded(odd()));
  const ofMatMul = notes.filter(({ op }) => op === "MatMul").map(({ outcome, code }) => [outcome, code]);
  assert.deepEqual(ofMatMul, [["changed", "float16"]]);
});

/** Weights as codes and a DequantizeLinear, as every quantizer writes them; and one layer of QLinearMatMul. */
function quantizedBefore(): Model {
  const m = new GraphMaker({ opset: 17 });
  const x = m.input("x", ["n", 16]);
  const codes = (dims: readonly number[]) =>
    m.constant(
      "codes",
      tensorOf(
        "int8",
        dims,
        Int8Array.from({ length: dims[0]! * dims[1]! }, (_, i) => (i * 7) % 100),
      ),
    );
  const scale = m.floats("scale", [], [0.01]);
  const zero = m.constant("zero", tensorOf("int8", [], [0]));
  const weight = m.op("DequantizeLinear", [codes([16, 16]), scale, zero]);
  const first = m.op("MatMul", [x, weight]);
  const quantized = m.op("QuantizeLinear", [first, scale, zero]);
  const second = m.op("QLinearMatMul", [quantized, scale, zero, codes([16, 16]), scale, zero, scale, zero]);
  m.output(m.op("DequantizeLinear", [second, scale, zero]), "y", ["n", 16]);
  return m.model;
}

for (const method of Object.keys(METHODS)) {
  test(`${method} says of a model that was quantized before that it was, layer by layer`, () => {
    const original = uploaded(quantizedBefore());
    const { model, notes } = compressed(method, original);
    const layers = listLayers(original).map(({ name }) => name);
    assert.equal(layers.length, 2);
    for (const label of layers) {
      const about = notes.filter(({ name }) => name === label).map(({ outcome, code }) => [outcome, code]);
      assert.deepEqual(about, [["skipped", "already_quantized"]]);
    }
    const warnings = coverageWarnings(original, model, notes);
    assert.deepEqual(
      warnings.map(({ code }) => code),
      ["already_quantized", "nothing_quantized"],
    );
    assert.equal(warnings[0]!.value, 2);
    assert.match(warnings[1]!.message, /2 already_quantized/);
  });
}

test("only what says that a quantized layer was skipped is corrected, and not where it was asked for", () => {
  const original = uploaded(quantizedBefore());
  const [quantized] = original.graph.nodes.filter(({ opType }) => opType === "MatMul");
  const float = uploaded(mlp()).graph.nodes.find(({ opType }) => opType === "Gemm" || opType === "MatMul")!;
  const said = (node: Node, outcome: Note["outcome"], code: Note["code"]) => {
    const [first] = completeNotes(original, original, [noteOn(node, outcome, code, "As it was said.")]);
    return [first!.outcome, first!.code, first!.message === "As it was said."];
  };
  assert.deepEqual(said(quantized!, "skipped", "unsupported_op"), ["skipped", "already_quantized", false]);
  assert.deepEqual(said(quantized!, "skipped", "excluded"), ["skipped", "excluded", true]);
  assert.deepEqual(said(quantized!, "changed", "float16"), ["changed", "float16", true]);
  assert.deepEqual(said(float, "skipped", "unsupported_op"), ["skipped", "unsupported_op", true]);
});

test("a model of which everything is excluded was not changed, and it is said why", () => {
  const original = uploaded(mlp());
  const labels = [...original.nodes()].map(({ label }) => label);
  const { model, notes } = compressed("dynamic", original, { nodes: labels, ops: [] });
  const warnings = coverageWarnings(original, model, notes);
  assert.deepEqual(
    warnings.map(({ code }) => code),
    ["nothing_quantized"],
  );
  assert.match(warnings[0]!.message, /^Nothing was changed: nodes that were left alone: \d+ excluded\.$/);
});

test("a model without weights is said to have nothing to do", () => {
  const m = new GraphMaker();
  m.output(m.op("Relu", [m.input("x", ["n", 4])]), "y", ["n", 4]);
  const original = uploaded(m.model);
  const { model, notes } = compressed("dynamic", original);
  assert.deepEqual(coverageWarnings(original, model, notes), [
    { code: "nothing_quantized", message: "Nothing was changed: it has nothing that this method handles.", value: 0 },
  ]);
});

test("a model without weights whose inputs became float16 was changed", () => {
  const m = new GraphMaker();
  m.output(m.op("Sin", [m.op("Relu", [m.input("x", ["n", 4])])]), "y", ["n", 4]);
  const original = uploaded(m.model);
  const warningsOf = (keepIo: boolean) => {
    const { model, notes } = runPasses(original, [float16Pass({ keepIo, exclude: NONE })]);
    return coverageWarnings(original, model, notes).map(({ code }) => code);
  };
  assert.deepEqual(warningsOf(false), []);
  assert.deepEqual(warningsOf(true), ["nothing_quantized"]);
});
