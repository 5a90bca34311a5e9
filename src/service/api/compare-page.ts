import { type Content, html } from "../../report/markup.ts";
import { REPORT_POLICY, REPORT_SCRIPT } from "../../report/script.ts";
import { REPORT_STYLE } from "../../report/style.ts";
import type { ComparisonOfJobs } from "./compare.ts";

/** The page of a comparison: one table, which can be sorted by each of its columns. All text of users is escaped. */

type Compared = ComparisonOfJobs["jobs"][number];

interface Cell {
  readonly text: Content;
  /** What it is sorted by. */
  readonly key: string | number;
}

const NOTHING: Cell = { text: "–", key: "" };

const mib = (value: number) => `${(value / 2 ** 20).toPrecision(3)} MiB`;

const COLUMNS: readonly (readonly [string, (metrics: NonNullable<Compared["metrics"]>) => Cell])[] = [
  [
    "Size",
    ({ size }) => ({ text: `${mib(size.after_bytes)} (${(100 * size.ratio).toFixed(1)} %)`, key: size.after_bytes }),
  ],
  [
    "Median latency",
    ({ latency }) => ({ text: `${latency.after.p50_ms.toPrecision(3)} ms`, key: latency.after.p50_ms }),
  ],
  ["Speedup", ({ latency }) => ({ text: `${latency.speedup.toFixed(2)} ×`, key: latency.speedup })],
  [
    "Metric",
    ({ accuracy }) =>
      accuracy === null
        ? NOTHING
        : { text: `${accuracy.metric} ${Number(accuracy.after.toPrecision(4))}`, key: accuracy.after },
  ],
  [
    "Loss",
    ({ accuracy }) =>
      accuracy === null ? NOTHING : { text: String(Number(accuracy.drop.toPrecision(3))), key: accuracy.drop },
  ],
  [
    "Worst SQNR",
    ({ worst_sqnr_db: noise }) =>
      noise === null ? { text: "identical", key: 1000 } : { text: `${noise.toFixed(1)} dB`, key: noise },
  ],
  ["Peak memory", ({ memory }) => ({ text: mib(memory.after_peak_bytes), key: memory.after_peak_bytes })],
  [
    "Limits",
    ({ acceptance }) => {
      const missed = acceptance.filter(({ ok }) => !ok).map(({ name }) => name);
      if (acceptance.length === 0) return { text: "none", key: 1 };
      return missed.length === 0 ? { text: "kept", key: 0 } : { text: `missed: ${missed.join(", ")}`, key: 2 };
    },
  ],
];

export function comparisonPage({ jobs, differences }: ComparisonOfJobs): string {
  const count = jobs.length === 1 ? "1 job" : `${jobs.length} jobs`;
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${REPORT_POLICY}">
<meta name="color-scheme" content="light dark">
<title>Comparison of ${count} – modelpress</title>
<style>${REPORT_STYLE}</style>
</head>
<body>
<header>
<p class="eyebrow">modelpress comparison</p>
<h1>${count}</h1>
${differences.length > 0 ? html`<ul class="notices">${differences.map(({ message }) => html`<li>${message}</li>`)}</ul>` : null}
</header>
<section><h2>Results</h2>
<div class="scroll"><table class="rows sortable"><thead><tr>${["Job", ...COLUMNS.map(([name]) => name)].map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
<tbody>${jobs.map(row)}</tbody></table></div>
</section>
<script>${REPORT_SCRIPT}</script>
</body>
</html>
`.text;
}

function row(job: Compared) {
  const { job_id, name, title, status, metrics } = job;
  const called = name ?? title;
  const link =
    metrics === null
      ? html`${called} <span class="muted">${status}</span>`
      : html`<a href="/v1/jobs/${job_id}/report">${called}</a>`;
  const cells = COLUMNS.map(([label, of]) => {
    const { text, key } = metrics === null ? NOTHING : of(metrics);
    return html`<td data-label="${label}" data-key="${key}">${text}</td>`;
  });
  const about = name === null ? null : html`${title}<br>`;
  return html`<tr><th scope="row" data-key="${called}">${link}<br><span class="muted">${about}<code>${job_id}</code></span></th>${cells}</tr>`;
}
