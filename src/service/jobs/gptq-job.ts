import {
  asSimplified,
  type Exclusions,
  gptqWeights,
  type Model,
  QuantizedWeights,
  removeDeadCode,
  runPasses,
  simplifyPasses,
  type WeightOnlyOptions,
  weightOnlyPass,
} from "../../core/index.ts";
import type { JobRequest } from "../tasks.ts";
import { type GptqParams, type GptqSpec, openSamples } from "./calibration-samples.ts";
import type { Compressed, JobEnvironment } from "./job-environment.ts";
import type { JobContext, JobSteps } from "./job-steps.ts";
import { BLOCK_SIZES } from "./spec.ts";

export function weightOptions(params: Omit<GptqParams, "dataset_id">, exclude: Exclusions): WeightOnlyOptions {
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
 * Stores weights in few bits, rounded by GPTQ for samples of the job's dataset. Throws `CoreError`: `invalid_dataset` when data and model
 * do not fit, what onnxruntime says of the model, and `cancelled`.
 */
export async function compressGptqJob(
  request: JobRequest<GptqSpec>,
  original: Model,
  exclude: Exclusions,
  environment: JobEnvironment,
  { signal }: JobContext,
  steps: JobSteps<string>,
): Promise<Compressed> {
  const { spec, threads, models } = request;
  const samples = await openSamples(request, models[spec.model_id]!.facts, environment);
  const options = weightOptions(spec.params, exclude);
  const simple = runPasses(original, simplifyPasses());
  const { weights, notes: rounding } = await gptqWeights(simple.model, options, () => samples.feeds(samples.runs), {
    openModel: environment.openTemporary,
    threads,
    signal,
    onProgress: (fraction, message) => steps.progress("round", fraction, message),
  });
  const { model, notes } = runPasses(simple.model, [
    weightOnlyPass(options, new QuantizedWeights(weights)),
    removeDeadCode,
  ]);
  return {
    model,
    notes,
    simplified: [...simple.notes.map(asSimplified), ...rounding],
    reference: { model: simple.model, results: new Map() },
    unseen: samples.unseen,
  };
}
