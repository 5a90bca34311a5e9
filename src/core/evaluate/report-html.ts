import type { ModelFacts, NodeNote } from "../facts.ts";
import { type Content, html, type Markup } from "./markup.ts";
import type { Report } from "./report.ts";
import {
  bytes,
  cosine,
  count,
  decibels,
  definitions,
  duration,
  metricFormat,
  percent,
  plural,
  ratio,
  section,
  significant,
  table,
} from "./report-parts.ts";
import { REPORT_STYLE } from "./report-style.ts";
import { training } from "./report-training.ts";

/** What the two models are called. */
function sidesOf({ job, metrics }: Report): { readonly before: string; readonly after: string } {
  const isTaught = metrics.training !== null && job.params.teacher_model_id !== null;
  return isTaught ? { before: "teacher", after: "student" } : { before: "before", after: "after" };
}

/** Rows of a node table; `report.json` has all of them. */
const MAX_ROWS = 300;

/**
 * The report as one page that needs nothing else: no scripts, no network, no fonts. All text of users and models is escaped, and the page
 * forbids itself to load anything.
 */
export async function renderReport(report: Report): Promise<string> {
  const { job, metrics } = report;
  const title = job.name || `${job.type}: ${job.params.method ?? job.params.mode ?? job.id}`;
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>${title} – modelpress report</title>
<style>${REPORT_STYLE}</style>
</head>
<body>
<header>
<p class="eyebrow">modelpress report</p>
<h1>${title}</h1>
<p class="muted"><code>${job.id}</code> · ${report.created_at.replace("T", " ").replace(/\..*$/, " UTC")}</p>
${verdict(report)}
</header>
<main>
${summary(report)}
${acceptance(report)}
${training(report)}
${latency(report)}
${fidelity(report)}
${accuracy(report)}
${weights(report)}
${coverage(report)}
${section("What was asked for", parameters(report))}
${section(
  "Where it was measured",
  definitions([
    ["CPU", metrics.environment.cpu],
    ["Instruction sets", metrics.environment.isa.join(", ") || "not known"],
    ["onnxruntime", metrics.environment.onnxruntime],
    ...Object.entries(metrics.environment.versions),
    ["Threads while measuring", metrics.environment.threads],
    ["Seed", metrics.environment.seed],
    ["Inputs of one run", shapes(report.input_shapes)],
  ]),
)}
${section(
  "Time of each step",
  table(
    ["Step", "Time"],
    Object.entries(report.timings_ms).map(([step, ms]) => [step, duration(ms)]),
  ),
)}
</main>
</body>
</html>
`.text;
}

// ---- sections --------------------------------------------------------------------------------------------------------

function verdict({ accepted, metrics }: Report): Markup {
  if (metrics.acceptance.length === 0) return html`<p class="verdict">No limits were set</p>`;
  return accepted
    ? html`<p class="verdict good">Accepted: every limit is kept</p>`
    : html`<p class="verdict bad">Not accepted: a limit is missed</p>`;
}

function summary(report: Report): Markup {
  const { metrics } = report;
  const sides = sidesOf(report);
  const { size, latency, memory, coverage, accuracy, fidelity } = metrics;
  const worst = fidelity.outputs.toSorted((a, b) => (a.sqnr_db ?? Infinity) - (b.sqnr_db ?? Infinity))[0];
  const tiles: [string, Content, Content][] = [
    ["Size", percent(size.ratio), `${bytes(size.before_bytes)} → ${bytes(size.after_bytes)}`],
    ["Fidelity", decibels(worst?.sqnr_db ?? null), `cosine ${worst ? cosine(worst.cosine) : "–"}, worst output`],
    [
      "Latency",
      ratio(latency.speedup),
      `median ${duration(latency.before.p50_ms)} → ${duration(latency.after.p50_ms)}`,
    ],
    [
      "Peak memory",
      bytes(memory.after_peak_bytes),
      `${sides.before} ${bytes(memory.before_peak_bytes)}; ${bytes(memory.baseline_bytes)} of it is the runtime`,
    ],
  ];
  if (!metrics.training) {
    tiles.push([
      "Nodes compressed",
      coverage.quantized_nodes,
      `${coverage.skipped_nodes.length} left alone, ${coverage.fused_nodes} run on quantized data`,
    ]);
  }
  if (accuracy) {
    const format = metricFormat(accuracy.metric);
    tiles.splice(2, 0, [accuracy.metric, format(accuracy.after), `${sides.before} ${format(accuracy.before)}`]);
  }
  return html`<div class="tiles">${tiles.map(
    ([label, value, detail]) =>
      html`<section class="tile"><h2>${label}</h2><p class="figure">${value}</p><p class="muted">${detail}</p></section>`,
  )}</div>`;
}

function acceptance({ metrics }: Report): Content {
  if (metrics.acceptance.length === 0) return null;
  return section(
    "Limits",
    table(
      ["Limit", "Asked for", "Measured", "Kept"],
      metrics.acceptance.map(({ name, limit, value, ok }) => [
        html`<code>${name}</code>`,
        significant(limit),
        value === null ? (ok ? "nothing to miss" : "not measured") : significant(value),
        ok ? html`<b class="good">yes</b>` : html`<b class="bad">no</b>`,
      ]),
    ),
  );
}

function latency(report: Report): Markup {
  const { metrics, latency_samples_ms: samples } = report;
  const sides = sidesOf(report);
  const { before, after, batch_size, threads, runs } = metrics.latency;
  const end = Math.max(...samples.before, ...samples.after, 1e-6);
  const rows = [
    { label: sides.before, timing: before, times: samples.before },
    { label: sides.after, timing: after, times: samples.after },
  ];
  return section(
    "Latency",
    html`<p class="muted">${plural(runs, "run")} of each model in turns, batch ${batch_size}, ${plural(threads, "thread")}. Each mark is a
run, the tall one the median; from 0 to ${duration(end)}.</p>`,
    table(
      ["", "Spread", "Median", "90 %", "Mean"],
      rows.map(({ label, timing, times }) => [
        label,
        strip(times, timing.p50_ms, end),
        duration(timing.p50_ms),
        duration(timing.p90_ms),
        duration(timing.mean_ms),
      ]),
    ),
  );
}

const STRIP_WIDTH = 1000;

/** Times as marks along a line from 0 to `end`. */
function strip(times: readonly number[], median: number, end: number): Markup {
  const x = (ms: number) => Math.round((ms / end) * (STRIP_WIDTH - 4)) + 2;
  const marks = times.map((ms) => `M${x(ms)} 7v10`).join("");
  return html`<svg class="strip" viewBox="0 0 ${STRIP_WIDTH} 24" preserveAspectRatio="none" role="img" aria-label="${duration(median)} median">
<path class="line" d="M0 12H${STRIP_WIDTH}"/><path class="run" d="${marks}"/><path class="median" d="M${x(median)} 0v24"/></svg>`;
}

const DATA_KINDS: Readonly<Record<string, string>> = {
  evaluation: "the evaluation data",
  validation: "the training data that were held out",
  calibration: "the calibration data, which the compression has seen",
  synthetic: "synthetic input: random numbers, not what the model is for",
};

function fidelity({ metrics }: Report): Markup {
  const { outputs, samples, data } = metrics.fidelity;
  const hasBroken = outputs.some((output) => output.non_finite > 0 || output.shape_mismatches > 0);
  return section(
    "Fidelity of each output",
    html`<p class="muted">Against the original model on ${plural(samples, "sample")} of ${DATA_KINDS[data]}. Same answer: the share of positions with
the same largest score, or of equal integers.</p>`,
    table(
      [
        "Output",
        "SQNR",
        "Cosine",
        "Largest error",
        "Mean error",
        "Same answer",
        ...(hasBroken ? ["Not finite", "Other shape"] : []),
      ],
      outputs.map((output) => [
        html`<code>${output.name}</code>`,
        decibels(output.sqnr_db),
        cosine(output.cosine),
        significant(output.max_abs_error),
        significant(output.mean_abs_error),
        output.top1_agreement === null ? "–" : percent(output.top1_agreement),
        ...(hasBroken ? [output.non_finite, output.shape_mismatches] : []),
      ]),
    ),
  );
}

function accuracy(report: Report): Content {
  const { accuracy } = report.metrics;
  if (!accuracy) return null;
  const format = metricFormat(accuracy.metric);
  return section(
    "Accuracy against the labels",
    table(
      ["Metric", ...headings(report), "Drop", "Samples"],
      [[accuracy.metric, format(accuracy.before), format(accuracy.after), format(accuracy.drop), accuracy.samples]],
    ),
  );
}

function weights(report: Report): Markup {
  const { before, after } = report.models;
  const dtypes = new Set([...Object.keys(before.weight_bytes_by_dtype), ...Object.keys(after.weight_bytes_by_dtype)]);
  const of = (facts: ModelFacts, dtype: string) =>
    bytes(facts.weight_bytes_by_dtype[dtype as keyof ModelFacts["weight_bytes_by_dtype"]] ?? 0);
  return section(
    "Weights",
    table(
      ["", ...headings(report)],
      [
        ["Parameters", count(before.parameters), count(after.parameters)],
        ["Nodes", count(before.nodes), count(after.nodes)],
        ...[...dtypes].map((dtype) => [html`<code>${dtype}</code>`, of(before, dtype), of(after, dtype)]),
        ["All weights", bytes(before.weight_bytes), bytes(after.weight_bytes)],
      ],
    ),
  );
}

/** The same, as headings of columns. */
function headings(report: Report): string[] {
  const { before, after } = sidesOf(report);
  return [before, after].map((word) => word[0]!.toUpperCase() + word.slice(1));
}

function coverage({ nodes, metrics: { coverage, training }, optimized_operators }: Report): Content {
  // Training rewrites no nodes.
  if (training && nodes.length === 0) return null;
  const byOperator = new Map<string, { changed: number; skipped: number }>();
  for (const { op, outcome } of nodes) {
    if (outcome === "simplified") continue;
    const row = byOperator.get(op) ?? { changed: 0, skipped: 0 };
    row[outcome]++;
    byOperator.set(op, row);
  }
  const operators = [...byOperator].sort(([a], [b]) => (a < b ? -1 : 1));
  return section(
    "Coverage",
    operators.length > 0
      ? table(
          ["Operator", "Compressed", "Left alone"],
          operators.map(([op, { changed, skipped }]) => [html`<code>${op}</code>`, changed, skipped]),
        )
      : html`<p>No node was looked at.</p>`,
    noteGroups("Left alone", coverage.skipped_nodes),
    noteGroups("Run in float all the same", coverage.float_islands),
    html`<details><summary>Operators that onnxruntime runs</summary>${table(
      ["Operator", "Nodes"],
      Object.entries(optimized_operators).map(([op, nodes]) => [html`<code>${op}</code>`, nodes]),
    )}</details>`,
  );
}

/** Nodes by the reason they share. */
function noteGroups(title: string, notes: readonly NodeNote[]): Content {
  const groups = Map.groupBy(notes, ({ code }) => code);
  return [...groups].map(([code, group]) => {
    const shown = group.slice(0, MAX_ROWS);
    return html`<details><summary>${title}: ${plural(group.length, "node")}, <code>${code}</code></summary>
${table(
  ["Node", "Operator", "Why"],
  shown.map(({ name, op, message }) => [html`<code>${name}</code>`, html`<code>${op}</code>`, message]),
)}${group.length > shown.length ? html`<p class="muted">${group.length - shown.length} more are in report.json.</p>` : null}</details>`;
  });
}

function parameters({ job }: Report): Markup {
  const groups = [
    ["", job.params],
    ["evaluation.", job.evaluation],
    ["acceptance.", job.acceptance],
  ] as const;
  return definitions([
    ["type", job.type],
    ...groups.flatMap(([prefix, values]) =>
      Object.entries(values).map(([key, value]): [string, Content] => [
        prefix + key,
        html`<code>${typeof value === "string" ? value : JSON.stringify(value)}</code>`,
      ]),
    ),
  ]);
}

function shapes(inputs: Report["input_shapes"]): string {
  return Object.entries(inputs)
    .map(([name, dims]) => `${name} [${dims.join(", ")}]`)
    .join("; ");
}
