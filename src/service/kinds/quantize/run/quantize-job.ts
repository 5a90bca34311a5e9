import {
  asSimplified,
  BrokenModel,
  CoreError,
  calibrationWarnings,
  completeNotes,
  coverageWarnings,
  type Dataset,
  type Exclusions,
  type Model,
  modelWarnings,
  type Note,
  narrowed,
  predictedBytes,
  type QuantizePlan,
  resolveExclusions,
  type UnknownName,
  untouchedExclusions,
  untouchedLayers,
  valueFacts,
  type Warning,
  weightFacts,
  widened,
} from "../../../../core/index.ts";
import {
  type JobInputs,
  type JobOutcome,
  type JobRequest,
  type ProducedFile,
  TaskError,
} from "../../../../tasks/protocol.ts";
import { type FieldError, pointerOf } from "../../../errors.ts";
import type { NamedExclusions } from "../../exclusions.ts";
import { dataWarnings, fieldWarnings, labelUse, withLabelUse } from "../../label-use.ts";
import type { Compressed, JobEnvironment } from "../../run/job-environment.ts";
import { judgeResult, type MadeModel } from "../../run/job-result.ts";
import type { StepRun } from "../../run/job-run.ts";
import { createJobSteps, type JobContext, type JobSteps } from "../../run/job-steps.ts";
import { withOrigin } from "../../run/origin.ts";
import { labelTaskOf, type QuantizeSpec } from "../spec.ts";
import { inTarget } from "./deployment.ts";
import { type Method, methodOfJob, type Planned } from "./methods.ts";
import { afterQuantization } from "./next-steps.ts";
import { findBreakingNodes } from "./repair.ts";

type Params = QuantizeSpec["params"];

export const QUANTIZE_RUN: StepRun<QuantizeSpec> = {
  async plan(request, environment, context) {
    return { type: "quantize", ...(await planQuantizeJob(request, environment, context)) };
  },
  planModel: planQuantizedModel,
  run: runQuantizeJob,
  inTarget,
};

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
  const { files } = environment;
  const { signal } = context;
  const method = methodOfJob(spec);
  const steps = createJobSteps<string>(method.steps(spec), context);

  const uploaded = await steps.run("load", "Reading the model", () => files.openModel(source.files));
  const { exclude, request: own } = named(request, uploaded);
  const { original, finished } = startOf(uploaded, method);
  const evaluationData = async () => (await judgedBy(request, undefined, environment)).data;
  const compressed = finished(
    await method.compress({ request: own, original, exclude, environment, context, steps, evaluationData }),
  );
  const finish = async (compressed: Compressed, written: readonly ProducedFile[]) => {
    const { notes, warnings } = reportOf(method, uploaded, exclude, own.spec, compressed);
    const judged = compressed.judgement ?? (await judgedBy(request, compressed.unseen, environment));
    return judgeResult(
      request,
      {
        original: source,
        ...compressed,
        notes,
        remedies: method.remedies(spec.params),
        next: afterQuantization(spec),
        written,
        data: judged.data,
        warnings: distinct([
          ...(compressed.warnings ?? []),
          ...warnings,
          ...samplesWarnings(request),
          ...(judged.warnings ?? []),
        ]),
        ignoreLabel: judged.ignoreLabel,
        deployed: inTarget({ spec, before: source.files, after: written }, environment, signal),
        // The layers of a model that was trained are other layers.
        ...(!compressed.training && {
          layerReference: { model: compressed.reference, results: compressed.plan.results },
        }),
      },
      "Comparing with the original",
      environment,
      context,
      steps,
    );
  };
  const write = async (model: Model) =>
    files.writeModel(await withOrigin(model, request, environment), scratch, "model.onnx", { signal });
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

/** A model that a job would make, before it is judged. */
export interface QuantizedModel {
  readonly written: readonly ProducedFile[];
  readonly notes: readonly Note[];
  readonly compressed: Compressed;
}

/**
 * Makes what a job makes, to the same bytes, and does not judge it: a result that does not run, or leaves the range of its types, is not
 * repaired. Throws as `runQuantizeJob` does.
 */
export async function makeQuantizedModel(
  request: JobRequest<QuantizeSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<QuantizedModel> {
  const { spec, scratch } = request;
  const method = methodOfJob(spec);
  const steps = createJobSteps<string>(method.steps(spec), context);
  const uploaded = environment.files.openModel(request.models[spec.model_id]!.files);
  const { exclude, request: own } = named(request, uploaded);
  const { original, finished } = startOf(uploaded, method);
  const evaluationData = async () => (await judgedBy(request, undefined, environment)).data;
  const made = await method.compress({ request: own, original, exclude, environment, context, steps, evaluationData });
  const compressed = finished(made);
  const { notes } = reportOf(method, uploaded, exclude, own.spec, compressed);
  const { signal } = context;
  const model = await withOrigin(compressed.model, request, environment);
  const written = await environment.files.writeModel(model, scratch, "model.onnx", { signal });
  return { written, notes, compressed };
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
      ? { ...note, code: "does_not_run" as const, message }
      : note,
  );
  return { ...repaired, notes };
}

/** Held-out data: the job's own, or else samples that nothing was chosen by; and what is to be said of its labels. */
async function judgedBy(
  { spec, datasets, models }: JobInputs<QuantizeSpec>,
  unseen: Dataset | undefined,
  { files }: JobEnvironment,
): Promise<Pick<MadeModel, "data" | "warnings" | "ignoreLabel">> {
  const { dataset_id, ignore_label } = spec.evaluation;
  const calibrating = "dataset_id" in spec.params ? spec.params.dataset_id : null;
  const stored = datasets[dataset_id ?? calibrating ?? ""];
  if (!stored || (dataset_id === null && !unseen)) return { ignoreLabel: ignore_label };
  const use = labelUse(stored.facts, models[spec.model_id]!.facts.outputs, labelTaskOf(spec));
  const warnings = dataWarnings(stored.facts, use, ignore_label, models);
  if (dataset_id === null)
    return { data: unseen && { dataset: unseen, kind: "calibration" }, warnings, ignoreLabel: ignore_label };
  const dataset = withLabelUse(await files.openDataset(stored.file, stored.spec), use, ignore_label);
  return { data: { dataset, kind: "evaluation" }, warnings, ignoreLabel: ignore_label };
}

/** Says what a job would do to each node, and how large the result would be. Nothing is computed. */
async function planQuantizeJob(
  request: JobInputs<QuantizeSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<QuantizePlan> {
  const { model, notes, plan, warnings, provisional = [] } = await planned(request, environment, context);
  const before = environment.files.sizeOf(request.models[request.spec.model_id]!.files);
  const predicted = predictedBytes(await withOrigin(model, request, environment));
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
    provisional,
  };
}

/** A model of the structure that the job's result will have; ranges that need data are not right yet. */
async function planQuantizedModel(
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
): Promise<Omit<Planned, "warnings"> & { readonly warnings: readonly Warning[] }> {
  const { spec, models } = request;
  const uploaded = environment.files.openModel(models[spec.model_id]!.files);
  const method = methodOfJob(spec);
  const { original, finished } = startOf(uploaded, method);
  const evaluationData = async () => (await judgedBy(request, undefined, environment)).data;
  const { exclude, request: own } = named(request, uploaded);
  const done = finished(await method.plan({ request: own, original, exclude, environment, context, evaluationData }));
  const { notes, warnings } = reportOf(method, uploaded, exclude, own.spec, done);
  const known = [
    ...modelWarnings(models[spec.model_id]!.facts),
    ...(done.warnings ?? []),
    ...warnings,
    ...samplesWarnings(request),
  ];
  return { ...done, notes, warnings: known };
}

/** What has to be said of the samples that a method looks at. */
function samplesWarnings({ spec, datasets, models }: JobInputs<QuantizeSpec>): readonly Warning[] {
  const stored = "dataset_id" in spec.params ? datasets[spec.params.dataset_id ?? ""] : undefined;
  return stored ? fieldWarnings(stored.facts, models) : [];
}

/** A dataset may serve several purposes. */
function distinct(warnings: readonly Warning[]): readonly Warning[] {
  return [...new Map(warnings.map((warning) => [warning.code + warning.message, warning])).values()];
}

/**
 * The model in the type that a method starts from, and what finishes a result made from that: weights that were float16 and were
 * left alone are no larger in it than they were.
 */
function startOf(model: Model, { startsFromFloat32 }: Method<Params>) {
  const wide = startsFromFloat32 ? widened(model) : undefined;
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
  { speaksOf }: Method<Params>,
  original: Model,
  exclude: Exclusions,
  { params }: QuantizeSpec,
  made: Pick<Compressed, "model" | "notes" | "calibrated">,
): { readonly notes: readonly Note[]; readonly warnings: readonly Warning[] } {
  if (speaksOf === "changes") {
    return { notes: [...made.notes, ...untouchedExclusions(original, exclude, made.notes)], warnings: [] };
  }
  const complete = completeNotes(original, made.model, made.notes);
  const asked = params.method === "static" ? Object.keys(params.layers) : [];
  const notes = [
    ...complete,
    ...untouchedExclusions(original, exclude, complete),
    ...untouchedLayers(original, asked, complete),
  ];
  return {
    notes,
    warnings: [...coverageWarnings(original, made.model, notes), ...calibrationWarnings(made.calibrated)],
  };
}

/**
 * What the job excludes, found in the model as it was uploaded, and the job with labels for the names of its `layers`. Throws `validation_failed`
 * with every name that nothing there has.
 */
function named<R extends JobInputs<QuantizeSpec>>(request: R, original: Model): { exclude: Exclusions; request: R } {
  const { spec } = request;
  const { params } = spec;
  const { exclude_nodes: nodes, exclude_ops: ops } = params;
  const { exclude, unknown } = resolveExclusions(original, { nodes, ops });
  const asked = "layers" in params ? params.layers : {};
  const fields = [...unknownNames(unknown), ...unknownLayers(original, Object.keys(asked))];
  if (fields.length > 0) {
    throw new TaskError({ code: "validation_failed", message: fields.map(({ message }) => message).join(" "), fields });
  }
  if (!("layers" in params)) return { exclude, request };
  const layers = Object.fromEntries(
    Object.entries(asked).flatMap(([name, precision]) =>
      resolveExclusions(original, { nodes: [name], ops: [] }).exclude.nodes.map((label) => [label, precision]),
    ),
  );
  return { exclude, request: { ...request, spec: { ...spec, params: { ...params, layers } } } };
}

/** The names in a job's parameters that nothing in the model has, as wrong fields. */
export function checkExclusions(original: Model, { layers, ...exclude }: NamedExclusions): readonly FieldError[] {
  return [...unknownNames(resolveExclusions(original, exclude).unknown), ...unknownLayers(original, layers)];
}

function unknownLayers(original: Model, layers: readonly string[]): FieldError[] {
  return resolveExclusions(original, { nodes: layers, ops: [] }).unknown.map(({ name, message }) => ({
    pointer: pointerOf("/params", ["layers", name]),
    code: "unknown_node",
    message,
  }));
}

function unknownNames(unknown: readonly UnknownName[]): FieldError[] {
  return unknown.map(({ list, index, message }) => ({
    pointer: pointerOf("/params", [`exclude_${list}`, index]),
    code: list === "nodes" ? "unknown_node" : "unknown_operator",
    message,
  }));
}
