/**
 * Where to cut the range of an activation, given its histogram. All methods answer a range that contains zero and lies within what was
 * observed (widened to zero).
 *
 * - percentile: keeps the given share of the values, half of the rest cut on either side (all of it on the one side of one-sided data).
 * - MSE: the range with the least Σ count·(x − x̂)² over bins, clipping included.
 * - entropy (S. Migacz, 8-bit Inference with TensorRT, 2017): the range with the least KL(P‖Q), within limits. P is the histogram with the outliers folded
 *   into the outermost bins inside the range; Q is what the quantized tensor says about it: the mass that falls on one code (outliers left
 *   out) spread evenly over the non-empty bins of that code. Three points differ from the usual implementation: codes are those of the
 *   real affine grid, so one-sided data has all of them; exact zeros take no part, because every grid holds them without error; and the
 *   KL that mere sampling noise adds to each code, (n − 1)/2·(1 − n/mass) counts for n bins, is taken off, or few samples would look like
 *   structure that only a narrow range preserves.
 */
import type { Histogram } from "./histogram.ts";

export interface Range {
  readonly min: number;
  readonly max: number;
}

/** The whole observed range. */
export function observedRange(histogram: Histogram): Range {
  return { min: Math.min(histogram.min, 0), max: Math.max(histogram.max, 0) };
}

/** `percentile` in (0, 100]: the share of all values, zeros included, that stays inside. */
export function percentileRange(histogram: Histogram, percentile: number): Range {
  const observed = observedRange(histogram);
  const oneSided = observed.min === 0 || observed.max === 0;
  const cut = (histogram.count * (1 - percentile / 100)) / (oneSided ? 1 : 2);
  const { width, centres, counts } = histogram.points();
  return {
    min: Math.max(observed.min, Math.min(0, cutFrom(centres, counts, width, cut, 0, 1))),
    max: Math.min(observed.max, Math.max(0, cutFrom(centres, counts, width, cut, centres.length - 1, -1))),
  };
}

/** The value beyond which `cut` values lie, going inwards from bin `start` in steps of `direction`; bins count as evenly filled. */
function cutFrom(
  centres: Float64Array,
  counts: Float64Array,
  width: number,
  cut: number,
  start: number,
  direction: 1 | -1,
): number {
  let left = cut;
  for (let i = start; i >= 0 && i < counts.length; i += direction) {
    const outerEdge = centres[i]! - (direction * width) / 2;
    if (left < counts[i]!) return outerEdge + direction * width * (left / counts[i]!);
    left -= counts[i]!;
  }
  return 0;
}

/** `steps`: how many codes there are, less one. With `seenAs`, the error is that of this function of the values. */
export function mseRange(histogram: Histogram, steps: number, seenAs?: (x: number) => number): Range {
  const sums = new ErrorSums(histogram, seenAs);
  return search(observedRange(histogram), (min, max, least) => sums.squaredError(min, max, steps, least));
}

/**
 * What is lost to rounding the values of a histogram, all of a bin taken to lie at its centre x. It is told by sums over all bins below each:
 * of the count n, of n·t and of n·t², where t = x or what x is seen as. The bins that get one code are neighbours, and their share of
 * Σ n·(t − t̂)² is Σnt² − 2·t̂·Σnt + t̂²·Σn.
 */
export class ErrorSums {
  readonly #width: number;
  /** Number of the first bin. */
  readonly #first: number;
  readonly #counts: Float64Array;
  readonly #targets: Float64Array;
  readonly #squares: Float64Array;
  readonly #seenAs: ((x: number) => number) | undefined;

  constructor(histogram: Histogram, seenAs?: (x: number) => number) {
    const { width, first, counts } = histogram.bins();
    this.#width = width;
    this.#first = first;
    this.#seenAs = seenAs;
    this.#counts = new Float64Array(counts.length + 1);
    this.#targets = new Float64Array(counts.length + 1);
    this.#squares = new Float64Array(counts.length + 1);
    for (let bin = 0; bin < counts.length; bin++) {
      const count = counts[bin]!;
      const centre = (first + bin + 0.5) * width;
      const target = count > 0 && seenAs ? seenAs(centre) : centre;
      this.#counts[bin + 1] = this.#counts[bin]! + count;
      this.#targets[bin + 1] = this.#targets[bin]! + count * target;
      this.#squares[bin + 1] = this.#squares[bin]! + count * target * target;
    }
  }

  /**
   * Σ n·(t − t̂)² on the affine grid of `steps` + 1 codes over [min, max], which has a code for zero. Where it is more than `enough`, some of what is
   * more than that: whoever looks for the least need not know it all.
   */
  squaredError(min: number, max: number, steps: number, enough = Number.POSITIVE_INFINITY): number {
    const step = (max - min) / steps;
    // The zero point will be rounded, and the ends with it. Where a function turns flat, ending short of that is an error in every value
    // beyond; so the range must do with either end rounded inwards.
    const lowest = this.#seenAs ? Math.ceil(min / step) : Math.round(min / step);
    const bins = this.#counts.length - 1;
    const perStep = step / this.#width;
    // Bins whose centres lie below the middle between this code and the next.
    const below = (code: number) => Math.ceil((lowest + code + 0.5) * perStep - 0.5) - this.#first;
    const share = (code: number, start: number, end: number) => {
      const count = this.#counts[end]! - this.#counts[start]!;
      if (count === 0) return 0;
      const value = (lowest + code) * step;
      const seen = this.#seenAs ? this.#seenAs(value) : value;
      const targets = this.#targets[end]! - this.#targets[start]!;
      return this.#squares[end]! - this.#squares[start]! - seen * (2 * targets - seen * count);
    };
    // The last code has all bins that are left. It comes first: what is cut off is most of what a range loses that is too narrow.
    const last = Math.min(Math.max(below(steps - 1), 0), bins);
    let sum = last < bins ? share(steps, last, bins) : 0;
    for (let code = 0, start = 0; code < steps && start < last && sum <= enough; code++) {
      const end = Math.min(Math.max(below(code), start), last);
      if (end === start) continue;
      sum += share(code, start, end);
      start = end;
    }
    return sum;
  }
}

export function entropyRange(histogram: Histogram, steps: number): Range {
  const { centres, counts } = histogram.points();
  const density = withoutPointMasses(counts);
  const observed = observedRange(histogram);
  const sums = new ErrorSums(histogram);
  const limit = MAX_ENTROPY_LOSS * sums.squaredError(observed.min, observed.max, steps);
  return search(observed, (min, max) =>
    sums.squaredError(min, max, steps, limit) > limit
      ? Number.POSITIVE_INFINITY
      : divergence(centres, density, min, max, steps),
  );
}

/**
 * KL counts every value alike, however small. Where most of the data lies close to zero and the rest carries the signal (gates, what follows
 * a swish), its range can destroy the tensor; it may cost this factor in squared error against not cutting at all.
 */
const MAX_ENTROPY_LOSS = 4;

/** A bin that holds this many times what its neighbours do is not part of a density. */
const POINT_MASS = 8;

/**
 * Bins that hold far more than both neighbours (values that an earlier operator has clipped to one number) are brought down to them. A code
 * represents such a value no worse for having other values next to it, but KL would take the uneven code for lost information.
 */
function withoutPointMasses(counts: Float64Array): Float64Array {
  return counts.map((count, i) => {
    const around = ((counts[i - 1] ?? 0) + (counts[i + 1] ?? 0)) / 2;
    return count > POINT_MASS * (around + 1) ? around + 1 : count;
  });
}

/** KL(P‖Q) in nats, as described at the top; infinite when no value lies inside [min, max]. */
export function divergence(
  centres: Float64Array,
  counts: Float64Array,
  min: number,
  max: number,
  steps: number,
): number {
  let first = 0;
  let below = 0;
  while (first < centres.length && centres[first]! < min) below += counts[first++]!;
  let last = centres.length - 1;
  let above = 0;
  while (last >= first && centres[last]! > max) above += counts[last--]!;
  let inside = 0;
  for (let i = first; i <= last; i++) inside += counts[i]!;
  if (inside === 0) return Number.POSITIVE_INFINITY;

  const total = below + inside + above;
  const step = (max - min) / steps;
  // Everything in counts: Σ p·ln(p/q) with p = P/total and q = (mass/n)/inside.
  let sum = 0;
  for (let start = first; start <= last; ) {
    const code = Math.round(centres[start]! / step);
    let mass = 0;
    let end = start;
    for (; end <= last && Math.round(centres[end]! / step) === code; end++) mass += counts[end]!;
    const bins = end - start;
    const q = mass / bins / inside;
    for (let i = start; i < end; i++) {
      const p = counts[i]! + (i === first ? below : 0) + (i === last ? above : 0);
      sum += p * Math.log(p / total / q);
    }
    sum -= ((bins - 1) / 2) * (1 - bins / mass);
    start = end;
  }
  return sum / total;
}

const TRIM_STEPS = 1024;

/** The part of a range outside of which `seenAs` is constant, and a code beyond, for the zero point may round inwards. */
export function trimmedRange({ min, max }: Range, seenAs: (x: number) => number, steps: number): Range {
  const inwards = (end: number) => {
    let kept = end;
    for (let i = 1; i <= TRIM_STEPS; i++) {
      const x = end * (1 - i / TRIM_STEPS);
      if (seenAs(x) !== seenAs(end)) break;
      kept = x;
    }
    return kept;
  };
  const kept = { min: inwards(min), max: inwards(max) };
  const step = (kept.max - kept.min) / steps;
  return { min: Math.max(min, kept.min - step), max: Math.min(max, kept.max + step) };
}

const OCTAVES = 7;
const PER_OCTAVE = 4;
const REFINEMENTS = 16;
const ROUNDS = 2;

/** What a range costs; of a range that costs more than `enough`, any number above that. */
type Cost = (min: number, max: number, enough: number) => number;

/**
 * The range inside `observed` with the least `cost`: one side after the other, each over a geometric grid down to 1/128 of the observed limit
 * that is then refined around its best point. The observed range is itself a candidate, so the answer is never worse than it.
 */
function search(observed: Range, cost: Cost): Range {
  if (observed.min === observed.max) return observed;
  let { min, max } = observed;
  for (let round = 0; round < ROUNDS; round++) {
    const before = { min, max };
    if (observed.max > 0) max = searchLine(observed.max, max, (t, enough) => cost(min, t, enough));
    if (observed.min < 0) min = searchLine(observed.min, min, (t, enough) => cost(t, max, enough));
    // With the other side where it was, this one would be found again.
    if (min === before.min) break;
  }
  return { min, max };
}

function searchLine(limit: number, current: number, cost: (t: number, enough: number) => number): number {
  let best = current;
  let least = cost(current, Number.POSITIVE_INFINITY);
  const consider = (t: number) => {
    const c = cost(t, least);
    if (c < least) {
      least = c;
      best = t;
    }
  };
  for (let i = 0; i <= OCTAVES * PER_OCTAVE; i++) consider(limit * 2 ** (-i / PER_OCTAVE));
  const centre = best;
  for (let i = -REFINEMENTS / 2; i <= REFINEMENTS / 2; i++) {
    const t = centre * 2 ** (i / (REFINEMENTS / 2) / PER_OCTAVE);
    if (Math.abs(t) < Math.abs(limit)) consider(t);
  }
  return best;
}
