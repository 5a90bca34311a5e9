import {
  CoreError,
  didYouMean,
  heldOutCount,
  nearestNames,
  outputMisfit,
  pairOutputs,
  type ValueFacts,
} from "../../../core/contract.ts";
import type { DatasetRecord, ModelRecord } from "../../catalog.ts";
import type { FieldError } from "../../errors.ts";
import type { OfflineSpec } from "./spec.ts";

interface Parties {
  /** Undefined in plain training. */
  readonly teacher: ModelRecord | undefined;
  /** Undefined when it is derived from the teacher. */
  readonly student: ModelRecord | undefined;
  readonly training: DatasetRecord;
}

/** What is wrong between teacher, student, losses and training data, as far as recorded facts tell. */
export function checkDistillation({ params }: OfflineSpec, parties: Parties): FieldError[] {
  const rules = [
    checkTeacher,
    checkLosses,
    checkLabels,
    checkStudent,
    checkTrainingData,
    checkAugmentation,
    checkOutputs,
  ];
  return rules.flatMap((rule) => rule(params, parties));
}

type Params = OfflineSpec["params"];
type Rule = (params: Params, parties: Parties) => readonly FieldError[];

const at = (pointer: string, code: FieldError["code"], message: string): FieldError => ({
  pointer: `/params${pointer}`,
  code,
  message,
});

/** `message` at `pointer`, if `wrong`. */
const when = (wrong: boolean, ...[pointer, code, message]: Parameters<typeof at>) =>
  wrong ? [at(pointer, code, message)] : [];

const checkTeacher: Rule = ({ loss, student, baseline }, { teacher }) =>
  teacher
    ? []
    : [
        ...when("derive" in student, "/student/derive", "no_teacher", "There is no teacher to derive a student from."),
        ...when(loss.kl_weight > 0, "/loss/kl_weight", "no_teacher", "Without a teacher kl_weight must be 0."),
        ...when(loss.hints.length > 0, "/loss/hints", "no_teacher", "Without a teacher there can be no hints."),
        ...when(baseline, "/baseline", "no_teacher", "Without a teacher the baseline is the training itself."),
      ];

const checkLosses: Rule = ({ loss }) =>
  when(
    loss.kl_weight === 0 && loss.label_weight === 0 && loss.hints.every(({ weight }) => weight === 0),
    "/loss",
    "no_loss",
    "All weights are 0: there is nothing to learn.",
  );

const checkLabels: Rule = ({ loss, baseline }, { training }) => {
  if (training.facts.has_labels) return [];
  const bare = `Dataset ${training.id} has no labels`;
  return [
    ...when(loss.label_weight > 0, "/loss/label_weight", "no_labels", `${bare}: label_weight must be 0.`),
    ...when(
      loss.output_loss === "dkd" && loss.kl_weight > 0,
      "/loss/output_loss",
      "no_labels",
      `${bare}, which dkd needs.`,
    ),
    ...when(baseline, "/baseline", "no_labels", `${bare}: there can be no baseline.`),
  ];
};

const checkStudent: Rule = ({ student }, parties) => {
  const trained = parties.student ?? parties.teacher;
  if (trained === undefined || trained.facts.trainable.ok) return [];
  const pointer = "model_id" in student ? "/student/model_id" : "/student/derive";
  return [at(pointer, "not_trainable", trained.facts.trainable.message ?? "The model cannot be trained.")];
};

const checkTrainingData: Rule = (_params, { teacher, student, training }) => {
  const inputs = [teacher, student].flatMap((model) => model?.facts.inputs ?? []);
  const seen = new Map<string, string | null>();
  return inputs.flatMap(({ name, dtype, shape }) => {
    const other = seen.get(name);
    seen.set(name, dtype);
    const field = training.facts.fields.find((it) => it.name === name);
    return [
      ...when(
        other !== undefined && other !== dtype,
        "/student/model_id",
        "input_mismatch",
        `The input ${JSON.stringify(name)} is ${other} for the teacher and ${dtype} for the student.`,
      ),
      ...when(
        shape !== null && field !== undefined && shape.length === field.shape.length,
        "/dataset_id",
        "dataset_mismatch",
        `The input ${JSON.stringify(name)} has no axis for the samples of a batch, so the model cannot be trained.`,
      ),
    ];
  });
};

const checkAugmentation: Rule = ({ training: { augmentation } }, { teacher, student }) => {
  const names = ((student ?? teacher)?.facts.inputs ?? []).map(({ name }) => name);
  if (augmentation === null || names.length === 0 || names.includes(augmentation.input)) return [];
  const hint = didYouMean(nearestNames(augmentation.input, names)) || ` It has ${names.join(", ")}.`;
  const message = `The model has no input ${JSON.stringify(augmentation.input)} to augment.${hint}`;
  return [at("/training/augmentation/input", "unknown_input", message)];
};

const checkOutputs: Rule = ({ loss }, { teacher, student }) => {
  try {
    return comparedOutputs(loss, teacher, student).flatMap(({ misfit }, i) => {
      if (misfit === undefined || misfit === "unknown") return [];
      if (misfit.about === "loss") return [at("/loss/output_loss", "shape_mismatch", misfit.message)];
      return [at(loss.outputs ? `/loss/outputs/${i}` : "/loss/outputs", "shape_mismatch", misfit.message)];
    });
  } catch (error) {
    if (!(error instanceof CoreError)) throw error;
    return [at("/loss/outputs", "output_mismatch", error.message)];
  }
};

/** The pairs of outputs, and why each cannot be compared. Throws `CoreError` where outputs cannot be paired. */
function comparedOutputs(loss: Params["loss"], teacher: ModelRecord | undefined, student: ModelRecord | undefined) {
  const [theirs, ours] = [teacher ?? student, student ?? teacher].map((model) => model?.facts.outputs);
  if (!theirs || !ours) return [];
  return pairOutputs(theirs, ours, loss.outputs ?? undefined).map((pair) => {
    const [a, b] = [theirs.find(({ name }) => name === pair.teacher)!, ours.find(({ name }) => name === pair.student)!];
    return { pair, misfit: teacher && outputMisfit(loss.output_loss, a, b), student: b };
  });
}

/**
 * Whether only a run of the models tells if a distillation can be: facts do not hold the values that hints name, nor sizes that are only known
 * then, nor what a BatchNormalization makes of a batch of one. Such a job is planned before it is accepted.
 */
export function needsPlan({ params }: Pick<OfflineSpec, "params">, { teacher, student, training }: Parties): boolean {
  const { loss } = params;
  const { batch_size, validation_split } = params.training;
  const { samples } = training.facts;
  const batch = Math.min(batch_size, samples - heldOutCount(samples, validation_split));
  if (loss.hints.length > 0 || batch <= 1) return true;
  const isOpen = ({ shape }: ValueFacts) => !shape || shape.slice(1).some((dim) => typeof dim !== "number");
  return comparedOutputs(loss, teacher, student).some(
    ({ misfit, student: output }) => misfit === "unknown" || isOpen(output),
  );
}
