import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
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

/** The rate at progress u, from 0 to 1 and behind it, written after the definitions in the papers. */
const DEFINITIONS: { readonly [K in ScheduleSpec["kind"]]: (spec: ScheduleSpec & { kind: K }, u: number) => number } = {
  constant: () => 1,
  step: ({ at, factor }, u) => at.reduce((rate, drop) => (u < drop ? rate : rate * factor), 1),
  // Loshchilov and Hutter, equation 5, from 1 to `final`.
  cosine: ({ final }, u) => final + 0.5 * (1 - final) * (1 + Math.cos(u * Math.PI)),
  // sin² is half of 1 − cos: up by it in the first part, down by it in the second.
  onecycle: ({ rise }, u) =>
    u < rise
      ? 0.04 + 0.96 * Math.sin((Math.PI / 2) * (u / rise)) ** 2
      : 1 - (1 - 4e-6) * Math.sin((Math.PI / 2) * ((u - rise) / (1 - rise))) ** 2,
};

const fraction = (max = 1) => fc.integer({ min: 1, max: 99 }).map((percent) => (max * percent) / 100);
const anySchedule: fc.Arbitrary<ScheduleSpec> = fc.oneof(
  fc.constant(SCHEDULES.constant),
  fc.record({ kind: fc.constant("step" as const), at: fc.array(fraction(), { maxLength: 4 }), factor: fraction() }),
  fc.record({ kind: fc.constant("cosine" as const), final: fraction() }),
  fc.record({ kind: fc.constant("onecycle" as const), rise: fraction() }),
);

test("every schedule is its definition at every step, behind a warm-up that rises evenly to where it starts", () => {
  const run = fc.record({ spec: anySchedule, steps: fc.integer({ min: 1, max: 60 }), warmup: fraction(1.2) });
  fc.assert(
    fc.property(run, ({ spec, steps, warmup }) => {
      const warmupSteps = Math.floor(warmup * steps);
      const rates = curve(spec, steps, warmupSteps);
      const define = DEFINITIONS[spec.kind] as (spec: ScheduleSpec, u: number) => number;
      for (const [step, rate] of rates.entries()) {
        const u = step - warmupSteps === 0 ? 0 : (step - warmupSteps) / (steps - warmupSteps - 1);
        const expected = step < warmupSteps ? (define(spec, 0) * (step + 1)) / warmupSteps : define(spec, u);
        close(rate, 2 * expected);
      }
    }),
    { numRuns: 300 },
  );
});

test("steps behind the end keep the last rate", () => {
  const at = (step: number) => learningRateAt(SCHEDULES.onecycle, { learningRate: 2, step, steps: 10, warmupSteps: 2 });
  close(at(9), 2 / 25e4);
  assert.equal(at(12), at(9));
});
