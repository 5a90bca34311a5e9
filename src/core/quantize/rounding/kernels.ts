/**
 * The inner loops over weights, in WebAssembly with 128-bit vectors: several times the speed of the same loops over typed arrays
 * (`bench/quantize-weights.ts`).
 *
 * Arithmetic is float32 division and round-half-even, exactly that of QuantizeLinear. Addresses and lengths are in bytes. `…Rows` kernels
 * work on blocks of floats that lie one after the other, `…Columns` kernels on a matrix whose columns are the blocks. Blocks of the first
 * and rows of the second are whole numbers of 16 floats.
 */

import {
  ADD,
  advance,
  advanceBelow,
  assembleKernels,
  type Code,
  createMemory,
  DIV,
  F32,
  I32,
  I32_ADD,
  I32_LT_U,
  i32,
  type Kernel,
  kernel,
  type Local,
  load,
  loop,
  PAGE_BYTES,
  SPLAT,
  SUB,
  store,
  unsigned,
  V128,
  vector,
  type WasmMemory,
} from "../../wasm-assembler.ts";

const F32_ADD = 0x92;
const f32Load = (offset: number): Code => [0x2a, 2, unsigned(offset)];
const f32Store = (offset: number): Code => [0x38, 2, unsigned(offset)];
const ZERO: Code = vector(12, ...new Array<number>(16).fill(0));
const shuffle = (...lanes: number[]): Code => vector(13, ...lanes);
const FIRST_LANE: Code = vector(31, 0);
const NEAREST: Code = vector(0x6a);
const MIN: Code = vector(0xea);
const MAX: Code = vector(0xeb);
const TRUNCATE: Code = vector(0xf8);

/** Lanes 2, 3, 0, 1 and lanes 1, 0, 3, 2 of a vector of four. */
const SWAP_HALVES = shuffle(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
const SWAP_NEIGHBOURS = shuffle(4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);

/** Leaves the reduction of a vector's lanes by `op` in each of them. */
const reduceLanes = (local: Local, op: Code): Code =>
  [SWAP_HALVES, SWAP_NEIGHBOURS].map((swap) => [local.get, local.get, local.get, swap, op, local.set]);

/**
 * How a vector of values moves lo and hi: to its extremes with zero, or, with `pairs`, to the extremes of what two neighbours along the
 * depth (elements 2j and 2j + 1) of one sign add up to. `pairSum` makes that sum out of values of one sign.
 */
function widen(lo: Local, hi: Local, x: Local, pairSum: ((oneSided: (x: Local) => Code) => Code) | undefined): Code {
  const of = (op: Code): Code => (pairSum ? pairSum((value) => [value.get, ZERO, op]) : x.get);
  return [
    [lo.get, of(MIN), MIN, lo.set],
    [hi.get, of(MAX), MAX, hi.set],
  ];
}

/** Adds x − x: 0 as long as every value is finite, NaN ever after. */
const watch = (bad: Local, x: Local): Code => [bad.get, x.get, x.get, SUB, ADD, bad.set];

/** lo and hi (float32) of each block; NaN in place of lo when a value is not finite. */
const rangesOfRows = (pairs: boolean): Kernel =>
  kernel(
    { src: I32, end: I32, block: I32, los: I32, his: I32 },
    { stop: I32, lo: V128, hi: V128, x: V128, part: V128, bad: V128 },
    ({ src, end, block, los, his, stop, lo, hi, x, part, bad }) => {
      const neighbours = (oneSided: (x: Local) => Code): Code => [
        oneSided(x),
        part.tee,
        part.get,
        part.get,
        SWAP_NEIGHBOURS,
        ADD,
      ];
      const four = (offset: number): Code => [
        [src.get, load(offset), x.set],
        widen(lo, hi, x, pairs ? neighbours : undefined),
        watch(bad, x),
      ];
      return loop(
        [ZERO, lo.tee, hi.tee, bad.set],
        [src.get, block.get, I32_ADD, stop.set],
        loop(four(0), four(16), four(32), four(48), advanceBelow(src, i32(64), stop)),
        [reduceLanes(lo, MIN), reduceLanes(hi, MAX), reduceLanes(bad, ADD)],
        [los.get, lo.get, FIRST_LANE, bad.get, FIRST_LANE, F32_ADD, f32Store(0)],
        [his.get, hi.get, FIRST_LANE, f32Store(0)],
        [advance(los, i32(4)), advance(his, i32(4))],
        [src.get, end.get, I32_LT_U],
      );
    },
  );

/** lo and hi of each column into arrays as long as a row, which must hold zeros; NaN in the first of lo, or where it stands, when a value is not finite. */
const rangesOfColumns = (pairs: boolean): Kernel =>
  kernel(
    { src: I32, end: I32, rowBytes: I32, los: I32, his: I32 },
    { stop: I32, toLo: I32, toHi: I32, lo: V128, hi: V128, x: V128, y: V128, bad: V128 },
    ({ src, end, rowBytes, los, his, stop, toLo, toHi, lo, hi, x, y, bad }) => {
      const twoRows = (oneSided: (x: Local) => Code): Code => [oneSided(x), oneSided(y), ADD];
      return [
        loop(
          [src.get, rowBytes.get, I32_ADD, stop.set, los.get, toLo.set, his.get, toHi.set],
          loop(
            [src.get, load(0), x.set],
            pairs ? [src.get, rowBytes.get, I32_ADD, load(0), y.set, watch(bad, y)] : [],
            [toLo.get, load(0), lo.set, toHi.get, load(0), hi.set],
            widen(lo, hi, x, pairs ? twoRows : undefined),
            watch(bad, x),
            [toLo.get, lo.get, store, toHi.get, hi.get, store],
            [advance(toLo, i32(16)), advance(toHi, i32(16))],
            advanceBelow(src, i32(16), stop),
          ),
          pairs ? advance(src, rowBytes.get) : [],
          [src.get, end.get, I32_LT_U],
        ),
        [reduceLanes(bad, ADD), los.get, los.get, f32Load(0), bad.get, FIRST_LANE, F32_ADD, f32Store(0)],
      ];
    },
  );

/** The low byte of every lane of two vectors, then of two such results: 16 integers to 16 bytes. */
const LOW_BYTES = shuffle(0, 4, 8, 12, 16, 20, 24, 28, 0, 0, 0, 0, 0, 0, 0, 0);
const JOIN_HALVES = shuffle(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);

const clampToBytes = (low: Local, high: Local): Code => [low.get, MAX, high.get, MIN, TRUNCATE];

/** A code for each float, a byte each; every block with its own scale and zero point (float32, one after the other). */
const encodeRows = kernel(
  { src: I32, end: I32, block: I32, scales: I32, zeros: I32, min: F32, max: F32, dst: I32 },
  { stop: I32, scale: V128, zero: V128, low: V128, high: V128 },
  ({ src, end, block, scales, zeros, min, max, dst, stop, scale, zero, low, high }) => {
    const four = (offset: number): Code => [
      [src.get, load(offset), scale.get, DIV, NEAREST, zero.get, ADD],
      clampToBytes(low, high),
    ];
    return [
      [min.get, SPLAT, low.set, max.get, SPLAT, high.set],
      loop(
        [scales.get, f32Load(0), SPLAT, scale.set, zeros.get, f32Load(0), SPLAT, zero.set],
        [src.get, block.get, I32_ADD, stop.set],
        loop(
          [dst.get, four(0), four(16), LOW_BYTES, four(32), four(48), LOW_BYTES, JOIN_HALVES, store],
          advance(dst, i32(16)),
          advanceBelow(src, i32(64), stop),
        ),
        [advance(scales, i32(4)), advance(zeros, i32(4))],
        [src.get, end.get, I32_LT_U],
      ),
    ];
  },
);

/** The same for columns: scales and zero points are arrays as long as a row. */
const encodeColumns = kernel(
  { src: I32, end: I32, rowBytes: I32, scales: I32, zeros: I32, min: F32, max: F32, dst: I32 },
  { stop: I32, scale: I32, zero: I32, low: V128, high: V128 },
  ({ src, end, rowBytes, scales, zeros, min, max, dst, stop, scale, zero, low, high }) => {
    const four = (offset: number): Code => [
      [src.get, load(offset), scale.get, load(offset), DIV, NEAREST, zero.get, load(offset), ADD],
      clampToBytes(low, high),
    ];
    return [
      [min.get, SPLAT, low.set, max.get, SPLAT, high.set],
      loop(
        [src.get, rowBytes.get, I32_ADD, stop.set, scales.get, scale.set, zeros.get, zero.set],
        loop(
          [dst.get, four(0), four(16), LOW_BYTES, four(32), four(48), LOW_BYTES, JOIN_HALVES, store],
          [advance(dst, i32(16)), advance(scale, i32(64)), advance(zero, i32(64))],
          advanceBelow(src, i32(64), stop),
        ),
        [src.get, end.get, I32_LT_U],
      ),
    ];
  },
);

/** Bytes of the first and of the second half of two vectors, taken in turns. */
const INTERLEAVE_LOW = shuffle(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
const INTERLEAVE_HIGH = shuffle(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);

/**
 * The transpose of a byte matrix: rows of `stride` bytes, of which 16 rows × `rowBytes` from `src` on are taken, become 16 bytes of each
 * row of the result, `dstStride` apart. Sixteen vectors are interleaved with the one half the number away, four times over: a perfect
 * shuffle of 256 bytes, which after four rounds has swapped the two halves of every index.
 */
const transposeBytes = kernel(
  { src: I32, end: I32, stride: I32, dst: I32, dstStride: I32 },
  { from: I32 },
  ({ src, end, stride, dst, dstStride, from }, vectors) => {
    let now = vectors.slice(0, 16);
    let next = vectors.slice(16);
    const rounds: Code[] = [];
    for (let round = 0; round < 4; round++) {
      for (let i = 0; i < 8; i++) {
        const pair = [now[i]!.get, now[i + 8]!.get];
        rounds.push([pair, INTERLEAVE_LOW, next[2 * i]!.set, pair, INTERLEAVE_HIGH, next[2 * i + 1]!.set]);
      }
      [now, next] = [next, now];
    }
    return loop(
      [src.get, from.set],
      now.map((row) => [from.get, load(0), row.set, advance(from, stride.get)]),
      rounds,
      now.map((row) => [dst.get, row.get, store, advance(dst, dstStride.get)]),
      advanceBelow(src, i32(16), end),
    );
  },
  32,
);

const KERNELS = {
  rangesOfRows: rangesOfRows(false),
  pairRangesOfRows: rangesOfRows(true),
  rangesOfColumns: rangesOfColumns(false),
  pairRangesOfColumns: rangesOfColumns(true),
  encodeRows,
  encodeColumns,
  transposeBytes,
} as const;

/** `src` to `end`: the values; `run`: bytes of a block, or of a row of columns. */
type Ranges = (src: number, end: number, run: number, los: number, his: number) => void;
type Encode = (
  src: number,
  end: number,
  run: number,
  scales: number,
  zeros: number,
  min: number,
  max: number,
  dst: number,
) => void;

interface Functions {
  readonly rangesOfRows: Ranges;
  readonly pairRangesOfRows: Ranges;
  readonly rangesOfColumns: Ranges;
  readonly pairRangesOfColumns: Ranges;
  readonly encodeRows: Encode;
  readonly encodeColumns: Encode;
  readonly transposeBytes: (src: number, end: number, stride: number, dst: number, dstStride: number) => void;
}

export interface WeightKernels extends Functions {
  /** All that the kernels can see. Views of it are void once `weightKernels` has been asked for more. */
  readonly buffer: ArrayBuffer;
}

let shared: { readonly memory: WasmMemory; readonly exports: Functions } | undefined;

/** The kernels with at least `bytes` of memory. There is one memory: whoever asks owns it until the next one does. */
export function weightKernels(bytes: number): WeightKernels {
  if (!shared) {
    const memory = createMemory(PAGE_BYTES);
    shared = { memory, exports: assembleKernels<Functions>(KERNELS)(memory) };
  }
  const { memory, exports } = shared;
  const missing = bytes - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE_BYTES));
  return { ...exports, buffer: memory.buffer };
}
