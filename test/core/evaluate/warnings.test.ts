import assert from "node:assert/strict";
import { test } from "node:test";
import { LOW_SQNR_DB } from "../../../src/core/codes.ts";
import {
  calibrationWarnings,
  comparisonWarnings,
  costWarnings,
  fidelityWarnings,
  simulationWarnings,
  unusedWarnings,
} from "../../../src/core/evaluate/warnings.ts";
import type { JobMetrics, OutputFidelity, ValueFacts } from "../../../src/core/facts.ts";
import { layerErrorFixture, metricsFixture } from "../../support/metrics.ts";

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
  // A round that takes as long is not lost.
  const even = { before: [10, 10, 10], after: [10, 10, 10] };
  assert.deepEqual(costWarnings({ size: sizeOf(1), latency: { ...latency, speedup: 0.99 } }, even), []);
  const larger = (bytes: number) => ({ before_bytes: 1000, after_bytes: 1000 + bytes, ratio: 1 + bytes / 1000 });
  const told = (bytes: number) => costWarnings({ size: larger(bytes), latency: { ...latency, speedup: 2 } }, even);
  assert.deepEqual([told(512).length, told(513).length], [0, 1]);
});

const float: ValueFacts = { name: "y", dtype: "float32", shape: [1] };
const compared = (change: Partial<OutputFidelity> = {}): OutputFidelity => ({
  ...{ name: "y", sqnr_db: 40, cosine: 1, min_value: 0, max_value: 1, max_abs_error: 0 },
  ...{ mean_abs_error: 0, top1_agreement: 1 },
  ...{ sqnr_interval_db: null, top1_agreement_interval: null, non_finite: 0, shape_mismatches: 0 },
  ...change,
});
const onData = (samples: number, data: JobMetrics["fidelity"]["data"] = "evaluation") => ({ samples, data });

test("fewer than 30 samples are few, of data that somebody gave; from fewer than 16 nothing is calibrated without a word", () => {
  const told = (samples: number, data?: JobMetrics["fidelity"]["data"]) =>
    comparisonWarnings([float], { outputs: [compared()], accuracy: null }, onData(samples, data)).map(
      ({ code, value }) => [code, value],
    );
  assert.deepEqual([told(30), told(29)], [[], [["few_samples", 29]]]);
  assert.deepEqual([told(29, "synthetic"), told(29, "calibration")], [[], [["few_samples", 29]]]);
  assert.deepEqual(
    [undefined, 16, 15].map((count) => calibrationWarnings(count).map(({ code, value }) => [code, value])),
    [[], [], [["few_samples", 15]]],
  );
});

test("outputs that were not compared are named with their types, and where nothing is left it is said", () => {
  const ids: ValueFacts = { name: "words", dtype: "string", shape: [1] };
  const list: ValueFacts = { name: "boxes", dtype: null, shape: null };
  const told = (outputs: readonly OutputFidelity[]) =>
    comparisonWarnings([float, ids, list], { outputs, accuracy: null }, onData(100));
  const [warning] = told([compared()]);
  assert.match(warning!.message, /^2 of 3 outputs .*: "words" \(string\), "boxes" \(no tensor\)\.$/);
  assert.equal(warning!.value, 2);
  assert.match(told([])[0]!.message, /Nothing else is left to compare/);
  const [shapes] = comparisonWarnings(
    [float],
    { outputs: [compared({ shape_mismatches: 3 })], accuracy: null },
    onData(100),
  );
  assert.deepEqual([shapes!.code, shapes!.value], ["shapes_differ", 3]);
});

test("a change of the metric may be chance where its interval reaches zero", () => {
  const told = (drop: number, interval: readonly [number, number] | null) => {
    const accuracy = { metric: "top1", before: 0.9, after: 0.9 - drop, drop, samples: 100, interval } as const;
    const intervals = { before_interval: null, after_interval: null };
    return comparisonWarnings(
      [float],
      { outputs: [compared()], accuracy: { ...accuracy, ...intervals } },
      onData(100),
    ).map(({ code, message }) => `${code}: ${message.slice(0, 30)}`);
  };
  const [drop, gain] = [
    "drop_within_noise: The drop of top1, 0.0100, may ",
    "drop_within_noise: The gain of top1, 0.0100, may ",
  ];
  assert.deepEqual(told(0.01, [-0.01, 0.03]), [drop]);
  assert.deepEqual(told(0.01, [0, 0.02]), [drop]);
  assert.deepEqual(told(0.01, [0.001, 0.02]), []);
  assert.deepEqual(told(-0.01, [-0.02, 0]), [gain]);
  assert.deepEqual(told(-0.01, [-0.02, -0.001]), []);
  assert.deepEqual(told(0, [-0.02, 0.02]), []);
  assert.deepEqual(told(0.01, null), []);
});

test("outputs that differ much are told of with the three worst layers and what to try", () => {
  const layers = [
    ...[layerErrorFixture("a", 30), layerErrorFixture("b", 3.04), layerErrorFixture("c", null)],
    ...[layerErrorFixture("d", 10, { input_sqnr_db: 25 }), layerErrorFixture("e", 20)],
  ];
  const told = (
    change: Partial<OutputFidelity>,
    data: JobMetrics["fidelity"]["data"] = "evaluation",
    { dtype = "float32", remedies = ["8 bits", "gptq"] }: { dtype?: ValueFacts["dtype"]; remedies?: string[] } = {},
  ) => fidelityWarnings([{ ...float, dtype }], [compared(change)], data, layers, remedies);
  const [low] = told({ sqnr_db: LOW_SQNR_DB - 0.1 });
  assert.deepEqual([low!.code, low!.value], ["low_fidelity", LOW_SQNR_DB - 0.1]);
  assert.match(
    low!.message,
    /"b" \(3\.0 dB out\), "d" \(25\.0 dB in, 10\.0 dB out\), "e" \(20\.0 dB out\)\. Try: 8 bits; gptq\.$/,
  );
  assert.deepEqual(told({ sqnr_db: LOW_SQNR_DB }), []);
  assert.deepEqual(told({ sqnr_db: 1 }, "evaluation", { dtype: "int64" }), [], "the size of a difference of ids");
  const [fewer] = told({ top1_agreement: 0.949 });
  assert.match(fewer!.message, /the same answer as the original in 94\.9 % of cases, fewer than 95 %/);
  assert.deepEqual([told({ top1_agreement: 0.95 }), told({ top1_agreement: 0.5 }, "synthetic")], [[], []]);
  assert.doesNotMatch(told({ sqnr_db: 1 }, "evaluation", { remedies: [] })[0]!.message, /Try/);
  const blank = { sqnr_db: 0.5, max_value: 1.8e-7, max_abs_error: 1.7e-7 };
  const [nothing] = told(blank);
  assert.deepEqual([nothing!.code, nothing!.value], ["blank_output", 1.8e-7]);
  assert.match(nothing!.message, /nowhere above 1\.8e-7 .* finds something in\.$/);
  const codes = (change: Partial<OutputFidelity>) => told({ ...blank, ...change }).map(({ code }) => code);
  assert.deepEqual(codes({ max_abs_error: 0.9 }), ["low_fidelity"], "the other model finds something");
  assert.deepEqual(codes({ max_value: 1e-5 }), ["low_fidelity"]);
  assert.deepEqual(codes({ min_value: -1e-9 }), ["low_fidelity"], "shares are never negative: its numbers are small");
  const same = { sqnr_db: null, max_abs_error: 0 };
  assert.deepEqual(codes(same), ["blank_output"], "the same nothing");
  assert.deepEqual(codes({ ...same, max_value: 1 }), [], "the same");
  const [none] = told({ ...blank, ...same, min_value: null, max_value: null });
  assert.match(none!.message, /has no finite number .* NaN or infinity alone/);
});

test("fields and sizes that had no effect are named", () => {
  const facts = { fields: ["x", "weather", "mood"].map((name) => ({ name, dtype: "float32" as const, shape: [2] })) };
  assert.deepEqual(
    unusedWarnings(facts, new Set(["x"]), ["w"]).map(({ code, message, value }) => [
      code,
      message.split(": ")[1],
      value,
    ]),
    [
      ["unused_fields", '"weather", "mood".', 2],
      ["unused_dims", '"w".', 1],
    ],
  );
  assert.deepEqual(unusedWarnings(facts, new Set(["x", "weather", "mood"])), []);
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
