import type { Node, Value } from "../onnx/ir.ts";
import { operatorOf } from "../operators/operators.ts";

/** Multiply-accumulates of one node, by the formulas of `operators/macs.ts`; undefined for other operators, and where shapes are not known. */
export function macsOf(node: Node, shapeOf: (value: Value) => readonly number[] | undefined): number | undefined {
  const shape = (value: Value | undefined) => (value ? shapeOf(value) : undefined);
  return operatorOf(node)?.macs?.(node, {
    input: (index) => shape(node.inputs[index]),
    output: () => shape(node.outputs[0]),
  });
}

/** Whether a node multiplies and accumulates, so that `macsOf` (or a null) must say how much. */
export function hasMacs(node: Node): boolean {
  return operatorOf(node)?.macs !== undefined;
}
