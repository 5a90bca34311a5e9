/**
 * Forms that exporters write out, brought back to the one operator they are before differentiation: its gradient takes fewer passes over
 * memory than those of the parts together.
 */
import { GraphBuilder } from "../onnx/graph-builder.ts";
import type { Graph, Node, Value } from "../onnx/ir.ts";
import { elementCount, floatsOf } from "../onnx/tensor.ts";

/** Fuses what can be fused in `graph`. Results keep their dtypes and shapes. */
export function fuseOperators(graph: Graph): void {
  const found = graph.nodes.flatMap((node) => writtenOutGelu(node) ?? []);
  const g = new GraphBuilder(graph);
  for (const { x, y } of found) {
    const last = y.producer!;
    const gelu = g.before(last, () => g.within(last.label, () => g.op("Gelu", [x])));
    gelu.retype(y.dtype, y.shape);
    graph.replaceUses(y, gelu);
    removeUnread(graph, last);
  }
}

/** x and y of y = x · (1 + erf(x/√2)) · ½, whatever the order of the factors, where `erf` is its Erf node. */
function writtenOutGelu(erf: Node): { readonly x: Value; readonly y: Value } | undefined {
  if (erf.opType !== "Erf" || erf.domain !== "") return undefined;
  const scaled = erf.inputs[0]?.producer;
  const x =
    (scaled && otherOperand(scaled, "Mul", (c) => isNumber(c, Math.SQRT1_2))) ??
    (scaled?.opType === "Div" && scaled.domain === "" && isNumber(scaled.inputs[1], Math.SQRT2)
      ? scaled.inputs[0]
      : undefined);
  const sum = onlyReader(erf.outputs[0]!);
  if (!x || !sum || !otherOperand(sum, "Add", (c) => isNumber(c, 1))) return undefined;
  const sumValue = sum.outputs[0]!;
  const product = onlyReader(sumValue);
  if (product?.opType !== "Mul" || product.domain !== "") return undefined;
  const [factor] = product.inputs.filter((value) => value !== sumValue);
  const y = product.outputs[0]!;
  const isHalf = (value: Value | undefined) => isNumber(value, 0.5);
  // (x·½)·(1 + erf)
  if (factor?.producer && otherOperand(factor.producer, "Mul", isHalf) === x) return { x, y };
  const outer = onlyReader(y);
  if (!outer) return undefined;
  // (x·(1 + erf))·½ and x·((1 + erf)·½)
  const completes = factor === x ? isHalf : isHalf(factor) ? (value: Value | undefined) => value === x : undefined;
  return completes && otherOperand(outer, "Mul", completes) === y ? { x, y: outer.outputs[0]! } : undefined;
}

/** The operand of a binary operator whose other one `fits`. */
function otherOperand(node: Node, opType: string, fits: (value: Value | undefined) => boolean): Value | undefined {
  if (node.opType !== opType || node.domain !== "") return undefined;
  const [a, b] = node.inputs;
  return fits(b) ? a : fits(a) ? b : undefined;
}

/** The one node of the same graph that reads `value`, and reads it once. */
function onlyReader(value: Value): Node | undefined {
  const [use, ...others] = value.uses;
  return use && others.length === 0 && !value.isGraphOutput && use.node.graph === value.graph ? use.node : undefined;
}

/** Whether a value is a constant number, in float32 precision. */
function isNumber(value: Value | undefined, expected: number): boolean {
  const constant = value?.constant;
  if (constant?.dtype !== "float32" || elementCount(constant.dims) !== 1) return false;
  return Math.abs(floatsOf(constant)[0]! - expected) <= 1e-6 * expected;
}

/** Removes a node that nothing reads any more, and what only it read. */
function removeUnread(graph: Graph, node: Node): void {
  if (node.outputs.some((value) => value.uses.length > 0 || value.isGraphOutput)) return;
  const producers = new Set(node.inputs.flatMap((value) => value?.producer ?? []));
  graph.remove(node);
  for (const producer of producers) if (producer.graph === graph) removeUnread(graph, producer);
}
