import type { DType } from "../onnx/dtype.ts";
import type { NamedType, ResultType } from "./operator-record.ts";

/** The type that attribute `name` names, else `fallback`, or that of the first input. */
export function fromAttribute(name: string, fallback?: DType): NamedType {
  return { attribute: name, ...(fallback && { otherwise: fallback }) };
}

/** Sequences and optionals are no tensors; what is taken out of them is unknown. */
export const UNKNOWN: ResultType = () => undefined;
