import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { JobRequest } from "../../../../src/service/api/job-schemas.ts";
import type { JobSpec } from "../../../../src/service/kinds/kinds.ts";
import { cacheKeysOf } from "../../../../src/service/kinds/kinds.ts";
import { splitSamples } from "../../../../src/service/kinds/quantize/sample-split.ts";
import type { StaticSpec } from "../../../../src/service/kinds/quantize/spec.ts";

const specWith = (params: object, evaluation: object = {}) =>
  JobRequest.parse({
    type: "quantize",
    model_id: "mdl_1",
    params: { method: "static", dataset_id: "dst_1", ...params },
    evaluation,
  }) as unknown as StaticSpec;

const float16 = JobRequest.parse({
  type: "quantize",
  model_id: "mdl_1",
  params: { method: "float16" },
}) as unknown as JobSpec;

test("samples are calibrated with, then scored on, and the rest judges the result", () => {
  const plain = specWith({ samples: 100 });
  assert.deepEqual(splitSamples(plain, 1000, 1), { calibrating: [0, 100], scored: [100, 356], unseen: [100, 1000] });
  for (const control of [{ max_metric_drop: 0.01 }, { min_sqnr_db: 30 }]) {
    const spec = specWith({ samples: 100, ...control }, { samples: 300 });
    assert.deepEqual(splitSamples(spec, 1000, 1), { calibrating: [0, 100], scored: [100, 400], unseen: [400, 1000] });
  }
});

test("few samples are scored on all, and none is left", () => {
  const spec = specWith({ samples: 100, max_metric_drop: 0.01 });
  assert.deepEqual(splitSamples(spec, 150, 1), { calibrating: [0, 100], scored: [0, 150], unseen: [150, 150] });
  assert.deepEqual(splitSamples(spec, 40, 1), { calibrating: [0, 40], scored: [0, 40], unseen: [40, 40] });
});

test("a model that takes k samples at a time gets k, and what has chosen something never judges", () => {
  fc.assert(
    fc.property(
      fc.record({ samples: fc.integer({ min: 1, max: 300 }), scored: fc.integer({ min: 1, max: 300 }) }),
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 9, max: 900 }),
      ({ samples, scored: wanted }, batchSize, total) => {
        const spec = specWith({ samples, min_sqnr_db: 20 }, { samples: wanted });
        const { calibrating, scored, unseen } = splitSamples(spec, total, batchSize);
        for (const [start, end] of [calibrating, scored]) {
          assert.ok(end - start >= batchSize && (end - start) % batchSize === 0 && end <= total);
        }
        assert.ok(calibrating[1] >= Math.min(samples, total - (total % batchSize)));
        assert.ok(unseen[0] >= calibrating[1] && unseen[0] >= scored[1] && unseen[1] === total);
      },
    ),
  );
});

const HOST = { cpu: "a processor", isa: ["avx2"] };

test("ranges are found again only where they would be others", () => {
  const key = (params: object) => cacheKeysOf(specWith(params), HOST).calibration;
  const first = key({});
  assert.match(first!, /^[0-9a-f]{64}$/);
  for (const same of [
    { calibration: "minmax" },
    { bias_correction: false },
    { min_sqnr_db: 30 },
    { exclude_ops: ["Add"] },
  ]) {
    assert.equal(key(same), first, JSON.stringify(same));
  }
  const others = [{ dataset_id: "dst_2" }, { samples: 64 }, { seed: 1 }, { equalize: false }, { target: "portable" }];
  assert.equal(new Set([first, ...others.map(key)]).size, 1 + others.length);
  assert.deepEqual(cacheKeysOf(float16, HOST), {});
});
