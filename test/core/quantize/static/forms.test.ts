import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model, Value } from "../../../../src/core/onnx/ir.ts";
import { floatsOf } from "../../../../src/core/onnx/tensor.ts";
import { runPasses } from "../../../../src/core/passes/pass.ts";
import { staticForms } from "../../../../src/core/quantize/static/forms.ts";
import { prepareStatic } from "../../../../src/core/quantize/static/quantize-static.ts";
import { branches, cnn, GraphMaker, mobilenet, randomFeeds, transformer } from "../../../support/graphs.ts";
import { openModel, runModel } from "../../../support/open-model.ts";

async function prepare(model: Model): Promise<Model> {
  const sample = randomFeeds(model);
  const { model: prepared } = await prepareStatic(model, sample, { openModel });
  const [before, after] = await Promise.all([runModel(model, sample), runModel(prepared, sample)]);
  for (const [name, tensor] of Object.entries(before)) {
    const [expected, actual] = [floatsOf(tensor), floatsOf(after[name]!)];
    const peak = expected.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
    expected.forEach((x, i) => {
      assert.ok(Math.abs(x - actual[i]!) <= 2e-5 * peak, `${name}: ${x} and ${actual[i]}`);
    });
  }
  return prepared;
}

function operators(model: Model): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { opType } of model.nodes()) if (opType !== "Constant") counts[opType] = (counts[opType] ?? 0) + 1;
  return counts;
}

function image(build: (make: GraphMaker, x: Value) => Value, opset = 17): Model {
  const make = new GraphMaker({ opset });
  make.output(build(make, make.input("x", ["n", 4, 6, 6])), "y");
  return make.model;
}

test("networks compute what they computed before, whatever operator set they came in", async () => {
  for (const model of [cnn({ opset: 9 }), mobilenet({ opset: 11 }), transformer(), branches({ opset: 12 })]) {
    assert.ok((await prepare(model)).opset >= 13);
  }
});

test("a hard swish becomes a hard sigmoid and a product", async () => {
  assert.deepEqual(operators(await prepare(image((make, x) => make.op("HardSwish", [x])))), { HardSigmoid: 1, Mul: 1 });
});

test("a mean over the image becomes a pooling, in every form it is written in", async () => {
  const attribute = image((make, x) => make.op("ReduceMean", [x], { axes: [2, 3], keepdims: 1 }), 13);
  const input = image((make, x) => make.op("ReduceMean", [x, make.ints("axes", [-1, -2])], { keepdims: 0 }), 18);
  assert.deepEqual(operators(await prepare(attribute)), { GlobalAveragePool: 1 });
  assert.deepEqual(operators(await prepare(input)), { GlobalAveragePool: 1, Flatten: 1 });
  const other = image((make, x) => make.op("ReduceMean", [x], { axes: [1], keepdims: 1 }), 13);
  assert.deepEqual(operators(await prepare(other)), { ReduceMean: 1 });
});

test("a mean that is no pooling of all positions stays as it is", () => {
  const kept = (
    dims: readonly (number | string)[] | undefined,
    attrs: { readonly axes?: readonly number[]; readonly keepdims?: number },
  ) => {
    const make = new GraphMaker({ opset: 13 });
    const x = make.op("Tanh", [make.input("x", dims)]);
    if (dims) x.retype("float32", dims);
    make.output(make.op("ReduceMean", [x], attrs), "y", undefined);
    const { model } = runPasses(make.model, staticForms);
    return operators(model);
  };
  for (const [dims, attrs] of [
    // Over the last axis of three it is half of a layer normalization.
    [["n", 4, 6], { axes: [2] }],
    [["n", 4, 6, 6], {}],
    [["n", 4, 6, 6], { axes: [3] }],
    [["n", 4, 6, 6], { axes: [1, 2] }],
    [["n", 4, 6, 6], { axes: [0, 3] }],
    [undefined, { axes: [2, 3] }],
  ] as const) {
    assert.deepEqual(kept(dims, attrs), { Tanh: 1, ReduceMean: 1 }, JSON.stringify([dims, attrs]));
  }
  assert.deepEqual(kept(["n", 4, 6, 6, 6], { axes: [2, -2, 4], keepdims: 1 }), { Tanh: 1, GlobalAveragePool: 1 });
});

test("what is put in the place of a node has its type and shape", () => {
  const make = new GraphMaker({ opset: 13 });
  const x = make.op("Tanh", [make.input("x", ["n", 4, 6, 6])]);
  x.retype("float32", ["n", 4, 6, 6]);
  const mean = make.op("ReduceMean", [x], { axes: [2, 3], keepdims: 0 });
  mean.retype("float32", ["n", 4]);
  make.output(make.op("Tanh", [mean]), "y", ["n", 4]);
  const { model } = runPasses(make.model, staticForms);
  const flat = model.graph.nodes.find(({ opType }) => opType === "Flatten")!.outputs[0]!;
  assert.deepEqual([flat.dtype, flat.shape], ["float32", ["n", 4]]);
});

test("a normalization that only convolutions read becomes one; others stay", async () => {
  const before = image((make, x) => make.conv(make.op("Relu", [make.batchNorm(make.op("Tanh", [x]), 4)]), [4, 4], 3));
  assert.deepEqual(operators(await prepare(before)), { Tanh: 1, Conv: 2, Relu: 1 });
  const alone = image((make, x) => make.op("Tanh", [make.batchNorm(make.op("Tanh", [x]), 4)]));
  assert.deepEqual(operators(await prepare(alone)), { Tanh: 2, BatchNormalization: 1 });
});

test("values and nodes have names of their own, over all bodies", () => {
  const model = branches();
  const [then, other] = [...model.nodes()].find(({ opType }) => opType === "If")!.bodies();
  other!.nodes[0]!.outputs[0]!.name = then!.nodes[0]!.outputs[0]!.name;
  other!.nodes[0]!.name = then!.nodes[0]!.name;
  then!.nodes[1]!.name = "";
  const { model: named } = runPasses(model, staticForms);
  const nodes = [...named.nodes()];
  const values = nodes.flatMap((node) => node.outputs.map(({ name }) => name));
  assert.equal(new Set(values).size, values.length);
  assert.equal(new Set(nodes.map(({ name }) => name)).size, nodes.length);
  assert.ok(nodes.every(({ name }) => name !== ""));
});

test("each pass says that it changed something, once", () => {
  const model = image((make, x) => make.op("ReduceMean", [x], { axes: [2, 3], keepdims: 1 }), 11);
  const [input] = model.graph.inputs;
  input!.retype("float32", ["n", 4, 6, 6]);
  model.graph.nodes[0]!.name = "";
  const first = runPasses(model, staticForms);
  assert.deepEqual(
    first.changedBy,
    staticForms.map(({ name }) => name),
  );
  assert.deepEqual(runPasses(first.model, staticForms).changedBy, []);
});

test("ranks that cannot be inferred are those of a sample", async () => {
  const make = new GraphMaker();
  const x = make.input("x", ["n", 4, 6]);
  const shape = make.op("Concat", [make.op("Shape", [x]), make.ints("one", [1])], { axis: 0 });
  make.output(make.op("Tanh", [make.op("Reshape", [x, shape])]), "y");
  const { model } = await prepareStatic(make.model, randomFeeds(make.model), { openModel });
  assert.equal(model.graph.nodes.find(({ opType }) => opType === "Reshape")!.outputs[0]!.shape!.length, 4);
});
