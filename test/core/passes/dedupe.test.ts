import assert from "node:assert/strict";
import { test } from "node:test";
import { printModel } from "../../../src/core/onnx/print.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { lazyTensor, tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { removeDeadCode } from "../../../src/core/passes/dead-code.ts";
import { mergeDuplicates } from "../../../src/core/passes/dedupe.ts";
import { runPasses } from "../../../src/core/passes/pass.ts";
import { branches, GraphMaker, randomFeeds } from "../../support/graphs.ts";
import { assertSameFunction } from "../../support/same-function.ts";

const PASSES = [mergeDuplicates, removeDeadCode];

test("golden: copies in initializers and Constant nodes become one", async () => {
  const make = new GraphMaker();
  const w = make.random([8, 8]);
  const copy = () => tensor("float32", w.dims, w.bytes.slice());
  const constant = (name: string) =>
    make.graph.append({
      opType: "Constant",
      inputs: [],
      outputs: [name],
      attrs: { value: { type: "tensor", value: copy() } },
    });
  const x = make.input("x", [1, 8]);
  const first = make.op("MatMul", [x, constant("a").outputs[0]]);
  const second = make.op("MatMul", [first, make.graph.addInitializer("b", copy())]);
  make.output(make.op("MatMul", [second, constant("c").outputs[0]]), "y");
  const { model } = runPasses(make.model, PASSES);
  assert.equal(
    printModel(model),
    `model ir_version 8, ai.onnx 17
graph main(x: float32[1, 8]) -> (y: float32[…])
  b: float32[8, 8]
  matmul_node_output_0 = MatMul(x, b)
  matmul_node_1_output_0 = MatMul(matmul_node_output_0, b)
  y = MatMul(matmul_node_1_output_0, b)
`,
  );
  await assertSameFunction(make.model, model, randomFeeds(model), 0);
});

test("what branches have in common moves to the innermost graph around them", async () => {
  const build = (same: boolean) => {
    const make = new GraphMaker();
    const condition = make.input("condition", [], "bool");
    const x = make.input("x", [1, 8]);
    const w = make.random([8, 8]);
    const body = (other: boolean) => {
      const inner = make.body();
      const bytes = w.bytes.slice();
      if (other) bytes[0]! ^= 1;
      inner.output(inner.op("MatMul", [x, inner.graph.addInitializer("w", tensor("float32", [8, 8], bytes))]), "inner");
      return inner.graph;
    };
    const outer = make.body();
    outer.output(outer.op("If", [condition], { then_branch: body(false), else_branch: body(!same) }), "middle");
    make.output(make.op("If", [condition], { then_branch: outer.graph, else_branch: body(true) }), "y", [1, 8]);
    return make.model;
  };
  const before = build(true);
  const { model } = runPasses(before, PASSES);
  const middle = model.graph.nodes[0]!.bodies()[0]!;
  assert.deepEqual(
    [model.graph, middle, ...middle.nodes[0]!.bodies()].map(({ initializers }) => initializers.size),
    [0, 1, 0, 0],
  );
  for (const value of [0, 1]) {
    await assertSameFunction(before, model, { ...randomFeeds(before), condition: tensorOf("bool", [], [value]) }, 0);
  }
  // The else branches inside and outside are the same: their common graph is the main one.
  const across = runPasses(build(false), PASSES).model;
  assert.equal(across.graph.initializers.size, 1);
  assert.ok(modelToBytes(across).length < modelToBytes(build(false)).length);
});

test("type, shape and every byte must agree; small constants, outputs and options are left alone", () => {
  const make = new GraphMaker();
  const x = make.input("x", [1]);
  const bytes = new Uint8Array(400);
  const last = bytes.slice();
  last[399] = 1;
  const between = bytes.slice();
  between[100] = 1;
  const constants = [
    make.graph.addInitializer("float", tensor("float32", [100], bytes)),
    make.graph.addInitializer("int", tensor("int32", [100], bytes)),
    make.graph.addInitializer("row", tensor("float32", [1, 100], bytes)),
    make.graph.addInitializer("other", tensor("float32", [100], last)),
    make.graph.addInitializer("another", tensor("float32", [100], between)),
    make.graph.addInitializer("small", tensor("float32", [2], bytes.subarray(0, 8))),
    make.graph.addInitializer("small", tensor("float32", [2], bytes.subarray(0, 8))),
    make.graph.addInitializer(
      "string",
      lazyTensor("string", [100], () => assert.fail()),
    ),
    make.graph.addInitializer(
      "string",
      lazyTensor("string", [100], () => assert.fail()),
    ),
    make.graph.addInitializer("option", tensor("float32", [100], bytes)),
  ];
  make.graph.setOverridable(constants.at(-1)!, true);
  make.output(make.node("Opaque", [x, ...constants], {}, 1).outputs[0]!, "y");
  make.graph.addOutput(make.graph.addInitializer("given_out", tensor("float32", [100], bytes)));
  const text = printModel(make.model);
  assert.equal(printModel(runPasses(make.model, [mergeDuplicates]).model), text);
});

test("constants that nothing else resembles are not read", () => {
  const make = new GraphMaker();
  const never = () => assert.fail("bytes were asked for");
  const inputs = [100, 200, 300].map((count) => make.graph.addInitializer("w", lazyTensor("float32", [count], never)));
  make.output(make.node("Opaque", inputs).outputs[0]!, "y");
  runPasses(make.model, [mergeDuplicates]);
});

test("a network without duplicates stays as it is", () => {
  const model = branches();
  assert.equal(printModel(runPasses(model, [mergeDuplicates]).model), printModel(model));
});
