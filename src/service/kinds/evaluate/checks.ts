import { CoreError, checkDatasetFits } from "../../../core/contract.ts";
import type { DatasetRecord, ModelRecord } from "../../catalog.ts";
import { type FieldError, pointerOf } from "../../errors.ts";
import type { JobChecks } from "../kind.ts";
import { checkEvaluation, checkLabelUse, checkRunnable, NEEDS_DATA } from "../model-checks.ts";
import type { StoredResources } from "../stored-resources.ts";
import { type EvaluateSpec, labelTaskOf } from "./spec.ts";

export const EVALUATE_CHECKS: JobChecks<EvaluateSpec> = { check: checkEvaluate, needsPlan: () => false };

/** What is wrong with an evaluation, as far as recorded facts tell. */
function checkEvaluate(spec: EvaluateSpec, { models, datasets }: StoredResources): readonly FieldError[] {
  const { params, evaluation, acceptance } = spec;
  const all = params.model_ids.map((id, i) => [models.get(id)!, pointerOf("/params/model_ids", [i])] as const);
  const unusable = all.flatMap(([model, pointer]) => checkRunnable(model, pointer));
  if (unusable.length > 0) return unusable;
  const [reference] = all[0]!;
  const data = evaluation.dataset_id === null ? undefined : datasets.get(evaluation.dataset_id);
  return [
    ...checkEvaluation(spec, reference, data, NEEDS_DATA),
    ...checkLabelUse(data, "/evaluation/dataset_id", reference.facts.outputs, labelTaskOf(spec)),
    ...all.slice(1).flatMap(([model, pointer]) => checkComparable(reference, model, data, pointer)),
    ...checkBatchSizes(spec, all, data),
    ...(all.length === 1
      ? Object.keys(acceptance).map(
          (limit): FieldError => ({
            pointer: pointerOf("/acceptance", [limit]),
            code: "nothing_to_compare",
            message: `${limit} holds models against the first one, and there is no other in params.model_ids.`,
          }),
        )
      : []),
  ];
}

/** Whether a model takes the same input as the reference and gives an output of the same name. */
function checkComparable(
  reference: ModelRecord,
  model: ModelRecord,
  data: DatasetRecord | undefined,
  pointer: string,
): FieldError[] {
  const fed = (data?.facts.fields ?? reference.facts.inputs).map(({ name }) => name);
  const problems: FieldError[] = [];
  const missing = model.facts.inputs.find(({ name }) => !fed.includes(name));
  if (missing) {
    const whose = data ? `dataset ${data.id}` : "the first model";
    const names = fed.map((name) => JSON.stringify(name)).join(", ");
    const message = `${model.id} takes the input ${JSON.stringify(missing.name)}, and ${whose} has ${names}: models are compared on the same input.`;
    problems.push({ pointer, code: "inputs_differ", message });
  } else if (data) {
    try {
      checkDatasetFits(data.facts, model.facts.inputs);
    } catch (error) {
      if (!(error instanceof CoreError)) throw error;
      const message = `Dataset ${data.id} does not fit ${model.id}: ${error.message}`;
      problems.push({ pointer, code: "dataset_mismatch", message });
    }
  }
  const [ours, theirs] = [model, reference].map(({ facts }) => facts.outputs.map(({ name }) => name)) as [
    string[],
    string[],
  ];
  const isPaired = (ours.length === 1 && theirs.length === 1) || ours.some((name) => theirs.includes(name));
  if (isPaired) return problems;
  const message = `No output of ${model.id} (${ours.join(", ")}) has the name of one of the first model's (${theirs.join(", ")}).`;
  return [...problems, { pointer, code: "outputs_differ", message }];
}

/** Whether every model can run at the sizes, and the data have so many samples. */
function checkBatchSizes(
  { params, evaluation }: EvaluateSpec,
  all: readonly (readonly [ModelRecord, string])[],
  data: DatasetRecord | undefined,
): FieldError[] {
  return params.batch_sizes.flatMap((size, i): FieldError[] => {
    const pointer = pointerOf("/params/batch_sizes", [i]);
    const fixed = all.find(([{ facts }]) => (batchOf(facts.inputs[0]?.shape ?? null) ?? size) !== size);
    if (fixed) {
      const [model] = fixed;
      const message = `${model.id} takes exactly ${batchOf(model.facts.inputs[0]!.shape)} samples at a time, not ${size}.`;
      return [{ pointer, code: "fixed_batch", message }];
    }
    if (data && data.facts.samples < size) {
      const message = `Dataset ${evaluation.dataset_id} has ${data.facts.samples} samples: no batch of ${size}.`;
      return [{ pointer, code: "too_few_samples", message }];
    }
    return [];
  });
}

/** The size of the first axis, where it is one that the model prescribes. */
function batchOf(shape: ModelRecord["facts"]["inputs"][number]["shape"]): number | undefined {
  const first = shape?.[0];
  return typeof first === "number" ? first : undefined;
}
