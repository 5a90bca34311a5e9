import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Value } from "../../../src/core/onnx/ir.ts";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import type { OpType } from "../../../src/core/operators/operators.ts";
import { INT8 } from "../../../src/core/targets/onnxruntime-cpu.ts";
import { GraphMaker } from "../../support/graphs.ts";
import { fusedOperators } from "../../support/open-model.ts";

type Build = (make: GraphMaker, pair: (value: Value) => Value) => Value;

const IMAGE = [1, 4, 8, 8];

/** A node of the operator over one quantized image. */
function over(build: (make: GraphMaker, x: Value) => Value, dims: readonly number[] = IMAGE): Build {
  return (make, pair) => build(make, pair(make.input("x", dims)));
}

const unary = (opType: OpType, attrs = {}) => over((make, x) => make.op(opType, [x], attrs));
const window = { kernel_shape: [2, 2], strides: [2, 2] };

/** The weight of a layer, in int8 with one scale. */
function weight(make: GraphMaker, dims: readonly number[]): Value {
  const zero = make.constant("zero", tensorOf("int8", [], [0]));
  const stored = make.constant("w", tensorOf("int8", dims, new Int8Array(dims.reduce((a, b) => a * b)).fill(3)));
  return make.op("DequantizeLinear", [stored, make.floats("w_scale", [], [0.01]), zero]);
}

/** One use of every operator that has, or may be thought to have, a kernel. */
const CASES: Readonly<Partial<Record<OpType, Build>>> = {
  Conv: over((make, x) => make.op("Conv", [x, weight(make, [4, 4, 3, 3])])),
  Gemm: over((make, x) => make.op("Gemm", [x, weight(make, [8, 4])]), [2, 8]),
  MatMul: over((make, x) => make.op("MatMul", [x, weight(make, [8, 4])]), [2, 8]),
  Add: over((make, x) => make.op("Add", [x, x])),
  Mul: over((make, x) => make.op("Mul", [x, x])),
  Concat: (make, pair) => make.op("Concat", [pair(make.input("x", IMAGE)), pair(make.input("x2", IMAGE))], { axis: 1 }),
  Where: (make, pair) =>
    make.op("Where", [make.input("c", IMAGE, "bool"), pair(make.input("x", IMAGE)), pair(make.input("x2", IMAGE))]),
  Sigmoid: unary("Sigmoid"),
  Softmax: unary("Softmax", { axis: -1 }),
  LeakyRelu: unary("LeakyRelu"),
  AveragePool: unary("AveragePool", window),
  GlobalAveragePool: unary("GlobalAveragePool"),
  MaxPool: unary("MaxPool", window),
  Reshape: over((make, x) => make.op("Reshape", [x, make.ints("shape", [4, -1])])),
  Transpose: unary("Transpose", { perm: [0, 2, 3, 1] }),
  Flatten: unary("Flatten"),
  Squeeze: over((make, x) => make.op("Squeeze", [x, make.ints("axes", [0])])),
  Unsqueeze: over((make, x) => make.op("Unsqueeze", [x, make.ints("axes", [0])])),
  Slice: over((make, x) => make.op("Slice", [x, make.ints("a", [0]), make.ints("b", [4]), make.ints("c", [2])])),
  Split: over((make, x) => make.node("Split", [x], { axis: 1 }, 2).outputs[0]!),
  Expand: over((make, x) => make.op("Expand", [x, make.ints("shape", [1, 4, 8, 3])]), [1, 4, 8, 1]),
  Tile: over((make, x) => make.op("Tile", [x, make.ints("repeats", [1, 1, 2, 2])])),
  Gather: over((make, x) => make.op("Gather", [x, make.ints("ids", [1, 2])], { axis: 1 })),
  GatherElements: over(
    (make, x) => make.op("GatherElements", [x, make.ints("i", [1, 0], [1, 2])], { axis: 1 }),
    [1, 2],
  ),
  DepthToSpace: unary("DepthToSpace", { blocksize: 2 }),
  Resize: over((make, x) =>
    make.op("Resize", [x, undefined, make.floats("s", [4], [1, 1, 2, 2])], { mode: "nearest" }),
  ),
  ReduceMax: unary("ReduceMax", { axes: [2] }),
  ReduceMin: unary("ReduceMin", { axes: [2] }),

  SpaceToDepth: unary("SpaceToDepth", { blocksize: 2 }),
  ReduceMean: unary("ReduceMean", { axes: [2, 3] }),
  ReduceSum: over((make, x) => make.op("ReduceSum", [x, make.ints("axes", [2])])),
  GlobalMaxPool: unary("GlobalMaxPool"),
  Pad: over((make, x) => make.op("Pad", [x, make.ints("pads", [0, 0, 1, 1, 0, 0, 1, 1])])),
  PRelu: over((make, x) => make.op("PRelu", [x, make.weight("slope", [4, 1, 1], 0.2)])),
  Relu: unary("Relu"),
  Tanh: unary("Tanh"),
  HardSigmoid: unary("HardSigmoid"),
  Exp: unary("Exp"),
  Neg: unary("Neg"),
  InstanceNormalization: over((make, x) =>
    make.op("InstanceNormalization", [x, make.weight("s", [4], 1), make.weight("b", [4], 1)]),
  ),
  LayerNormalization: over((make, x) => make.layerNorm(x, 8)),
  Sub: over((make, x) => make.op("Sub", [x, x])),
  Max: over((make, x) => make.op("Max", [x, x])),
  GatherND: over((make, x) => make.op("GatherND", [x, make.ints("i", [1, 0], [1, 2])]), [2, 2]),
  ConvTranspose: over((make, x) => make.op("ConvTranspose", [x, weight(make, [4, 4, 3, 3])])),
};

/** What onnxruntime makes of a node between pairs of one scale and zero point. */
async function fused(opType: OpType): Promise<"computes" | "moves" | undefined> {
  const make = new GraphMaker({ opset: 17 });
  const scale = make.floats("scale", [], [0.05]);
  const zero = make.constant("zero_point", tensorOf("uint8", [], [128]));
  const pair = (value: Value) =>
    make.op("DequantizeLinear", [make.op("QuantizeLinear", [value, scale, zero]), scale, zero]);
  const result = CASES[opType]!(make, pair);
  const outputs = result.producer!.outputs.map(pair);
  for (const [i, output] of outputs.entries()) make.output(output, `y${i}`);
  const operators = await fusedOperators(make.model);
  // What is given out is dequantized; any other DequantizeLinear stands before a node that computes in float.
  if ((operators.DequantizeLinear ?? 0) > outputs.length) return undefined;
  return opType in operators ? "moves" : "computes";
}

describe("operators that onnxruntime runs in 8 bits", () => {
  test("every operator of the table is tried", () => {
    assert.deepEqual(
      Object.keys(INT8).filter((opType) => !(opType in CASES)),
      [],
    );
  });

  for (const opType of Object.keys(CASES) as OpType[]) {
    const runs = INT8[opType]?.runs;
    test(`${opType}: ${runs ?? "in float"}`, async () => {
      assert.equal(await fused(opType), runs);
    });
  }
});
