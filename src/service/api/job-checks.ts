import type { ValueFacts } from "../../core/index.ts";
import type { DatasetRecord, ModelRecord } from "../catalog.ts";
import type { FieldError } from "../errors.ts";
import type { JobSpec } from "../jobs/spec.ts";

/**
 * What can be known to be wrong with a job from the recorded facts alone, in microseconds: refused now and not an hour later.
 * What needs the files themselves is the plan's to find (`validate_only`).
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
  const known = new Set(
    model.facts.inputs.flatMap(({ shape }) => shape ?? []).filter((dim) => typeof dim === "string"),
  );
  return Object.keys(evaluation.dims)
    .filter((name) => !known.has(name))
    .map((name) => {
      const pointer = `/evaluation/dims/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
      return problem(
        pointer,
        "unknown_dimension",
        `The model's inputs have no symbolic dimension ${JSON.stringify(name)}.`,
      );
    });
}

function checkInputs(model: ModelRecord, { facts, id }: DatasetRecord): FieldError[] {
  return model.facts.inputs.flatMap((input) => {
    const field = facts.fields.find(({ name }) => name === input.name);
    const wrong = (code: string, message: string) =>
      problem("/evaluation/dataset_id", code, `Dataset ${id}: ${message}`);
    if (field === undefined) {
      const has = facts.fields.map(({ name }) => name).join(", ");
      return [wrong("missing_input", `there is no field for the model's input ${input.name}; it has ${has}.`)];
    }
    if (!fits(input, field.shape)) {
      const expected = `[${(input.shape ?? []).map((dim) => dim ?? "?").join(", ")}]`;
      return [
        wrong(
          "shape_mismatch",
          `a sample of ${input.name} is [${field.shape.join(", ")}], the model's input ${expected}.`,
        ),
      ];
    }
    return [];
  });
}

/** Whether samples of this shape can be batched into the input: its first axis is the batch, if it has one. */
function fits(input: ValueFacts, sample: readonly number[]): boolean {
  const { shape } = input;
  if (shape === null) return true;
  const fitsDims = (dims: typeof shape) =>
    dims.length === sample.length && dims.every((dim, i) => typeof dim !== "number" || dim === sample[i]);
  return fitsDims(shape.slice(1)) || fitsDims(shape);
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
