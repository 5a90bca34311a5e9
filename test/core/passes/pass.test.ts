import assert from "node:assert/strict";
import { test } from "node:test";
import { printModel } from "../../../src/core/onnx/print.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { type Condition, checkInvariants, noteOn, type Pass, runPasses } from "../../../src/core/passes/pass.ts";
import { simplifyPasses } from "../../../src/core/passes/simplify.ts";
import { unfuse } from "../../../src/core/passes/unfuse.ts";
import { widenFloats } from "../../../src/core/passes/widen.ts";
import { staticForms } from "../../../src/core/quantize/static/forms.ts";
import { branches, cnn, GraphMaker, loop, lstm, mlp, mobilenet, resnet, transformer } from "../../support/graphs.ts";

test("passes run in order on a copy, and their notes come back in order", () => {
  const model = mlp();
  const text = printModel(model);
  const pass = (name: "fused" | "removed"): Pass => ({
    name,
    run(copy, note) {
      const [node] = copy.graph.nodes;
      node!.setAttr(name, { type: "int", value: 1 });
      note(noteOn(node!, "changed", name, "Because."));
      return true;
    },
  });
  const { model: result, notes } = runPasses(model, [pass("fused"), pass("removed")]);
  assert.equal(printModel(model), text);
  assert.match(printModel(result), /fused=1 removed=1/);
  assert.deepEqual(notes, [
    { outcome: "changed", name: "gemm_node", op: "Gemm", code: "fused", message: "Because." },
    { outcome: "changed", name: "gemm_node", op: "Gemm", code: "removed", message: "Because." },
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

const TAGGED: Condition = { clause: "the graph is tagged", holds: ({ graph }) => graph.name === "tagged" };

function renaming(name: string, to: string, rest: Partial<Pass> = {}): Pass {
  return {
    name,
    ...rest,
    run(model) {
      const changed = model.graph.name !== to;
      model.graph.name = to;
      return changed;
    },
  };
}

test("what a pass requires is checked before it, and what one ensures after every later one", () => {
  const tag = renaming("tag", "tagged", { ensures: [TAGGED] });
  const needy = renaming("needy", "tagged", { requires: [TAGGED] });
  assert.deepEqual(runPasses(mlp(), [tag, needy]).changedBy, ["tag"]);
  const fails = (passes: readonly Pass[], message: RegExp) =>
    assert.throws(() => runPasses(mlp(), passes), { code: "internal", message });
  fails([needy], /^Before "needy" it does not hold that the graph is tagged/);
  fails([tag, renaming("careless", "other")], /^After "careless" it does not hold that the graph is tagged/);
  fails([renaming("idle", "main", { ensures: [TAGGED] })], /^After "idle" it does not hold/);
});

test("passes are run until none changes anything, those that say so once; of nodes left alone the last word counts", () => {
  const runs: string[] = [];
  let left = 3;
  const counting: Pass = {
    name: "counting",
    run(model, note) {
      runs.push("counting");
      note(noteOn(model.graph.nodes[0]!, "skipped", "no_gain", `${left} left`));
      return left-- > 0;
    },
  };
  const once: Pass = {
    name: "once",
    once: true,
    run() {
      runs.push("once");
      return true;
    },
  };
  const { notes, changedBy } = runPasses(mlp(), [counting, once], { settle: true });
  assert.deepEqual(runs, ["counting", "once", "counting", "counting", "counting"]);
  assert.deepEqual(
    notes.map(({ message }) => message),
    ["0 left"],
  );
  assert.deepEqual(changedBy, ["counting", "once"]);
});

test("simplifying is over when nothing is left to simplify: an Identity in between does not keep layers from being joined", () => {
  const make = new GraphMaker();
  let x = make.conv(make.input("x", [1, 3, 8, 8]), [3, 8], 3);
  x = make.batchNorm(make.op("Identity", [x]), 8);
  x = make.op("Mul", [make.op("Identity", [x]), make.floats("two", [], [2])]);
  make.output(make.op("Relu", [x]), "y");
  const { model } = runPasses(make.model, simplifyPasses(), { settle: true });
  assert.deepEqual(
    model.graph.nodes.map(({ opType }) => opType),
    ["Conv", "Relu"],
  );
});

for (const [name, build] of Object.entries({ mlp, cnn, resnet, mobilenet, transformer, lstm, branches, loop })) {
  test(`passes say the truth about whether they change anything: ${name}`, () => {
    const model = build();
    // The mark alone changes nothing where there are no traces.
    model.withoutTraces = true;
    for (let round = 0; round < 2; round++) {
      for (const pass of [...simplifyPasses(), unfuse, widenFloats, ...staticForms]) {
        const before = Buffer.from(modelToBytes(model));
        const answer = pass.run(model, () => {});
        assert.equal(answer, !before.equals(modelToBytes(model)), pass.name);
        assert.ok(round === 0 || !answer, `${pass.name} changes something in a second round`);
      }
    }
  });
}
