import type { FieldError } from "../../errors.ts";
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
import { type AutoSpec, labelTaskOf } from "./spec.ts";
import { trainedCandidates } from "./trained.ts";

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
    ...checkTraining(spec, stored),
  ];
}

/** What keeps the model from being trained as the search would; none where it does not train. */
function checkTraining(spec: AutoSpec, stored: StoredResources): readonly FieldError[] {
  const [first] = trainedCandidates(spec);
  if (!first) return [];
  const [, job] = first;
  const unjudged = "What is trained on cannot judge: with training, name other data here.";
  return [
    ...(spec.evaluation.dataset_id === null ? [problem("/evaluation/dataset_id", "required", unjudged)] : []),
    ...QUANTIZE_CHECKS.check(job, stored).map(({ pointer, ...error }) => {
      const isOwn = ["/model_id", "/params/dataset_id"].includes(pointer) || pointer.startsWith("/evaluation/");
      return { ...error, pointer: isOwn ? pointer : "/params/training" };
    }),
  ];
}
