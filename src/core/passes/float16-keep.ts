/** What a conversion to float16 leaves in float32, and why. */
import type { Model, Node, Value } from "../onnx/ir.ts";
import { type OpType, operatorOf } from "../operators/operators.ts";
import { findExactParts } from "./float16-exact.ts";
import { type KeptReason, keptByOperator, QUANTIZED, SQUARES } from "./float16-policy.ts";
import { type DTypes, outputType } from "./value-dtypes.ts";

const SILENT: KeptReason = { code: "float32_pattern", message: "" };

/**
 * Inputs that are float32 whatever the node computes in. (A ratio of Dropout may have a type of its own: cast to float16, onnxruntime 1.30 gives
 * out nothing but the ratio.)
 */
export function pinnedInputs(node: Node): readonly number[] {
  return operatorOf(node)?.float32 ?? [];
}

/** Outputs that are float32 whatever the node computes in: the statistics of a LayerNormalization. */
export function pinnedOutputs(node: Node): readonly number[] {
  const unknown = () => undefined;
  return [...node.outputs.keys()].filter((i) => i > 0 && outputType(node, i, unknown) === "float32");
}

export interface Kept {
  readonly nodes: ReadonlyMap<Node, KeptReason>;
  /** float32 values that may be larger than float16 can hold; where one is cast to it, it must be limited first. */
  readonly wide: ReadonlySet<Value>;
}

/** The nodes to keep, by operator and by pattern. */
export function keptInFloat32(model: Model, types: DTypes): Kept {
  const kept = new Map<Node, KeptReason>();
  for (const node of model.nodes()) {
    const reason = byOperator(node, types);
    if (reason) kept.set(node, reason);
  }
  const keepSilently = (node: Node) => {
    if (!kept.has(node)) kept.set(node, SILENT);
  };
  shapeArithmetic(model, types).forEach(keepSilently);
  const exact = findExactParts(model, types);
  for (const [node, reason] of exact.kept) if (!kept.has(node)) kept.set(node, reason);
  for (const node of model.nodes()) {
    const variance = varianceFrom(node);
    if (variance.length > 0) kept.set(node, kept.get(node) ?? SQUARES);
    variance.forEach(keepSilently);
  }
  return { nodes: kept, wide: exact.wide };
}

function byOperator(node: Node, types: DTypes): KeptReason | undefined {
  const reason = keptByOperator(node);
  if (reason || node.bodies().length > 0) return reason;
  // A runtime computes in integers what stands between pairs, and no longer finds it behind a Cast.
  if (node.inputs.some((value) => value?.producer?.opType === "DequantizeLinear")) return QUANTIZED;
  const unknown = node.inputs.find((value) => value && value.name !== "" && !types.has(value));
  return unknown && { code: "unknown_type", message: `The type of its input "${unknown.name}" is not known.` };
}

/** Nodes that compute with the sizes of tensors, by what constant folding would compute were the sizes known. */
function shapeArithmetic(model: Model, types: DTypes): Set<Node> {
  const shapes = new Set<Value>();
  const nodes = new Set<Node>();
  for (const node of model.nodes()) {
    const reads = node.inputs.filter((value) => value && !value.constant);
    const { ofShape, folds } = operatorOf(node) ?? {};
    const derived = folds && reads.length > 0 && reads.every((value) => shapes.has(value!));
    if (!ofShape && !derived) continue;
    for (const value of node.outputs) shapes.add(value);
    if (node.outputs.some((value) => types.get(value) === "float32")) nodes.add(node);
  }
  return nodes;
}

/** What a variance goes through: plus epsilon, root, and the division by it. */
const VARIANCE_OPERATORS: ReadonlySet<string> = new Set<OpType>([
  "Add",
  "Sqrt",
  "Reciprocal",
  "Div",
  "Mul",
  "Pow",
  "ReduceMean",
  "ReduceSum",
]);

/**
 * For a square whose mean is taken, as in a normalization written out in parts: the nodes from it to the division by the deviation.
 */
function varianceFrom(node: Node): Node[] {
  const squares =
    node.opType === "Mul" ? node.inputs[0] === node.inputs[1] : node.opType === "Pow" && node.inputs[1]?.constant;
  const reductions = node.outputs[0]!.uses.map((use) => use.node);
  const isMean = ({ opType }: Node) => opType === "ReduceMean" || opType === "ReduceSum";
  if (!squares || reductions.length === 0 || !reductions.every(isMean)) return [];
  const chain = new Set<Node>(reductions);
  for (const part of chain) {
    // Division, or multiplication with the reciprocal, ends the pattern: what it gives out is normalized.
    if (part.opType === "Div" || part.opType === "Mul") continue;
    for (const { node: next } of part.outputs[0]!.uses) if (VARIANCE_OPERATORS.has(next.opType)) chain.add(next);
  }
  return [...chain];
}
