import { type Content, html } from "./markup.ts";
import { bytes, count, decibels, duration, metricFormat, percent, ratio, section, table } from "./parts.ts";
import type { Report, ReportedStep } from "./report.ts";

/** What each step of a pipeline was worth, one row each, and all of them together. Nothing for other jobs. */
export function pipelineSteps({ job, steps, metrics, models }: Report): Content {
  const [first] = steps;
  if (first === undefined) return null;
  const metric = metrics.accuracy?.metric;
  const start = [
    "to begin with",
    "",
    count(models.before.parameters),
    bytes(metrics.size.before_bytes),
    duration(metrics.latency.before.p50_ms),
    ...(metric ? [metricFormat(metric)(metrics.accuracy!.before)] : []),
    "",
  ];
  const whole = [
    html`<b>in all</b>`,
    "",
    percent(models.after.parameters / models.before.parameters),
    percent(metrics.size.ratio),
    html`${ratio(metrics.latency.speedup)} as fast`,
    ...(metric ? [html`${metricFormat(metric)(metrics.accuracy!.drop)} lost`] : []),
    "",
  ];
  return section(
    "Steps",
    html`<p class="muted">Each step works on the model of the step before, and has a report of its own among the artifacts:
${steps.map(
  ({ name }, i) =>
    html`${i > 0 ? ", " : null}<a href="/v1/jobs/${job.id}/artifacts/${name}.report.html">${name}.report.html</a>`,
)}. Latencies of different steps were measured at different times; the last row was measured in turns.</p>`,
    table(
      ["Step", "What", "Parameters", "Size", "Latency", ...(metric ? [metric] : []), "SQNR to the step before"],
      [start, ...steps.map((step) => rowOf(step, metric)), whole],
    ),
  );
}

function rowOf({ name, type, parameters, metrics }: ReportedStep, metric: string | undefined): readonly Content[] {
  const { accuracy, size, latency, fidelity } = metrics;
  const worst = fidelity.outputs.toSorted((a, b) => (a.sqnr_db ?? Infinity) - (b.sqnr_db ?? Infinity))[0];
  return [
    html`<code>${name}</code>`,
    type,
    count(parameters),
    bytes(size.after_bytes),
    duration(latency.after.p50_ms),
    ...(metric ? [accuracy?.metric === metric ? metricFormat(metric)(accuracy.after) : "–"] : []),
    decibels(worst?.sqnr_db ?? null),
  ];
}
