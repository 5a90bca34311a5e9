/** What a student is asked to learn: the parts of the loss, as a job names them, and how they read student and teacher. */

import { CoreError, located } from "../errors.ts";
import { labelledAxis } from "../onnx/class-axis.ts";
import { DTYPES } from "../onnx/dtype.ts";
import { dimsOf, type GraphBuilder } from "../onnx/graph-builder.ts";
import type { Value } from "../onnx/ir.ts";
import {
  attentionKl,
  attentionTransfer,
  decoupledKl,
  hint,
  relationalAngle,
  relationalDistance,
  relationKl,
} from "../train/distillation-losses.ts";
import {
  binaryCrossEntropy,
  cosineDistance,
  crossEntropy,
  distillationBinaryKl,
  distillationKl,
  huber,
  logOddsOf,
  meanSquaredError,
  oneVersusRest,
  scoresOf,
} from "../train/losses.ts";
import type { LossTerm, Objective, ObjectiveContext } from "../train/step-graph.ts";
import { type ComparedOutputs, readOutput } from "./compared-outputs.ts";
import { type OutputLoss, type OutputPair, unlikeShares } from "./output-pairs.ts";
import type { TeacherValue } from "./teacher.ts";

export type HintKind = "mse" | "cosine" | "attention" | "rkd_distance" | "rkd_angle" | "relation" | "attention_map";

/** An inner value of the student that is to become like one of the teacher's. */
export interface HintSpec {
  readonly teacher: string;
  readonly student: string;
  readonly kind: HintKind;
  readonly weight: number;
  /** For `relation`: how many relation heads the states are cut into. */
  readonly heads?: number;
}

export interface DistillationLoss {
  readonly temperature: number;
  readonly klWeight: number;
  readonly labelWeight: number;
  /** Null: by what each output is; see `comparedOutputs`. */
  readonly outputLoss: OutputLoss | null;
  readonly labelSmoothing: number;
  /** The label of what has none: it counts neither as a class nor as a number. Null when there is no such label. */
  readonly ignoreLabel: number | null;
  /** Weights of the two parts of `dkd`. */
  readonly alpha: number;
  readonly beta: number;
  readonly hints: readonly HintSpec[];
  /** Which outputs mean the same; undefined pairs them by name, or the only one of each model with the other's. */
  readonly outputs?: readonly OutputPair[];
}

/** What the fields mean when nothing is said: Hinton's loss at temperature 4. */
export const DISTILLATION_LOSS: DistillationLoss = {
  temperature: 4,
  klWeight: 0.9,
  labelWeight: 0.1,
  outputLoss: null,
  labelSmoothing: 0,
  ignoreLabel: null,
  alpha: 1,
  beta: 8,
  hints: [],
};

const HINTS: Readonly<Record<HintKind, (context: ObjectiveContext, s: Value, t: Value, spec: HintSpec) => Value>> = {
  mse: ({ g, parameter }, s, t) => hint(g, s, t, parameter),
  cosine: ({ g }, s, t) => cosineDistance(g, s, t),
  attention: ({ g }, s, t) => attentionTransfer(g, s, t),
  rkd_distance: ({ g }, s, t) => relationalDistance(g, s, t),
  rkd_angle: ({ g }, s, t) => relationalAngle(g, s, t),
  relation: ({ g }, s, t, { heads }) => relationKl(g, s, t, heads ?? 1),
  attention_map: ({ g }, s, t) => attentionKl(g, s, t),
};

/** What must be read from the teacher for these losses. */
export function teacherValues(loss: DistillationLoss, pairs: readonly ComparedOutputs[]): readonly TeacherValue[] {
  const outputs =
    loss.klWeight === 0
      ? []
      : pairs.map((pair) => ({
          value: pair.teacher,
          target: outputTarget(pair.teacher),
          reading: pair.reading,
        }));
  const inner = [...new Set(loss.hints.map(({ teacher }) => teacher))];
  return [...outputs, ...inner.map((value) => ({ value, target: hintTarget(value) }))];
}

export const outputTarget = (name: string) => `teacher/${name}`;
const hintTarget = (name: string) => `teacher/inner/${name}`;

/** The name under which labels come with a batch. */
export const LABELS = "labels";

/**
 * label_weight · L(labels) + kl_weight · L(teacher's outputs) + Σ hints. Labels belong to the first pair of outputs; see `labelLoss`.
 * Refusals are located in the loss: at `label_weight`, `output_loss` or the hint.
 */
export function distillationObjective(loss: DistillationLoss, pairs: readonly ComparedOutputs[]): Objective {
  return (context) => {
    const { value, target } = context;
    const terms: LossTerm[] = [];
    const overSamples = loss.ignoreLabel === null;
    if (loss.labelWeight > 0) {
      const labels = target(LABELS);
      terms.push({
        name: "label",
        weight: loss.labelWeight,
        value: located(["label_weight"], () => labelLoss(context, pairs[0]!, value(pairs[0]!.student), labels, loss)),
        overSamples,
      });
    }
    if (loss.klWeight > 0) {
      for (const pair of pairs) {
        const name = pairs.length === 1 ? pair.loss : `${pair.loss} ${pair.student}`;
        const [s, t] = [value(pair.student), target(outputTarget(pair.teacher))];
        const weight = loss.klWeight / pairs.length;
        const compare = () => outputLoss(context, pair, s, t, loss);
        terms.push({ name, weight, value: located(["output_loss"], compare), overSamples });
      }
    }
    for (const [i, spec] of loss.hints.entries()) {
      if (spec.weight === 0) continue;
      const [s, t] = [value(spec.student), target(hintTarget(spec.teacher))];
      terms.push({
        name: `${spec.kind} ${spec.student}`,
        weight: spec.weight,
        value: located(["hints", i], () => HINTS[spec.kind](context, s, t, spec)),
      });
    }
    return terms;
  };
}

const OUTPUT_LOSSES: Readonly<
  Record<OutputLoss, (context: ObjectiveContext, s: Value, t: Value, loss: DistillationLoss) => Value>
> = {
  kl: ({ g }, s, t, { temperature }) => distillationKl(g, s, t, temperature),
  dkd: ({ g, target }, s, t, loss) => decoupledKl(g, s, t, asClasses(g, target(LABELS)), loss),
  mse: ({ g }, s, t) => meanSquaredError(g, s, t),
  huber: ({ g }, s, t) => huber(g, s, t),
  cosine: ({ g }, s, t) => cosineDistance(g, s, t),
};

/**
 * How far a student's output is from what it is to be like, which is given as the pair's reading says (`taughtOutput`, or what a `Teacher` says).
 */
export function outputLoss(
  context: ObjectiveContext,
  { loss: kind, reading }: ComparedOutputs,
  student: Value,
  taught: Value,
  loss: DistillationLoss,
): Value {
  const own = readOutput(context.g, student, reading);
  if (reading.kind !== "log_odds") return OUTPUT_LOSSES[kind](context, own, taught, loss);
  if (kind !== "kl") throw new CoreError("invalid_params", unlikeShares(kind, student.name), student.name);
  return distillationBinaryKl(context.g, own, taught, loss.temperature);
}

/** The output of a network that teaches in the same step, as `outputLoss` reads it; no gradient flows into it. */
export function taughtOutput({ g, detach }: ObjectiveContext, { reading }: ComparedOutputs, output: Value): Value {
  return detach(readOutput(g, output, reading));
}

/**
 * Of an output against the labels. Floats are values in the output's shape (mean squared error). Integers are classes (cross-entropy); against
 * shares each is a yes for its own class and a no for all others, or, in the output's shape, the yes or no of its position (binary
 * cross-entropy).
 */
export function labelLoss(
  { g }: ObjectiveContext,
  { studentHasShares }: Pick<ComparedOutputs, "studentHasShares">,
  output: Value,
  labels: Value,
  { labelSmoothing, ignoreLabel }: Pick<DistillationLoss, "labelSmoothing" | "ignoreLabel">,
): Value {
  if (!isInteger(labels)) return meanSquaredError(g, output, labels, ignoreLabel);
  const axis = labelledAxis(dimsOf(output), dimsOf(labels));
  if (!studentHasShares) {
    return crossEntropy(g, scoresOf(g, output, axis ?? null), asClasses(g, labels), labelSmoothing, ignoreLabel);
  }
  const odds = logOddsOf(g, output);
  if (axis === undefined) return binaryCrossEntropy(g, odds, labels, labelSmoothing, ignoreLabel);
  return oneVersusRest(g, odds, asClasses(g, labels), { axis, smoothing: labelSmoothing, ignoreLabel });
}

function isInteger({ dtype }: Value): boolean {
  const kind = dtype && DTYPES[dtype].kind;
  return kind === "int" || kind === "uint";
}

/** Integer labels in a dtype that indices may have. Throws `invalid_params` for labels that are numbers. */
function asClasses(g: GraphBuilder, labels: Value): Value {
  if (!isInteger(labels)) {
    throw new CoreError("invalid_params", `The labels are ${labels.dtype}; classes are integers.`, labels.name);
  }
  if (labels.dtype === "int64" || labels.dtype === "int32") return labels;
  const cast = g.cast(labels, "int64");
  cast.shape = labels.shape;
  return cast;
}
