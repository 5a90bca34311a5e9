import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { weightKernels } from "../../../../src/core/quantize/rounding/kernels.ts";
import { Random } from "../../../../src/core/random.ts";

/** Every kernel against its definition, one number at a time. */

const BLOCKS = 3;
/** Floats of a block of rows, and of a row of columns. */
const WIDTHS = [16, 32, 80];
const DEPTH = 6;

interface Room {
  readonly floats: Float32Array;
  readonly los: Float32Array;
  readonly his: Float32Array;
  readonly bytes: Uint8Array;
  readonly kernels: ReturnType<typeof weightKernels>;
}

/** Room for `count` floats, `params` numbers of each kind and as many bytes as floats; the values are random. */
function roomFor(count: number, params: number, seed: number): Room {
  const kernels = weightKernels(5 * count + 8 * params);
  const floats = new Float32Array(kernels.buffer, 0, count);
  new Random(seed).fillNormal(floats);
  const los = new Float32Array(kernels.buffer, 4 * count, params).fill(0);
  const his = new Float32Array(kernels.buffer, 4 * (count + params), params).fill(0);
  return { floats, los, his, bytes: new Uint8Array(kernels.buffer, 4 * count + 8 * params, count), kernels };
}

/** The extremes of some numbers with zero; with `pairs` of what the positive or the negative ones of each two add up to. */
function extremes(values: readonly number[], pairs: boolean): readonly [lo: number, hi: number] {
  const two = Array.from({ length: values.length / 2 }, (_, j) => [values[2 * j]!, values[2 * j + 1]!] as const);
  const sums = (side: (x: number, zero: number) => number) =>
    pairs ? two.map(([a, b]) => Math.fround(side(a, 0) + side(b, 0))) : values;
  return [Math.min(0, ...sums(Math.min)), Math.max(0, ...sums(Math.max))];
}

function nearestEven(x: number): number {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

function codeOf(x: number, scale: number, zero: number, min: number, max: number): number {
  return Math.min(max, Math.max(min, nearestEven(Math.fround(x / scale)) + zero));
}

describe("ranges", () => {
  for (const pairs of [false, true]) {
    for (const width of WIDTHS) {
      it(`of blocks of ${width}${pairs ? ", by pairs" : ""}`, () => {
        const { floats, los, his, kernels } = roomFor(BLOCKS * width, BLOCKS, width);
        // One block of each sign, of which zero is the other extreme.
        floats.subarray(0, width).forEach((x, i) => {
          floats[i] = Math.abs(x);
        });
        floats.subarray(width, 2 * width).forEach((x, i) => {
          floats[width + i] = -Math.abs(x);
        });
        const compute = pairs ? kernels.pairRangesOfRows : kernels.rangesOfRows;
        compute(0, floats.byteLength, 4 * width, los.byteOffset, his.byteOffset);
        for (let b = 0; b < BLOCKS; b++) {
          const expected = extremes([...floats.subarray(b * width, (b + 1) * width)], pairs);
          assert.deepEqual([los[b], his[b]], expected.map(unsigned));
        }
      });

      it(`of ${width} columns${pairs ? ", by pairs" : ""}`, () => {
        const { floats, los, his, kernels } = roomFor(DEPTH * width, width, width + 1);
        const compute = pairs ? kernels.pairRangesOfColumns : kernels.rangesOfColumns;
        compute(0, floats.byteLength, 4 * width, los.byteOffset, his.byteOffset);
        for (let c = 0; c < width; c++) {
          const column = Array.from({ length: DEPTH }, (_, d) => floats[d * width + c]!);
          assert.deepEqual([los[c], his[c]], extremes(column, pairs).map(unsigned), `column ${c}`);
        }
      });
    }

    it(`tell of every number that is none, wherever it stands${pairs ? ", by pairs" : ""}`, () => {
      const width = 32;
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
        for (let at = 0; at < 2 * width; at++) {
          const { floats, los, his, kernels } = roomFor(2 * width, width, 5);
          floats[at] = bad;
          const rows = pairs ? kernels.pairRangesOfRows : kernels.rangesOfRows;
          rows(0, floats.byteLength, 4 * width, los.byteOffset, his.byteOffset);
          assert.deepEqual([...los.subarray(0, 2)].map(Number.isNaN), [at < width, at >= width], `${bad} at ${at}`);
          los.fill(0);
          his.fill(0);
          const columns = pairs ? kernels.pairRangesOfColumns : kernels.rangesOfColumns;
          columns(0, floats.byteLength, 4 * width, los.byteOffset, his.byteOffset);
          assert.ok(los.some(Number.isNaN), `${bad} at ${at}`);
        }
      }
    });
  }
});

/** −0 and 0 are one number here. */
const unsigned = (x: number) => x + 0;

describe("codes", () => {
  /** Halves of steps among them, and values far beyond the range of the codes. */
  const fill = (floats: Float32Array, scaleOf: (i: number) => number) => {
    floats.forEach((x, i) => {
      const kind = i % 4;
      floats[i] = kind === 0 ? (i % 7) * scaleOf(i) + scaleOf(i) / 2 : kind === 1 ? 1e6 * x : x;
    });
  };
  for (const [min, max, zeroOf] of [
    [-128, 127, () => 0],
    [0, 255, (block: number) => 100 + block],
    [0, 15, (block: number) => block % 16],
  ] as const) {
    for (const width of WIDTHS) {
      it(`of blocks of ${width}, from ${min} to ${max}`, () => {
        const { floats, los: scales, his: zeros, bytes, kernels } = roomFor(BLOCKS * width, BLOCKS, width);
        scales.set([0.25, 0.0173, 1.5]);
        zeros.set([0, 1, 2].map(zeroOf));
        fill(floats, (i) => scales[Math.floor(i / width)]!);
        kernels.encodeRows(
          0,
          floats.byteLength,
          4 * width,
          scales.byteOffset,
          zeros.byteOffset,
          min,
          max,
          bytes.byteOffset,
        );
        const expected = [...floats].map((x, i) => {
          const block = Math.floor(i / width);
          return codeOf(x, scales[block]!, zeros[block]!, min, max) & 255;
        });
        assert.deepEqual([...bytes], expected);
      });

      it(`of ${width} columns, from ${min} to ${max}`, () => {
        const { floats, los: scales, his: zeros, bytes, kernels } = roomFor(DEPTH * width, width, width + 1);
        scales.forEach((_, c) => {
          scales[c] = 0.25 * (1 + (c % 5));
          zeros[c] = zeroOf(c % 3);
        });
        fill(floats, (i) => scales[i % width]!);
        kernels.encodeColumns(
          0,
          floats.byteLength,
          4 * width,
          scales.byteOffset,
          zeros.byteOffset,
          min,
          max,
          bytes.byteOffset,
        );
        const expected = [...floats].map((x, i) => codeOf(x, scales[i % width]!, zeros[i % width]!, min, max) & 255);
        assert.deepEqual([...bytes], expected);
      });
    }
  }
});

it("sixteen rows of bytes become sixteen columns, and nothing else is written", () => {
  const [width, height] = [48, 32];
  const kernels = weightKernels(2 * width * height);
  const from = new Uint8Array(kernels.buffer, 0, width * height);
  const to = new Uint8Array(kernels.buffer, width * height, width * height).fill(7);
  from.forEach((_, i) => {
    from[i] = (i * 37 + (i >> 8)) % 251;
  });
  // The second sixteen of the rows.
  kernels.transposeBytes(16 * width, 17 * width, width, to.byteOffset + 16, height);
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) assert.equal(to[x * height + y], y < 16 ? 7 : from[y * width + x], `${x}, ${y}`);
  }
});
