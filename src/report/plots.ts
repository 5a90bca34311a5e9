import type * as PlotLibrary from "@observablehq/plot";
import { type Content, html, Markup } from "./markup.ts";

/** What a chart is drawn from: the library's marks, and how many units of width there are (of which a character takes about 7). */
export interface Canvas {
  readonly plot: typeof PlotLibrary;
  readonly width: number;
}

export interface Chart {
  /** A heading that says what is to be seen. */
  readonly title: string;
  /** The same in words, with the numbers that matter, for those who do not see it. */
  readonly alternative: string;
  /** Half a page wide or a whole one; on a phone both fill the width. */
  readonly span: "half" | "whole";
  /** What colours and marks stand for. */
  readonly legend?: readonly (readonly [mark: string, meaning: string])[];
  readonly draw: (canvas: Canvas) => PlotLibrary.PlotOptions;
  /** What is said below it. */
  readonly note?: Content;
}

/** Draws a chart as a figure. */
export type DrawChart = (chart: Chart) => Markup;

/** Units of width: a chart is drawn for a wide page and again for a phone, where the page shows one of the two. */
const WIDTHS = { half: 470, whole: 960, phone: 340 } as const;

/**
 * Loads the plotting library, which takes a fifth of a second of processor time and is of no use before the report. It draws SVG elements into
 * a document of its own; no browser takes part, and the same numbers give the same text. Colours are custom properties of the page's
 * style sheet, so that a drawing is dark where the page is.
 */
export async function loadCharts(): Promise<DrawChart> {
  const [plot, { parseHTML }] = await Promise.all([import("@observablehq/plot"), import("linkedom/worker")]);
  const { document } = parseHTML("<html></html>");
  const svg = (chart: Chart, kind: string, width: number): Markup => {
    const drawn = plot.plot({
      document,
      width,
      ...MARGINS,
      ...chart.draw({ plot, width }),
      className: "plot",
    });
    // The page's style sheet has what the library would put into each drawing.
    drawn.querySelector("style")?.remove();
    for (const part of drawn.querySelectorAll("*")) {
      part.removeAttribute("aria-label");
      part.removeAttribute("aria-hidden");
      for (const name of PLACES) {
        const place = part.getAttribute(name);
        if (place) part.setAttribute(name, rounded(place));
      }
    }
    for (const name of ["class", "font-family", "font-size"]) drawn.removeAttribute(name);
    const opening = html`<svg class="plot ${kind}" role="img" aria-label="${chart.alternative}"`.text;
    return new Markup(opening + drawn.outerHTML.slice("<svg".length));
  };
  return (chart) => html`<figure class="chart ${chart.span}"><figcaption>${chart.title}</figcaption>${legendOf(chart)}
${svg(chart, "wide", WIDTHS[chart.span])}${svg(chart, "narrow", WIDTHS.phone)}${
  chart.note ? html`<p class="muted">${chart.note}</p>` : null
}</figure>`;
}

/** Room for the axes; a label of an axis stands above it or at its end. */
const MARGINS = { marginTop: 28, marginRight: 14, marginBottom: 38, marginLeft: 48 } as const;

function legendOf({ legend }: Chart): Content {
  if (!legend || legend.length === 0) return null;
  return html`<ul class="legend">${legend.map(([mark, meaning]) => html`<li><i class="${mark}"></i>${meaning}</li>`)}</ul>`;
}

/** Some `most` of the numbers from 1 to `count`, at even distances. */
export function countingTicks(count: number, most: number): number[] {
  const step = [1, 2, 5].flatMap((digit) => [1, 10, 100, 1000].map((power) => digit * power)).sort((a, b) => a - b);
  const chosen = step.find((candidate) => count / candidate <= most) ?? count;
  return Array.from({ length: Math.floor(count / chosen) }, (_, i) => (i + 1) * chosen);
}

/** Attributes that say where something is. */
const PLACES = ["d", "transform", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height"] as const;

/** A hundredth of a unit is nothing that anyone sees, and digits are most of a drawing's bytes. */
function rounded(place: string): string {
  return place.replace(/\d+\.\d{3,}/g, (number) => String(Number(Number(number).toFixed(2))));
}
