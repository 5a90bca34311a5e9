import assert from "node:assert/strict";
import { test } from "node:test";
import { CoreError } from "../../../src/core/errors.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { printModel } from "../../../src/core/onnx/print.ts";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import { removeDeadCode } from "../../../src/core/passes/dead-code.ts";
import { type Evaluate, foldConstants } from "../../../src/core/passes/fold-constants.ts";
import { checkInvariants } from "../../../src/core/passes/pass.ts";
import { GraphMaker, randomFeeds } from "../../support/graphs.ts";
import { runModel } from "../../support/open-model.ts";
import { assertSameFunction } from "../../support/same-function.ts";

const evaluate: Evaluate = (model) => runModel(model, {});
const refuse: Evaluate = () => assert.fail("nothing should be evaluated");

/** The operators that are left, of all graphs, without Constant nodes. */
async function folded(model: Model, run: Evaluate = evaluate): Promise<string[]> {
  await foldConstants(model, run);
  checkInvariants(model, "fold constants");
  removeDeadCode.run(model, () => {});
  return [...model.nodes()].map(({ opType }) => opType).filter((opType) => opType !== "Constant");
}

for (const storage of ["initializer", "constant"] as const) {
  test(`golden: weights behind Transpose, Cast and arithmetic (in ${storage}s)`, async () => {
    const make = new GraphMaker({ storage });
    const x = make.input("x", ["n", 4]);
    const w = make.op("Transpose", [make.weight("w", [8, 4], 1)], { perm: [1, 0] });
    const scale = make.op("Sqrt", [make.op("Cast", [make.ints("k", [16])], { to: 1 })]);
    make.output(make.op("Div", [make.op("MatMul", [x, w]), scale]), "y", ["n", 8]);
    const before = make.model.clone();
    assert.deepEqual(await folded(make.model), ["MatMul", "Div"]);
    await assertSameFunction(before, make.model, randomFeeds(before), 0);
    assert.equal(
      printModel(make.model),
      `model ir_version 8, ai.onnx 17
graph main(x: float32[n, 4]) -> (y: float32[n, 8])
  transpose_node_output_0_folded: float32[4, 8]
  sqrt_node_output_0_folded: float32[1] {4}
  matmul_node_output_0 = MatMul(x, transpose_node_output_0_folded)
  y = Div(matmul_node_output_0, sqrt_node_output_0_folded)
`,
    );
  });
}

test("in bodies too, of constants inside and outside", async () => {
  const make = new GraphMaker();
  const condition = make.input("condition", [], "bool");
  const x = make.input("x", [2, 2]);
  const outer = make.weight("outer", [2, 2], 1);
  const body = (k: number) => {
    const inner = make.body();
    const sum = inner.op("Add", [inner.op("Neg", [outer]), inner.floats("k", [2, 2], [k, 1, 2, 3])]);
    inner.output(inner.op("MatMul", [x, sum]), "inner");
    return inner.graph;
  };
  make.output(make.op("If", [condition], { then_branch: body(1), else_branch: body(2) }), "y", [2, 2]);
  const before = make.model.clone();
  assert.deepEqual(await folded(make.model), ["If", "MatMul", "MatMul"]);
  for (const branch of [0, 1]) {
    const feeds = { ...randomFeeds(before), condition: tensorOf("bool", [], [branch]) };
    await assertSameFunction(before, make.model, feeds, 0);
  }
});

test("a result is kept only where the file does not grow", async () => {
  const make = new GraphMaker();
  const x = make.input("x", [1, 40]);
  const w = make.weight("w", [40, 40], 1);
  // The transposed copy would stand beside the original, which is read too.
  const copy = make.op("Transpose", [w], { perm: [1, 0] });
  make.output(make.op("MatMul", [make.op("MatMul", [x, w]), copy]), "y");
  assert.deepEqual(await folded(make.model), ["Transpose", "MatMul", "MatMul"]);

  const widening = new GraphMaker();
  const outer = widening.op("Mul", [widening.weight("a", [64, 1], 1), widening.weight("b", [1, 64], 1)]);
  widening.output(widening.op("MatMul", [widening.input("x", [1, 64]), outer]), "y");
  assert.deepEqual(await folded(widening.model), ["Mul", "MatMul"]);
});

test("a small result is kept in any case", async () => {
  const make = new GraphMaker();
  const x = make.input("x", [1, 4]);
  const w = make.weight("w", [4, 4], 1);
  const copy = make.op("Transpose", [w], { perm: [1, 0] });
  make.output(make.op("MatMul", [make.op("MatMul", [x, w]), copy]), "y");
  assert.deepEqual(await folded(make.model), ["MatMul", "MatMul"]);
});

test("what makes much out of little, or is random, or has inputs, is never evaluated", async () => {
  const make = new GraphMaker();
  const x = make.input("x", [1, 4]);
  const shape = make.ints("shape", [1, 4]);
  const scale = make.floats("s", [], [0.5]);
  const codes = make.constant("codes", tensorOf("int8", [1, 4], [1, 2, 3, 4]));
  const terms = [
    make.op("Expand", [scale, shape]),
    make.op("ConstantOfShape", [shape]),
    make.op("Tile", [make.floats("t", [1, 1], [1]), shape]),
    make.op("DequantizeLinear", [codes, scale]),
    make.op("RandomNormalLike", [make.floats("r", [1, 4], [1, 2, 3, 4])]),
    make.op("Mul", [x, scale]),
  ];
  make.output(make.op("Sum", terms), "y");
  await folded(make.model, refuse);
  assert.equal(make.model.graph.nodes.length, terms.length + 1);
});

test("what could need much memory is not evaluated", async () => {
  const make = new GraphMaker();
  const column = make.constant("a", tensorOf("float32", [2 ** 13, 1], new Float32Array(2 ** 13)));
  const row = make.constant("b", tensorOf("float32", [1, 2 ** 13], new Float32Array(2 ** 13)));
  make.output(make.op("Add", [make.input("x", [1]), make.op("Mul", [column, row])]), "y");
  await folded(make.model, refuse);
});

test("types that cannot leave the runtime are not evaluated", async () => {
  const make = new GraphMaker();
  const bfloat16 = make.constant("b", { ...tensorOf("uint16", [2], [0, 1]), dtype: "bfloat16" });
  const sum = make.op("Cast", [make.op("Identity", [bfloat16])], { to: 1 });
  const toBfloat16 = make.op("Cast", [make.op("Cast", [make.floats("f", [2], [1, 2])], { to: 16 })], { to: 1 });
  make.output(make.op("Sum", [make.input("x", [2]), sum, toBfloat16]), "y");
  await folded(make.model, refuse);
});

test("constants that a model or a body gives out stay made by their nodes", async () => {
  const make = new GraphMaker();
  make.output(make.op("Relu", [make.input("x", [1])]), "y");
  make.output(make.op("Neg", [make.floats("k", [2], [1, 2])]), "z");
  await folded(make.model, refuse);
  assert.equal(make.model.graph.outputs[1]!.producer?.opType, "Neg");
});

test("when the runtime cannot evaluate, the model stays as it is; other errors are not hidden", async () => {
  const build = () => {
    const make = new GraphMaker();
    make.output(make.op("Add", [make.input("x", [1]), make.op("Neg", [make.floats("k", [1], [1])])]), "y");
    return make.model;
  };
  const fails =
    (error: Error): Evaluate =>
    () =>
      Promise.reject(error);
  const model = build();
  assert.equal(await foldConstants(model, fails(new CoreError("invalid_model", "No kernel."))), false);
  assert.equal(printModel(model), printModel(build()));
  await assert.rejects(foldConstants(build(), fails(new CoreError("cancelled", "Stop."))), { code: "cancelled" });
  await assert.rejects(foldConstants(build(), fails(new TypeError("a bug"))), TypeError);
});
