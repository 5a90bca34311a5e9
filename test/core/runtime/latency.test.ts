import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { measureLatency, timingOf } from "../../../src/core/runtime/latency.ts";
import type { Session } from "../../../src/core/runtime/session.ts";

/** A session whose runs take `ms` and write their name down. */
function fakeSession(name: string, ms: number, log: string[]): Session {
  return {
    inputs: [],
    outputs: [],
    run: async () => {
      log.push(name);
      // The event loop's own timers are too coarse for this.
      const end = performance.now() + ms;
      while (performance.now() < end);
      return {};
    },
    close: async () => {},
  };
}

describe("measureLatency", () => {
  it("runs both in turns, after warm-up, and compares medians", async () => {
    const log: string[] = [];
    const fractions: number[] = [];
    const latency = await measureLatency({
      before: { session: fakeSession("a", 4, log), feeds: {} },
      after: { session: fakeSession("b", 2, log), feeds: {} },
      runs: 10,
      onProgress: (fraction) => fractions.push(fraction),
    });
    assert.equal(log.join(""), "ab".repeat(13));
    assert.equal(latency.runs, 10);
    assert.equal(latency.samplesMs.before.length, 10);
    assert.equal(fractions.at(-1), 1);
    assert.ok(latency.before.p50_ms >= 4 && latency.after.p50_ms >= 2);
    assert.equal(latency.speedup, latency.before.p50_ms / latency.after.p50_ms);
  });

  it("ends in time, with what it has", async () => {
    const log: string[] = [];
    const slow = { session: fakeSession("a", 20, log), feeds: {} };
    const latency = await measureLatency({ before: slow, after: slow, runs: 1000, maxMs: 150 });
    assert.ok(latency.runs >= 1 && latency.runs < 10, `${latency.runs}`);
    const late = await measureLatency({ before: slow, after: slow, runs: 1000, maxMs: 0 });
    assert.equal(late.runs, 1);
  });

  it("takes as many short runs together as the least of those that warm up says, by a clock of one's own", async () => {
    let now = 0;
    const runs = { short: 0, long: 0 };
    const session = (name: keyof typeof runs, msOf: (run: number) => number): Session => ({
      ...{ inputs: [], outputs: [], close: async () => {} },
      run: async () => {
        now += msOf(runs[name]++);
        return {};
      },
    });
    // The second one was held up.
    const short = { session: session("short", (run) => (run === 1 ? 50 : 0.5)), feeds: {} };
    const long = { session: session("long", () => 7), feeds: {} };
    const latency = await measureLatency({ before: long, after: short, runs: 4, clock: () => now });
    assert.deepEqual(runs, { short: 3 + 4 * 10, long: 3 + 4 });
    assert.equal(latency.speedup, 14);
    assert.deepEqual(latency.speedupInterval, [14, 14]);
  });

  it("stops when cancelled", async () => {
    const controller = new AbortController();
    const contestant = { session: fakeSession("a", 1, []), feeds: {} };
    const measuring = measureLatency({
      before: contestant,
      after: contestant,
      runs: 1000,
      signal: controller.signal,
      onProgress: () => controller.abort(),
    });
    await assert.rejects(measuring, { code: "cancelled" });
  });
});

describe("timingOf", () => {
  it("interpolates quantiles between neighbours", () => {
    // 0 … 10: the 90th percentile of eleven numbers is the tenth.
    assert.deepEqual(timingOf([10, 0, 9, 1, 8, 2, 7, 3, 6, 4, 5]), { p50_ms: 5, p90_ms: 9, mean_ms: 5 });
    assert.deepEqual(timingOf([1, 2]), { p50_ms: 1.5, p90_ms: 1.9, mean_ms: 1.5 });
    assert.deepEqual(timingOf([3]), { p50_ms: 3, p90_ms: 3, mean_ms: 3 });
  });
});
