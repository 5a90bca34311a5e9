import type { EvaluatedModel, JobMetrics } from "../core/facts.ts";
import { type Content, html, type Markup } from "./markup.ts";
import {
  below,
  bytes,
  count,
  decibels,
  duration,
  metricFormat,
  percent,
  ratio,
  section,
  table,
  within,
} from "./parts.ts";
import type { DrawChart } from "./plots.ts";
import type { Report } from "./report.ts";
import { type Trade, tradeChart } from "./trade-chart.ts";

/** Models of an evaluation side by side. Nothing for other jobs. */
export function contest({ metrics }: Report, draw: DrawChart): Content {
  const { models } = metrics;
  if (!models) return null;
  return [
    section(
      "Models compared",
      html`<p class="muted">The first model is the reference of all others: what they answer is held against its answers on the same input. Below a number:
its confidence interval at 95 %.</p>`,
      models.length > 1
        ? tradeChart(
            models.map((model, i) => tradeOf(model, i, models)),
            draw,
          )
        : null,
      comparison(models),
    ),
    latencies(models),
    models.some(({ acceptance }) => acceptance.length > 0) ? limits(models) : null,
  ];
}

/** Of the worst output. */
export function worstOutput({ fidelity }: Pick<JobMetrics, "fidelity">) {
  return fidelity.outputs.toSorted((a, b) => (a.sqnr_db ?? Infinity) - (b.sqnr_db ?? Infinity))[0];
}

/** What a model is called among the others: its name where that tells it apart. */
export function shortName({ name }: EvaluatedModel, i: number, models: readonly EvaluatedModel[]): string {
  const isUnique = name !== null && models.filter((other) => other.name === name).length === 1;
  return isUnique ? name : `model ${i + 1}`;
}

/** A model in the first column of a table. */
function modelCell(model: EvaluatedModel, i: number, models: readonly EvaluatedModel[]): Markup {
  const role = i === 0 && models.length > 1 ? " (reference)" : "";
  return html`<b>${shortName(model, i, models)}</b>${role}`;
}

function tradeOf(model: EvaluatedModel, i: number, models: readonly EvaluatedModel[]): Trade {
  const { size, latency, accuracy } = model;
  return {
    name: shortName(model, i, models),
    bytes: size.after_bytes,
    speedup: latency.speedup,
    quality: accuracy
      ? { name: accuracy.metric, value: accuracy.after, interval: accuracy.after_interval }
      : fidelityOf(model, i === 0),
    isMarked: i === 0,
  };
}

function fidelityOf(model: EvaluatedModel, isReference: boolean): Trade["quality"] {
  const worst = isReference ? undefined : worstOutput(model);
  return { name: "SQNR", value: worst?.sqnr_db ?? null, interval: worst?.sqnr_interval_db ?? null };
}

function comparison(models: readonly EvaluatedModel[]): Markup {
  const metric = models[0]!.accuracy?.metric;
  const format = metric ? metricFormat(metric) : String;
  return table(
    ["Model", "Size", ...(metric ? [metric, "Drop"] : []), "SQNR", "Same answer", "Latency", "Speedup", "Peak memory"],
    models.map((model, i) => {
      const { size, accuracy, latency, memory } = model;
      const worst = worstOutput(model);
      const isReference = i === 0;
      return [
        below(modelCell(model, i, models), `${count(model.parameters)} param.`),
        below(bytes(size.after_bytes), percent(size.ratio)),
        ...(metric
          ? [
              accuracy ? within(format(accuracy.after), accuracy.after_interval, format) : "–",
              accuracy && !isReference ? within(format(accuracy.drop), accuracy.interval, format) : "–",
            ]
          : []),
        isReference ? "–" : within(decibels(worst?.sqnr_db ?? null), worst?.sqnr_interval_db ?? null, decibels),
        worst?.top1_agreement == null
          ? "–"
          : within(percent(worst.top1_agreement), worst.top1_agreement_interval, percent),
        duration(latency.after.p50_ms),
        isReference ? "–" : within(ratio(latency.speedup), latency.speedup_interval, ratio),
        bytes(memory.after_peak_bytes),
      ];
    }),
  );
}

function latencies(models: readonly EvaluatedModel[]): Markup {
  return section(
    "Latency by batch size and threads",
    html`<p class="muted">Median of a run; all models in turns. In brackets: how many times as fast as the reference.</p>`,
    table(
      ["Model", ...models[0]!.latencies.map(({ batch_size, threads }) => `batch ${batch_size}, ${threads} thr.`)],
      models.map((model, i) => [
        modelCell(model, i, models),
        ...model.latencies.map(({ after, speedup }) =>
          i === 0 ? duration(after.p50_ms) : `${duration(after.p50_ms)} (${ratio(speedup)})`,
        ),
      ]),
    ),
  );
}

function limits(models: readonly EvaluatedModel[]): Markup {
  return section(
    "Limits",
    table(
      ["Model", "Limit", "Asked for", "Measured", "Kept"],
      models.flatMap((model, i) =>
        model.acceptance.map(({ name, limit, value, ok }) => [
          modelCell(model, i, models),
          html`<code>${name}</code>`,
          String(limit),
          value === null ? (ok ? "nothing to miss" : "not measured") : String(Number(value.toPrecision(4))),
          ok ? html`<b class="good">yes</b>` : html`<b class="bad">no</b>`,
        ]),
      ),
    ),
  );
}
