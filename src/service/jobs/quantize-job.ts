import {
  buildReport,
  type Dataset,
  dynamicPass,
  evaluateModels,
  float16Pass,
  inspectModel,
  type MeasurePeak,
  type Model,
  type Note,
  type OpenSession,
  type Pass,
  predictedBytes,
  type QuantizePlan,
  removeDeadCode,
  renderReport,
  runPasses,
  simplifyPasses,
  weightOnlyPass,
} from "../../core/index.ts";
import type { JobInputs, JobOutcome, JobRequest, LocalFile, ProducedFile } from "../tasks.ts";
import { createJobSteps, type JobContext } from "./job-steps.ts";
import { BLOCK_SIZES, type QuantizeSpec } from "./spec.ts";

type Params = QuantizeSpec["params"];
type Target = Exclude<Params["target"], "auto">;

/** What a job needs of the machine it runs on. */
export interface JobEnvironment {
  readonly openSession: OpenSession;
  readonly measurePeak: MeasurePeak;
  readonly files: {
    openModel(files: readonly LocalFile[]): Model;
    /** The model at `path`, with its weights in `<path>.data` where there is such a file. */
    openWrittenModel(path: string): Model;
    /** Writes a model as `name`, with its weights in `<name>.data` when they do not fit in one file. */
    writeModel(
      model: Model,
      directory: string,
      name: string,
      options: { readonly signal: AbortSignal },
    ): Promise<readonly ProducedFile[]>;
    writeText(directory: string, name: string, mediaType: string, text: string): Promise<ProducedFile>;
    /** Undefined when the last one of that name is still there, waiting to be stored. */
    writeCheckpoint(directory: string, name: string, bytes: Uint8Array): Promise<string | undefined>;
    readBytes(file: LocalFile): Uint8Array;
    openDataset(file: LocalFile, spec: unknown): Promise<Dataset>;
    sizeOf(files: readonly LocalFile[]): number;
  };
  readonly host: {
    readonly cpu: string;
    readonly isa: readonly string[];
    readonly target: Target;
    readonly onnxruntime: string;
    readonly versions: Readonly<Record<string, string>>;
  };
}

/** The pass that does what each method is named for. */
const METHODS: {
  readonly [M in Params["method"]]: (params: Extract<Params, { method: M }>, target: Target) => Pass;
} = {
  float16: (params) => float16Pass({ keepIo: params.keep_io, exclude: exclusions(params) }),
  dynamic: (params, target) =>
    dynamicPass({ perChannel: params.per_channel, pairSafe: saturates(target), exclude: exclusions(params) }),
  weight_only: (params) =>
    weightOnlyPass({
      bits: params.bits,
      blockSize: params.block_size ?? BLOCK_SIZES[params.bits],
      symmetric: params.symmetric,
      format: params.format,
      embeddings: params.embeddings,
      accuracyLevel: params.accuracy_level,
      exclude: exclusions(params),
    }),
};

/** Shares of the whole job that have passed when each step begins. */
const STEP_STARTS = { load: 0, compress: 0.02, write: 0.05, evaluate: 0.3, report: 0.98 } as const;

/**
 * Compresses a model as the spec asks, writes the result to the scratch directory, and judges it against the original.
 * Throws `CoreError`: `invalid_model`, `invalid_dataset` and `invalid_params` are the input's fault, `cancelled` is the caller's.
 */
export async function runQuantizeJob(
  request: JobRequest<QuantizeSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<JobOutcome> {
  const { spec, scratch, threads } = request;
  const source = request.models[spec.model_id]!;
  const { files, host, openSession } = environment;
  const { signal } = context;
  const steps = createJobSteps(STEP_STARTS, context);

  const original = await steps.run("load", "Reading the model", () => files.openModel(source));
  const { model, notes, simplified } = await steps.run("compress", `Applying ${spec.params.method}`, () =>
    compress(original, spec.params, host.target),
  );
  const written = await steps.run("write", "Writing the compressed model", () =>
    files.writeModel(model, scratch, "model.onnx", { signal }),
  );
  const evaluation = await steps.run("evaluate", "Comparing with the original", async () => {
    const { dataset_id } = spec.evaluation;
    const data = dataset_id === null ? undefined : request.datasets[dataset_id];
    return evaluateModels({
      before: { path: source[0]!.path, bytes: files.sizeOf(source) },
      after: { path: written[0]!.path, bytes: files.sizeOf(written) },
      data: data && { dataset: await files.openDataset(data.file, data.spec), kind: "evaluation" },
      spec: spec.evaluation,
      acceptance: spec.acceptance,
      notes,
      seed: spec.params.seed,
      threads,
      host,
      openSession,
      measurePeak: environment.measurePeak,
      readModel: files.openWrittenModel,
      scratchPath: `${scratch}/optimized.onnx`,
      signal,
      onProgress: (done, message) => steps.progress("evaluate", done, message),
    });
  });
  return steps.run("report", "Writing the report", async () => {
    const facts = {
      before: await inspectModel(original, { openSession, source: { path: source[0]!.path }, dims: {}, signal }),
      after: await inspectModel(model, { openSession, source: { path: written[0]!.path }, dims: {}, signal }),
    };
    const report = buildReport({
      createdAt: new Date(),
      job: { id: request.job_id, ...spec },
      evaluation,
      models: facts,
      notes: [...simplified, ...notes],
      timingsMs: steps.timingsMs,
    });
    return {
      model: written,
      reports: [
        await files.writeText(scratch, "report.json", "application/json", `${JSON.stringify(report, null, 2)}\n`),
        await files.writeText(scratch, "report.html", "text/html; charset=utf-8", await renderReport(report)),
      ],
      facts: facts.after,
      metrics: evaluation.metrics,
      accepted: evaluation.accepted,
    };
  });
}

/** Says what a job would do to each node, and how large the result would be. Nothing is computed and nothing is run. */
export function planQuantizeJob(request: JobInputs<QuantizeSpec>, { files, host }: JobEnvironment): QuantizePlan {
  const { spec } = request;
  const source = request.models[spec.model_id]!;
  const { model, notes } = compress(files.openModel(source), spec.params, host.target);
  const before = files.sizeOf(source);
  const predicted = predictedBytes(model);
  const withOutcome = (wanted: Note["outcome"]) =>
    notes.filter(({ outcome }) => outcome === wanted).map(({ outcome: _, ...note }) => note);
  return {
    method: spec.params.method,
    quantized_nodes: withOutcome("changed"),
    skipped_nodes: withOutcome("skipped"),
    size: { before_bytes: before, predicted_bytes: predicted, ratio: predicted / before },
  };
}

interface Compressed {
  readonly model: Model;
  /** What the method said about nodes: this is the coverage. */
  readonly notes: readonly Note[];
  /** What was said while the model was made simpler, before. */
  readonly simplified: readonly Note[];
}

/** The graph of the result. Its weights are computed when they are written. */
function compress(original: Model, params: Params, target: Target): Compressed {
  const method = METHODS[params.method] as (params: Params, target: Target) => Pass;
  const simple = runPasses(original, simplifyPasses());
  const { model, notes } = runPasses(simple.model, [
    method(params, params.target === "auto" ? target : params.target),
    removeDeadCode,
  ]);
  return { model, notes, simplified: simple.notes.map((note) => ({ ...note, outcome: "simplified" })) };
}

function exclusions(params: Params): { readonly nodes: readonly string[]; readonly ops: readonly string[] } {
  return { nodes: params.exclude_nodes, ops: params.exclude_ops };
}

/** Without VNNI, x64 adds products of u8 and s8 in saturating 16 bits: weights then keep to 7 bits. */
function saturates(target: Target): boolean {
  return target === "x64-avx2" || target === "portable";
}
