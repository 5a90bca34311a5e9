import { type DType, dtypeOfOnnx } from "../onnx/dtype.ts";
import type { ResultType } from "./operator-record.ts";

/** The type that attribute `name` names, else `fallback`, or that of the first input. */
export function fromAttribute(name: string, fallback?: DType): ResultType {
  return (node, typeOf) => {
    const onnx = node.int(name);
    return onnx === undefined ? (fallback ?? typeOf(node.inputs[0])) : dtypeOfOnnx(onnx);
  };
}

/** Sequences and optionals are no tensors; what is taken out of them is unknown. */
export const UNKNOWN: ResultType = () => undefined;
