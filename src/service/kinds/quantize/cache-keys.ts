import { canonicalJson, sha256Of } from "../../identity.ts";
import { VERSIONS } from "../../versions.ts";
import type { StaticSpec } from "./spec.ts";

/** The names of what calibration finds out, and what is found out about the speed of kernels. */
export const CALIBRATION = "calibration";
export const KERNELS = "kernels";

/** What calibration has seen serves every method to choose ranges, and every way to judge the result. */
export function calibrationKeys(spec: StaticSpec): Readonly<Record<string, string>> {
  const { dataset_id, samples, seed, per_channel, equalize, smooth_quant_alpha, activation_dtype, target } =
    spec.params;
  const decisive = { dataset_id, samples, seed, per_channel, equalize, smooth_quant_alpha, activation_dtype, target };
  const keyOf = (found: object) => sha256Of(canonicalJson({ model_id: spec.model_id, ...found, versions: VERSIONS }));
  const { float_where_slower, layers, exclude_nodes, exclude_ops } = spec.params;
  const { threads } = spec.evaluation.latency;
  // Excluded nodes change which others can compute in 8 bits, and so what is measured.
  const placed = { ...decisive, layers, exclude_nodes, exclude_ops, threads };
  return {
    [CALIBRATION]: keyOf(decisive),
    ...(float_where_slower && { [KERNELS]: keyOf(placed) }),
  };
}
