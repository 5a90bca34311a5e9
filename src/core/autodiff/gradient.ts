/**
 * Reverse-mode differentiation of a graph with static shapes: the walk. Knowledge of operators is in the gradient table (`rules.ts`).
 *
 * For y = f(x₀, x₁, …) a rule turns dL/dy into dL/dxᵢ; the walk visits the nodes between the wanted values and the loss from last to
 * first, sums what reaches a value on several paths, and sums gradients over the axes along which a value was broadcast.
 */
import { CoreError } from "../errors.ts";
import { dtypeOfOnnx } from "../onnx/dtype.ts";
import { dimsOf, type GraphBuilder, sumTo } from "../onnx/graph-builder.ts";
import type { Model, Node, Value } from "../onnx/ir.ts";
import { isFloat } from "../onnx/tensor.ts";
import { operatorOf } from "../operators/operators.ts";
import { EXPANSIONS } from "./expand.ts";
import type { GradientRule } from "./rules/gradient-rule.ts";
import { GRADIENT_RULES } from "./rules.ts";

/** The version of ai.onnx whose signatures the table knows; models are brought to it first. */
export const TRAINING_OPSET = 21;

/**
 * Emits dL/dv for each of `wanted` behind the nodes of the graph. `loss` has one element. Shapes, and integer inputs such as axes, must
 * be known (`resolveStatics`). A value that the loss does not depend on has no entry; none flows through `detached` values.
 * Throws `unsupported` with the node when a rule is missing.
 */
export function buildGradients(
  g: GraphBuilder,
  loss: Value,
  wanted: readonly Value[],
  detached: ReadonlySet<Value> = new Set(),
): ReadonlyMap<Value, Value> {
  const active = activeValues(g.graph.model, wanted, detached);
  const contributions = new Map<Value, Value[]>([[loss, [g.full(dimsOf(loss), 1, loss)]]]);
  const gradients = new Map<Value, Value>();
  const keep = new Set(wanted);

  const gradientOf = (value: Value): Value | undefined => {
    const parts = contributions.get(value);
    if (!parts) return undefined;
    const total = parts.reduce((sum, part) => g.add(sum, part));
    contributions.delete(value);
    if (keep.has(value)) gradients.set(value, total);
    return total;
  };

  for (const node of [...g.graph.nodes].reverse()) {
    if (isConstant(node) || !node.outputs.some((value) => active.has(value) && contributions.has(value))) continue;
    const wantedInputs = node.inputs.map((value) => value !== undefined && active.has(value));
    g.within(`gradient/${node.label}`, () => {
      const dy = node.outputs.map((value) => (active.has(value) ? gradientOf(value) : undefined));
      const rule = ruleOf(node);
      rule.backward(g, node, dy, wantedInputs).forEach((gradient, index) => {
        const input = node.inputs[index];
        if (!gradient || !input || !wantedInputs[index]) return;
        const part = rule.broadcasts ? sumTo(g, gradient, dimsOf(node.outputs[0]!), dimsOf(input)) : gradient;
        contributions.set(input, [...(contributions.get(input) ?? []), part]);
      });
    });
  }
  for (const value of wanted) gradientOf(value);
  return gradients;
}

/**
 * The nodes that keep `wanted` from being trained, with the reason for each: operators without a rule, and uses of an operator that its
 * rule does not cover. Only nodes between `wanted` and the outputs count; shapes are not needed.
 */
export function findUndifferentiable(
  model: Model,
  wanted: readonly Value[],
  outputs: readonly Value[] = model.graph.outputs,
): readonly { readonly node: Node; readonly reason: string }[] {
  const active = activeValues(model, wanted);
  const reached = new Set<Value>(outputs);
  const found: { node: Node; reason: string }[] = [];
  for (const node of [...model.graph.nodes].reverse()) {
    if (isConstant(node) || !node.outputs.some((value) => active.has(value) && reached.has(value))) continue;
    const reason = refusalOf(node);
    if (reason) found.push({ node, reason });
    for (const value of node.inputs) if (value && active.has(value)) reached.add(value);
  }
  return found.reverse();
}

/** Throws `unsupported`, naming the first node, when `findUndifferentiable` finds any. */
export function checkDifferentiable(model: Model, wanted: readonly Value[], outputs?: readonly Value[]): void {
  const [first] = findUndifferentiable(model, wanted, outputs);
  if (first) throw undifferentiable(first.node, first.reason);
}

function refusalOf(node: Node): string | undefined {
  const rule = node.domain === "" ? (GRADIENT_RULES[node.opType] ?? EXPANSIONS[node.opType]) : undefined;
  if (!rule) return `No gradient is known for ${node.domain ? `${node.domain}.` : ""}${node.opType}`;
  const reason = rule.refuses?.(node);
  return reason && `The gradient of ${node.opType} is not known here: ${reason}`;
}

function ruleOf(node: Node): GradientRule {
  const reason = refusalOf(node);
  if (reason) throw undifferentiable(node, reason);
  const rule = GRADIENT_RULES[node.opType];
  if (!rule) throw new CoreError("internal", `${node.opType} must be expanded before differentiation.`, node.label);
  return rule;
}

function undifferentiable(node: Node, reason: string): CoreError {
  return new CoreError("unsupported", `The model cannot be trained through "${node.label}". ${reason}.`, node.label);
}

/** Whether no gradient flows through a node: its operator has none, or it makes whole numbers of floats. */
function isConstant(node: Node): boolean {
  if (node.domain !== "") return false;
  return (
    operatorOf(node)?.derivative === "zero" || (node.opType === "Cast" && !isFloat(dtypeOfOnnx(node.int("to", 1))))
  );
}

/**
 * Values that depend on `wanted` through something other than shapes, comparisons and whole numbers. Integers are among them where they
 * stand for real numbers: what a straight-through rule makes of one, and what is made of that.
 */
function activeValues(
  model: Model,
  wanted: readonly Value[],
  detached: ReadonlySet<Value> = new Set(),
): ReadonlySet<Value> {
  const active = new Set(wanted);
  for (const node of model.graph.nodes) {
    if (isConstant(node)) continue;
    const reads = readsOf(node).filter((value) => active.has(value));
    if (reads.length === 0) continue;
    const standsForReal =
      (node.domain === "" && GRADIENT_RULES[node.opType]?.straightThrough === true) ||
      reads.some(({ dtype }) => dtype !== undefined && !isFloat(dtype));
    for (const value of node.outputs) {
      if (value.name === "" || detached.has(value)) continue;
      if (value.dtype === undefined || isFloat(value.dtype) || standsForReal) active.add(value);
    }
  }
  return active;
}

/** Everything a node reads, the values that its bodies take from outside included. */
function readsOf(node: Node): Value[] {
  const reads = node.inputs.filter((value) => value !== undefined);
  for (const body of node.bodies()) {
    for (const graph of body.walk()) {
      reads.push(...graph.outputs);
      for (const inner of graph.nodes) reads.push(...inner.inputs.filter((value) => value !== undefined));
    }
  }
  return reads;
}
