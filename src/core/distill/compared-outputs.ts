/** How outputs of two models that mean the same are compared: by what they are, known from the graphs. */
import type { GraphBuilder } from "../onnx/graph-builder.ts";
import type { Model, Value } from "../onnx/ir.ts";
import { meaningOf, type OutputMeaning } from "../operators/output-meaning.ts";
import { logOddsOf, scoresOf } from "../train/losses.ts";
import { type OutputLoss, type OutputPair, pairOutputs } from "./output-pairs.ts";

/**
 * What a comparison reads of an output. `scores`: the logits of classes, along the last axis; they lie along `classAxis` of the output (see
 * `OutputMeaning.class_axis`). `log_odds`: of shares, each by itself. `values`: the output as it is.
 */
export type OutputReading =
  | { readonly kind: "scores"; readonly classAxis: number | null }
  | { readonly kind: "log_odds" }
  | { readonly kind: "values" };

/** A pair, and how it is compared. */
export interface ComparedOutputs extends OutputPair {
  readonly loss: OutputLoss;
  readonly reading: OutputReading;
  /** Whether each number of the student's output is a share by itself, so that labels are held against it one by one. */
  readonly studentHasShares: boolean;
}

/**
 * The outputs of two models that mean the same, and how they are compared: by the loss that is asked for, or by what they are, class scores and
 * shares by `kl` and other numbers by `mse`. What the operators of one of the two say counts before what is taken to be so. Throws
 * `invalid_params` where it is not clear which outputs mean the same.
 */
export function comparedOutputs(
  teacher: Model,
  student: Model,
  { outputLoss, outputs }: { readonly outputLoss: OutputLoss | null; readonly outputs?: readonly OutputPair[] },
): readonly ComparedOutputs[] {
  return pairOutputs(teacher.graph.outputs, student.graph.outputs, outputs).map((pair) => {
    const [theirs, ours] = [outputMeaning(teacher, pair.teacher), outputMeaning(student, pair.student)];
    const meaning = ofBoth(theirs, ours);
    const loss = outputLoss ?? (meaning.kind === "numbers" ? "mse" : "kl");
    return { ...pair, loss, reading: readingFor(loss, meaning), studentHasShares: ours.kind === "shares" };
  });
}

/** What the output of this name is. */
export function outputMeaning({ graph: { outputs } }: Model, name: string): OutputMeaning {
  return meaningOf(outputs.find((value) => value.name === name)!, outputs.length === 1);
}

/** What two outputs are to each other. Shares and what is none are numbers to each other. */
function ofBoth(teacher: OutputMeaning, student: OutputMeaning): OutputMeaning {
  const both = [teacher, student];
  const shares = both.filter(({ kind }) => kind === "shares");
  if (shares.length === 1) return { kind: "numbers", class_axis: null, evident: true };
  const evident = both.filter((meaning) => meaning.evident);
  return shares[0] ?? evident.find(({ kind }) => kind !== "class_scores") ?? evident[0] ?? teacher;
}

function readingFor(loss: OutputLoss, meaning: OutputMeaning): OutputReading {
  if (loss !== "kl" && loss !== "dkd") return { kind: "values" };
  return meaning.kind === "shares" ? { kind: "log_odds" } : { kind: "scores", classAxis: meaning.class_axis };
}

/** An output as a comparison reads it, in a graph that trains. */
export function readOutput(g: GraphBuilder, output: Value, reading: OutputReading): Value {
  if (reading.kind === "scores") return scoresOf(g, output, reading.classAxis);
  return reading.kind === "log_odds" ? logOddsOf(g, output) : output;
}
