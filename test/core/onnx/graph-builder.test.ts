import assert from "node:assert/strict";
import { test } from "node:test";
import { constantInput, dimsOf, GraphBuilder, integerInput } from "../../../src/core/onnx/graph-builder.ts";
import { type Dim, Model } from "../../../src/core/onnx/ir.ts";
import { quoted } from "../../../src/core/onnx/limits.ts";
import { arrayOf, integersOf } from "../../../src/core/onnx/tensor.ts";

function builder(): { readonly model: Model; readonly g: GraphBuilder } {
  const model = new Model({ irVersion: 10, opsets: [["", 17]], graphName: "test" });
  return { model, g: new GraphBuilder(model.graph) };
}

test("a number beside a value becomes a scalar of its type, on the side where it stands", () => {
  const { model, g } = builder();
  for (const dtype of ["float32", "float64"] as const) {
    const x = model.graph.addInput(`x_${dtype}`, dtype, [2]);
    for (const [made, at] of [
      [g.sub(3, x), 0],
      [g.sub(x, 3), 1],
    ] as const) {
      const { inputs, opType } = made.producer!;
      assert.equal(opType, "Sub");
      assert.equal(inputs[1 - at], x);
      const { constant } = inputs[at]!;
      assert.deepEqual([constant!.dtype, constant!.dims, [...arrayOf(constant!, dtype)]], [dtype, [], [3]]);
    }
  }
});

test("what would change nothing is not made", () => {
  const { model, g } = builder();
  const x = model.graph.addInput("x", "float32", [2, 3]);
  assert.equal(g.pad(x, [0, 0], [0, 0]), x);
  assert.equal(g.flip(x, []), x);
  assert.equal(model.graph.nodes.length, 0);
  for (const [before, after] of [
    [
      [1, 0],
      [0, 0],
    ],
    [
      [0, 0],
      [0, -1],
    ],
  ] as const) {
    const { opType, inputs } = g.pad(x, before, after).producer!;
    assert.equal(opType, "Pad");
    assert.deepEqual(integersOf(inputs[1]!.constant!), [...before, ...after]);
  }
});

test("shapes that are not known, and operands that are computed, are refused with their names", () => {
  const { model, g } = builder();
  const shapes: readonly (readonly Dim[] | undefined)[] = [undefined, ["n", 3], [2, "n"]];
  for (const [i, shape] of shapes.entries()) {
    assert.throws(() => dimsOf(model.graph.addInput(`x${i}`, "float32", shape)), {
      code: "unsupported",
      subject: `x${i}`,
    });
  }
  assert.deepEqual(dimsOf(model.graph.addInput("y", "float32", [2, 0])), [2, 0]);
  assert.deepEqual(dimsOf(model.graph.addInput("z", "float32", [])), []);
  const computed = model.graph.addInput("k", "int64", [1]);
  const { producer } = g.op("TopK", [model.graph.inputs[0], computed]);
  assert.throws(() => constantInput(producer!, 1), { code: "unsupported", subject: producer!.label });
  assert.equal(integerInput(producer!, 2), undefined);
  const slice = g.slice(model.graph.inputs[0]!, [0], [1], [2]).producer!;
  assert.deepEqual(
    [1, 2, 3].map((index) => integerInput(slice, index)),
    [[1], [2], [0]],
  );
});

test("names stand in messages quoted, without control characters, and with 200 of their characters", () => {
  assert.equal(quoted("a\u0000b\u202ec"), '"a?b?c"');
  assert.equal(quoted("x".repeat(200)), `"${"x".repeat(200)}"`);
  assert.equal(quoted("x".repeat(201)), `"${"x".repeat(200)}…"`);
});
