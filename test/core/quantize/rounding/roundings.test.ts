import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { quantizeValue } from "../../../../src/core/quantize/params.ts";
import { adaRound } from "../../../../src/core/quantize/rounding/adaround.ts";
import { quantizeBlocks, type RoundedWeight } from "../../../../src/core/quantize/rounding/blocks.ts";
import { nearestRound } from "../../../../src/core/quantize/rounding/nearest.ts";
import {
  dequantized,
  type Moments,
  OutputJudge,
  paramsAt,
  type RowMatrix,
} from "../../../../src/core/quantize/rounding/rounding.ts";
import { driftStatistics } from "../../../../src/core/quantize/rounding/statistics.ts";
import { stochastic, stochasticRound } from "../../../../src/core/quantize/rounding/stochastic.ts";
import { rangeOf, type WeightScheme } from "../../../../src/core/quantize/scheme.ts";
import { Random } from "../../../../src/core/random.ts";
import { GraphMaker } from "../../../support/graphs.ts";
import { openModel } from "../../../support/open-model.ts";

const [ROWS, DEPTH, SAMPLES] = [12, 48, 256];
const W4: WeightScheme = { bits: 4, signed: false, symmetric: false, granularity: { block: 16 } };
const W8: WeightScheme = { bits: 8, signed: true, symmetric: true, granularity: "channel" };
const all = Array.from({ length: ROWS }, (_, row) => row);

/** [samples, depth]: mixtures of a few causes, and the same with an error that has a mean, as what quantized layers give. */
function inputs(seed: number): { readonly x: Float32Array; readonly given: Float32Array } {
  const random = new Random(seed, "inputs");
  const mixture = new Float32Array(6 * DEPTH);
  new Random(1, "mixture").fillNormal(mixture);
  const x = new Float32Array(SAMPLES * DEPTH);
  const noise = new Float32Array(SAMPLES * DEPTH);
  const causes = new Float32Array(6);
  random.fillNormal(x);
  random.fillNormal(noise);
  for (let n = 0; n < SAMPLES; n++) {
    random.fillNormal(causes);
    for (let i = 0; i < DEPTH; i++) {
      const sum = causes.reduce((total, cause, c) => total + cause * mixture[c * DEPTH + i]!, 0);
      x[n * DEPTH + i] = 1 + sum + 0.3 * x[n * DEPTH + i]!;
    }
  }
  return { x, given: x.map((value, i) => value + 0.1 * noise[i]! + 0.05) };
}

function weight(): RowMatrix {
  const values = new Float32Array(ROWS * DEPTH);
  new Random(3, "weights").fillNormal(values);
  return { values, rows: ROWS, depth: DEPTH, name: "w" };
}

/** Σ |Ŵ·x̂ − W·x|², sample by sample in float64. */
function sampleError(w: Float32Array, restored: Float32Array, x: Float32Array, given: Float32Array): number {
  let sum = 0;
  for (let n = 0; n < SAMPLES; n++) {
    for (const row of all) {
      let difference = 0;
      for (let i = 0; i < DEPTH; i++) {
        difference += restored[row * DEPTH + i]! * given[n * DEPTH + i]! - w[row * DEPTH + i]! * x[n * DEPTH + i]!;
      }
      sum += difference ** 2;
    }
  }
  return sum;
}

/** The statistics of one batch, as onnxruntime sums them. */
async function momentsOf({ x, given }: ReturnType<typeof inputs>): Promise<Moments> {
  const make = new GraphMaker();
  const node = make.node("MatMul", [make.input("x", ["n", DEPTH]), make.weight("w", [DEPTH, ROWS], 1)], {}, 1);
  const batch = (values: Float32Array): Tensor[] => [tensorOf("float32", [SAMPLES, DEPTH], Float32Array.from(values))];
  const site = { depth: DEPTH, filters: undefined };
  const statistics = await driftStatistics(node, site, batch(x), batch(given), { openModel });
  assert.equal(statistics.fit, statistics.heldOut);
  return statistics.fit;
}

const decibels = (ratio: number) => 10 * Math.log10(ratio);

describe("the error of a layer's output", () => {
  test("is the same by sums over products as sample by sample, for inputs of the float and of the quantized model", async () => {
    const data = inputs(2);
    const [w, moments] = [weight(), await momentsOf(data)];
    for (const scheme of [W4, W8]) {
      const restored = dequantized(w, nearestRound(w, scheme), scheme);
      const expected = sampleError(w.values, restored, data.x, data.given);
      const actual = new OutputJudge(w, moments, all).error(restored);
      assert.ok(Math.abs(actual / expected - 1) < 1e-4, `${actual}, not ${expected}`);
      const same = sampleError(w.values, restored, data.given, data.given);
      const symmetric = new OutputJudge(w, { gram: moments.gram }, all).error(restored);
      assert.ok(Math.abs(symmetric / same - 1) < 1e-4, `${symmetric}, not ${same}`);
    }
  });
});

test("rounding to nearest has a scale for each block, each row, or all", () => {
  const w = weight();
  const matrix = { ...w, batches: 1, layout: "row-major" as const };
  for (const granularity of [{ block: 16 }, "channel", "tensor"] as const) {
    const scheme = { ...W8, granularity };
    const { scales, q } = nearestRound(w, scheme);
    const expected = quantizeBlocks(matrix, scheme, { layout: "row-major" });
    assert.deepEqual([[...scales], q], [[...expected.scales], expected.q]);
    const count = { channel: ROWS, tensor: 1, block: (ROWS * DEPTH) / 16 };
    assert.equal(new Set(scales).size, typeof granularity === "string" ? count[granularity] : count.block);
  }
});

describe("AdaRound", () => {
  const round = async (moments: Moments, scheme = W4, w = weight()) =>
    (await adaRound(w, scheme, moments, { openModel, iterations: 400 }))!;

  test("is at least 4 dB better than rounding to nearest, on other samples, and moves no weight by a whole step", async () => {
    const w = weight();
    const [moments, other] = [await momentsOf(inputs(2)), inputs(5)];
    for (const scheme of [W4, { ...W4, signed: true, symmetric: true }, { ...W4, bits: 2 as const }]) {
      const rounded = await round(moments, scheme);
      const errorOf = (candidate: RoundedWeight) =>
        sampleError(w.values, dequantized(w, candidate, scheme), other.x, other.given);
      const gain = decibels(errorOf(nearestRound(w, scheme)) / errorOf(rounded));
      assert.ok(gain > 4, `${JSON.stringify(scheme)}: ${gain.toFixed(2)} dB`);
      const restored = dequantized(w, rounded, scheme);
      const { min, max } = rangeOf(scheme);
      const q = scheme.signed ? new Int8Array(rounded.q.buffer) : rounded.q;
      for (let i = 0; i < restored.length; i++) {
        const { scale } = paramsAt(rounded, Math.floor(i / 16), scheme);
        const isAtEnd = q[i] === min || q[i] === max;
        const steps = Math.abs((restored[i]! - w.values[i]!) / scale);
        assert.ok(steps < 1 + 1e-4 || isAtEnd, `${i}: ${steps} steps`);
      }
    }
  });

  test("makes up for what the layers before have done", async () => {
    const [w, data] = [weight(), inputs(2)];
    const moments = await momentsOf(data);
    const errorOf = (rounded: RoundedWeight) => sampleError(w.values, dequantized(w, rounded, W4), data.x, data.given);
    const gain = decibels(errorOf(await round({ gram: moments.gram })) / errorOf(await round(moments)));
    assert.ok(gain > 0.3, `${gain.toFixed(2)} dB`);
  });

  test("the same statistics give the same values, and those that are not finite none", async () => {
    const moments = await momentsOf(inputs(2));
    assert.deepEqual(await round(moments), await round(moments));
    assert.equal(await adaRound(weight(), W4, { gram: new Float32Array(DEPTH ** 2) }, { openModel }), undefined);
    for (const wrong of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const gram = new Float32Array(DEPTH ** 2).fill(wrong);
      assert.equal(await adaRound(weight(), W4, { gram }, { openModel }), undefined);
    }
  });

  test("is the paper's definition, one weight at a time in double precision", async () => {
    const [w, moments] = [weight(), await momentsOf(inputs(2))];
    for (const scheme of [W4, { ...W4, signed: true, symmetric: true, bits: 2 as const }]) {
      // More than one run of the runtime's loop has.
      const { q } = (await adaRound(w, scheme, moments, { openModel, iterations: 130 }))!;
      const expected = adaRoundIn64(w, scheme, moments, 130);
      const codes = scheme.signed ? new Int8Array(q.buffer) : q;
      for (const [i, { code, v }] of expected.entries()) {
        if (Math.abs(v) > 1e-3) assert.equal(codes[i], code, `weight ${i}, V = ${v}`);
      }
    }
  });
});

/** Codes, and the V that they follow from, after the formulas of arXiv 2004.10568 with Adam's of Kingma and Ba. */
function adaRoundIn64(w: RowMatrix, scheme: WeightScheme, { gram, drift }: Moments, iterations: number) {
  const { min, max } = rangeOf(scheme);
  const grid = nearestRound(w, scheme);
  const params = Array.from(w.values, (_, i) => paramsAt(grid, Math.floor(i / 16), scheme));
  const unit =
    params.reduce((sum, { scale }, i) => sum + scale ** 2 * gram[(i % DEPTH) * (DEPTH + 1)]!, 0) / w.values.length;
  const floors = Array.from(w.values, (x, i) => Math.floor(x / params[i]!.scale));
  const learned = Array.from(w.values, (x, i) => {
    const share = (x / params[i]!.scale - floors[i]! + 0.1) / 1.2;
    return { v: Math.log(share / (1 - share)), first: 0, second: 0 };
  });
  const stretched = (v: number) => 1.2 / (1 + Math.exp(-v)) - 0.1;
  const clip = (x: number, low: number, high: number) => Math.min(Math.max(x, low), high);
  const clipped = (i: number, share: number) =>
    clip(floors[i]! + share, min - params[i]!.zeroPoint, max - params[i]!.zeroPoint);
  for (let t = 0; t < iterations; t++) {
    const warm = Math.round(0.2 * iterations);
    const beta = 2 + 9 * (1 + Math.cos((Math.PI * Math.max(0, t - warm)) / (iterations - 1 - warm)));
    const shares = learned.map(({ v }) => clip(stretched(v), 0, 1));
    const errors = shares.map((share, i) => clipped(i, share) * params[i]!.scale - w.values[i]!);
    for (const [i, state] of learned.entries()) {
      const [row, column, h] = [i - (i % DEPTH), i % DEPTH, shares[i]!];
      let slope = 0;
      for (let j = 0; j < DEPTH; j++) {
        slope += errors[row + j]! * gram[j * DEPTH + column]!;
        slope += w.values[row + j]! * (drift?.cross[column * DEPTH + j] ?? 0);
      }
      const ofLoss = clipped(i, h) === floors[i]! + h ? (2 * slope * params[i]!.scale) / unit : 0;
      const side = 2 * h - 1;
      const ofPenalty = t < warm ? 0 : -2 * beta * Math.abs(side) ** (beta - 1) * Math.sign(side);
      const sigmoid = 1 / (1 + Math.exp(-state.v));
      const ofV = h > 0 && h < 1 ? 1.2 * sigmoid * (1 - sigmoid) : 0;
      const gradient = (ofLoss + ofPenalty) * ofV;
      state.first += 0.1 * (gradient - state.first);
      state.second += 0.001 * (gradient ** 2 - state.second);
      const [mean, square] = [state.first / (1 - 0.9 ** (t + 1)), state.second / (1 - 0.999 ** (t + 1))];
      state.v -= (0.03 * mean) / (Math.sqrt(square) + 1e-8);
    }
  }
  return learned.map(({ v }, i) => ({ v, code: clipped(i, v >= 0 ? 1 : 0) + params[i]!.zeroPoint }));
}

describe("stochastic rounding", () => {
  test("is right on average, at twice the squared error of rounding to nearest", () => {
    const w = weight();
    const draws = 600;
    const mean = new Float64Array(w.values.length);
    let squared = 0;
    for (let i = 0; i < draws; i++) {
      dequantized(w, stochasticRound(w, W8, 7, i), W8).forEach((value, at) => {
        mean[at] = mean[at]! + value / draws;
        squared += (value - w.values[at]!) ** 2 / draws;
      });
    }
    const { scales } = nearestRound(w, W8);
    mean.forEach((value, at) => {
      // A draw has a variance of at most s²/4; six standard deviations.
      const limit = (6 * 0.5 * scales[Math.floor(at / DEPTH)]!) / Math.sqrt(draws);
      assert.ok(Math.abs(value - w.values[at]!) < limit, `${at}`);
    });
    const nearest = dequantized(w, nearestRound(w, W8), W8).reduce((sum, v, i) => sum + (v - w.values[i]!) ** 2, 0);
    // Twice holds for values that are spread evenly between codes; these are few, and lie as they do.
    assert.ok(Math.abs(squared / nearest - 2) < 0.2, `${squared / nearest} times`);
  });

  test("depends on seed, name and candidate, and on nothing else", () => {
    const w = weight();
    const q = (of: RowMatrix, seed: number, candidate: number) => stochasticRound(of, W4, seed, candidate).q;
    assert.deepEqual(q(w, 1, 0), q({ ...w, values: w.values.slice() }, 1, 0));
    for (const other of [q(w, 2, 0), q(w, 1, 1), q({ ...w, name: "v" }, 1, 0)]) {
      assert.notDeepEqual(other, q(w, 1, 0));
    }
  });

  test("keeps the draw with the least error on held-out samples, not on those it could fit", async () => {
    const [w, fit, heldOut] = [weight(), await momentsOf(inputs(2)), await momentsOf(inputs(5))];
    const best = (await stochastic({ seed: 1, candidates: 9 }).round(w, W4, { fit, heldOut }))!;
    const errors = Array.from({ length: 9 }, (_, i) => {
      return new OutputJudge(w, heldOut, all).error(dequantized(w, stochasticRound(w, W4, 1, i), W4));
    });
    assert.equal(new OutputJudge(w, heldOut, all).error(dequantized(w, best, W4)), Math.min(...errors));
    assert.ok(new Set(errors).size > 1);
  });
});

describe("the kernels with scales and zero points that are given", () => {
  test("do what the scalar definition says", () => {
    const sizes = fc.record({ rows: fc.integer({ min: 1, max: 40 }), depth: fc.integer({ min: 1, max: 90 }) });
    const layouts = fc.constantFrom("row-major" as const, "column-major" as const);
    fc.assert(
      fc.property(sizes, layouts, layouts, fc.boolean(), fc.nat(), ({ rows, depth }, from, to, signed, seed) => {
        const random = new Random(seed, "kernels");
        const values = new Float32Array(rows * depth);
        random.fillNormal(values);
        const scheme: WeightScheme = { bits: 8, signed, symmetric: false, granularity: "channel" };
        const scales = Float32Array.from({ length: rows }, () => 0.001 + 0.05 * random.uniform());
        const zeroPoints = Uint8Array.from({ length: rows }, () => random.integer(256));
        const matrix = { values, batches: 1, rows, depth, layout: from };
        const made = quantizeBlocks(matrix, scheme, { layout: to }, { grid: { scales, zeroPoints } });
        const q = signed ? new Int8Array(made.q.buffer) : made.q;
        for (let row = 0; row < rows; row++) {
          for (let i = 0; i < depth; i++) {
            const x = values[from === "row-major" ? row * depth + i : i * rows + row]!;
            const expected = quantizeValue(x, paramsAt({ scales, zeroPoints }, row, scheme), rangeOf(scheme));
            assert.equal(q[to === "row-major" ? row * depth + i : i * rows + row], expected);
          }
        }
        assert.deepEqual([made.scales, made.zeroPoints], [scales, zeroPoints]);
      }),
    );
  });
});
