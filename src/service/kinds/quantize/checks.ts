import { checkDatasetFits } from "../../../core/contract.ts";
import type { DatasetRecord, ModelRecord } from "../../catalog.ts";
import type { FieldError } from "../../errors.ts";
import { checkDistill } from "../distill/checks.ts";
import type { StepChecks } from "../kind.ts";
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
import type { StoredResources } from "../stored-resources.ts";
import { storedAs } from "./method-facts.ts";
import { unread } from "./readings.ts";
import { splitSamples } from "./sample-split.ts";
import {
  asDistillation,
  type CalibratedSpec,
  isQat,
  isRounded,
  isStatic,
  labelTaskOf,
  type QuantizeSpec,
} from "./spec.ts";
import { deploymentOf, targetRefusals } from "./targets.ts";

export const QUANTIZE_CHECKS: StepChecks<QuantizeSpec> = {
  check: (spec, stored) => [
    ...checkTarget(spec, stored),
    ...(isQat(spec) ? checkDistill(asDistillation(spec), stored).map(ofQat) : checkQuantization(spec, stored)),
  ],
  // Facts do not tell whether what is trained with rounding can be: its graph is another than the model's.
  needsPlan: isQat,
  unread,
  made({ model_id, params }, { models }, name) {
    const model = models.get(model_id)!;
    if (storedAs(params) === "kept") return model;
    const message = `${name} stores weights in fewer bits, and such a model cannot be trained: train first, compress last.`;
    return { ...model, facts: { ...model.facts, trainable: { ok: false, subject: name, message } } };
  },
};

/** A problem of a quantization-aware training that was checked as a distillation. */
function ofQat({ pointer, ...problem }: FieldError): FieldError {
  const own = { "/params/teacher_model_id": "/params/teacher", "/params/student/model_id": "/model_id" }[pointer];
  return { ...problem, pointer: own ?? pointer };
}

/** What the runtime that a model is made for cannot take. */
function checkTarget({ model_id, params }: QuantizeSpec, { models }: StoredResources): FieldError[] {
  const deployment = deploymentOf(params);
  if (!deployment) return [];
  const refused = targetRefusals(params).map(({ field, message }) =>
    problem(`/params/${field}`, "target_mismatch", message),
  );
  const open = models.get(model_id)?.facts.inputs.find(({ shape }) => shape?.some((size) => typeof size !== "number"));
  if (!deployment.rules.fixedShapes || !open) return refused;
  const message = `${deployment.runtime}: ${deployment.rules.fixedShapes.says} Give the input ${open.name} fixed sizes before it is uploaded.`;
  return [...refused, problem("/model_id", "target_mismatch", message)];
}

function checkQuantization(spec: QuantizeSpec, stored: StoredResources): FieldError[] {
  const model = stored.models.get(spec.model_id)!;
  const unusable = [...checkRunnable(model, "/model_id"), ...checkWeights(spec, model)];
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

/** Whether all weights that the method rounds have a scale. */
function checkWeights({ params }: QuantizeSpec, model: ModelRecord): FieldError[] {
  // Others keep what is no number as it is.
  if (storedAs(params) !== "integers") return [];
  const layers = "layers" in params ? Object.entries(params.layers) : [];
  const inFloat = layers.flatMap(([name, precision]) => (precision === "float32" ? [name] : []));
  const exclude = { nodes: [...params.exclude_nodes, ...inFloat], ops: params.exclude_ops, layers: [] };
  return checkFiniteWeights(model, "/model_id", "quantized", exclude);
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
  const isScored = "max_metric_drop" in params && params.max_metric_drop !== null;
  if (!isScored || data.facts.has_labels) return misfits;
  const message = `Dataset ${data.id} has no labels to measure a metric with; min_sqnr_db needs none.`;
  return [...misfits, problem("/params/max_metric_drop", "no_labels", message)];
}
