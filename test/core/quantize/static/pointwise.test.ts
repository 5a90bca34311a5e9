import assert from "node:assert/strict";
import { test } from "node:test";
import type { Value } from "../../../../src/core/onnx/ir.ts";
import { pointwiseFunction } from "../../../../src/core/quantize/static/pointwise.ts";
import { GraphMaker } from "../../../support/graphs.ts";

const float = (value: number) => ({ type: "float", value }) as const;

/** The function of a convolution's output that a second convolution reads. */
function between(build: (make: GraphMaker, x: Value) => Value): ((x: number) => number) | undefined {
  const make = new GraphMaker();
  const x = make.conv(make.input("x", ["n", 4, 6, 6]), [4, 4], 1);
  make.output(make.conv(build(make, x), [4, 4], 1), "y");
  return pointwiseFunction(x);
}

const swish = (x: number) => (x * Math.min(Math.max(x + 3, 0), 6)) / 6;

test("a hard swish, in one operator, in two and in four", () => {
  const functions = [
    between((make, x) => make.op("HardSwish", [x])),
    between((make, x) => make.op("Mul", [x, make.op("HardSigmoid", [x], { alpha: float(1 / 6), beta: float(0.5) })])),
    between((make, x) => {
      const sum = make.op("Add", [make.floats("three", [], [3]), x]);
      const clipped = make.op("Clip", [sum, make.floats("low", [], [0]), make.floats("high", [], [6])]);
      return make.op("Div", [make.op("Mul", [x, clipped]), make.floats("six", [], [6])]);
    }),
  ];
  for (const f of functions) for (const x of [-9, -3, -1, 0, 0.5, 3, 20]) assert.ok(Math.abs(f!(x) - swish(x)) < 1e-6);
});

test("every operator of the table computes what ONNX says", () => {
  const cases: readonly [(make: GraphMaker, x: Value) => Value, (x: number) => number][] = [
    [(make, x) => make.op("Relu", [x]), (x) => Math.max(x, 0)],
    [(make, x) => make.op("LeakyRelu", [x], { alpha: float(0.25) }), (x) => (x < 0 ? 0.25 * x : x)],
    [(make, x) => make.op("Clip", [x, undefined, make.floats("high", [], [1])]), (x) => Math.min(x, 1)],
    [(make, x) => make.op("Sigmoid", [make.op("Identity", [x])]), (x) => 1 / (1 + Math.exp(-x))],
    [(make, x) => make.op("Tanh", [x]), Math.tanh],
    [(make, x) => make.op("Exp", [make.op("Neg", [make.op("Abs", [x])])]), (x) => Math.exp(-Math.abs(x))],
    [(make, x) => make.op("Sub", [make.floats("one", [1], [1]), x]), (x) => 1 - x],
    [(make, x) => make.op("Add", [x, make.op("Mul", [x, x])]), (x) => x + x * x],
  ];
  for (const [build, expected] of cases) {
    const f = between(build)!;
    for (const x of [-2.5, -0.5, 0, 0.75, 2]) assert.ok(Math.abs(f(x) - expected(x)) < 1e-12);
  }
});

test("a value that is also read as it is, or with something else, has no function", () => {
  assert.equal(
    between((_, x) => x),
    undefined,
  );
  assert.equal(
    between((make, x) => make.op("Add", [make.op("Tanh", [x]), make.conv(x, [4, 4], 1)])),
    undefined,
  );
  assert.equal(
    between((make, x) => make.op("Mul", [x, make.floats("gains", [4, 1, 1], [1, 2, 3, 4])])),
    undefined,
  );
});
