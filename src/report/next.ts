import { shortName } from "./contest.ts";
import { modelName } from "./headline.ts";
import { type Content, html, type Markup } from "./markup.ts";
import { bytes, definitions, details, section } from "./parts.ts";
import type { Report, ReportedModel } from "./report.ts";
import { term } from "./terms.ts";

/** What to do after reading: the next jobs, the files, and the same again. */

/** What is worth trying, each with the job to paste. */
export function nextSteps({ next, job }: Report): Content {
  if (next.length === 0) return null;
  return section(
    "What next",
    html`<ol id="next" class="next">${next.map(
      ({ title, why, job }) =>
        html`<li><b>${title}</b><br><span class="muted">${why}</span>${paste("The job", job)}</li>`,
    )}</ol>
<p class="muted">A job is the body of <code>POST /v1/jobs</code>. Put the id of a dataset of yours for <code>dst_YOUR_DATASET</code>.
<a href="/#/compare/${job.id}">Compare this job with others</a>.</p>`,
  );
}

function paste(summary: string, body: object): Markup {
  return details(summary, code(JSON.stringify(body, null, 2)));
}

/** Text to be copied; the page's script adds a button. */
function code(text: string): Markup {
  return html`<pre class="copy" tabindex="0"><code>${text}</code></pre>`;
}

function resultRows(
  { job, metrics }: Report,
  { name, sha256 }: ReportedModel,
): readonly (readonly [Content, Content])[] {
  const file = name ?? "model.onnx";
  return [
    ["Result", html`<a href="/v1/jobs/${job.id}/artifacts/${file}">${file}</a>, ${bytes(metrics.size.after_bytes)}`],
    [term("sha256", "sha256 of the result"), html`<code>${sha256 ?? "not known"}</code>`],
  ];
}

/** What an evaluation holds against its reference. */
function others({ metrics: { models } }: Report): readonly (readonly [Content, Content])[] {
  return (models ?? []).flatMap((model, i, all) => {
    const link = html`<a href="/#/models/${model.model_id}">${shortName(model, i, all)}</a> <code>${model.model_id}</code>`;
    return i === 0 ? [] : [["Held against it", link] as const];
  });
}

/** Which files these are, and how to make them again. */
export function provenance(report: Report): Markup {
  const { origins, job, request } = report;
  const { before, after } = origins;
  return section(
    "Files, and the same again",
    definitions([
      ...(after === null ? [] : resultRows(report, after)),
      [
        after === null ? "Reference" : "Made from",
        before.id === null
          ? modelName(report)
          : html`<a href="/#/models/${before.id}">${modelName(report)}</a> <code>${before.id}</code>`,
      ],
      [term("sha256", "sha256 of that"), html`<code>${before.sha256 ?? "not known"}</code>`],
      ...others(report),
      [
        "Job",
        html`<a href="/#/jobs/${job.id}"><code>${job.id}</code></a> · <a href="/v1/jobs/${job.id}/artifacts/report.json">report.json</a>`,
      ],
    ]),
    html`<p>The same job again. With keys, add <code>-H "authorization: Bearer $KEY"</code>.</p>`,
    html`<pre class="copy" tabindex="0"><code>curl -sS -H 'content-type: application/json' <span data-origin>http://127.0.0.1:8080</span>/v1/jobs -d '${JSON.stringify(
      request,
      null,
      2,
    ).replaceAll("'", "'\\''")}'</code></pre>`,
    html`<p class="muted">Links work where the report is read from the service.</p>`,
  );
}
