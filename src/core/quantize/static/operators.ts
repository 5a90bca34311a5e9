/**
 * What static quantization does with each operator: it takes what the target has 8-bit kernels for, except where 8 bits would cost too much
 * accuracy.
 */
import type { NoteReason } from "../../facts.ts";
import type { Node, Value } from "../../onnx/ir.ts";
import { arrayOf, elementCount } from "../../onnx/tensor.ts";
import type { Affine } from "../../operators/operator-record.ts";
import { entryFor, ONNX_OPERATORS, type OpType, operatorOf, parameterOf } from "../../operators/operators.ts";
import { INT8 } from "../../targets/onnxruntime-cpu.ts";
import type { Range } from "../calibration/thresholds.ts";
import type { WeightLayout } from "./channel-weights.ts";

/** Why a node that the table names cannot be quantized all the same. */
export type Refusal = NoteReason;

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
  /** Of nodes with a constant weight. */
  weight?(node: Node): WeightOperand | undefined;
  readonly bias?: number;
  /** Whether the kernel can give out float32. One that cannot runs in float unless its output is quantized. */
  readonly floatOutput?: boolean;
  readonly refuse?: (node: Node) => Refusal | undefined;
}

const first = (): readonly number[] => [0];

function refusal(code: Refusal["code"], message: string): Refusal {
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

/** What the method leaves in float although there is a kernel. */
const POLICY: Readonly<Partial<Record<OpType, (node: Node) => Refusal | undefined>>> = {
  Add: refuseOperands,
  Mul: refuseOperands,
  Concat: refuseConstantInputs,
  Where: ({ inputs }) =>
    inputs[1]?.constant || inputs[2]?.constant
      ? refusal("constant_operand", "One of its operands is a constant.")
      : undefined,
  Gather: ({ inputs }) => (inputs[0]?.constant ? refusal("table", "It reads a constant table.") : undefined),
};

/** Operators whose results are mostly below one step of 8 bits: a transformer of four layers loses 2 dB by them. */
const IN_FLOAT: ReadonlySet<string> = new Set<OpType>(["Softmax"]);

/** Operators without a kernel that are written as others that have one. */
const LOWERED: Readonly<Partial<Record<OpType, OperatorRule>>> = {
  /** Lowered to Add, whose saturation is the clipping: x·α + β in [0, 1] is α · clip(x + β/α, 0, 1/α). */
  HardSigmoid: {
    kind: "pointwise",
    activations: first,
    refuse: (node) =>
      parameterOf(node, "alpha") > 0 ? undefined : refusal("hard_sigmoid_slope", "Its slope is not positive."),
  },
};

const RULES: Readonly<Partial<Record<OpType, OperatorRule>>> = {
  ...LOWERED,
  ...Object.fromEntries(
    (Object.keys(INT8) as OpType[]).flatMap((opType) => (IN_FLOAT.has(opType) ? [] : [[opType, makeRule(opType)]])),
  ),
};

/** The rule for a node's operator; undefined for operators of other domains and those without an 8-bit kernel. */
export function ruleFor(node: Node): OperatorRule | undefined {
  return entryFor(RULES, node);
}

/** The rule for an operator of ai.onnx, by its name. */
export function ruleForOperator(opType: string): OperatorRule | undefined {
  return entryFor(RULES, { domain: "", opType });
}

function makeRule(opType: OpType): OperatorRule {
  const { runs, activations = first, bias, floatOutput, refuse } = INT8[opType]!;
  const policy = POLICY[opType];
  const hasWeight = runs === "computes" && ONNX_OPERATORS[opType].weights !== undefined;
  return {
    kind: runs === "moves" ? "movement" : hasWeight ? "compute" : "pointwise",
    activations,
    ...(hasWeight && { weight: weightOperand }),
    ...(bias !== undefined && { bias }),
    ...(floatOutput && { floatOutput }),
    ...((refuse || policy) && { refuse: (node: Node) => refuse?.(node) ?? policy?.(node) }),
  };
}

/** The constant weight of a layer, and how its axes meet those of the activation. */
function weightOperand(node: Node): WeightOperand | undefined {
  const operand = operatorOf(node)?.weights?.find(({ inputAxis }) => inputAxis !== undefined);
  const dims = operand && node.inputs[operand.input]?.constant?.dims;
  if (!dims || operand.activationAxis === undefined) return undefined;
  return {
    input: operand.input,
    axis: operand.channelAxis(node, dims)!,
    inputAxis: operand.inputAxis!(node, dims),
    groups: node.int("group", 1),
    activationAxis: operand.activationAxis,
  };
}

/** What a node limits its input to; undefined for operators that do not, and for limits that are not constants. */
export function clipBounds(node: Node): Range | undefined {
  const limits = operatorOf(node)?.clamps?.(node);
  if (!limits) return undefined;
  const numberOf = (limit: number | Value) => (typeof limit === "number" ? limit : scalarOf(limit));
  const min = numberOf(limits.low ?? Number.NEGATIVE_INFINITY);
  const max = numberOf(limits.high ?? Number.POSITIVE_INFINITY);
  // A grid contains zero, so only limits around it can be a grid's ends.
  return min === undefined || max === undefined || min > 0 || max < 0 ? undefined : { min, max };
}

/**
 * What a node does that combines a tensor with a single number, if the factor is positive. Multiplying changes the scale of a quantized tensor and adding moves its
 * zero point; the codes stay as they are.
 */
export function affineOf(node: Node): (Affine & { readonly input: Value }) | undefined {
  const [a, b] = node.inputs;
  if (node.inputs.length !== 2 || !a || !b) return undefined;
  const [input, constant] = a.constant ? [b, a] : [a, b];
  const number = scalarOf(constant);
  if (number === undefined || input.constant) return undefined;
  // A constant with more axes than the tensor would change the shape of the result.
  const { dims } = constant.constant!;
  if (dims.length > 1 && dims.length > (input.shape?.length ?? 0)) return undefined;
  const affine = operatorOf(node)?.affine?.(number, constant === b ? 1 : 0);
  return affine && affine.factor > 0 && Number.isFinite(affine.factor) ? { input, ...affine } : undefined;
}
