import assert from "node:assert/strict";
import { test } from "node:test";
import { comparisonPage } from "../../../src/service/api/compare-page.ts";
import { emptyMetrics } from "../../support/jobs.ts";

const { size, latency, memory } = emptyMetrics();

/** What the columns of a job with such metrics say, and what they are sorted by. */
function cellsOf(metrics: object | null): Record<string, [text: string, key: string]> {
  const common = {
    size,
    latency,
    memory,
    accuracy: null,
    acceptance: [],
    worst_sqnr_db: null,
    fidelity_data: "evaluation",
  };
  const job = {
    ...{ job_id: "job_a", name: null, title: "dynamic", type: "quantize", method: "dynamic", status: "succeeded" },
    metrics: metrics && { ...common, ...metrics },
  };
  const page = comparisonPage({ jobs: [job], differences: [] } as unknown as Parameters<typeof comparisonPage>[0]);
  const cells = page.matchAll(/<td data-label="([^"]*)" data-key="([^"]*)">([^<]*)</g);
  return Object.fromEntries([...cells].map(([, label, key, text]) => [label, [text!, key!]]));
}

test("a comparison says of each job what was measured, and sorts the best last or first", () => {
  const drop = { metric: "top1", before: 0.9, after: 0.87654, drop: 0.0234567 };
  assert.deepEqual(cellsOf({ accuracy: drop, worst_sqnr_db: 31.26 })["Worst SQNR"], ["31.3 dB", "31.26"]);
  const cells = cellsOf({ accuracy: drop });
  assert.deepEqual(cells["Worst SQNR"], ["identical", "1000"]);
  assert.deepEqual(
    [cells.Metric, cells.Loss],
    [
      ["top1 0.8765", "0.87654"],
      ["0.0235", "0.0234567"],
    ],
  );
  assert.deepEqual([cells.Limits![0], cellsOf(null).Limits![0], cellsOf({}).Metric![0]], ["none", "–", "–"]);
  const limits = (ok: boolean) => cellsOf({ acceptance: [{ name: "max_size_ratio", ok }] }).Limits;
  assert.deepEqual(
    [limits(true), limits(false)],
    [
      ["kept", "0"],
      ["missed: max_size_ratio", "2"],
    ],
  );
});
