import assert from "node:assert/strict";
import { test } from "node:test";
import { learningRateAt, SCHEDULES, type ScheduleSpec } from "../../../src/core/train/schedule.ts";

const curve = (spec: ScheduleSpec, steps: number, warmupSteps = 0) =>
  Array.from({ length: steps }, (_, step) => learningRateAt(spec, { learningRate: 2, step, steps, warmupSteps }));

function close(actual: number, expected: number): void {
  assert.ok(Math.abs(actual - expected) < 1e-12 + 1e-9 * Math.abs(expected), `${actual} instead of ${expected}`);
}

test("constant, after a linear warm-up", () => {
  assert.deepEqual(curve(SCHEDULES.constant, 6, 4), [0.5, 1, 1.5, 2, 2, 2]);
});

test("steps", () => {
  const rates = curve({ kind: "step", at: [0.5, 0.9], factor: 0.1 }, 11);
  for (const [i, rate] of rates.entries()) close(rate, i < 5 ? 2 : i < 9 ? 0.2 : 0.02);
});

test("a cosine starts at the rate, is half of it in the middle and ends at its end", () => {
  const rates = curve({ kind: "cosine", final: 0.1 }, 5);
  close(rates[0]!, 2);
  close(rates[2]!, 1.1);
  close(rates[4]!, 0.2);
});

test("one cycle rises from 1/25 to the rate and falls to 1/250,000", () => {
  const rates = curve({ kind: "onecycle", rise: 0.25 }, 101);
  close(rates[0]!, 2 / 25);
  close(rates[25]!, 2);
  close(rates[100]!, 2 / 25e4);
  assert.ok(rates.slice(1, 26).every((rate, i) => rate > rates[i]!));
  assert.ok(rates.slice(26).every((rate, i) => rate < rates[i + 25]!));
});

test("a run of one step has a rate", () => {
  for (const spec of Object.values(SCHEDULES)) assert.ok(curve(spec, 1)[0]! > 0);
});
