import type { EpochFacts, TrainingMetrics } from "../facts.ts";
import { type Content, html, type Markup } from "./markup.ts";
import type { Report } from "./report.ts";
import { bytes, count, duration, metricFormat, plural, section, significant, table } from "./report-parts.ts";

/** How training went: curves, and teacher, student before, student after and baseline side by side. Nothing for other jobs. */
export function training(report: Report): Content {
  const { training, environment } = report.metrics;
  if (!training) return null;
  const { history, best_epoch, samples_per_second } = training;
  return section(
    "Training",
    html`<p class="muted">${plural(history.length, "epoch")} at ${significant(samples_per_second)} samples a second on
${environment.cpu}; the weights are those of epoch ${best_epoch}.${
      training.baseline_history ? " Dashed: the same student from the same start, trained on the labels alone." : ""
    }</p>`,
    html`<div class="curves">${curve("Loss", training, ({ loss }) => loss, significant)}${curve(
      `Validation ${training.metric ?? ""}`,
      training,
      ({ validation_metric }) => validation_metric,
      metricFormat(training.metric ?? ""),
    )}</div>`,
    comparison(report, training),
  );
}

const WIDTH = 600;
const HEIGHT = 200;

/** A number of each epoch as a line; nothing when there are no numbers. A single epoch is a level line. */
function curve(
  title: string,
  { history, baseline_history }: TrainingMetrics,
  numberOf: (record: EpochFacts) => number | null,
  format: (value: number) => string,
): Content {
  const series = [history, baseline_history ?? []].map((records) =>
    records.map(numberOf).filter((value) => value !== null),
  ) as [number[], number[]];
  const all = series.flat();
  if (all.length === 0) return null;
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const epochs = Math.max(series[0].length, series[1].length);
  const x = (epoch: number) => ((WIDTH * epoch) / Math.max(1, epochs - 1)).toFixed(1);
  // A margin keeps lines at the edges whole.
  const y = (value: number) => (HEIGHT - 4 - ((HEIGHT - 8) * (value - low)) / (high - low || 1)).toFixed(1);
  const path = (values: readonly number[]) => {
    const points = values.length === 1 ? [values[0]!, values[0]!] : values;
    const step = values.length === 1 ? WIDTH : undefined;
    return points
      .map((value, i) => `${i === 0 ? "M" : "L"}${step === undefined ? x(i) : i * step} ${y(value)}`)
      .join("");
  };
  const [own, baseline] = series;
  return html`<figure><figcaption class="muted">${title}: ${format(own[0]!)} → ${format(own.at(-1)!)},
between ${format(low)} and ${format(high)}</figcaption>
<svg class="curve" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label="${title} of each epoch">
${baseline.length > 0 ? html`<path class="baseline" d="${path(baseline)}"/>` : null}<path d="${path(own)}"/></svg></figure>`;
}

/** Columns of the comparison: which of the two models it is, and what the metric is there. */
interface Column {
  readonly name: string;
  readonly model: "before" | "after";
  readonly metric: number | null;
}

function comparison({ job, models, metrics }: Report, training: TrainingMetrics): Markup {
  const { size, latency } = metrics;
  const candidates: (Column | null)[] = [
    job.params.teacher_model_id === null ? null : { name: "Teacher", model: "before", metric: training.teacher_metric },
    { name: "Student before", model: "after", metric: training.student_before_metric },
    { name: "Student after", model: "after", metric: training.student_metric },
    training.baseline_history ? { name: "Baseline", model: "after", metric: training.baseline_metric } : null,
  ];
  const columns = candidates.filter((column) => column !== null);
  const format = metricFormat(training.metric ?? "");
  const row = (label: string, of: (column: Column) => Content) => [label, ...columns.map(of)];
  return table(
    ["", ...columns.map(({ name }) => name)],
    [
      row(
        training.metric ? `${training.metric}, ${plural(training.metric_samples, "sample")}` : "metric",
        ({ metric }) => (metric === null ? "–" : format(metric)),
      ),
      row("Parameters", ({ model }) => count(models[model].parameters)),
      row("Multiply-accumulates", ({ model }) => (models[model].macs === null ? "–" : count(models[model].macs))),
      row("File", ({ model }) => bytes(size[`${model}_bytes`])),
      row("Median latency", ({ model }) => duration(latency[model].p50_ms)),
    ],
  );
}
