import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { printModel } from "../../../src/core/onnx/print.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { type Condition, checkInvariants, noteOn, type Pass, runPasses } from "../../../src/core/passes/pass.ts";
import { dropTraces, simplifyPasses } from "../../../src/core/passes/simplify.ts";
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

/** What every exporter leaves in some models: copies of a constant, what nobody reads, sources of its own, parts that say nothing. */
function leftovers(): Model {
  const make = new GraphMaker();
  const w = make.random([8, 8]);
  const copy = (name: string) => make.graph.addInitializer(name, tensor("float32", w.dims, w.bytes.slice()));
  const x = make.input("x", [1, 8]);
  const first = make.op("MatMul", [make.op("Identity", [x]), copy("a")]);
  make.op("Relu", [first]);
  make.output(make.op("MatMul", [first, copy("b")]), "y", [1, 8]);
  return make.model;
}

/** Leftovers in the bodies alone: a node that nobody reads, and an Identity. */
function inside(): Model {
  const model = branches();
  for (const node of model.graph.nodes) {
    for (const body of node.bodies()) {
      const [first] = body.nodes;
      if (!first?.inputs[0]) continue;
      body.insertBefore(first, { opType: "Relu", inputs: [first.inputs[0]], outputs: 1 });
      const same = body.insertBefore(first, { opType: "Identity", inputs: [first.inputs[0]], outputs: 1 });
      first.setInput(0, same.outputs[0]);
    }
  }
  return model;
}

/** What old exporters wrote: weights that callers may override, and nodes without names. */
function old(): Model {
  const make = new GraphMaker({ opset: 11, irVersion: 3 });
  const w = make.weight("w", [8, 8], 0.3);
  make.graph.setOverridable(w, true);
  const x = make.input("x", [1, 8]);
  make.output(make.op("MatMul", [x, make.op("Transpose", [w], { perm: [1, 0] })]), "y", [1, 8]);
  for (const node of make.graph.nodes) node.name = "";
  return make.model;
}

/** Operators that others are written as before they are quantized. */
function fused(): Model {
  const make = new GraphMaker();
  const x = make.op("HardSwish", [make.input("x", [1, 8])]);
  make.output(
    make.node("FusedMatMul", [x, make.weight("w", [8, 8], 0.3)], { alpha: 2 }, 1, "com.microsoft").outputs[0]!,
    "y",
    [1, 8],
  );
  return make.model;
}

function half(): Model {
  const make = new GraphMaker();
  const weight = make.constant("w", tensorOf("float16", [8, 8], new Float16Array(64).fill(0.125)));
  make.output(make.op("MatMul", [make.input("x", [1, 8], "float16"), weight]), "y", [1, 8], "float16");
  return make.model;
}

const NETWORKS = {
  mlp,
  cnn,
  resnet,
  mobilenet,
  transformer,
  lstm,
  branches,
  loop,
  leftovers,
  inside,
  old,
  fused,
  half,
};
const changers = new Set<string>();
const ALL_PASSES = () => [...simplifyPasses(), unfuse, widenFloats, ...staticForms];

for (const [name, build] of Object.entries(NETWORKS)) {
  test(`passes say the truth about whether they change anything: ${name}`, () => {
    const model = build();
    // The mark alone changes nothing where there are no traces.
    model.withoutTraces = true;
    for (let round = 0; round < 2; round++) {
      for (const pass of ALL_PASSES()) {
        const before = Buffer.from(modelToBytes(model));
        const answer = pass.run(model, () => {});
        assert.equal(answer, !before.equals(modelToBytes(model)), pass.name);
        assert.ok(round === 0 || !answer, `${pass.name} changes something in a second round`);
        if (answer) changers.add(pass.name);
      }
    }
  });
}

test("each pass has changed one of these networks", () => {
  const marked = leftovers();
  assert.deepEqual([dropTraces.run(marked, () => {}), dropTraces.run(marked, () => {})], [true, false]);
  changers.add(dropTraces.name);
  const idle = ALL_PASSES().filter(({ name }) => !changers.has(name));
  assert.deepEqual(
    idle.map(({ name }) => name),
    [],
  );
});
