import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { FidelityMeter } from "../../../src/core/evaluate/fidelity.ts";
import type { OutputFacts, OutputFidelity } from "../../../src/core/facts.ts";
import { bootstrap, wilson } from "../../../src/core/intervals.ts";
import { type ArrayDType, floatsOf, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";

const floats = (dims: number[], values: readonly number[]) => tensorOf("float32", dims, values);

interface Compared {
  readonly name?: string;
  readonly isOnlyOutput?: boolean;
  readonly meaning?: OutputFacts["meaning"];
}

const SHARES = { kind: "shares", class_axis: null, evident: true } as const;

function compare(
  pairs: readonly (readonly [Tensor, Tensor])[],
  { name = "y", isOnlyOutput = false, meaning }: Compared = {},
): OutputFidelity {
  const facts = { name, dtype: "float32" as const, shape: null, ...(meaning && { meaning }) };
  const meter = new FidelityMeter(facts, isOnlyOutput);
  for (const [reference, candidate] of pairs) meter.add(reference, candidate);
  return meter.result();
}

function assertClose(actual: number, expected: number, tolerance: number): void {
  assert.ok(Math.abs(actual - expected) <= tolerance * Math.max(1, Math.abs(expected)), `${actual} is not ${expected}`);
}

describe("FidelityMeter", () => {
  it("agrees with the formulas, over all runs together", () => {
    const value = fc.float({ min: -1000, max: 1000, noNaN: true });
    const run = fc.array(fc.tuple(value, value), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(fc.array(run, { minLength: 1, maxLength: 4 }), (runs) => {
        const all = runs.flat().map(([x, y]) => [Math.fround(x), Math.fround(y)] as const);
        const sum = (term: (x: number, y: number) => number) => all.reduce((total, [x, y]) => total + term(x, y), 0);
        const signal = sum((x) => x * x);
        const noise = sum((x, y) => (x - y) ** 2);
        fc.pre(signal > 1e-6 && noise > 1e-6 && sum((_, y) => y * y) > 1e-6);
        const result = compare(
          runs.map((pairs) => [
            floats(
              [pairs.length],
              pairs.map(([x]) => x),
            ),
            floats(
              [pairs.length],
              pairs.map(([, y]) => y),
            ),
          ]),
        );
        assertClose(result.sqnr_db!, 10 * Math.log10(signal / noise), 1e-12);
        assertClose(result.cosine, sum((x, y) => x * y) / Math.sqrt(signal * sum((_, y) => y * y)), 1e-12);
        assertClose(result.mean_abs_error, sum((x, y) => Math.abs(x - y)) / all.length, 1e-12);
        assert.equal(result.min_value! + 0, Math.min(...all.map(([x]) => x)) + 0);
        assert.equal(result.max_value! + 0, Math.max(...all.map(([x]) => x)) + 0);
        assert.equal(result.max_abs_error, Math.max(...all.map(([x, y]) => Math.abs(x - y))));
      }),
    );
  });

  it("adds up in float64: a million small errors beside large values are not lost", () => {
    const count = 1_000_000;
    const x = tensorOf("float32", [count], new Float32Array(count).fill(1000));
    const y = tensorOf("float32", [count], new Float32Array(count).fill(Math.fround(1000.001)));
    const result = compare([[x, y]]);
    const error = Math.fround(1000.001) - 1000;
    assertClose(result.mean_abs_error, error, 1e-9);
    assertClose(result.sqnr_db!, 20 * Math.log10(1000 / error), 1e-9);
  });

  it("reports identical outputs as such", () => {
    const x = floats([2, 2], [1, -2, 3, 0]);
    assert.deepEqual(compare([[x, x]]), {
      name: "y",
      sqnr_db: null,
      cosine: 1,
      min_value: -2,
      max_value: 3,
      max_abs_error: 0,
      mean_abs_error: 0,
      top1_agreement: null,
      sqnr_interval_db: null,
      top1_agreement_interval: null,
      non_finite: 0,
      shape_mismatches: 0,
    });
    assert.equal(compare([[floats([2], [0, 0]), floats([2], [0, 0])]]).cosine, 1);
    assert.equal(compare([[floats([0], []), floats([0], [])]]).sqnr_db, null);
  });

  it("keeps numbers finite when the original is all zeros", () => {
    const result = compare([[floats([2], [0, 0]), floats([2], [1, 1])]]);
    assert.equal(result.sqnr_db, -200);
    assert.equal(result.cosine, 0);
  });

  it("compares every dtype by value", () => {
    for (const dtype of ["float64", "float16", "int8", "uint8", "int32", "int64", "uint64"] as ArrayDType[]) {
      const result = compare([[tensorOf(dtype, [2], [3, 4]), tensorOf(dtype, [2], [3, 2])]]);
      assertClose(result.sqnr_db!, 10 * Math.log10(25 / 4), 1e-12);
      assert.equal(result.max_abs_error, 2);
    }
    // A float16 model's output may be compared with a float32 one.
    assert.equal(compare([[floats([1], [0.5]), tensorOf("float16", [1], [0.5])]]).sqnr_db, null);
  });

  it("counts NaN and infinity where only one model has them", () => {
    const same = compare([[floats([3], [NaN, -Infinity, 1]), floats([3], [NaN, -Infinity, 1])]]);
    assert.equal(same.sqnr_db, null);
    assert.equal(same.non_finite, 0);
    assert.deepEqual([same.min_value, same.max_value], [1, 1]);
    const nothing = compare([[floats([2], [NaN, Infinity]), floats([2], [NaN, Infinity])]]);
    assert.deepEqual([nothing.sqnr_db, nothing.min_value, nothing.max_value], [null, null, null]);
    const broken = compare([[floats([4], [3, 4, Infinity, NaN]), floats([4], [NaN, 4, 1, Infinity])]]);
    assert.equal(broken.non_finite, 3);
    // As if the compressed model had said 0 where it said NaN: 25 of signal, 9 of noise.
    assertClose(broken.sqnr_db!, 10 * Math.log10(25 / 9), 1e-12);
    assert.equal(broken.max_abs_error, 3);
    const lost = compare([[floats([1], [NaN]), floats([1], [1])]]);
    assert.equal(lost.sqnr_db, -200);
    assert.equal(lost.cosine, 0);
  });

  it("does not compare outputs of different shapes, and says so", () => {
    const result = compare([
      [floats([2], [1, 2]), floats([3], [1, 2, 3])],
      [floats([2], [1, 2]), floats([2], [1, 2])],
    ]);
    assert.equal(result.shape_mismatches, 1);
    assert.equal(result.sqnr_db, null);
    const never = compare([[floats([2], [1, 2]), floats([3], [1, 2, 3])]]);
    assert.equal(never.sqnr_db, -200);
    assert.equal(never.cosine, 0);
  });
});

describe("top1_agreement of shares", () => {
  const agreement = (dims: number[], x: number[], y: number[]) =>
    compare([[floats(dims, x), floats(dims, y)]], { isOnlyOutput: true, meaning: SHARES }).top1_agreement;

  it("is of labels that either model says yes to, whatever the largest is", () => {
    // Yes in both, in one, in the other, in none; 0.5 is no.
    assert.equal(
      agreement([2, 4], [0.9, 0.8, 0.4, 0.1, 0.5, 0.2, 0.7, 0], [0.6, 0.3, 0.6, 0.2, 0.5, 0, 0.99, 0.1]),
      0.5,
    );
    assert.equal(agreement([3, 1], [0.9, 0.1, 0.8], [0.9, 0.2, 0.4]), 0.5);
    assert.equal(agreement([2], [0.9, 0.8], [0.6, 0.7]), 1);
  });

  it("is not told where nothing is yes, nor of maps", () => {
    assert.equal(agreement([2, 2], [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]), null);
    assert.equal(agreement([1, 1, 2, 2], [0.9, 0.2, 0.3, 0.4], [0.9, 0.3, 0.2, 0.1]), null);
  });

  it("has an interval over runs, some of which have no yes", () => {
    const runs = Array.from({ length: 12 }, (_, i) => {
      const share = i % 3 === 0 ? 0.1 : 0.9;
      return [floats([1, 1], [share]), floats([1, 1], [i === 1 ? 0.2 : share])] as const;
    });
    const { top1_agreement, top1_agreement_interval } = compare(runs, { meaning: SHARES });
    assert.equal(top1_agreement, 7 / 8);
    const [low, high] = top1_agreement_interval!;
    assert.ok(low >= 0.4 && low < 7 / 8 && high === 1, `${low} to ${high}`);
  });
});

describe("top1_agreement by what the graph says", () => {
  const scores = (class_axis: number | null) => ({ kind: "class_scores", class_axis, evident: false }) as const;
  const agreement = (dims: number[], x: number[], y: number[], meaning: OutputFacts["meaning"]) =>
    compare([[floats(dims, x), floats(dims, y)]], { isOnlyOutput: true, meaning }).top1_agreement;

  it("is along the channels of a segmenter's logits, and not along its columns", () => {
    // Two classes of 1 x 2 pixels: the first pixel's class changes, and in no row along the columns the largest.
    const [x, y] = [
      [5, 1, 3, 0],
      [2, 1, 3, 0],
    ];
    assert.equal(agreement([1, 2, 1, 2], x!, y!, scores(1)), 0.5);
    assert.equal(agreement([1, 2, 1, 1], [5, 1], [1, 5], scores(null)), 0, "the last axis that is not of one");
  });

  it("is not told of embeddings, though they are a matrix and all that the model gives", () => {
    const [x, y] = [
      [1, 2, 3],
      [3, 2, 1],
    ];
    assert.equal(agreement([1, 3], x!, y!, { kind: "numbers", class_axis: null, evident: false }), null);
    assert.equal(agreement([1, 3], x!, y!, undefined), 0);
  });
});

describe("top1_agreement", () => {
  const agreement = (dims: number[], x: number[], y: number[], options = {}) =>
    compare([[floats(dims, x), floats(dims, y)]], options).top1_agreement;

  it("is taken along the last axis of probabilities and log-probabilities", () => {
    assert.equal(agreement([1, 2, 2], [0.9, 0.1, 0.4, 0.6], [0.6, 0.4, 0.7, 0.3]), 0.5);
    const logs = [0.9, 0.1, 0.4, 0.6].map(Math.log);
    assert.equal(agreement([1, 2, 2], logs, logs), 1);
    // Two classes of three pixels: the answers are 0, 1, 0 and 1, 1, 0.
    const [pixels, others] = [
      [0.9, 0.3, 0.8, 0.1, 0.7, 0.2],
      [0.4, 0.3, 0.8, 0.6, 0.7, 0.2],
    ];
    assert.equal(agreement([1, 2, 3], pixels, others), 2 / 3, "along the channels");
    assert.equal(agreement([1, 2, 3, 1], pixels, others), 2 / 3);
  });

  it("is taken of outputs named like scores, and of a lone matrix", () => {
    assert.equal(agreement([1, 1, 3], [1, 5, 2], [1, 2, 5], { name: "logits" }), 0);
    assert.equal(agreement([2, 2], [3, 1, 0, 4], [3, 1, 4, 0], { isOnlyOutput: true }), 0.5);
  });

  it("is null for states, maps and single values", () => {
    assert.equal(agreement([2, 1, 3], [1, 5, 2, 1, 5, 2], [1, 5, 2, 1, 5, 2]), null);
    assert.equal(agreement([2, 2], [3, 1, 0, 4], [3, 1, 0, 4]), null);
    assert.equal(agreement([2, 1, 3], [1, 5, 2, 1, 5, 2], [1, 5, 2, 1, 5, 2], { isOnlyOutput: true }), null);
    assert.equal(agreement([2, 1], [1, 1], [1, 1], { isOnlyOutput: true }), null);
    assert.equal(agreement([3], [1, 5, 2], [1, 5, 2], { isOnlyOutput: true }), null);
  });

  it("is the share of equal elements for integers", () => {
    const ids = (values: number[]) => tensorOf("int64", [4], values);
    assert.equal(compare([[ids([1, 2, 3, 4]), ids([1, 2, 9, 4])]]).top1_agreement, 0.75);
  });
});

describe("intervals", () => {
  /** Three runs of so many positions, of which so many agree; scores of two classes. */
  const RUNS = [
    { positions: 4, agreeing: 4 },
    { positions: 6, agreeing: 3 },
    { positions: 5, agreeing: 4 },
  ];
  const scores = (positions: number, agreeing: number) =>
    Array.from({ length: positions }, (_, i) => (i < agreeing ? [1, 0] : [0, 1])).flat();

  it("of the agreement is Wilson's where each sample has one answer", () => {
    const pairs = RUNS.map(({ positions, agreeing }) => {
      const dims = [positions, 2];
      return [floats(dims, scores(positions, positions)), floats(dims, scores(positions, agreeing))] as const;
    });
    const result = compare(pairs, { name: "logits" });
    assert.equal(result.top1_agreement, 11 / 15);
    assert.deepEqual(result.top1_agreement_interval, wilson(11, 15));
  });

  it("of the agreement is drawn from whole runs where a sample has many answers", () => {
    const pairs = RUNS.map(({ positions, agreeing }) => {
      const dims = [1, positions, 2];
      return [floats(dims, scores(positions, positions)), floats(dims, scores(positions, agreeing))] as const;
    });
    const result = compare(pairs, { name: "logits" });
    const total = (weights: ArrayLike<number>, of: (run: (typeof RUNS)[number]) => number) =>
      RUNS.reduce((sum, run, i) => sum + weights[i]! * of(run), 0);
    assert.deepEqual(
      result.top1_agreement_interval,
      bootstrap(3, (weights) => total(weights, (run) => run.agreeing) / total(weights, (run) => run.positions)),
    );
    const [low, high] = result.top1_agreement_interval!;
    assert.ok(low >= 0.5 && low < 11 / 15 && high > 11 / 15 && high <= 1, `${low} ${high}`);
  });

  it("of the error is drawn from whole runs, and is not given for one run", () => {
    const pairs = [0.1, 0.2, 0.4].map((error) => [floats([2], [3, 4]), floats([2], [3 + error, 4])] as const);
    const result = compare(pairs);
    const errors = pairs.map(([, y]) => (floatsOf(y)[0]! - 3) ** 2);
    const noiseOf = (weights: ArrayLike<number>) => errors.reduce((sum, error, i) => sum + weights[i]! * error, 0);
    const expected = bootstrap(3, (weights) => 10 * Math.log10((25 * 3) / noiseOf(weights)))!;
    result.sqnr_interval_db!.forEach((end, i) => {
      assertClose(end, expected[i]!, 1e-9);
    });
    assert.equal(compare(pairs.slice(0, 1)).sqnr_interval_db, null);
  });
});
