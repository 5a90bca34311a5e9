/**
 * A streaming histogram of the values of one tensor. Memory is fixed; no value is kept.
 *
 * Bin k holds the values in [k·w, (k+1)·w), where w is the power of two for which the largest magnitude seen so far falls into bins
 * 2048 … 4095 (or their mirror image). Larger values first fill further bins of the same width; past the last one, bins are merged in
 * pairs, which is exact because the edges of bins of width 2w are edges of bins of width w. The state therefore depends on the values
 * alone, not on how they were batched or in which order they came, and histograms of parts of the data add up to that of the whole.
 *
 * Exact zeros are counted apart: every affine grid represents them without error, and after ReLU they are most of the data.
 */
import { countBins, type Extent, extentOf } from "./activation-simd.ts";

const MIN_BINS = 2048;
const MAX_BINS = 2 * MIN_BINS;
/** Fewer values are sooner counted than a table of counters is set up. */
const MIN_VECTORIZED = 2 ** 12;

/** All that a histogram knows. The width of its bins follows from `min` and `max`. */
export interface HistogramState {
  readonly zeros: number;
  readonly nonFinite: number;
  readonly min: number;
  readonly max: number;
  /** Number k of the first bin that holds values. */
  readonly firstBin: number;
  /** From that bin to the last one that holds values. */
  readonly counts: Float64Array;
}

export class Histogram {
  /** counts[k + origin] of bin k; there are no bins below zero (origin 0) until there is a value below zero. */
  #counts = new Float64Array(0);
  #origin = 0;
  /** w = 2^exponent. */
  #exponent = Number.NEGATIVE_INFINITY;
  #zeros = 0;
  /** In all bins, zeros not among them. */
  #binned = 0;
  #nonFinite = 0;
  #min = Number.POSITIVE_INFINITY;
  #max = Number.NEGATIVE_INFINITY;

  /**
   * Counts every element of `values`; NaN and infinities are only counted as such. Answers the smallest and the largest of these values, or
   * Infinity and -Infinity when none is finite.
   */
  add(values: Float32Array): { readonly min: number; readonly max: number } {
    const { min, max, zeros, nonFinite } = rangeOf(values);
    this.#nonFinite += nonFinite;
    if (nonFinite === values.length) return { min, max };
    this.#zeros += zeros;
    this.#cover(min, max);
    if (zeros + nonFinite === values.length) return { min, max };
    const finite = nonFinite > 0 ? values.filter((x) => x - x === 0) : values;
    const counts = this.#counts;
    const origin = this.#origin;
    // Scaling by a power of two is exact, so floor finds the bin without rounding.
    const perWidth = 2 ** -this.#exponent;
    const isSimple = finite.length >= MIN_VECTORIZED && perWidth >= 1 && perWidth <= 2 ** 127;
    const counted = isSimple ? countBins(finite, perWidth, counts, origin) : 0;
    for (let i = counted; i < finite.length; i++) counts[Math.floor(finite[i]! * perWidth) + origin]!++;
    counts[origin]! -= zeros;
    this.#binned += finite.length - zeros;
    return { min, max };
  }

  /** Adds the counts of `other`, which stays as it is. */
  merge(other: Histogram): void {
    this.#nonFinite += other.#nonFinite;
    this.#zeros += other.#zeros;
    this.#binned += other.#binned;
    this.#cover(other.#min, other.#max);
    addCoarsened(other.#counts, other.#origin, this.#counts, this.#origin, this.#exponent - other.#exponent);
  }

  get state(): HistogramState {
    const { first: firstBin, counts } = this.bins();
    return {
      ...{ zeros: this.#zeros, nonFinite: this.#nonFinite, min: this.#min, max: this.#max },
      ...{ firstBin, counts: counts.slice() },
    };
  }

  /** The bins from the first to the last that holds a value that is not zero; bin k holds those in [k·width, (k+1)·width). */
  bins(): { readonly width: number; readonly first: number; readonly counts: Float64Array<ArrayBuffer> } {
    let [first, end] = [0, this.#counts.length];
    while (first < end && this.#counts[first] === 0) first++;
    while (end > first && this.#counts[end - 1] === 0) end--;
    const counts = this.#counts.subarray(first, end);
    return counts.length > 0
      ? { width: 2 ** this.#exponent, first: first - this.#origin, counts }
      : { width: 0, first: 0, counts };
  }

  /** The histogram that has this state. Throws `RangeError` when there is no histogram that has. */
  static of({ zeros, nonFinite, min, max, firstBin, counts }: HistogramState): Histogram {
    const histogram = new Histogram();
    histogram.#zeros = zeros;
    histogram.#nonFinite = nonFinite;
    const isEmpty = min === Number.POSITIVE_INFINITY && max === Number.NEGATIVE_INFINITY;
    if (!isEmpty && !(Number.isFinite(min) && Number.isFinite(max) && min <= max)) {
      throw new RangeError("The range of a histogram is none");
    }
    histogram.#cover(min, max);
    const perWidth = 2 ** -histogram.#exponent;
    const isInside =
      firstBin >= Math.floor(min * perWidth) && firstBin + counts.length - 1 <= Math.floor(max * perWidth);
    if (counts.length > 0 && !(histogram.#counts.length > 0 && isInside)) {
      throw new RangeError("A histogram has bins outside of its range");
    }
    histogram.#counts.set(counts, firstBin + histogram.#origin);
    histogram.#binned = counts.reduce((sum, count) => sum + count, 0);
    return histogram;
  }

  /** Finite values counted, zeros included. */
  get count(): number {
    return this.#zeros + this.#binned;
  }
  get zeros(): number {
    return this.#zeros;
  }
  /** NaN and infinities met. */
  get nonFinite(): number {
    return this.#nonFinite;
  }
  /** Smallest finite value; Infinity while there is none. */
  get min(): number {
    return this.#min;
  }
  /** Largest finite value; -Infinity while there is none. */
  get max(): number {
    return this.#max;
  }

  /** The non-zero values as weighted points in ascending order: the centres of the bins that hold any, and how many they hold. */
  points(): { readonly width: number; readonly centres: Float64Array; readonly counts: Float64Array } {
    const { width, first, counts: all } = this.bins();
    const counts = all.filter((count) => count > 0);
    const centres = new Float64Array(counts.length);
    let filled = 0;
    for (let i = 0; i < all.length; i++) if (all[i]! > 0) centres[filled++] = (first + i + 0.5) * width;
    return { width, centres, counts };
  }

  /** Makes sure that values from `min` to `max` have a bin. */
  #cover(min: number, max: number): void {
    if (min > max) return;
    this.#min = Math.min(this.#min, min);
    this.#max = Math.max(this.#max, max);
    const largest = Math.max(-this.#min, this.#max);
    if (largest === 0) return;
    const exponent = Math.max(this.#exponent, exponentOf(largest) - Math.log2(MIN_BINS));
    const origin = this.#min < 0 ? MAX_BINS : 0;
    if (exponent === this.#exponent && origin === this.#origin) return;
    const counts = new Float64Array(MAX_BINS + origin);
    addCoarsened(this.#counts, this.#origin, counts, origin, exponent - this.#exponent);
    this.#counts = counts;
    this.#origin = origin;
    this.#exponent = exponent;
  }
}

/** The smallest and the largest finite value, and how many are zero, and not finite. */
function rangeOf(values: Float32Array): Extent {
  const extent = { min: Number.POSITIVE_INFINITY, max: Number.NEGATIVE_INFINITY, zeros: 0, nonFinite: 0 };
  let seen = 0;
  if (values.length >= MIN_VECTORIZED) {
    const whole = { ...extent };
    seen = extentOf(values, whole);
    // The extremes of vectors are void then.
    if (whole.nonFinite > 0) seen = 0;
    else Object.assign(extent, whole);
  }
  for (let i = seen; i < values.length; i++) {
    const x = values[i]!;
    if (x < extent.min && x !== Number.NEGATIVE_INFINITY) extent.min = x;
    if (x > extent.max && x !== Number.POSITIVE_INFINITY) extent.max = x;
    extent.zeros += x === 0 ? 1 : 0;
    extent.nonFinite += x - x === 0 ? 0 : 1;
  }
  return extent;
}

/** Adds counts of narrow bins to those of bins 2^shift times as wide. */
function addCoarsened(from: Float64Array, fromOrigin: number, to: Float64Array, toOrigin: number, shift: number): void {
  for (let i = 0; i < from.length; i++) {
    if (from[i]! > 0) to[Math.floor((i - fromOrigin) / 2 ** shift) + toOrigin]! += from[i]!;
  }
}

/** floor(log2(x)) for a positive float32, exact at powers of two. */
function exponentOf(x: number): number {
  let exponent = Math.floor(Math.log2(x));
  // Math.log2 is rounded: just below a power of two it may answer the next integer.
  while (2 ** exponent > x) exponent--;
  while (2 ** (exponent + 1) <= x) exponent++;
  return exponent;
}
