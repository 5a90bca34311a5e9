import {
  asSimplified,
  type Calibration,
  CoreError,
  calibrate,
  calibrationFromBytes,
  calibrationToBytes,
  compressStatic,
  costTableOf,
  DEFAULT_METHOD,
  type Exclusions,
  emptyBook,
  exclusionTest,
  type Feeds,
  layersAsked,
  type Model,
  type PipelineOptions,
  type Provision,
  patternFor,
  prepareStatic,
  type QdqPattern,
  quantizeStatic,
} from "../../../../core/index.ts";
import type { JobInputs, JobRequest } from "../../../../tasks/protocol.ts";
import type { Compressed, JobEnvironment } from "../../run/job-environment.ts";
import type { JobContext, JobSteps } from "../../run/job-steps.ts";
import { CALIBRATION, KERNELS } from "../cache-keys.ts";
import { bookFromBytes, bookToBytes } from "../kernels-file.ts";
import type { StaticParams, StaticSpec } from "../spec.ts";
import { deploymentOf, TARGETS, type TargetName } from "../targets.ts";
import { accuracyTarget, limitWarnings, rescueOf, speedComparison } from "./accuracy-limits.ts";
import { openSamples } from "./calibration-samples.ts";
import { accuracyProvisions, rangeProvisions, speedProvisions, stretchedProvisions } from "./provisions.ts";
import { roundingOf } from "./rounded-job.ts";
import { evidenceOf } from "./static-evidence.ts";
import { bitsWarnings } from "./stored-bits.ts";

/**
 * Quantizes to static int8 with samples of the job's dataset. Ranges that an earlier job has found are used again.
 * Throws `CoreError` as `compressStatic` does, and `invalid_dataset` when data and model, or labels and metric, do not fit.
 */
export async function compressStaticJob(
  request: JobRequest<StaticSpec>,
  original: Model,
  exclude: Exclusions,
  environment: JobEnvironment,
  { signal, news }: JobContext,
  steps: JobSteps<string>,
): Promise<Compressed> {
  const { spec, scratch, threads, models, cached } = request;
  const { params } = spec;
  const { files, host, openTemporary: openModel } = environment;
  const { files: source, facts } = models[spec.model_id]!;
  // Two models are judged at a time.
  if (threads > 1) environment.startThreads(2);
  const samples = await openSamples(request, facts, environment);
  const known = cached[CALIBRATION] && readCalibration(files.readBytes(cached[CALIBRATION]), news);
  const kernelBook = (cached[KERNELS] && bookFromBytes(files.readBytes(cached[KERNELS]), host)) ?? emptyBook();
  const comparison = speedComparison(spec, samples, source[0]!.path, environment, signal);
  try {
    const control = await accuracyTarget(spec, samples, comparison, environment, signal);
    const result = await compressStatic(
      original,
      { batches: (count) => samples.feeds(count) },
      {
        ...pipelineOptions(params, host.target, samples.runs, exclude),
        rounding: roundingOf(params, { openModel, threads, signal }),
        ...(control ? { control: control.target } : { rescue: rescueOf(params, comparison) }),
      },
      {
        openModel,
        threads,
        signal,
        known,
        kernelBook,
        costTable: costTableOf(host.target),
        profile: environment.profile,
        latencyThreads: spec.evaluation.latency.threads,
        threadClock: environment.threadClock,
        onProgress: (step, fraction, message) => steps.progress(step, fraction, message),
      },
    );
    if (result.kernels && !result.kernels.known) {
      const path = await files.writeBytes(scratch, `${KERNELS}.cache`, bookToBytes(kernelBook, host));
      news({ kind: "cache", name: KERNELS, path });
    }
    if (!known) {
      const path = await files.writeBytes(scratch, `${CALIBRATION}.cache`, calibrationToBytes(result.calibration));
      news({ kind: "cache", name: CALIBRATION, path });
    }
    return {
      model: result.model,
      notes: result.notes,
      simplified: result.prepared.map(asSimplified),
      reference: result.float,
      plan: result.plan,
      evidence: evidenceOf(result, samples, known !== undefined, control),
      warnings: [
        ...(control ? limitWarnings(control, result.control) : []),
        ...bitsWarnings(params, result.plan, result.float),
      ],
      calibrated: samples.calibrated,
      unseen: samples.unseen,
    };
  } finally {
    await comparison.close();
  }
}

/** Runs that a plan looks at, and for how long it goes on: what they reach, and how large values are, decides what is quantized. */
const PLAN_RUNS = 4;
const PLAN_BUDGET_MS = 2000;

/** What `compressStaticJob` decides before it knows what corrections and trials are worth. */
export async function planStaticJob(
  request: JobInputs<StaticSpec>,
  original: Model,
  exclude: Exclusions,
  environment: JobEnvironment,
  { signal }: JobContext,
): Promise<Pick<Compressed, "model" | "notes" | "plan" | "warnings"> & { readonly provisional: readonly Provision[] }> {
  const { spec } = request;
  const samples = await openSamples(request, request.models[spec.model_id]!.facts, environment);
  const sample = await samples.first();
  const runtime = { openModel: environment.openTemporary, signal };
  const { model } = await prepareStatic(original, sample, runtime, patternOf(spec.params));
  const options = pipelineOptions(spec.params, environment.host.target, 1, exclude);
  const seen = await calibrate(model, inTime(samples.feeds(samples.runs)), runtime);
  // What the ranges are decides nothing else here, and what they will be is known once the whole was calibrated.
  const method = options.method === "auto" ? DEFAULT_METHOD : options.method;
  // A plan measures nothing: where there is a table of costs, it predicts.
  const table = costTableOf(targetOf(spec.params, environment.host.target));
  const floatWhereSlower = options.floatWhereSlower && table && { table };
  const excludeNodes = layersAsked(model, spec.params.layers);
  const provisional = [
    ...rangeProvisions(seen.batches, samples.runs),
    ...stretchedProvisions(model, seen),
    ...accuracyProvisions(spec.params),
    ...speedProvisions(options.floatWhereSlower === "measured"),
  ];
  const made = quantizeStatic(model, seen, { ...options, method, excludeNodes, floatWhereSlower });
  return { ...made, warnings: bitsWarnings(spec.params, made.plan, model), provisional };
}

async function* inTime(runs: AsyncIterable<Feeds>): AsyncGenerator<Feeds> {
  const start = performance.now();
  let count = 0;
  for await (const feeds of runs) {
    if (count++ >= PLAN_RUNS && performance.now() - start > PLAN_BUDGET_MS) return;
    yield feeds;
  }
}

/** Ranges that cannot be read are found anew. */
function readCalibration(bytes: Uint8Array, news: JobContext["news"]): Calibration | undefined {
  try {
    return calibrationFromBytes(bytes);
  } catch (error) {
    if (!(error instanceof CoreError)) throw error;
    news({ kind: "log", level: "warn", message: `Ranges of an earlier job are not used. ${error.message}` });
    return undefined;
  }
}

function targetOf({ target }: StaticParams, host: TargetName): TargetName {
  return target === "auto" ? host : target;
}

/** How a job quantizes, on a machine of this kind. */
export function staticOptionsOf(params: StaticParams, host: TargetName) {
  const options = pipelineOptions(params, host, 1, NOTHING);
  const { percentile, activationDType, perChannel, reduceRange, method, pattern, weightBits } = options;
  return { percentile, activationDType, perChannel, reduceRange, method, pattern, weightBits };
}

/** How pairs are put in for another runtime than onnxruntime on the CPU. */
function patternOf(params: StaticParams): QdqPattern | undefined {
  const deployment = deploymentOf(params);
  const pattern = deployment && patternFor(deployment.rules);
  return (
    pattern && { ...pattern, floatDepthwise: params.float_where_slower ? deployment.slower?.depthwise : undefined }
  );
}

const NOTHING: Exclusions = { nodes: [], ops: [] };

function pipelineOptions(
  params: StaticParams,
  host: TargetName,
  samples: number,
  exclude: Exclusions,
): PipelineOptions {
  const target = targetOf(params, host);
  const table = costTableOf(target);
  const costs = target === host ? "measured" : table && { table };
  return {
    samples,
    layers: params.layers,
    method: params.calibration,
    percentile: params.percentile,
    activationDType: params.activation_dtype === "auto" ? TARGETS[target].activations : params.activation_dtype,
    perChannel: params.per_channel,
    weightBits: params.weight_bits,
    reduceRange: TARGETS[target].reduceRange,
    pattern: patternOf(params),
    floatWhereSlower: params.float_where_slower ? costs : undefined,
    equalize: params.equalize,
    smoothQuantAlpha: params.smooth_quant_alpha,
    biasCorrection: params.bias_correction,
    isExcluded: exclusionTest(exclude),
  };
}
