import assert from "node:assert/strict";
import { test } from "node:test";
import { costWarnings, simulationWarnings } from "../../../src/core/evaluate/warnings.ts";
import { metricsFixture } from "../../support/metrics.ts";

const { latency } = metricsFixture();
const sizeOf = (ratio: number, before_bytes = 100_000) => ({ before_bytes, after_bytes: ratio * before_bytes, ratio });
const rounds = (slower: number, of = 50) => ({
  before: new Array<number>(of).fill(10),
  after: Array.from({ length: of }, (_, i) => (i < slower ? 12 : 9)),
});

function codes(speedup: number, ratio: number, slowerRounds: number): string[] {
  const measured = { size: sizeOf(ratio), latency: { ...latency, speedup }, outputs: [] };
  return costWarnings(measured, rounds(slowerRounds)).map(({ code }) => code);
}

test("a result that is slower, or larger, is said to be", () => {
  const measured = { size: sizeOf(1.25), latency: { ...latency, speedup: 0.8 }, outputs: [] };
  assert.deepEqual(costWarnings(measured, rounds(50)), [
    {
      code: "slower_than_original",
      message: "It takes 1.25 times the time of the original here, and was slower in 50 of 50 rounds.",
      value: 0.8,
    },
    { code: "larger_than_original", message: "Its files are 1.25 times as large as the original's.", value: 1.25 },
  ]);
});

test("a faster, smaller one gets no warning, nor does one that only chance has made slower", () => {
  assert.deepEqual(codes(2, 0.25, 0), []);
  // A line about where it comes from.
  assert.deepEqual(codes(2, 1.005, 0), []);
  assert.deepEqual(codes(0.99, 1, 30), []);
  assert.deepEqual(codes(0.99, 1, 34), ["slower_than_original"]);
  // Medians and rounds must agree.
  assert.deepEqual(codes(1.01, 1, 40), []);
});

test("a model that scores otherwise than what was trained is told of, from 0.2 points and three samples on", () => {
  const training = (samples: number) => ({ metric: "top1", metric_samples: samples, student_metric: 0.9 });
  const accuracy = (after: number, samples: number) => ({
    ...({ metric: "top1", before: 0.9, after, drop: 0.9 - after, samples } as const),
    ...{ interval: null, before_interval: null, after_interval: null },
  });
  const told = (after: number, samples: number, own = samples) =>
    simulationWarnings(training(own), accuracy(after, samples)).map(({ code, value }) => [code, value.toFixed(4)]);
  assert.deepEqual(told(0.898, 10_000), []);
  assert.deepEqual(told(0.8979, 10_000), [["differs_from_simulation", "-0.0021"]]);
  assert.deepEqual(told(0.9021, 10_000), [["differs_from_simulation", "0.0021"]]);
  assert.deepEqual(told(0.88, 100), [], "two samples");
  assert.deepEqual(told(0.87, 100), [["differs_from_simulation", "-0.0300"]]);
  assert.deepEqual(told(0.87, 100, 200), [], "of other samples");
  assert.deepEqual(simulationWarnings(training(100), { ...accuracy(0.5, 100), metric: "mse" }), []);
  assert.deepEqual(
    simulationWarnings({ ...training(100), metric: "mse" }, { ...accuracy(0.5, 100), metric: "mse" }),
    [],
  );
  assert.deepEqual(simulationWarnings(training(100), null), []);
});
