/** When the parameters of methods are read. */
import type { FieldError } from "../../errors.ts";
import { lossReadings, trainingReadings } from "../distill/readings.ts";
import { ALWAYS, at, onlyIf, type Readings, unreadParams } from "../unread-params.ts";
import { QuantizeParams } from "./params.ts";
import type { QuantizeSpec } from "./spec.ts";

type Quantization = QuantizeParams;
type QuantizationOf<M extends Quantization["method"]> = Extract<Quantization, { method: M }>;

const COMMON = { exclude_nodes: ALWAYS, exclude_ops: ALWAYS, seed: ALWAYS } as const;

const hasActivations = ({ bits }: QuantizationOf<"qat">) => bits.activations !== null;
const FOR_ACTIVATIONS = "activations that are quantized: bits.activations must not be null";

/** When the parameters of methods are read. */
export const QUANTIZATIONS: {
  readonly [M in Quantization["method"]]: Readings<QuantizationOf<M>, QuantizationOf<M>>;
} = {
  simplify: { method: ALWAYS, ...COMMON },
  float16: { method: ALWAYS, keep_io: ALWAYS, target: ALWAYS, ...COMMON },
  dynamic: { method: ALWAYS, weight_dtype: ALWAYS, per_channel: ALWAYS, target: ALWAYS, ...COMMON },
  static: {
    ...{ method: ALWAYS, dataset_id: ALWAYS, samples: ALWAYS, calibration: ALWAYS },
    // `auto` tries it at its default, and only for a result that is poor.
    percentile: onlyIf(({ calibration }) => calibration === "percentile", "the calibration percentile"),
    ...{ activation_dtype: ALWAYS, per_channel: ALWAYS, weight_bits: ALWAYS, rounding: ALWAYS, candidates: ALWAYS },
    equalize: ALWAYS,
    ...{ smooth_quant_alpha: ALWAYS, bias_correction: ALWAYS, float_where_slower: ALWAYS, layers: ALWAYS },
    ...{ max_metric_drop: ALWAYS, min_sqnr_db: ALWAYS },
    max_trials: onlyIf(
      ({ max_metric_drop, min_sqnr_db }) => max_metric_drop !== null || min_sqnr_db !== null,
      "the search for max_metric_drop or min_sqnr_db, and neither is set",
    ),
    target: ALWAYS,
    ...COMMON,
  },
  weight_only: {
    ...{ method: ALWAYS, bits: ALWAYS, block_size: ALWAYS, symmetric: ALWAYS, algorithm: ALWAYS, rounding: ALWAYS },
    ...{ candidates: ALWAYS, dataset_id: ALWAYS },
    samples: onlyIf(
      ({ rounding }) => rounding !== "nearest",
      "roundings that look at samples: nearest looks at weights alone",
    ),
    ...{ format: ALWAYS, embeddings: ALWAYS },
    accuracy_level: onlyIf(({ format }) => format === "matmulnbits", "the format matmulnbits"),
    target: ALWAYS,
    ...COMMON,
  },
  qat: {
    ...{ method: ALWAYS, dataset_id: ALWAYS, bits: ALWAYS, algorithm: ALWAYS },
    teacher: onlyIf(
      ({ teacher, loss }) => teacher === null || loss!.kl_weight > 0 || loss!.hints.length > 0,
      "what is learned from it: loss.kl_weight must be above 0, or there must be hints",
    ),
    loss: lossReadings<QuantizationOf<"qat">>(({ loss }) => loss!),
    epochs: ALWAYS,
    training: {
      ...trainingReadings<QuantizationOf<"qat">>(),
      epochs: onlyIf(
        (_, sent) => (sent.epochs ?? null) === null || sent.epochs === at(sent, ["training", "epochs"]),
        "jobs that do not set epochs itself: set one of the two",
      ),
    },
    samples: onlyIf(hasActivations, FOR_ACTIVATIONS),
    ...{ rounding: ALWAYS, candidates: ALWAYS },
    calibration: onlyIf(hasActivations, FOR_ACTIVATIONS),
    percentile: onlyIf(
      (params) => hasActivations(params) && params.calibration === "percentile",
      "the calibration percentile",
    ),
    target: onlyIf(hasActivations, FOR_ACTIVATIONS),
    ...COMMON,
  },
};

export function unread({ params }: Pick<QuantizeSpec, "params">, sent: unknown): readonly FieldError[] {
  return unreadParams(QuantizeParams, QUANTIZATIONS[params.method], params, sent);
}
