import {
  adaround,
  asSimplified,
  type Exclusions,
  gptq,
  type Model,
  nearest,
  type OpenModel,
  planOf,
  QuantizedWeights,
  type Rounding,
  removeDeadCode,
  roundWeights,
  runPasses,
  simplifyPasses,
  stochastic,
  unfuse,
  type WeightOnlyOptions,
  type WeightUse,
  weightOnlyPass,
} from "../../../../core/index.ts";
import type { JobRequest } from "../../../../tasks/protocol.ts";
import type { Compressed, JobEnvironment } from "../../run/job-environment.ts";
import type { JobContext, JobSteps } from "../../run/job-steps.ts";
import { BLOCK_SIZES, CANDIDATES } from "../params.ts";
import type { RoundedParams, RoundedSpec } from "../spec.ts";
import { openSamples } from "./calibration-samples.ts";

/** How a job rounds weights. */
export function roundingOf(
  { rounding, candidates, seed }: Pick<RoundedParams, "rounding" | "candidates" | "seed">,
  runtime: { readonly openModel: OpenModel; readonly threads: number; readonly signal: AbortSignal },
): Rounding {
  switch (rounding) {
    case "gptq":
      return gptq(runtime);
    case "adaround":
      return adaround(runtime);
    case "stochastic":
      return stochastic({ seed, candidates: candidates ?? CANDIDATES, signal: runtime.signal });
    default:
      return nearest;
  }
}

export function weightOptions(params: Omit<RoundedParams, "dataset_id">, exclude: Exclusions): WeightOnlyOptions {
  return {
    bits: params.bits,
    blockSize: params.block_size ?? BLOCK_SIZES[params.bits],
    symmetric: params.symmetric,
    format: params.format,
    embeddings: params.embeddings,
    accuracyLevel: params.accuracy_level,
    exclude,
  };
}

/**
 * Stores weights in few bits, rounded for samples of the job's dataset. Throws `CoreError`: `invalid_dataset` when data and model
 * do not fit, what onnxruntime says of the model, and `cancelled`.
 */
export async function compressRoundedJob(
  request: JobRequest<RoundedSpec>,
  original: Model,
  exclude: Exclusions,
  environment: JobEnvironment,
  { signal }: JobContext,
  steps: JobSteps<string>,
): Promise<Compressed> {
  const { spec, threads, models } = request;
  const samples = await openSamples(request, models[spec.model_id]!.facts, environment);
  const options = weightOptions(spec.params, exclude);
  const simple = runPasses(original, [...simplifyPasses(), unfuse], { settle: true });
  const openModel = environment.openTemporary;
  const rounding = roundingOf(spec.params, { openModel, threads, signal });
  const rounded = await roundWeights(simple.model, options, rounding, () => samples.feeds(samples.runs), {
    openModel,
    threads,
    signal,
    onProgress: (fraction, message) => steps.progress("round", fraction, message),
  });
  const uses: WeightUse[] = [];
  const { model, notes } = runPasses(simple.model, [
    weightOnlyPass(options, new QuantizedWeights(rounded.weights), (found) => uses.push(...found)),
    removeDeadCode,
  ]);
  return {
    model,
    notes,
    simplified: [...simple.notes.map(asSimplified), ...rounded.notes],
    reference: simple.model,
    plan: planOf(notes, uses),
    calibrated: samples.calibrated,
    unseen: samples.unseen,
  };
}
