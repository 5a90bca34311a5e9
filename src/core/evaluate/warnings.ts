import { LOW_SQNR_DB } from "../codes.ts";
import type {
  DatasetFacts,
  JobMetrics,
  LayerError,
  OutputFidelity,
  TrainingMetrics,
  ValueFacts,
  Warning,
} from "../facts.ts";
import { DTYPES } from "../onnx/dtype.ts";
import type { Latency } from "../runtime/latency.ts";
import { isBlank, isComparable } from "./fidelity.ts";
import { layersThatLoseMost } from "./lossy-layers.ts";
import { METRICS } from "./metrics.ts";

/** Of rounds A B, how many the second must lose to be called slower: by chance, 2 of 3 of 50 are lost once in a hundred times. */
const LOST_ROUNDS = 2 / 3;

/** Fewer equal answers than this, on real data, are more than rounding changes in a good result. */
export const LOW_AGREEMENT = 0.95;
/** The fewest samples that ranges are taken from without a word. */
const FEW_CALIBRATION_SAMPLES = 16;
/** The fewest samples that a result is judged on without a word. */
const FEW_EVALUATION_SAMPLES = 30;
/** Layers that lose most which a message names. */
const NAMED_LAYERS = 3;

/** Bytes that a result may have more than the original without a word: it says where it comes from (`onnx/origin.ts`). */
const ORIGIN_BYTES = 512;

/** What nobody compresses a model for, and has to be told of though no limit was set. */
export function costWarnings(
  { size, latency }: Pick<JobMetrics, "size" | "latency">,
  { before, after }: Latency["samplesMs"],
): Warning[] {
  const lost = after.filter((ms, round) => ms > before[round]!).length;
  const isSlower = latency.speedup < 1 && lost >= LOST_ROUNDS * after.length;
  return [
    ...(isSlower
      ? [
          {
            code: "slower_than_original" as const,
            message: `It takes ${times(1 / latency.speedup)} the time of the original here, and was slower in ${lost} of ${after.length} rounds.`,
            value: latency.speedup,
          },
        ]
      : []),
    ...(size.after_bytes > size.before_bytes + ORIGIN_BYTES
      ? [
          {
            code: "larger_than_original" as const,
            message: `Its files are ${times(size.ratio)} as large as the original's.`,
            value: size.ratio,
          },
        ]
      : []),
  ];
}

function times(ratio: number): string {
  return `${ratio.toFixed(2)} times`;
}

/** What has to be known of the comparison of outputs itself. */
export function comparisonWarnings(
  outputs: readonly ValueFacts[],
  {
    outputs: compared,
    accuracy,
  }: { readonly outputs: readonly OutputFidelity[]; readonly accuracy: JobMetrics["accuracy"] },
  { samples, data }: Pick<JobMetrics["fidelity"], "samples" | "data">,
): Warning[] {
  const strange = outputs.filter((output) => !isComparable(output));
  const warnings: Warning[] = compared
    .filter(({ shape_mismatches }) => shape_mismatches > 0)
    .map(({ name, shape_mismatches }) => ({
      code: "shapes_differ",
      message: `In ${shape_mismatches} runs the output "${name}" had another shape than the original's, so that these were not compared.`,
      value: shape_mismatches,
    }));
  if (strange.length > 0) {
    const names = strange.map(({ name, dtype }) => `"${name}" (${dtype ?? "no tensor"})`).join(", ");
    const rest = compared.length === 0 ? " Nothing else is left to compare: fidelity is not known." : "";
    const message = `${strange.length} of ${outputs.length} outputs are no tensors of numbers and were not compared: ${names}.${rest}`;
    warnings.push({ code: "outputs_not_compared", message, value: strange.length });
  }
  if (data !== "synthetic" && samples < FEW_EVALUATION_SAMPLES) {
    const message = `It was judged on ${samples} samples: numbers from fewer than ${FEW_EVALUATION_SAMPLES} may be off by much.`;
    warnings.push({ code: "few_samples", message, value: samples });
  }
  return [...warnings, ...chanceWarnings(accuracy)];
}

/** A drop of which the samples do not tell whether it is one. */
function chanceWarnings(accuracy: JobMetrics["accuracy"]): Warning[] {
  if (!accuracy?.interval || accuracy.drop === 0) return [];
  const { metric, drop, interval, samples } = accuracy;
  const [low, high] = interval;
  if (low > 0 || high < 0) return [];
  const [change, to] = drop > 0 ? ["drop", "worse"] : ["gain", "better"];
  const ends = `${low.toPrecision(3)} to ${high.toPrecision(3)}`;
  const message =
    `The ${change} of ${metric}, ${Math.abs(drop).toPrecision(3)}, may be chance: with 95 % confidence the drop is within ${ends}, ` +
    `so ${samples} samples do not tell whether the result is ${to}.`;
  return [{ code: "drop_within_noise", message, value: drop }];
}

/** `calibrated`: how many samples ranges, or the inputs of layers, were taken from. */
export function calibrationWarnings(calibrated: number | undefined): Warning[] {
  if (calibrated === undefined || calibrated >= FEW_CALIBRATION_SAMPLES) return [];
  const message = `It was calibrated on ${calibrated} samples: from fewer than ${FEW_CALIBRATION_SAMPLES}, ranges miss values that other samples have.`;
  return [{ code: "few_samples", message, value: calibrated }];
}

/** Outputs that differ much, with what to try (`remedies`) and the layers that lose most. */
export function fidelityWarnings(
  outputs: readonly ValueFacts[],
  compared: readonly OutputFidelity[],
  data: JobMetrics["fidelity"]["data"],
  layerErrors: readonly LayerError[] | null,
  remedies: readonly string[],
): Warning[] {
  const kinds = new Map(outputs.map(({ name, dtype }) => [name, dtype === null ? undefined : DTYPES[dtype].kind]));
  const worst = layersThatLoseMost(layerErrors, NAMED_LAYERS).map(({ node, sqnr_db, input_sqnr_db }) => {
    const from = input_sqnr_db === null ? "" : `${input_sqnr_db.toFixed(1)} dB in, `;
    return `"${node}" (${from}${sqnr_db.toFixed(1)} dB out)`;
  });
  const named = worst.length === 0 ? "" : ` The layers that lose most: ${worst.join(", ")}.`;
  const advice = `${named}${remedies.length === 0 ? "" : ` Try: ${remedies.join("; ")}.`}`;
  return compared.flatMap((output): Warning[] => {
    const { name, sqnr_db, top1_agreement, max_value } = output;
    if (isBlank(output)) {
      const what =
        max_value === null
          ? "has no finite number on these samples, NaN or infinity alone: it cannot answer them"
          : `is nowhere above ${max_value.toPrecision(2)} on these samples: it finds nothing in them`;
      const message = `The output "${name}" of the original ${what}, and comparing two models there says nothing. Judge it on samples that it finds something in.`;
      return [{ code: "blank_output", message, value: max_value ?? 0 }];
    }
    // Of ids and labels the size of a difference says nothing.
    if (kinds.get(name) === "float" && sqnr_db !== null && sqnr_db < LOW_SQNR_DB) {
      const message = `The output "${name}" has an SQNR of ${sqnr_db.toFixed(1)} dB, below ${LOW_SQNR_DB} dB.${advice}`;
      return [{ code: "low_fidelity", message, value: sqnr_db }];
    }
    // Between classes of noise there is little to choose.
    if (data !== "synthetic" && top1_agreement !== null && top1_agreement < LOW_AGREEMENT) {
      const message = `The output "${name}" gives the same answer as the original in ${(100 * top1_agreement).toFixed(1)} % of cases, fewer than ${100 * LOW_AGREEMENT} %.${advice}`;
      return [{ code: "low_fidelity", message, value: top1_agreement }];
    }
    return [];
  });
}

/** How far the metric of an artifact may be from that of its simulation without a word, and by how many of the samples. */
const SIMULATION_GAP = 0.002;
const SIMULATION_FLIPS = 2;

/** Whether the model that a training with rounding made is as good as the simulation was, over the same samples. */
export function simulationWarnings(
  { metric, metric_samples, student_metric }: Pick<TrainingMetrics, "metric" | "metric_samples" | "student_metric">,
  accuracy: JobMetrics["accuracy"],
): Warning[] {
  if (!accuracy || student_metric === null || accuracy.metric !== metric || accuracy.samples !== metric_samples)
    return [];
  if (!METRICS[accuracy.metric].isShare) return [];
  const gap = accuracy.after - student_metric;
  if (Math.abs(gap) <= Math.max(SIMULATION_GAP, SIMULATION_FLIPS / metric_samples) + 1e-9) return [];
  const [made, simulated] = [accuracy.after, student_metric].map((value) => `${(100 * value).toFixed(2)} %`);
  const message = `The ${metric} of the model is ${made} and that of the simulation, which was trained, ${simulated}, on ${metric_samples} samples.`;
  return [{ code: "differs_from_simulation", message, value: gap }];
}

/** Names that were given and had no effect: fields of data that no input takes, and sizes where there are data. */
export function unusedWarnings(
  { fields }: Pick<DatasetFacts, "fields">,
  inputs: ReadonlySet<string>,
  dims: readonly string[] = [],
): Warning[] {
  const list = (names: readonly string[]) => names.map((name) => JSON.stringify(name)).join(", ");
  const unused = fields.map(({ name }) => name).filter((name) => !inputs.has(name));
  const warnings: Warning[] = [];
  if (unused.length > 0) {
    const message = `Fields of the dataset that are no input of the model were not used: ${list(unused)}.`;
    warnings.push({ code: "unused_fields", message, value: unused.length });
  }
  if (dims.length > 0) {
    const message = `Sizes in evaluation.dims had no effect, because the data have their own: ${list(dims)}.`;
    warnings.push({ code: "unused_dims", message, value: dims.length });
  }
  return warnings;
}
