import type { Markup } from "./markup.ts";
import { bytes, byteUnit, decibels, metricFormat, ratio } from "./parts.ts";
import type { DrawChart } from "./plots.ts";

/** A model among others: how large, how fast, how good. */
export interface Trade {
  readonly name: string;
  readonly bytes: number;
  /** Against the original. */
  readonly speedup: number;
  /** A null value: exactly as good as the original, or not measured. */
  readonly quality: {
    readonly name: string;
    readonly value: number | null;
    readonly interval: readonly [number, number] | null;
  };
  /** The one to look at. */
  readonly isMarked: boolean;
}

/** Speeds, slowest first, and their colours: custom properties of the page. */
const SPEEDS = [
  { colour: "rest", meaning: "slower", fits: (speedup: number) => speedup < 0.97 },
  { colour: "full", meaning: "as fast (within 3 %)", fits: (speedup: number) => speedup < 1.03 },
  { colour: "sixteen", meaning: "up to 1.5 times as fast", fits: (speedup: number) => speedup < 1.5 },
  { colour: "eight", meaning: "up to 2.5 times as fast", fits: (speedup: number) => speedup < 2.5 },
  { colour: "four", meaning: "more than 2.5 times as fast", fits: () => true },
] as const;

/** What a model without noise has, on an axis of decibels: no less than this, and more than any other. */
const EXACT_DB = 100;
const ABOVE_DB = 10;

/** Quality over size, coloured by speed: the one plot that says what can be had for what. */
export function tradeChart(trades: readonly Trade[], draw: DrawChart): Markup {
  const quality = trades[0]!.quality.name;
  const isDecibels = quality === "SQNR";
  const format = isDecibels ? decibels : metricFormat(quality);
  const { unit, factor } = byteUnit(Math.max(...trades.map(({ bytes }) => bytes)));
  const highest = Math.max(...trades.map(({ quality: { value, interval } }) => interval?.[1] ?? value ?? 0));
  const exact = isDecibels ? Math.max(EXACT_DB, highest + ABOVE_DB) : Number.NaN;
  const points = trades.map((trade) => {
    const y = trade.quality.value ?? exact;
    const [low, high] = trade.quality.interval ?? [y, y];
    const { colour } = SPEEDS.find(({ fits }) => fits(trade.speedup))!;
    return { ...trade, x: trade.bytes / factor, y, low, high, colour: `var(--${colour})` };
  });
  const said = points.map(
    ({ name, bytes: size, quality, speedup }) =>
      `${name} ${bytes(size)}, ${quality.value === null ? "exact" : format(quality.value)}, ${ratio(speedup)}`,
  );
  const labelAt = (storey: number) => ({
    ...{ x: "x", y: "y", text: "name", fontSize: LABEL.size, fill: "currentColor" },
    dy: -11 - storey * LABEL.height,
  });
  return draw({
    title: `${quality} over size, coloured by speed`,
    alternative: said.join("; "),
    span: "whole",
    legend: SPEEDS.filter(({ colour }) => points.some((point) => point.colour === `var(--${colour})`)).map(
      ({ colour, meaning }) => [colour, meaning] as const,
    ),
    draw: ({ plot, width }) => ({
      height: 320,
      marginLeft: 60,
      x: { label: `size (${unit})`, labelArrow: "none", grid: true, zero: true, nice: true },
      y: { label: quality, labelArrow: "none", grid: true, nice: true },
      color: { type: "identity" },
      marks: [
        plot.link(points, { x1: "x", x2: "x", y1: "low", y2: "high", stroke: "currentColor", strokeOpacity: 0.35 }),
        plot.dot(points, {
          x: "x",
          y: "y",
          r: ({ isMarked }: Trade) => (isMarked ? 7 : 4.5),
          fill: "colour",
          stroke: "currentColor",
          strokeWidth: ({ isMarked }: Trade) => (isMarked ? 2 : 0.5),
        }),
        ...(width > 400 ? storeys(points, width).map((labelled, storey) => plot.text(labelled, labelAt(storey))) : []),
      ],
    }),
  });
}

/** Units of a drawing that the names of models take. */
const LABEL = { size: 10, height: 11, character: 5.6 } as const;

/** Divides points by how far above them their names have to stand, so that none covers another: as if all points were of one height. */
function storeys<P extends { readonly x: number; readonly name: string }>(points: readonly P[], width: number): P[][] {
  const unit = width / Math.max(...points.map(({ x }) => x));
  const placed: P[][] = [];
  const ends: number[] = [];
  for (const point of points.toSorted((a, b) => a.x - b.x)) {
    const half = (point.name.length * LABEL.character) / 2;
    const start = point.x * unit - half;
    const free = ends.findIndex((end) => end < start);
    const storey = free < 0 ? ends.length : free;
    ends[storey] = point.x * unit + half;
    placed[storey] = [...(placed[storey] ?? []), point];
  }
  return placed;
}
