import { type FieldError, pointerOf } from "../../errors.ts";
import { DISTILL_CHECKS } from "../distill/checks.ts";
import { exclusionsIn } from "../exclusions.ts";
import type { JobChecks, StepChecks } from "../kind.ts";
import { PREVIOUS } from "../previous.ts";
import { QUANTIZE_CHECKS } from "../quantize/checks.ts";
import type { StoredResources } from "../stored-resources.ts";
import { asJson } from "../unread-params.ts";
import { type PipelineSpec, stepPointer, stepSpec, trains } from "./spec.ts";
import { type SingleSpec, stepKindOf } from "./steps.ts";

export const STEP_CHECKS: { readonly [T in SingleSpec["type"]]: StepChecks<Extract<SingleSpec, { type: T }>> } = {
  quantize: QUANTIZE_CHECKS,
  distill: DISTILL_CHECKS,
};

/** The type of a step settles what else is in it. */
function stepChecksOf({ type }: Pick<SingleSpec, "type">): StepChecks<SingleSpec> {
  return STEP_CHECKS[type] as StepChecks<SingleSpec>;
}

export const PIPELINE_CHECKS: JobChecks<PipelineSpec> = { check: checkPipeline, needsPlan, unread };

/** Whether a step would be planned as a job of its own; and exclusions are looked up in what a step will make. */
function needsPlan(spec: PipelineSpec, stored: StoredResources): boolean {
  return spec.params.steps.some((_, i) => {
    const single = stepSpec(spec, i, i === 0 ? spec.model_id : PREVIOUS);
    return exclusionsIn(single) !== undefined || stepChecksOf(single).needsPlan(single, stored);
  });
}

/**
 * What is wrong with the steps of a pipeline, as far as recorded facts tell. Each is checked as a job of its own, on what is known
 * of the model that it will be fed: what the step before does to the facts of its own model.
 */
function checkPipeline(spec: PipelineSpec, stored: StoredResources): readonly FieldError[] {
  const problems = [...checkFeeding(spec), ...checkJudgement(spec)];
  if (problems.length > 0) return problems;
  let known = stored;
  for (const [i, step] of spec.params.steps.entries()) {
    const single = stepSpec(spec, i, i === 0 ? spec.model_id : PREVIOUS);
    const wrong = stepChecksOf(single).check(single, known);
    // Later steps would be checked against facts that are not right.
    if (wrong.length > 0) return wrong.map((field) => ({ ...field, pointer: stepPointer(i, field.pointer) }));
    const made = stepChecksOf(single).made(single, known, step.name!);
    known = { ...stored, models: new Map([...stored.models, [PREVIOUS, made]]) };
  }
  return checkLimits(spec, stored);
}

/** Every step uses the model that it is fed, and there is one. */
function checkFeeding({ params, model_id }: PipelineSpec): FieldError[] {
  return params.steps.flatMap((step, i): FieldError[] => {
    const pointer = pointerOf("/params/steps", [i, "params"]);
    const takes = stepKindOf(step).takesFed(step.params);
    if (i > 0 && !takes) {
      const message = `${step.name} does not use the model of the step before: name it "${PREVIOUS}", as student.model_id or as teacher_model_id.`;
      return [{ pointer, code: "step_not_fed", message }];
    }
    if (i === 0 && takes && model_id === null) {
      const message = "The first step works on the pipeline's model_id, and there is none.";
      return [{ pointer: "/model_id", code: "required", message }];
    }
    if (i === 0 && !takes && model_id !== null) {
      const message = `The first step names its own models: leave model_id out, or name it "${PREVIOUS}" in the step.`;
      return [{ pointer: "/model_id", code: "step_not_fed", message }];
    }
    return [];
  });
}

/** A student agrees with its teacher on data, not on noise. */
function checkJudgement(spec: PipelineSpec): FieldError[] {
  if (spec.evaluation.dataset_id !== null || !trains(spec)) return [];
  const message = "A pipeline that trains is judged as a whole on held-out data: say which.";
  return [{ pointer: "/evaluation/dataset_id", code: "required", message }];
}

/** Limits are for the pipeline as a whole, which is judged on the evaluation data. */
function checkLimits({ acceptance, evaluation }: PipelineSpec, { datasets }: StoredResources): FieldError[] {
  const labelled = evaluation.dataset_id !== null && datasets.get(evaluation.dataset_id)?.facts.has_labels === true;
  if (acceptance.max_metric_drop === undefined || labelled) return [];
  const message = "A drop of the metric cannot be measured: the pipeline needs an evaluation.dataset_id with labels.";
  return [{ pointer: "/acceptance/max_metric_drop", code: "no_labels", message }];
}

/** Of every step the parameters that nothing reads. */
function unread({ params }: PipelineSpec, sent: unknown): readonly FieldError[] {
  const steps = asJson(sent).steps as readonly unknown[];
  return params.steps.flatMap((step, i) => {
    const fields = stepChecksOf(step).unread?.(step as SingleSpec, asJson(steps[i]).params) ?? [];
    return fields.map((field) => ({ ...field, pointer: stepPointer(i, field.pointer) }));
  });
}
