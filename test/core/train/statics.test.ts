import assert from "node:assert/strict";
import { test } from "node:test";
import type { Value } from "../../../src/core/onnx/ir.ts";
import { floatsOf, integersOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { resolveStatics } from "../../../src/core/train/statics.ts";
import { GraphMaker } from "../../support/graphs.ts";
import { runModel } from "../../support/open-model.ts";

const row = (...values: number[]) => ({ x: tensorOf("float32", [1, values.length], values) });

test("what a body reads at any depth depends on the data; what shapes alone tell becomes a constant", async () => {
  const make = new GraphMaker();
  const x = make.input("x", ["n", 3]);
  const yes = make.constant("yes", tensorOf("bool", [], new Uint8Array([1])));
  /** An If with the same in both branches. */
  const either = (at: GraphMaker, build: (body: GraphMaker) => Value): Value => {
    const [then, other] = ["then", "else"].map((name) => {
      const body = at.body();
      body.output(build(body), name);
      return { type: "graph", value: body.graph } as const;
    });
    return at.op("If", [yes], { then_branch: then!, else_branch: other! });
  };
  const doubled = either(make, (body) => either(body, (inner) => inner.op("Add", [x, x])));
  const shape = make.op("Shape", [x]);
  make.output(make.op("Add", [doubled, make.op("Cast", [make.op("ReduceMax", [shape])], { to: 1 })]), "y");

  await resolveStatics(make.model, row(1, 2, 3), openSession);
  const { y } = await runModel(make.model, row(10, 20, 30));
  assert.deepEqual([...floatsOf(y!)], [20 + 3, 40 + 3, 60 + 3]);
  assert.deepEqual(
    make.graph.nodes.map(({ opType }) => opType),
    ["If", "Add"],
  );
});

test("what is given out stays made by its node, and so does what is no tensor", async () => {
  const make = new GraphMaker();
  const x = make.input("x", ["n", 3]);
  const shape = make.op("Shape", [x]);
  const first = make.op("SequenceAt", [make.op("SequenceConstruct", [shape, shape]), make.ints("at", [0], [])]);
  make.output(make.op("Add", [x, make.op("Cast", [make.op("ReduceMax", [first])], { to: 1 })]), "y");
  make.output(shape, "sizes", undefined, "int64");
  await resolveStatics(make.model, row(1, 2, 3), openSession);
  const { y, sizes } = await runModel(make.model, row(10, 20, 30));
  assert.deepEqual([...floatsOf(y!)], [13, 23, 33]);
  assert.deepEqual(integersOf(sizes!), [1, 3]);
  assert.deepEqual(
    make.graph.nodes.map(({ opType }) => opType),
    ["Shape", "Add"],
  );
});
