import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { checkAcceptance } from "../../../src/core/evaluate/acceptance.ts";
import { accuracyFixture, metricsFixture, outputFixture } from "../../support/metrics.ts";

describe("checkAcceptance", () => {
  const metrics = metricsFixture({
    size: { before_bytes: 100, after_bytes: 30, ratio: 0.3 },
    accuracy: accuracyFixture(),
    fidelity: {
      samples: 1,
      data: "evaluation",
      outputs: [outputFixture({ sqnr_db: 30 }), outputFixture({ sqnr_db: 25 })],
    },
  });

  it("checks nothing that was not asked for", () => {
    assert.deepEqual(checkAcceptance({}, metrics), []);
  });

  it("lets a limit be met exactly, and lists every check", () => {
    const limits = {
      max_metric_drop: 0.02,
      min_sqnr_db: 25,
      max_size_ratio: 0.3,
      min_speedup: metrics.latency.speedup,
    };
    assert.deepEqual(checkAcceptance(limits, metrics), [
      { name: "max_metric_drop", limit: 0.02, value: 0.02, ok: true },
      { name: "min_sqnr_db", limit: 25, value: 25, ok: true },
      { name: "max_size_ratio", limit: 0.3, value: 0.3, ok: true },
      { name: "min_speedup", limit: metrics.latency.speedup, value: metrics.latency.speedup, ok: true },
    ]);
  });

  it("finds what is missed; the worst output counts", () => {
    const limits = { max_metric_drop: 0.01, min_sqnr_db: 26, max_size_ratio: 0.29, min_speedup: 100 };
    assert.deepEqual(
      checkAcceptance(limits, metrics).map(({ ok }) => ok),
      [false, false, false, false],
    );
  });

  it("fails a limit on what was not measured", () => {
    assert.deepEqual(checkAcceptance({ max_metric_drop: 1 }, metricsFixture({ accuracy: null })), [
      { name: "max_metric_drop", limit: 1, value: null, ok: false },
    ]);
  });

  it("passes identical outputs, which have no finite SQNR", () => {
    const identical = metricsFixture({
      fidelity: { samples: 1, data: "synthetic", outputs: [outputFixture({ sqnr_db: null })] },
    });
    assert.deepEqual(checkAcceptance({ min_sqnr_db: 60 }, identical), [
      { name: "min_sqnr_db", limit: 60, value: null, ok: true },
    ]);
  });

  it("never accepts NaN that the original did not give", () => {
    const broken = metricsFixture({
      fidelity: {
        samples: 1,
        data: "synthetic",
        outputs: [outputFixture({ non_finite: 2 }), outputFixture({ non_finite: 1 })],
      },
    });
    assert.deepEqual(checkAcceptance({}, broken), [{ name: "max_non_finite", limit: 0, value: 3, ok: false }]);
  });
});
