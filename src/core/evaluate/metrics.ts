import { CoreError } from "../errors.ts";
import { type Meter, meanMeter, type Share } from "../meter.ts";
import { DTYPES } from "../onnx/dtype.ts";
import { type Tensor, withoutUnitAxes } from "../onnx/tensor.ts";
import { valuesOf } from "./fidelity.ts";

interface Metric {
  /** Whether an output of these dims can be compared with such labels. */
  fits(output: Tensor, labels: Tensor): boolean;
  /** Begins to count, for one model; positions labelled `ignoreLabel` are left out. */
  start(ignoreLabel: number | null): Meter<[output: Tensor, labels: Tensor]>;
  /** What labels are to it. */
  readonly labels: "classes" | "numbers";
  readonly better: "higher" | "lower";
  /** Whether it is a part of a whole, 0 to 1, that people read in per cent. */
  readonly isShare: boolean;
  /** What the labels must be like, for a message. */
  readonly wants: string;
}

/**
 * The metrics that labels can be held against. A metric is added here and nowhere else: requests, answers, capabilities and reports follow
 * this record.
 */
export const METRICS = {
  top1: ofClasses((ignoreLabel) => meanMeter((scores, labels) => topHits(1, scores, labels, ignoreLabel))),
  top5: ofClasses((ignoreLabel) => meanMeter((scores, labels) => topHits(5, scores, labels, ignoreLabel))),
  f1_macro: ofClasses(macroF1),
  mse: ofNumbers((ignoreLabel) =>
    meanMeter((output, labels) => sumOfErrors(output, labels, ignoreLabel, (error) => error * error)),
  ),
  mae: ofNumbers((ignoreLabel) => meanMeter((output, labels) => sumOfErrors(output, labels, ignoreLabel, Math.abs))),
  rmse: ofNumbers((ignoreLabel) =>
    meanMeter((output, labels) => sumOfErrors(output, labels, ignoreLabel, (error) => error * error), Math.sqrt),
  ),
} satisfies Readonly<Record<string, Metric>>;

export type MetricName = keyof typeof METRICS;

export const METRIC_NAMES = Object.keys(METRICS) as [MetricName, ...MetricName[]];

/** A metric of class scores, the last axis that is not of one, and integer labels; more of it is better. */
function ofClasses(start: Metric["start"]): Metric {
  return {
    fits: (output, labels) =>
      isIntegers(labels) &&
      DTYPES[output.dtype].kind === "float" &&
      withoutUnitAxes(output.dims).length > 1 &&
      `${withoutUnitAxes(output.dims).slice(0, -1)}` === `${withoutUnitAxes(labels.dims)}`,
    start,
    labels: "classes",
    better: "higher",
    isShare: true,
    wants: "integer classes, one for each row of scores",
  };
}

/** A metric of numbers, an error: less of it is better. */
function ofNumbers(start: Metric["start"]): Metric {
  return {
    // Axes of one do not count: a regressor's [n, 1] fits labels of [n].
    fits: (output, labels) => `${withoutUnitAxes(output.dims)}` === `${withoutUnitAxes(labels.dims)}`,
    start,
    labels: "numbers",
    better: "lower",
    isShare: false,
    wants: "numbers in the shape of an output",
  };
}

/** How many positions have their label among the `k` largest scores. */
function topHits(k: number, output: Tensor, labels: Tensor, ignoreLabel: number | null): Share {
  let [hits, positions] = [0, 0];
  for (const { label, scores } of labelledScores(output, labels, ignoreLabel)) {
    positions++;
    const own = scores[label]!;
    // The label's rank: scores above its own, and equal ones before it, so that ties are decided as argmax decides them.
    let above = 0;
    for (let i = 0; i < scores.length && above < k; i++) {
      if (scores[i]! > own || (scores[i] === own && i < label)) above++;
    }
    if (above < k && !Number.isNaN(own)) hits++;
  }
  return { sum: hits, positions };
}

/**
 * Macro F1: the mean of 2·TP / (2·TP + FP + FN) over the classes that are the label or the prediction of some position, each class with the
 * same weight. The prediction is the class of the first largest score; a position whose scores are all NaN has none.
 */
function macroF1(ignoreLabel: number | null): ReturnType<Metric["start"]> {
  const counts = new Map<number, { hits: number; labelled: number; predicted: number }>();
  const countOf = (label: number) => {
    const known = counts.get(label);
    if (known) return known;
    const fresh = { hits: 0, labelled: 0, predicted: 0 };
    counts.set(label, fresh);
    return fresh;
  };
  let positions = 0;
  return {
    add(output, labels) {
      for (const { label, scores } of labelledScores(output, labels, ignoreLabel)) {
        positions++;
        const prediction = firstLargest(scores);
        countOf(label).labelled++;
        if (prediction !== undefined) countOf(prediction).predicted++;
        if (prediction === label) countOf(label).hits++;
      }
    },
    get positions() {
      return positions;
    },
    get value() {
      // 2·TP + FP + FN is how often a class was a label and how often a prediction, together.
      const scores = [...counts.values()].map(({ hits, labelled, predicted }) => (2 * hits) / (labelled + predicted));
      return scores.reduce((sum, score) => sum + score, 0) / scores.length;
    },
  };
}

/** Index of the first largest value; undefined when all are NaN. */
function firstLargest(values: ArrayLike<number>): number | undefined {
  let best: number | undefined;
  for (let i = 0; i < values.length; i++) {
    if (!Number.isNaN(values[i]) && (best === undefined || values[i]! > values[best]!)) best = i;
  }
  return best;
}

/** The positions that count: their class, and the scores of all classes. Throws `invalid_dataset` for a label that is no class. */
function* labelledScores(output: Tensor, labels: Tensor, ignoreLabel: number | null) {
  const values = valuesOf(output);
  const width = withoutUnitAxes(output.dims).at(-1)!;
  for (const [row, label] of valuesOf(labels).entries()) {
    if (label === ignoreLabel) continue;
    if (!(label >= 0 && label < width)) {
      throw new CoreError(
        "invalid_dataset",
        `The label ${label} is not a class: the model has ${width} of them, counted from 0.`,
        "labels",
      );
    }
    yield { label, scores: values.subarray(row * width, (row + 1) * width) };
  }
}

/** The sum of `loss` of the differences between an output and its labels. */
function sumOfErrors(
  output: Tensor,
  labels: Tensor,
  ignoreLabel: number | null,
  loss: (error: number) => number,
): Share {
  const y = valuesOf(output);
  const target = valuesOf(labels);
  let [sum, positions] = [0, 0];
  for (let i = 0; i < y.length; i++) {
    if (target[i] === ignoreLabel) continue;
    sum += loss(y[i]! - target[i]!);
    positions++;
  }
  return { sum, positions };
}

/** A metric as a number of which more is better: errors are negated. */
export function scoreOf(metric: MetricName, value: number): number {
  return METRICS[metric].better === "lower" ? -value : value;
}

/** What a meter has counted. Throws `invalid_dataset` when it has counted nothing, every label being the one that is ignored. */
export function countedValue({ positions, value }: Meter<[Tensor, Tensor]>): number {
  if (positions > 0) return value;
  throw new CoreError("invalid_dataset", "Every label of the samples is the one that is ignored.", "labels");
}

/** The output that fits the labels: the first with the fewest further axes of one; undefined when none does. */
export function outputFor(
  name: MetricName,
  outputs: Readonly<Record<string, Tensor>>,
  labels: Tensor,
): string | undefined {
  const fitting = Object.keys(outputs).filter((output) => METRICS[name].fits(outputs[output]!, labels));
  const rank = labels.dims.length + (METRICS[name].labels === "classes" ? 1 : 0);
  return fitting.find((output) => outputs[output]!.dims.length === rank) ?? fitting[0];
}

/** The metric that is meant when none is asked for: `top1` for integer labels, `mse` for numbers. */
export function defaultMetric(labels: Tensor): MetricName {
  return isIntegers(labels) ? "top1" : "mse";
}

function isIntegers({ dtype }: Tensor): boolean {
  return DTYPES[dtype].kind === "int" || DTYPES[dtype].kind === "uint";
}
