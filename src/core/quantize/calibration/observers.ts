/** What calibration keeps of an activation: statistics of fixed size, never the values. */

import { elementCount } from "../../onnx/tensor.ts";
import { addMomentsOf, addMomentsOfRows, hasWholeVectors, type Moments } from "./activation-simd.ts";
import type { CalibrationMethod } from "./calibration-methods.ts";
import { Histogram, type HistogramState } from "./histogram.ts";
import type { Summary } from "./summaries.ts";
import { entropyRange, mseRange, observedRange, percentileRange, type Range, trimmedRange } from "./thresholds.ts";

export interface Observer {
  /** Takes in one tensor: its elements in row-major order and its dims. */
  observe(values: Float32Array, dims: readonly number[]): void;
  /** Takes in one tensor by its summary; only where it was said that one will do. */
  observeSummary?(summary: Summary): void;
}

/** Weight of the newest batch in the moving average. */
const AVERAGING = 0.1;

export interface ActivationState {
  readonly histogram: HistogramState;
  /** Elements that are not in the histogram, for samples of which others are. */
  readonly unsampled: number;
  readonly batches: number;
  /** Of each batch's own range: what `averageRange` is made from. */
  readonly averageMin: number;
  readonly averageMax: number;
}

/**
 * The distribution of a tensor's values: what every calibration method needs, so that the method can be chosen afterwards. Of a large tensor it is that
 * of a sample and of the extremes.
 */
export class ActivationObserver implements Observer {
  readonly histogram: Histogram;
  #unsampled: number;
  #batches: number;
  #averageMin: number;
  #averageMax: number;

  /** Goes on from `state`. Throws `RangeError` when it is none. */
  constructor(state?: ActivationState) {
    this.histogram = state ? Histogram.of(state.histogram) : new Histogram();
    this.#unsampled = state?.unsampled ?? 0;
    this.#batches = state?.batches ?? 0;
    this.#averageMin = state?.averageMin ?? 0;
    this.#averageMax = state?.averageMax ?? 0;
  }

  get state(): ActivationState {
    return {
      histogram: this.histogram.state,
      unsampled: this.#unsampled,
      batches: this.#batches,
      averageMin: this.#averageMin,
      averageMax: this.#averageMax,
    };
  }

  observe(values: Float32Array): void {
    this.#follow(this.histogram.add(values));
  }

  observeSummary({ dims, min, max, sample }: Summary): void {
    const unsampled = elementCount(dims) - sample.length;
    // A sample may miss what lies far out; that something does is known.
    if (unsampled > 0) this.histogram.add(Float32Array.of(min, max));
    this.histogram.add(sample);
    this.#unsampled += Math.max(0, unsampled - 2);
    this.#follow({ min, max });
  }

  /** Goes on from what `other` has seen, as if it had been seen here after all else. */
  merge(other: ActivationObserver): void {
    this.histogram.merge(other.histogram);
    this.#unsampled += other.#unsampled;
    const weight = (1 - AVERAGING) ** other.#batches;
    this.#batches += other.#batches;
    this.#averageMin = weight * this.#averageMin + other.#averageMin;
    this.#averageMax = weight * this.#averageMax + other.#averageMax;
  }

  /** Elements seen, those that are not finite left out. */
  get elements(): number {
    return this.histogram.count + this.#unsampled;
  }

  #follow({ min, max }: Range): void {
    if (min > max) return;
    this.#batches++;
    this.#averageMin += AVERAGING * (Math.min(min, 0) - this.#averageMin);
    this.#averageMax += AVERAGING * (Math.max(max, 0) - this.#averageMax);
  }

  /** Exponential average of each batch's own range; without the pull towards zero that starting from zero gives. */
  get averageRange(): Range {
    const weight = 1 - (1 - AVERAGING) ** this.#batches;
    return weight === 0 ? { min: 0, max: 0 } : { min: this.#averageMin / weight, max: this.#averageMax / weight };
  }
}

export interface RangeOptions {
  /** How many codes there are, less one. */
  readonly steps: number;
  /** Share of the values that `percentile` keeps, in percent. */
  readonly percentile: number;
  /** The function of the value that is all the rest of the graph sees of it. */
  readonly seenAs?: ((x: number) => number) | undefined;
}

const RANGES = {
  minmax: ({ histogram }) => observedRange(histogram),
  moving_average: ({ averageRange }) => averageRange,
  percentile: ({ histogram }, { percentile }) => percentileRange(histogram, percentile),
  entropy: ({ histogram }, { steps }) => entropyRange(histogram, steps),
  mse: ({ histogram }, { steps, seenAs }) => mseRange(histogram, steps, seenAs),
} as const satisfies Record<CalibrationMethod, (seen: ActivationObserver, options: RangeOptions) => Range>;

/** The range to quantize an activation over. It contains zero. */
export function activationRange(seen: ActivationObserver, method: CalibrationMethod, options: RangeOptions): Range {
  const range = RANGES[method](seen, options);
  return options.seenAs && method !== "mse" ? trimmedRange(range, options.seenAs, options.steps) : range;
}

/** Summaries that squares are taken from: they are summed from samples, which takes longer than all else of a summary. */
const SQUARED_SUMMARIES = 8;
/** Shorter runs of values are sooner summed than copied. */
const MIN_VECTORIZED = 64;

/** Arrays have an element for each channel. */
export interface ChannelState {
  readonly min: Float64Array<ArrayBuffer>;
  readonly max: Float64Array<ArrayBuffer>;
  readonly squares: Float64Array<ArrayBuffer>;
  /** Values seen in each channel. */
  readonly count: number;
}

/** Smallest and largest value and mean square of every channel along one axis; the axis may count from the end. */
export class ChannelObserver implements Observer {
  readonly axis: number;
  min = new Float64Array(0);
  max = new Float64Array(0);
  #squares = new Float64Array(0);
  #count = 0;
  #summaries = 0;

  /** Goes on from `state`. */
  constructor(axis: number, state?: ChannelState) {
    this.axis = axis;
    if (!state) return;
    this.min = state.min;
    this.max = state.max;
    this.#squares = state.squares;
    this.#count = state.count;
  }

  get state(): ChannelState {
    return { min: this.min, max: this.max, squares: this.#squares, count: this.#count };
  }

  observe(values: Float32Array, dims: readonly number[]): void {
    const axis = this.axis < 0 ? this.axis + dims.length : this.axis;
    const channels = dims[axis];
    if (channels === undefined || values.length === 0) return;
    if (!this.#fits(channels)) return;
    const moments = this.state;
    const inner = dims.slice(axis + 1).reduce((product, dim) => product * dim, 1);
    if (inner === 1 && channels >= MIN_VECTORIZED && hasWholeVectors(channels)) addMomentsOfRows(values, moments);
    else {
      const whole = inner < MIN_VECTORIZED ? 0 : inner - (inner % 4);
      for (let start = 0, c = 0; start < values.length; start += inner, c = (c + 1) % channels) {
        if (whole > 0) addMomentsOf(values, start, start + whole, moments, c);
        addMoments(values, start + whole, start + inner, moments, c);
      }
    }
    this.#count += values.length / channels;
  }

  observeSummary({ dims, channels }: Summary): void {
    if (!channels) return;
    const count = elementCount(dims) / channels.min.length;
    // What a few samples tell of them is good enough: mean squares stay as they are.
    const isTold = this.#summaries++ >= SQUARED_SUMMARIES && this.min.length === channels.min.length;
    const squares = isTold ? this.#squares.map((sum) => (sum / this.#count) * count) : channels.squares();
    this.#add({ ...channels, squares, count });
  }

  /** Goes on from what `other` has seen. */
  merge(other: ChannelObserver): void {
    this.#add(other.state);
  }

  #add({
    min,
    max,
    squares,
    count,
  }: Readonly<Record<"min" | "max" | "squares", ArrayLike<number>>> & { count: number }) {
    if (count === 0 || !this.#fits(min.length)) return;
    for (let c = 0; c < this.min.length; c++) {
      this.min[c] = Math.min(this.min[c]!, min[c]!);
      this.max[c] = Math.max(this.max[c]!, max[c]!);
      this.#squares[c]! += squares[c]!;
    }
    this.#count += count;
  }

  /** Whether there are so many channels; the first tensor says how many there are. */
  #fits(channels: number): boolean {
    if (this.#count > 0) return channels === this.min.length;
    this.min = new Float64Array(channels).fill(Number.POSITIVE_INFINITY);
    this.max = new Float64Array(channels).fill(Number.NEGATIVE_INFINITY);
    this.#squares = new Float64Array(channels);
    return true;
  }

  get channels(): number {
    return this.min.length;
  }

  /** Values seen in each channel. */
  get count(): number {
    return this.#count;
  }

  /** Mean square of every channel. */
  meanSquares(): Float64Array {
    return this.#squares.map((sum) => sum / this.#count);
  }

  /** Largest magnitude in every channel. */
  magnitudes(): Float64Array {
    return this.max.map((max, c) => Math.max(max, -this.min[c]!));
  }
}

/** Takes the values from `start` to `end` into the moments of channel `c`. */
function addMoments(values: Float32Array, start: number, end: number, { min, max, squares }: Moments, c: number) {
  let low = min[c]!;
  let high = max[c]!;
  let square = 0;
  for (let i = start; i < end; i++) {
    const x = values[i]!;
    if (x < low) low = x;
    if (x > high) high = x;
    square += x * x;
  }
  min[c] = low;
  max[c] = high;
  squares[c]! += square;
}
