import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model, Value } from "../../../../src/core/onnx/ir.ts";
import { floatsOf, integersOf } from "../../../../src/core/onnx/tensor.ts";
import { placeQuantizers } from "../../../../src/core/quantize/static/placement.ts";
import { quantizeStatic } from "../../../../src/core/quantize/static/quantize-static.ts";
import type { PlacementOptions } from "../../../../src/core/quantize/static/units.ts";
import { GraphMaker } from "../../../support/graphs.ts";

/** Of each unit its operator, and why it is not quantized. */
function unitsOf(model: Model, options: PlacementOptions = {}): string[] {
  return placeQuantizers(model, options).units.map(
    ({ node, quantized, reason }) => `${node.opType}${quantized ? "" : ` ${reason!.code}`}`,
  );
}

/** x → Conv → what `middle` makes → Conv → y. */
function between(middle: (make: GraphMaker, x: Value) => Value): Model {
  const make = new GraphMaker();
  const h = make.conv(make.input("x", ["n", 4, 6, 6]), [4, 4], 1);
  make.output(make.conv(middle(make, h), [4, 4], 1), "y");
  return make.model;
}

const twice = (make: GraphMaker, x: Value) => make.op("Mul", [x, make.floats("two", [], [2])]);
const threeLess = (make: GraphMaker, x: Value) => make.op("Add", [x, make.floats("three", [], [-3])]);

test("what is a number times a value, plus a number, has its codes and is no unit", () => {
  assert.deepEqual(unitsOf(between((make, x) => threeLess(make, twice(make, x)))), ["Conv", "Conv"]);
  assert.equal(placeQuantizers(between(twice)).aliases.size, 1);
});

test("a sum in front of a clip is computed, and a multiple is not; what the job leaves alone stays as it is", () => {
  const clipped = between((make, x) => make.op("Relu", [threeLess(make, x)]));
  assert.deepEqual(unitsOf(clipped), ["Conv", "Add", "Conv"]);
  // A multiple in front of a clip has the codes of what it is of.
  const multiple = placeQuantizers(between((make, x) => make.op("Relu", [twice(make, x)])));
  assert.equal(multiple.units.filter(({ node }) => node.opType === "Mul").length, 0);
  const sum = between(threeLess);
  const { name } = sum.graph.nodes.find(({ opType }) => opType === "Add")!;
  assert.deepEqual(unitsOf(sum, { computedSums: new Set([name]) }), ["Conv", "Add", "Conv"]);
  const left = { isExcluded: ({ opType }: { opType: string }) => opType === "Mul" };
  assert.deepEqual(unitsOf(between(twice), left), ["Conv", "Mul excluded", "Conv"]);
});

test("where pairs stand in front of nodes alone, a multiple is no value of the same codes", () => {
  const pattern = { outputs: "never" } as PlacementOptions["pattern"];
  assert.equal(placeQuantizers(between(twice), { pattern }).aliases.size, 0);
});

test("a product of two values is computed in 8 bits where both come from integers", () => {
  const product = (other: string | undefined) => {
    const make = new GraphMaker();
    const x = make.input("x", ["n", 4, 6, 6]);
    const [a, b] = [make.conv(x, [4, 4], 1), make.conv(x, [4, 4], 1)];
    make.output(make.op("MatMul", [a, other === undefined ? b : make.op(other, [b])]), "y");
    return unitsOf(make.model);
  };
  assert.deepEqual(product(undefined), ["Conv", "Conv", "MatMul"]);
  assert.deepEqual(product("Tanh"), ["Conv", "Conv", "MatMul float_operands"]);
});

test("depthwise convolutions that read less than a runtime is faster with stay in float, and others do not", () => {
  const make = new GraphMaker();
  const x = make.conv(make.input("x", ["n", 4, 6, 6]), [4, 4], 3);
  make.output(make.conv(make.conv(x, [4, 4], 3, { group: 4 }), [4, 4], 3), "y");
  assert.deepEqual(unitsOf(make.model), ["Conv", "Conv", "Conv"]);
  const pattern = { floatDepthwise: { below: 144, reason: "Slow there." } };
  const of = (elements?: number) =>
    unitsOf(make.model, { pattern, elementsOf: () => elements } as unknown as PlacementOptions);
  for (const unknown of [undefined, 143]) assert.deepEqual(of(unknown), ["Conv", "Conv slower", "Conv"]);
  assert.deepEqual(of(144), ["Conv", "Conv", "Conv"]);
});

/** The value that the codes of a constant operand of an Add stand for. */
function operandOf(
  number: number,
  activationDType: "uint8" | "int8",
): { readonly value: number; readonly code: number; readonly zero: number } {
  const make = new GraphMaker();
  const h = make.conv(make.input("x", ["n", 4, 6, 6]), [4, 4], 1);
  const sum = make.op("Relu", [make.op("Add", [h, make.floats("number", [], [number])])]);
  make.output(make.conv(sum, [4, 4], 1), "y");
  const options = {
    method: "minmax",
    percentile: 99.9,
    activationDType,
    perChannel: true,
    reduceRange: false,
  } as const;
  const { model } = quantizeStatic(make.model, undefined, options);
  const add = model.graph.nodes.find(({ opType }) => opType === "Add")!;
  const [codes, scale, zeroPoint] = add.inputs[1]!.producer!.inputs;
  const code = integersOf(codes!.constant!)[0]!;
  const zero = zeroPoint ? integersOf(zeroPoint.constant!)[0]! : 0;
  return { value: (code - zero) * floatsOf(scale!.constant!)[0]!, code, zero };
}

test("a number that is added in 8 bits is exact: the code furthest from zero, at a scale that makes it that number", () => {
  for (const [number, dtype, code, zero] of [
    [3, "uint8", 255, 0],
    [-3, "uint8", 0, 255],
    [3, "int8", 127, 0],
    [-3, "int8", -128, 0],
  ] as const) {
    const found = operandOf(number, dtype);
    assert.ok(Math.abs(found.value - number) < 1e-6, `${number} in ${dtype} is ${found.value}`);
    assert.deepEqual([found.code, found.zero], [code, zero]);
  }
});
