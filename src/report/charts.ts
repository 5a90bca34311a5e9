import type { ModelFacts } from "../core/facts.ts";
import { DTYPES, type DType } from "../core/onnx/dtype.ts";
import type { Markup } from "./markup.ts";
import { bytes, byteUnit, duration, percent, plural, ratio, sidesOf } from "./parts.ts";
import type { DrawChart } from "./plots.ts";
import type { Report } from "./report.ts";

/** What every job has to show: how large the two models are, and how long they take. */

const SIDES = ["before", "after"] as const;

/** Colours of the size chart: by how many bits an element of a weight takes. */
const COLOURS: readonly { readonly colour: string; readonly fits: (bits: number) => boolean }[] = [
  { colour: "full", fits: (bits) => bits > 16 },
  { colour: "sixteen", fits: (bits) => bits > 8 && bits <= 16 },
  { colour: "eight", fits: (bits) => bits > 4 && bits <= 8 },
  { colour: "four", fits: (bits) => bits <= 4 },
];
const REST = "rest";

export function sizeChart(report: Report, draw: DrawChart): Markup {
  const { models, metrics } = report;
  const { before_bytes, after_bytes, ratio: share } = metrics.size;
  const names = sidesOf(report);
  const { unit, factor } = byteUnit(Math.max(before_bytes, after_bytes));
  const total = { before: before_bytes, after: after_bytes };
  const parts = SIDES.flatMap((side) =>
    partsOf(models[side], total[side]).map((part) => ({ ...part, side: names[side] })),
  );
  const stored = SIDES.flatMap((side) => Object.keys(models[side].weight_bytes_by_dtype) as DType[]);
  const legend = COLOURS.map(({ colour, fits }): [string, string] => [
    colour,
    [...new Set(stored)].filter((dtype) => fits(DTYPES[dtype].bits)).join(", "),
  ]);
  return draw({
    title: "Size, by what the weights are stored as",
    alternative: `${names.before} ${bytes(before_bytes)}, ${names.after} ${bytes(after_bytes)}: ${percent(share)}`,
    span: "half",
    legend: [...legend.filter(([, dtypes]) => dtypes !== ""), [REST, "the graph"]],
    draw: ({ plot }) => ({
      height: 150,
      marginTop: 6,
      marginLeft: 66,
      marginRight: 66,
      x: { label: `size (${unit})`, labelArrow: "none", grid: true, ticks: 5 },
      y: { label: null, domain: SIDES.map((side) => names[side]), tickSize: 0, padding: 0.3 },
      color: { type: "identity" },
      marks: [
        plot.barX(parts, {
          x: ({ bytes }) => bytes / factor,
          y: "side",
          fill: ({ colour }) => `var(--${colour})`,
        }),
        plot.text(SIDES, {
          x: (side: (typeof SIDES)[number]) => total[side] / factor,
          y: (side: (typeof SIDES)[number]) => names[side],
          text: (side: (typeof SIDES)[number]) => bytes(total[side]),
          textAnchor: "start",
          dx: 6,
        }),
      ],
    }),
  });
}

/** The bytes of a file: its weights by width, and the rest of it. */
function partsOf({ weight_bytes_by_dtype }: ModelFacts, fileBytes: number): { colour: string; bytes: number }[] {
  const weights = Object.entries(weight_bytes_by_dtype) as [DType, number][];
  const parts = COLOURS.map(({ colour, fits }) => ({
    colour,
    bytes: weights.reduce((sum, [dtype, bytes]) => (fits(DTYPES[dtype].bits) ? sum + bytes : sum), 0),
  }));
  const weightBytes = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  return [...parts, { colour: REST, bytes: Math.max(0, fileBytes - weightBytes) }];
}

/** The axis ends at this many times the time that nine of ten runs of the slower model keep to: a run that was disturbed must not squeeze the rest. */
const SHOWN_TIMES = 1.25;

export function latencyChart(report: Report, draw: DrawChart): Markup {
  const { metrics, latency_samples_ms: samples } = report;
  const { latency } = metrics;
  const names = sidesOf(report);
  const timing = { before: latency.before, after: latency.after };
  const longest = Math.max(...SIDES.map((side) => samples[side].reduce((a, b) => Math.max(a, b), timing[side].p90_ms)));
  const end = Math.min(longest, SHOWN_TIMES * Math.max(latency.before.p90_ms, latency.after.p90_ms)) || 1;
  const factor = end < 1 ? 1000 : 1;
  const runs = SIDES.flatMap((side) =>
    samples[side].map((ms) => ({ side: names[side], ms, colour: `var(--${side})` })),
  );
  const slow = runs.filter(({ ms }) => ms > end);
  const boxes = SIDES.map((side) => {
    const sorted = samples[side].toSorted((a, b) => a - b);
    const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))] ?? timing[side].p50_ms;
    const [from, to, median] = [at(0.25), at(0.75), timing[side].p50_ms].map((ms) => Math.min(ms, end) * factor);
    return { side: names[side], from: from!, to: to!, median: median!, label: duration(timing[side].p50_ms) };
  });
  return draw({
    title: "Time of each run",
    alternative: `median ${duration(latency.before.p50_ms)} ${names.before}, ${duration(latency.after.p50_ms)} ${names.after}: ${ratio(latency.speedup)} as fast`,
    span: "half",
    legend: [
      ["tick", "a run"],
      ["box", "half of all runs"],
      ["median", "median"],
    ],
    draw: ({ plot }) => ({
      height: 150,
      marginTop: 6,
      marginLeft: 66,
      x: {
        label: `time (${factor === 1 ? "ms" : "µs"})`,
        labelArrow: "none",
        domain: [0, end * factor],
        grid: true,
        ticks: 5,
      },
      y: {
        label: null,
        domain: SIDES.map((side) => names[side]),
        tickFormat: (name: string) => `${name}\n${boxes.find(({ side }) => side === name)!.label}`,
        tickSize: 0,
        padding: 0.4,
      },
      color: { type: "identity" },
      marks: [
        plot.barX(boxes, { x1: "from", x2: "to", y: "side", fill: "var(--box)" }),
        plot.tickX(
          runs.filter(({ ms }) => ms <= end),
          { x: ({ ms }) => ms * factor, y: "side", stroke: "colour", strokeOpacity: 0.6, inset: 3 },
        ),
        plot.tickX(boxes, { x: "median", y: "side", stroke: "var(--ink)", strokeWidth: 2.5, inset: -3 }),
      ],
    }),
    note:
      slow.length === 0
        ? null
        : `${plural(slow.length, "run")} took longer than is shown, up to ${duration(slow.reduce((a, { ms }) => Math.max(a, ms), 0))}.`,
  });
}
