import { GRADES, type Grade } from "../core/evaluate/verdict.ts";
import type { TrainingMetrics } from "../core/facts.ts";
import { type Content, html, type Markup } from "./markup.ts";
import { bytes, count, decibels, duration, metricFormat, percent, plural, sidesOf, significant } from "./parts.ts";
import type { Report } from "./report.ts";
import { metricTerm, term } from "./terms.ts";

/** The top of the report: which model, what was done, smaller, faster, still right; and what must be known before any of it is used. */

/** What the model is called: its name, or its id. */
export function modelName({ origins, job }: Report): string {
  return origins.before.name ?? origins.before.id ?? job.id;
}

export function headline(report: Report): string {
  const { models } = report.metrics;
  const other = models?.length === 2 ? models[1]?.name : undefined;
  return other ? `${modelName(report)} and ${other}, held against each other` : `${modelName(report)}: ${report.title}`;
}

// ---- one sentence ----------------------------------------------------------------------------------------------------

/** "3.8× smaller (10.8 → 2.87 MB), 2.5× faster (23.8 → 9.5 ms), same answer on 98.7 % of 32 samples". */
export function summarySentence(report: Report): string {
  const { size, latency, models } = report.metrics;
  if (models?.length === 1) return `${bytes(size.after_bytes)}, ${duration(latency.after.p50_ms)} a run.`;
  const parts = [
    `${compared(1 / size.ratio, "smaller", "larger", "as large")} (${span(size.before_bytes, size.after_bytes, bytes)})`,
    `${compared(latency.speedup, "faster", "slower", "as fast")} (${span(latency.before.p50_ms, latency.after.p50_ms, duration)})`,
    rightness(report),
  ];
  // Of several models the first that is held against the reference is told of here, and all in the table.
  const which = models && models.length > 2 ? "The first of them: " : "";
  return `${which}${parts.join(", ")}.`;
}

/** Less than this is no difference that a median of runs can tell. */
const SAME = 0.02;

/** How many times as small or fast; `ratio` above 1 is the better way. */
function compared(ratio: number, better: string, worse: string, same: string): string {
  if (Math.abs(ratio - 1) < SAME) return same;
  return ratio > 1 ? `${times(ratio)} ${better}` : `${times(1 / ratio)} ${worse}`;
}

function times(ratio: number): string {
  return `${ratio < 10 ? ratio.toFixed(ratio < 1.1 ? 2 : 1) : Math.round(ratio)}×`;
}

function span(before: number, after: number, format: (value: number) => string): string {
  const [from, to] = [format(before), format(after)];
  const unit = from.split(" ")[1];
  return unit !== undefined && to.endsWith(` ${unit}`)
    ? `${from.slice(0, -unit.length - 1)} → ${to}`
    : `${from} → ${to}`;
}

function rightness({ metrics, held_against }: Report): string {
  const { accuracy, fidelity, training } = metrics;
  const { outputs, data, samples } = fidelity;
  if (training?.metric && training.student_metric !== null && held_against === "teacher") return trained(training);
  if (accuracy) {
    const format = metricFormat(accuracy.metric);
    return `${accuracy.metric} ${span(accuracy.before, accuracy.after, format)} on ${plural(accuracy.samples, "sample")}`;
  }
  const sqnr = decibels(worstSqnr(outputs));
  if (data === "synthetic") return `SQNR ${sqnr} on ${plural(samples, "random input")}, not judged on data`;
  const agreements = outputs.flatMap(({ top1_agreement }) => top1_agreement ?? []);
  if (agreements.length === 0) return `SQNR ${sqnr} on ${plural(samples, "sample")}`;
  return `same answer on ${Number((100 * Math.min(...agreements)).toFixed(1))} % of ${plural(samples, "sample")}`;
}

function trained({ metric, student_metric, teacher_metric, baseline_metric, metric_samples }: TrainingMetrics): string {
  const format = metricFormat(metric!);
  const others = [
    ...(teacher_metric === null ? [] : [`teacher ${format(teacher_metric)}`]),
    ...(baseline_metric === null ? [] : [`labels alone ${format(baseline_metric)}`]),
  ];
  return `${metric} ${format(student_metric!)}${others.length === 0 ? "" : ` (${others.join(", ")})`} on ${plural(metric_samples, "sample")}`;
}

/** Null: all outputs are identical. */
function worstSqnr(outputs: Report["metrics"]["fidelity"]["outputs"]): number | null {
  const values = outputs.flatMap(({ sqnr_db }) => sqnr_db ?? []);
  return values.length === 0 ? null : Math.min(...values);
}

// ---- verdict ---------------------------------------------------------------------------------------------------------

const TONES: Readonly<Record<Grade, string>> = {
  very_close: "good",
  close: "good",
  check_accuracy: "warn",
  broken: "bad",
  not_judged: "warn",
};

/** Whether a result is held against a model that it should equal: not where it was trained from labels. */
function isComparison({ held_against, metrics }: Report): boolean {
  if (metrics.models) return metrics.models.length > 1;
  return held_against === "original" || metrics.training === null || metrics.training.teacher_metric !== null;
}

/** What a grade is called where a student is held against its teacher: one that has learned too little is not broken. */
function gradeName({ held_against, verdict: { grade } }: Report): string {
  if (held_against === "original") return GRADES[grade];
  return grade === "broken" ? "Far from the teacher" : GRADES[grade].replace("original", "teacher");
}

export function verdict(report: Report): Markup {
  const { verdict, metrics, accepted, next } = report;
  const limits =
    metrics.acceptance.length === 0
      ? html`<span class="verdict plain">No limits were set</span>`
      : accepted
        ? html`<span class="verdict good">Accepted: every limit is kept</span>`
        : html`<span class="verdict bad">Not accepted: a limit is missed</span>`;
  if (metrics.models?.length === 1) return html`<p class="verdicts">${limits}</p>`;
  const judged = isComparison(report)
    ? html`<span class="verdict ${TONES[verdict.grade]}">${gradeName(report)}</span>`
    : html`<span class="verdict plain">Trained</span>`;
  const reason = isComparison(report)
    ? verdict.reason
    : "There is no original that it should equal: its own accuracy is what counts.";
  return html`<p class="verdicts">${judged} ${limits}</p>
<p class="muted">${reason}${next[0] ? html` <b>Next:</b> <a href="#next">${next[0].title}</a>.` : null}</p>`;
}

// ---- notices ---------------------------------------------------------------------------------------------------------

/** More memory than this, over the original's, is worth a word. */
const MORE_MEMORY = 1.2;
/** Of a layer: its error is stronger than its values. */
const LOST_LAYER_DB = 0;

/** What has to be known before numbers are believed, above all plots. */
export function notices({ metrics, layer_errors }: Report): Content {
  const { memory, fidelity } = metrics;
  const [before, after] = [memory.before_peak_bytes, memory.after_peak_bytes].map((it) => it - memory.baseline_bytes);
  const lost = (layer_errors ?? []).filter(({ sqnr_db }) => sqnr_db !== null && sqnr_db < LOST_LAYER_DB);
  const texts: Content[] = [
    ...metrics.warnings.map(({ message }) => message),
    before! > 0 && after! > MORE_MEMORY * before!
      ? `It takes ${percent(Math.round(100 * (after! / before! - 1)) / 100)} more memory than the original: ${bytes(after!)} instead of ${bytes(before!)}, the runtime itself left out.`
      : null,
    lost.length > 0
      ? `${plural(lost.length, "layer")} below 0 dB: what ${lost.length === 1 ? "it gives" : "they give"} is more error than value.`
      : null,
    fidelity.data === "synthetic"
      ? html`Compared on ${term("synthetic", "synthetic input")}: random numbers. Give <code>evaluation.dataset_id</code> to know whether answers stay right.`
      : null,
  ].filter((text) => text !== null);
  if (texts.length === 0) return null;
  return html`<ul class="notices" aria-label="Warnings">${texts.map((text) => html`<li>${text}</li>`)}</ul>`;
}

// ---- tiles -----------------------------------------------------------------------------------------------------------

type Tone = "good" | "bad" | "";
interface Tile {
  readonly label: Content;
  readonly figure: Content;
  readonly detail: Content;
  readonly tone?: Tone;
}

const toneOf = (ratio: number): Tone => (Math.abs(ratio - 1) < SAME ? "" : ratio > 1 ? "good" : "bad");
const ARROWS: Readonly<Record<Tone, string>> = { good: "▲ better", bad: "▼ worse", "": "" };

export function tiles(report: Report): Markup {
  const { metrics } = report;
  const { size, latency, memory, coverage, accuracy, fidelity, training } = metrics;
  const sides = sidesOf(report);
  const worst = fidelity.outputs.toSorted((a, b) => (a.sqnr_db ?? Infinity) - (b.sqnr_db ?? Infinity))[0];
  const own = [memory.before_peak_bytes, memory.after_peak_bytes].map((it) => it - memory.baseline_bytes);
  const all: Tile[] = [
    ...gainTile(training),
    {
      label: "Size",
      figure: compared(1 / size.ratio, "smaller", "larger", "same size"),
      detail: `${bytes(size.before_bytes)} → ${bytes(size.after_bytes)}, ${Number((100 * size.ratio).toFixed(1))} % of the ${sides.before === "teacher" ? "teacher" : "original"}`,
      tone: toneOf(1 / size.ratio),
    },
    {
      label: term("latency"),
      figure: compared(latency.speedup, "faster", "slower", "as fast"),
      detail: `median ${duration(latency.before.p50_ms)} → ${duration(latency.after.p50_ms)}`,
      tone: toneOf(latency.speedup),
    },
    ...(accuracy
      ? [
          {
            label: metricTerm(accuracy.metric),
            figure: metricFormat(accuracy.metric)(accuracy.after),
            detail: `${sides.before} ${metricFormat(accuracy.metric)(accuracy.before)}`,
            tone: accuracy.drop > 0 ? ("bad" as const) : accuracy.drop < 0 ? ("good" as const) : ("" as const),
          },
        ]
      : []),
    {
      label: html`Fidelity (${term("sqnr")})`,
      figure: decibels(worst?.sqnr_db ?? null),
      detail: html`higher is better; ${term("cosine", "cosine")} ${worst ? worst.cosine.toFixed(6) : "–"}, worst output`,
    },
    {
      label: term("memory"),
      figure: bytes(memory.after_peak_bytes),
      detail: `${sides.before} ${bytes(memory.before_peak_bytes)}; ${bytes(memory.baseline_bytes)} of it is the runtime`,
      tone: own[1]! > 0 && own[0]! > 0 && Math.abs(own[0]! / own[1]! - 1) > 0.1 ? toneOf(own[0]! / own[1]!) : "",
    },
    ...(training || report.steps.length > 0
      ? []
      : [
          {
            label: term("coverage"),
            figure: count(coverage.quantized_nodes),
            detail: `${count(coverage.skipped_nodes.length)} left alone, ${count(coverage.fused_nodes)} run on quantized data`,
          },
        ]),
  ];
  return html`<div class="tiles">${all.map(
    ({ label, figure, detail, tone = "" }) =>
      html`<section class="tile"><h2>${label}</h2><p class="figure">${figure}</p><p class="muted">${
        tone === "" ? null : html`<b class="${tone}">${ARROWS[tone]}</b> · `
      }${detail}</p></section>`,
  )}</div>`;
}

/** What the teacher was worth, where it was measured. */
function gainTile(training: TrainingMetrics | null): Tile[] {
  if (!training?.metric || training.student_metric === null || training.baseline_metric === null) return [];
  const { metric, student_metric, baseline_metric } = training;
  const isShare = metricFormat(metric)(0.5) === "50 %";
  // Of an error less is better.
  const gain = (isShare ? 1 : -1) * (student_metric - baseline_metric);
  const signed = `${gain < 0 ? "−" : "+"}${isShare ? `${Number((100 * Math.abs(gain)).toFixed(2))} points` : significant(Math.abs(gain))}`;
  const format = metricFormat(metric);
  return [
    {
      label: term("gain"),
      figure: signed,
      detail: html`${metricTerm(metric)} ${format(student_metric)}, labels alone ${format(baseline_metric)}`,
      tone: gain > 0 ? "good" : gain < 0 ? "bad" : "",
    },
  ];
}
