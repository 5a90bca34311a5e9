import { parseVersionAddress, unlistedModel } from "../../mlflow/address.ts";
import type { MlflowClient } from "../../mlflow/client.ts";
import { findVersion } from "../../mlflow/registry.ts";
import type { SourceKind } from "./source-kind.ts";

const FORM = "models:/name/version, as in models:/digits/3, or models:/name@alias";

/** Versions of models of the operator's MLflow, `models:/name/3`: their `.onnx` and its external data. Null: there is no MLflow. */
export function createMlflowSource(client: MlflowClient | null, allowModels: readonly string[]): SourceKind {
  return {
    refusal: (address) =>
      unlistedModel(parseVersionAddress(address)?.name, FORM, allowModels, "SOURCE_ALLOW_REGISTERED_MODELS"),
    find: (address, signal) => findVersion(client!, parseVersionAddress(address)!, signal),
  };
}
