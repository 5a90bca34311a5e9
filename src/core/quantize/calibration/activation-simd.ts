/**
 * The inner loops over activations, in WebAssembly with 128-bit vectors: a fraction of the time of loops over typed arrays. Values are
 * copied into the memory of the kernels a part at a time. Counts and extremes are those of any other way to find them; sums are of doubles.
 */
import {
  ADD,
  advance,
  advanceBelow,
  assembleKernels,
  type Code,
  createMemory,
  F32,
  I32,
  I32_ADD,
  I32_LT_U,
  i32,
  kernel,
  type Local,
  load,
  loop,
  MUL,
  SPLAT,
  SUB,
  store,
  unsigned,
  V128,
  vector,
} from "../../wasm-assembler.ts";

const storeAt = (offset: number): Code => vector(11, 2, ...unsigned(offset));
/** A float32, given by its bytes, in all lanes. */
const constant = (...bytes: number[]): Code => vector(12, ...bytes, ...bytes, ...bytes, ...bytes);
const ZERO = constant(0, 0, 0, 0);
const POSITIVE_INFINITY = constant(0, 0, 0x80, 0x7f);
const NEGATIVE_INFINITY = constant(0, 0, 0x80, 0xff);
const MIN: Code = vector(0xea);
const MAX: Code = vector(0xeb);
const EQUAL: Code = vector(0x41);
const UNEQUAL: Code = vector(0x42);
const FLOOR: Code = vector(0x68);
const TRUNCATE: Code = vector(0xf8);
const I32X4_SPLAT: Code = vector(0x11);
const I32X4_ADD: Code = vector(0xae);
const I32X4_SUB: Code = vector(0xb1);
const I32X4_SHIFT_LEFT: Code = vector(0xab);
const lane = (i: number): Code => vector(0x1b, i);
const F64X2_ADD: Code = vector(0xf0);
const F64X2_MUL: Code = vector(0xf2);
/** The first two floats as doubles. */
const WIDEN: Code = vector(0x5f);
const SWAP_HALVES: Code = vector(13, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
const I32_LOAD: Code = [0x28, 2, 0];
const I32_STORE: Code = [0x36, 2, 0];

/** By lane: the smallest and the largest value, how many are zero and how many are not finite. The first two are void if any is not. */
const extent = kernel(
  { src: I32, end: I32, into: I32 },
  { x: V128, min: V128, max: V128, zeros: V128, nonFinite: V128 },
  ({ src, end, into, x, min, max, zeros, nonFinite }) => [
    [POSITIVE_INFINITY, min.set, NEGATIVE_INFINITY, max.set],
    loop(
      [min.get, src.get, load(0), x.tee, MIN, min.set, max.get, x.get, MAX, max.set],
      // A comparison that holds is −1.
      [zeros.get, x.get, ZERO, EQUAL, I32X4_SUB, zeros.set],
      [nonFinite.get, x.get, x.get, SUB, ZERO, UNEQUAL, I32X4_SUB, nonFinite.set],
      advanceBelow(src, i32(16), end),
    ),
    [min, max, zeros, nonFinite].map((result, i) => [into.get, result.get, storeAt(16 * i)]),
  ],
);

/**
 * Adds one to the counter (32 bits) of each value's bin, floor(value · perWidth). `bins` is where the counters of bin 0 are; each lane has a
 * table of its own, `tableBytes` behind that of the last one, so that a run of equal values does not wait for itself.
 */
const count = kernel(
  { src: I32, end: I32, bins: I32, tableBytes: I32, perWidth: F32 },
  { scale: V128, at: V128, first: V128, address: I32 },
  ({ src, end, bins, tableBytes, perWidth, scale, at, first, address }) => [
    [perWidth.get, SPLAT, scale.set],
    [bins.get, I32X4_SPLAT, first.set],
    [1, 2, 3].map((i) => [advance(bins, tableBytes.get), first.get, bins.get, vector(0x1c, i), first.set]),
    loop(
      [src.get, load(0), scale.get, MUL, FLOOR, TRUNCATE, i32(2), I32X4_SHIFT_LEFT, first.get, I32X4_ADD, at.set],
      [0, 1, 2, 3].map((i) => [at.get, lane(i), address.tee, address.get, I32_LOAD, i32(1), I32_ADD, I32_STORE]),
      advanceBelow(src, i32(16), end),
    ),
  ],
);

/** Adds the squares of the first and the last two lanes of x, as doubles, to the sums of squares. */
const addSquares = (x: Local, wide: Local, squares: readonly Local[]): Code =>
  [x.get, [x.get, x.get, SWAP_HALVES]].map((half, i) => [
    [half, WIDEN, wide.set],
    [squares[i]!.get, wide.get, wide.get, F64X2_MUL, F64X2_ADD, squares[i]!.set],
  ]);

/** By lane: the smallest and the largest value; two and two lanes of the sum of squares, as doubles. */
const moments = kernel(
  { src: I32, end: I32, into: I32 },
  { x: V128, wide: V128, min: V128, max: V128, square0: V128, square1: V128 },
  ({ src, end, into, x, wide, min, max, square0, square1 }) => [
    [POSITIVE_INFINITY, min.set, NEGATIVE_INFINITY, max.set],
    loop(
      [min.get, src.get, load(0), x.tee, MIN, min.set, max.get, x.get, MAX, max.set],
      addSquares(x, wide, [square0, square1]),
      advanceBelow(src, i32(16), end),
    ),
    [min, max, square0, square1].map((result, i) => [into.get, result.get, storeAt(16 * i)]),
  ],
);

/** The same of each column of a matrix with rows of `rowBytes`, in arrays as long as a row that go on from what they hold. */
const momentsOfColumns = kernel(
  { src: I32, end: I32, rowBytes: I32, mins: I32, maxs: I32, squares: I32 },
  { stop: I32, toMin: I32, toMax: I32, toSquare: I32, x: V128, wide: V128, a: V128, b: V128 },
  ({ src, end, rowBytes, mins, maxs, squares, stop, toMin, toMax, toSquare, x, wide, a, b }) =>
    loop(
      [mins.get, toMin.set, maxs.get, toMax.set, squares.get, toSquare.set],
      [src.get, rowBytes.get, I32_ADD, stop.set],
      loop(
        [src.get, load(0), x.set],
        [toMin.get, toMin.get, load(0), x.get, MIN, store, toMax.get, toMax.get, load(0), x.get, MAX, store],
        [toSquare.get, load(0), a.set, toSquare.get, load(16), b.set],
        addSquares(x, wide, [a, b]),
        [toSquare.get, a.get, store, toSquare.get, b.get, storeAt(16)],
        [advance(toMin, i32(16)), advance(toMax, i32(16)), advance(toSquare, i32(32))],
        advanceBelow(src, i32(16), stop),
      ),
      [src.get, end.get, I32_LT_U],
    ),
);

/**
 * Adds up rows of every plane, the first `usedBytes` of it: rows are `rowBytes` apart, and looked at in whole vectors, `spanBytes`, which may
 * reach into what is behind them. The sums of one plane take `spanBytes`, and those of the next one follow.
 */
const sumRows = kernel(
  {
    src: I32,
    end: I32,
    planeBytes: I32,
    usedBytes: I32,
    rowBytes: I32,
    spanBytes: I32,
    into: I32,
  },
  { row: I32, stop: I32, from: I32, to: I32, spanEnd: I32 },
  ({ src, end, planeBytes, usedBytes, rowBytes, spanBytes, into, row, stop, from, to, spanEnd }) =>
    loop(
      [src.get, row.set, src.get, usedBytes.get, I32_ADD, stop.set],
      loop(
        [row.get, from.set, into.get, to.set, into.get, spanBytes.get, I32_ADD, spanEnd.set],
        loop(
          [to.get, to.get, load(0), from.get, load(0), ADD, store],
          advance(from, i32(16)),
          advanceBelow(to, i32(16), spanEnd),
        ),
        advanceBelow(row, rowBytes.get, stop),
      ),
      advance(into, spanBytes.get),
      advanceBelow(src, planeBytes.get, end),
    ),
);

interface Functions {
  readonly extent: (src: number, end: number, into: number) => void;
  readonly count: (src: number, end: number, bins: number, tableBytes: number, perWidth: number) => void;
  readonly moments: (src: number, end: number, into: number) => void;
  readonly momentsOfColumns: (
    src: number,
    end: number,
    rowBytes: number,
    mins: number,
    maxs: number,
    squares: number,
  ) => void;
  readonly sumRows: (
    src: number,
    end: number,
    planeBytes: number,
    usedBytes: number,
    rowBytes: number,
    spanBytes: number,
    into: number,
  ) => void;
}

/** Values in one part: with the counters they stay in a processor's second cache. */
const PART = 2 ** 15;
const LANES = 4;
/** Counters in one table; a histogram has no more bins. */
const MAX_COUNTERS = 2 ** 13;
const MAX_COLUMNS = 2 ** 13;
const RESULT_AT = 4 * PART;
const TABLES_AT = RESULT_AT + 128;
/** Minima, maxima and squares of columns lie where the counters do at other times. */
const COLUMNS_AT = TABLES_AT;
const MEMORY_BYTES = TABLES_AT + Math.max(LANES * 4 * MAX_COUNTERS, (4 + 4 + 8) * MAX_COLUMNS);

let loaded: ReturnType<typeof loadKernels> | undefined;

function loadKernels() {
  const memory = createMemory(MEMORY_BYTES);
  const { buffer } = memory;
  return {
    ...assembleKernels<Functions>({ extent, count, moments, momentsOfColumns, sumRows })(memory),
    part: new Float32Array(buffer, 0, PART),
    floats: new Float32Array(buffer, RESULT_AT, 8),
    integers: new Int32Array(buffer, RESULT_AT, 16),
    doubles: new Float64Array(buffer, RESULT_AT, 8),
    buffer,
  };
}

const kernels = () => {
  loaded ??= loadKernels();
  return loaded;
};

export interface Extent {
  min: number;
  max: number;
  zeros: number;
  nonFinite: number;
}

/**
 * The smallest and the largest value, and how many are zero and how many are NaN or infinite; the first two are void unless that is none.
 * What is left over of whole vectors is not looked at: answers how many values were.
 */
export function extentOf(values: Float32Array, into: Extent): number {
  const { extent, part, floats, integers } = kernels();
  const whole = values.length - (values.length % LANES);
  for (let start = 0; start < whole; start += PART) {
    const size = Math.min(PART, whole - start);
    part.set(values.subarray(start, start + size));
    extent(0, 4 * size, RESULT_AT);
    for (let i = 0; i < LANES; i++) {
      into.min = Math.min(into.min, floats[i]!);
      into.max = Math.max(into.max, floats[LANES + i]!);
      into.zeros += integers[2 * LANES + i]!;
      into.nonFinite += integers[3 * LANES + i]!;
    }
  }
  return whole;
}

/**
 * Adds one to counts[floor(value · perWidth) + origin] for every value; all must have a bin there. `perWidth` is a power of two, and not below
 * one: then no product is rounded. What is left over of whole vectors is not looked at: answers how many values were.
 */
export function countBins(values: Float32Array, perWidth: number, counts: Float64Array, origin: number): number {
  const { count, part, buffer } = kernels();
  const whole = values.length - (values.length % LANES);
  const tables = new Int32Array(buffer, TABLES_AT, LANES * counts.length);
  tables.fill(0);
  for (let start = 0; start < whole; start += PART) {
    const size = Math.min(PART, whole - start);
    part.set(values.subarray(start, start + size));
    count(0, 4 * size, TABLES_AT + 4 * origin, 4 * counts.length, perWidth);
  }
  for (let at = 0; at < tables.length; ) {
    for (let bin = 0; bin < counts.length; bin++, at++) counts[bin]! += tables[at]!;
  }
  return whole;
}

/** By channel. */
export interface Moments {
  readonly min: Float64Array;
  readonly max: Float64Array;
  readonly squares: Float64Array;
}

/** Takes the values from `start` to `end`, a number of whole vectors, into the moments of channel `c`. */
export function addMomentsOf(values: Float32Array, start: number, end: number, into: Moments, c: number): void {
  const { moments, part, floats, doubles } = kernels();
  for (let from = start; from < end; from += PART) {
    const size = Math.min(PART, end - from);
    part.set(values.subarray(from, from + size));
    moments(0, 4 * size, RESULT_AT);
    for (let i = 0; i < LANES; i++) {
      into.min[c] = Math.min(into.min[c]!, floats[i]!);
      into.max[c] = Math.max(into.max[c]!, floats[LANES + i]!);
      into.squares[c]! += doubles[LANES + i]!;
    }
  }
}

/** Whether `addMomentsOfRows` takes rows of so many values. */
export const hasWholeVectors = (columns: number): boolean => columns % LANES === 0 && columns <= MAX_COLUMNS;

/** Takes rows, one behind the other, that have a value for each channel. */
export function addMomentsOfRows(values: Float32Array, into: Moments): void {
  const { momentsOfColumns, part, buffer } = kernels();
  const columns = into.min.length;
  const [maxAt, squareAt] = [4, 8].map((bytes) => COLUMNS_AT + bytes * columns) as [number, number];
  const mins = new Float32Array(buffer, COLUMNS_AT, columns).fill(Number.POSITIVE_INFINITY);
  const maxs = new Float32Array(buffer, maxAt, columns).fill(Number.NEGATIVE_INFINITY);
  const squares = new Float64Array(buffer, squareAt, columns).fill(0);
  const step = PART - (PART % columns);
  for (let start = 0; start < values.length; start += step) {
    const size = Math.min(step, values.length - start);
    part.set(values.subarray(start, start + size));
    momentsOfColumns(0, 4 * size, 4 * columns, COLUMNS_AT, maxAt, squareAt);
  }
  for (let c = 0; c < columns; c++) {
    into.min[c] = Math.min(into.min[c]!, mins[c]!);
    into.max[c] = Math.max(into.max[c]!, maxs[c]!);
    into.squares[c]! += squares[c]!;
  }
}

/** Whether `sumsOfRows` takes rows of so many values. */
export const canSumRows = (width: number): boolean => width >= LANES && width <= MAX_COLUMNS;

/**
 * Sums of rows. `values` are planes, each of rows of `width` values; `groups` says how many rows of a plane belong together, from the first
 * row to the last, two at least in the mean. Answers [planes, groups, width]. What one part has of a group is added in float32, parts as doubles.
 */
export function sumsOfRows(values: Float32Array, width: number, groups: readonly number[]): Float64Array {
  const { sumRows, part, buffer } = kernels();
  const rows = groups.reduce((sum, length) => sum + length, 0);
  const planeSize = rows * width;
  const planes = values.length / planeSize;
  const sums = new Float64Array(planes * groups.length * width);
  const planesInPart = Math.max(1, Math.floor(PART / planeSize));
  const rowsInPart = planeSize <= PART ? rows : Math.floor(PART / width);
  const padded = LANES * Math.ceil(width / LANES);
  const partial = new Float32Array(buffer, COLUMNS_AT, planesInPart * padded);
  for (let plane = 0; plane < planes; plane += planesInPart) {
    const count = Math.min(planesInPart, planes - plane);
    for (let top = 0; top < rows; top += rowsInPart) {
      const bottom = Math.min(rows, top + rowsInPart);
      const start = plane * planeSize + top * width;
      part.set(values.subarray(start, start + (count - 1) * planeSize + (bottom - top) * width));
      let next = 0;
      for (const [group, length] of groups.entries()) {
        const first = Math.max(top, next);
        const end = Math.min(bottom, next + length);
        next += length;
        if (first >= end) continue;
        partial.fill(0);
        const src = 4 * (first - top) * width;
        const lastSrc = src + 4 * (count - 1) * planeSize;
        sumRows(src, lastSrc + 1, 4 * planeSize, 4 * (end - first) * width, 4 * width, 4 * padded, COLUMNS_AT);
        for (let p = 0; p < count; p++) {
          const to = ((plane + p) * groups.length + group) * width;
          for (let x = 0; x < width; x++) sums[to + x]! += partial[p * padded + x]!;
        }
      }
    }
  }
  return sums;
}
