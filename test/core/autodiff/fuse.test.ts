import assert from "node:assert/strict";
import { test } from "node:test";
import { fuseOperators } from "../../../src/core/autodiff/fuse.ts";
import { TRAINING_OPSET } from "../../../src/core/autodiff/gradient.ts";
import { GraphBuilder } from "../../../src/core/onnx/graph-builder.ts";
import { Model, type Node, type Value } from "../../../src/core/onnx/ir.ts";
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
  "a factor for each element, the first of which is a half": (g, x) => {
    const factors = g.constant("float32", [7], [0.5, 1, 1, 1, 1, 1, 1]);
    return g.mul(g.mul(x, g.add(g.op("Erf", [g.div(x, Math.SQRT2)]), 1)), factors);
  },
  "no half": (g, x) => g.mul(x, g.add(g.op("Erf", [g.div(x, Math.SQRT2)]), 1)),
  "a part that is read elsewhere": (g, x) => {
    const sum = g.add(g.op("Erf", [g.div(x, Math.SQRT2)]), 1);
    return g.add(g.mul(g.mul(x, sum), 0.5), sum);
  },
};

/** The same model with another operator, or one of another domain, in the place of one of its nodes. */
function withOther(form: (g: GraphBuilder, x: Value) => Value, at: number, opType: string, domain: string): Model {
  const model = build(form);
  const node = model.graph.nodes[at]!;
  const other = model.graph.insertBefore(node, { opType, domain, inputs: node.inputs, outputs: 1 });
  if (node.outputs[0]!.isGraphOutput) {
    model.graph.removeOutput(node.outputs[0]!);
    model.graph.addOutput(other.outputs[0]!);
  }
  for (const { node: reader, index } of [...node.outputs[0]!.uses]) reader.setInput(index, other.outputs[0]!);
  model.graph.remove(node);
  return model;
}

const isBehindErf = (node: Node): boolean =>
  node.opType === "Erf" || node.inputs.some((value) => value?.producer && isBehindErf(value.producer));

const operatorsOf = (model: Model) => model.graph.nodes.map(({ domain, opType }) => `${domain}.${opType}`);

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

const OTHER_OPERATOR: Readonly<Record<string, string>> = { Erf: "Tanh", Add: "Sub", Mul: "Div", Div: "Mul" };

for (const [name, form] of Object.entries(WRITTEN_OUT)) {
  test(`with any one operator another, or of another domain, it is no GELU: ${name}`, () => {
    const operators = build(form).graph.nodes.map(({ opType }) => opType);
    for (const [at, opType] of operators.entries()) {
      for (const model of [
        withOther(form, at, OTHER_OPERATOR[opType]!, ""),
        withOther(form, at, opType, "my.domain"),
      ]) {
        const before = operatorsOf(model);
        fuseOperators(model.graph);
        assert.deepEqual(operatorsOf(model), before);
      }
    }
  });

  for (const by of ["the caller", "another node"]) {
    test(`what ${by} reads stays: ${name}`, () => {
      const { length } = build(form).graph.nodes;
      for (let at = 0; at < length - 1; at++) {
        const model = build(form);
        const inner = model.graph.nodes[at]!.outputs[0]!;
        const needsErf = isBehindErf(inner.producer!);
        model.graph.addOutput(by === "the caller" ? inner : new GraphBuilder(model.graph).neg(inner));
        const before = operatorsOf(model);
        const reader = by === "the caller" ? [] : [".Neg"];
        fuseOperators(model.graph);
        // What has an erf in it would be computed beside the GELU; a multiple of x costs next to nothing.
        if (needsErf) assert.deepEqual(operatorsOf(model), before, `${at}`);
        else assert.deepEqual(operatorsOf(model).sort(), [".Gelu", before[at], ...reader].sort());
      }
    });
  }
}
