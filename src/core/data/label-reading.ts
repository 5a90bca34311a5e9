/** What labels mean for the outputs of a model, told from recorded facts, and datasets that give them in that meaning. */

import { CoreError } from "../errors.ts";
import type { LabelFacts, OutputFacts } from "../facts.ts";
import { areShares } from "../onnx/class-axis.ts";
import { DTYPES } from "../onnx/dtype.ts";
import { arrayOf, elementCount, floatsOf, hasArray, isFloat, type Tensor, tensorOf } from "../onnx/tensor.ts";
import type { Batch, Dataset } from "./dataset.ts";

/** What labels are held against an output as: the number of the right score, 0 or 1 for each share, or the output's own numbers. */
export type LabelMeaning = "classes" | "binary" | "numbers";

export interface LabelReading {
  readonly meaning: LabelMeaning;
  /** How they are stored: `as_is`; classes as rows with a single 1; classes, or 0 and 1, as floats without a fraction or as bool; numbers as integers. */
  readonly stored: "as_is" | "one_hot" | "not_integers" | "integer_numbers";
}

/**
 * `fits`: with the first output that they fit. `misfit`: neither classes nor numbers for any output. `bad_values`: classes by their shape,
 * with values that are none. Messages are sentences for a person.
 */
export type LabelVerdict =
  | { readonly kind: "fits"; readonly output: string; readonly reading: LabelReading }
  | { readonly kind: "misfit" | "bad_values"; readonly message: string };

export interface LabelQuestion {
  readonly labels: LabelFacts;
  /** In order; the first that fits is meant, or the first that fits without further axes of one. */
  readonly outputs: readonly OutputFacts[];
  /** What they are to be; null when either will do. */
  readonly meaning: LabelMeaning | null;
  readonly ignoreLabel: number | null;
}

/** Decides what labels mean. Sizes of an output that are not known are taken to fit. */
export function readLabels(question: LabelQuestion): LabelVerdict {
  const { labels, outputs, ignoreLabel } = question;
  if (labels.first_non_finite && labels.non_finite > 0) {
    const { sample, value } = labels.first_non_finite;
    const message = `The labels have ${labels.non_finite} that are NaN or infinite, the first in sample ${sample} (${value}).`;
    return { kind: "bad_values", message };
  }
  const ignored = ignoreLabel === null ? 0 : (labels.outermost.find(({ value }) => value === ignoreLabel)?.count ?? 0);
  if (ignored > 0 && ignored === labels.count) {
    return { kind: "bad_values", message: `All ${labels.count} labels are ignore_label (${ignoreLabel}).` };
  }
  const verdicts = outputs.map((output) => readFor(output, question));
  const isExact = (verdict: LabelVerdict, i: number) =>
    verdict.kind === "fits" &&
    outputs[i]!.shape?.length === 1 + labels.shape.length + (isOnePerRow(verdict.reading) ? 1 : 0);
  return (
    verdicts.find(isExact) ??
    verdicts.find(({ kind }) => kind === "fits") ??
    verdicts.find(({ kind }) => kind === "bad_values") ??
    verdicts[0] ?? { kind: "misfit", message: "The model has no output that labels could be held against." }
  );
}

function isOnePerRow({ meaning, stored }: LabelReading): boolean {
  return meaning === "classes" && stored !== "one_hot";
}

/** Labels and an output that they may belong to; sizes are of a sample, without axes of one. */
interface Candidate {
  readonly labels: LabelFacts;
  readonly output: OutputFacts;
  readonly meaning: LabelMeaning | null;
  readonly ignoreLabel: number | null;
  readonly given: readonly number[];
  readonly own: readonly (number | string | null)[];
  readonly isInteger: boolean;
  /** Labels and output, for messages: "The labels, int64 [3] a sample," and "y", [4] a sample. */
  readonly what: string;
  readonly shown: string;
}

function readFor(output: OutputFacts, { labels, meaning, ignoreLabel }: LabelQuestion): LabelVerdict {
  const { name, dtype, shape } = output;
  const what = `The labels, ${labels.dtype} [${labels.shape.join(", ")}] a sample,`;
  if (dtype === null || !isFloat(dtype)) {
    return misfit(
      `${what} cannot be held against the output ${JSON.stringify(name)}, which is ${dtype ?? "no tensor"}.`,
    );
  }
  const isInteger = DTYPES[labels.dtype].kind !== "float" && labels.dtype !== "bool";
  if (shape === null) {
    const isClasses = meaning === "classes" || (meaning === null && isInteger);
    return fits(output, { meaning: isClasses ? "classes" : "numbers", stored: "as_is" });
  }
  const candidate: Candidate = {
    ...{ labels, output, meaning, ignoreLabel, isInteger, what },
    given: labels.shape.filter((dim) => dim !== 1),
    own: shape.slice(1).filter((dim) => dim !== 1),
    shown: `${JSON.stringify(name)}, ${sizesText(shape.slice(1))} a sample`,
  };
  return (
    (isOneOf(meaning, "classes") ? asClasses(candidate) : undefined) ??
    (isOneOf(meaning, "binary") ? asBinary(candidate) : undefined) ??
    asNumbers(candidate)
  );
}

const fits = ({ name }: OutputFacts, reading: LabelReading): LabelVerdict => ({ kind: "fits", output: name, reading });
const misfit = (message: string): LabelVerdict => ({ kind: "misfit", message });

/** `[3, ?]` */
function sizesText(sizes: readonly (number | string | null)[]): string {
  return `[${sizes.map((dim) => dim ?? "?").join(", ")}]`;
}

/** One class for each position that has scores, or one-hot rows; undefined where labels are neither, and may be something else. */
function asClasses(candidate: Candidate): LabelVerdict | undefined {
  const { labels, output, meaning, ignoreLabel, given, own, isInteger, what, shown } = candidate;
  const rows = own.slice(0, -1);
  // Scores of maps have their classes along the channels, [n, K, h, w].
  const isMap = own.length > 1 && output.shape![1] !== 1;
  const classes = matches(given, rows) ? own.at(-1) : isMap && matches(given, own.slice(1)) ? own[0] : undefined;
  if (classes !== undefined) {
    if (!labels.integers) {
      return misfit(
        `${what} are one for each position with scores of ${shown}, as classes are, but not all are whole numbers.`,
      );
    }
    const bad = badClass(labels, classes, ignoreLabel);
    if (bad !== undefined) {
      return { kind: "bad_values", message: `${bad} of the output ${shown}${whatToDo(labels, ignoreLabel)}` };
    }
    return fits(output, { meaning: "classes", stored: isInteger ? "as_is" : "not_integers" });
  }
  if (own.length > 0 && labels.one_hot && labels.shape.at(-1) !== 1 && matches(given, own)) {
    return fits(output, { meaning: "classes", stored: "one_hot" });
  }
  if (meaning === null) return undefined;
  const wanted = `${sizesText(rows)}${isMap ? ` or ${sizesText(own.slice(1))}` : ""}`;
  return misfit(
    own.length === 0
      ? `${what} cannot be classes of the output ${shown}: it has one number for each sample, and classes need a score each.`
      : `${what} do not fit the output ${shown}: classes are one integer for each position, ${wanted} a sample, or one-hot rows.`,
  );
}

/** 0 or 1 for each share of the output; undefined where labels are not, and may be something else. */
function asBinary({ labels, output, meaning, ignoreLabel, given, own, isInteger, what, shown }: Candidate) {
  const hasShares = mayHaveShares(output, meaning);
  if (hasShares && labels.integers && matches(given, own) && areZeroOrOne(labels, ignoreLabel)) {
    return fits(output, { meaning: "binary", stored: isInteger ? "as_is" : "not_integers" });
  }
  if (meaning === null) return undefined;
  return misfit(
    hasShares
      ? `${what} are not binary labels of the output ${shown}: those are 0 or 1 for each of its numbers.`
      : `${what} cannot be binary labels of the output ${shown}: its numbers are not shares, as a Sigmoid makes them. If they are logits, put a Sigmoid behind them.`,
  );
}

/** Of an output that an earlier version recorded, what it is is not known: it is taken for what the job asks for. */
function mayHaveShares(output: OutputFacts, meaning: LabelMeaning | null): boolean {
  return output.meaning ? areShares(output) : meaning === "binary";
}

/** Numbers in the shape of the output. */
function asNumbers({ labels, output, meaning, given, own, isInteger, what, shown }: Candidate): LabelVerdict {
  if (!matches(given, own)) {
    return misfit(
      `${what} fit the output ${shown} neither as classes, one integer for each position with scores along the last axis or the channels, nor as numbers in its shape.`,
    );
  }
  if (meaning === null && (isInteger || labels.dtype === "bool")) {
    const kind = isInteger ? "integers, which are classes" : "bool";
    const binary = mayHaveShares(output, meaning)
      ? "If they are binary labels, all must be 0 or 1."
      : "If they are 0 or 1 for each of its numbers, these must be shares: put a Sigmoid behind them.";
    return misfit(
      `${what} are ${kind}, and the output ${shown} has no scores of classes to choose from. If they are numbers, save them as float32 or ask for the metric mse. ${binary}`,
    );
  }
  return fits(output, { meaning: "numbers", stored: isFloat(labels.dtype) ? "as_is" : "integer_numbers" });
}

/** Whether labels may be `what`, as far as the job says. */
function isOneOf(asked: LabelMeaning | null, what: LabelMeaning): boolean {
  return asked === null || asked === what;
}

/** Whether all whole numbers that are not ignored are 0 or 1. */
function areZeroOrOne({ outermost }: LabelFacts, ignoreLabel: number | null): boolean {
  return outermost.every(({ value }) => value === ignoreLabel || value === 0 || value === 1);
}

/** Whether sizes are the same, as far as they are known. Unknown ones may also be of 1, and then do not count. */
function matches(given: readonly number[], own: readonly (number | string | null)[]): boolean {
  if (own.length < given.length) return false;
  const [dim, ...rest] = own;
  if (dim === undefined) return true;
  if (typeof dim === "number") return given[0] === dim && matches(given.slice(1), rest);
  return (given.length > 0 && matches(given.slice(1), rest)) || matches(given, rest);
}

/** The start of a sentence about a label that is no class, if there is one: "The label -1 of sample 3 is not a class". */
function badClass(labels: LabelFacts, classes: number | string | null, ignoreLabel: number | null): string | undefined {
  const count = typeof classes === "number" ? classes : Number.POSITIVE_INFINITY;
  const bad = labels.outermost
    .filter(({ value }) => value !== ignoreLabel && (value < 0 || value >= count))
    .sort((a, b) => a.first_sample - b.first_sample);
  const [first] = bad;
  if (!first) return undefined;
  const others = bad.reduce((sum, { count }) => sum + count, 0) - 1;
  const more = others > 0 ? `, like at least ${others} more,` : "";
  return `The label ${first.value} of sample ${first.first_sample}${more} is not a class${Number.isFinite(count) ? ` (0 to ${count - 1})` : ""}`;
}

function whatToDo(labels: LabelFacts, ignoreLabel: number | null): string {
  const lowest = labels.outermost.find(({ value }) => value < 0 && value !== ignoreLabel);
  return lowest ? `. If ${lowest.value} means that there is no label, say so with ignore_label.` : ".";
}

/**
 * The same samples with labels as `reading` says: classes as integers, one for each row of scores; binary labels as integers; numbers as floats. `ignored` are renamed: a label of the first
 * value is given out as the second.
 */
export function withLabelReading(
  dataset: Dataset,
  reading: LabelReading,
  ignored: { readonly from: number; readonly to: number } | null = null,
): Dataset {
  if (reading.stored === "as_is" && (ignored === null || ignored.from === ignored.to)) return dataset;
  return withLabels(dataset, (labels) => renamed(converted(labels, reading.stored), ignored));
}

/** The same samples without labels. */
export function withoutLabels(dataset: Dataset): Dataset {
  return dataset.facts.has_labels
    ? { ...withLabels(dataset, () => undefined), facts: { ...dataset.facts, has_labels: false, labels: null } }
    : dataset;
}

function withLabels(dataset: Dataset, change: (labels: Tensor) => Tensor | undefined): Dataset {
  const changed = ({ labels, ...batch }: Batch): Batch => {
    const own = labels && change(labels);
    return { ...batch, ...(own && { labels: own }) };
  };
  return {
    facts: dataset.facts,
    prepare: (indices, signal) => dataset.prepare(indices, signal),
    gather: (indices) => changed(dataset.gather(indices)),
    async *batches(options) {
      for await (const batch of dataset.batches(options)) yield changed(batch);
    },
  };
}

function converted(labels: Tensor, stored: LabelReading["stored"]): Tensor {
  if (stored === "as_is") return labels;
  const values = numbersOf(labels);
  if (stored === "integer_numbers") return tensorOf("float64", labels.dims, values);
  if (stored === "not_integers") return tensorOf("int64", labels.dims, BigInt64Array.from(values, BigInt));
  const dims = labels.dims.slice(0, -1);
  const width = labels.dims.at(-1)!;
  const classes = BigInt64Array.from({ length: elementCount(dims) }, (_, row) =>
    BigInt(values.subarray(row * width, (row + 1) * width).indexOf(1)),
  );
  return tensorOf("int64", dims, classes);
}

function renamed(labels: Tensor, ignored: { readonly from: number; readonly to: number } | null): Tensor {
  if (ignored === null || ignored.from === ignored.to) return labels;
  const values = numbersOf(labels).map((value) => (value === ignored.from ? ignored.to : value));
  return isFloat(labels.dtype)
    ? tensorOf("float64", labels.dims, values)
    : tensorOf("int64", labels.dims, BigInt64Array.from(values, BigInt));
}

function numbersOf(labels: Tensor): Float64Array<ArrayBuffer> {
  if (isFloat(labels.dtype) && labels.dtype !== "float64") return Float64Array.from(floatsOf(labels));
  if (!hasArray(labels.dtype)) throw new CoreError("invalid_dataset", `Labels of ${labels.dtype} cannot be read.`);
  return Float64Array.from(arrayOf(labels, labels.dtype) as ArrayLike<number | bigint>, Number);
}
