import {
  type AccuracyTarget,
  asSimplified,
  type Calibration,
  CoreError,
  type CorrectionFacts,
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
  LOW_SQNR_DB,
  layersAsked,
  type MetricName,
  type Model,
  measureSpeedup,
  type PipelineOptions,
  type PipelineResult,
  type Provision,
  patternFor,
  prepareStatic,
  type QdqPattern,
  quantizeStatic,
  type Session,
  type StaticEvidence,
  scoreFidelity,
  scoreModel,
  scoreOf,
} from "../../../../core/index.ts";
import type { JobInputs, JobRequest } from "../../../../tasks/protocol.ts";
import { metricOf } from "../../evaluation.ts";
import type { Compressed, JobEnvironment } from "../../run/job-environment.ts";
import type { JobContext, JobSteps } from "../../run/job-steps.ts";
import { CALIBRATION, KERNELS } from "../cache-keys.ts";
import { bookFromBytes, bookToBytes } from "../kernels-file.ts";
import type { StaticParams, StaticSpec } from "../spec.ts";
import { deploymentOf, TARGETS, type TargetName } from "../targets.ts";
import { type CalibrationSamples, openSamples } from "./calibration-samples.ts";
import { accuracyProvisions, rangeProvisions, speedProvisions, stretchedProvisions } from "./provisions.ts";
import { roundingOf } from "./rounded-job.ts";
import { bitsWarnings } from "./stored-bits.ts";

/** What is reported of outputs that are exactly the same. */
const MAX_DB = 200;

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

/** The original model, loaded when something is first compared with it. */
interface SpeedComparison {
  original(): Promise<Session>;
  /** Median latency of the original over that of a model. */
  speedup(model: Model): Promise<number>;
  close(): Promise<void>;
}

function speedComparison(
  spec: StaticSpec,
  samples: CalibrationSamples,
  originalPath: string,
  environment: JobEnvironment,
  signal: AbortSignal,
): SpeedComparison {
  const { threads } = spec.evaluation.latency;
  let opened: Promise<Session> | undefined;
  const original = () => (opened ??= environment.openSession({ path: originalPath }, { threads }));
  return {
    original,
    speedup: async (model) => {
      const [reference, feeds] = [await original(), await samples.first()];
      return usingModel(model, threads, environment, (session) => measureSpeedup(reference, session, feeds, signal));
    },
    close: async () => (await opened)?.close(),
  };
}

async function usingModel<T>(
  model: Model,
  threads: number,
  { openTemporary }: JobEnvironment,
  use: (session: Session) => Promise<T>,
): Promise<T> {
  const session = await openTemporary(model, { threads });
  try {
    return await use(session);
  } finally {
    await session.close();
  }
}

interface Control {
  readonly target: AccuracyTarget;
  /** What is scored: a metric, or `sqnr_db`. */
  readonly score: string;
  readonly originalScore: number | null;
}

const SQNR = "sqnr_db";

/** A limit that was asked for and is not kept. */
function limitWarnings(
  { score, target }: Control,
  found: PipelineResult["control"],
): NonNullable<Compressed["warnings"]> {
  if (!found || found.reached) return [];
  const best = Math.max(...found.trials.map((trial) => trial.score));
  // Of a metric that is better when lower, the score is its negative.
  const told = (value: number) => `${Math.abs(value).toPrecision(4)}${score === SQNR ? " dB" : ""}`;
  const message = `The best of ${found.trials.length} models has ${score} ${told(best)} on the samples that it was chosen by, and ${told(target.target)} was asked for.`;
  return [{ code: "target_not_reached", message, value: best }];
}

/** What accuracy control is to hold, if anything was asked for. */
async function accuracyTarget(
  spec: StaticSpec,
  samples: CalibrationSamples,
  { original, speedup }: SpeedComparison,
  environment: JobEnvironment,
  signal: AbortSignal,
): Promise<Control | undefined> {
  const { max_metric_drop: maxDrop, min_sqnr_db: minSqnrDb, max_trials: maxTrials } = spec.params;
  const { threads } = spec.evaluation.latency;
  const batches = () => samples.scored.batches({ batchSize: samples.batchSize, signal });
  const using = <T>(model: Model, use: (session: Session) => Promise<T>) =>
    usingModel(model, threads, environment, use);
  if (maxDrop === null) {
    if (typeof minSqnrDb !== "number") return undefined;
    const reference = await original();
    const score = (model: Model) => using(model, (session) => scoreFidelity(reference, session, batches(), signal));
    return { target: { score, speedup, target: minSqnrDb, maxTrials }, score: SQNR, originalScore: null };
  }
  const { ignore_label } = spec.evaluation;
  const scored = (session: Session, metric: MetricName | null) =>
    scoreModel(session, batches(), metric, ignore_label, signal);
  const { metric, value } = await scored(await original(), metricOf(spec.evaluation));
  const score = (model: Model) =>
    using(model, async (session) => scoreOf(metric, (await scored(session, metric)).value));
  const originalScore = scoreOf(metric, value);
  const target = originalScore - maxDrop;
  return { target: { score, speedup, target, maxTrials }, score: metric, originalScore };
}

/** What a poor result that nothing was asked of has to reach on few samples, so that it is above `LOW_SQNR_DB` on others. */
const RESCUED_DB = LOW_SQNR_DB + 1;

/** What a poor result is brought to where nothing was asked for. */
function rescueOf(
  { max_metric_drop, min_sqnr_db, max_trials: maxTrials }: StaticParams,
  { speedup }: SpeedComparison,
): PipelineOptions["rescue"] {
  const isWanted = max_metric_drop === null && min_sqnr_db === "auto";
  return isWanted ? { target: RESCUED_DB, speedup, maxTrials } : undefined;
}

function rounded(us: number): number {
  return Number(us.toPrecision(4));
}

function evidenceOf(
  {
    calibration,
    kernels,
    slower,
    method,
    methodsTried,
    corrections,
    sensitivity,
    control: found,
    float,
  }: PipelineResult,
  { calibrated }: CalibrationSamples,
  isCalibrationKnown: boolean,
  control: Control | undefined,
): StaticEvidence {
  const target = control?.target.target ?? RESCUED_DB;
  // Inside, nodes are known by names that are unique in all bodies; users know them by their labels.
  const labels = new Map([...float.nodes()].map(({ name, label }) => [name, label]));
  const labelsOf = (names: readonly string[]) => names.map((name) => labels.get(name) ?? name);
  const chosen = found?.floatLayers.toSorted().join("\n");
  return {
    calibration: {
      method,
      tried: methodsTried.map((it) => ({ method: it.method, sqnr_db: Math.min(it.sqnrDb, MAX_DB) })),
      samples: calibrated,
      tensors: calibration.activations.size,
      cached: isCalibrationKnown,
    },
    kernels: kernels
      ? {
          ...kernels.facts,
          nodes: [...new Set(labelsOf(slower))],
          layers: kernels.layers.map(({ name, floatUs, int8Us }) => ({
            ...{ node: labels.get(name) ?? name, float_us: rounded(floatUs), int8_us: rounded(int8Us) },
          })),
          cached: kernels.known,
        }
      : null,
    corrections: corrections.map(
      (it): CorrectionFacts => ({
        ...it,
        sqnr_before_db: Math.min(it.sqnr_before_db, MAX_DB),
        sqnr_after_db: Math.min(it.sqnr_after_db, MAX_DB),
      }),
    ),
    sensitivity: sensitivity.map(({ names, sqnrDb, gainDb }) => ({
      nodes: labelsOf(names),
      sqnr_db: sqnrDb,
      gain_db: gainDb,
    })),
    control: found
      ? {
          score: control?.score ?? SQNR,
          target,
          original_score: control?.originalScore ?? null,
          reached: found.reached,
          stored_nodes: labelsOf([...found.stored]),
          trials: found.trials.map(({ floatLayers, score, speedup, bytes }) => ({
            float_nodes: labelsOf(floatLayers),
            score: Math.min(score, MAX_DB),
            size_bytes: bytes,
            speedup,
            chosen: floatLayers.toSorted().join("\n") === chosen,
          })),
        }
      : null,
  };
}
