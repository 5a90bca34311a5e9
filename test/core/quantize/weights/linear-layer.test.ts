import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Model, Value } from "../../../../src/core/onnx/ir.ts";
import { tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { WeightViews } from "../../../../src/core/passes/weight-views.ts";
import { type LinearLayer, linearLayer, replaceLayer } from "../../../../src/core/quantize/weights/linear-layer.ts";
import { findWeights } from "../../../../src/core/quantize/weights/slots.ts";
import { GraphMaker, randomFeeds } from "../../../support/graphs.ts";
import { assertSameFunction } from "../../../support/same-function.ts";

type Build = (make: GraphMaker, x: Value) => Value;

interface Case {
  readonly dims: readonly (number | string)[];
  readonly build: Build;
  readonly opset?: number;
}

const ROWS = 3;
const DEPTH = 4;

const float = (value: number) => ({ type: "float", value }) as const;
const w = (make: GraphMaker, dims: readonly number[] = [DEPTH, ROWS]) => make.constant("w", make.random(dims, 1));
const c = (make: GraphMaker, dims: readonly number[]) => make.constant("c", make.random(dims, 1));

function modelOf({ dims, build, opset = 18 }: Case): Model {
  const make = new GraphMaker({ seed: 3, opset });
  const x = make.input("x", dims);
  make.output(build(make, x), "y", undefined);
  return make.model;
}

/** The only layer of a model. */
function layerOf(model: Model): LinearLayer | undefined {
  const views = new WeightViews();
  const found = [
    ...findWeights(
      model,
      views,
      () => false,
      () => {},
    ).values(),
  ].flat();
  assert.equal(found.length, 1);
  return linearLayer(found[0]!, views);
}

/** Puts y = alpha · x · W + bias in the place of the layer, by a matrix product of its own for each part. */
function rebuilt(model: Model): Model {
  const copy = model.clone();
  const layer = layerOf(copy)!;
  const { matrix, alpha, weight, node } = layer;
  const { rows, depth, layout } = matrix;
  const data = weight.read();
  const own = Float32Array.from({ length: depth * rows }, (_, i) => {
    const [k, n] = [Math.floor(i / rows), i % rows];
    return alpha * data[layout === "row-major" ? n * depth + k : k * rows + n]!;
  });
  const read = node.graph.addInitializer("own_w", tensorOf("float32", [depth, rows], own));
  replaceLayer(layer, (input, bias) => {
    if (!bias) return { opType: "MatMul", inputs: [input, read] };
    assert.deepEqual(bias.constant!.dims, [rows]);
    return { opType: "Gemm", inputs: [input, read, bias] };
  });
  return copy;
}

const CASES: Readonly<Record<string, Case & { readonly is: object }>> = {
  "a plain product": {
    ...{ dims: ["n", DEPTH], build: (make, x) => make.op("MatMul", [x, w(make)]) },
    is: { alpha: 1, layout: "column-major", bias: undefined, addend: undefined, add: false },
  },
  "a bias behind a product": {
    ...{ dims: ["n", DEPTH], build: (make, x) => make.op("Add", [c(make, [ROWS]), make.op("MatMul", [x, w(make)])]) },
    is: { alpha: 1, layout: "column-major", bias: 1, addend: undefined, add: true },
  },
  "one number behind a product": {
    ...{ dims: ["n", DEPTH], build: (make, x) => make.op("Add", [make.op("MatMul", [x, w(make)]), c(make, [])]) },
    is: { alpha: 1, layout: "column-major", bias: 1, addend: undefined, add: true },
  },
  "a row behind a product is more axes than it may have": {
    ...{
      dims: ["n", DEPTH],
      build: (make, x) => make.op("Add", [make.op("MatMul", [x, w(make)]), c(make, [1, ROWS])]),
    },
    is: { alpha: 1, layout: "column-major", bias: undefined, addend: undefined, add: false },
  },
  "a column behind a product is no bias": {
    ...{ dims: [2, DEPTH], build: (make, x) => make.op("Add", [make.op("MatMul", [x, w(make)]), c(make, [2, 1])]) },
    is: { alpha: 1, layout: "column-major", bias: undefined, addend: undefined, add: false },
  },
  "a weight behind a Transpose": {
    ...{
      dims: ["n", DEPTH],
      build: (make, x) => make.op("MatMul", [x, make.op("Transpose", [w(make, [ROWS, DEPTH])], { perm: [1, 0] })]),
    },
    is: { alpha: 1, layout: "row-major", bias: undefined, addend: undefined, add: false },
  },
  "leading axes of one": {
    ...{ dims: [2, 5, DEPTH], build: (make, x) => make.op("MatMul", [x, w(make, [1, DEPTH, ROWS])]) },
    is: { alpha: 1, layout: "column-major", bias: undefined, addend: undefined, add: false },
  },
  "a Gemm": {
    ...{ dims: ["n", DEPTH], build: (make, x) => make.op("Gemm", [x, w(make), c(make, [ROWS])]) },
    is: { alpha: 1, layout: "column-major", bias: 1, addend: undefined, add: false },
  },
  "a Gemm of a transposed weight, with factors": {
    ...{
      dims: ["n", DEPTH],
      build: (make, x) =>
        make.op("Gemm", [x, w(make, [ROWS, DEPTH]), c(make, [1, ROWS])], {
          transB: 1,
          alpha: float(0.5),
          beta: float(2),
        }),
    },
    is: { alpha: 0.5, layout: "row-major", bias: 2, addend: undefined, add: false },
  },
  "a Gemm of a transposed input": {
    ...{
      dims: [DEPTH, 5],
      build: (make, x) => make.op("Gemm", [x, w(make), c(make, [])], { transA: 1, beta: float(3) }),
    },
    is: { alpha: 1, layout: "column-major", bias: 3, addend: undefined, add: false },
  },
  "a Gemm that adds a matrix, with a factor": {
    ...{
      dims: [2, DEPTH],
      build: (make, x) => make.op("Gemm", [x, w(make), c(make, [2, ROWS])], { beta: float(0.25) }),
    },
    is: { alpha: 1, layout: "column-major", bias: undefined, addend: 0.25, add: false },
  },
  "a Gemm that adds a column": {
    ...{ dims: [2, DEPTH], build: (make, x) => make.op("Gemm", [x, w(make), c(make, [2, 1])]) },
    is: { alpha: 1, layout: "column-major", bias: undefined, addend: 1, add: false },
  },
  "a Gemm that adds nothing of its third input": {
    ...{ dims: [2, DEPTH], build: (make, x) => make.op("Gemm", [x, w(make), c(make, [2, 1])], { beta: float(0) }) },
    is: { alpha: 1, layout: "column-major", bias: undefined, addend: undefined, add: false },
  },
  "a Gemm that adds a value": {
    ...{
      dims: [2, DEPTH],
      build: (make, x) =>
        make.op("Gemm", [x, w(make), make.op("MatMul", [make.input("z", [2, 1]), make.input("u", [1, ROWS])])]),
    },
    is: { alpha: 1, layout: "column-major", bias: undefined, addend: 1, add: false },
  },
};

describe("a layer is what its node computes, and another product in its place computes the same", () => {
  for (const [name, { is, ...given }] of Object.entries(CASES)) {
    test(name, async () => {
      const model = modelOf(given);
      const { alpha, matrix, bias, addend, add } = layerOf(model)!;
      assert.deepEqual(
        { alpha, layout: matrix.layout, bias: bias?.factor, addend: addend?.factor, add: add !== undefined },
        is,
      );
      assert.deepEqual([matrix.rows, matrix.depth], [ROWS, DEPTH]);
      const after = rebuilt(model);
      await assertSameFunction(model, after, randomFeeds(model, { dims: { n: 5 } }));
      assert.equal(after.graph.outputs[0]!.name, "y");
    });
  }
});

test("stacks of matrices, weights on the left, and products whose rank is not known are no layers", () => {
  const none = (given: Case) => assert.equal(layerOf(modelOf(given)), undefined);
  none({ dims: [2, 5, DEPTH], build: (make, x) => make.op("MatMul", [x, w(make, [2, DEPTH, ROWS])]) });
  none({ dims: [DEPTH, 5], build: (make, x) => make.op("MatMul", [w(make, [ROWS, DEPTH]), x]) });
  none({ dims: [5, DEPTH], build: (make, x) => make.op("MatMul", [x, w(make, [1, DEPTH, ROWS])]) });
});

test("a product that two nodes read keeps its sum", async () => {
  const given: Case = {
    dims: ["n", DEPTH],
    build(make, x) {
      const product = make.op("MatMul", [x, w(make)]);
      make.output(make.op("Relu", [product]), "other", undefined);
      return make.op("Add", [product, c(make, [ROWS])]);
    },
  };
  const model = modelOf(given);
  assert.equal(layerOf(model)!.add, undefined);
  await assertSameFunction(model, rebuilt(model), randomFeeds(model, { dims: { n: 5 } }));
});
