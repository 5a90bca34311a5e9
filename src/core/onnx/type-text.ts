import type { TypeProto } from "onnx-buf";
import { dtypeOfOnnx } from "./dtype.ts";

/** A type as ONNX writes it, without shapes; undefined where the file does not say. */
export function typeText(type: TypeProto | undefined): string | undefined {
  const element = (inner: TypeProto | undefined) => typeText(inner) ?? "unknown";
  const scalar = (onnx: number) => dtypeOfOnnx(onnx) ?? "unknown";
  switch (type?.value.case) {
    case "tensorType":
      return scalar(type.value.value.elemType);
    case "sparseTensorType":
      return `sparse(${scalar(type.value.value.elemType)})`;
    case "sequenceType":
      return `sequence(${element(type.value.value.elemType)})`;
    case "optionalType":
      return `optional(${element(type.value.value.elemType)})`;
    case "mapType":
      return `map(${scalar(type.value.value.keyType)}, ${element(type.value.value.valueType)})`;
    default:
      return undefined;
  }
}
