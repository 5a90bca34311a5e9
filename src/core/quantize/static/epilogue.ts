/** What stands behind a main node that its kernel computes: a bias, and limits. */
import type { Node, Value } from "../../onnx/ir.ts";
import type { NodeTest } from "../../passes/pass.ts";
import { addBehind, isBiasFor } from "../bias-add.ts";
import type { Range } from "../calibration/thresholds.ts";
import { clipBounds, isFloatConstant, type OperatorRule } from "./operators.ts";

export const UNLIMITED: Range = { min: Number.NEGATIVE_INFINITY, max: Number.POSITIVE_INFINITY };

/** The Add of one number for each column that stands behind a MatMul with a constant matrix, and is its only reader. */
export function biasAddOf(node: Node, rule: OperatorRule, isExcluded: NodeTest): Node | undefined {
  if (node.opType !== "MatMul" || !rule.weight?.(node)) return undefined;
  const product = node.outputs[0]!;
  const add = addBehind(product);
  if (!add || isExcluded(add.node)) return undefined;
  const bias = add.node.inputs[add.index];
  const columns = node.inputs[1]?.constant?.dims[1];
  if (!isFloatConstant(bias) || columns === undefined) return undefined;
  return isBiasFor(columns, bias!.constant!.dims) ? add.node : undefined;
}

export function tailOf(result: Value, isExcluded: NodeTest): { tail: Node[]; output: Value; clip: Range } {
  const tail: Node[] = [];
  let output = result;
  let clip = UNLIMITED;
  for (let next = onlyReader(output); next; next = onlyReader(output)) {
    const bounds = clipBounds(next);
    if (!bounds || next.inputs[0] !== output || isExcluded(next)) break;
    clip = { min: Math.max(clip.min, bounds.min), max: Math.min(clip.max, bounds.max) };
    tail.push(next);
    output = next.outputs[0]!;
  }
  return { tail, output, clip };
}

/** The node that alone reads a value, in the value's own graph; undefined when there is another reader. */
function onlyReader(value: Value): Node | undefined {
  const [use, other] = value.uses;
  return use && !other && !value.isGraphOutput && use.node.graph === value.graph ? use.node : undefined;
}
