import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { resolveExclusions, untouchedExclusions } from "../../../src/core/passes/exclusions.ts";
import { float16Pass } from "../../../src/core/passes/float16.ts";
import { exclusionTest, type Pass, runPasses } from "../../../src/core/passes/pass.ts";
import { simplifyPasses } from "../../../src/core/passes/simplify.ts";
import { prepareStatic, quantizeStatic } from "../../../src/core/quantize/static/quantize-static.ts";
import { dynamicPass } from "../../../src/core/quantize/weights/dynamic.ts";
import { weightOnlyPass } from "../../../src/core/quantize/weights/weight-only.ts";
import { branches, cnn, GraphMaker, mlp, randomFeeds } from "../../support/graphs.ts";
import { openModel } from "../../support/open-model.ts";

/** As it is when it was uploaded: written, and read. */
const uploaded = (model: Model) => loadModel(modelToBytes(model));

/** The same model with no node named. */
function unnamed(model: Model): Model {
  for (const node of model.nodes()) node.name = "";
  return uploaded(model);
}

test("labels are names, or first outputs; where several would be the same they are numbered", () => {
  const m = new GraphMaker();
  const x = m.input("x", [1, 4]);
  const condition = m.input("c", [], "bool");
  const branch = () => {
    const body = m.body();
    const made = body.graph.append({ opType: "Neg", name: "inner", inputs: [x], outputs: ["r"] });
    body.graph.addOutput(made.outputs[0]!);
    return body.graph;
  };
  const chosen = m.graph.append({
    opType: "If",
    inputs: [condition],
    outputs: ["inner#1"],
    attrs: { then_branch: { type: "graph", value: branch() }, else_branch: { type: "graph", value: branch() } },
  });
  const last = m.graph.append({ opType: "Relu", name: "last", inputs: [chosen.outputs[0]], outputs: ["y"] });
  m.graph.addOutput(last.outputs[0]!);
  const model = uploaded(m.model);
  assert.deepEqual(
    [...model.nodes()].map(({ label }) => label),
    ["inner#1", "last", "inner#2", "inner#3"],
  );
  const { exclude, unknown } = resolveExclusions(model, { nodes: ["inner", "last"], ops: ["Neg"] });
  assert.deepEqual(exclude, { nodes: ["inner#2", "inner#3", "last"], ops: ["Neg"] });
  assert.deepEqual(unknown, []);
});

test("what no node is called is refused with the nearest names, every one with its place", () => {
  const model = uploaded(cnn());
  const [conv] = model.graph.nodes;
  const { unknown } = resolveExclusions(model, {
    nodes: [conv!.name, conv!.name.toUpperCase(), conv!.outputs[0]!.name, "nothing like it"],
    ops: ["conv", "Conv", "Quantum"],
  });
  const known = JSON.stringify(conv!.name);
  const expected: [string, number, RegExp][] = [
    ["nodes", 1, new RegExp(`^The model has no node "CONV_NODE". Did you mean ${known}`)],
    [
      "nodes",
      2,
      new RegExp(`no node "${conv!.outputs[0]!.name}". That is a value; the node that makes it is ${known}.$`),
    ],
    ["nodes", 3, /^The model has no node "nothing like it".$/],
    ["ops", 0, /^The model has no operator "conv". Did you mean "Conv"\?$/],
    ["ops", 2, /^The model has no operator "Quantum".$/],
  ];
  assert.equal(unknown.length, expected.length);
  for (const [i, [list, index, message]] of expected.entries()) {
    assert.deepEqual([unknown[i]!.list, unknown[i]!.index], [list, index]);
    assert.match(unknown[i]!.message, message);
  }
});

test("a layer keeps its label, and takes those of what is fused into it, through simplification", () => {
  const model = uploaded(cnn({ batchNorm: true }));
  const conv = model.graph.nodes.find(({ opType }) => opType === "Conv")!;
  const norm = model.graph.nodes.find(({ opType }) => opType === "BatchNormalization")!;
  const { model: simple } = runPasses(model, simplifyPasses());
  const fused = [...simple.nodes()].find(({ label }) => label === conv.label)!;
  assert.deepEqual(fused.origins, [conv.label, norm.label]);
  assert.equal(exclusionTest({ nodes: [norm.label], ops: [] })(fused), true);
  assert.equal(exclusionTest({ nodes: [], ops: ["BatchNormalization"] })(fused), false);
  assert.equal(exclusionTest({ nodes: [], ops: ["Conv"] })(fused), true);
});

const EXCLUDE = (nodes: readonly string[], ops: readonly string[] = []) => ({ nodes, ops });

const METHODS: Readonly<Record<string, (exclude: ReturnType<typeof EXCLUDE>) => Pass>> = {
  float16: (exclude) => float16Pass({ keepIo: true, exclude }),
  dynamic: (exclude) => dynamicPass({ perChannel: true, reduceRange: false, exclude }),
  weight_only: (exclude) =>
    weightOnlyPass({
      ...{ bits: 8, blockSize: 16, symmetric: false, format: "qdq", embeddings: true, accuracyLevel: 4 },
      exclude,
    }),
};

async function notesOf(method: string, model: Model, exclude: ReturnType<typeof EXCLUDE>) {
  if (method !== "static") {
    const simple = runPasses(model, simplifyPasses()).model;
    return runPasses(simple, [METHODS[method]!(exclude)]).notes;
  }
  const prepared = await prepareStatic(model, randomFeeds(model), { openModel });
  const options = { method: "mse", percentile: 99, activationDType: "uint8", perChannel: true } as const;
  return quantizeStatic(prepared.model, undefined, {
    ...options,
    reduceRange: false,
    isExcluded: exclusionTest(exclude),
  }).notes;
}

for (const method of [...Object.keys(METHODS), "static"]) {
  test(`${method} leaves an unnamed layer alone by the label that it was listed under, and by what is fused into it`, async () => {
    const model = unnamed(cnn({ batchNorm: true, width: 16 }));
    const convs = model.graph.nodes.filter(({ opType }) => opType === "Conv");
    const norm = convs[1]!.outputs[0]!.uses[0]!.node;
    assert.equal(norm.opType, "BatchNormalization");
    const untouched = await notesOf(method, model, EXCLUDE([]));
    const by = await notesOf(method, model, EXCLUDE([convs[0]!.label, norm.label]));
    for (const conv of convs.slice(0, 2)) {
      assert.equal(untouched.filter(({ name, outcome }) => name === conv.label && outcome === "changed").length, 1);
      assert.deepEqual(
        by.filter(({ name }) => name === conv.label).map(({ outcome, code }) => [outcome, code]),
        [["skipped", "excluded"]],
      );
    }
    // Every note is about a node of the model that was uploaded.
    const labels = new Set([...model.nodes()].map(({ label }) => label));
    for (const note of [...untouched, ...by]) assert.ok(labels.has(note.name), JSON.stringify(note));
  });
}

test("static quantization leaves a node alone that it would have rewritten, taken as a clip, or scaled away", async () => {
  const m = new GraphMaker();
  const x = m.input("x", [1, 4, 8, 8]);
  const conv = (input: typeof x, name: string) =>
    m.op("Conv", [input, m.weight(name, [4, 4, 3, 3], 0.2)], { pads: [1, 1, 1, 1] });
  const swish = m.op("HardSwish", [conv(x, "a")]);
  const relu = m.op("Relu", [conv(swish, "b")]);
  m.output(conv(relu, "c"), "y", [1, 4, 8, 8]);
  const model = uploaded(m.model);
  const of = (op: string) => model.graph.nodes.find(({ opType }) => opType === op)!.label;
  const without = await notesOf("static", model, EXCLUDE([]));
  assert.deepEqual(
    without.filter(({ outcome }) => outcome === "skipped"),
    [],
  );
  const notes = await notesOf("static", model, EXCLUDE([of("Relu")], ["HardSwish"]));
  const excluded = new Set(notes.filter(({ code }) => code === "excluded").map(({ name, op }) => `${op} ${name}`));
  assert.deepEqual(excluded, new Set([`HardSwish ${of("HardSwish")}`, `Relu ${of("Relu")}`]));
  assert.equal(notes.length, 5, "nothing is said twice");
  assert.equal(notes.filter(({ op, outcome }) => op === "Conv" && outcome === "changed").length, 3);
});

test("an excluded node that a method has nothing to do with is said to be excluded all the same", () => {
  const model = uploaded(mlp());
  const relu = model.graph.nodes.find(({ opType }) => opType === "Relu")!;
  const notes = untouchedExclusions(model, EXCLUDE([relu.label]), []);
  assert.deepEqual(
    notes.map(({ name, code, outcome }) => [name, code, outcome]),
    [[relu.label, "excluded", "skipped"]],
  );
  assert.deepEqual(untouchedExclusions(model, EXCLUDE([relu.label]), notes), []);
});

test("nodes of bodies are excluded by name", async () => {
  const model = uploaded(branches({ features: 64 }));
  const inner =
    [...model.nodes()].find((node) => node.graph !== model.graph && node.opType === "MatMul") ??
    [...model.nodes()].find((node) => node.graph !== model.graph && node.opType === "Gemm")!;
  const notes = await notesOf("dynamic", model, EXCLUDE([inner.label]));
  assert.deepEqual(
    notes.filter(({ name }) => name === inner.label).map(({ code }) => code),
    ["excluded"],
  );
});
