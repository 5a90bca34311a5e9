import type { Batch, Dataset } from "../data/dataset.ts";
import { feedsFor } from "../data/fit.ts";
import { CoreError, checkCancelled } from "../errors.ts";
import type { JobMetrics, LayerError, OutputFacts, ValueFacts, Warning } from "../facts.ts";
import type { Model } from "../onnx/ir.ts";
import { modelToBytes } from "../onnx/save.ts";
import type { Note } from "../passes/pass.ts";
import { auditFusion, type FusionAudit } from "../runtime/fusion-audit.ts";
import { type Latency, measureLatency } from "../runtime/latency.ts";
import type { OpenSession, Session } from "../runtime/session.ts";
import { type AcceptanceLimits, checkAcceptance } from "./acceptance.ts";
import {
  brokenModel,
  type Comparison,
  compare,
  type Feeds,
  type Inputs,
  type OutputPair,
  openPair,
  type Pair,
  requireSameKind,
  runOriginal,
} from "./comparison.ts";
import { coverageOf } from "./coverage.ts";
import { evaluationInputs } from "./evaluation-inputs.ts";
import { measureLayerErrors } from "./layer-errors.ts";
import type { MetricName } from "./metrics.ts";
import { shapesByValue } from "./value-shapes.ts";
import { comparisonWarnings, costWarnings, fidelityWarnings, unusedWarnings } from "./warnings.ts";

/** One model to run in a process of its own. */
export interface PeakRequest {
  readonly modelPath: string;
  /** Arrays of a batch; the model is fed what `feedsFor` makes of them. */
  readonly feeds: Feeds;
  readonly runs: number;
  readonly threads: number;
}

export interface PeakMemory {
  /** Most resident bytes of the process, runtime and all. */
  readonly peakBytes: number;
  /** What it had before it loaded the model. */
  readonly baselineBytes: number;
}

/** Runs a model in a fresh process and answers what memory that took. Throws `BrokenModel` when the model takes the process with it. */
export type MeasurePeak = (request: PeakRequest, signal?: AbortSignal) => Promise<PeakMemory>;

export interface EvaluationSpec {
  /** Null: all there are, up to `MAX_EVALUATED_SAMPLES`, for as long as the slower model has run for less than `MAX_COMPARED_MS`. */
  readonly samples: number | null;
  /** Null: `top1` for integer labels, `mse` for others, where they fit an output; else none. */
  readonly metric: MetricName | null;
  /** The label of what has none: it does not count. */
  readonly ignore_label?: number | null;
  /** Sizes of symbolic dimensions, for synthetic input. */
  readonly dims: Readonly<Record<string, number>>;
  /** Whether errors are looked for layer by layer; they are unless it is false. */
  readonly layer_errors?: boolean;
  readonly latency: { readonly runs: number; readonly batch_size: number; readonly threads: number };
}

export interface EvaluateOptions {
  /** Paths of the two models; external data lies beside them. */
  readonly before: {
    readonly path: string;
    readonly bytes: number;
    /** What is recorded of its outputs: what their numbers are. */
    readonly outputs?: readonly OutputFacts[];
  };
  readonly after: {
    readonly path: string;
    readonly bytes: number;
    /** The same model in the form that really rounds to float16, if it has one: what it answers is judged by that, its cost by `path`. */
    readonly roundedPath?: string | undefined;
  };
  /** Without data the models are compared on synthetic input. */
  readonly data?:
    | { readonly dataset: Dataset; readonly kind: Exclude<JobMetrics["fidelity"]["data"], "synthetic"> }
    | undefined;
  /** Outputs that are compared, where not every output has the name that it has in the original. */
  readonly pairs?: readonly OutputPair[] | undefined;
  readonly spec: EvaluationSpec;
  readonly acceptance: AcceptanceLimits;
  /** What the passes said about nodes. */
  readonly notes: readonly Note[];
  /** What is to be said of the result before it is judged. */
  readonly warnings?: readonly Warning[] | undefined;
  /** What can be tried when the result is not good: given for compression, where outputs are meant to stay the same. */
  readonly remedies?: readonly string[] | undefined;
  /** What users call the nodes of the compressed model, by node or value name. */
  readonly labels?: ReadonlyMap<string, string> | undefined;
  readonly seed: number;
  /** Intra-operator threads, except while latency is measured. */
  readonly threads: number;
  readonly host: {
    readonly cpu: string;
    readonly isa: readonly string[];
    readonly onnxruntime: string;
    readonly versions: Readonly<Record<string, string>>;
  };
  readonly openSession: OpenSession;
  readonly measurePeak: MeasurePeak;
  /**
   * The original as the method got it, and which values of the compressed model stand for values of it that have other names there. Without it
   * there are no errors of layers.
   */
  readonly layerReference?: { readonly model: Model; readonly results: Readonly<Record<string, string>> } | undefined;
  /** Reads a model that a job or onnxruntime has written; its weights are in `<path>.data` when that exists. */
  readonly readModel: (path: string) => Model;
  /** A path that may be written to, as may `<path>.data`; the caller removes both. */
  readonly scratchPath: string;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (fraction: number, message: string) => void;
}

/** The metrics, and what only the report shows. */
export interface Evaluation {
  readonly metrics: JobMetrics;
  readonly accepted: boolean;
  /** Shapes of the inputs of one run. */
  readonly inputShapes: Readonly<Record<string, readonly number[]>>;
  readonly latencySamplesMs: Latency["samplesMs"];
  /** Operators of the graph that onnxruntime makes of the compressed model. */
  readonly optimizedOperators: Readonly<Record<string, number>>;
  /** Of layers that both models have; null where there are none, and for models that are too large to look inside. */
  readonly layerErrors: readonly LayerError[] | null;
  readonly timingsMs: Readonly<Record<string, number>>;
}

/** ... of models that are still at hand. */
export interface FedEvaluation extends Evaluation {
  /** What both were fed while latency was measured. */
  readonly feeds: { readonly before: Feeds; readonly after: Feeds };
}

/** and no more when the slower model has run for so long. */
export const MAX_COMPARED_MS = 60_000;
/** Runs whose memory is measured: the first one allocates, the second shows whether that was all. */
const PEAK_RUNS = 2;

/** Larger models are not looked into: that takes a copy of each. */
const MAX_LAYERED_BYTES = 256 * 2 ** 20;
/** Errors of layers are looked for no longer than this share of the evaluation before them, and never shorter than that. */
const LAYER_SHARE = 0.5;
const MIN_LAYER_MS = 10_000;
/** Samples that errors of layers are taken from; the whole of a first batch that is larger. */
const LAYER_SAMPLES = 8;

/** Where each phase ends, as a fraction of the whole. */
const PROGRESS = { fidelity: 0.45, latency: 0.75, memory: 0.87, layers: 0.97, fusion: 1 } as const;

/**
 * Holds a compressed model against the original: fidelity on the same inputs, a metric where there are labels, latency in turns, peak
 * memory in a process each, the error of each layer, and what onnxruntime made of the quantized nodes. Both models run at the batch
 * size that latency is asked for, since dynamic quantization depends on what shares a batch.
 *
 * Throws `invalid_dataset` when the data cannot feed the original, `invalid_params` when a metric has no labels or no synthetic input is found,
 * `non_finite` when the compressed model gives NaN or infinity where the original gives numbers, `BrokenModel` when it does not run, `internal` when
 * it gives an output another shape than the original does: that is never the user's fault.
 */
export async function evaluateModels(options: EvaluateOptions): Promise<FedEvaluation> {
  const { spec, openSession, signal, onProgress } = options;
  const { threads } = spec.latency;
  const paths = { before: options.before.path, after: options.after.path };
  const timingsMs: Record<string, number> = {};
  const start = performance.now();
  const late: Warning[] = [];
  const timed = async <T>(step: string, work: () => Promise<T>): Promise<T> => {
    checkCancelled(signal);
    const start = performance.now();
    const result = await work();
    timingsMs[step] = performance.now() - start;
    return result;
  };

  const peak = (modelPath: string, feeds: Feeds) =>
    options.measurePeak({ modelPath, feeds, runs: PEAK_RUNS, threads }, signal);
  const original = await timed("load", () => openSession({ path: paths.before }, { threads: options.threads }));
  let pair: Pair;
  let inputs: Inputs;
  let peakAfter: PeakMemory;
  try {
    inputs = await timed("inputs", () => evaluationInputs(options, original));
    peakAfter = await timed("check", () => checkRuns(original, inputs, (feeds) => peak(paths.after, feeds), signal));
  } catch (error) {
    await original.close();
    throw error;
  }
  const { roundedPath } = options.after;
  const judged = roundedPath === undefined ? paths : { ...paths, after: roundedPath };
  pair = await timed("load_compressed", () =>
    openPair(openSession, judged, options.threads, original, roundedPath !== undefined),
  );
  try {
    const comparison = await timed("fidelity", () =>
      compare(pair, inputs, {
        metric: spec.metric,
        ignoreLabel: spec.ignore_label ?? null,
        pairs: options.pairs,
        outputs: options.before.outputs,
        maxMs: spec.samples === null ? MAX_COMPARED_MS : undefined,
        signal,
        onSamples: (samples) =>
          onProgress?.(
            PROGRESS.fidelity * (samples / inputs.samples),
            `fidelity: ${samples} of ${inputs.samples} samples`,
          ),
      }),
    );
    // Without a reference the models are a teacher and a student, whose shapes are the user's business.
    const { layerReference } = options;
    requireSameKind(comparison, layerReference ? shapesByValue(layerReference.model) : () => true);
    if (options.threads !== threads || roundedPath !== undefined) {
      await pair.close();
      pair = await timed("reload", () => openPair(openSession, paths, threads));
    }
    const feeds = comparison.firstFeeds;
    const latency = await timed("latency", () =>
      measureLatency({
        before: { session: pair.before, feeds: feeds.before },
        after: { session: pair.after, feeds: feeds.after },
        runs: spec.latency.runs,
        signal,
        onProgress: (fraction) =>
          onProgress?.(
            PROGRESS.fidelity + fraction * (PROGRESS.latency - PROGRESS.fidelity),
            `latency: ${Math.round(fraction * spec.latency.runs)} of ${spec.latency.runs} runs`,
          ),
      }),
    );
    await pair.close();

    onProgress?.(PROGRESS.latency, "peak memory");
    const memory = await timed("memory", async () => ({
      before: await peak(options.before.path, feeds.before),
      after: peakAfter,
    }));
    onProgress?.(PROGRESS.memory, "error of each layer");
    const layerErrors = await timed("layers", () => layerErrorsOf(options, inputs, performance.now() - start, late));
    onProgress?.(PROGRESS.layers, "fused kernels");
    const fusion = await timed("fusion", () =>
      auditFusion({ ...options, modelPath: options.after.path, modelBytes: options.after.bytes }),
    );

    const measured = metricsOf(options, inputs, comparison, latency, memory, fusion, {
      ...interfaceOf(pair),
      layerErrors,
      late,
    });
    const acceptance = checkAcceptance(options.acceptance, measured);
    onProgress?.(PROGRESS.fusion, "evaluated");
    return {
      metrics: { ...measured, acceptance },
      accepted: acceptance.every(({ ok }) => ok),
      feeds,
      inputShapes: Object.fromEntries(Object.entries(feeds.before).map(([name, { dims }]) => [name, dims])),
      latencySamplesMs: latency.samplesMs,
      optimizedOperators: fusion.operators,
      layerErrors,
      timingsMs,
    };
  } finally {
    await pair.close();
  }
}

/** Runs the compressed model on the first batch, in a process of its own, and answers the memory that it took. */
async function checkRuns(
  original: Session,
  inputs: Inputs,
  run: (feeds: Feeds) => Promise<PeakMemory>,
  signal: AbortSignal | undefined,
): Promise<PeakMemory> {
  for await (const { feeds } of inputs.batches()) {
    try {
      return await run(feeds);
    } catch (error) {
      // Input that the original does not take either says nothing about what was made of it.
      await runOriginal(original, feedsFor(original.inputs, feeds), inputs.kind, signal);
      throw brokenModel(error, feeds);
    }
  }
  throw new CoreError("invalid_dataset", "There are no samples.");
}

async function layerErrorsOf(
  options: EvaluateOptions,
  inputs: Inputs,
  spentMs: number,
  late: Warning[],
): Promise<readonly LayerError[] | null> {
  const { before, after, layerReference, readModel, openSession, threads, signal, onProgress } = options;
  if (!layerReference || options.spec.layer_errors === false || Math.max(before.bytes, after.bytes) > MAX_LAYERED_BYTES)
    return null;
  return measureLayerErrors({
    reference: layerReference.model,
    results: layerReference.results,
    changed: new Set(options.notes.filter(({ outcome }) => outcome === "changed").map(({ name }) => name)),
    compressed: readModel(after.roundedPath ?? after.path),
    batches: firstSamples(inputs, LAYER_SAMPLES),
    openModel: (model, options) =>
      openSession(
        { bytes: modelToBytes(model) },
        { ...options, ...(after.roundedPath !== undefined && { optimization: "basic" }) },
      ),
    threads,
    budgetMs: Math.max(MIN_LAYER_MS, spentMs * LAYER_SHARE),
    onIncomplete: (compared, of) => {
      const message = `Errors of layers were measured for ${compared} of ${of} layers: runs of this model take long. evaluation.layer_errors: false leaves them out.`;
      late.push({ code: "layer_errors_incomplete", message, value: compared });
    },
    signal,
    onProgress: (fraction) =>
      onProgress?.(PROGRESS.memory + fraction * (PROGRESS.layers - PROGRESS.memory), "error of each layer"),
  });
}

async function* firstSamples(inputs: Inputs, most: number): AsyncIterable<Batch> {
  let samples = 0;
  for await (const batch of inputs.batches()) {
    yield batch;
    samples += batch.count;
    if (samples >= most) return;
  }
}

/** What the models take and give, and where their error arises. */
interface Seen {
  /** Names of the inputs of either. */
  readonly inputs: ReadonlySet<string>;
  /** Of the original. */
  readonly outputs: readonly ValueFacts[];
  readonly layerErrors: readonly LayerError[] | null;
  /** What is to be said of how they were found. */
  readonly late: readonly Warning[];
}

function interfaceOf({ before, after }: Pair): Pick<Seen, "inputs" | "outputs"> {
  return { inputs: new Set([...before.inputs, ...after.inputs].map(({ name }) => name)), outputs: before.outputs };
}

function warningsOf(options: EvaluateOptions, inputs: Inputs, comparison: Comparison, seen: Seen): Warning[] {
  const { data, remedies, spec } = options;
  return [
    ...(options.warnings ?? []),
    ...seen.late,
    ...(remedies ? fidelityWarnings(seen.outputs, comparison.outputs, inputs.kind, seen.layerErrors, remedies) : []),
    ...comparisonWarnings(seen.outputs, comparison, { samples: comparison.samples, data: inputs.kind }),
    ...(data ? unusedWarnings(data.dataset.facts, seen.inputs, Object.keys(spec.dims)) : []),
  ];
}

function metricsOf(
  options: EvaluateOptions,
  inputs: Inputs,
  comparison: Comparison,
  latency: Latency,
  memory: { readonly before: PeakMemory; readonly after: PeakMemory },
  fusion: FusionAudit,
  seen: Seen,
): Omit<JobMetrics, "acceptance"> {
  const { spec, host, notes } = options;
  const { threads } = spec.latency;
  const size = { before_bytes: options.before.bytes, after_bytes: options.after.bytes };
  const sizes = { ...size, ratio: size.after_bytes / size.before_bytes };
  const speeds = {
    before: latency.before,
    after: latency.after,
    speedup: latency.speedup,
    speedup_interval: latency.speedupInterval,
    batch_size: inputs.batchSize,
    threads,
    runs: latency.runs,
    cpu: host.cpu,
  };
  return {
    size: sizes,
    fidelity: { samples: comparison.samples, data: inputs.kind, outputs: comparison.outputs },
    accuracy: comparison.accuracy,
    latency: speeds,
    memory: {
      before_peak_bytes: memory.before.peakBytes,
      after_peak_bytes: memory.after.peakBytes,
      baseline_bytes: Math.min(memory.before.baselineBytes, memory.after.baselineBytes),
    },
    coverage: coverageOf(notes, fusion),
    training: null,
    exits: null,
    deployment: null,
    models: null,
    auto: null,
    warnings: [
      ...warningsOf(options, inputs, comparison, seen),
      ...costWarnings({ size: sizes, latency: speeds }, latency.samplesMs),
    ],
    environment: {
      onnxruntime: host.onnxruntime,
      cpu: host.cpu,
      isa: host.isa,
      threads,
      seed: options.seed,
      versions: host.versions,
    },
  };
}
