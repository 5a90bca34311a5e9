import type { LabelMeaning } from "../data/label-reading.ts";
import { CoreError } from "../errors.ts";
import type { Meter, Resampled, Share } from "../meter.ts";
import { classCount, classRows, labelledAxis } from "../onnx/class-axis.ts";
import { DTYPES } from "../onnx/dtype.ts";
import { type Tensor, tensor, withoutUnitAxes } from "../onnx/tensor.ts";
import { valuesOf } from "./fidelity.ts";

/** A metric of one model, of which intervals can be found. */
export interface SampledMeter extends Meter<[output: Tensor, labels: Tensor]>, Resampled {}

interface Metric {
  /** Whether an output of these dims can be compared with such labels. */
  fits(output: Tensor, labels: Tensor): boolean;
  /** Begins to count, for one model; positions labelled `ignoreLabel` are left out. */
  start(ignoreLabel: number | null): SampledMeter;
  /** What labels are to it. */
  readonly labels: LabelMeaning;
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
  top1: ofClasses((ignoreLabel) => shareMeter((scores, labels) => topHits(1, scores, labels, ignoreLabel))),
  top5: ofClasses((ignoreLabel) => shareMeter((scores, labels) => topHits(5, scores, labels, ignoreLabel))),
  f1_macro: ofClasses(macroF1),
  binary_accuracy: ofBinaries((ignoreLabel) =>
    sampledMean((shares, labels) => binaryHits(shares, labels, ignoreLabel)),
  ),
  binary_f1: ofBinaries(binaryF1),
  mse: ofNumbers((ignoreLabel) => errorMeter(ignoreLabel, (error) => error * error)),
  mae: ofNumbers((ignoreLabel) => errorMeter(ignoreLabel, Math.abs)),
  rmse: ofNumbers((ignoreLabel) => errorMeter(ignoreLabel, (error) => error * error, Math.sqrt)),
} satisfies Readonly<Record<string, Metric>>;

export type MetricName = keyof typeof METRICS;

export const METRIC_NAMES = Object.keys(METRICS) as [MetricName, ...MetricName[]];

/** A metric of class scores (see `labelledAxis`) and integer labels; more of it is better. */
function ofClasses(start: Metric["start"]): Metric {
  return {
    fits: (output, labels) =>
      isIntegers(labels) &&
      DTYPES[output.dtype].kind === "float" &&
      labelledAxis(output.dims, labels.dims) !== undefined,
    start,
    labels: "classes",
    better: "higher",
    isShare: true,
    wants: "integer classes, one for each position that has scores",
  };
}

/** A metric of shares and labels of 0 or 1, one for each of them; more of it is better. */
function ofBinaries(start: Metric["start"]): Metric {
  return {
    fits: (output, labels) =>
      isIntegers(labels) && DTYPES[output.dtype].kind === "float" && areOfOneShape(output, labels),
    start,
    labels: "binary",
    better: "higher",
    isShare: true,
    wants: "labels of 0 or 1 in the shape of an output that a Sigmoid makes",
  };
}

/** Axes of one do not count: a regressor's [n, 1] fits labels of [n]. */
function areOfOneShape(output: Tensor, labels: Tensor): boolean {
  return `${withoutUnitAxes(output.dims)}` === `${withoutUnitAxes(labels.dims)}`;
}

/** A metric of numbers, an error: less of it is better. */
function ofNumbers(start: Metric["start"]): Metric {
  return {
    fits: areOfOneShape,
    start,
    labels: "numbers",
    better: "lower",
    isShare: false,
    wants: "numbers in the shape of an output",
  };
}

// ---- meters ----------------------------------------------------------------------------------------------------------

/** The samples of a batch, one by one: along the first axis, where output and labels both have it; else the batch is one. */
function* samplesOf(output: Tensor, labels: Tensor): Generator<readonly [output: Tensor, labels: Tensor]> {
  const count = labels.dims[0] ?? 1;
  if (count === 1 || output.dims[0] !== count) {
    yield [output, labels];
    return;
  }
  const part = ({ dtype, dims, bytes }: Tensor, i: number) => {
    const size = bytes.byteLength / count;
    return tensor(dtype, [1, ...dims.slice(1)], bytes.subarray(i * size, (i + 1) * size));
  };
  for (let i = 0; i < count; i++) yield [part(output, i), part(labels, i)];
}

/** A mean over positions, of which samples have some each; `finish` makes the metric of it (its root, say). */
function sampledMean(
  share: (output: Tensor, labels: Tensor) => Share,
  finish: (mean: number) => number = (mean) => mean,
): SampledMeter & { readonly shares: readonly Share[] } {
  const shares: Share[] = [];
  let [sum, positions] = [0, 0];
  return {
    add(output, labels) {
      for (const sample of samplesOf(output, labels)) {
        const own = share(...sample);
        shares.push(own);
        sum += own.sum;
        positions += own.positions;
      }
    },
    get positions() {
      return positions;
    },
    get value() {
      return finish(sum / positions);
    },
    get samples() {
      return shares.length;
    },
    resampled(weights) {
      let [sum, positions] = [0, 0];
      for (let i = 0; i < shares.length; i++) {
        sum += weights[i]! * shares[i]!.sum;
        positions += weights[i]! * shares[i]!.positions;
      }
      return finish(sum / positions);
    },
    shares,
  };
}

/** The share of positions that are hits. */
function shareMeter(hits: (output: Tensor, labels: Tensor) => Share): SampledMeter {
  return sampledMean(hits);
}

/** The mean loss of the differences between an output and its labels. */
function errorMeter(
  ignoreLabel: number | null,
  loss: (error: number) => number,
  finish?: (mean: number) => number,
): SampledMeter {
  const meter = sampledMean((output, labels) => sumOfErrors(output, labels, ignoreLabel, loss), finish);
  return Object.defineProperty(meter, "shares", { value: undefined }) as SampledMeter;
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

/** What a sample adds to a score, and how many of its positions count. */
interface Counted<Counts> {
  readonly counts: Counts;
  readonly positions: number;
}

/** A score of what samples add up to, each as often as `weightOf` says, which is no mean over positions. */
function sampledScore<Counts>(
  count: (output: Tensor, labels: Tensor) => Counted<Counts>,
  score: (samples: readonly Counts[], weightOf: (sample: number) => number) => number,
): SampledMeter {
  const samples: Counts[] = [];
  let positions = 0;
  return {
    add(output, labels) {
      for (const sample of samplesOf(output, labels)) {
        const own = count(...sample);
        samples.push(own.counts);
        positions += own.positions;
      }
    },
    get positions() {
      return positions;
    },
    get value() {
      return score(samples, () => 1);
    },
    get samples() {
      return samples.length;
    },
    resampled: (weights) => score(samples, (sample) => weights[sample]!),
    shares: undefined,
  };
}

/**
 * Macro F1: the mean of 2·TP / (2·TP + FP + FN) over the classes that are the label or the prediction of some position, each class with the
 * same weight. The prediction is the class of the first largest score; a position whose scores are all NaN has none.
 */
function macroF1(ignoreLabel: number | null): SampledMeter {
  return sampledScore((output, labels) => classCounts(output, labels, ignoreLabel), meanF1);
}

/** The classes that occur in a sample, in threes: class, how often both label and prediction, and how often either, counted twice. */
function classCounts(output: Tensor, labels: Tensor, ignoreLabel: number | null): Counted<Uint32Array> {
  const counts = new Map<number, [hits: number, either: number]>();
  const count = (label: number, hits: number, either: number) => {
    const [a, b] = counts.get(label) ?? [0, 0];
    counts.set(label, [a + hits, b + either]);
  };
  let positions = 0;
  for (const { label, scores } of labelledScores(output, labels, ignoreLabel)) {
    positions++;
    const prediction = firstLargest(scores);
    count(label, prediction === label ? 1 : 0, 1);
    if (prediction !== undefined) count(prediction, 0, 1);
  }
  return {
    counts: Uint32Array.from([...counts].flatMap(([label, [hits, either]]) => [label, hits, either])),
    positions,
  };
}

/** Of samples' `classCounts`. 2·TP + FP + FN is how often a class was a label and how often a prediction, together. */
function meanF1(samples: readonly Uint32Array[], weightOf: (sample: number) => number): number {
  const counts = new Map<number, { hits: number; either: number }>();
  for (const [sample, classes] of samples.entries()) {
    const weight = weightOf(sample);
    if (weight === 0) continue;
    for (let i = 0; i < classes.length; i += 3) {
      const known = counts.get(classes[i]!) ?? { hits: 0, either: 0 };
      known.hits += weight * classes[i + 1]!;
      known.either += weight * classes[i + 2]!;
      counts.set(classes[i]!, known);
    }
  }
  let sum = 0;
  for (const { hits, either } of counts.values()) sum += (2 * hits) / either;
  return sum / counts.size;
}

/** How many shares are above a half where the label is 1, and are not where it is 0. A NaN is a miss. */
function binaryHits(output: Tensor, labels: Tensor, ignoreLabel: number | null): Share {
  let [hits, positions] = [0, 0];
  for (const { share, label } of labelledShares(output, labels, ignoreLabel)) {
    positions++;
    if (!Number.isNaN(share) && share > 0.5 === (label === 1)) hits++;
  }
  return { sum: hits, positions };
}

/**
 * F1 of the ones: 2·TP / (2·TP + FP + FN) over all positions of all samples, where a share above a half says 1. It is 1 where there is nothing to
 * find and nothing was found. A NaN finds nothing.
 */
function binaryF1(ignoreLabel: number | null): SampledMeter {
  return sampledScore(
    (output, labels) => onesCounted(output, labels, ignoreLabel),
    (samples, weightOf) => {
      let [hits, either] = [0, 0];
      for (const [i, sample] of samples.entries()) {
        hits += weightOf(i) * sample.hits;
        either += weightOf(i) * sample.either;
      }
      return either === 0 ? 1 : (2 * hits) / either;
    },
  );
}

/** How often both label and prediction are 1, and how often either is, counted twice. */
function onesCounted(output: Tensor, labels: Tensor, ignoreLabel: number | null) {
  let [hits, either, positions] = [0, 0, 0];
  for (const { share, label } of labelledShares(output, labels, ignoreLabel)) {
    positions++;
    const found = share > 0.5;
    if (found && label === 1) hits++;
    either += Number(found) + label;
  }
  return { counts: { hits, either }, positions };
}

/** How far rounding to 8 bits can carry a share over 0 or 1. */
const ROUNDED = 0.01;

/**
 * The positions that count: the share, and its label. Throws `invalid_dataset` for a label that is neither 0 nor 1, and for an output that is
 * no share: a logit would be held against the wrong limit.
 */
function* labelledShares(output: Tensor, labels: Tensor, ignoreLabel: number | null) {
  const shares = valuesOf(output);
  for (const [i, label] of valuesOf(labels).entries()) {
    if (label === ignoreLabel) continue;
    const share = shares[i]!;
    if (label !== 0 && label !== 1) {
      throw new CoreError("invalid_dataset", `The label ${label} is neither 0 nor 1.`, "labels");
    }
    if (share < -ROUNDED || share > 1 + ROUNDED) {
      const message = `Labels of 0 or 1 are held against shares from 0 to 1, and the model answers ${share}: put a Sigmoid behind the output.`;
      throw new CoreError("invalid_dataset", message, "labels");
    }
    yield { share, label };
  }
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
  const axis = labelledAxis(output.dims, labels.dims) ?? null;
  const values = classRows(valuesOf(output), output.dims, axis);
  const width = classCount(output.dims, axis);
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

/** The metric that is meant when none is asked for: `mse` for numbers; for integers `top1`, or `binary_accuracy` where only that fits an output. */
export function defaultMetric(labels: Tensor, outputs: readonly Tensor[]): MetricName {
  if (!isIntegers(labels)) return "mse";
  const isBinary = !outputs.some((output) => METRICS.top1.fits(output, labels));
  return isBinary && outputs.some((output) => METRICS.binary_accuracy.fits(output, labels))
    ? "binary_accuracy"
    : "top1";
}

function isIntegers({ dtype }: Tensor): boolean {
  return DTYPES[dtype].kind === "int" || DTYPES[dtype].kind === "uint";
}
