import type { ModelProto } from "onnx-buf";
import { CoreError } from "../errors.ts";
import type { ExternalData } from "./load.ts";

export function checkModelProto(proto: ModelProto, _external: ExternalData): void {
  if (!proto.graph) throw new CoreError("invalid_model", "The model has no graph.");
}
