/**
 * The units of a float graph, which compute in 8 bits or not as a whole: a node of the operator table, the Add of its bias (for MatMul), and the Relu
 * or Clip behind it, which disappear in the saturation of the quantizer. And sums and products with single numbers, which only change scale and zero point.
 */
import type { QdqPattern } from "../../facts.ts";
import type { Graph, Model, Node, Value } from "../../onnx/ir.ts";
import type { Affine } from "../../operators/operator-record.ts";
import { EXCLUDED, type NodeTest } from "../../passes/pass.ts";
import type { Range } from "../calibration/thresholds.ts";
import { biasAddOf, tailOf } from "./epilogue.ts";
import { affineOf, type OperatorRule, type Refusal, ruleFor } from "./operators.ts";

export interface PlacementOptions {
  /** Nodes to leave in float, by name, and why. */
  readonly excludeNodes?: ReadonlyMap<string, Refusal>;
  /** Nodes that the job leaves alone. */
  readonly isExcluded?: NodeTest;
  /** Sums with a number, by name, that must be computed: a zero point cannot express them. */
  readonly computedSums?: ReadonlySet<string>;
  /** Where pairs stand; as onnxruntime's kernels on the CPU want them unless given. */
  readonly pattern?: QdqPattern | undefined;
  /** How many elements a value has in one run; undefined where that is not known. */
  readonly elementsOf?: ((value: Value) => number | undefined) | undefined;
}

export interface Unit {
  readonly node: Node;
  readonly rule: OperatorRule;
  /** The Add of a constant bias behind a MatMul. */
  readonly biasAdd: Node | undefined;
  /** Relu and Clip nodes that the quantizer's saturation replaces. */
  readonly tail: readonly Node[];
  /** Where the node's own result, bias included, comes out. */
  readonly result: Value;
  /** What others read: the result after the tail; several for Split. */
  readonly outputs: readonly Value[];
  /** What the tail limits the output to. */
  readonly clip: Range;
  quantized: boolean;
  /** Why it is not. */
  reason: Refusal | undefined;
}

/** The value that a node makes, as a number times another, plus a number. */
export interface AffineNode extends Affine {
  readonly node: Node;
  readonly input: Value;
}

export interface FoundUnits {
  /** In topological order, bodies after the nodes that own them. All are quantized but those that are refused. */
  readonly units: readonly Unit[];
  readonly affine: ReadonlyMap<Value, AffineNode>;
}

export function findUnits(model: Model, options: PlacementOptions): FoundUnits {
  const found = { units: [] as Unit[], affine: new Map<Value, AffineNode>() };
  for (const graph of model.graphs()) findIn(graph, options, found);
  return found;
}

function findIn(
  graph: Graph,
  options: PlacementOptions,
  found: { readonly units: Unit[]; readonly affine: Map<Value, AffineNode> },
): void {
  const taken = new Set<Node>();
  const { computedSums, pattern, isExcluded = nothing } = options;
  for (const node of graph.nodes) {
    if (taken.has(node)) continue;
    const affine = affineOf(node);
    // A sum that is clipped afterwards has to be computed: saturating is what an integer kernel does at its output.
    const isComputed = computedSums?.has(node.name) || tailOf(node.outputs[0]!, isExcluded).tail.length > 0;
    if (affine && pattern?.outputs !== "never" && !isExcluded(node) && (affine.shift === 0 || !isComputed)) {
      found.affine.set(node.outputs[0]!, { node, ...affine });
      continue;
    }
    const rule = ruleFor(node);
    if (!rule || pattern?.operators?.includes(node.opType) === false) continue;
    const unit = unitOf(node, rule, options);
    for (const part of unit.biasAdd ? [unit.biasAdd, ...unit.tail] : unit.tail) taken.add(part);
    found.units.push(unit);
  }
}

function unitOf(node: Node, rule: OperatorRule, options: PlacementOptions): Unit {
  const { pattern, isExcluded = nothing } = options;
  const biasAdd = pattern?.outputs === "always" ? undefined : biasAddOf(node, rule, isExcluded);
  const result = (biasAdd ?? node).outputs[0]!;
  const { tail, output, clip } = tailOf(result, isExcluded);
  const reason = refusalOf(node, rule, options);
  const outputs = node.outputs.length > 1 ? node.outputs : [output];
  return { node, rule, biasAdd, tail, result, outputs, clip, quantized: reason === undefined, reason };
}

function nothing(): boolean {
  return false;
}

function refusalOf(
  node: Node,
  rule: OperatorRule,
  { excludeNodes, isExcluded = nothing, elementsOf, pattern }: PlacementOptions,
): Refusal | undefined {
  if (isExcluded(node)) return EXCLUDED;
  const excluded = excludeNodes?.get(node.name);
  if (excluded) return excluded;
  const { below, reason } = pattern?.floatDepthwise ?? { below: 0, reason: "" };
  if (below > 0 && isDepthwise(node) && (elementsOf?.(node.inputs[0]!) ?? 0) < below) {
    return { code: "slower", message: reason };
  }
  const other = rule
    .activations(node)
    .map((index) => node.inputs[index]?.dtype)
    .find((dtype) => dtype !== undefined && dtype !== "float32");
  if (other) return { code: "not_float32", message: `It computes in ${other}.` };
  if (rule.activations(node).every((index) => !node.inputs[index] || node.inputs[index].constant)) {
    return { code: "constant", message: "It computes a constant." };
  }
  return rule.refuse?.(node);
}

/** Whether each channel of a layer's result is made of one channel of what it reads: its weight is [channels, 1, …]. */
function isDepthwise(node: Node): boolean {
  return node.int("group", 1) > 1 && node.inputs[1]?.constant?.dims[1] === 1;
}
