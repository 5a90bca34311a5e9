import assert from "node:assert/strict";
import { test } from "node:test";
import { fuseOperators } from "../../../src/core/autodiff/fuse.ts";
import { TRAINING_OPSET } from "../../../src/core/autodiff/gradient.ts";
import { GraphBuilder } from "../../../src/core/onnx/graph-builder.ts";
import { Model, type Value } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";

/** x · (1 + erf(x/√2)) · ½ as exporters write it. */
const WRITTEN_OUT: Readonly<Record<string, (g: GraphBuilder, x: Value) => Value>> = {
  "the half last, by division": (g, x) => g.mul(g.mul(x, g.add(g.op("Erf", [g.div(x, Math.SQRT2)]), 1)), 0.5),
  "the half last, factors exchanged": (g, x) => g.mul(0.5, g.mul(g.add(1, g.op("Erf", [g.mul(Math.SQRT1_2, x)])), x)),
  "the half inside": (g, x) => g.mul(x, g.mul(g.add(g.op("Erf", [g.div(x, Math.SQRT2)]), 1), 0.5)),
  "the half first": (g, x) => g.mul(g.mul(x, 0.5), g.add(g.op("Erf", [g.mul(x, Math.SQRT1_2)]), 1)),
};

/** The same but for one thing each. */
const OTHERS: Readonly<Record<string, (g: GraphBuilder, x: Value) => Value>> = {
  "another scale": (g, x) => g.mul(g.mul(x, g.add(g.op("Erf", [g.div(x, 1.5)]), 1)), 0.5),
  "another addend": (g, x) => g.mul(g.mul(x, g.add(g.op("Erf", [g.div(x, Math.SQRT2)]), 2)), 0.5),
  "another factor": (g, x) => g.mul(g.mul(x, g.add(g.op("Erf", [g.div(x, Math.SQRT2)]), 1)), 0.25),
  "another value": (g, x) => g.mul(g.mul(g.neg(x), g.add(g.op("Erf", [g.div(x, Math.SQRT2)]), 1)), 0.5),
  "a part that is read elsewhere": (g, x) => {
    const sum = g.add(g.op("Erf", [g.div(x, Math.SQRT2)]), 1);
    return g.add(g.mul(g.mul(x, sum), 0.5), sum);
  },
};

function build(form: (g: GraphBuilder, x: Value) => Value): Model {
  const model = new Model({ irVersion: 10, opsets: [["", TRAINING_OPSET]], graphName: "test" });
  const y = form(new GraphBuilder(model.graph), model.graph.addInput("x", "float32", [7]));
  y.retype("float32", [7]);
  model.graph.addOutput(y);
  return model;
}

async function run(model: Model): Promise<number[]> {
  const session = await openSession({ bytes: modelToBytes(model) });
  const results = await session.run({ x: tensorOf("float32", [7], [-4, -1, -0.1, 0, 0.2, 1.5, 6]) });
  await session.close();
  return [...floatsOf(Object.values(results)[0]!)];
}

for (const [name, form] of Object.entries(WRITTEN_OUT)) {
  test(`a GELU that is written out becomes one operator: ${name}`, async () => {
    const model = build(form);
    const output = model.graph.outputs[0]!.name;
    const before = await run(model);
    fuseOperators(model.graph);
    assert.deepEqual(
      model.graph.nodes.map(({ opType }) => opType),
      ["Gelu"],
    );
    assert.equal(model.graph.outputs[0]!.name, output);
    const after = await run(model);
    after.forEach((y, i) => {
      assert.ok(Math.abs(y - before[i]!) < 1e-6, `${y} instead of ${before[i]}`);
    });
  });
}

for (const [name, form] of Object.entries(OTHERS)) {
  test(`what only looks like a GELU stays as it is: ${name}`, () => {
    const model = build(form);
    const before = model.graph.nodes.map(({ opType }) => opType);
    fuseOperators(model.graph);
    assert.deepEqual(
      model.graph.nodes.map(({ opType }) => opType),
      before,
    );
  });
}
