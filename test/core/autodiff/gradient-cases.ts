/**
 * What the gradient test runs each operator on. Every rule and every expansion needs at least one case; shapes are small, since every
 * element of every input is moved on its own.
 */

import { float, int, ints, string } from "../../../src/core/onnx/graph-builder.ts";
import type { Attr } from "../../../src/core/onnx/ir.ts";

/** `spread` values keep their distance from each other and from whole numbers: safe for sorting, rounding and kinks. */
type Kind = "normal" | "small" | "positive" | "spread";

export interface Input {
  readonly dims: readonly number[];
  readonly kind?: Kind;
  /** Fixed numbers; such an input is a constant of the model and has no gradient. */
  readonly values?: readonly number[];
  readonly dtype?: "int64" | "bool" | "float32";
  readonly wanted?: false;
}

export interface GradientCase {
  readonly op: string;
  readonly of?: string;
  readonly inputs: readonly (Input | undefined)[];
  readonly attrs?: Readonly<Record<string, Attr>>;
  readonly outputs?: number;
  /** float64 unless onnxruntime has no such kernel. */
  readonly float32?: true;
  /** Step of the central difference; larger where the operator is linear. */
  readonly step?: number;
}

const x = (...dims: number[]): Input => ({ dims });
const small = (dims: readonly number[]): Input => ({ dims, kind: "small" });
const spread = (...dims: number[]): Input => ({ dims, kind: "spread" });
const positive = (...dims: number[]): Input => ({ dims, kind: "positive" });
const whole = (values: readonly number[], dims: readonly number[] = [values.length]): Input => ({
  dims,
  values,
  dtype: "int64",
});
const truth = (values: readonly number[], dims: readonly number[]): Input => ({ dims, values, dtype: "bool" });
const frozen = (input: Input): Input => ({ ...input, wanted: false });

const unary = (op: string, input: Input = x(2, 3, 4), more: Partial<GradientCase> = {}): GradientCase => ({
  op,
  inputs: [input],
  ...more,
});

/** Shapes of a binary operator: equal, by a row, by a column, by a scalar, each against the other, and both stretched. */
const BROADCASTS: readonly (readonly [readonly number[], readonly number[]])[] = [
  [
    [2, 3],
    [2, 3],
  ],
  [[2, 3, 4], [4]],
  [
    [3, 1],
    [2, 3, 4],
  ],
  [[2, 3], []],
  [
    [1, 3, 1],
    [2, 1, 4],
  ],
  [[1], [2, 2]],
];
const binary = (op: string, kind: Kind = "normal", more: Partial<GradientCase> = {}): GradientCase[] =>
  BROADCASTS.map(([a, b]) => ({
    op,
    inputs: [
      { dims: a, kind },
      { dims: b, kind },
    ],
    ...more,
  }));

const reductions = (op: string, input: (...dims: number[]) => Input = x): GradientCase[] => [
  { op, inputs: [input(2, 3, 4), whole([1])] },
  { op, inputs: [input(2, 3, 4), whole([0, -1])], attrs: { keepdims: int(0) } },
  { op, inputs: [input(2, 3)], attrs: { keepdims: int(0) } },
];

/** Linear in each input: a large step loses nothing to rounding. */
const LINEAR = { float32: true, step: 0.5 } as const;

const conv = (
  of: string,
  xDims: readonly number[],
  wDims: readonly number[],
  attrs: Readonly<Record<string, Attr>> = {},
): GradientCase => ({ op: "Conv", of, inputs: [x(...xDims), x(...wDims), x(wDims[0]!)], attrs, ...LINEAR });

const convTranspose = (
  of: string,
  xDims: readonly number[],
  wDims: readonly number[],
  attrs: Readonly<Record<string, Attr>> = {},
): GradientCase => {
  const group = attrs.group?.type === "int" ? attrs.group.value : 1;
  return { op: "ConvTranspose", of, inputs: [x(...xDims), x(...wDims), x(wDims[1]! * group)], attrs, ...LINEAR };
};

const pool = (op: string, dims: readonly number[], attrs: Readonly<Record<string, Attr>>): GradientCase => ({
  op,
  inputs: [spread(...dims)],
  attrs,
  float32: true,
  step: op === "MaxPool" ? 0.02 : 0.5,
});

/**
 * Values are small: where steps of time saturate one after the other, the slope changes within a step of the difference, which is then off by
 * up to half a percent.
 */
const recurrent = (
  op: string,
  gates: number,
  attrs: Readonly<Record<string, Attr>>,
  more: readonly (Input | undefined)[] = [],
) => {
  const directions = attrs.direction?.type === "string" && attrs.direction.value === "bidirectional" ? 2 : 1;
  const first = attrs.layout ? [2, 3, 2] : [3, 2, 2];
  return {
    op,
    inputs: [
      ...[first, [directions, gates * 2, 2], [directions, gates * 2, 2], [directions, 2 * gates * 2]].map(small),
      undefined,
      ...more,
    ],
    attrs: { hidden_size: int(2), ...attrs },
    outputs: op === "LSTM" ? 3 : 2,
    float32: true,
    step: 1e-2,
  } as const;
};

export const GRADIENT_CASES: readonly GradientCase[] = [
  ...["Identity", "Neg", "Exp", "Sin", "Cos", "Sigmoid", "Tanh"].map((op) => unary(op)),
  ...["Abs", "Relu"].map((op) => unary(op, spread(3, 5))),
  unary("Relu", spread(3, 5), { float32: true }),
  ...["LeakyRelu", "Elu", "Selu", "HardSigmoid", "Softsign"].map((op) =>
    unary(op, spread(3, 5), { float32: true, step: 0.01 }),
  ),
  unary("LeakyRelu", spread(3, 5), { attrs: { alpha: float(0.3) }, float32: true, step: 0.02 }),
  unary("Elu", spread(3, 5), { attrs: { alpha: float(0.5) }, float32: true, step: 1e-2 }),
  unary("HardSwish", spread(3, 17), { float32: true, step: 0.02 }),
  ...["Log", "Sqrt", "Reciprocal"].map((op) => unary(op, positive(2, 3))),
  ...["Erf", "Softplus", "Mish"].map((op) => unary(op, x(3, 4), { float32: true, step: 1e-2 })),
  unary("Gelu", x(3, 4), { float32: true, step: 1e-2 }),
  unary("Gelu", x(3, 4), { float32: true, step: 1e-2, attrs: { approximate: string("tanh") } }),
  unary("Cast", x(3, 4), { attrs: { to: int(1) }, step: 0.1, float32: true }),
  unary("Dropout", x(3, 4)),
  { op: "Clip", inputs: [spread(4, 5), { dims: [], values: [-0.7] }, { dims: [], values: [0.9] }] },
  { op: "Clip", inputs: [spread(4, 5), undefined, { dims: [], values: [0.9] }] },
  { op: "CumSum", inputs: [x(3, 4), whole([1], [])] },
  { op: "CumSum", inputs: [x(3, 4), whole([-2], [])], attrs: { reverse: int(1) } },
  ...["Add", "Sub", "Mul"].flatMap((op) => binary(op)),
  ...["Div", "Pow"].flatMap((op) => binary(op, "positive")),
  { op: "Pow", inputs: [x(3, 4), { dims: [], values: [2] }] },
  { op: "Pow", inputs: [x(3, 4), { dims: [], values: [3] }] },
  { op: "Pow", inputs: [positive(3, 4), { dims: [], values: [-0.5] }] },
  { op: "PRelu", inputs: [spread(2, 3, 4), x(3, 1)], float32: true, step: 0.02 },
  { op: "PRelu", inputs: [spread(2, 3, 2, 2), x(3, 1, 1)], float32: true, step: 0.02 },
  ...["Max", "Min"].flatMap((op) => binary(op, "spread")),
  { op: "Max", inputs: [spread(2, 3), spread(3), spread(2, 1)] },
  { op: "Sum", inputs: [x(2, 3), x(3), x(2, 1)] },
  { op: "Mean", inputs: [x(2, 3), x(3), x(2, 1)], float32: true, step: 0.5 },
  { op: "Where", inputs: [truth([1, 0, 1, 0, 0, 1], [2, 3]), x(2, 3), x(2, 3)] },
  { op: "Where", inputs: [truth([1, 0], [2, 1]), x(3), x(2, 1)] },
  { op: "Where", inputs: [truth([1, 0, 0], [3, 1]), x(1), x(2, 1, 2)] },

  ...["ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL2", "ReduceLogSumExp"].flatMap((op) => reductions(op)),
  ...["ReduceMax", "ReduceMin"].flatMap((op) => reductions(op, spread)),
  ...reductions("ReduceL1", spread).map((entry) => ({ ...entry, float32: true as const, step: 0.02 })),
  ...reductions("ReduceProd", positive).map((entry) => ({ ...entry, float32: true as const, step: 1e-2 })),
  { op: "ReduceSum", inputs: [x(2, 3)], attrs: { noop_with_empty_axes: int(1) } },
  ...["Softmax", "LogSoftmax"].flatMap((op) => [
    unary(op, x(3, 4)),
    unary(op, x(2, 3, 4), { attrs: { axis: int(1) } }),
    unary(op, x(2, 3, 2), { attrs: { axis: int(0) } }),
  ]),

  ...[
    [
      [3, 4],
      [4, 2],
    ],
    [
      [2, 3, 4],
      [4, 2],
    ],
    [
      [2, 3, 4],
      [2, 4, 2],
    ],
    // Large on the left, where the gradient of the other one is a product of turned matrices.
    [
      [2, 5, 6],
      [2, 6, 2],
    ],
    [
      [5, 6],
      [2, 6, 2],
    ],
    [
      [2, 1, 5, 6],
      [3, 6, 2],
    ],
    [
      [2, 1, 3, 2],
      [3, 2, 2],
    ],
    [
      [3, 2],
      [2, 2, 4],
    ],
    [[4], [4, 2]],
    [[3, 4], [4]],
    [[4], [4]],
    [[4], [2, 4, 3]],
    [[2, 3, 4], [4]],
  ].map(([a, b]) => ({ op: "MatMul", inputs: [x(...a!), x(...b!)] })),
  ...[
    [0, 0],
    [0, 1],
    [1, 0],
    [1, 1],
  ].flatMap(([transA, transB]) =>
    [[3, 2], [2], [3, 1], []].map((c) => ({
      op: "Gemm",
      inputs: [transA ? x(4, 3) : x(3, 4), transB ? x(2, 4) : x(4, 2), x(...c)],
      attrs: { transA: int(transA!), transB: int(transB!), alpha: float(0.5), beta: float(2) },
    })),
  ),
  // As linear layers are: the weights' gradient transposes the narrower of its operands.
  ...[0, 1].flatMap((transB) =>
    [2, 6].map((n) => ({
      op: "Gemm",
      inputs: [x(3, 4), transB ? x(n, 4) : x(4, n), x(n)],
      attrs: { transB: int(transB) },
    })),
  ),
  ...[
    ["ij,jk->ik", [2, 3], [3, 4]],
    ["bhid,bhjd->bhij", [2, 2, 3, 2], [2, 2, 2, 2]],
    ["i,ij->j", [3], [3, 2]],
    ["ij,kl->il", [2, 3], [2, 2]],
    ["...ij,...jk->...ik", [2, 2, 3], [2, 3, 2]],
    ["...ij,jk->...ik", [2, 2, 3], [3, 2]],
    ["ab,b", [2, 3], [3]],
  ].map(([equation, a, b]) => ({
    op: "Einsum",
    of: equation as string,
    inputs: [x(...(a as number[])), x(...(b as number[]))],
    attrs: { equation: string(equation as string) },
  })),
  { op: "Einsum", of: "ij->ji", inputs: [x(2, 3)], attrs: { equation: string("ij->ji") } },
  { op: "Einsum", of: "ij->i", inputs: [x(2, 3)], attrs: { equation: string("ij->i") } },
  { op: "Trilu", inputs: [x(2, 3, 3)], attrs: { upper: int(0) } },
  { op: "Trilu", inputs: [x(3, 4), whole([1], [])] },

  conv("3x3", [2, 3, 5, 4], [4, 3, 3, 3], { pads: ints([1, 1, 1, 1]) }),
  conv("3x3 without pads", [2, 2, 5, 5], [3, 2, 3, 3]),
  {
    op: "Conv",
    of: "large enough for a product for each tap",
    inputs: [frozen(x(2, 8, 40, 20)), x(1, 8, 2, 1)],
    attrs: { strides: ints([2, 1]) },
    ...LINEAR,
  },
  conv("several channels and samples on a small map", [3, 8, 4, 3], [2, 8, 3, 2], { pads: ints([1, 0, 1, 1]) }),
  conv("the same with stride and dilation", [2, 9, 7, 6], [2, 9, 2, 2], {
    strides: ints([2, 1]),
    dilations: ints([2, 3]),
    pads: ints([0, 1, 1, 2]),
  }),
  conv("1-D, several channels", [2, 8, 5], [3, 8, 3], { pads: ints([1, 1]) }),
  conv("1x1, several channels", [2, 8, 2, 3], [3, 8, 1, 1]),
  conv("1x1", [2, 3, 3, 4], [4, 3, 1, 1]),
  conv("1x1 with stride", [2, 3, 5, 4], [2, 3, 1, 1], { strides: ints([2, 2]) }),
  conv("stride that leaves inputs over", [2, 2, 6, 7], [2, 2, 3, 3], {
    strides: ints([2, 3]),
    pads: ints([1, 0, 0, 1]),
  }),
  conv("dilation", [1, 2, 7, 6], [2, 2, 3, 2], { dilations: ints([2, 3]), pads: ints([2, 1, 2, 1]) }),
  conv("stride and dilation", [1, 2, 9, 8], [2, 2, 3, 2], {
    dilations: ints([2, 1]),
    strides: ints([2, 2]),
    pads: ints([1, 0, 1, 0]),
  }),
  conv("pads beyond the kernel", [1, 2, 3, 3], [2, 2, 2, 1], { pads: ints([2, 1, 2, 1]) }),
  conv("asymmetric pads", [1, 2, 4, 4], [2, 2, 3, 3], { pads: ints([2, 0, 1, 1]) }),
  conv("same upper", [1, 2, 5, 4], [2, 2, 3, 2], { auto_pad: string("SAME_UPPER"), strides: ints([2, 2]) }),
  conv("same lower", [1, 2, 5, 4], [2, 2, 2, 2], { auto_pad: string("SAME_LOWER") }),
  conv("valid", [1, 2, 5, 4], [2, 2, 2, 2], { auto_pad: string("VALID") }),
  conv("groups", [2, 4, 4, 4], [6, 2, 3, 3], { group: int(2), pads: ints([1, 1, 1, 1]) }),
  conv("wide groups", [2, 10, 3, 3], [10, 5, 2, 2], { group: int(2) }),
  conv("groups with stride", [2, 4, 5, 5], [6, 2, 3, 3], {
    group: int(2),
    strides: ints([2, 2]),
    pads: ints([1, 1, 1, 1]),
  }),
  conv("depthwise", [2, 3, 5, 5], [3, 1, 3, 3], { group: int(3), pads: ints([1, 1, 1, 1]) }),
  conv("depthwise with stride", [2, 3, 6, 5], [3, 1, 3, 3], {
    group: int(3),
    strides: ints([2, 2]),
    pads: ints([1, 1, 1, 1]),
  }),
  conv("depthwise, two for each channel", [2, 3, 5, 5], [6, 1, 3, 3], { group: int(3) }),
  conv("1-D", [2, 3, 7], [4, 3, 3], { pads: ints([1, 1]) }),
  conv("1-D with stride and dilation", [2, 2, 9], [3, 2, 3], {
    strides: ints([2]),
    dilations: ints([2]),
    pads: ints([1, 0]),
  }),
  conv("1-D depthwise", [2, 3, 6], [3, 1, 3], { group: int(3), pads: ints([2, 0]) }),
  convTranspose("plain", [2, 3, 3, 3], [3, 2, 2, 2]),
  convTranspose("stride", [2, 2, 3, 2], [2, 3, 3, 3], { strides: ints([2, 2]), pads: ints([1, 1, 1, 1]) }),
  convTranspose("output padding", [1, 2, 3, 3], [2, 2, 3, 3], {
    strides: ints([2, 2]),
    pads: ints([1, 1, 1, 1]),
    output_padding: ints([1, 1]),
  }),
  convTranspose("groups", [2, 4, 3, 3], [4, 2, 2, 2], { group: int(2), strides: ints([2, 2]) }),
  convTranspose("dilation", [1, 2, 3, 3], [2, 2, 2, 2], { dilations: ints([2, 2]) }),
  convTranspose("output shape", [1, 2, 3, 3], [2, 2, 3, 3], { strides: ints([2, 2]), output_shape: ints([6, 6]) }),
  convTranspose("1-D", [2, 2, 4], [2, 3, 3], { strides: ints([2]) }),

  pool("MaxPool", [2, 2, 4, 4], { kernel_shape: ints([2, 2]), strides: ints([2, 2]) }),
  pool("MaxPool", [2, 2, 6], { kernel_shape: ints([3]), strides: ints([3]) }),
  pool("MaxPool", [2, 2, 5, 5], { kernel_shape: ints([3, 3]), strides: ints([2, 2]), pads: ints([1, 1, 1, 1]) }),
  pool("MaxPool", [1, 2, 5, 5], { kernel_shape: ints([2, 2]), strides: ints([2, 2]), ceil_mode: int(1) }),
  pool("MaxPool", [2, 2, 6], { kernel_shape: ints([3]), strides: ints([1]) }),
  pool("AveragePool", [2, 2, 4, 4], { kernel_shape: ints([2, 2]), strides: ints([2, 2]) }),
  pool("AveragePool", [2, 2, 5, 5], { kernel_shape: ints([3, 3]), strides: ints([2, 2]), pads: ints([1, 1, 1, 1]) }),
  pool("AveragePool", [2, 3, 5, 5], {
    kernel_shape: ints([3, 3]),
    pads: ints([1, 1, 1, 1]),
    count_include_pad: int(1),
  }),
  pool("AveragePool", [1, 2, 5, 5], { kernel_shape: ints([2, 2]), strides: ints([2, 2]), ceil_mode: int(1) }),
  pool("AveragePool", [2, 2, 6], { kernel_shape: ints([3]), strides: ints([2]) }),
  unary("GlobalAveragePool", x(2, 3, 3, 2), { float32: true, step: 0.5 }),
  unary("GlobalMaxPool", spread(2, 3, 3, 2), { float32: true, step: 0.02 }),

  {
    op: "BatchNormalization",
    of: "given statistics",
    inputs: [x(2, 3, 2, 2), x(3), x(3), frozen(x(3)), frozen(positive(3))],
  },
  {
    op: "BatchNormalization",
    of: "given statistics, rows",
    inputs: [x(4, 3), x(3), x(3), frozen(x(3)), frozen(positive(3))],
  },
  {
    op: "BatchNormalization",
    of: "statistics of the batch",
    inputs: [x(3, 2, 2, 2), x(2), x(2), frozen(x(2)), frozen(positive(2))],
    attrs: { training_mode: int(1), momentum: float(0) },
    outputs: 3,
  },
  {
    op: "BatchNormalization",
    of: "statistics of the batch, rows",
    inputs: [x(5, 3), x(3), x(3), frozen(x(3)), frozen(positive(3))],
    attrs: { training_mode: int(1), momentum: float(0), epsilon: float(0.1) },
    outputs: 3,
  },
  { op: "LayerNormalization", inputs: [x(3, 4), x(4), x(4)], float32: true, step: 4e-3 },
  { op: "LayerNormalization", inputs: [x(2, 3, 4), x(4), undefined], attrs: { epsilon: float(0.1) }, float32: true },
  { op: "LayerNormalization", inputs: [x(2, 3, 4), x(3, 4), x(3, 4)], attrs: { axis: int(1) }, float32: true },
  { op: "InstanceNormalization", inputs: [x(2, 2, 3, 2), x(2), x(2)], float32: true, step: 1e-2 },
  { op: "InstanceNormalization", inputs: [x(2, 2, 5), x(2), x(2)], float32: true, step: 4e-3 },
  {
    op: "GroupNormalization",
    inputs: [x(2, 4, 2, 2), x(4), x(4)],
    attrs: { num_groups: int(2) },
    float32: true,
    step: 1e-2,
  },
  {
    op: "InstanceNormalization",
    inputs: [x(2, 3, 4), x(3), x(3)],
    attrs: { epsilon: float(0.5) },
    float32: true,
    step: 1e-2,
  },
  { op: "RMSNormalization", inputs: [x(2, 3, 4), x(4)], attrs: { axis: int(-1) }, float32: true, step: 1e-2 },
  { op: "RMSNormalization", inputs: [x(2, 3, 4), x(3, 4)], attrs: { axis: int(1) }, float32: true, step: 1e-2 },
  { op: "RMSNormalization", inputs: [x(2, 3, 4), x(4)], attrs: { epsilon: float(0.5) }, float32: true, step: 1e-2 },

  { op: "Reshape", inputs: [x(2, 6), whole([3, -1])] },
  { op: "Flatten", inputs: [x(2, 3, 2)], attrs: { axis: int(2) } },
  { op: "Squeeze", inputs: [x(1, 3, 1), whole([0])] },
  { op: "Unsqueeze", inputs: [x(3, 2), whole([0, 2])] },
  { op: "Transpose", inputs: [x(2, 3, 4)], attrs: { perm: ints([1, 2, 0]) } },
  { op: "Transpose", inputs: [x(2, 3)] },
  { op: "Concat", inputs: [x(2, 3), x(2, 1), x(2, 2)], attrs: { axis: int(-1) } },
  { op: "Concat", inputs: [x(2, 3), frozen(x(1, 3)), x(2, 3)], attrs: { axis: int(0) } },
  { op: "Split", inputs: [x(2, 6), whole([1, 2, 3])], attrs: { axis: int(1) }, outputs: 3 },
  { op: "Split", inputs: [x(4, 2)], attrs: { num_outputs: int(2) }, outputs: 2 },
  { op: "Slice", inputs: [x(4, 5), whole([1, -4]), whole([3, 2 ** 31 - 1]), whole([0, 1])] },
  { op: "Slice", inputs: [x(5, 7), whole([0, 1]), whole([5, 7]), whole([0, 1]), whole([2, 3])] },
  { op: "Slice", inputs: [x(5, 7), whole([-1, 5]), whole([-6, 0]), whole([0, 1]), whole([-1, -2])] },
  { op: "Gather", inputs: [x(5, 3), whole([0, 2, 2, 4, -1])] },
  { op: "Gather", inputs: [x(2, 4, 3), whole([1, 0, 1, 3], [2, 2])], attrs: { axis: int(1) } },
  { op: "Gather", inputs: [x(2, 4, 3), whole([-2], [])], attrs: { axis: int(1) } },
  { op: "Gather", inputs: [x(3, 2), whole([1])] },
  { op: "GatherElements", inputs: [x(3, 4), whole([0, 1, 1, 3, 2, 2], [3, 2])], attrs: { axis: int(1) } },
  { op: "GatherND", inputs: [x(3, 4), whole([0, 1, 2, 3, 0, 1], [3, 2])] },
  { op: "TopK", inputs: [spread(3, 5), whole([2])], outputs: 2 },
  { op: "Expand", inputs: [x(3, 1), whole([2, 3, 4])] },
  { op: "Tile", inputs: [x(2, 3), whole([2, 3])] },
  { op: "Tile", inputs: [x(2, 3), whole([1, 2])] },
  { op: "DepthToSpace", inputs: [x(1, 8, 2, 3)], attrs: { blocksize: int(2) } },
  { op: "DepthToSpace", inputs: [x(1, 8, 2, 3)], attrs: { blocksize: int(2), mode: string("CRD") } },
  { op: "SpaceToDepth", inputs: [x(1, 2, 4, 6)], attrs: { blocksize: int(2) } },
  { op: "Pad", inputs: [x(2, 3), whole([1, 0, 2, 1])] },
  { op: "Pad", inputs: [x(2, 4), whole([1, -1]), undefined, whole([1])] },
  { op: "Pad", inputs: [x(2, 4), whole([0, 2, 0, 1])], attrs: { mode: string("reflect") } },
  { op: "Pad", inputs: [x(3, 4), whole([1, 2, 0, 1])], attrs: { mode: string("edge") } },
  ...[
    { mode: string("nearest"), coordinate_transformation_mode: string("asymmetric"), nearest_mode: string("floor") },
    { mode: string("nearest") },
    { mode: string("linear") },
    { mode: string("linear"), coordinate_transformation_mode: string("align_corners") },
    { mode: string("cubic"), coordinate_transformation_mode: string("asymmetric") },
  ].flatMap((attrs) => [
    {
      op: "Resize",
      of: "twice",
      inputs: [x(1, 2, 3, 4), undefined, { dims: [4], values: [1, 1, 2, 2], dtype: "float32" as const }],
      attrs,
      ...LINEAR,
    },
    {
      op: "Resize",
      of: "to a size",
      inputs: [x(1, 2, 3, 4), undefined, undefined, whole([1, 2, 5, 3])],
      attrs,
      ...LINEAR,
    },
  ]),

  recurrent("LSTM", 4, {}),
  recurrent("LSTM", 4, { direction: string("bidirectional") }, [x(2, 2, 2), x(2, 2, 2), x(2, 6)]),
  recurrent("LSTM", 4, { direction: string("reverse") }, [x(1, 2, 2), x(1, 2, 2)]),
  recurrent("GRU", 3, {}),
  recurrent("GRU", 3, { linear_before_reset: int(1), direction: string("bidirectional") }, [x(2, 2, 2)]),
  recurrent("RNN", 1, { direction: string("reverse") }, [x(1, 2, 2)]),

  {
    op: "Conv",
    of: "rows gathered for each sample",
    inputs: [frozen(x(2, 8, 15, 16)), x(2, 8, 3, 3)],
    attrs: { pads: ints([1, 1, 1, 1]) },
    ...LINEAR,
  },
  {
    op: "Conv",
    of: "rows gathered for all samples, dilations, pads of four widths",
    inputs: [frozen(x(3, 8, 13, 10)), x(3, 8, 2, 3)],
    attrs: { dilations: ints([3, 2]), pads: ints([1, 0, 2, 3]) },
    ...LINEAR,
  },
  {
    op: "Conv",
    of: "rows gathered for a single column",
    inputs: [frozen(x(2, 8, 12, 10)), x(2, 8, 3, 1)],
    attrs: { pads: ints([1, 0, 1, 0]) },
    ...LINEAR,
  },
  {
    op: "BatchNormalization",
    of: "statistics of the batch, in float32",
    inputs: [x(3, 2, 3, 2), x(2), x(2), frozen(x(2)), frozen(positive(2))],
    attrs: { training_mode: int(1), momentum: float(0) },
    outputs: 3,
    float32: true,
  },
  {
    op: "BatchNormalization",
    of: "statistics of the batch, a large map",
    inputs: [x(1, 2, 16, 17), x(2), x(2), frozen(x(2)), frozen(positive(2))],
    attrs: { training_mode: int(1), momentum: float(0) },
    outputs: 3,
  },
];
