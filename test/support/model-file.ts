import type { Model } from "../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";

/** A model as it is uploaded. */
export function fileOf(model: Model): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(modelToBytes(model));
}
