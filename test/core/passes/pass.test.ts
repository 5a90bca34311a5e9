import assert from "node:assert/strict";
import { test } from "node:test";
import { printModel } from "../../../src/core/onnx/print.ts";
import { checkInvariants, noteOn, type Pass, runPasses } from "../../../src/core/passes/pass.ts";
import { branches, mlp } from "../../support/graphs.ts";

test("passes run in order on a copy, and their notes come back in order", () => {
  const model = mlp();
  const text = printModel(model);
  const pass = (name: string): Pass => ({
    name,
    run(copy, note) {
      const [node] = copy.graph.nodes;
      node!.setAttr(name, { type: "int", value: 1 });
      note(noteOn(node!, "changed", name, "Because."));
      return true;
    },
  });
  const { model: result, notes } = runPasses(model, [pass("first"), pass("second")]);
  assert.equal(printModel(model), text);
  assert.match(printModel(result), /first=1 second=1/);
  assert.deepEqual(notes, [
    { outcome: "changed", name: "gemm_node", op: "Gemm", code: "first", message: "Because." },
    { outcome: "changed", name: "gemm_node", op: "Gemm", code: "second", message: "Because." },
  ]);
});

const BREAKING: Record<string, Pass["run"]> = {
  "reads a value before it is defined": ({ graph }) => {
    graph.nodes[0]!.setInput(0, graph.nodes.at(-1)!.outputs[0]);
    return true;
  },
  "gives two values one name": ({ graph }) => {
    graph.nodes[0]!.outputs[0]!.name = graph.inputs[0]!.name;
    return true;
  },
  "reads a value of a body from outside": (model) => {
    const inner = branches();
    model.graph.nodes[0]!.setInput(0, inner.graph.nodes[0]!.outputs[0]);
    return true;
  },
};

for (const [name, run] of Object.entries(BREAKING)) {
  test(`a pass that ${name} is caught, and named`, () => {
    assert.throws(() => runPasses(mlp(), [{ name: "bad pass", run }]), {
      code: "internal",
      message: /After "bad pass"/,
    });
  });
}

test("sound models pass", () => {
  for (const model of [mlp(), branches()]) checkInvariants(model, "test");
});
