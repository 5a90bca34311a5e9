import assert from "node:assert/strict";
import { test } from "node:test";
import { AutoParams } from "../../../src/service/kinds/auto/params.ts";
import { careMayDo, isOpen, keepsToLimits } from "../../../src/service/kinds/auto/run/order.ts";
import type { Tried } from "../../../src/service/kinds/auto/run/search.ts";
import { accuracyFixture, metricsFixture, outputFixture } from "../../support/metrics.ts";

/** A candidate with so much signal over noise in its trial, which took `ms`. */
function tried(sqnr_db: number, ms = 5000): Tried {
  const { size, latency, memory } = metricsFixture();
  const fidelity = { samples: 24, data: "calibration" as const, outputs: [outputFixture({ sqnr_db })] };
  return {
    ...{ name: "static", spec: {} as Tried["spec"], sha256: null, content: null, structure: null, stage: "tried" },
    ...{ trial: { size, latency, memory, fidelity, accuracy: null }, ms, loadMs: 10, dropped: null },
  };
}

const asking = (min_sqnr_db: number | null) => AutoParams.parse({ dataset_id: "d", constraints: { min_sqnr_db } });

test("a trial keeps to a limit with half a dB to spare", () => {
  assert.deepEqual(
    [20.6, 20.4, 19].map((db) => keepsToLimits(tried(db), asking(20))),
    [true, false, false],
  );
  assert.ok(keepsToLimits(tried(3), asking(null)));
});

test("weights are rounded with more care where what is lost without them is within the limit", () => {
  // MobileNetV2: 10^-1.892 - 10^-2.148 = 0.0057, which is 22.4 dB.
  assert.equal(careMayDo(tried(18.92), tried(21.48), asking(20), 60_000), true);
  assert.equal(careMayDo(tried(18.92), tried(21.48), asking(22.3), 60_000), true);
  assert.equal(careMayDo(tried(18.92), tried(21.48), asking(22.6), 60_000), false);
  // PP-OCR's recognizer loses by its activations: 10^-1.37 - 10^-1.87 is 15.4 dB.
  assert.equal(careMayDo(tried(13.7), tried(18.7), asking(20), 60_000), false);
  // Weights that lose more than both together, by chance: nothing is left.
  assert.equal(careMayDo(tried(18), tried(17), asking(20), 60_000), true);
});

test("more care is taken only where there is time for it, and where it cannot be told by noise", () => {
  assert.equal(careMayDo(tried(18.92, 5000), tried(21.48), asking(20), 9_000), false);
  assert.equal(careMayDo(tried(18.92, 5000), undefined, asking(20), 60_000), true);
  assert.equal(careMayDo({ ...tried(10), trial: null }, tried(21), asking(20), 60_000), false);
});

test("few samples leave it open whether a limit is held that is near, or within the interval of what the metric loses", () => {
  const { constraints } = asking(20);
  const of = (db: number) => isOpen({ ...tried(db).trial! }, constraints);
  assert.deepEqual([16.9, 17.1, 20, 22.9, 23.1].map(of), [false, true, true, true, false]);
  assert.equal(isOpen(tried(20).trial!, asking(null).constraints), false);
  const dropping = (interval: readonly [number, number]) => {
    const accuracy = { ...accuracyFixture({ before: 0.9, after: 0.88, drop: 0.02 })!, interval };
    const { constraints } = AutoParams.parse({ dataset_id: "d", constraints: { max_metric_drop: 0.01 } });
    return isOpen({ ...tried(5).trial!, accuracy }, constraints);
  };
  assert.deepEqual([dropping([0, 0.05]), dropping([0.015, 0.05]), dropping([-0.1, 0])], [true, false, false]);
});
