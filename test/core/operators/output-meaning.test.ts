import assert from "node:assert/strict";
import { test } from "node:test";
import { GraphBuilder, int, ints } from "../../../src/core/onnx/graph-builder.ts";
import { Model, type Value } from "../../../src/core/onnx/ir.ts";
import { meaningOf } from "../../../src/core/operators/output-meaning.ts";

type Dims = readonly (number | string)[];

interface Made {
  readonly g: GraphBuilder;
  readonly x: Value;
  /** A weight of these dims. */
  readonly w: (...dims: number[]) => Value;
}

/** What `make` makes of x means, as `kind axis evident`. */
function read(
  make: (made: Made) => Value,
  shape: Dims | undefined,
  { name = "y", only = true, opset = 21 } = {},
): string {
  const model = new Model({ irVersion: 10, opsets: [["", opset]], graphName: "test" });
  const g = new GraphBuilder(model.graph);
  const x = model.graph.addInput("x", "float32", ["n", 3, 8, 8]);
  const w = (...dims: number[]) => g.constant("float32", dims, new Array(dims.reduce((a, b) => a * b, 1)).fill(0.5));
  const y = make({ g, x, w });
  y.name = name;
  y.shape = shape;
  const { kind, class_axis, evident } = meaningOf(y, only);
  return `${kind} ${class_axis ?? "last"}${evident ? " evident" : ""}`;
}

const softmax =
  (axis?: number) =>
  ({ g, x }: Made) =>
    g.op("Softmax", [x], axis === undefined ? {} : { axis: int(axis) });

test("a Softmax makes scores of classes along its axis, whatever only stores or moves them behind it", () => {
  assert.equal(read(softmax(), ["n", 5]), "class_scores last evident");
  assert.equal(read(softmax(-1), ["n", 3, 8, 8]), "class_scores last evident");
  assert.equal(read(softmax(1), ["n", 3, 8, 8]), "class_scores 1 evident");
  assert.equal(read(softmax(-3), ["n", 3, 8, 8]), "class_scores 1 evident");
  assert.equal(read(softmax(1), ["n", 3, 1, 1]), "class_scores last evident");
  assert.equal(
    read(({ g, x }) => g.op("LogSoftmax", [x], { axis: int(1) }), ["n", 3, 8, 8]),
    "class_scores 1 evident",
  );
  const toLast = (value: Value, g: GraphBuilder) => g.op("Transpose", [value], { perm: ints([0, 2, 3, 1]) });
  const toSecond = (value: Value, g: GraphBuilder) => g.op("Transpose", [value], { perm: ints([0, 3, 1, 2]) });
  assert.equal(
    read((made) => toLast(softmax(1)(made), made.g), ["n", 8, 8, 3]),
    "class_scores last evident",
  );
  assert.equal(
    read((made) => toSecond(softmax(3)(made), made.g), ["n", 8, 3, 8]),
    "class_scores 1 evident",
  );
  assert.equal(
    read((made) => toSecond(toSecond(softmax(-1)(made), made.g), made.g), ["n", 8, 8, 3]),
    "class_scores 2 evident",
    "two transposes in turn",
  );
  assert.equal(
    read((made) => made.g.cast(made.g.op("Identity", [softmax(1)(made)]), "float16"), ["n", 3, 8, 8]),
    "class_scores 1 evident",
  );
  assert.equal(
    read((made) => made.g.reshape(softmax(1)(made), [0, 3]), ["n", 3]),
    "class_scores last evident",
  );
});

test("before version 13 the standard axis of a Softmax is the second, and those behind it belong to it", () => {
  assert.equal(read(softmax(), ["n", 5], { opset: 11 }), "class_scores last evident");
  assert.equal(read(softmax(1), ["n", 3, 8, 8], { opset: 11 }), "class_scores last evident");
});

test("a Sigmoid makes shares, even of what is called scores", () => {
  const sigmoid = ({ g, x }: Made) => g.op("Sigmoid", [x]);
  assert.equal(read(sigmoid, ["n", 5], { name: "scores" }), "shares last evident");
  assert.equal(read(sigmoid, ["n", 1, 8, 8]), "shares last evident");
  assert.equal(
    read(({ g, x }) => g.op("HardSigmoid", [x]), ["n", 5]),
    "shares last evident",
  );
  assert.equal(
    read(({ g, x }) => g.sub(g.op("Sigmoid", [x]), 0.5), ["n", 5]),
    "numbers last evident",
    "a constant shifts it",
  );
});

test("a matrix that was normalized or squashed last, and then at most pooled, is an embedding and no scores", () => {
  const norm = ({ g, x, w }: Made) => g.op("LayerNormalization", [x, w(8)]);
  const unit = ({ g, x }: Made) => g.op("LpNormalization", [x]);
  const quotient = ({ g, x }: Made) => g.div(x, g.sqrt(g.sum(g.square(x), [-1])));
  const scaled = (made: Made) => made.g.add(made.g.mul(quotient(made), made.w(8)), made.w(8));
  const pooled = (made: Made) => made.g.mean(norm(made), [1], false);
  const first = (made: Made) => made.g.op("Gather", [norm(made), made.g.constant("int64", [], [0])], { axis: int(1) });
  const pooler = ({ g, x, w }: Made) => g.op("Tanh", [g.op("Gemm", [x, w(8, 8)])]);
  for (const make of [norm, unit, quotient, scaled, pooled, first, pooler]) {
    assert.equal(read(make, ["n", 8]), "numbers last", make.name);
    assert.equal(read(make, ["n", 8], { name: "class_logits" }), "class_scores last", "what it is called counts more");
  }
  const head = (made: Made) => made.g.op("Gemm", [pooled(made), made.w(8, 5)]);
  assert.equal(read(head, ["n", 5]), "class_scores last");
  const average = ({ g, x, w }: Made) => g.op("GlobalAveragePool", [g.op("Relu", [g.op("Conv", [x, w(5, 3, 1, 1)])])]);
  assert.equal(read(average, ["n", 5, 1, 1]), "class_scores last", "SqueezeNet's");
  const shifted = ({ g, x }: Made) => g.div(x, g.scalar(2, x));
  assert.equal(read(shifted, ["n", 5]), "class_scores last", "a constant is no quotient");
});

test("without either, shape and name tell, and layers where classes would lie", () => {
  const gemm = ({ g, x, w }: Made) => g.op("Gemm", [x, w(3, 5)]);
  const conv = ({ g, x, w }: Made) => g.op("Conv", [x, w(5, 3, 1, 1)]);
  const tokens = ({ g, x, w }: Made) => g.add(g.matMul(x, w(8, 5)), w(5));
  const concat = ({ g, x }: Made) => g.op("Concat", [x, x], { axis: int(1) });
  const norm = ({ g, x, w }: Made) => g.op("LayerNormalization", [x, w(8)]);
  assert.equal(read(gemm, ["n", 5]), "class_scores last");
  assert.equal(read(gemm, ["n", 5], { only: false }), "numbers last");
  assert.equal(read(gemm, ["n", 5], { only: false, name: "cls_logits" }), "class_scores last");
  assert.equal(read(gemm, ["n", 1]), "numbers last", "one number is no choice");
  assert.equal(read(gemm, ["n", 1], { name: "score" }), "numbers last");
  assert.equal(read(tokens, ["n", "t", 5]), "class_scores last");
  assert.equal(read(norm, ["n", "t", 8]), "numbers last");
  assert.equal(read(conv, ["n", 5, 8, 8]), "numbers 1");
  assert.equal(read(conv, ["n", 5, 8, 8], { name: "logits" }), "class_scores 1");
  assert.equal(read(conv, ["n", 5, 1, 1]), "class_scores last");
  assert.equal(read(concat, ["n", 84, 8400]), "numbers last");
  assert.equal(read(concat, undefined), "class_scores last", "no rank is declared: as a matrix");
  assert.equal(read(concat, undefined, { only: false }), "numbers last");
  assert.equal(read(conv, undefined), "numbers 1");
  assert.equal(
    read(({ x }) => x, ["n", 3, 8, 8]),
    "numbers last",
    "an input handed out",
  );
});
