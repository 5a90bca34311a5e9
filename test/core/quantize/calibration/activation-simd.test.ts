import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { sumsOfRows } from "../../../../src/core/quantize/calibration/activation-simd.ts";
import { Histogram } from "../../../../src/core/quantize/calibration/histogram.ts";
import { ChannelObserver } from "../../../../src/core/quantize/calibration/observers.ts";

/** Enough values for the vectors to be used, and for several parts. */
const LARGE = 70_003;

/** Values of one kind at every place, from a linear congruential generator. */
function valuesOf(seed: number, length: number, scale: number, special: readonly number[]): Float32Array {
  let state = seed;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  return Float32Array.from({ length }, () => {
    const x = scale * (uniform() - 0.4) * uniform();
    return uniform() < 0.2 ? special[Math.floor(uniform() * special.length)]! : x;
  });
}

const arbitrary = fc.record({
  seed: fc.nat(),
  scale: fc.constantFrom(2 ** -140, 1e-20, 0.003, 1, 50, 1e5, 1e30),
  special: fc.constantFrom([0], [0, -0, 1e-45, -1e-45], [0, Number.NaN], [1, Number.POSITIVE_INFINITY]),
});

test("a histogram of many values is that of their parts, however few are counted at a time", () => {
  fc.assert(
    fc.property(arbitrary, fc.integer({ min: LARGE - 8, max: LARGE }), ({ seed, scale, special }, length) => {
      const values = valuesOf(seed, length, scale, special);
      const whole = new Histogram();
      const { min, max } = whole.add(values);
      const parts = new Histogram();
      let extremes = { min: Number.POSITIVE_INFINITY, max: Number.NEGATIVE_INFINITY };
      for (let start = 0; start < length; start += 1000) {
        const range = parts.add(values.subarray(start, start + 1000));
        extremes = { min: Math.min(extremes.min, range.min), max: Math.max(extremes.max, range.max) };
      }
      assert.deepEqual(whole.state, parts.state);
      // Negative and positive zero are one.
      assert.deepEqual([min + 0, max + 0], [extremes.min + 0, extremes.max + 0]);
    }),
    { numRuns: 40 },
  );
});

test("statistics of channels are the same along an axis of vectors and along one that is none", () => {
  for (const [dims, axis] of [
    [[3, 5, 41, 33], 1],
    [[2, 3, 300, 300], 1],
    [[50, 128], -1],
    [[7, 4, 96], -1],
    [[300, 1028], 1],
  ] as const) {
    const values = valuesOf(
      7,
      dims.reduce((a, b) => a * b, 1),
      3,
      [0, -2],
    );
    const observer = new ChannelObserver(axis);
    observer.observe(values, dims);
    observer.observe(values, dims);
    const channels = dims.at(axis)!;
    const inner = axis === -1 ? 1 : dims.slice(axis + 1).reduce((a, b) => a * b, 1);
    const { min, max, squares, count } = observer.state;
    assert.equal(count, (2 * values.length) / channels);
    const byChannel = Array.from({ length: channels }, () => [] as number[]);
    values.forEach((x, i) => {
      byChannel[Math.floor(i / inner) % channels]!.push(x);
    });
    for (const [c, own] of byChannel.entries()) {
      assert.equal(
        min[c],
        own.reduce((a, b) => Math.min(a, b)),
      );
      assert.equal(
        max[c],
        own.reduce((a, b) => Math.max(a, b)),
      );
      const square = own.reduce((a, b) => a + b * b, 0);
      assert.ok(Math.abs(squares[c]! / (2 * square) - 1) <= 1e-12, `${squares[c]} against ${2 * square}`);
    }
  }
});

test("sums of rows are those of a loop in doubles, whatever the sizes of planes, rows and groups", () => {
  const sizes = fc.record({
    planes: fc.integer({ min: 1, max: 9 }),
    width: fc.oneof(fc.integer({ min: 4, max: 40 }), fc.constantFrom(1000, 4097, 8192)),
    groups: fc.array(fc.integer({ min: 2, max: 12 }), { minLength: 1, maxLength: 5 }),
    seed: fc.nat(),
  });
  fc.assert(
    fc.property(sizes, ({ planes, width, groups, seed }) => {
      const rows = groups.reduce((a, b) => a + b);
      const values = valuesOf(seed, planes * rows * width, 3, [0]);
      const sums = sumsOfRows(values, width, groups);
      assert.equal(sums.length, planes * groups.length * width);
      for (let plane = 0, row = 0, to = 0; plane < planes; plane++) {
        for (const length of groups) {
          for (let x = 0; x < width; x++, to++) {
            let sum = 0;
            let size = 0;
            for (let r = row; r < row + length; r++) {
              sum += values[r * width + x]!;
              size += Math.abs(values[r * width + x]!);
            }
            // Of float32: half a unit in the last place for each addition.
            assert.ok(Math.abs(sums[to]! - sum) <= length * 2 ** -24 * size, `${sums[to]} and ${sum}`);
          }
          row += length;
        }
      }
    }),
    { numRuns: 60 },
  );
});
