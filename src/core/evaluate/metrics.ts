import { CoreError } from "../errors.ts";
import { DTYPES } from "../onnx/dtype.ts";
import type { Tensor } from "../onnx/tensor.ts";
import { valuesOf } from "./fidelity.ts";

export type MetricName = "top1" | "top5" | "mse";

interface Metric {
  /** Whether an output of these dims can be compared with such labels. */
  fits(output: Tensor, labels: Tensor): boolean;
  /** What each position adds to the mean, and how many positions there are. */
  score(output: Tensor, labels: Tensor): { readonly sum: number; readonly positions: number };
  readonly better: "higher" | "lower";
  /** What the labels must be like, for a message. */
  readonly wants: string;
}

/** The metrics that labels can be held against. */
export const METRICS: Readonly<Record<MetricName, Metric>> = {
  top1: topK(1),
  top5: topK(5),
  mse: {
    // Trailing axes of one do not count: a regressor's [n, 1] fits labels of [n].
    fits: (output, labels) => `${withoutOnes(output.dims)}` === `${withoutOnes(labels.dims)}`,
    score(output, labels) {
      const y = valuesOf(output);
      const target = valuesOf(labels);
      let sum = 0;
      for (let i = 0; i < y.length; i++) sum += (y[i]! - target[i]!) ** 2;
      return { sum, positions: y.length };
    },
    better: "lower",
    wants: "numbers in the shape of an output",
  },
};

/** Share of positions whose label is among the k largest scores of the last axis. */
function topK(k: number): Metric {
  return {
    fits: (output, labels) =>
      isIntegers(labels) &&
      DTYPES[output.dtype].kind === "float" &&
      output.dims.at(-1)! > 1 &&
      `${output.dims.slice(0, -1)}` === `${labels.dims}`,
    score(output, labels) {
      const scores = valuesOf(output);
      const classes = valuesOf(labels);
      const width = output.dims.at(-1)!;
      let hits = 0;
      for (let row = 0; row < classes.length; row++) {
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
      return { sum: hits, positions: classes.length };
    },
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
  #sum = 0;
  #positions = 0;

  constructor(name: MetricName) {
    this.#metric = METRICS[name];
  }

  add(output: Tensor, labels: Tensor): void {
    const { sum, positions } = this.#metric.score(output, labels);
    this.#sum += sum;
    this.#positions += positions;
  }

  /** The mean over all positions. */
  get value(): number {
    return this.#sum / this.#positions;
  }
}

/** The first output that fits the labels; undefined when none does. */
export function outputFor(
  name: MetricName,
  outputs: Readonly<Record<string, Tensor>>,
  labels: Tensor,
): string | undefined {
  return Object.keys(outputs).find((output) => METRICS[name].fits(outputs[output]!, labels));
}

/** The metric that is meant when none is asked for: `top1` for integer labels, else none. */
export function defaultMetric(labels: Tensor): MetricName | null {
  return isIntegers(labels) ? "top1" : null;
}

function isIntegers({ dtype }: Tensor): boolean {
  return DTYPES[dtype].kind === "int" || DTYPES[dtype].kind === "uint";
}

function withoutOnes(dims: readonly number[]): readonly number[] {
  return dims.length > 1 && dims.at(-1) === 1 ? withoutOnes(dims.slice(0, -1)) : dims;
}
