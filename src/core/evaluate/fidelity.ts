import type { OutputFacts, OutputFidelity, ValueFacts } from "../facts.ts";
import { bootstrap, type Interval, wilson } from "../intervals.ts";
import { areShares, classRows, isNamedLikeScores } from "../onnx/class-axis.ts";
import { DTYPES } from "../onnx/dtype.ts";
import { type ArrayDType, arrayOf, floatsOf, hasArray, type Tensor, withoutUnitAxes } from "../onnx/tensor.ts";

/** Sums are kept in float64, whatever the outputs' dtype. */
type Values = Float32Array | Float64Array;

const MIN_SQNR_DB = -200;

/** How far a row of probabilities may be from summing to 1: float16 softmax over thousands of classes. */
const PROBABILITY_TOLERANCE = 5e-3;

/** Differences that no rounding explains. */
export interface Faults {
  /** Elements compared. */
  readonly elements: number;
  /** Elements that are finite in the original and NaN or infinite in the other model. */
  readonly overflowed: number;
  /** The first pair of shapes that differ, and in how many runs shapes did. */
  readonly shapes:
    | { readonly before: readonly number[]; readonly after: readonly number[]; readonly runs: number }
    | undefined;
}

/** Whether an output can be compared: a tensor of numbers. Maps (of a ZipMap), sequences and strings cannot. */
export function isComparable({ dtype }: ValueFacts): boolean {
  return dtype !== null && hasArray(dtype);
}

/**
 * How positions of an output agree: by the largest along an axis, by being the same, or, where one of the two says yes (a share above a half),
 * by both doing so; or there is no such thing.
 */
type Agreement = { readonly classAxis: number } | "equality" | "yes" | "none";

/** Below this the values of an output are what float32 leaves of nothing: a Sigmoid answers in steps of 1.2e-7. */
const BLANK = 1e-5;

/**
 * Whether both models have found nothing in all samples, so that comparing what they answer says nothing of either, also where it is the same: no
 * elements, NaN, or next to 0. Shares are never negative: small numbers of both signs are what they are.
 */
export function isBlank({ min_value, max_value, max_abs_error }: OutputFidelity): boolean {
  if (min_value === null || max_value === null) return true;
  return min_value >= 0 && max_value + max_abs_error < BLANK;
}

/** Compares one output of two models, run by run. Nothing is kept but sums. */
export class FidelityMeter {
  readonly #output: OutputFacts;
  readonly #isOnlyOutput: boolean;
  #signal = 0;
  #candidateSignal = 0;
  #product = 0;
  #noise = 0;
  #absError = 0;
  #maxAbsError = 0;
  #minValue = Number.POSITIVE_INFINITY;
  #maxValue = Number.NEGATIVE_INFINITY;
  #elements = 0;
  #compared = 0;
  #nonFinite = 0;
  #overflowed = 0;
  #shapeMismatches = 0;
  #firstMismatch: readonly [Tensor["dims"], Tensor["dims"]] | undefined;
  /** How positions agree is decided by what the first run gives. */
  #agreement: Agreement | undefined;
  #agreeing = 0;
  #positions = 0;
  /** Of each run, for intervals. */
  readonly #runs: RunSums[] = [];

  constructor(output: OutputFacts, isOnlyOutput: boolean) {
    this.#output = output;
    this.#isOnlyOutput = isOnlyOutput;
  }

  add(reference: Tensor, candidate: Tensor): void {
    if (`${reference.dims}` !== `${candidate.dims}`) {
      this.#shapeMismatches++;
      this.#firstMismatch ??= [reference.dims, candidate.dims];
      return;
    }
    this.#compared++;
    const x = valuesOf(reference);
    const y = valuesOf(candidate);
    this.#agreement ??= agreementOf(this.#output, reference, x, this.#isOnlyOutput);
    const { agreeing, positions } = countAgreement(this.#agreement, reference.dims, x, y);
    this.#agreeing += agreeing;
    this.#positions += positions;
    this.#runs.push({
      ...this.#addErrors(x, y),
      agreeing,
      positions,
      isOneEach: positions === reference.dims[0],
    });
  }

  #addErrors(x: Values, y: Values): Pick<RunSums, "signal" | "noise"> {
    let signal = 0;
    let candidateSignal = 0;
    let product = 0;
    let noise = 0;
    let absError = 0;
    let maxAbsError = this.#maxAbsError;
    let [minValue, maxValue] = [this.#minValue, this.#maxValue];
    for (let i = 0; i < x.length; i++) {
      let a = x[i]!;
      let b = y[i]!;
      // x - x is 0 for finite numbers and NaN for all others.
      if (a - a !== 0 || b - b !== 0) {
        if (Object.is(a, b)) continue;
        this.#nonFinite++;
        if (a - a !== 0) a = 0;
        else this.#overflowed++;
        b = 0;
      }
      const error = Math.abs(a - b);
      if (a < minValue) minValue = a;
      if (a > maxValue) maxValue = a;
      signal += a * a;
      candidateSignal += b * b;
      product += a * b;
      noise += error * error;
      absError += error;
      if (error > maxAbsError) maxAbsError = error;
    }
    this.#signal += signal;
    this.#candidateSignal += candidateSignal;
    this.#product += product;
    this.#noise += noise;
    this.#absError += absError;
    this.#maxAbsError = maxAbsError;
    this.#minValue = minValue;
    this.#maxValue = maxValue;
    this.#elements += x.length;
    return { signal, noise };
  }

  #range(): Pick<OutputFidelity, "min_value" | "max_value"> {
    if (this.#elements === 0) return { min_value: 0, max_value: 0 };
    if (this.#minValue > this.#maxValue) return { min_value: null, max_value: null };
    return { min_value: this.#minValue, max_value: this.#maxValue };
  }

  /** Of the signal to noise ratio, over runs: null for one run, and where most choices of runs have no noise. */
  #sqnrInterval(): Interval | null {
    const runs = this.#runs;
    const interval = bootstrap(runs.length, (weights) => {
      let [signal, noise] = [0, 0];
      for (let i = 0; i < runs.length; i++) {
        signal += weights[i]! * runs[i]!.signal;
        noise += weights[i]! * runs[i]!.noise;
      }
      return Math.max(MIN_SQNR_DB, 10 * Math.log10(signal / noise));
    });
    return interval?.every(Number.isFinite) ? interval : null;
  }

  #agreementInterval(): Interval | null {
    if (this.#positions === 0) return null;
    const runs = this.#runs;
    if (runs.every(({ isOneEach }) => isOneEach)) return wilson(this.#agreeing, this.#positions);
    const interval = bootstrap(runs.length, (weights) => {
      let [agreeing, positions] = [0, 0];
      for (let i = 0; i < runs.length; i++) {
        agreeing += weights[i]! * runs[i]!.agreeing;
        positions += weights[i]! * runs[i]!.positions;
      }
      return positions === 0 ? 1 : agreeing / positions;
    });
    return interval ?? null;
  }

  faults(): Faults {
    const runs = this.#shapeMismatches;
    const [before, after] = this.#firstMismatch ?? [];
    return {
      elements: this.#elements,
      overflowed: this.#overflowed,
      shapes: before && after && { before, after, runs },
    };
  }

  result(): OutputFidelity {
    const norms = Math.sqrt(this.#signal) * Math.sqrt(this.#candidateSignal);
    const sqnr = 10 * Math.log10(this.#signal / this.#noise);
    const isSame = this.#compared > 0 && this.#noise === 0 && this.#nonFinite === 0;
    return {
      name: this.#output.name,
      sqnr_db: isSame ? null : Number.isNaN(sqnr) ? MIN_SQNR_DB : Math.max(MIN_SQNR_DB, sqnr),
      // Two zero vectors are the same; a zero vector and another have no direction in common.
      cosine: isSame ? 1 : norms > 0 ? Math.min(1, this.#product / norms) : 0,
      ...this.#range(),
      max_abs_error: this.#maxAbsError,
      mean_abs_error: this.#elements > 0 ? this.#absError / this.#elements : 0,
      top1_agreement: this.#positions > 0 ? this.#agreeing / this.#positions : null,
      sqnr_interval_db: isSame ? null : this.#sqnrInterval(),
      top1_agreement_interval: this.#agreementInterval(),
      non_finite: this.#nonFinite,
      shape_mismatches: this.#shapeMismatches,
    };
  }
}

/** What one run has added. */
interface RunSums {
  readonly signal: number;
  readonly noise: number;
  readonly agreeing: number;
  readonly positions: number;
  /** Whether there was one position for each sample: then positions are independent of each other. */
  readonly isOneEach: boolean;
}

function countAgreement(agreement: Agreement, dims: Tensor["dims"], x: Values, y: Values) {
  if (agreement === "none") return { agreeing: 0, positions: 0 };
  let agreeing = 0;
  if (agreement === "equality") {
    for (let i = 0; i < x.length; i++) if (x[i] === y[i]) agreeing++;
    return { agreeing, positions: x.length };
  }
  if (agreement === "yes") {
    let positions = 0;
    for (let i = 0; i < x.length; i++) {
      const [ours, theirs] = [x[i]! > 0.5, y[i]! > 0.5];
      if (ours || theirs) positions++;
      if (ours && theirs) agreeing++;
    }
    return { agreeing, positions };
  }
  const { classAxis } = agreement;
  const [ours, theirs] = [classRows(x, dims, classAxis), classRows(y, dims, classAxis)];
  const width = dims.at(classAxis)!;
  for (let start = 0; start < x.length; start += width) {
    if (argmax(ours, start, width) === argmax(theirs, start, width)) agreeing++;
  }
  return { agreeing, positions: x.length / width };
}

/** Elements as float32 or float64 numbers; 64-bit integers lose what float64 cannot hold. */
export function valuesOf(source: Tensor): Values {
  const { kind } = DTYPES[source.dtype];
  if (source.dtype === "float64") return arrayOf(source, "float64");
  if (kind === "float") return floatsOf(source);
  return Float64Array.from(arrayOf(source, source.dtype as ArrayDType) as ArrayLike<number | bigint>, Number);
}

/** Index of the first largest of `width` values from `start`. */
export function argmax(values: Values, start: number, width: number): number {
  let best = start;
  for (let i = start + 1; i < start + width; i++) if (values[i]! > values[best]!) best = i;
  return best - start;
}

/**
 * What "the same answer" means for an output. Integers (ids, labels) are answers themselves. Of labels that are told one by one, each sample's
 * shares of a Sigmoid, the yeses are: of many labels most are no. Other floats are class scores, whose answer is the largest of an axis, when what
 * the original gives along it are probabilities or their logarithms, or when the graph says so (`meaning`; without it an output that is named like
 * scores, and a matrix that is all the model gives, are taken for it). Other floats (states, boxes, maps) have no answer.
 */
function agreementOf(output: OutputFacts, { dtype, dims }: Tensor, x: Values, isOnlyOutput: boolean): Agreement {
  if (DTYPES[dtype].kind !== "float") return "equality";
  if (areShares(output)) return withoutUnitAxes(dims).length <= 2 ? "yes" : "none";
  const rank = dims.length;
  if (rank < 2 || x.length === 0) return "none";
  const isOver = (classAxis: number) =>
    dims.at(classAxis)! > 1 && isDistribution(classRows(x, dims, classAxis), dims.at(classAxis)!);
  if (isOver(-1)) return { classAxis: -1 };
  // Probabilities of the classes of pixels, [n, K, h, w].
  if (rank > 2 && isOver(1)) return { classAxis: 1 };
  const { meaning } = output;
  const isTaken = meaning
    ? meaning.kind === "class_scores"
    : isNamedLikeScores(output.name) || (rank === 2 && isOnlyOutput);
  const classAxis = meaning?.class_axis ?? dims.findLastIndex((dim, axis) => axis > 0 && dim !== 1);
  return isTaken && (dims.at(classAxis) ?? 1) > 1 ? { classAxis } : "none";
}

/** Whether every row of `width` values sums to 1, as probabilities or as log-probabilities. */
function isDistribution(x: Values, width: number): boolean {
  const sumsToOne = (value: (element: number) => number) => {
    for (let start = 0; start < x.length; start += width) {
      let sum = 0;
      for (let i = start; i < start + width; i++) {
        const p = value(x[i]!);
        if (!(p >= 0)) return false;
        sum += p;
      }
      if (Math.abs(sum - 1) > PROBABILITY_TOLERANCE) return false;
    }
    return true;
  };
  return sumsToOne((p) => p) || sumsToOne(Math.exp);
}
