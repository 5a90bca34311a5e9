import { type Content, html, type Markup } from "./markup.ts";

/** What the sections of the report are made of. */

// ---- parts -----------------------------------------------------------------------------------------------------------

export function section(title: string, ...content: readonly Content[]): Markup {
  return html`<section><h2>${title}</h2>${content}</section>`;
}

/** The first column are row headings; tables wider than the page scroll by themselves. */
export function table(head: readonly string[], rows: readonly (readonly Content[])[]): Markup {
  return html`<div class="scroll"><table><thead><tr>${head.map((text) => html`<th scope="col">${text}</th>`)}</tr></thead><tbody>${rows.map(
    ([first, ...cells]) => html`<tr><th scope="row">${first}</th>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>`,
  )}</tbody></table></div>`;
}

export function definitions(entries: readonly (readonly [string, Content])[]): Markup {
  return html`<dl>${entries.map(([term, value]) => html`<dt>${term}</dt><dd>${value}</dd>`)}</dl>`;
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

export function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(Math.max(Math.floor(Math.log10(Math.max(value, 1)) / 3), 0), units.length - 1);
  return `${significant(value / 1000 ** power)} ${units[power]}`;
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

export function metricFormat(metric: string): (value: number) => string {
  return metric === "mse" || metric === "teacher_mse" ? significant : percent;
}
