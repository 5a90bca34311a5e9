import assert from "node:assert/strict";
import { test } from "node:test";
import type { Value } from "../../../src/core/onnx/ir.ts";
import { Graph } from "../../../src/core/onnx/ir.ts";
import { printModel } from "../../../src/core/onnx/print.ts";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import { removeDeadCode } from "../../../src/core/passes/dead-code.ts";
import { bypassIdentities } from "../../../src/core/passes/identity.ts";
import { runPasses } from "../../../src/core/passes/pass.ts";
import { branches, GraphMaker, type MakerOptions, randomFeeds } from "../../support/graphs.ts";
import { assertSameFunction } from "../../support/same-function.ts";

type Build = (make: GraphMaker, x: Value) => Value;

/** The operators between x and y once both passes have run. */
async function operatorsOf(build: Build, options: MakerOptions = {}): Promise<string> {
  const make = new GraphMaker(options);
  make.output(build(make, make.input("x", [2, 3])), "y", [2, 3]);
  const { model } = runPasses(make.model, [bypassIdentities, removeDeadCode]);
  assert.deepEqual(
    [...model.graph.inputs, ...model.graph.outputs].map(({ name }) => name),
    ["x", "y"],
  );
  await assertSameFunction(make.model, model, randomFeeds(model), 0);
  return model.graph.nodes.map(({ opType }) => opType).join(" ");
}

const relu: Build = (make, x) => make.op("Relu", [x]);

test("nodes that do nothing are bypassed, at the output of the model too", async () => {
  assert.equal(await operatorsOf((make, x) => relu(make, make.op("Identity", [x]))), "Relu");
  assert.equal(await operatorsOf((make, x) => make.op("Identity", [relu(make, x)])), "Relu");
  assert.equal(await operatorsOf((make, x) => make.op("Identity", [make.op("Identity", [relu(make, x)])])), "Relu");
  assert.equal(await operatorsOf((make, x) => make.op("Concat", [relu(make, x)], { axis: 0 })), "Relu");
  assert.equal(await operatorsOf((make, x) => relu(make, make.op("Cast", [x], { to: 1 }))), "Relu");
});

test("those that do something stay", async () => {
  const throughInt: Build = (make, x) => make.op("Cast", [make.op("Cast", [x], { to: 6 })], { to: 1 });
  assert.equal(await operatorsOf(throughInt), "Cast Cast");
  const twice: Build = (make, x) =>
    make.op("Slice", [make.op("Concat", [x, x], { axis: 0 }), make.ints("s", [0]), make.ints("e", [2])]);
  assert.equal(await operatorsOf(twice), "Concat Slice");
});

test("Dropout is bypassed outside of training", async () => {
  const dropout = (training?: number): Build => {
    return (make, x) => {
      const mode =
        training === undefined
          ? []
          : [make.floats("ratio", [], [0.5]), make.constant("training", tensorOf("bool", [], [training]))];
      return relu(make, make.op("Dropout", [x, ...mode]));
    };
  };
  assert.equal(await operatorsOf(dropout()), "Relu");
  assert.equal(await operatorsOf(dropout(0)), "Relu");
  assert.equal(await operatorsOf(dropout(), { opset: 11 }), "Relu");
  const make = new GraphMaker();
  make.output(dropout(1)(make, make.input("x", [2, 3])), "y");
  assert.equal(runPasses(make.model, [bypassIdentities, removeDeadCode]).model.graph.nodes.length, 2);
});

test("a Dropout whose mask is read stays", async () => {
  const masked: Build = (make, x) => {
    const [y, mask] = make.node("Dropout", [x], {}, 2).outputs;
    return make.op("Where", [mask!, y!, x]);
  };
  assert.equal(await operatorsOf(masked), "Dropout Where");
});

test("an output that would become an input, a constant or another output keeps its node", async () => {
  assert.equal(await operatorsOf((make, x) => make.op("Identity", [x])), "Identity");
  assert.equal(await operatorsOf((make) => make.op("Identity", [make.weight("w", [2, 3], 1)])), "Identity");
  const make = new GraphMaker();
  const y = make.op("Relu", [make.input("x", [2])]);
  make.output(y, "y");
  make.output(make.op("Identity", [y]), "z");
  const { model } = runPasses(make.model, [bypassIdentities, removeDeadCode]);
  assert.equal(printModel(model), printModel(make.model));
});

test("a body gives nothing out that belongs to the graph around it", () => {
  const make = new GraphMaker();
  const condition = make.input("condition", [], "bool");
  const x = make.op("Relu", [make.input("x", [2])]);
  const body = () => {
    const inner = make.body();
    inner.output(inner.op("Identity", [inner.op("Identity", [x])]), "inner");
    return inner.graph;
  };
  make.output(make.op("If", [condition], { then_branch: body(), else_branch: body() }), "y");
  const { model } = runPasses(make.model, [bypassIdentities, removeDeadCode]);
  for (const graph of model.graph.nodes[1]!.bodies()) {
    assert.deepEqual(
      graph.nodes.map(({ opType }) => opType),
      ["Identity"],
    );
  }
});

test("dead code: nodes, bodies, initializers and what only they read", async () => {
  const make = new GraphMaker();
  const x = make.input("x", [2, 16]);
  const unused = make.input("unused", [1]);
  make.weight("never_read", [4], 1);
  const dead = make.op("MatMul", [make.op("Relu", [x]), make.weight("w", [16, 16], 1)]);
  const body = () => {
    const inner = new Graph(make.model, "body");
    const node = inner.append({ opType: "Add", inputs: [dead, unused], outputs: 1 });
    inner.addOutput(node.outputs[0]!);
    return inner;
  };
  make.op("If", [make.constant("c", tensorOf("bool", [], [1]))], { then_branch: body(), else_branch: body() });
  make.output(make.op("Tanh", [x]), "y");
  const { model } = runPasses(make.model, [removeDeadCode]);
  assert.equal(
    printModel(model),
    `model ir_version 8, ai.onnx 17
graph main(x: float32[2, 16], unused: float32[1]) -> (y: float32[…])
  y = Tanh(x)
`,
  );
});

test("dead code inside a living body lets go of what it read outside", () => {
  const model = branches();
  const [node] = model.graph.nodes;
  const outer = model.graph.addInitializer("outer", tensorOf("float32", [1], [1]));
  const [body] = node!.bodies();
  body!.append({ opType: "Relu", inputs: [outer], outputs: 1 });
  assert.equal(
    removeDeadCode.run(model, () => {}),
    true,
  );
  assert.ok(!model.graph.initializers.has(outer));
  assert.equal(
    removeDeadCode.run(model, () => {}),
    false,
  );
});

test("a node is kept for any of its outputs", () => {
  const make = new GraphMaker();
  const [, second] = make.node("Split", [make.input("x", [4])], { axis: 0 }, 2).outputs;
  make.output(second!, "y");
  assert.equal(
    removeDeadCode.run(make.model, () => {}),
    false,
  );
});
