import {
  CoreError,
  checkDatasetFits,
  didYouMean,
  hasArray,
  type ModelFacts,
  nearestNames,
  nonFiniteText,
  type ValueFacts,
} from "../../core/contract.ts";
import type { DatasetRecord, ModelRecord } from "../catalog.ts";
import { type FieldError, pointerOf } from "../errors.ts";
import type { Judgement } from "./evaluation.ts";
import type { NamedExclusions } from "./exclusions.ts";
import { type LabelTask, labelUse } from "./label-use.ts";

/** What can be wrong between a job, its models and its data in every kind of job, as far as recorded facts tell. */

/** What to do where there is no data to judge by. */
export const NEEDS_DATA = "it needs evaluation.dataset_id";

/**
 * What no job can do with a model: feed it something other than tensors of numbers, or fetch a result that is none. Onnxruntime's binding for Node
 * knows tensors only, and what cannot be run cannot be judged.
 */
export function checkRunnable({ facts: { inputs, outputs } }: ModelRecord, pointer: string): FieldError[] {
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

/** `model` is what the result is compared with, on `data`; `missing` says what to do about there being none. */
export function checkEvaluation(
  spec: Judgement,
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
export function checkLabelUse(
  data: DatasetRecord | undefined,
  pointer: string,
  outputs: readonly ValueFacts[],
  task: LabelTask,
): FieldError[] {
  if (data === undefined) return [];
  const use = labelUse(data.facts, outputs, task);
  if (use.kind !== "misfit" && use.kind !== "bad_values") return [];
  const wayOut = task.learned ? "" : ' With evaluation.metric "none" labels are not looked at.';
  const [code, at]: readonly [FieldError["code"], string] =
    use.kind === "misfit" && !task.learned && task.metric !== null
      ? ["metric_mismatch", "/evaluation/metric"]
      : ["invalid_labels", pointer];
  return [problem(at, code, `Dataset ${data.id}: ${use.message}${wayOut}`)];
}

function checkDims({ evaluation }: Judgement, model: ModelRecord): FieldError[] {
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
export function checkInputs(model: ModelRecord, { facts, id }: DatasetRecord, pointer: string): FieldError[] {
  try {
    checkDatasetFits(facts, model.facts.inputs);
    return [];
  } catch (error) {
    if (!(error instanceof CoreError)) throw error;
    return [problem(pointer, "dataset_mismatch", `Dataset ${id} does not fit the model: ${error.message}`)];
  }
}

/** NaN in one sample is in every range and every weight after it: fields that models take must be finite where jobs learn from them. */
export function checkFinite(
  models: readonly ModelRecord[],
  { facts, id }: DatasetRecord,
  purpose: string,
): FieldError[] {
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

/**
 * A weight with NaN or an infinity has no scale, and gives whatever learns from it NaN. Layers that the job leaves alone are not its concern.
 * `what` is what cannot be done: `quantized`, `trained`.
 */
export function checkFiniteWeights(
  { facts }: ModelRecord,
  pointer: string,
  what: "quantized" | "trained" | "learned from",
  exclude?: NamedExclusions,
): FieldError[] {
  const isLeft = ({ name, op }: { readonly name: string; readonly op: string }) =>
    exclude?.nodes.includes(name) || exclude?.ops.includes(op);
  return (facts.non_finite_weights ?? []).flatMap((weight) => {
    const [layer] = weight.layers.filter((it) => !isLeft(it));
    if (!layer) return [];
    const wayOut = exclude
      ? `Export the model again or, if its result is never used, leave the layer alone: exclude_nodes [${JSON.stringify(layer.name)}].`
      : "Export or train the model again.";
    return [problem(pointer, "non_finite_weights", `${nonFiniteText(weight)}: it cannot be ${what}. ${wayOut}`)];
  });
}

function checkLabels(
  { evaluation, acceptance }: Judgement,
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

export function problem(pointer: string, code: FieldError["code"], message: string): FieldError {
  return { pointer, code, message };
}
