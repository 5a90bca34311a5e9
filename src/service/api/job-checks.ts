import {
  CoreError,
  checkDatasetFits,
  didYouMean,
  hasArray,
  type ModelFacts,
  nearestNames,
  type ValueFacts,
} from "../../core/index.ts";
import type { DatasetRecord, ModelRecord } from "../catalog.ts";
import { type FieldError, pointerOf } from "../errors.ts";
import { type CalibratedSpec, isRounded, isStatic, labelTaskOf, splitSamples } from "../jobs/calibration-samples.ts";
import { evaluationLabels, labelledOutputs, trainingLabels } from "../jobs/distill-labels.ts";
import { type LabelTask, labelUse } from "../jobs/label-use.ts";
import { referencesIn } from "../jobs/resources.ts";
import {
  asDistillation,
  isQat,
  type JobSpec,
  type OfflineSpec,
  type QuantizeSpec,
  type SingleSpec,
} from "../jobs/spec.ts";
import { checkEvaluate } from "../kinds/evaluate/checks.ts";
import { labelTaskOf as evaluationLabelTask } from "../kinds/evaluate/spec.ts";
import { checkDistillation } from "./distill-checks.ts";
import { checkMode } from "./distill-mode-checks.ts";
import { checkPipeline } from "./pipeline-checks.ts";
import type { StoredResources } from "./stored-resources.ts";

/**
 * What can be known to be wrong with a job from the recorded facts alone, in microseconds: refused now and not an hour
 * later. What needs the files themselves is the plan's to find (`validate_only`).
 */
export function checkJob(spec: JobSpec, stored: StoredResources): readonly FieldError[] {
  const unknown = referencesIn(spec)
    .filter(({ kind, id }) => !(kind === "model" ? stored.models : stored.datasets).has(id))
    .map(({ kind, id, path }) => problem(pointerOf("", path), `unknown_${kind}`, `There is no ${kind} ${id}.`));
  if (unknown.length > 0) return unknown;
  if (spec.type === "evaluate") {
    return checkEvaluate(spec, stored, {
      runnable: checkRunnable,
      evaluation: (model, data) => checkEvaluation(spec, model, data, NEEDS_DATA),
      labels: (model, data) =>
        checkLabelUse(data, "/evaluation/dataset_id", model.facts.outputs, evaluationLabelTask(spec)),
    });
  }
  return spec.type === "pipeline" ? checkPipeline(spec, stored, checkSingle) : checkSingle(spec, stored);
}

const NEEDS_DATA = "it needs evaluation.dataset_id";

function checkSingle(spec: SingleSpec, stored: StoredResources): readonly FieldError[] {
  if (isQat(spec)) return checkDistill(asDistillation(spec), stored).map(ofQat);
  return spec.type === "quantize" ? checkQuantization(spec, stored) : checkMode(spec, stored, checkDistill);
}

/**
 * What no job can do with a model: feed it something other than tensors of numbers, or fetch a result that is none. Onnxruntime's binding for Node
 * knows tensors only, and what cannot be run cannot be judged.
 */
function checkRunnable({ facts: { inputs, outputs } }: ModelRecord, pointer: string): FieldError[] {
  const said = ({ name, dtype, type }: ModelFacts["inputs"][number]) =>
    `${JSON.stringify(name)} (${dtype ?? type ?? "no tensor"})`;
  const strange = inputs.filter(({ dtype }) => dtype === null || !hasArray(dtype));
  const fetched = outputs.filter(({ dtype }) => dtype !== null && (hasArray(dtype) || dtype === "string"));
  return [
    ...(strange.length === 0
      ? []
      : [
          problem(
            pointer,
            "unsupported_input",
            `Jobs feed tensors of numbers only, and the model takes ${strange.map(said).join(", ")}: export the part behind it as a model of its own.`,
          ),
        ]),
    ...(fetched.length > 0
      ? []
      : [
          problem(
            pointer,
            "unsupported_output",
            `The model gives no tensor that could be compared, only ${outputs.map(said).join(", ")}: export it with the tensor in front as an output too.`,
          ),
        ]),
  ];
}

/** A problem of a quantization-aware training that was checked as a distillation. */
function ofQat({ pointer, ...problem }: FieldError): FieldError {
  const own = { "/params/teacher_model_id": "/params/teacher", "/params/student/model_id": "/model_id" }[pointer];
  return { ...problem, pointer: own ?? pointer };
}

function checkQuantization(spec: QuantizeSpec, stored: StoredResources): FieldError[] {
  const model = stored.models.get(spec.model_id)!;
  const unusable = checkRunnable(model, "/model_id");
  if (unusable.length > 0) return unusable;
  const { dataset_id } = spec.evaluation;
  const own = dataset_id === null ? undefined : stored.datasets.get(dataset_id);
  const why = NEEDS_DATA;
  if (!isStatic(spec) && !isRounded(spec)) {
    return [...checkEvaluation(spec, model, own, why), ...checkQuantizationLabels(spec, model, own)];
  }
  const calibration = stored.datasets.get(spec.params.dataset_id)!;
  const problems = checkCalibration(spec, model, calibration);
  if (problems.length > 0) return problems;
  // Without data of its own a job is judged on the samples that nothing was chosen by.
  const { batchSize } = checkDatasetFits(calibration.facts, model.facts.inputs);
  const [from, to] = splitSamples(spec, calibration.facts.samples, batchSize ?? 1).unseen;
  const judged = own ?? (to > from ? calibration : undefined);
  const isScored = isStatic(spec) && spec.params.max_metric_drop !== null;
  return [
    ...checkEvaluation(spec, model, judged, why),
    ...checkQuantizationLabels(spec, model, judged),
    ...(judged !== calibration && isScored ? checkQuantizationLabels(spec, model, calibration) : []),
  ];
}

/** Whether the labels of `data` can judge a model that is quantized. */
function checkQuantizationLabels(
  spec: QuantizeSpec,
  model: ModelRecord,
  data: DatasetRecord | undefined,
): FieldError[] {
  const pointer = data?.id === spec.evaluation.dataset_id ? "/evaluation/dataset_id" : "/params/dataset_id";
  return checkLabelUse(data, pointer, model.facts.outputs, labelTaskOf(spec));
}

function checkCalibration({ params }: CalibratedSpec, model: ModelRecord, data: DatasetRecord): FieldError[] {
  const misfits = [...checkInputs(model, data, "/params/dataset_id"), ...checkFinite([model], data, "calibrate with")];
  if (params.method !== "static" || params.max_metric_drop === null || data.facts.has_labels) return misfits;
  const message = `Dataset ${data.id} has no labels to measure a metric with; min_sqnr_db needs none.`;
  return [...misfits, problem("/params/max_metric_drop", "no_labels", message)];
}

/**
 * The models and the data of a distillation: there is no teacher in plain training, and no student yet where it is to be derived, or made by
 * an earlier step.
 */
export function partiesOf(
  { params: { teacher_model_id: id, student, dataset_id } }: Pick<OfflineSpec, "params">,
  { models, datasets }: StoredResources,
) {
  return {
    teacher: id === null ? undefined : models.get(id),
    student: "model_id" in student ? models.get(student.model_id) : undefined,
    training: datasets.get(dataset_id)!,
  };
}

function checkDistill(spec: OfflineSpec, stored: StoredResources): FieldError[] {
  const { params, evaluation } = spec;
  const { datasets } = stored;
  const { teacher, student: uploaded, training } = partiesOf(spec, stored);
  const fed = [teacher, uploaded].filter((model) => model !== undefined);
  const unusable = [
    ...(teacher ? checkRunnable(teacher, "/params/teacher_model_id") : []),
    ...(uploaded ? checkRunnable(uploaded, "/params/student/model_id") : []),
  ];
  if (unusable.length > 0) return unusable;
  const problems = [
    ...checkDistillation(spec, { teacher, student: uploaded, training }),
    ...fed.flatMap((model) => checkInputs(model, training, "/params/dataset_id")),
    ...checkFinite(fed, training, "train on"),
  ];
  const reference = teacher ?? uploaded;
  if (reference === undefined) return problems;
  const own = evaluation.dataset_id === null ? undefined : datasets.get(evaluation.dataset_id);
  // Without data of its own a job is judged on the samples that it has held out.
  const data = own ?? (params.training.validation_split > 0 ? training : undefined);
  const why = "it needs evaluation.dataset_id, or a validation_split";
  const labels = checkDistillationLabels(spec, reference, uploaded ?? reference, training, own);
  return [...problems, ...checkEvaluation(spec, reference, data, why), ...labels];
}

/** Whether the labels that a student learns and is judged by go with the output that they belong to. */
function checkDistillationLabels(
  spec: OfflineSpec,
  reference: ModelRecord,
  student: ModelRecord,
  training: DatasetRecord,
  own: DatasetRecord | undefined,
): FieldError[] {
  const { params, evaluation } = spec;
  if (params.teacher_model_id === null && evaluation.metric === "none") {
    const message = "Without a teacher the student is judged by labels: there must be a metric.";
    return [problem("/evaluation/metric", "no_teacher", message)];
  }
  if (params.teacher_model_id === null && own?.facts.has_labels === false) {
    const message = `Without a teacher the student is judged by labels, and dataset ${own.id} has none.`;
    return [problem("/evaluation/dataset_id", "no_labels", message)];
  }
  const outputs = labelledOutputs(spec, reference.facts, student.facts);
  if (outputs.length === 0) return [];
  const learned = trainingLabels(spec);
  const judged = evaluationLabels(spec);
  const problems = [
    ...checkLabelUse(training, "/params/dataset_id", outputs, learned),
    ...checkLabelUse(own, "/evaluation/dataset_id", outputs, judged),
  ];
  if (problems.length > 0 || own === undefined) return problems;
  const [a, b] = [labelUse(training.facts, outputs, learned), labelUse(own.facts, outputs, judged)];
  if (a.kind !== "used" || b.kind !== "used" || a.reading.meaning === b.reading.meaning) return [];
  const message = `The labels of dataset ${own.id} are ${b.reading.meaning} and those that are learned are ${a.reading.meaning}.`;
  return [problem("/evaluation/dataset_id", "invalid_labels", message)];
}

/** `model` is what the result is compared with, on `data`; `missing` says what to do about there being none. */
function checkEvaluation(
  spec: JobSpec,
  model: ModelRecord,
  data: DatasetRecord | undefined,
  missing: string,
): FieldError[] {
  return [
    ...checkDims(spec, model),
    ...(data?.id === spec.evaluation.dataset_id ? checkInputs(model, data, "/evaluation/dataset_id") : []),
    ...checkLabels(spec, data, missing),
  ];
}

/** What is wrong with the labels of `data`, for a job that uses them as `task` says against these outputs. */
function checkLabelUse(
  data: DatasetRecord | undefined,
  pointer: string,
  outputs: readonly ValueFacts[],
  task: LabelTask,
): FieldError[] {
  if (data === undefined) return [];
  const use = labelUse(data.facts, outputs, task);
  if (use.kind !== "misfit" && use.kind !== "bad_values") return [];
  const wayOut = task.learned ? "" : ' With evaluation.metric "none" labels are not looked at.';
  const [code, at] =
    use.kind === "misfit" && !task.learned && task.metric !== null
      ? ["metric_mismatch", "/evaluation/metric"]
      : ["invalid_labels", pointer];
  return [problem(at!, code!, `Dataset ${data.id}: ${use.message}${wayOut}`)];
}

function checkDims({ evaluation }: JobSpec, model: ModelRecord): FieldError[] {
  return unknownDims(evaluation.dims, model.facts).map((name) =>
    problem(pointerOf("/evaluation/dims", [name]), "unknown_dimension", unknownDim(name, model.facts)),
  );
}

/** The names in `dims` that are no symbolic dimension of the model's inputs. */
export function unknownDims(dims: Readonly<Record<string, number>>, { inputs }: ModelFacts): string[] {
  const known = symbolicDims(inputs);
  return Object.keys(dims).filter((name) => !known.has(name));
}

/** Says so, with the nearest that there are. */
export function unknownDim(name: string, { inputs }: ModelFacts): string {
  const known = symbolicDims(inputs);
  const has = known.size === 0 ? "" : ` They have ${[...known].slice(0, MAX_LISTED).join(", ")}.`;
  const hint = didYouMean(nearestNames(name, known)) || has;
  return `The model's inputs have no symbolic dimension ${JSON.stringify(name)}.${hint}`;
}

const MAX_LISTED = 20;

/** By name, and by input and axis (`x.3`), which is how those without a name are called. */
function symbolicDims(inputs: ModelFacts["inputs"]): ReadonlySet<string> {
  return new Set(
    inputs.flatMap(({ name, shape }) =>
      (shape ?? []).flatMap((dim, axis) => {
        if (typeof dim === "number") return [];
        return dim === null ? [`${name}.${axis}`] : [dim, `${name}.${axis}`];
      }),
    ),
  );
}

/** Whether the dataset can feed the model; if not, that is wrong with the field at `pointer`. */
function checkInputs(model: ModelRecord, { facts, id }: DatasetRecord, pointer: string): FieldError[] {
  try {
    checkDatasetFits(facts, model.facts.inputs);
    return [];
  } catch (error) {
    if (!(error instanceof CoreError)) throw error;
    return [problem(pointer, "dataset_mismatch", `Dataset ${id} does not fit the model: ${error.message}`)];
  }
}

/** NaN in one sample is in every range and every weight after it: fields that models take must be finite where jobs learn from them. */
function checkFinite(models: readonly ModelRecord[], { facts, id }: DatasetRecord, purpose: string): FieldError[] {
  const taken = new Set(models.flatMap((model) => model.facts.inputs.map(({ name }) => name)));
  return facts.fields.flatMap(({ name, content }) => {
    const first = content?.first_non_finite;
    if (!first || !taken.has(name)) return [];
    const message =
      `Dataset ${id} is not data to ${purpose}: ${JSON.stringify(name)} has ${content.non_finite} of its values NaN or infinite, ` +
      `the first in sample ${first.sample} (${first.value}). Leave such samples out, or replace the values.`;
    return [problem("/params/dataset_id", "non_finite", message)];
  });
}

function checkLabels(
  { evaluation, acceptance }: JobSpec,
  data: DatasetRecord | undefined,
  missing: string,
): FieldError[] {
  if (data?.facts.has_labels === true) return [];
  const why = data === undefined ? missing : `dataset ${data.id} has no labels`;
  return [
    ...(evaluation.metric === null || evaluation.metric === "none"
      ? []
      : [problem("/evaluation/metric", "no_labels", `The metric ${evaluation.metric} cannot be computed: ${why}.`)]),
    ...(acceptance.max_metric_drop === undefined
      ? []
      : [problem("/acceptance/max_metric_drop", "no_labels", `A drop of the metric cannot be measured: ${why}.`)]),
  ];
}

function problem(pointer: string, code: string, message: string): FieldError {
  return { pointer, code, message };
}
