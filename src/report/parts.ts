import { METRICS, type MetricName } from "../core/evaluate/metrics.ts";
import { type Content, html, type Markup, plainText } from "./markup.ts";
import type { Report } from "./report.ts";

/** What the sections of the report are made of. */

// ---- parts -----------------------------------------------------------------------------------------------------------

export function section(title: string, ...content: readonly Content[]): Markup {
  return html`<section><h2>${title}</h2>${content}</section>`;
}

/**
 * The first column are row headings. On a phone each row stands by itself, with the headings of its cells beside them: nothing is out of sight.
 */
export function table(head: readonly Content[], rows: readonly (readonly Content[])[]): Markup {
  const labels = head.map(plainText);
  return html`<div class="scroll"><table class="rows"><thead><tr>${head.map((text) => html`<th scope="col">${text}</th>`)}</tr></thead><tbody>${rows.map(
    ([first, ...cells]) =>
      html`<tr><th scope="row">${first}</th>${cells.map((cell, i) => html`<td data-label="${labels[i + 1]}">${cell}</td>`)}</tr>`,
  )}</tbody></table></div>`;
}

export function definitions(entries: readonly (readonly [Content, Content])[]): Markup {
  return html`<dl>${entries.map(([term, value]) => html`<dt>${term}</dt><dd>${value}</dd>`)}</dl>`;
}

/** Rows to be opened. */
export function details(summary: Content, ...content: readonly Content[]): Markup {
  return html`<details><summary>${summary}</summary>${content}</details>`;
}

/** What the two models are called. */
export function sidesOf({ job, metrics }: Report): { readonly before: string; readonly after: string } {
  const isTaught = metrics.training !== null && typeof job.params.teacher_model_id === "string";
  return isTaught ? { before: "teacher", after: "student" } : { before: "before", after: "after" };
}

/** The start and the end of a text that is longer than `most`: names of nodes differ at the end. */
export function shortened(text: string, most: number): string {
  if (text.length <= most) return text;
  const end = Math.ceil((most - 1) * 0.65);
  return `${text.slice(0, most - 1 - end)}…${text.slice(-end)}`;
}

// ---- numbers ---------------------------------------------------------------------------------------------------------

/** Three significant digits, without exponents for everyday sizes. */
export function significant(value: number): string {
  if (value === 0) return "0";
  return Math.abs(value) >= 1e-4 && Math.abs(value) < 1e6
    ? String(Number(value.toPrecision(3)))
    : value.toExponential(2);
}

export function count(value: number): string {
  return value.toLocaleString("en-US");
}

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"] as const;

/** The unit in which a number of bytes has one to three digits before the point, and how many bytes it is. */
export function byteUnit(value: number): { readonly unit: string; readonly factor: number } {
  const power = Math.min(Math.max(Math.floor(Math.log10(Math.max(value, 1)) / 3), 0), BYTE_UNITS.length - 1);
  return { unit: BYTE_UNITS[power]!, factor: 1000 ** power };
}

export function bytes(value: number): string {
  const { unit, factor } = byteUnit(value);
  return `${significant(value / factor)} ${unit}`;
}

export function duration(ms: number): string {
  return ms >= 1000
    ? `${significant(ms / 1000)} s`
    : ms >= 1 || ms === 0
      ? `${significant(ms)} ms`
      : `${significant(ms * 1000)} µs`;
}

export function percent(share: number): string {
  return `${Number((100 * share).toFixed(2))} %`;
}

export function ratio(value: number): string {
  return `${value.toFixed(2)} ×`;
}

export function decibels(value: number | null): string {
  return value === null ? "identical" : `${value.toFixed(1)} dB`;
}

/** Many nines matter. */
export function cosine(value: number): string {
  return value.toFixed(6);
}

export function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** How values of a metric are written: one of `METRICS`, or `teacher_agreement` or `teacher_mse`. */
export function metricFormat(metric: string): (value: number) => string {
  const isShare = Object.hasOwn(METRICS, metric) ? METRICS[metric as MetricName].isShare : metric !== "teacher_mse";
  return isShare ? percent : significant;
}

/** What a cell says first, and what it adds in a second line. */
export function below(first: Content, second: string): Markup {
  return html`<div>${first}<br><span class="muted">${second}</span></div>`;
}

/** A number, and below it between which it lies; the unit is said once. */
export function within(
  value: string,
  interval: readonly [number, number] | null,
  format: (end: number) => string,
): Content {
  if (!interval) return value;
  const [low, high] = [format(interval[0]), format(interval[1])];
  const unit = /\s\D+$/.exec(high)?.[0] ?? "";
  return below(value, `${low.endsWith(unit) ? low.slice(0, low.length - unit.length) : low} … ${high}`);
}
