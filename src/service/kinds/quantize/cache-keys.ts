import { canonicalJson, sha256Of } from "../../identity.ts";
import { VERSIONS } from "../../versions.ts";
import type { JobSpec } from "../kinds.ts";

/** The name of what calibration finds out. */
export const CALIBRATION = "calibration";

/**
 * The keys under which what a job finds out is kept for later jobs, by name: equal for jobs that would find out the same. What calibration has seen
 * serves every method to choose ranges, and every way to judge the result.
 */
export function cacheKeys(spec: JobSpec): Readonly<Record<string, string>> {
  if (spec.type !== "quantize" || spec.params.method !== "static") return {};
  const { dataset_id, samples, seed, per_channel, equalize, smooth_quant_alpha, activation_dtype, target } =
    spec.params;
  const decisive = { dataset_id, samples, seed, per_channel, equalize, smooth_quant_alpha, activation_dtype, target };
  return { [CALIBRATION]: sha256Of(canonicalJson({ model_id: spec.model_id, ...decisive, versions: VERSIONS })) };
}
