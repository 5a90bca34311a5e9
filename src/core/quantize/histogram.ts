/**
 * A streaming histogram of the values of one tensor. Memory is fixed; no value is kept.
 *
 * Bins lie on a grid that is anchored at zero: bin k of a side holds the magnitudes in [k·w, (k+1)·w), and w is the power of two for which the
 * largest magnitude seen so far falls into bins 4096 … 8191. Larger values first fill further bins of the same width; past the last one, bins
 * are merged in pairs, which is exact because 2w is on the same grid. The state therefore depends on the values alone, not on how they
 * were batched or in which order they came, and two histograms of parts of the data add up to the histogram of the whole.
 *
 * Exact zeros are counted apart: every affine grid represents them without error, and after ReLU they are most of the data.
 */
const MIN_BINS = 4096;
const MAX_BINS = 2 * MIN_BINS;

export class Histogram {
  /** Counts by magnitude of positive and of negative values. */
  readonly #positive = new Side();
  readonly #negative = new Side();
  #exponent = Number.NEGATIVE_INFINITY;
  #zeros = 0;
  #nonFinite = 0;
  #min = Number.POSITIVE_INFINITY;
  #max = Number.NEGATIVE_INFINITY;

  /** Counts every element of `values`; NaN and infinities are only counted as such. */
  add(values: Float32Array): void {
    let min = this.#min;
    let max = this.#max;
    for (let i = 0; i < values.length; i++) {
      const x = values[i]!;
      if (x < min && x !== Number.NEGATIVE_INFINITY) min = x;
      if (x > max && x !== Number.POSITIVE_INFINITY) max = x;
    }
    this.#cover(min, max);
    const perWidth = 2 ** -this.#exponent;
    const positive = this.#positive.counts;
    const negative = this.#negative.counts;
    let zeros = 0;
    let nonFinite = 0;
    for (let i = 0; i < values.length; i++) {
      const x = values[i]!;
      // Scaling by a power of two is exact, so truncation finds the bin without rounding.
      if (x - x !== 0) nonFinite++;
      else if (x > 0) positive[(x * perWidth) | 0]!++;
      else if (x < 0) negative[(-x * perWidth) | 0]!++;
      else zeros++;
    }
    this.#zeros += zeros;
    this.#nonFinite += nonFinite;
  }

  /** Adds the counts of `other`, which stays as it is. */
  merge(other: Histogram): void {
    if (other.count > 0) {
      this.#cover(other.#min, other.#max);
      const shift = this.#exponent - other.#exponent;
      this.#positive.addCounts(other.#positive, shift);
      this.#negative.addCounts(other.#negative, shift);
    }
    this.#zeros += other.#zeros;
    this.#nonFinite += other.#nonFinite;
  }

  /** Finite values counted, zeros included. */
  get count(): number {
    return this.#zeros + this.#positive.total() + this.#negative.total();
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

  /**
   * The non-zero values as weighted points in ascending order: bin centres and their counts, empty bins included between the outermost
   * filled ones. `width` is the width of a bin (0 when all values are zero).
   */
  points(): { readonly width: number; readonly centres: Float64Array; readonly counts: Float64Array } {
    const below = this.#negative.filled();
    const above = this.#positive.filled();
    const width = below + above > 0 ? 2 ** this.#exponent : 0;
    const centres = new Float64Array(below + above);
    const counts = new Float64Array(below + above);
    for (let i = 0; i < below; i++) {
      centres[below - 1 - i] = -(i + 0.5) * width;
      counts[below - 1 - i] = this.#negative.counts[i]!;
    }
    for (let i = 0; i < above; i++) {
      centres[below + i] = (i + 0.5) * width;
      counts[below + i] = this.#positive.counts[i]!;
    }
    return { width, centres, counts };
  }

  /** Widens bins and sides until values from `min` to `max` have a bin. */
  #cover(min: number, max: number): void {
    if (min > max) return;
    this.#min = Math.min(this.#min, min);
    this.#max = Math.max(this.#max, max);
    const largest = Math.max(-this.#min, this.#max);
    if (largest === 0) return;
    const exponent = exponentOf(largest) - Math.log2(MIN_BINS);
    if (exponent > this.#exponent) {
      if (this.#exponent !== Number.NEGATIVE_INFINITY) {
        const shift = exponent - this.#exponent;
        this.#positive.coarsen(shift);
        this.#negative.coarsen(shift);
      }
      this.#exponent = exponent;
    }
    if (this.#max > 0) this.#positive.allocate();
    if (this.#min < 0) this.#negative.allocate();
  }
}

/** Counts of one sign, by magnitude; without memory until the first value of that sign. */
class Side {
  counts = new Float64Array(0);

  allocate(): void {
    if (this.counts.length === 0) this.counts = new Float64Array(MAX_BINS);
  }

  /** Merges 2^shift neighbouring bins into one. */
  coarsen(shift: number): void {
    const fine = this.counts;
    if (fine.length === 0) return;
    this.counts = new Float64Array(MAX_BINS);
    for (let i = 0; i < fine.length; i++) if (fine[i]! > 0) this.counts[coarser(i, shift)]! += fine[i]!;
  }

  addCounts(other: Side, shift: number): void {
    for (let i = 0; i < other.counts.length; i++) {
      if (other.counts[i]! > 0) this.counts[coarser(i, shift)]! += other.counts[i]!;
    }
  }

  total(): number {
    let total = 0;
    for (let i = 0; i < this.counts.length; i++) total += this.counts[i]!;
    return total;
  }

  /** Bins up to the last one that holds anything. */
  filled(): number {
    let end = this.counts.length;
    while (end > 0 && this.counts[end - 1] === 0) end--;
    return end;
  }
}

/** Bin `i` on a grid 2^shift times as coarse. Shifts of 31 and more would wrap around in JavaScript. */
function coarser(i: number, shift: number): number {
  return shift > 30 ? 0 : i >> shift;
}

/** floor(log2(x)) for a positive float32 or float64, exact at powers of two. */
function exponentOf(x: number): number {
  let exponent = Math.floor(Math.log2(x));
  // Math.log2 is rounded: just below a power of two it may answer the next integer.
  while (2 ** exponent > x) exponent--;
  while (2 ** (exponent + 1) <= x) exponent++;
  return exponent;
}
