import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { CoreError } from "../../../../src/core/errors.ts";
import { affineParams, codeRange, quantizeValue, roundHalfEven } from "../../../../src/core/quantize/params.ts";
import {
  type BlockLayout,
  quantizeBlocks,
  type RoundedWeight,
  type WeightMatrix,
} from "../../../../src/core/quantize/rounding/blocks.ts";
import { blockSizeOf, dtypeOf, type WeightScheme } from "../../../../src/core/quantize/scheme.ts";
import { uniformSource } from "../../../support/graphs.ts";

function randomMatrix(size: Omit<WeightMatrix, "values">, seed: number): WeightMatrix {
  const uniform = uniformSource(seed);
  const values = new Float32Array(size.batches * size.rows * size.depth);
  for (let i = 0; i < values.length; i++) values[i] = (uniform() + uniform() + uniform() - 1.5) * (1 + 4 * uniform());
  return { ...size, values };
}

/** Element (batch, row, d) of a matrix. */
function at(matrix: WeightMatrix, batch: number, row: number, d: number): number {
  const { rows, depth, layout } = matrix;
  const inside = layout === "row-major" ? row * depth + d : d * rows + row;
  return matrix.values[batch * rows * depth + inside]!;
}

/** The definition, element by element. */
function reference(matrix: WeightMatrix, scheme: WeightScheme, target: BlockLayout): RoundedWeight {
  const { batches, rows, depth } = matrix;
  const blockSize = blockSizeOf(scheme, depth);
  const blocks = Math.max(1, Math.ceil(depth / blockSize));
  const rowLength = target.padded ? blocks * blockSize : depth;
  const rowMajor = target.layout === "row-major";
  const codes = codeRange(dtypeOf(scheme), { symmetric: scheme.symmetric });
  const { symmetric, scaleDType = "float32" } = scheme;
  const result = {
    q: new Uint8Array(batches * rows * rowLength),
    scales: new Float32Array(batches * rows * blocks),
    zeroPoints: new Uint8Array(batches * rows * blocks),
  };
  const range = (batch: number, row: number, from: number, to: number): [number, number] => {
    let [lo, hi] = [0, 0];
    for (let d = from; d < to; d++) {
      const value = at(matrix, batch, row, d);
      let [low, high] = [Math.min(value, 0), Math.max(value, 0)];
      if (scheme.reduceRange) {
        const other = (d - from) % 2 === 0 ? d + 1 : d - 1;
        const neighbour = other < to ? at(matrix, batch, row, other) : 0;
        low = Math.fround(low + Math.min(neighbour, 0));
        high = Math.fround(high + Math.max(neighbour, 0));
      }
      lo = Math.min(lo, low);
      hi = Math.max(hi, high);
    }
    return [lo, hi];
  };
  const whole: [number, number] = [0, 0];
  for (let batch = 0; batch < batches; batch++) {
    for (let row = 0; row < rows; row++) {
      for (let block = 0; block < blocks; block++) {
        const [lo, hi] = range(batch, row, block * blockSize, Math.min(depth, (block + 1) * blockSize));
        whole[0] = Math.min(whole[0], lo);
        whole[1] = Math.max(whole[1], hi);
      }
    }
  }
  for (let batch = 0; batch < batches; batch++) {
    for (let row = 0; row < rows; row++) {
      for (let block = 0; block < blocks; block++) {
        const from = block * blockSize;
        const to = Math.min(depth, from + blockSize);
        const [lo, hi] = scheme.granularity === "tensor" ? whole : range(batch, row, from, to);
        let params = affineParams(lo, hi, scheme.reduceRange ? { min: -127, max: 127 } : codes, {
          symmetric,
          scaleDType,
        });
        if (symmetric && scheme.bits !== 8) {
          const zeroPoint = roundHalfEven((codes.min + codes.max) / 2);
          const round = scaleDType === "float16" ? Math.f16round : Math.fround;
          const step = round(Math.max(-lo, hi) / (zeroPoint - codes.min));
          params = { scale: step === 0 ? 1 : hi > -lo ? -step : step, zeroPoint };
        }
        const index = rowMajor ? (batch * rows + row) * blocks + block : (batch * blocks + block) * rows + row;
        result.scales[index] = params.scale;
        result.zeroPoints[index] = params.zeroPoint;
        for (let d = from; d < (target.padded ? from + blockSize : to); d++) {
          const place = rowMajor ? (batch * rows + row) * rowLength + d : (batch * depth + d) * rows + row;
          result.q[place] = quantizeValue(d < depth ? at(matrix, batch, row, d) : 0, params, codes);
        }
      }
    }
  }
  return result;
}

const W4: WeightScheme = { bits: 4, signed: false, symmetric: false, granularity: { block: 16 } };

const anyCase = fc.record({
  batches: fc.integer({ min: 1, max: 3 }),
  rows: fc.integer({ min: 1, max: 70 }),
  depth: fc.integer({ min: 1, max: 150 }),
  from: fc.constantFrom("row-major", "column-major"),
  to: fc.constantFrom("row-major", "column-major"),
  padded: fc.boolean(),
  bits: fc.constantFrom(2, 4, 8),
  signed: fc.boolean(),
  granularity: fc.oneof(fc.constantFrom("tensor", "channel"), fc.record({ block: fc.constantFrom(16, 32, 64, 1024) })),
  symmetric: fc.boolean(),
  reduceRange: fc.boolean(),
  scaleDType: fc.constantFrom("float32", "float16"),
  seed: fc.nat(),
});

describe("quantizeBlocks", () => {
  it("does what the definition says, whatever the shape and layout", () => {
    fc.assert(
      fc.property(anyCase, ({ batches, rows, depth, from, to, padded, seed, reduceRange, ...scheme }) => {
        const full: WeightScheme = reduceRange
          ? { ...scheme, bits: 8, signed: true, symmetric: true, reduceRange }
          : { ...scheme, reduceRange };
        const isBlocked = typeof full.granularity === "object";
        const target: BlockLayout = { layout: to, padded: padded && isBlocked && to === "row-major" };
        const matrix = randomMatrix({ batches, rows, depth, layout: from }, seed);
        assert.deepEqual(quantizeBlocks(matrix, full, target), reference(matrix, full, target));
      }),
      { numRuns: 400 },
    );
  });

  it("works tile by tile on large weights", () => {
    for (const from of ["row-major", "column-major"] as const) {
      for (const to of ["row-major", "column-major"] as const) {
        const matrix = randomMatrix({ batches: 1, rows: 700, depth: 1111, layout: from }, 5);
        for (const block of [32, 2048]) {
          const scheme: WeightScheme = { bits: 8, signed: false, symmetric: false, granularity: { block } };
          assert.deepEqual(
            quantizeBlocks(matrix, scheme, { layout: to }),
            reference(matrix, scheme, { layout: to }),
            `${from} to ${to}, blocks of ${block}`,
          );
        }
      }
    }
  });

  it("keeps the sum of two neighbouring codes within what 16 bits can add", () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: 90 }), (seed, depth) => {
        const matrix = randomMatrix({ batches: 1, rows: 8, depth, layout: "column-major" }, seed);
        const scheme: WeightScheme = {
          ...{ bits: 8, signed: true, symmetric: true, granularity: "channel", reduceRange: true },
        } as const;
        const { q } = quantizeBlocks(matrix, scheme, { layout: "row-major" });
        const signed = new Int8Array(q.buffer);
        let largest = 0;
        for (let row = 0; row < 8; row++) {
          for (let d = 0; d < depth; d += 2) {
            const sum = (other: (a: number, b: number) => number): number =>
              other(0, signed[row * depth + d]!) + (d + 1 < depth ? other(0, signed[row * depth + d + 1]!) : 0);
            largest = Math.max(largest, sum(Math.max), -sum(Math.min));
          }
        }
        assert.ok(largest <= 128 && largest >= 126, `the largest sum is ${largest}`);
      }),
    );
  });

  it("keeps the sums of rows where that is asked for, at less than a step for each element", () => {
    fc.assert(
      fc.property(
        fc.nat(),
        fc.integer({ min: 1, max: 60 }),
        fc.constantFrom("int8" as const, "uint8" as const),
        (seed, depth, dtype) => {
          const matrix = randomMatrix({ batches: 1, rows: 9, depth, layout: "row-major" }, seed);
          const signed = dtype === "int8";
          const scheme = { bits: 8, signed, symmetric: signed, granularity: "channel" } as const;
          const made = quantizeBlocks(matrix, scheme, { layout: "row-major" }, { keepSums: true });
          const View = dtype === "int8" ? Int8Array : Uint8Array;
          const [codes, zeroPoints] = [new View(made.q.buffer), new View(made.zeroPoints.buffer)];
          for (let row = 0; row < 9; row++) {
            const scale = made.scales[row]!;
            let error = 0;
            for (let d = 0; d < depth; d++) {
              const difference = at(matrix, 0, row, d) - (codes[row * depth + d]! - zeroPoints[row]!) * scale;
              assert.ok(Math.abs(difference) < scale * 1.001, `an element is off by ${difference / scale} steps`);
              error += difference;
            }
            assert.ok(Math.abs(error) <= scale * 0.501, `the sum is off by ${error / scale} steps`);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it("takes blocks of whole vectors, and of any length where they are the row", () => {
    const round = (block: number, depth: number, padded = false) => {
      const matrix = randomMatrix({ batches: 1, rows: 3, depth, layout: "row-major" }, 3);
      return quantizeBlocks(matrix, { ...W4, granularity: { block } }, { layout: "row-major", padded });
    };
    assert.equal(round(24, 24).scales.length, 3);
    assert.equal(round(32, 48).scales.length, 6);
    for (const attempt of [() => round(24, 48), () => round(24, 24, true)]) {
      assert.throws(attempt, { code: "internal", message: /not a whole number of 16/ });
    }
  });

  it("refuses values that are not finite", () => {
    for (const layout of ["row-major", "column-major"] as const) {
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
        const matrix = randomMatrix({ batches: 1, rows: 20, depth: 40, layout }, 3);
        matrix.values[477] = value;
        assert.throws(
          () => quantizeBlocks(matrix, W4, { layout: "row-major" }),
          (error) => error instanceof CoreError && error.code === "non_finite",
        );
      }
    }
  });
});
