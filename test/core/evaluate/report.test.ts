import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Evaluation } from "../../../src/core/evaluate/evaluate.ts";
import { html } from "../../../src/core/evaluate/markup.ts";
import { buildReport, type Report } from "../../../src/core/evaluate/report.ts";
import { renderReport } from "../../../src/core/evaluate/report-html.ts";
import type { JobMetrics } from "../../../src/core/facts.ts";
import type { Note } from "../../../src/core/passes/pass.ts";
import { metricsFixture, modelFactsFixture, outputFixture } from "../../support/metrics.ts";

function report(
  metrics: Partial<JobMetrics> = {},
  notes: readonly Note[] = [],
  job: Partial<Report["job"]> = {},
): Report {
  const evaluation: Evaluation = {
    metrics: metricsFixture(metrics),
    accepted: metrics.acceptance?.every(({ ok }) => ok) ?? true,
    inputShapes: { x: [1, 4] },
    latencySamplesMs: { before: [20, 21.5, 19], after: [10, 9.5, 11] },
    optimizedOperators: { MatMulNBits: 2, Relu: 1 },
    layerErrors: null,
    timingsMs: { fidelity: 12.3456 },
  };
  return buildReport({
    createdAt: new Date(Date.UTC(2026, 0, 2, 3, 4, 5)),
    job: {
      id: "job_1",
      type: "quantize",
      params: { method: "weight_only", bits: 4 },
      evaluation: { samples: 16 },
      acceptance: {},
      ...job,
    },
    evaluation,
    models: { before: modelFactsFixture(), after: modelFactsFixture({ weight_bytes_by_dtype: { uint8: 2_600_000 } }) },
    notes,
    timingsMs: { compress: 250 },
  });
}

const skipped = (i: number): Note => ({
  outcome: "skipped",
  name: `node_${i}`,
  op: "Conv",
  code: "no_kernel",
  message: "There is no kernel.",
});

describe("buildReport", () => {
  it("survives JSON unchanged, with every step's time", () => {
    const made = report();
    assert.deepEqual(JSON.parse(JSON.stringify(made)), made);
    assert.deepEqual(made.timings_ms, { compress: 250, "evaluate.fidelity": 12.3 });
    assert.equal(made.created_at, "2026-01-02T03:04:05.000Z");
  });
});

describe("html", () => {
  it("escapes what is put in, and leaves markup alone", () => {
    assert.equal(html`<b>${`<script>"&'`}</b>`.text, "<b>&lt;script&gt;&quot;&amp;&#39;</b>");
    assert.equal(html`${html`<i>${1}</i>`}${["a", html`<br>`]}${null}${undefined}`.text, "<i>1</i>a<br>");
  });
});

describe("renderReport", () => {
  /** Tags that open must close in the right order; void elements and the doctype stand alone. */
  function assertWellFormed(page: string): void {
    const open: string[] = [];
    for (const [, slash, name, attributes] of page.matchAll(/<(\/?)([a-z][a-z0-9]*)([^<>]*)>/g)) {
      if (slash) assert.equal(open.pop(), name);
      else if (!["meta", "br", "path"].includes(name!)) open.push(name!);
      assert.match(attributes!, /^(\s+[a-zA-Z-]+="[^"<>]*")*\s*\/?$/);
    }
    assert.deepEqual(open, []);
  }

  it("shows what was measured", async () => {
    const page = await renderReport(
      report(
        {
          accuracy: { metric: "top1", before: 0.9912, after: 0.99, drop: 0.0012, samples: 1000 },
          acceptance: [{ name: "min_speedup", limit: 1.5, value: 2, ok: true }],
        },
        [{ ...skipped(1), outcome: "changed" }, skipped(2)],
      ),
    );
    assertWellFormed(page);
    for (const text of [
      "27 %",
      "10 MB → 2.7 MB",
      "31.4 dB",
      "2.00 ×",
      "99.12 %",
      "0.12 %",
      "Accepted",
      "min_speedup",
    ]) {
      assert.ok(page.includes(text), text);
    }
    assert.match(page, /<title>quantize: weight_only/);
    assert.match(page, /synthetic input/);
  });

  it("says when a limit is missed", async () => {
    const page = await renderReport(
      report({ acceptance: [{ name: "max_metric_drop", limit: 0.01, value: null, ok: false }] }),
    );
    assertWellFormed(page);
    assert.match(page, /Not accepted/);
    assert.match(page, /not measured/);
  });

  it("escapes everything that comes from users and models", async () => {
    const evil = `"><script>alert(1)</script><img src=x onerror='alert(1)'>`;
    const page = await renderReport(
      report(
        {
          fidelity: { samples: 1, data: "evaluation", outputs: [outputFixture({ name: evil })] },
          coverage: {
            quantized_nodes: 0,
            skipped_nodes: [{ name: evil, op: evil, code: evil, message: evil }],
            fused_nodes: 0,
            float_islands: [{ name: evil, op: evil, code: evil, message: evil }],
          },
        },
        [{ ...skipped(1), op: evil }],
        { name: evil, id: evil, params: { [evil]: evil, list: [evil] } },
      ),
    );
    assertWellFormed(page);
    assert.doesNotMatch(page, /<script|<img/);
  });

  it("shows how a student was trained beside its teacher and its baseline", async () => {
    const epoch = (n: number, loss: number, validation_metric: number | null) => ({
      ...{ epoch: n, loss, losses: { kl: loss }, validation_metric, learning_rate: 0.01, samples_per_second: 900 },
    });
    const training = {
      history: [epoch(1, 2, 0.5), epoch(2, 1, 0.75), epoch(3, 0, 0.7)],
      best_epoch: 2,
      metric: "top1",
      metric_samples: 1000,
      teacher_metric: 0.99,
      student_before_metric: 0.1,
      student_metric: 0.76,
      baseline_metric: 0.72,
      baseline_history: [epoch(1, 2, 0.4)],
      samples_per_second: 900,
    };
    const job = { type: "distill", params: { mode: "offline", teacher_model_id: "mdl_t" } };
    const page = await renderReport(report({ training }, [], job));
    assertWellFormed(page);
    assert.match(page, /<title>distill: offline/);
    assert.match(page, /<th scope="row">top1, 1,000 samples<\/th><td>99 %<\/td><td>10 %<\/td><td>76 %<\/td><td>72 %/);
    // Losses 2, 1, 0 over the whole width: from 4 below the top to 4 above the bottom.
    assert.match(page, /d="M0.0 4.0L300.0 100.0L600.0 196.0"/);
    assert.match(page, /class="baseline" d="M0 4.0L600 4.0"/);
    assert.doesNotMatch(page, /<h2>Coverage/);

    const alone = { ...training, teacher_metric: null, baseline_metric: null, baseline_history: null };
    const plain = await renderReport(report({ training: alone }, [], { ...job, params: { teacher_model_id: null } }));
    assert.doesNotMatch(plain, /Teacher|teacher<|Baseline|class="baseline"/);
    const unjudged = {
      ...alone,
      metric: null,
      history: training.history.map((it) => ({ ...it, validation_metric: null })),
    };
    assert.equal((await renderReport(report({ training: unjudged }, [], job))).match(/class="curve"/g)!.length, 1);
  });

  it("loads nothing and runs nothing", async () => {
    const page = await renderReport(report());
    assert.match(page, /Content-Security-Policy" content="default-src 'none'/);
    assert.doesNotMatch(page, /\s(src|href|on\w+|style)=|url\(|@import|<script|<link/);
  });

  it("keeps the page short when many nodes share a reason", async () => {
    const notes = Array.from({ length: 5000 }, (_, i) => skipped(i));
    const skipped_nodes = notes.map(({ outcome: _, ...note }) => note);
    const page = await renderReport(
      report({ coverage: { quantized_nodes: 0, skipped_nodes, fused_nodes: 0, float_islands: [] } }, notes),
    );
    assert.match(page, /5,000 nodes/);
    assert.match(page, /4700 more are in report.json/);
    assert.ok(page.length < 100_000);
  });
});
