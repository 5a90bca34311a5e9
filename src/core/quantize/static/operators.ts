/**
 * What onnxruntime's CPU kernels run in 8 bits when Q/DQ pairs stand around them. Operators that are not in the table compute in float.
 * Every line was checked by dumping the graph that onnxruntime 1.30 really runs.
 */
import type { Node, Value } from "../../onnx/ir.ts";
import { arrayOf, elementCount } from "../../onnx/tensor.ts";
import type { Range } from "../calibration/thresholds.ts";
import type { WeightLayout } from "./channel-weights.ts";

/** Why a node that the table names cannot be quantized all the same. */
export interface Refusal {
  readonly code: string;
  readonly message: string;
}

export interface WeightOperand extends WeightLayout {
  readonly input: number;
  /** Where the activation that meets the weight has its channels; negative: from the end. */
  readonly activationAxis: number;
}

/**
 * `compute` is where 8 bits pay: it is quantized whenever it can be. `pointwise` is quantized between quantized neighbours, where it saves the
 * way to float and back. `movement` only moves or selects elements and keeps scale and zero point.
 */
export interface OperatorRule {
  readonly kind: "compute" | "pointwise" | "movement";
  /** Inputs that carry activations. */
  activations(node: Node): readonly number[];
  readonly weight?: (node: Node) => WeightOperand | undefined;
  readonly bias?: number;
  /** Whether the kernel can give out float32. One that cannot runs in float unless its output is quantized. */
  readonly floatOutput?: boolean;
  readonly refuse?: (node: Node) => Refusal | undefined;
}

const first = (): readonly number[] => [0];
const all = (node: Node): readonly number[] => [...node.inputs.keys()];

function refusal(code: string, message: string): Refusal {
  return { code, message };
}

/** A float32 constant, which is what weights must be. */
export function isFloatConstant(value: Value | undefined): boolean {
  return value?.constant?.dtype === "float32";
}

/** The one number of a constant that holds a single float32; undefined for everything else. */
export function scalarOf(value: Value | undefined): number | undefined {
  const tensor = value?.constant;
  if (tensor?.dtype !== "float32" || elementCount(tensor.dims) !== 1) return undefined;
  return arrayOf(tensor, "float32")[0];
}

function refuseWeight(node: Node, rank: number | undefined): Refusal | undefined {
  const weight = node.inputs[1];
  if (!weight?.constant) return refusal("weight_not_constant", "Its weight is computed while the model runs.");
  if (weight.constant.dtype !== "float32") {
    return refusal("weight_not_float32", `Its weight is ${weight.constant.dtype}.`);
  }
  if (rank !== undefined && weight.constant.dims.length !== rank) {
    return refusal(
      "weight_rank",
      `Its weight has ${weight.constant.dims.length} dimensions; the kernel takes ${rank}.`,
    );
  }
  return elementCount(weight.constant.dims) === 0 ? refusal("empty_weight", "Its weight is empty.") : undefined;
}

function refuseBias(node: Node): Refusal | undefined {
  const bias = node.inputs[2];
  return bias && !isFloatConstant(bias)
    ? refusal("bias_not_constant", "Its bias is not a float32 constant.")
    : undefined;
}

/** Operands of Add and Mul that are constants must be single numbers: those are exact in 8 bits, a vector of different magnitudes is not. */
function refuseOperands(node: Node): Refusal | undefined {
  const constants = node.inputs.filter((input) => input?.constant);
  if (constants.length === node.inputs.length) return refusal("constant", "It computes a constant.");
  return constants.every((input) => scalarOf(input) !== undefined)
    ? undefined
    : refusal("constant_operand", "Its constant operand has several values, which 8 bits would round too coarsely.");
}

function refuseConstantInputs(node: Node): Refusal | undefined {
  return node.inputs.some((input) => input?.constant)
    ? refusal("constant_operand", "One of its operands is a constant.")
    : undefined;
}

const movement: OperatorRule = { kind: "movement", activations: first };

export const OPERATORS: Readonly<Record<string, OperatorRule>> = {
  Conv: {
    kind: "compute",
    activations: first,
    weight: (node) => ({ input: 1, axis: 0, inputAxis: 1, groups: node.int("group", 1), activationAxis: 1 }),
    bias: 2,
    refuse: (node) => refuseWeight(node, undefined) ?? refuseBias(node),
  },
  Gemm: {
    kind: "compute",
    activations: first,
    weight: (node) => {
      const axis = node.int("transB", 0) ? 0 : 1;
      return { input: 1, axis, inputAxis: 1 - axis, groups: 1, activationAxis: -1 };
    },
    bias: 2,
    floatOutput: true,
    refuse: (node) => {
      if (node.int("transA", 0)) return refusal("gemm_form", "Its first operand is transposed.");
      if (node.float("alpha", 1) !== 1 || (node.inputs[2] && node.float("beta", 1) !== 1)) {
        return refusal("gemm_form", "It scales its product or its bias.");
      }
      const refused = refuseWeight(node, 2) ?? refuseBias(node);
      if (refused || !node.inputs[2]) return refused;
      const columns = node.inputs[1]!.constant!.dims[node.int("transB", 0) ? 0 : 1];
      return elementCount(node.inputs[2].constant!.dims) === columns
        ? undefined
        : refusal("gemm_form", "Its bias is not one number for each column.");
    },
  },
  MatMul: {
    kind: "compute",
    activations: (node) => (node.inputs[1]?.constant ? [0] : [0, 1]),
    weight: (node) =>
      node.inputs[1]?.constant ? { input: 1, axis: 1, inputAxis: 0, groups: 1, activationAxis: -1 } : undefined,
    floatOutput: true,
    refuse: (node) => {
      if (node.inputs[0]?.constant) return refusal("constant_operand", "Its first operand is a constant.");
      return node.inputs[1]?.constant ? refuseWeight(node, 2) : undefined;
    },
  },
  Add: { kind: "pointwise", activations: all, refuse: refuseOperands },
  Mul: { kind: "pointwise", activations: all, refuse: refuseOperands },
  Concat: { kind: "pointwise", activations: all, refuse: refuseConstantInputs },
  Where: {
    kind: "pointwise",
    activations: () => [1, 2],
    refuse: (node) =>
      node.inputs[1]?.constant || node.inputs[2]?.constant
        ? refusal("constant_operand", "One of its operands is a constant.")
        : undefined,
  },
  Sigmoid: { kind: "pointwise", activations: first },
  /** Lowered to Add, whose saturation is the clipping: x·α + β in [0, 1] is α · clip(x + β/α, 0, 1/α). */
  HardSigmoid: {
    kind: "pointwise",
    activations: first,
    refuse: (node) =>
      node.float("alpha", 0.2) > 0 ? undefined : refusal("hard_sigmoid_slope", "Its slope is not positive."),
  },
  LeakyRelu: { kind: "pointwise", activations: first },
  AveragePool: { kind: "pointwise", activations: first },
  GlobalAveragePool: { kind: "pointwise", activations: first },
  MaxPool: {
    kind: "movement",
    activations: first,
    refuse: (node) => (node.outputs.length > 1 ? refusal("indices", "It also gives out indices.") : undefined),
  },
  Reshape: movement,
  Transpose: movement,
  Flatten: movement,
  Squeeze: movement,
  Unsqueeze: movement,
  Slice: movement,
  Split: movement,
  Expand: movement,
  Tile: movement,
  Gather: {
    kind: "movement",
    activations: first,
    refuse: (node) => (node.inputs[0]?.constant ? refusal("table", "It reads a constant table.") : undefined),
  },
  GatherElements: movement,
  DepthToSpace: movement,
  Resize: {
    kind: "movement",
    activations: first,
    refuse: (node) =>
      node.string("mode", "nearest") === "nearest"
        ? undefined
        : refusal("interpolation", "There is no 8-bit kernel that interpolates."),
  },
};

/** The operator's line in the table; undefined for operators of other domains and those without an 8-bit kernel. */
export function ruleFor(node: Node): OperatorRule | undefined {
  return node.domain === "" ? OPERATORS[node.opType] : undefined;
}

/**
 * Operators whose output is a share of a whole: most of it is small and the few large values are what matters, so its range is never cut.
 */
export const UNCUT: ReadonlySet<string> = new Set(["Softmax", "Sigmoid", "HardSigmoid"]);

/** What Relu and Clip limit their input to; undefined for other operators and for limits that are not constants. */
export function clipBounds(node: Node): Range | undefined {
  if (node.domain !== "") return undefined;
  if (node.opType === "Relu") return { min: 0, max: Number.POSITIVE_INFINITY };
  if (node.opType !== "Clip") return undefined;
  const [, low, high] = node.inputs;
  const min = low ? scalarOf(low) : Number.NEGATIVE_INFINITY;
  const max = high ? scalarOf(high) : Number.POSITIVE_INFINITY;
  // A grid contains zero, so only limits around it can be a grid's ends.
  return min === undefined || max === undefined || min > 0 || max < 0 ? undefined : { min, max };
}

/** y = factor · x + shift, the factor positive. */
export interface Affine {
  readonly factor: number;
  readonly shift: number;
}

/**
 * What a node does that combines a tensor with a single number. Multiplying changes the scale of a quantized tensor and adding moves its
 * zero point; the codes stay as they are.
 */
export function affineOf(node: Node): (Affine & { readonly input: Value }) | undefined {
  const [a, b] = node.inputs;
  if (node.domain !== "" || node.inputs.length !== 2 || !a || !b) return undefined;
  const [input, constant] = a.constant ? [b, a] : [a, b];
  const number = scalarOf(constant);
  if (number === undefined || input.constant) return undefined;
  // A constant with more axes than the tensor would change the shape of the result.
  const { dims } = constant.constant!;
  if (dims.length > 1 && dims.length > (input.shape?.length ?? 0)) return undefined;
  const affine = AFFINE[node.opType]?.(number, constant === b);
  return affine && affine.factor > 0 && Number.isFinite(affine.factor) ? { input, ...affine } : undefined;
}

const AFFINE: Readonly<Record<string, (number: number, isSecond: boolean) => Affine | undefined>> = {
  Mul: (factor) => ({ factor, shift: 0 }),
  Div: (divisor, isSecond) => (isSecond ? { factor: 1 / divisor, shift: 0 } : undefined),
  Add: (shift) => ({ factor: 1, shift }),
  Sub: (shift, isSecond) => (isSecond ? { factor: 1, shift: -shift } : undefined),
};
