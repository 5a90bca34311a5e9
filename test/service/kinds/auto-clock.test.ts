import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../../src/core/random.ts";
import {
  finalMs,
  finalsMs,
  measuringLimits,
  startClock,
  trialShare,
} from "../../../src/service/kinds/auto/run/clock.ts";

const FRESH = { seconds: 0, tried: [], measured: null };

test("what earlier attempts have worked counts, and nothing is ever left below zero", () => {
  let now = 5000;
  const clock = startClock(
    100,
    { ...FRESH, seconds: 40 },
    () => now,
    () => now,
  );
  assert.deepEqual([clock.seconds(), clock.left(), clock.left(trialShare(100, undefined))], [40, 55_000, 17_000]);
  now += 30_000;
  assert.deepEqual([clock.seconds(), clock.left(), clock.left(trialShare(100, undefined))], [70, 25_000, 0]);
  now += 60_000;
  assert.equal(clock.left(), 0);
});

test("a busy machine takes longer for the report: more is kept for it, up to a fifth of the budget", () => {
  let now = 0;
  const clock = startClock(
    60,
    FRESH,
    () => now,
    () => now / 2,
  );
  now = 4000;
  assert.equal(clock.left(), 51_000, "nothing is known yet");
  now = 10_000;
  assert.equal(clock.left(), 40_000, "twice as long for 5 s");
  const slow = startClock(
    60,
    FRESH,
    () => now,
    () => 0,
  );
  now += 10_000;
  assert.equal(slow.left(), 38_000);
});

/**
 * A search of models that all take as long, as its steps take their time by its clock: trials are broken off when their time is over, but for one step
 * that cannot be; finalists are chosen by what they take; comparing and timing end at their limits, but for one round. Answers seconds.
 */
function searchOf(seconds: number, of: { makeMs: number; loadMs: number; runMs: number; stepMs: number }): number {
  let now = 0;
  const clock = startClock(
    seconds,
    FRESH,
    () => now,
    () => now,
  );
  let made = 0;
  const needed = 9 * (5050 * of.runMs + finalMs(of.loadMs, 0));
  const left = () => clock.left(trialShare(seconds, made === 0 ? undefined : needed));
  while (left() > 0 && made < 20) {
    now += Math.min(of.makeMs + 3 * of.loadMs + 20 * of.runMs, left() + of.stepMs);
    made++;
  }
  const affordable = finalsMs(clock);
  let finalists = 0;
  for (let spent = 0; finalists < Math.min(8, made); finalists++) {
    spent += finalMs(of.loadMs, 0);
    if (finalists >= 2 && spent > affordable) break;
  }
  const loads = finalists * of.loadMs;
  const { compareMs, latencyMs } = measuringLimits(clock, loads);
  const round = (finalists + 1) * of.runMs;
  now += loads;
  now += Math.min(compareMs(), 5000 * round) + round;
  now += loads;
  now += Math.min(latencyMs(), 50 * round) + round;
  // The report and descriptions of the front.
  now += loads + 3000;
  return now / 1000;
}

test("trials get more of the budget where measuring takes less of it", () => {
  assert.deepEqual(
    [undefined, 50_000, 30_000, 20_000, 1000].map((ms) => trialShare(100, ms)),
    [0.6, 0.6, 0.7, 0.8, 0.85],
  );
});

test("a budget of 60 s is kept within 10 %, for small models and for large ones", () => {
  for (let seed = 0; seed < 500; seed++) {
    const random = new Random(seed, "searches");
    const between = (low: number, high: number) => low * (high / low) ** random.uniform();
    const models = {
      makeMs: between(50, 20_000),
      loadMs: between(5, 1500),
      runMs: between(0.1, 150),
      stepMs: between(1, 1000),
    };
    const seconds = searchOf(60, models);
    assert.ok(seconds <= 66, `${seconds} s for ${JSON.stringify(models)}`);
  }
});

test("time that loading leaves is used: small models are compared for more than a third of the budget", () => {
  let now = 30_000;
  const clock = startClock(
    60,
    FRESH,
    () => now,
    () => now,
  );
  now += 30_000;
  const { compareMs, latencyMs } = measuringLimits(clock, 100);
  assert.ok(compareMs() > 14_000);
  now += compareMs();
  assert.ok(latencyMs() > 8000);
});
