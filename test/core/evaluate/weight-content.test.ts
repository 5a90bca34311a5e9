import assert from "node:assert/strict";
import { test } from "node:test";
import { modelWarnings } from "../../../src/core/evaluate/model-warnings.ts";
import { findNonFiniteWeights } from "../../../src/core/evaluate/weight-content.ts";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import { GraphMaker } from "../../support/graphs.ts";

/** A table, a matrix, a bias and a mask, in each of which one value is `value`. */
function modelWith(value: number) {
  const make = new GraphMaker();
  const broken = (dims: readonly number[], at: number) => {
    const values = Float32Array.from({ length: dims.reduce((a, b) => a * b) }, (_, i) => (i === at ? value : 0.1 * i));
    return make.constant("w", tensorOf("float32", dims, values));
  };
  const rows = make.op("Gather", [broken([5, 4], 9), make.input("ids", ["n", 3], "int64")]);
  const product = make.op("MatMul", [rows, broken([4, 6], 23)]);
  make.output(make.op("Add", [make.op("Add", [product, broken([6], 2)]), broken([3, 6], 7)]), "y");
  return make.model;
}

test("NaN is found in every weight, with where it is and who reads it", () => {
  const found = findNonFiniteWeights(modelWith(Number.NaN));
  assert.deepEqual(
    found.map(({ layers, shape, count, first }) => [layers.map(({ op }) => op), shape, count, first]),
    [
      [["Gather"], [5, 4], 1, { index: [2, 1], value: "nan" }],
      [["MatMul"], [4, 6], 1, { index: [3, 5], value: "nan" }],
      [[], [6], 1, { index: [2], value: "nan" }],
      [[], [3, 6], 1, { index: [1, 1], value: "nan" }],
    ],
  );
  const [warning] = modelWarnings({ non_finite_weights: found });
  assert.equal(warning!.code, "non_finite_weights");
  assert.equal(warning!.value, 4);
  assert.match(
    warning!.message,
    /^The weight "w" of "\w+" \(Gather\) has a value that is NaN or infinite, .*\[2, 1\] \(nan\)/,
  );
  assert.match(warning!.message, /3 other weights\.$/);
});

test("an infinity is at home in masks and biases, and in no layer", () => {
  const layers = findNonFiniteWeights(modelWith(Number.NEGATIVE_INFINITY)).flatMap((weight) => weight.layers);
  assert.deepEqual(
    layers.map(({ op }) => op),
    ["Gather", "MatMul"],
  );
  assert.deepEqual(findNonFiniteWeights(modelWith(1)), []);
  assert.deepEqual(modelWarnings({ non_finite_weights: [] }), []);
  assert.deepEqual(modelWarnings({}), []);
});

test("weights of other types than float32 are looked into", () => {
  const make = new GraphMaker();
  const x = make.input("x", ["n", 2], "float16");
  const half = tensorOf("float16", [2, 2], Float16Array.of(1, 2, Number.POSITIVE_INFINITY, Number.NaN));
  const wide = tensorOf("float64", [2, 2], Float64Array.of(1, Number.NaN, 1e308, 2));
  const product = make.op("MatMul", [x, make.constant("h", half)]);
  const cast = make.op("Cast", [product], { to: 11 });
  make.output(make.op("MatMul", [cast, make.constant("d", wide)]), "y", undefined, "float64");
  assert.deepEqual(
    findNonFiniteWeights(make.model).map(({ name, count, first }) => [name, count, first]),
    [
      ["h", 2, { index: [1, 0], value: "inf" }],
      ["d", 1, { index: [0, 1], value: "nan" }],
    ],
  );
});
