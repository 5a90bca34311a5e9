import type { FieldError } from "../../errors.ts";
import { DISTILL_CHECKS } from "../distill/checks.ts";
import type { JobChecks } from "../kind.ts";
import {
  checkEvaluation,
  checkFinite,
  checkFiniteWeights,
  checkInputs,
  checkLabelUse,
  checkRunnable,
  NEEDS_DATA,
  problem,
} from "../model-checks.ts";
import { QUANTIZE_CHECKS } from "../quantize/checks.ts";
import type { StoredResources } from "../stored-resources.ts";
import { candidatesOf } from "./candidates.ts";
import { plainStatic } from "./plain-static.ts";
import { type AutoSpec, labelTaskOf, searchesOf, type TargetSearch } from "./spec.ts";
import { methodOf, trainedCandidates } from "./trained.ts";

export const AUTO_CHECKS: JobChecks<AutoSpec> = { check: checkAuto, needsPlan: () => false };

/** What is wrong with a search, as far as recorded facts tell. */
function checkAuto(spec: AutoSpec, stored: StoredResources): readonly FieldError[] {
  const { models, datasets } = stored;
  const { model_id, params, evaluation } = spec;
  const model = models.get(model_id)!;
  const unusable = [...checkRunnable(model, "/model_id"), ...checkFiniteWeights(model, "/model_id", "quantized")];
  if (unusable.length > 0) return unusable;
  const data = datasets.get(params.dataset_id)!;
  const misfits = [...checkInputs(model, data, "/params/dataset_id"), ...checkFinite([model], data, "calibrate with")];
  if (misfits.length > 0) return misfits;
  const own = evaluation.dataset_id === null ? undefined : datasets.get(evaluation.dataset_id)!;
  // Without data of its own a search judges by samples of the dataset.
  const judging = own ?? data;
  const { outputs } = model.facts;
  const task = labelTaskOf(spec);
  const isBlind = params.constraints.max_metric_drop !== null && !judging.facts.has_labels;
  const blind = `A drop of the metric cannot be measured: dataset ${judging.id} has no labels; min_sqnr_db needs none.`;
  return [
    ...checkEvaluation(spec, model, judging, NEEDS_DATA),
    ...checkLabelUse(judging, own ? "/evaluation/dataset_id" : "/params/dataset_id", outputs, task),
    ...(own && data.facts.has_labels ? checkLabelUse(data, "/params/dataset_id", outputs, task) : []),
    ...(isBlind ? [problem("/params/constraints/max_metric_drop", "no_labels", blind)] : []),
    ...distinct(searchesOf(spec).flatMap((search) => checkTarget(search, stored))),
    ...distinct(searchesOf(spec).flatMap(({ spec }) => checkTraining(spec, stored))),
  ];
}

/** What keeps a search from making anything for one of its targets. */
function checkTarget(search: TargetSearch, stored: StoredResources): readonly FieldError[] {
  const { target, spec } = search;
  const misfits = QUANTIZE_CHECKS.check(plainStatic(spec), stored).filter(({ code }) => code === "target_mismatch");
  if (misfits.length > 0 || candidatesOf(search).length > 0) return misfits;
  const message = `None of ${spec.params.methods!.join(", ")} makes a model for ${target}: leave methods out, or name others.`;
  return [problem("/params/methods", "target_mismatch", message)];
}

/** What keeps the model from being trained as the search would; none where it does not train. It is enough that one way to train it works. */
function checkTraining(spec: AutoSpec, stored: StoredResources): readonly FieldError[] {
  const { methods } = spec.params;
  const jobs = trainedCandidates(spec)
    .map(([, job]) => job)
    .filter((job) => methods === null || methods.some((wanted) => wanted === methodOf(job)));
  if (jobs.length === 0) return [];
  const unjudged = "What is trained on cannot judge: with training, name other data here.";
  if (spec.evaluation.dataset_id === null) return [problem("/evaluation/dataset_id", "required", unjudged)];
  // A pipeline begins with a student that is a candidate, too.
  const found = jobs.flatMap((job) =>
    job.type === "pipeline"
      ? []
      : [job.type === "quantize" ? QUANTIZE_CHECKS.check(job, stored) : DISTILL_CHECKS.check(job, stored)],
  );
  if (found.some((errors) => errors.length === 0)) return [];
  return found[0]!.map(({ pointer, ...error }) => {
    if (pointer === "/params/teacher_model_id") return { ...error, pointer: "/model_id" };
    const isOwn = ["/model_id", "/params/dataset_id"].includes(pointer) || pointer.startsWith("/evaluation/");
    return { ...error, pointer: isOwn ? pointer : "/params/training" };
  });
}

/** Several searches have the same fault: it is told once. */
function distinct(errors: readonly FieldError[]): readonly FieldError[] {
  return errors.filter(
    (error, i) =>
      errors.findIndex(({ pointer, message }) => pointer === error.pointer && message === error.message) === i,
  );
}
