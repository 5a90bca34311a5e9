import { CoreError } from "../errors.ts";
import { DTYPES } from "../onnx/dtype.ts";
import { type Tensor, withoutUnitAxes } from "../onnx/tensor.ts";
import { valuesOf } from "./fidelity.ts";

export type MetricName = "top1" | "top5" | "mse";

interface Metric {
  /** Whether an output of these dims can be compared with such labels. */
  fits(output: Tensor, labels: Tensor): boolean;
  /** What each position adds to the mean, and how many positions there are; those labelled `ignoreLabel` are none. */
  score(
    output: Tensor,
    labels: Tensor,
    ignoreLabel?: number | null,
  ): { readonly sum: number; readonly positions: number };
  /** How many axes an output has beside those of the labels. */
  readonly scoreAxes: number;
  readonly better: "higher" | "lower";
  /** What the labels must be like, for a message. */
  readonly wants: string;
}

/** The metrics that labels can be held against. */
export const METRICS: Readonly<Record<MetricName, Metric>> = {
  top1: topK(1),
  top5: topK(5),
  mse: {
    // Axes of one do not count: a regressor's [n, 1] fits labels of [n].
    fits: (output, labels) => `${withoutUnitAxes(output.dims)}` === `${withoutUnitAxes(labels.dims)}`,
    score(output, labels, ignoreLabel = null) {
      const y = valuesOf(output);
      const target = valuesOf(labels);
      let [sum, positions] = [0, 0];
      for (let i = 0; i < y.length; i++) {
        if (target[i] === ignoreLabel) continue;
        sum += (y[i]! - target[i]!) ** 2;
        positions++;
      }
      return { sum, positions };
    },
    scoreAxes: 0,
    better: "lower",
    wants: "numbers in the shape of an output",
  },
};

/** Share of positions whose label is among the k largest scores of the last axis that is not of one. */
function topK(k: number): Metric {
  return {
    fits: (output, labels) =>
      isIntegers(labels) &&
      DTYPES[output.dtype].kind === "float" &&
      withoutUnitAxes(output.dims).length > 1 &&
      `${withoutUnitAxes(output.dims).slice(0, -1)}` === `${withoutUnitAxes(labels.dims)}`,
    score(output, labels, ignoreLabel = null) {
      const scores = valuesOf(output);
      const classes = valuesOf(labels);
      const width = withoutUnitAxes(output.dims).at(-1)!;
      let [hits, positions] = [0, 0];
      for (let row = 0; row < classes.length; row++) {
        if (classes[row] === ignoreLabel) continue;
        positions++;
        const own = scores[row * width + classes[row]!];
        if (own === undefined || classes[row]! < 0 || classes[row]! >= width) {
          throw new CoreError(
            "invalid_dataset",
            `The label ${classes[row]} is not a class: the model has ${width} of them, counted from 0.`,
            "labels",
          );
        }
        // The label's rank: scores above its own, and equal ones before it, so that ties are decided as argmax decides them.
        let above = 0;
        for (let i = 0; i < width && above < k; i++) {
          const score = scores[row * width + i]!;
          if (score > own || (score === own && i < classes[row]!)) above++;
        }
        if (above < k && !Number.isNaN(own)) hits++;
      }
      return { sum: hits, positions };
    },
    scoreAxes: 1,
    better: "higher",
    wants: "integer classes, one for each row of scores",
  };
}

/** A metric as a number of which more is better: errors are negated. */
export function scoreOf(metric: MetricName, value: number): number {
  return METRICS[metric].better === "lower" ? -value : value;
}

/** A metric over all batches: for each model one of these. */
export class MetricMeter {
  readonly #metric: Metric;
  readonly #ignoreLabel: number | null;
  #sum = 0;
  #positions = 0;

  constructor(name: MetricName, ignoreLabel: number | null = null) {
    this.#metric = METRICS[name];
    this.#ignoreLabel = ignoreLabel;
  }

  add(output: Tensor, labels: Tensor): void {
    const { sum, positions } = this.#metric.score(output, labels, this.#ignoreLabel);
    this.#sum += sum;
    this.#positions += positions;
  }

  /** How many positions have counted. */
  get positions(): number {
    return this.#positions;
  }

  /** The mean over all positions. Throws `invalid_dataset` when every one was ignored. */
  get value(): number {
    if (this.#positions === 0) throw nothingCounted();
    return this.#sum / this.#positions;
  }
}

/** What is said where every label is the one that is ignored. */
export function nothingCounted(): CoreError {
  return new CoreError("invalid_dataset", "Every label of the samples is the one that is ignored.", "labels");
}

/** The output that fits the labels: the first with the fewest further axes of one; undefined when none does. */
export function outputFor(
  name: MetricName,
  outputs: Readonly<Record<string, Tensor>>,
  labels: Tensor,
): string | undefined {
  const fitting = Object.keys(outputs).filter((output) => METRICS[name].fits(outputs[output]!, labels));
  const rank = labels.dims.length + METRICS[name].scoreAxes;
  return fitting.find((output) => outputs[output]!.dims.length === rank) ?? fitting[0];
}

/** The metric that is meant when none is asked for: `top1` for integer labels, `mse` for numbers. */
export function defaultMetric(labels: Tensor): MetricName {
  return isIntegers(labels) ? "top1" : "mse";
}

function isIntegers({ dtype }: Tensor): boolean {
  return DTYPES[dtype].kind === "int" || DTYPES[dtype].kind === "uint";
}
