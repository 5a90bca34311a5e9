import assert from "node:assert/strict";
import { test } from "node:test";
import type { Value } from "../../../../src/core/onnx/ir.ts";
import { ActivationObserver } from "../../../../src/core/quantize/calibration/observers.ts";
import { stretchedGroups } from "../../../../src/core/quantize/static/stretched.ts";
import { GraphMaker } from "../../../support/graphs.ts";

/** Values over many decades, as energies are: of 8 bits a logarithm of them would leave nothing. */
function decades(): ActivationObserver {
  const observer = new ActivationObserver();
  observer.observe(Float32Array.from({ length: 5000 }, (_, i) => 10 ** (-14 * (i / 5000))));
  return observer;
}

type Build = (make: GraphMaker, x: Value) => Value;

/** The operators that stay in float where `middle` stands between two layers and a logarithm. */
function inFloat(middle: Build, seen: ActivationObserver | undefined = decades()): string[] {
  const make = new GraphMaker();
  const first = make.op("Relu", [make.linear(make.input("x", ["n", 8]), 8, 8)]);
  make.output(make.op("Log", [middle(make, make.linear(first, 8, 8))]), "y", ["n", 8]);
  const groups = stretchedGroups(make.model, () => seen);
  return make.graph.nodes.filter(({ name }) => groups.some(({ nodes }) => nodes.has(name))).map(({ opType }) => opType);
}

const number = (make: GraphMaker, value: number) => make.floats("number", [], [value]);
const power =
  (exponent: number): Build =>
  (make, x) =>
    make.op("Pow", [x, number(make, exponent)]);

test("magnitudes and powers of a layer are small where it is: the layer stays in float with them", () => {
  const layer = inFloat((_, x) => x);
  assert.ok(layer.length > 0 && layer.every((op) => op === "MatMul" || op === "Gemm" || op === "Add"), String(layer));
  for (const [name, middle] of Object.entries<Build>({
    magnitude: (make, x) => make.op("Abs", [x]),
    square: (make, x) => make.op("Mul", [x, x]),
    "square by Pow": power(2),
    "first power": power(1),
    "with a floor": (make, x) => make.op("Add", [make.op("Mul", [x, x]), number(make, 1e-6)]),
  })) {
    const found = inFloat(middle);
    assert.ok(
      layer.every((op) => found.includes(op)),
      `${name}: ${found}`,
    );
  }
});

test("a root in between makes small values large, and ends what stays in float; so does a Relu between layers", () => {
  const layers = (found: readonly string[]) => found.filter((op) => op === "MatMul" || op === "Gemm").length;
  assert.equal(layers(inFloat((_, x) => x)), 1, "the layer in front alone");
  assert.equal(layers(inFloat(power(0.5))), layers(inFloat((make, x) => make.op("Sqrt", [x]))));
  // A product of two values is no power of either.
  const product = inFloat((make, x) => make.op("Mul", [x, make.op("Sigmoid", [x])]));
  const square = inFloat((make, x) => make.op("Mul", [x, x]));
  assert.notDeepEqual(product, square);
});

test("where nothing was seen, or 8 bits hold what was, nothing stays in float", () => {
  const even = new ActivationObserver();
  even.observe(Float32Array.from({ length: 1000 }, (_, i) => 5 + i / 100));
  assert.deepEqual(inFloat(power(2), even), []);
  const make = new GraphMaker();
  make.output(make.op("Log", [make.linear(make.input("x", ["n", 8]), 8, 8)]), "y");
  assert.deepEqual(
    stretchedGroups(make.model, () => undefined),
    [],
  );
  assert.deepEqual(
    stretchedGroups(make.model, () => new ActivationObserver()),
    [],
  );
});

test("in front of the last layer what is linear, a magnitude or a power carries on to the layers before it; what is not ends there", () => {
  const layers = (between: Build): number => {
    const make = new GraphMaker();
    const first = make.linear(make.input("x", ["n", 8]), 8, 8);
    make.output(make.op("Log", [make.linear(between(make, first), 8, 8)]), "y", ["n", 8]);
    const groups = stretchedGroups(make.model, () => decades());
    const found = make.graph.nodes.filter(({ name }) => groups.some(({ nodes }) => nodes.has(name)));
    return found.filter(({ opType }) => opType === "MatMul" || opType === "Gemm").length;
  };
  const cases: Readonly<Record<string, readonly [Build, number]>> = {
    nothing: [(_, x) => x, 2],
    magnitude: [(make, x) => make.op("Abs", [x]), 2],
    square: [(make, x) => make.op("Mul", [x, x]), 2],
    "square by Pow": [power(2), 2],
    "first power": [power(1), 2],
    multiple: [(make, x) => make.op("Mul", [x, number(make, 3)]), 2],
    "a power that is computed": [(make, x) => make.op("Pow", [x, make.op("Sigmoid", [x])]), 1],
    "product of two values": [(make, x) => make.op("Mul", [x, make.op("Sigmoid", [x])]), 1],
    "sine, whose operand has no constant": [(make, x) => make.op("Sin", [x]), 1],
    Relu: [(make, x) => make.op("Relu", [x]), 1],
  };
  for (const [name, [between, expected]] of Object.entries(cases)) assert.equal(layers(between), expected, name);
});
