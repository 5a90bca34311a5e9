import { CoreError, checkDatasetFits, type ModelFacts } from "../../core/index.ts";
import type { DatasetRecord, ModelRecord } from "../catalog.ts";
import type { FieldError } from "../errors.ts";
import type { JobSpec } from "../jobs/spec.ts";
import { pointerOf } from "./operation.ts";

/**
 * What can be known to be wrong with a job from the recorded facts alone, in microseconds: refused now and not an hour
 * later. What needs the files themselves is the plan's to find (`validate_only`).
 */
export function checkJob(
  spec: JobSpec,
  model: ModelRecord | undefined,
  evaluationData: DatasetRecord | undefined,
): readonly FieldError[] {
  if (model === undefined) {
    return [problem("/model_id", "unknown_model", `There is no model ${spec.model_id}.`)];
  }
  const { evaluation } = spec;
  if (evaluation.dataset_id !== null && evaluationData === undefined) {
    return [problem("/evaluation/dataset_id", "unknown_dataset", `There is no dataset ${evaluation.dataset_id}.`)];
  }
  return [
    ...checkDims(spec, model),
    ...(evaluationData === undefined ? [] : checkInputs(model, evaluationData)),
    ...checkLabels(spec, evaluationData),
  ];
}

function checkDims({ evaluation }: JobSpec, model: ModelRecord): FieldError[] {
  return unknownDims(evaluation.dims, model.facts).map((name) =>
    problem(
      pointerOf("/evaluation/dims", [name]),
      "unknown_dimension",
      `The model's inputs have no symbolic dimension ${JSON.stringify(name)}.`,
    ),
  );
}

/** The names in `dims` that are no symbolic dimension of the model's inputs. */
export function unknownDims(dims: Readonly<Record<string, number>>, { inputs }: ModelFacts): string[] {
  const known = new Set(inputs.flatMap(({ shape }) => shape ?? []));
  return Object.keys(dims).filter((name) => !known.has(name));
}

function checkInputs(model: ModelRecord, { facts, id }: DatasetRecord): FieldError[] {
  try {
    checkDatasetFits(facts, model.facts.inputs);
    return [];
  } catch (error) {
    if (!(error instanceof CoreError)) throw error;
    return [
      problem("/evaluation/dataset_id", "dataset_mismatch", `Dataset ${id} does not fit the model: ${error.message}`),
    ];
  }
}

function checkLabels({ evaluation, acceptance }: JobSpec, data: DatasetRecord | undefined): FieldError[] {
  if (data?.facts.has_labels === true) return [];
  const why = data === undefined ? "it needs evaluation.dataset_id" : `dataset ${data.id} has no labels`;
  return [
    ...(evaluation.metric === null
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
