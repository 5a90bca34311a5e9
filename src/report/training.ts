import type { EpochFacts, TrainingMetrics } from "../core/facts.ts";
import { type Content, html, type Markup } from "./markup.ts";
import {
  bytes,
  count,
  details,
  duration,
  metricFormat,
  percent,
  plural,
  section,
  shortened,
  significant,
  table,
} from "./parts.ts";
import { countingTicks, type DrawChart } from "./plots.ts";
import type { Report } from "./report.ts";

/** How training went: curves, and teacher, student before, student after and baseline side by side. Nothing for other jobs. */
export function training(report: Report, draw: DrawChart): Content {
  const { training, environment } = report.metrics;
  if (!training) return null;
  const { history, best_epoch, samples_per_second, metric, teacher_metric } = training;
  const format = metricFormat(metric ?? "");
  return section(
    "Training",
    html`<p class="muted">${plural(history.length, "epoch")} at ${significant(samples_per_second)} samples a second on
${environment.cpu}; ${best_epoch === 0 ? "no epoch was better than the start, whose weights were kept" : `the weights are those of epoch ${best_epoch}`}.${
      training.baseline_history ? " Baseline: the same student from the same start, trained on the labels alone." : ""
    }</p>`,
    comparison(report, training),
    html`<div class="charts">${curve(
      "Training loss of each epoch",
      training,
      ({ loss }) => loss,
      { unit: "loss", format: significant },
      draw,
    )}${curve(
      `Validation ${metric ?? ""} of each epoch`,
      training,
      ({ validation_metric }) => validation_metric,
      { unit: format(0.5) === "50 %" ? "%" : (metric ?? ""), format, teacher: teacher_metric },
      draw,
    )}</div>`,
    epochs(training),
    networks(training, draw),
    exits(report),
  );
}

/** Every network with its numbers, and its own curves, where there are several. */
function networks(training: TrainingMetrics, draw: DrawChart): Content {
  const { networks, chosen, ensemble_metric, metric } = training;
  if (networks.length < 2) return null;
  const format = metricFormat(metric ?? "");
  const number = (value: number | null) => (value === null ? "–" : format(value));
  const rows = networks.map((network): Content[] => [
    network.name === chosen ? html`<b>${network.name}</b>` : network.name,
    count(network.parameters),
    number(network.before_metric),
    number(network.metric),
    number(network.validation_metric),
    network.best_epoch,
    html`<code>${network.artifact}</code>`,
  ]);
  const ensemble: Content[][] =
    ensemble_metric === null ? [] : [["All together", "", "", number(ensemble_metric), "", "", ""]];
  return html`<h3>Networks</h3>
<p class="muted">${chosen === "average" ? "The result answers with the mean of all." : html`The result is <b>${chosen}</b>.`}
Held out: the metric of its best epoch, by which it is chosen. All together: the mean of all answers.</p>
${table(["Network", "Parameters", "Before", "After", "Held out", "Epoch", "File"], [...rows, ...ensemble])}
${networks.map(
  (network) =>
    html`<h3>${network.name}</h3><div class="charts">${curve(
      `${network.name}: training loss of each epoch`,
      { ...network, baseline_history: null },
      ({ loss }) => loss,
      { unit: "loss", format: significant, line: network.name },
      draw,
    )}${curve(
      `${network.name}: validation ${metric ?? ""} of each epoch`,
      { ...network, baseline_history: null },
      ({ validation_metric }) => validation_metric,
      { unit: format(0.5) === "50 %" ? "%" : (metric ?? ""), format, line: network.name },
      draw,
    )}</div>`,
)}`;
}

/** What each exit answers, and what it costs. */
function exits({ metrics }: Report): Content {
  const { exits, training } = metrics;
  if (!exits) return null;
  const format = metricFormat(training?.metric ?? "");
  return html`<h3>Exits</h3>
<p class="muted">Shares are of the whole network, up to an exit's answer; latency was measured in turn with it.</p>
${table(
  ["Exit", "Reads", training?.metric ?? "metric", "Multiply-accumulates", "Latency", "File"],
  exits.map(({ name, value, metric, macs_share, latency_share, artifact }) => [
    name,
    html`<code>${shortened(value, 40)}</code>`,
    metric === null ? "–" : format(metric),
    percent(macs_share),
    percent(latency_share),
    artifact === null ? "not kept" : html`<code>${artifact}</code>`,
  ]),
)}`;
}

/** From here on a loss is drawn on a scale of powers of ten. */
const LOG_RANGE = 30;

/** A number of each epoch as a line; nothing when there are no numbers. */
function curve(
  title: string,
  { history, baseline_history, best_epoch }: Pick<TrainingMetrics, "history" | "baseline_history" | "best_epoch">,
  numberOf: (record: EpochFacts) => number | null,
  options: {
    readonly unit: string;
    readonly format: (value: number) => string;
    readonly teacher?: number | null;
    readonly line?: string;
  },
  draw: DrawChart,
): Content {
  const pointsOf = (records: readonly EpochFacts[]) =>
    records.flatMap((record) => {
      const value = numberOf(record);
      return value === null || !Number.isFinite(value) ? [] : [{ epoch: record.epoch, value }];
    });
  const own = pointsOf(history);
  const baseline = pointsOf(baseline_history ?? []);
  if (own.length === 0) return null;
  const { unit, format, teacher = null, line = "student" } = options;
  const best = own.filter(({ epoch }) => epoch === best_epoch);
  const values = [...own, ...baseline].map(({ value }) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const isLog = low > 0 && high > LOG_RANGE * low;
  const isShare = unit === "%";
  const at = ({ value }: { readonly value: number }) => (isShare ? 100 * value : value);
  return draw({
    title,
    alternative: `${format(own[0]!.value)} in epoch ${own[0]!.epoch}, ${format(own.at(-1)!.value)} in epoch ${own.at(-1)!.epoch}; between ${format(low)} and ${format(high)}`,
    span: "half",
    legend: [
      ["line", line],
      ...(baseline.length > 0 ? [["line baseline", "baseline"] as const] : []),
      ...(teacher !== null ? [["line teacher", "teacher"] as const] : []),
      ["dot", "the epoch that was kept"],
    ],
    draw: ({ plot }) => ({
      height: 230,
      x: {
        label: "epoch",
        labelArrow: "none",
        ticks: countingTicks(Math.max(...[...own, ...baseline].map(({ epoch }) => epoch)), 8),
        tickFormat: String,
      },
      y: {
        label: isShare ? "%" : unit,
        labelArrow: "none",
        grid: true,
        ticks: 5,
        nice: true,
        ...(isLog && { type: "log", tickFormat: "~g" }),
      },
      marks: [
        teacher === null
          ? null
          : plot.ruleY([{ value: teacher }], { y: at, stroke: "var(--good)", strokeDasharray: "2 3" }),
        plot.line(baseline, { x: "epoch", y: at, stroke: "var(--before)", strokeWidth: 2, strokeDasharray: "5 4" }),
        plot.line(own, { x: "epoch", y: at, stroke: "var(--after)", strokeWidth: 2 }),
        // A line of one point is nothing to see.
        plot.dot(own.length === 1 ? own : best, { x: "epoch", y: at, r: 4, fill: "var(--after)" }),
        plot.dot(baseline.length === 1 ? baseline : [], { x: "epoch", y: at, r: 4, stroke: "var(--before)" }),
      ],
    }),
  });
}

function epochs({ history, baseline_history, metric }: TrainingMetrics): Markup {
  const format = metricFormat(metric ?? "");
  const baseline = new Map(baseline_history?.map((record) => [record.epoch, record]));
  const numbers = (record: EpochFacts | undefined): Content[] => [
    record ? significant(record.loss) : "",
    record?.validation_metric == null ? "–" : format(record.validation_metric),
  ];
  return details(
    `All ${plural(history.length, "epoch")} in numbers`,
    table(
      [
        "Epoch",
        "Loss",
        "Validation",
        ...(baseline_history ? ["Baseline loss", "Baseline validation"] : []),
        "Learning rate",
      ],
      history.map((record) => [
        record.epoch,
        ...numbers(record),
        ...(baseline_history ? numbers(baseline.get(record.epoch)) : []),
        significant(record.learning_rate),
      ]),
    ),
  );
}

/** Columns of the comparison: which of the two models it is, and what the metric is there. */
interface Column {
  readonly name: string;
  readonly model: "before" | "after";
  readonly metric: number | null;
}

function comparison({ job, models, metrics }: Report, training: TrainingMetrics): Markup {
  const { size, latency, accuracy } = metrics;
  const isSimulated = job.type === "quantize";
  const isSame = accuracy?.metric === training.metric && accuracy?.samples === training.metric_samples;
  const made = isSimulated && isSame ? accuracy : null;
  const candidates: (Column | null)[] = [
    typeof job.params.teacher_model_id === "string"
      ? { name: "Teacher", model: "before", metric: training.teacher_metric }
      : null,
    made && { name: "In float", model: "before", metric: made.before },
    {
      name: isSimulated ? "Rounded, not trained" : "Student before",
      model: "after",
      metric: training.student_before_metric,
    },
    { name: isSimulated ? "Trained, simulated" : "Student after", model: "after", metric: training.student_metric },
    made && { name: "The model that was made", model: "after", metric: made.after },
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
