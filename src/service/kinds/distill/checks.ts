import type { DatasetRecord, ModelRecord } from "../../catalog.ts";
import type { FieldError } from "../../errors.ts";
import type { StepChecks } from "../kind.ts";
import { labelUse } from "../label-use.ts";
import {
  checkEvaluation,
  checkFinite,
  checkFiniteWeights,
  checkInputs,
  checkLabelUse,
  checkRunnable,
  problem,
} from "../model-checks.ts";
import type { StoredResources } from "../stored-resources.ts";
import { evaluationLabels, labelledOutputs, trainingLabels } from "./labels.ts";
import { checkMode } from "./mode-checks.ts";
import { checkDistillation, needsPlan } from "./objective-checks.ts";
import { unread } from "./readings.ts";
import { DISTILL, type DistillSpec, type OfflineSpec } from "./spec.ts";

export const DISTILL_CHECKS: StepChecks<DistillSpec> = {
  check: (spec, stored) => checkMode(spec, stored, checkDistill),
  // Networks that learn from each other, or exits: their step is built before the job is accepted.
  needsPlan: ({ params }, stored) => params.mode !== "offline" || needsPlan({ params }, partiesOf({ params }, stored)),
  unread,
  // It has the facts of what it is made from.
  made: (spec, { models }) => models.get(DISTILL.sourceModelId(spec))!,
};

/**
 * The models and the data of a distillation: there is no teacher in plain training, and no student yet where it is to be derived, or made by
 * an earlier step.
 */
function partiesOf(
  { params: { teacher_model_id: id, student, dataset_id } }: Pick<OfflineSpec, "params">,
  { models, datasets }: StoredResources,
) {
  return {
    teacher: id === null ? undefined : models.get(id),
    student: "model_id" in student ? models.get(student.model_id) : undefined,
    training: datasets.get(dataset_id)!,
  };
}

export function checkDistill(spec: OfflineSpec, stored: StoredResources): FieldError[] {
  const { params, evaluation } = spec;
  const { datasets } = stored;
  const { teacher, student: uploaded, training } = partiesOf(spec, stored);
  const fed = [teacher, uploaded].filter((model) => model !== undefined);
  const isNew = "init" in params.student && params.student.init === "reinitialize";
  const unusable = [
    ...(teacher ? checkRunnable(teacher, "/params/teacher_model_id") : []),
    ...(uploaded ? checkRunnable(uploaded, "/params/student/model_id") : []),
    // A model that is its own teacher is wrong once.
    ...(teacher && (isNew || teacher !== uploaded)
      ? checkFiniteWeights(teacher, "/params/teacher_model_id", "learned from")
      : []),
    ...(uploaded && !isNew ? checkFiniteWeights(uploaded, "/params/student/model_id", "trained") : []),
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
