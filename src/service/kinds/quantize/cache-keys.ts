import { canonicalJson, sha256Of } from "../../identity.ts";
import { VERSIONS } from "../../versions.ts";
import { MAX_BOOK_BYTES, type MeasuredHost, mergedBooks } from "./kernels-file.ts";
import type { StaticSpec } from "./spec.ts";

/** The names of what calibration finds out, and what is found out about the speed of kernels. */
export const CALIBRATION = "calibration";
export const KERNELS = "kernels";

/**
 * What calibration has seen serves every method to choose ranges, and every way to judge the result. What kernels take serves every model on a machine
 * of the same kind.
 */
export function calibrationKeys(spec: StaticSpec, { cpu, isa }: MeasuredHost): Readonly<Record<string, string>> {
  const { dataset_id, samples, seed, activation_dtype, target } = spec.params;
  const { per_channel, weight_bits, equalize, smooth_quant_alpha } = spec.params;
  const scaled = { per_channel, weight_bits, equalize, smooth_quant_alpha };
  const decisive = { dataset_id, samples, seed, ...scaled, activation_dtype, target };
  const keyOf = (found: object) => sha256Of(canonicalJson({ ...found, versions: VERSIONS }));
  return {
    [CALIBRATION]: keyOf({ model_id: spec.model_id, ...decisive }),
    ...(spec.params.float_where_slower && { [KERNELS]: keyOf({ [KERNELS]: { cpu, isa } }) }),
  };
}

/** Finds of which each job adds a part: how large they may become, and what is to be kept of two; undefined for nothing. */
export const SHARED_FINDS: Readonly<
  Record<
    string,
    {
      readonly maxBytes: number;
      readonly merged: (kept: Uint8Array, found: Uint8Array, host: MeasuredHost) => Uint8Array | undefined;
    }
  >
> = { [KERNELS]: { maxBytes: MAX_BOOK_BYTES, merged: mergedBooks } };
