import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Histogram } from "../../../../src/core/quantize/calibration/histogram.ts";
import {
  divergence,
  ErrorSums,
  entropyRange,
  mseRange,
  observedRange,
  percentileRange,
  type Range,
  trimmedRange,
} from "../../../../src/core/quantize/calibration/thresholds.ts";

const STEPS = 255;

function histogramOf(values: Float32Array): Histogram {
  const histogram = new Histogram();
  histogram.add(values);
  return histogram;
}

/** Standard normal numbers from a linear congruential generator; the same in every run. */
function normal(count: number, seed: number): Float32Array {
  let state = seed;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return Float32Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
}

function withOutlier(values: Float32Array, outlier: number): Float32Array {
  const result = values.slice();
  result[result.length >> 1] = outlier;
  return result;
}

/** x̂ − x for each value, in float64, on the affine grid over `range`. */
function errorsOf(values: Float32Array, range: Range, steps = STEPS): Float64Array {
  const step = (range.max - range.min) / steps;
  const zero = Math.round(-range.min / step);
  return Float64Array.from(values, (x) => {
    const code = Math.min(Math.max(Math.round(x / step) + zero, 0), steps);
    return (code - zero) * step - x;
  });
}

const meanSquare = (errors: Float64Array) => errors.reduce((sum, e) => sum + e * e, 0) / errors.length;
const meanAbsolute = (errors: Float64Array) => errors.reduce((sum, e) => sum + Math.abs(e), 0) / errors.length;

test("percentile agrees with the sorted data to within a bin", () => {
  const values = normal(20_000, 1);
  const sorted = [...values].sort((a, b) => a - b);
  const { width } = histogramOf(values).points();
  for (const percentile of [90, 99, 99.9]) {
    const range = percentileRange(histogramOf(values), percentile);
    const cut = Math.round((values.length * (100 - percentile)) / 200);
    // The quantile lies between the last value cut and the first one kept.
    assert.ok(
      range.min >= sorted[cut - 1]! - width && range.min <= sorted[cut]! + width,
      `${percentile}: ${range.min}`,
    );
    const high = sorted.length - 1 - cut;
    assert.ok(
      range.max >= sorted[high]! - width && range.max <= sorted[high + 1]! + width,
      `${percentile}: ${range.max}`,
    );
  }
  assert.deepEqual(percentileRange(histogramOf(values), 100), observedRange(histogramOf(values)));
});

test("percentile cuts one-sided data on its one side only, and counts the zeros", () => {
  const values = normal(20_000, 2).map((x) => Math.max(0, x));
  const sorted = [...values].sort((a, b) => a - b);
  const histogram = histogramOf(values);
  const range = percentileRange(histogram, 99);
  assert.equal(range.min, 0);
  assert.ok(Math.abs(range.max - sorted[values.length - 1 - 200]!) <= histogram.points().width * 2);
});

test("MSE: the cost over bins is the cost over values up to the width of a bin", () => {
  const values = normal(50_000, 3);
  const sums = new ErrorSums(histogramOf(values));
  for (const range of [observedRange(histogramOf(values)), { min: -2, max: 2.5 }]) {
    const exact = meanSquare(errorsOf(values, range)) * values.length;
    const binned = sums.squaredError(range.min, range.max, STEPS);
    assert.ok(Math.abs(binned / exact - 1) < 0.01, `${binned} against ${exact}`);
  }
});

test("MSE: the cost from sums is the cost summed bin by bin, also as a function sees the values", () => {
  const histogram = histogramOf(withOutlier(normal(20_000, 5), 9));
  const { centres, counts } = histogram.points();
  const swish = (x: number) => x / (1 + Math.exp(-x));
  for (const [seenAs, round] of [
    [undefined, Math.round],
    [swish, Math.ceil],
  ] as const) {
    const sums = new ErrorSums(histogram, seenAs);
    const see = seenAs ?? ((x: number) => x);
    for (const { min, max } of [observedRange(histogram), { min: -2, max: 2.5 }, { min: 0, max: 0.3 }]) {
      const step = (max - min) / STEPS;
      const lowest = round(min / step);
      const expected = centres.reduce((sum, x, i) => {
        const code = Math.min(Math.max(Math.round(x / step), lowest), lowest + STEPS);
        return sum + counts[i]! * (see(x) - see(code * step)) ** 2;
      }, 0);
      const actual = sums.squaredError(min, max, STEPS);
      assert.ok(Math.abs(actual / expected - 1) < 1e-9, `${actual} against ${expected}`);
    }
  }
});

test("MSE finds the range that an exhaustive search over the values finds, to within 1 % of its error", () => {
  const values = normal(4_000, 4).map((x) => x * x * x);
  const observed = observedRange(histogramOf(values));
  const found = mseRange(histogramOf(values), STEPS);
  let least = Number.POSITIVE_INFINITY;
  for (let i = 1; i <= 40; i++) {
    for (let j = 1; j <= 40; j++) {
      const range = { min: (observed.min * i) / 40, max: (observed.max * j) / 40 };
      least = Math.min(least, meanSquare(errorsOf(values, range)));
    }
  }
  const reached = meanSquare(errorsOf(values, found));
  assert.ok(reached <= least * 1.01, `${reached} against ${least}`);
});

test("KL is that of a plain dense implementation, less the noise of the counts", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 60 }), { minLength: 20, maxLength: 120 }),
      fc.integer({ min: 3, max: 40 }),
      fc.double({ min: 0.2, max: 1, noNaN: true }),
      fc.double({ min: 0.2, max: 1, noNaN: true }),
      (histogram, steps, left, right) => {
        const half = histogram.length / 2;
        const centres = Float64Array.from(histogram, (_, i) => i + 0.5 - half);
        const counts = Float64Array.from(histogram);
        const filled = centres.filter((_, i) => counts[i]! > 0);
        const filledCounts = counts.filter((count) => count > 0);
        const [min, max] = [-half * left, half * right];
        const actual = divergence(filled, filledCounts, min, max, steps);
        const expected = denseDivergence(filled, filledCounts, min, max, steps);
        assert.ok(actual === expected || Math.abs(actual - expected) < 1e-9, `${actual}, not ${expected}`);
      },
    ),
  );
});

/** P and Q as explicit normalized arrays over the bins inside the range. */
function denseDivergence(centres: Float64Array, counts: Float64Array, min: number, max: number, steps: number) {
  const inside = [...centres.keys()].filter((i) => centres[i]! >= min && centres[i]! <= max);
  if (inside.length === 0) return Number.POSITIVE_INFINITY;
  const p = inside.map((i) => counts[i]!);
  const kept = p.reduce((a, b) => a + b, 0);
  const codes = inside.map((i) => Math.round(centres[i]! / ((max - min) / steps)));
  const q = inside.map((_, k) => {
    const same = codes.flatMap((code, other) => (code === codes[k] ? [counts[inside[other]!]!] : []));
    return same.reduce((a, b) => a + b, 0) / same.length / kept;
  });
  let noise = 0;
  for (const code of new Set(codes)) {
    const mine = p.filter((_, k) => codes[k] === code);
    const mass = mine.reduce((a, b) => a + b, 0);
    noise += ((mine.length - 1) / 2) * (1 - mine.length / mass);
  }
  centres.forEach((centre, i) => {
    if (centre < min) p[0]! += counts[i]!;
    if (centre > max) p[p.length - 1]! += counts[i]!;
  });
  const total = p.reduce((a, b) => a + b, 0);
  return p.reduce((sum, mass, k) => sum + (mass / total) * Math.log(mass / total / q[k]!), 0) - noise / total;
}

/** Few numbers, on both sides of zero or on one, with heavy tails or without. */
function smallData(seed: number): Float32Array {
  const values = normal(20 + ((seed * 37) % 400), seed + 1);
  const shaped = seed % 2 === 0 ? values : values.map((x) => x ** 3);
  return seed % 3 === 0 ? shaped.map(Math.abs) : shaped;
}

/** The least that any of 40 x 40 ranges inside the observed one costs. */
function leastOf({ min, max }: Range, cost: (range: Range) => number): number {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i <= 40; i++) {
    for (let j = 0; j <= 40; j++) {
      const range = { min: (min * i) / 40, max: (max * j) / 40 };
      if (range.max > range.min) least = Math.min(least, cost(range));
    }
  }
  return least;
}

test("16 codes for few numbers: MSE and entropy find what trying 1,600 ranges finds", () => {
  const steps = 15;
  const excess: number[] = [];
  for (let seed = 0; seed < 40; seed++) {
    const histogram = histogramOf(smallData(seed));
    const { centres, counts } = histogram.points();
    const observed = observedRange(histogram);
    const sums = new ErrorSums(histogram);
    const squares = ({ min, max }: Range) => sums.squaredError(min, max, steps);
    excess.push(squares(mseRange(histogram, steps)) / leastOf(observed, squares) - 1);

    const limit = 4 * sums.squaredError(observed.min, observed.max, steps);
    const kl = ({ min, max }: Range) =>
      sums.squaredError(min, max, steps) > limit
        ? Number.POSITIVE_INFINITY
        : divergence(centres, counts, min, max, steps);
    const found = kl(entropyRange(histogram, steps));
    const least = leastOf(observed, kl);
    assert.ok(found <= least + 0.03, `seed ${seed}: ${found} nats, and ${least} can be had`);
  }
  // One end after the other is searched for: of a bumpy function that may miss the very best pair.
  excess.sort((a, b) => b - a);
  assert.ok(excess[0]! < 0.2, `MSE costs ${excess[0]} more than the best range`);
  assert.ok(excess[20]! < 0.002, `in half of the cases at least ${excess[20]} more`);
});

test("entropy keeps clean data whole and cuts an outlier off, on one-sided data too", () => {
  const clean = normal(500_000, 5);
  const peak = clean.reduce((max, x) => Math.max(max, x), 0);
  const cleanRange = entropyRange(histogramOf(clean), STEPS);
  assert.ok(cleanRange.max > 0.97 * peak && cleanRange.max <= peak, `clean: ${cleanRange.max} of ${peak}`);
  for (const data of [clean, clean.map((x) => Math.max(0, x))]) {
    const range = entropyRange(histogramOf(withOutlier(data, 20)), STEPS);
    assert.ok(range.max > 5 && range.max < 6, `with an outlier of 20: ${range.max}`);
  }
});

test("with outliers, MSE beats minmax in the squared error, percentile and entropy halve the typical error", () => {
  const shapes = { normal: normal(500_000, 6), relu: normal(500_000, 7).map((x) => Math.max(0, x)) };
  for (const [shape, clean] of Object.entries(shapes)) {
    const values = withOutlier(clean, 20);
    const histogram = histogramOf(values);
    const before = errorsOf(values, observedRange(histogram));
    const found = {
      percentile: percentileRange(histogram, 99.999),
      entropy: entropyRange(histogram, STEPS),
      mse: mseRange(histogram, STEPS),
    };
    for (const [method, range] of Object.entries(found)) {
      const after = errorsOf(values, range);
      const label = `${method} on ${shape}`;
      if (method === "mse") assert.ok(meanSquare(after) < 0.95 * meanSquare(before), `${label}: squared error`);
      else assert.ok(meanAbsolute(after) < 0.5 * meanAbsolute(before), `${label}: typical error`);
    }
  }
});

test("entropy never costs more than a factor of four in squared error", () => {
  // A gate: nearly all values close to zero, the few large ones are what matters.
  const gate = normal(100_000, 8).map((x) => (x > 3 ? 0.9 : 1e-3 * Math.abs(x)));
  const histogram = histogramOf(gate);
  const before = meanSquare(errorsOf(gate, observedRange(histogram)));
  assert.ok(meanSquare(errorsOf(gate, entropyRange(histogram, STEPS))) <= 4.2 * before);
});

test("what a function makes constant needs no range", () => {
  const values = normal(50_000, 9).map((x) => 8 * x);
  const histogram = histogramOf(values);
  const swish = (x: number) => (x * Math.min(Math.max(x + 3, 0), 6)) / 6;
  const plain = mseRange(histogram, STEPS);
  const through = mseRange(histogram, STEPS, swish);
  assert.ok(plain.min < -20 && through.min > -3.2 && through.min < -3, `${through.min}`);
  const errorOf = (range: Range) =>
    errorsOf(values, range).reduce((sum, error, i) => sum + (swish(values[i]! + error) - swish(values[i]!)) ** 2, 0);
  assert.ok(errorOf(through) < 0.31 * errorOf(plain));
  const trimmed = trimmedRange({ min: -20, max: 20 }, swish, STEPS);
  assert.ok(trimmed.min < -3 && trimmed.min > -3.1 && trimmed.max === 20, `${trimmed.min}`);
});

test("all methods contain zero, stay inside what was observed, and answer constant data as it is", () => {
  const methods = [
    (h: Histogram) => percentileRange(h, 99.9),
    (h: Histogram) => entropyRange(h, STEPS),
    (h: Histogram) => mseRange(h, STEPS),
  ];
  const finite = fc.float({ noNaN: true, min: -1e6, max: 1e6 });
  fc.assert(
    fc.property(fc.array(finite, { minLength: 1, maxLength: 60 }), (values) => {
      const histogram = histogramOf(Float32Array.from(values));
      const observed = observedRange(histogram);
      for (const method of methods) {
        const { min, max } = method(histogram);
        assert.ok(min <= 0 && max >= 0 && min >= observed.min && max <= observed.max, `[${min}, ${max}]`);
      }
    }),
    { numRuns: 50 },
  );
  for (const method of methods) {
    assert.deepEqual(method(histogramOf(new Float32Array(8))), { min: 0, max: 0 });
    assert.equal(method(histogramOf(new Float32Array(8).fill(3))).max, 3);
  }
});
