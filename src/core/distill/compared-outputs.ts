/** How outputs of two models that mean the same are compared: by what they are, known from the graphs. */
import type { Model, Value } from "../onnx/ir.ts";
import { meaningOf, type OutputMeaning } from "../operators/output-meaning.ts";
import { type OutputLoss, type OutputPair, pairOutputs } from "./output-pairs.ts";

/** A pair, and how it is compared. */
export interface ComparedOutputs extends OutputPair {
  readonly loss: OutputLoss;
  /** Of class scores, in both outputs; see `OutputMeaning.class_axis`. */
  readonly classAxis: number | null;
}

export const comparesScores = (loss: OutputLoss) => loss === "kl" || loss === "dkd";

/**
 * The outputs of two models that mean the same, and how they are compared: by the loss that is asked for, or by what they are, class scores by
 * `kl` and other numbers by `mse`. What the operators of one of the two say counts before what is taken to be so. Throws `invalid_params` where it
 * is not clear which outputs mean the same.
 */
export function comparedOutputs(
  teacher: Model,
  student: Model,
  { outputLoss, outputs }: { readonly outputLoss: OutputLoss | null; readonly outputs?: readonly OutputPair[] },
): readonly ComparedOutputs[] {
  const [theirs, ours] = [teacher.graph.outputs, student.graph.outputs];
  const find = (values: readonly Value[], name: string) =>
    meaningOf(values.find((value) => value.name === name)!, values.length === 1);
  return pairOutputs(theirs, ours, outputs).map((pair) => {
    const meaning = ofBoth(find(theirs, pair.teacher), find(ours, pair.student));
    return {
      ...pair,
      loss: outputLoss ?? (meaning.kind === "class_scores" ? "kl" : "mse"),
      classAxis: meaning.class_axis,
    };
  });
}

function ofBoth(teacher: OutputMeaning, student: OutputMeaning): OutputMeaning {
  const evident = [teacher, student].filter((meaning) => meaning.evident);
  return evident.find(({ kind }) => kind !== "class_scores") ?? evident[0] ?? teacher;
}
