import type { Model } from "../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import { tensorOf } from "../../src/core/onnx/tensor.ts";
import { writeNpz } from "./dataset-writers.ts";

/** A model as it is uploaded. */
export function fileOf(model: Model): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(modelToBytes(model));
}

/** Arrays of float32 as a dataset is uploaded. */
export function npzOf(
  arrays: Readonly<Record<string, { readonly dims: readonly number[]; readonly values: Float32Array<ArrayBuffer> }>>,
): Uint8Array<ArrayBuffer> {
  const tensors = Object.entries(arrays).map(([name, { dims, values }]) => [name, tensorOf("float32", dims, values)]);
  return Uint8Array.from(writeNpz(Object.fromEntries(tensors)));
}
