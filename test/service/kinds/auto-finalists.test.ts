import assert from "node:assert/strict";
import { test } from "node:test";
import { AutoParams } from "../../../src/service/kinds/auto/params.ts";
import { finalistsOf } from "../../../src/service/kinds/auto/run/finalists.ts";
import type { Tried } from "../../../src/service/kinds/auto/run/search.ts";
import { QuantizeParams } from "../../../src/service/kinds/quantize/params.ts";
import { metricsFixture, outputFixture } from "../../support/metrics.ts";

const PARAMS = AutoParams.parse({ dataset_id: "d", objective: "latency" });

/** A candidate after its trial, of a quarter of the size. */
function tried(name: string, speedup: number, sqnr: number): Tried {
  const { latency, ...rest } = metricsFixture();
  return {
    ...{ name, structure: null, sha256: name, content: name, stage: "tried", ms: 1, loadMs: 1, dropped: null },
    spec: {
      ...{ type: "quantize", model_id: "m", evaluation: {} as never, acceptance: {} },
      params: QuantizeParams.parse({ method: "dynamic" }),
    },
    trial: {
      ...rest,
      accuracy: null,
      size: { before_bytes: 1000, after_bytes: 250, ratio: 0.25 },
      latency: { ...latency, speedup, after: { p50_ms: 10 / speedup, p90_ms: 11, mean_ms: 10 } },
      fidelity: { samples: 24, data: "evaluation", outputs: [outputFixture({ sqnr_db: sqnr })] },
    },
  };
}

const chosen = (all: readonly Tried[]) => finalistsOf(all, PARAMS, 1e9, () => 1).chosen.map(({ name }) => name);

test("of models that are as fast as each other the one with less noise stays", () => {
  assert.deepEqual(chosen([tried("mse", 1.5, 24), tried("minmax", 1.5, 20), tried("entropy", 1.5, 18)]), ["mse"]);
  assert.deepEqual(chosen([tried("mse", 1.42, 24), tried("minmax", 2.02, 20)]), ["mse", "minmax"]);
});

test("the trial that is handed on is the one that was measured", () => {
  const all = [tried("mse", 1.42, 24), tried("other", 3, 10)];
  const { chosen } = finalistsOf(all, PARAMS, 1e9, () => 1);
  assert.deepEqual(chosen, all);
});
