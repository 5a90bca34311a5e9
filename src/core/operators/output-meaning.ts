/** What the numbers of a model's outputs are, as far as the operators that make them tell. */
import { isNamedLikeScores } from "../onnx/class-axis.ts";
import type { Node, Value } from "../onnx/ir.ts";
import { entryFor, operatorOf } from "./operators.ts";

export interface OutputMeaning {
  /** `class_scores`: of classes to choose from. `shares`: each a number from 0 to 1 by itself, as a Sigmoid makes them. `numbers`: any others. */
  readonly kind: "class_scores" | "shares" | "numbers";
  /** Where classes lie, if that is what they are; null: along the last axis that is not of one. */
  readonly class_axis: number | null;
  /** Whether the operators say so; otherwise it is taken to be so by shape and name. */
  readonly evident: boolean;
}

type Dims = readonly (number | string | null)[];

/**
 * What an output is; `shape` is what is known of its sizes where that is more than the graph declares. Evident: what a Softmax or a Sigmoid
 * makes, also through operators that only store or move numbers; shares that a constant has shifted or scaled are numbers. Taken for scores of
 * classes: what is named like them, a matrix (or what has no declared rank) that is all the model gives and no embedding, and what a linear layer
 * makes for each position of a sequence.
 */
export function meaningOf(
  output: Value,
  isOnlyOutput: boolean,
  shape: Dims | null | undefined = output.shape,
): OutputMeaning {
  const { node, axisInOutput, isShifted } = originOf(output);
  const record = node && operatorOf(node);
  const rank = shape?.length;
  const classAxis = (axis: number) => {
    const own = axisInOutput(axis, rank);
    return own !== null && shape?.slice(own + 1).every((dim) => dim === 1) ? null : own;
  };
  const axis = node && softmaxAxis(node, rank);
  if (axis !== undefined) return { kind: "class_scores", class_axis: classAxis(axis), evident: true };
  if (record?.shares) return { kind: isShifted ? "numbers" : "shares", class_axis: null, evident: true };
  const sizes = shape?.filter((dim, axis) => axis === 0 || dim !== 1);
  const isRowWise = record?.channels === "gemm" || record?.channels === "matrix product";
  const isMap = record?.channels === "convolution" || record?.channels === "transposed convolution";
  const isLikeScores =
    sizes?.length !== 1 &&
    (isNamedLikeScores(output.name) ||
      (isOnlyOutput && (sizes === undefined ? !isMap : sizes.length === 2) && !isEmbedding(output)) ||
      (isRowWise && (sizes === undefined || sizes.length === 3)));
  return {
    kind: isLikeScores ? "class_scores" : "numbers",
    class_axis: isMap ? classAxis(1) : null,
    evident: false,
  };
}

/** What makes embeddings, as channels do not tell. */
const EMBEDS = { LpNormalization: true, Tanh: true } as const;
/** How one state is made of those of all positions: their mean, or one of them. */
const PICKS = new Set(["reduction", "pooling", "selection along an axis"]);

/** Whether what an output holds was normalized or squashed last, and then at most pooled: what no scores are, which a layer makes. */
function isEmbedding(output: Value): boolean {
  let value = output;
  for (;;) {
    const node: Node | undefined = value.producer;
    if (!node) return false;
    const { channels = "none" } = operatorOf(node) ?? {};
    if (channels === "channel normalization" || channels === "last axis normalization") return true;
    // A quotient of what was computed: a normalization that is written out, or a mean over what a mask leaves.
    const isQuotient = node.domain === "" && node.opType === "Div" && node.inputs.every((it) => !it?.constant);
    if (isQuotient || entryFor(EMBEDS, node)) return true;
    const next = handedOn(node) ?? (PICKS.has(channels) ? node.inputs[0] : undefined);
    if (!next) return false;
    value = next;
  }
}

/** The axis of a Softmax. Before version 13 its standard is another, and all axes from it on are one: here they are taken for the last. */
function softmaxAxis(node: Node, rank: number | undefined): number | undefined {
  if (operatorOf(node)?.channels !== "softmax") return undefined;
  if ((node.graph.model.opsets.get("") ?? 0) >= 13) return node.int("axis", -1);
  const axis = node.int("axis", 1);
  return rank === 2 ? axis : -1;
}

/** Operators that hand numbers on as they are, or nearly so. */
const HANDS_ON = { Identity: true, Cast: true, Dropout: true, QuantizeLinear: true, DequantizeLinear: true } as const;
/** The same with one constant operand. */
const SHIFTS = { Add: true, Sub: true, Mul: true, Div: true } as const;

/**
 * The node that decides what an output is; where an axis of what it makes lies in the output, null where that cannot be told; and whether a
 * constant is added to its numbers, or they are multiplied by one.
 */
function originOf(output: Value) {
  const moves: (readonly number[] | undefined)[] = [];
  let isShifted = false;
  let value = output;
  for (;;) {
    const node: Node | undefined = value.producer;
    const next = node && handedOn(node);
    if (!node || !next) break;
    const { channels } = operatorOf(node) ?? {};
    if (channels === "transpose") moves.push(node.ints("perm"));
    else if (channels === "reshape") moves.push(undefined);
    if (entryFor(SHIFTS, node)) isShifted = true;
    value = next;
  }
  const axisInOutput = (axis: number, rank: number | undefined): number | null => {
    if (moves.includes(undefined)) return null;
    const length = moves[0]?.length ?? rank;
    if (axis === -1 && length === undefined) return null;
    const own = axis < 0 && length !== undefined ? axis + length : axis;
    return moves.reduceRight((at, order) => order!.indexOf(at), own);
  };
  return { node: value.producer, axisInOutput, isShifted };
}

/** The operand whose numbers a node hands on, if it does no more than that. */
function handedOn(node: Node): Value | undefined {
  const { channels } = operatorOf(node) ?? {};
  const moves = channels === "reshape" || channels === "transpose";
  if (moves || entryFor(HANDS_ON, node)) return node.inputs[0];
  if (!entryFor(SHIFTS, node)) return undefined;
  const [a, b] = node.inputs;
  if (b?.constant) return a;
  return a?.constant && (node.opType === "Add" || node.opType === "Mul") ? b : undefined;
}
