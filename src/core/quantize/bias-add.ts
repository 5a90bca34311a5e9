/** The bias of a MatMul: the Add behind it. */
import type { Use, Value } from "../onnx/ir.ts";
import { elementCount } from "../onnx/tensor.ts";
import { isOneOf, type OpType } from "../operators/operators.ts";

const ADD: ReadonlySet<OpType> = new Set<OpType>(["Add"]);

/** The Add that alone reads a product, in the product's own graph, and the operand of it that is added. */
export function addBehind(product: Value): Use | undefined {
  const [use, other] = product.uses;
  if (!use || other || product.isGraphOutput) return undefined;
  const { node, index } = use;
  if (!isOneOf(node, ADD) || node.graph !== product.graph) return undefined;
  return { node, index: 1 - index };
}

/** Whether a tensor of `dims` adds one number to each of `features` columns, and no more axes than are of length 1. */
export function isBiasFor(features: number, dims: readonly number[]): boolean {
  return elementCount(dims) === features && dims.at(-1) === features;
}
