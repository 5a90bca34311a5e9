import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { quantizeValue } from "../../../../src/core/quantize/params.ts";
import type { RoundedWeight } from "../../../../src/core/quantize/rounding/blocks.ts";
import { FactorsAhead } from "../../../../src/core/quantize/rounding/factors-ahead.ts";
import { gptqRound } from "../../../../src/core/quantize/rounding/gptq.ts";
import { inverseFactor } from "../../../../src/core/quantize/rounding/inverse-factor.ts";
import { nearestRound } from "../../../../src/core/quantize/rounding/nearest.ts";
import { dequantized, OutputJudge, paramsAt, type RowMatrix } from "../../../../src/core/quantize/rounding/rounding.ts";
import { blockSizeOf, dtypeOf, rangeOf, type WeightScheme } from "../../../../src/core/quantize/scheme.ts";
import { Random } from "../../../../src/core/random.ts";

/** `count` rows of `depth` inputs that correlate: each is mostly a mixture of a few causes. */
function correlated(count: number, depth: number, seed: number, causes = depth / 8): Float32Array {
  const mixture = new Float32Array(causes * depth);
  new Random(1, "mixture").fillNormal(mixture);
  const random = new Random(seed, "inputs");
  const cause = new Float32Array(causes);
  const inputs = new Float32Array(count * depth);
  random.fillNormal(inputs);
  for (let row = 0; row < count; row++) {
    random.fillNormal(cause);
    for (let i = 0; i < depth; i++) {
      let sum = 0.3 * inputs[row * depth + i]!;
      for (let c = 0; c < causes; c++) sum += cause[c]! * mixture[c * depth + i]!;
      inputs[row * depth + i] = sum;
    }
  }
  return inputs;
}

function gramOf(inputs: Float32Array, depth: number): Float32Array {
  const gram = new Float32Array(depth * depth);
  for (let i = 0; i < depth; i++) {
    for (let j = 0; j < depth; j++) {
      let sum = 0;
      for (let at = 0; at < inputs.length; at += depth) sum += inputs[at + i]! * inputs[at + j]!;
      gram[i * depth + j] = sum;
    }
  }
  return gram;
}

function weightsOf(rows: number, depth: number): RowMatrix {
  const values = new Float32Array(rows * depth);
  new Random(3, "weights").fillNormal(values);
  return { values, rows, depth };
}

const W4: WeightScheme = { bits: 4, signed: false, symmetric: false, granularity: { block: 32 } };

/** Algorithm 1 of the paper, without blocks: q of every column, with the scales and zero points of `rounded`. */
function columnByColumn(
  { values, rows, depth }: RowMatrix,
  upper: Float64Array,
  rounded: RoundedWeight,
  scheme: WeightScheme,
): Uint8Array {
  const q = new Uint8Array(rows * depth);
  const blocks = rounded.scales.length / rows;
  for (let row = 0; row < rows; row++) {
    const left = Float64Array.from(values.subarray(row * depth, (row + 1) * depth));
    for (let i = 0; i < depth; i++) {
      const params = paramsAt(rounded, row * blocks + Math.floor(i / blockOf(scheme, depth)), scheme);
      const value = quantizeValue(left[i]!, params, rangeOf(scheme));
      q[row * depth + i] = value;
      const loss = (left[i]! - (value - params.zeroPoint) * params.scale) / upper[i * depth + i]!;
      for (let j = i; j < depth; j++) left[j] = left[j]! - loss * upper[i * depth + j]!;
    }
  }
  return q;
}

const blockOf = (scheme: WeightScheme, depth: number) => Math.min(blockSizeOf(scheme, depth), depth);

describe("GPTQ", () => {
  // Below, at and above whole tiles and blocks.
  for (const depth of [1, 5, 24, 32, 33, 64, 101]) {
    test(`its factor is that of the damped inverse: depth ${depth}`, () => {
      const gram = gramOf(correlated(4 * depth + 8, depth, 2, 3), depth);
      const upper = inverseFactor(gram, depth)!;
      let mean = 0;
      for (let i = 0; i < depth; i++) mean += gram[i * depth + i]! / depth;
      // Uᵀ·U·H = 1
      for (let i = 0; i < depth; i++) {
        for (let j = 0; j < i; j++) assert.equal(upper[i * depth + j], 0);
        const inverse = Array.from({ length: depth }, (_, k) => {
          let sum = 0;
          for (let m = 0; m <= Math.min(i, k); m++) sum += upper[m * depth + i]! * upper[m * depth + k]!;
          return sum;
        });
        for (let j = 0; j < depth; j++) {
          let product = 0;
          for (let k = 0; k < depth; k++) {
            product += inverse[k]! * (gram[k * depth + j]! + (k === j ? 0.01 * mean : 0));
          }
          assert.ok(Math.abs(product - (i === j ? 1 : 0)) < 1e-8, `${i}, ${j}: ${product}`);
        }
      }
    });
  }

  for (const { rows, depth, scheme } of [
    { rows: 9, depth: 200, scheme: W4 },
    { rows: 1030, depth: 40, scheme: W4 },
    { rows: 6, depth: 101, scheme: { bits: 8, signed: true, symmetric: true, granularity: "channel" } as const },
    { rows: 5, depth: 160, scheme: { ...W4, granularity: { block: 128 } } },
  ]) {
    test(`it rounds one column after the other: ${rows} x ${depth}, ${JSON.stringify(scheme.granularity)}`, () => {
      const weights = weightsOf(rows, depth);
      const gram = gramOf(correlated(4 * depth, depth, 2, 5), depth);
      const rounded = gptqRound(weights, scheme, inverseFactor(gram, weights.depth))!;
      assert.deepEqual(rounded.q, columnByColumn(weights, inverseFactor(gram, depth)!, rounded, scheme));
    });
  }

  for (const scheme of [W4, { ...W4, symmetric: true }, { ...W4, signed: true, symmetric: true }]) {
    test(`${dtypeOf(scheme)}, ${scheme.symmetric ? "symmetric" : "with zero points"}: at least 3.5 dB better than the nearest codes, on other samples`, () => {
      const depth = 256;
      const weights = weightsOf(32, depth);
      const rounded = gptqRound(
        weights,
        scheme,
        inverseFactor(gramOf(correlated(1024, depth, 2), depth), weights.depth),
      )!;
      const judge = gramOf(correlated(512, depth, 5), depth);
      const rows = Array.from({ length: weights.rows }, (_, i) => i);
      const error = (candidate: typeof rounded) =>
        new OutputJudge(weights, { gram: judge }, rows).error(dequantized(weights, candidate, scheme));
      const gainDb = 10 * Math.log10(error(nearestRound(weights, scheme)) / error(rounded));
      assert.ok(gainDb >= 3.5, `${gainDb.toFixed(2)} dB`);
    });
  }

  test("inputs that do not correlate leave every weight at its nearest code", () => {
    const depth = 80;
    const weights = weightsOf(5, depth);
    const identity = Float32Array.from({ length: depth * depth }, (_, i) => (i % (depth + 1) === 0 ? 1 : 0));
    assert.deepEqual(gptqRound(weights, W4, inverseFactor(identity, weights.depth)), nearestRound(weights, W4));
  });

  test("inputs that are always zero change nothing for the others", () => {
    const depth = 64;
    const weights = weightsOf(4, depth);
    const inputs = correlated(256, depth, 2);
    for (let at = 0; at < inputs.length; at += depth) inputs[at + 7] = 0;
    const rounded = gptqRound(weights, W4, inverseFactor(gramOf(inputs, depth), weights.depth))!;
    const nearest = nearestRound(weights, W4);
    for (let row = 0; row < 4; row++) assert.equal(rounded.q[row * depth + 7], nearest.q[row * depth + 7]);
  });

  test("factors that are computed ahead on a thread are the same, and others are computed when they are asked for", async () => {
    const depths = [24, 40, 8, 64, 16];
    const grams = depths.map((depth, i) => gramOf(correlated(4 * depth, depth, i), depth));
    const [broken, other] = [Float32Array.of(Number.NaN, 0, 0, 1), gramOf(correlated(128, 32, 9), 32)];
    await using ahead = new FactorsAhead([...grams.slice(0, 3), grams[2]!, broken, ...grams.slice(3)]);
    const check = async (gram: Float32Array, depth: number) =>
      assert.deepEqual(await ahead.factorOf(gram, depth), inverseFactor(gram, depth));
    for (const [i, gram] of grams.slice(0, 3).entries()) await check(gram, depths[i]!);
    const again = await ahead.factorOf(grams[2]!, depths[2]!);
    assert.equal(again, await ahead.factorOf(grams[2]!, depths[2]!));
    await check(other, 32);
    assert.equal(await ahead.factorOf(broken, 2), undefined);
    // One is left out, and asked for when its turn is over.
    await check(grams[4]!, depths[4]!);
    await check(grams[3]!, depths[3]!);
  });

  test("a thread that is ended leaves nobody waiting", async () => {
    const grams = [1, 2].map((seed) => gramOf(correlated(256, 64, seed), 64));
    const ahead = new FactorsAhead(grams);
    const waiting = ahead.factorOf(grams[1]!, 64);
    await ahead[Symbol.asyncDispose]();
    await waiting.then(
      (factor) => assert.deepEqual(factor, inverseFactor(grams[1]!, 64)),
      (error) => assert.equal(error.code, "internal"),
    );
  });

  test("what is not finite has no factor", () => {
    assert.equal(inverseFactor(Float32Array.of(1, Number.NaN, Number.NaN, 1), 2), undefined);
    assert.equal(inverseFactor(Float32Array.of(Number.POSITIVE_INFINITY, 0, 0, 1), 2), undefined);
  });
});
