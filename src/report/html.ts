import type { ModelFacts } from "../core/facts.ts";
import { latencyChart, sizeChart } from "./charts.ts";
import { contest } from "./contest.ts";
import { deployment } from "./deployment.ts";
import { headline, notices, summarySentence, tiles, verdict } from "./headline.ts";
import { layerErrors } from "./layers.ts";
import { type Content, html, type Markup } from "./markup.ts";
import { nextSteps, provenance } from "./next.ts";
import { nodeSection } from "./nodes.ts";
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
  section,
  shortened,
  sidesOf,
  significant,
  table,
  within,
} from "./parts.ts";
import { type DrawChart, loadCharts } from "./plots.ts";
import type { Report } from "./report.ts";
import { REPORT_POLICY, REPORT_SCRIPT } from "./script.ts";
import { searchSections } from "./search.ts";
import { staticEvidence } from "./static.ts";
import { pipelineSteps } from "./steps.ts";
import { REPORT_STYLE } from "./style.ts";
import { inWords, metricTerm, term, termSection } from "./terms.ts";
import { training } from "./training.ts";

/**
 * The report as one page that needs nothing else: no network, no fonts, and a script only to sort tables. All text of users and models is
 * escaped, and the page forbids itself to load anything.
 */
export async function renderReport(report: Report): Promise<string> {
  const draw = await loadCharts();
  const { job, metrics } = report;
  const title = headline(report);
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${REPORT_POLICY}">
<meta name="color-scheme" content="light dark">
<title>${title} – modelpress report</title>
<style>${REPORT_STYLE}</style>
</head>
<body>
<header>
<p class="eyebrow">modelpress report${job.name ? html` · ${job.name}` : null}</p>
<h1>${title}</h1>
<p class="sentence">${summarySentence(report)}</p>
${verdict(report)}
${notices(report)}
</header>
<main>
${metrics.auto ? searchSections(report, draw) : metrics.models ? contest(report, draw) : comparison(report, draw)}
${provenance(report)}
${section("What was asked for", parameters(report))}
${section(
  "Where it was measured",
  definitions([
    ["CPU", metrics.environment.cpu],
    ["Instruction sets", metrics.environment.isa.join(", ") || "not known"],
    ...Object.entries({ onnxruntime: metrics.environment.onnxruntime, ...metrics.environment.versions }),
    ["Threads while measuring", metrics.environment.threads],
    ["Seed", metrics.environment.seed],
    ...(Object.keys(report.input_shapes).length > 0
      ? [["Inputs of one run", shapes(report.input_shapes)] as const]
      : []),
  ]),
)}
${section(
  "Time of each step",
  table(
    ["Step", "Time"],
    Object.entries(report.timings_ms).map(([step, ms]) => [inWords(step), duration(ms)]),
  ),
)}
${termSection()}
</main>
<footer class="muted"><code>${job.id}</code> · ${report.created_at.replace("T", " ").replace(/\..*$/, " UTC")}</footer>
<script>${REPORT_SCRIPT}</script>
</body>
</html>
`.text;
}

/** What was made, against what it was made from. */
function comparison(report: Report, draw: DrawChart): Content {
  return [
    tiles(report),
    nextSteps(report),
    acceptance(report),
    pipelineSteps(report),
    training(report, draw),
    sizeAndSpeed(report, draw),
    accuracy(report),
    fidelity(report),
    layerErrors(report, draw),
    deployment(report.metrics.deployment),
    staticEvidence(report, draw),
    nodeSection(report),
    weights(report),
  ];
}

// ---- sections --------------------------------------------------------------------------------------------------------

function acceptance({ metrics }: Report): Content {
  if (metrics.acceptance.length === 0) return null;
  return section(
    "Limits",
    table(
      ["Limit", "Asked for", "Measured", "Kept"],
      metrics.acceptance.map(({ name, limit, value, ok }) => [
        inWords(name),
        significant(limit),
        value === null ? (ok ? "nothing to miss" : "not measured") : significant(value),
        ok ? html`<b class="good">yes</b>` : html`<b class="bad">no</b>`,
      ]),
    ),
  );
}

function sizeAndSpeed(report: Report, draw: DrawChart): Markup {
  const sides = sidesOf(report);
  const { before, after, batch_size, threads, runs } = report.metrics.latency;
  const rows = [
    [sides.before, before],
    [sides.after, after],
  ] as const;
  return section(
    "Size and latency",
    html`<div class="charts">${sizeChart(report, draw)}${latencyChart(report, draw)}</div>
<p class="muted">${plural(runs, "run")} of each model in turns, batch ${batch_size}, ${plural(threads, "thread")}.</p>`,
    table(
      ["Latency", "Median", "90 %", "Mean"],
      rows.map(([label, { p50_ms, p90_ms, mean_ms }]) => [
        label,
        duration(p50_ms),
        duration(p90_ms),
        duration(mean_ms),
      ]),
    ),
  );
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
        term("sqnr"),
        term("cosine"),
        "Values",
        "Largest error",
        "Mean error",
        term("agreement"),
        ...(hasBroken ? ["Not finite", "Other shape"] : []),
      ],
      outputs.map((output) => [
        html`<code>${output.name}</code>`,
        within(decibels(output.sqnr_db), output.sqnr_interval_db, decibels),
        cosine(output.cosine),
        output.min_value === null || output.max_value === null
          ? "none is finite"
          : `${significant(output.min_value)} to ${significant(output.max_value)}`,
        significant(output.max_abs_error),
        significant(output.mean_abs_error),
        output.top1_agreement === null
          ? "–"
          : within(percent(output.top1_agreement), output.top1_agreement_interval, percent),
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
      [
        [
          metricTerm(accuracy.metric),
          within(format(accuracy.before), accuracy.before_interval, format),
          within(format(accuracy.after), accuracy.after_interval, format),
          within(format(accuracy.drop), accuracy.interval, format),
          accuracy.samples,
        ],
      ],
    ),
    html`<p class="muted">Below a number: its confidence interval at 95 %. That of the drop is of the same samples in both models.</p>`,
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

/** Characters of a parameter that are shown: lists of nodes can be long. */
const MAX_PARAMETER = 2000;

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
        html`<code>${shortened(typeof value === "string" ? value : JSON.stringify(value), MAX_PARAMETER)}</code>`,
      ]),
    ),
  ]);
}

function shapes(inputs: Report["input_shapes"]): string {
  return Object.entries(inputs)
    .map(([name, dims]) => `${name} [${dims.join(", ")}]`)
    .join("; ");
}
