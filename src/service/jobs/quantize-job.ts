import {
  asSimplified,
  BrokenModel,
  CoreError,
  calibrationWarnings,
  completeNotes,
  coverageWarnings,
  type Dataset,
  dynamicPass,
  type Exclusions,
  float16Pass,
  type Model,
  type Note,
  narrowed,
  type Pass,
  planOf,
  predictedBytes,
  type QuantizePlan,
  removeDeadCode,
  resolveExclusions,
  runPasses,
  simplifyFully,
  simplifyPasses,
  type UnknownName,
  unfuse,
  untouchedExclusions,
  valueFacts,
  type Warning,
  type WeightUse,
  weightFacts,
  weightOnlyPass,
  widened,
} from "../../core/index.ts";
import { type FieldError, pointerOf } from "../errors.ts";
import { type JobInputs, type JobOutcome, type JobRequest, type ProducedFile, TaskError } from "../tasks.ts";
import { isRounded, isStatic, labelTaskOf, openSamples, type StaticParams } from "./calibration-samples.ts";
import { compressFloat16Job, isFloat16 } from "./float16-job.ts";
import type { Compressed, JobEnvironment } from "./job-environment.ts";
import { judgeResult, type MadeModel } from "./job-result.ts";
import { createJobSteps, type JobContext, type JobSteps } from "./job-steps.ts";
import { dataWarnings, labelUse, withLabelUse } from "./label-use.ts";
import { planQatJob, trainQatJob } from "./qat-job.ts";
import { findBreakingNodes } from "./repair.ts";
import { compressRoundedJob, weightOptions } from "./rounded-job.ts";
import { isQat, type QatSpec, type QuantizeSpec } from "./spec.ts";
import { compressStaticJob, planStaticJob } from "./static-job.ts";
import { TARGETS, type TargetName } from "./targets.ts";

type Params = QuantizeSpec["params"];
type PassParams = Exclude<Params, StaticParams | QatSpec["params"] | { readonly method: "simplify" }>;

type PassOf<P> = (
  params: P,
  target: TargetName,
  exclude: Exclusions,
  onWeights: (uses: readonly WeightUse[]) => void,
) => Pass;

/** The passes that do what methods are named for. */
const PASSES: { readonly [M in PassParams["method"]]: PassOf<Extract<PassParams, { method: M }>> } = {
  float16: (params, _target, exclude) => float16Pass({ keepIo: params.keep_io, exclude }),
  dynamic: (params, target, exclude, onWeights) =>
    dynamicPass({ perChannel: params.per_channel, reduceRange: TARGETS[target].reduceRange, exclude }, onWeights),
  weight_only: (params, _target, exclude, onWeights) =>
    weightOnlyPass(weightOptions(params, exclude), undefined, onWeights),
};

/** Shares of the whole job that have passed when each step begins. */
const PASS_STEPS = { load: 0, compress: 0.02, write: 0.05, evaluate: 0.3, report: 0.98 } as const;
const FLOAT16_STEPS = { load: 0, observe: 0.02, write: 0.2, evaluate: 0.35, report: 0.98 } as const;
const STATIC_STEPS = {
  ...{ load: 0, prepare: 0.01, equalize: 0.05, calibrate: 0.15, round: 0.3, correct: 0.35 },
  ...{ rank: 0.4, control: 0.5, write: 0.6, evaluate: 0.62, report: 0.98 },
} as const;

const ROUNDED_STEPS = { load: 0, round: 0.02, write: 0.5, evaluate: 0.55, report: 0.98 } as const;
const QAT_STEPS = { load: 0, prepare: 0.01, train: 0.05, write: 0.88, evaluate: 0.89, report: 0.99 } as const;

function startsOf(spec: QuantizeSpec): Readonly<Record<string, number>> {
  if (isQat(spec)) return QAT_STEPS;
  if (isStatic(spec)) return STATIC_STEPS;
  if (isRounded(spec)) return ROUNDED_STEPS;
  return isFloat16(spec) ? FLOAT16_STEPS : PASS_STEPS;
}

/**
 * Compresses a model as the spec asks, writes the result to the scratch directory, and judges it against the original.
 * Throws `CoreError`: `invalid_model`, `invalid_dataset` and `invalid_params` are the input's fault, `cancelled` is the caller's.
 */
export async function runQuantizeJob(
  request: JobRequest<QuantizeSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<JobOutcome> {
  const { spec, scratch } = request;
  const source = request.models[spec.model_id]!;
  const { files, host } = environment;
  const { signal } = context;
  const starts = startsOf(spec);
  const steps = createJobSteps<string>(starts, context);

  const uploaded = await steps.run("load", "Reading the model", () => files.openModel(source.files));
  const exclude = exclusionsOf(spec, uploaded);
  const { original, finished } = inFloat32(uploaded, spec.params);
  if (isQat(spec)) {
    const trained = finished(await trainQatJob({ ...request, spec }, original, exclude, environment, context, steps));
    const written = await steps.run("write", "Writing the trained model", () =>
      files.writeModel(trained.model, scratch, "model.onnx", { signal }),
    );
    const remedies = REMEDIES.qat(spec.params);
    const made = { original: source, ...trained, ...reportOf(spec, uploaded, exclude, trained), remedies, written };
    return judgeResult(request, made, "Comparing with the original", environment, context, steps);
  }
  const compress = async (): Promise<Compressed> => {
    if (isStatic(spec)) return compressStaticJob({ ...request, spec }, original, exclude, environment, context, steps);
    if (isRounded(spec))
      return compressRoundedJob({ ...request, spec }, original, exclude, environment, context, steps);
    if (isFloat16(spec)) {
      const { data } = await judgedBy(request, undefined, environment);
      return compressFloat16Job({ ...request, spec }, original, exclude, data, environment, context, steps);
    }
    return steps.run("compress", `Applying ${spec.params.method}`, () =>
      spec.params.method === "simplify"
        ? applySimplify(original, exclude, environment, signal)
        : applyPasses(original, spec.params as PassParams, host.target, exclude),
    );
  };
  const compressed = finished(await compress());
  const finish = async (compressed: Compressed, written: readonly ProducedFile[]) => {
    const { notes, warnings } = reportOf(spec, uploaded, exclude, compressed);
    const judged = await judgedBy(request, compressed.unseen, environment);
    return judgeResult(
      request,
      {
        original: source,
        ...compressed,
        notes,
        remedies: REMEDIES[spec.params.method](spec.params),
        written,
        data: judged.data,
        warnings: [...(compressed.warnings ?? []), ...warnings, ...(judged.warnings ?? [])],
        ignoreLabel: spec.evaluation.ignore_label,
        layerReference: { model: compressed.reference, results: compressed.plan.results },
      },
      "Comparing with the original",
      environment,
      context,
      steps,
    );
  };
  const write = (model: Model) => files.writeModel(model, scratch, "model.onnx", { signal });
  const written = await steps.run("write", "Writing the compressed model", () => write(compressed.model));
  try {
    return await finish(compressed, written);
  } catch (error) {
    if (!(error instanceof CoreError)) throw error;
    const { leaving, reconsidered } = compressed;
    if (error instanceof BrokenModel && leaving) {
      const made = (nodes: ReadonlySet<string>) => finished(leaving(nodes));
      const repaired = await repair(made, error, request, environment, context, steps);
      return finish(repaired, await write(repaired.model));
    }
    if (error.code !== "non_finite" || !reconsidered) throw error;
    const repaired = await reconsidered();
    return finish(repaired, await write(repaired.model));
  }
}

/** What the method makes when it leaves alone what onnxruntime does not run. Throws `broken` when that is no single nodes. */
async function repair(
  leaving: NonNullable<Compressed["leaving"]>,
  broken: BrokenModel,
  { scratch, threads }: JobRequest<QuantizeSpec>,
  environment: JobEnvironment,
  { signal }: JobContext,
  steps: JobSteps<string>,
): Promise<Compressed> {
  const kept = await findBreakingNodes({
    ...{ broken, environment, scratch, threads, signal },
    nodes: [...leaving(new Set()).reference.nodes()],
    build: (kept) => leaving(kept).model,
    onTrial: (trials) => steps.progress("evaluate", 0, `finding the nodes that do not run: trial ${trials}`),
  });
  const repaired = leaving(kept);
  const message = `The model does not run when this node is changed, and is left as it was here: ${broken.reason}`;
  const notes = repaired.notes.map((note) =>
    note.outcome === "skipped" && note.code === "excluded" && kept.has(note.name)
      ? { ...note, code: "does_not_run", message }
      : note,
  );
  return { ...repaired, notes };
}

/** Held-out data: the job's own, or else samples that nothing was chosen by; and what is to be said of its labels. */
async function judgedBy(
  { spec, datasets, models }: JobRequest<QuantizeSpec>,
  unseen: Dataset | undefined,
  { files }: JobEnvironment,
): Promise<Pick<MadeModel, "data" | "warnings">> {
  const { dataset_id, ignore_label } = spec.evaluation;
  const calibrating = "dataset_id" in spec.params ? spec.params.dataset_id : null;
  const stored = datasets[dataset_id ?? calibrating ?? ""];
  if (!stored || (dataset_id === null && !unseen)) return {};
  const use = labelUse(stored.facts, models[spec.model_id]!.facts.outputs, labelTaskOf(spec));
  const warnings = dataWarnings(stored.facts, use, ignore_label);
  if (dataset_id === null) return { data: unseen && { dataset: unseen, kind: "calibration" }, warnings };
  const dataset = withLabelUse(await files.openDataset(stored.file, stored.spec), use, ignore_label);
  return { data: { dataset, kind: "evaluation" }, warnings };
}

/** Says what a job would do to each node, and how large the result would be. Nothing is computed. */
export async function planQuantizeJob(
  request: JobInputs<QuantizeSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<QuantizePlan> {
  const { model, notes, plan, warnings } = await planned(request, environment, context);
  const before = environment.files.sizeOf(request.models[request.spec.model_id]!.files);
  const predicted = predictedBytes(model);
  const withOutcome = (wanted: Note["outcome"]) =>
    notes.filter(({ outcome }) => outcome === wanted).map(({ outcome: _, ...note }) => note);
  return {
    method: request.spec.params.method,
    weights: weightFacts(plan),
    values: valueFacts(plan).map(({ name, dtype }) => ({ name, dtype })),
    quantized_nodes: withOutcome("changed"),
    skipped_nodes: withOutcome("skipped"),
    size: { before_bytes: before, predicted_bytes: predicted, ratio: predicted / before },
    warnings,
  };
}

/** A model of the structure that the job's result will have; ranges that need data are not right yet. */
export async function planQuantizedModel(
  request: JobInputs<QuantizeSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<Model> {
  return (await planned(request, environment, context)).model;
}

async function planned(
  request: JobInputs<QuantizeSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<Pick<Compressed, "model" | "notes" | "plan"> & { readonly warnings: readonly Warning[] }> {
  const { spec, models } = request;
  const uploaded = environment.files.openModel(models[spec.model_id]!.files);
  const exclude = exclusionsOf(spec, uploaded);
  const { original, finished } = inFloat32(uploaded, spec.params);
  const done = finished(
    isStatic(spec)
      ? await planStaticJob({ ...request, spec }, original, exclude, environment, context)
      : isQat(spec)
        ? withPlan(await planQatJob({ ...request, spec }, original, exclude, environment, context))
        : spec.params.method === "simplify"
          ? await applySimplify(original, exclude, environment, context.signal)
          : applyPasses(original, spec.params as PassParams, environment.host.target, exclude),
  );
  const calibrated =
    isStatic(spec) || isRounded(spec)
      ? (await openSamples({ ...request, spec }, models[spec.model_id]!.facts, environment)).calibrated
      : undefined;
  const seen = { ...done, ...(calibrated !== undefined && { calibrated }) };
  return { model: done.model, plan: done.plan, ...reportOf(spec, uploaded, exclude, seen) };
}

/** A planned model of which no more is decided than what becomes of nodes: scales are learned. */
function withPlan(made: Pick<Compressed, "model" | "notes">): Pick<Compressed, "model" | "notes" | "plan"> {
  return { ...made, plan: planOf(made.notes) };
}

/**
 * The model in the type that methods start from, float32, and what finishes a result made from that: weights that were float16 and were
 * left alone are no larger in it than they were.
 */
function inFloat32(model: Model, { method }: Params) {
  const wide = method === "float16" || method === "simplify" ? undefined : widened(model);
  return {
    original: wide?.model ?? model,
    finished<C extends Pick<Compressed, "model"> & Partial<Compressed>>(compressed: C): C {
      if (!wide) return compressed;
      const { simplified } = compressed;
      const notes = simplified && { simplified: [...wide.notes.map(asSimplified), ...simplified] };
      return { ...compressed, ...notes, model: narrowed(compressed.model) };
    },
  };
}

/** Notes on everything that the method was meant for, and what has to be said before the result is judged. */
function reportOf(
  { params }: QuantizeSpec,
  original: Model,
  exclude: Exclusions,
  made: Pick<Compressed, "model" | "notes" | "calibrated">,
): { readonly notes: readonly Note[]; readonly warnings: readonly Warning[] } {
  // What has weights is not what simplify is meant for.
  if (params.method === "simplify") {
    return { notes: [...made.notes, ...untouchedExclusions(original, exclude, made.notes)], warnings: [] };
  }
  const complete = completeNotes(original, made.model, made.notes);
  const notes = [...complete, ...untouchedExclusions(original, exclude, complete)];
  return {
    notes,
    warnings: [...coverageWarnings(original, made.model, notes), ...calibrationWarnings(made.calibrated)],
  };
}

/** What can be tried when a result differs too much from the original, for each method. */
const REMEDIES: { readonly [M in Params["method"]]: (params: Params) => readonly string[] } = {
  simplify: () => ["leave the nodes that were fused as they are (exclude_nodes)"],
  float16: () => ["leave the layers that lose most in float32 (exclude_nodes)"],
  dynamic: () => [
    "leave the layers that lose most in float (exclude_nodes)",
    "weight_only with 8 bits, whose activations stay in float",
    "static with samples of your data",
  ],
  qat: () => [
    "more epochs, or more samples",
    "a larger learning_rate, which weights of few bits need",
    "more bits, for weights or activations",
    "exclude_nodes with the layers that lose most",
  ],
  static: () => [
    "min_sqnr_db or max_metric_drop, which leave in float what costs most",
    "more samples, like those that the model will see",
    "exclude_nodes with the layers that lose most",
    "dynamic or weight_only",
  ],
  weight_only: (params) =>
    params.method === "weight_only" && params.bits === 8
      ? ["a smaller block_size", "exclude_nodes with the layers that lose most"]
      : [
          ...(params.method === "weight_only" && params.rounding !== "nearest"
            ? ["more samples"]
            : ["algorithm gptq with samples of your data"]),
          "8 bits",
          "a smaller block_size",
          "exclude_nodes with the layers that lose most",
        ],
};

/** Constants are computed by onnxruntime, as they would be at every load of the model. */
async function applySimplify(
  original: Model,
  exclude: Exclusions,
  { openTemporary }: JobEnvironment,
  signal: AbortSignal,
): Promise<Compressed> {
  const evaluate = async (constants: Model) => {
    const session = await openTemporary(constants);
    try {
      return await session.run({}, undefined, signal);
    } finally {
      await session.close();
    }
  };
  const { model, notes } = await simplifyFully(original, { evaluate, exclude, signal });
  return { model, notes, simplified: [], reference: original, plan: planOf(notes) };
}

function applyPasses(original: Model, params: PassParams, host: TargetName, exclude: Exclusions): Compressed {
  const pass = PASSES[params.method] as PassOf<PassParams>;
  const inForm = params.method === "float16" ? simplifyPasses() : [...simplifyPasses(), unfuse];
  const simple = runPasses(original, inForm, { settle: true });
  const uses: WeightUse[] = [];
  const { model, notes } = runPasses(simple.model, [
    pass(params, params.target === "auto" ? host : params.target, exclude, (found) => uses.push(...found)),
    removeDeadCode,
  ]);
  return {
    model,
    notes,
    simplified: simple.notes.map(asSimplified),
    reference: simple.model,
    plan: planOf(notes, uses),
    leaving: (nodes) => applyPasses(original, params, host, { ...exclude, nodes: [...exclude.nodes, ...nodes] }),
  };
}

/** What the job excludes, found in the model as it was uploaded. Throws `validation_failed` with every name that nothing there has. */
function exclusionsOf({ params }: QuantizeSpec, original: Model): Exclusions {
  const { exclude, unknown } = resolveExclusions(original, { nodes: params.exclude_nodes, ops: params.exclude_ops });
  if (unknown.length > 0) {
    const fields = unknownNames(unknown);
    throw new TaskError({ code: "validation_failed", message: fields.map(({ message }) => message).join(" "), fields });
  }
  return exclude;
}

/** The names in the job's exclusions that nothing in the model has, as wrong fields. */
export function checkExclusions(original: Model, exclude: Exclusions): readonly FieldError[] {
  return unknownNames(resolveExclusions(original, exclude).unknown);
}

function unknownNames(unknown: readonly UnknownName[]): FieldError[] {
  return unknown.map(({ list, index, message }) => ({
    pointer: pointerOf("/params", [`exclude_${list}`, index]),
    code: list === "nodes" ? "unknown_node" : "unknown_operator",
    message,
  }));
}
