import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import type { NoteCode } from "../../src/core/note-codes.ts";
import type { Note } from "../../src/core/passes/pass.ts";
import { renderReport } from "../../src/report/html.ts";
import { html } from "../../src/report/markup.ts";
import { loadCharts } from "../../src/report/plots.ts";
import { tradeChart } from "../../src/report/trade-chart.ts";
import { accuracyFixture, layerErrorFixture, outputFixture } from "../support/metrics.ts";
import { nodeName, type ReportFixture, reportFixture, staticReportFixture } from "../support/report-fixtures.ts";

const skipped = (i: number): Note => ({
  outcome: "skipped",
  name: `node_${i}`,
  op: "Conv",
  code: "no_integer_kernel",
  message: "There is no kernel.",
});

describe("buildReport", () => {
  it("survives JSON unchanged, with every step's time", () => {
    const made = reportFixture();
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
  const page = async (parts: ReportFixture = {}) => assertWellFormed(await renderReport(reportFixture(parts)));

  /** Tags that open must close in the right order, script and style apart; void elements and the doctype stand alone. */
  function assertWellFormed(html: string): string {
    const open: string[] = [];
    const markup = html.replace(/(<(script|style)>).*?(<\/\2>)/gs, "$1$3");
    for (const [, slash, name, attributes] of markup.matchAll(/<(\/?)([a-z][a-zA-Z0-9]*)((?:[^<>"]|"[^"]*")*)>/g)) {
      if (slash) assert.equal(open.pop(), name);
      else if (!["meta", "br", "input"].includes(name!) && !attributes!.endsWith("/")) open.push(name!);
      assert.match(attributes!, /^(\s+[a-zA-Z0-9-]+(="[^"<>]*")?)*\s*\/?$/);
    }
    assert.deepEqual(open, []);
    return html;
  }

  const charts = (html: string) => [...html.matchAll(/<figcaption>(.*?)<\/figcaption>/g)].map(([, title]) => title);

  it("says at the top that a result is slower", async () => {
    const message = "It takes 1.25 times the time of the original here.";
    const html = await page({ metrics: { warnings: [{ code: "slower_than_original", message, value: 0.8 }] } });
    assert.ok(html.indexOf(message) < html.indexOf("<main>"));
    assert.ok(!(await page()).includes("times the time"));
  });

  it("answers at the top: which model, smaller, faster, still right, what next", async () => {
    const next = [{ title: "Try 8 bits", why: "Because.", job: { type: "quantize", params: { bits: 8 } } }];
    const data = { samples: 32, data: "evaluation" as const, outputs: [outputFixture({ top1_agreement: 0.987 })] };
    const html = await page({ metrics: { fidelity: data }, next });
    const [, top] = /<header>(.*?)<\/header>/s.exec(html)!;
    assert.match(top!, /<h1>a model: 4-bit weights in blocks of 32<\/h1>/);
    assert.match(
      top!,
      /3\.7× smaller \(10 → 2\.7 MB\), 2\.0× faster \(20 → 10 ms\), same answer on 98\.7 % of 32 samples\./,
    );
    assert.match(top!, /class="verdict good">Close to the original</);
    assert.match(top!, /It gives the same answer as the original on 98\.7 % of 32 samples/);
    assert.match(top!, /<a href="#next">Try 8 bits<\/a>/);
    assert.match(html, /<ol id="next".*?&quot;bits&quot;: 8/s);
    assert.match(html, /curl -sS .*?-d &#39;|curl -sS .*?-d '\{/s);
    assert.ok(html.includes("a".repeat(64)) && html.includes("b".repeat(64)), "sha256 of both files");
  });

  it("does not judge what was compared on random inputs, and says so above the plots", async () => {
    const [, top] = /<header>(.*?)<\/header>/s.exec(await page())!;
    assert.match(top!, /class="verdict warn">Not judged</);
    assert.match(top!, /SQNR 31\.4 dB on 16 random inputs, not judged on data\./);
    assert.match(top!, /<ul class="notices"[^>]*>.*synthetic input/s);
  });

  it("warns above the plots of memory and of layers that are lost", async () => {
    const html = await page({
      metrics: {
        memory: { before_peak_bytes: 150_000_000, after_peak_bytes: 178_000_000, baseline_bytes: 80_000_000 },
      },
      layerErrors: [layerErrorFixture("a", -1), layerErrorFixture("b", 12)],
    });
    const [, top] = /<header>(.*?)<\/header>/s.exec(html)!;
    assert.match(top!, /40 % more memory than the original: 98 MB instead of 70 MB/);
    assert.match(top!, /1 layer below 0 dB/);
    const [calm] = (await page()).split("<main>");
    assert.doesNotMatch(calm!, /more memory|below 0 dB/);
  });

  it("says the direction of every number: worse is called worse", async () => {
    const html = await page({
      metrics: {
        size: { before_bytes: 100, after_bytes: 120, ratio: 1.2 },
        latency: {
          before: { p50_ms: 10, p90_ms: 12, mean_ms: 10 },
          after: { p50_ms: 20, p90_ms: 22, mean_ms: 20 },
          ...{ speedup: 0.5, speedup_interval: null, batch_size: 1, threads: 1, runs: 3, cpu: "A processor" },
        },
      },
    });
    assert.match(html, /1\.2× larger \(100 → 120 B\), 2\.0× slower \(10 → 20 ms\)/);
    assert.match(html, /2\.0× slower<\/p><p class="muted"><b class="bad">▼ worse/);
  });

  it("explains its words where they stand and at the end, and says codes in words", async () => {
    const html = await page({
      metrics: {
        coverage: {
          quantized_nodes: 0,
          skipped_nodes: [{ name: "n", op: "Conv", code: "conv_needs_calibration", message: "No." }],
          ...{ fused_nodes: 0, float_islands: [] },
        },
      },
    });
    for (const [, id] of html.matchAll(/href="#(term-\w+)"/g)) assert.ok(html.includes(`id="${id}"`), id);
    assert.match(html, /title="conv_needs_calibration">convolution, needs calibration</);
    const links = [...html.matchAll(/<a class="term"[^>]* title="([^"]*)"/g)];
    assert.ok(links.length > 5 && links.every(([, title]) => title!.length > 20));
  });

  it("lists nodes by what they cost: the layers that add the largest error first", async () => {
    const html = await page({
      notes: [1, 2, 3].map((i) => ({ ...skipped(i), outcome: "changed" as const })),
      layerErrors: [layerErrorFixture("node_1", 30), layerErrorFixture("node_2", 5), layerErrorFixture("node_3", null)],
    });
    const [, body] = /class="sortable">.*?<tbody>(.*?)<\/tbody>/s.exec(html)!;
    assert.deepEqual(
      [...body!.matchAll(/<code>(node_\d)<\/code>/g)].map(([, name]) => name),
      ["node_2", "node_1", "node_3"],
    );
  });

  it("shows what was measured", async () => {
    const html = await page({
      metrics: {
        accuracy: accuracyFixture({ before: 0.9912, after: 0.99, drop: 0.0012, samples: 1000 }),
        acceptance: [{ name: "min_speedup", limit: 1.5, value: 2, ok: true }],
      },
      notes: [{ ...skipped(1), outcome: "changed" }, skipped(2)],
    });
    for (const text of [
      "27 %",
      "10 MB → 2.7 MB",
      "31.4 dB",
      "2.0× faster",
      "99.12 %",
      "0.12 %",
      "Accepted",
      "min_speedup",
    ]) {
      assert.ok(html.includes(text), text);
    }
    assert.match(html, /<title>a model: 4-bit weights in blocks of 32 /);
    assert.match(html, /synthetic input/);
    assert.deepEqual(charts(html), ["Size, by what the weights are stored as", "Time of each run"]);
  });

  it("says when a limit is missed", async () => {
    const html = await page({
      metrics: { acceptance: [{ name: "max_metric_drop", limit: 0.01, value: null, ok: false }] },
    });
    assert.match(html, /Not accepted/);
    assert.match(html, /not measured/);
  });

  it("draws the same numbers to the same bytes, each chart twice: for a wide page and for a phone", async () => {
    const html = await page({ layerErrors: [layerErrorFixture("a", 30)] });
    assert.equal(html, await page({ layerErrors: [layerErrorFixture("a", 30)] }));
    for (const kind of ["wide", "narrow"]) {
      assert.equal(
        html.match(new RegExp(`<svg class="plot ${kind}" role="img" aria-label="[^"]+"`, "g"))?.length,
        3,
        kind,
      );
    }
    assert.equal(html.match(/<svg /g)!.length, 6);
  });

  it("draws every run, and says how many did not fit", async () => {
    const times = Array.from({ length: 40 }, (_, i) => 20 + i / 100);
    const html = await page({ samplesMs: { before: [...times, 900], after: times } });
    assert.match(html, /1 run took longer than is shown, up to 900 ms\./);
    const [, ticks] = /<g stroke-opacity="0.6">(.*?)<\/g>/s.exec(html)!;
    assert.equal(ticks!.match(/<line /g)!.length, 80);
  });

  it("shows what a static job has found out", async () => {
    const html = assertWellFormed(await renderReport(staticReportFixture(52)));
    assert.deepEqual(charts(html), [
      "Size, by what the weights are stored as",
      "Time of each run",
      "Signal to noise ratio of each layer&#39;s result",
      "The 25 groups that gain most from staying in float",
      "Score and size of every model that was tried",
    ]);
    // 52 layers: the line, 51 dots, one without an error, three rings.
    const layers = /aria-label="52 layers from.*?<\/svg>/s.exec(html)![0];
    assert.equal(layers.match(/<circle /g)!.length, 51 + 1 + 3);
    assert.match(html, /<td [^>]*>\+13\.2 dB<\/td><td [^>]*><b class="good">yes<\/b>/);
    assert.match(html, /All 34 groups in numbers/);
    assert.match(html, /At least 70\.88 % was wanted, and\s+<b class="good">was reached/);
    assert.match(html, /aria-label="chosen: 71\.\d+ % at 5\.81 MB, 1\.77 × as fast as the original; wanted 70\.88 %"/);
  });

  it("shows a static job without accuracy control, without an error and without corrections", async () => {
    const html = await page({
      layerErrors: [layerErrorFixture("a", null)],
      quantization: {
        calibration: { method: "minmax", tried: [], samples: 1, tensors: 1, cached: true },
        ...{ kernels: null, corrections: [], sensitivity: [], control: null },
      },
    });
    assert.match(html, /All 1 layers? give what they gave before/);
    assert.match(html, /known from an earlier job/);
    assert.match(html, /No correction was tried/);
    assert.doesNotMatch(html, /<h2>Sensitivity|Accuracy against size/);
  });

  it("draws trials that are all alike, and scores that are not finite", async () => {
    const trial = { float_nodes: [], score: 20, size_bytes: 1000, speedup: 1, chosen: false };
    const html = await page({
      quantization: {
        calibration: { method: "minmax", tried: [], samples: 1, tensors: 1, cached: false },
        ...{ kernels: null, corrections: [], sensitivity: [{ nodes: ["a"], sqnr_db: 1, gain_db: 0 }] },
        control: {
          ...{ score: "sqnr_db", target: 20, original_score: null, reached: false, stored_nodes: [] },
          trials: [trial, trial, { ...trial, score: Number.POSITIVE_INFINITY }],
        },
      },
    });
    assert.doesNotMatch(html, /NaN/);
  });

  it("escapes everything that comes from users and models", async () => {
    const evil = `"><script>alert(1)</script><img src=x onerror='alert(1)'>&lt;b&gt;`;
    const fixture = staticReportFixture(4);
    const quantization = JSON.parse(
      JSON.stringify(fixture.quantization).replaceAll(
        /"(\/features[^"]*|[a-z_]*correction|entropy|top1)"/g,
        JSON.stringify(evil),
      ),
    );
    const html = await page({
      metrics: {
        fidelity: { samples: 1, data: "evaluation", outputs: [outputFixture({ name: evil })] },
        coverage: {
          quantized_nodes: 0,
          skipped_nodes: [{ name: evil, op: evil, code: evil as NoteCode, message: evil }],
          fused_nodes: 0,
          float_islands: [{ name: evil, op: evil, code: evil as NoteCode, message: evil }],
        },
      },
      notes: [{ ...skipped(1), op: evil }],
      job: { name: evil, id: evil, params: { [evil]: evil, list: [evil] } },
      layerErrors: [layerErrorFixture(evil, 3, { op: evil }), layerErrorFixture(evil, null, { op: evil })],
      quantization,
    });
    assert.doesNotMatch(html, /<img|alert\(1\)<\/script/);
    assert.equal(html.match(/<script/g)!.length, 1);
    assert.ok(html.includes("&amp;lt;b&amp;gt;"), "What looks like an escape is shown as it is.");
    assert.doesNotMatch(html, /&lt;b&gt;/);
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
      networks: [],
      chosen: "student",
      ensemble_metric: null,
    };
    const job = { type: "distill", params: { mode: "offline", teacher_model_id: "mdl_t" } };
    const html = await page({ metrics: { training }, job, heldAgainst: "teacher" });

    assert.match(
      html,
      /<th scope="row">top1, 1,000 samples<\/th><td data-label="Teacher">99 %<\/td><td [^>]*>10 %<\/td><td [^>]*>76 %<\/td><td data-label="Baseline">72 %/,
    );
    const curves = ["Training loss of each epoch", "Validation top1 of each epoch"];
    assert.deepEqual(charts(html).slice(0, 2), curves);
    assert.match(
      html,
      /<div class="tiles"><section class="tile"><h2><a [^>]*>Gain over labels<\/a><\/h2><p class="figure">\+4 points/,
    );
    assert.match(html, /top1 76 % \(teacher 99 %, labels alone 72 %\) on 1,000 samples/);
    assert.match(html, /aria-label="2 in epoch 1, 0 in epoch 3; between 0 and 2"/);
    assert.match(html, /aria-label="50 % in epoch 1, 70 % in epoch 3; between 40 % and 75 %"/);
    // Losses 2, 1, 0 over three epochs: evenly down, from the left end of the axes to the right one.
    const loss = /aria-label="2 in epoch 1.*?<\/svg>/s.exec(html)![0];
    const [, points] = /<g [^>]*stroke="var\(--after\)"[^>]*><path d="M([^"]*)"/.exec(loss)!;
    const [[x0, y0], [x1, y1], [x2, y2]] = points!.split("L").map((point) => point.split(",").map(Number)) as [
      number[],
      number[],
      number[],
    ];
    // Pixels, which are written with two digits behind the point.
    assert.ok(Math.abs(x1! - x0! - (x2! - x1!)) < 0.02 && x0! < x1!);
    assert.ok(Math.abs(y1! - y0! - (y2! - y1!)) < 0.02 && y0! < y1!);
    assert.match(html, /All 3 epochs in numbers/);
    assert.doesNotMatch(html, /<h2>Nodes: what they cost/);

    const alone = { ...training, teacher_metric: null, baseline_metric: null, baseline_history: null };
    const plain = await page({ metrics: { training: alone }, job: { ...job, params: { teacher_model_id: null } } });
    assert.doesNotMatch(plain, /Teacher|teacher<|Baseline|class="line baseline"/);
    const unjudged = {
      ...alone,
      metric: null,
      history: training.history.map((it) => ({ ...it, validation_metric: null })),
    };
    assert.deepEqual(charts(await page({ metrics: { training: unjudged }, job })).slice(0, 2), [
      curves[0],
      "Size, by what the weights are stored as",
    ]);
  });

  it("has a section for each of several networks, and a table of exits", async () => {
    const history = [1, 2].map((epoch) => ({
      ...{ epoch, loss: 1 / epoch, losses: { label: 1 / epoch }, validation_metric: 0.4 * epoch },
      ...{ learning_rate: 0.01, samples_per_second: 900 },
    }));
    const network = (name: string, metric: number, artifact: string) => ({
      ...{
        name,
        parameters: 1234,
        history,
        best_epoch: 2,
        validation_metric: 0.8,
        before_metric: 0.1,
        metric,
        artifact,
      },
    });
    const training = {
      history,
      best_epoch: 2,
      metric: "top1",
      metric_samples: 1000,
      teacher_metric: null,
      student_before_metric: 0.1,
      student_metric: 0.9,
      baseline_metric: null,
      baseline_history: null,
      samples_per_second: 900,
      networks: [network("peer_1", 0.85, "peer_1.onnx"), network("peer_2", 0.9, "model.onnx")],
      chosen: "peer_2",
      ensemble_metric: 0.95,
    };
    const exits = [
      { name: "exit_1", value: "relu", metric: 0.7, macs_share: 0.25, latency_share: 0.3, artifact: "exit_1.onnx" },
      { name: "logits", value: "logits", metric: 0.9, macs_share: 1, latency_share: 1, artifact: "model.onnx" },
    ];
    const job = { type: "distill", params: { mode: "online", teacher_model_id: null } };
    const html = await page({ metrics: { training, exits }, job, heldAgainst: "teacher" });
    assert.match(html, /The result is <b>peer_2<\/b>/);
    assert.match(
      html,
      /<th scope="row">peer_1<\/th><td [^>]*>1,234<\/td><td [^>]*>10 %<\/td><td [^>]*>85 %<\/td><td [^>]*>80 %<\/td><td [^>]*>2<\/td>/,
    );
    assert.match(html, /<th scope="row">All together<\/th>.*?95 %/);
    for (const name of ["peer_1", "peer_2"]) {
      assert.ok(charts(html).includes(`${name}: validation top1 of each epoch`), String(charts(html)));
    }
    assert.match(
      html,
      /exit_1<\/th><td [^>]*><code>relu<\/code><\/td><td [^>]*>70 %<\/td><td [^>]*>25 %<\/td><td [^>]*>30 %<\/td>/,
    );
    assert.doesNotMatch(html, /<th scope="col">Teacher/);
    const self = await page({
      metrics: { training, exits },
      job: { ...job, params: { mode: "self" } },
      heldAgainst: "teacher",
    });
    assert.doesNotMatch(self, /<th scope="col">Teacher/);
    const accuracy = {
      ...{ metric: "top1" as const, before: 0.97, after: 0.91, drop: 0.06, samples: 1000, interval: null },
      ...{ before_interval: null, after_interval: null },
    };

    const qat = { type: "quantize", params: { method: "qat" } };
    const simulated = await page({ metrics: { training, exits: null, accuracy }, job: qat });
    const columns = ["In float", "Rounded, not trained", "Trained, simulated", "The model that was made"];
    for (const column of columns) assert.match(simulated, new RegExp(`<th scope="col"[^>]*>${column}<`));
    assert.match(
      simulated,
      /top1, 1,000 samples<\/th><td [^>]*>97 %<\/td><td [^>]*>10 %<\/td><td [^>]*>90 %<\/td><td [^>]*>91 %<\/td>/,
    );
  });

  it("loads nothing, and runs the one script that its policy names", async () => {
    const html = await page();
    const [, policy] = /Content-Security-Policy" content="([^"]*)"/.exec(html)!;
    const [, script] = /<script>(.*?)<\/script>/s.exec(html)!;
    const hash = createHash("sha256").update(script!).digest("base64");
    assert.equal(
      policy!.replaceAll("&#39;", "'"),
      `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${hash}'`,
    );
    assert.doesNotMatch(html.replace(script!, ""), /\s(src|on\w+|style)=|url\(|@import|<link/);
    for (const [, target] of html.matchAll(/\shref="([^"]*)"/g)) assert.match(target!, /^(#term-|#next$|\/#\/|\/v1\/)/);
  });

  it("keeps the page short for models with thousands of nodes and names without end", async () => {
    const notes = Array.from({ length: 5000 }, (_, i) => ({ ...skipped(i), name: `${nodeName(i)}${"x".repeat(400)}` }));
    const skipped_nodes = notes.map(({ outcome: _, ...note }) => note);
    const started = performance.now();
    const html = await page({
      metrics: { coverage: { quantized_nodes: 0, skipped_nodes, fused_nodes: 0, float_islands: [] } },
      notes,
      layerErrors: notes.slice(0, 512).map(({ name, op }, i) => layerErrorFixture(name, 20 + (i % 7), { op })),
      job: { params: { method: "static", exclude_nodes: notes.map(({ name }) => name) } },
    });
    assert.ok(performance.now() - started < 20_000);
    assert.match(html, /5,000 nodes/);
    assert.match(html, /4,000 more are in report.json/);
    assert.ok(html.length < 1_000_000, `${html.length} characters`);
  });
});

it("writes names of models of one size above each other in a plot, and others beside each other", async () => {
  const trade = (name: string, bytes: number) => ({
    ...{ name, bytes, speedup: 1, isMarked: false },
    quality: { name: "top1", value: 0.9, interval: null },
  });
  const draw = await loadCharts();
  const drawn = tradeChart([trade("static", 1000), trade("dynamic", 1010), trade("far", 100)], draw).text;
  const [wide] = drawn.split('class="plot narrow"');
  const lift = (name: string) => Number(wide!.split(`>${name}</text>`)[0]!.match(/.*translate\(0,(-\d+)\)/s)![1]);
  assert.deepEqual(["static", "dynamic", "far"].map(lift), [-11, -22, -11]);
});
