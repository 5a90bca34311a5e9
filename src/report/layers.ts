import { layersThatLoseMost } from "../core/evaluate/lossy-layers.ts";
import type { LayerError } from "../core/facts.ts";
import { type Content, html } from "./markup.ts";
import { decibels, details, plural, section, shortened, table } from "./parts.ts";
import { countingTicks, type DrawChart } from "./plots.ts";
import type { Report } from "./report.ts";

/** Layers that are pointed out. */
const WORST = 3;

/** Where in the model the error arises. Nothing where no layer could be compared. */
export function layerErrors({ layer_errors: errors, quantization }: Report, draw: DrawChart): Content {
  if (!errors || errors.length === 0) return null;
  const points = errors.map((error, i) => ({ ...error, at: i + 1 }));
  const ratios = points.filter((point): point is Point => point.sqnr_db !== null);
  const same = points.filter(({ sqnr_db }) => sqnr_db === null);
  const places = new Map(errors.map(({ node }, i) => [node, i + 1]));
  const worst = layersThatLoseMost(errors, WORST).map((layer, i) => {
    return { ...layer, at: places.get(layer.node)!, rank: String(i + 1) };
  });
  const [low, high] = [Math.min(...ratios.map(toDb)), Math.max(...ratios.map(toDb))];
  // Layers without an error have no place on the scale: they are drawn along its end.
  const margin = Math.max(3, (high - low) * 0.12);
  const top = high + margin;
  return section(
    "Error of each layer",
    html`<p class="muted">What each layer gives, against the same layer of the original${
      quantization ? ", whose channels are scaled alike" : ""
    }: the signal to noise ratio of its result, with the error of everything before it in it. Higher is better; 6 dB are one bit.</p>`,
    ratios.length === 0
      ? html`<p>All ${errors.length} layers give what they gave before.</p>`
      : draw({
          title: "Signal to noise ratio of each layer's result",
          alternative: `${plural(errors.length, "layer")} from ${decibels(low)} to ${decibels(high)}; ${worst[0] ? `${shortened(worst[0].node, 60)} loses most` : "the job has changed none of those with an error"}`,
          span: "whole",
          legend: [
            ["dot", "a layer"],
            ["ring", "loses most"],
            ...(same.length > 0 ? [["hollow", "no error"] as const] : []),
          ],
          draw: ({ plot, width }) => ({
            height: 260,
            x: {
              label: "layer, in the order of the model",
              labelArrow: "none",
              domain: [0.5, points.length + 0.5],
              ticks: countingTicks(points.length, width > 500 ? 16 : 8),
              tickFormat: String,
            },
            y: { label: "SQNR (dB)", labelArrow: "none", domain: [low - margin, top], grid: true, ticks: 6 },
            marks: [
              plot.lineY(ratios, { x: "at", y: toDb, stroke: "var(--after)", strokeOpacity: 0.35 }),
              plot.dot(ratios, { x: "at", y: toDb, r: radius(points), fill: "var(--after)", title: tip }),
              plot.dot(same, { x: "at", y: top, r: radius(points), stroke: "var(--after)", title: tip }),
              plot.dot(worst, { x: "at", y: toDb, r: 7, stroke: "var(--bad)", strokeWidth: 1.5 }),
              plot.text(worst, { x: "at", y: toDb, text: "rank", dy: 16, fill: "var(--bad)", fontWeight: 600 }),
            ],
          }),
          ...(worst.length > 0 && {
            note: html`Those that lose most, compared with what they read: ${worst.map(
              ({ node, rank, sqnr_db, input_sqnr_db }, i) =>
                html`${i > 0 ? ", " : null}${rank} <code>${shortened(node, 60)}</code> ${
                  input_sqnr_db === null ? null : `${decibels(input_sqnr_db)} → `
                }${decibels(sqnr_db)}`,
            )}.`,
          }),
        }),
    details(
      `All ${plural(errors.length, "layer")} in numbers`,
      table(
        ["Layer", "Node", "Operator", "Changed", "SQNR of what it reads", "SQNR"],
        points.map(({ at, node, op, changed, input_sqnr_db, sqnr_db }) => [
          at,
          html`<code>${shortened(node, 120)}</code>`,
          html`<code>${shortened(op, 60)}</code>`,
          changed ? "yes" : "no",
          decibels(input_sqnr_db),
          decibels(sqnr_db),
        ]),
      ),
    ),
  );
}

type Point = LayerError & { readonly at: number; readonly sqnr_db: number };

const toDb = ({ sqnr_db }: Point) => sqnr_db;
const tip = ({ node, op, sqnr_db }: LayerError) => `${shortened(node, 80)} (${op}): ${decibels(sqnr_db)}`;

/** Many layers are drawn small. */
const radius = (points: readonly unknown[]) => (points.length > 120 ? 2 : points.length > 40 ? 3 : 4);
