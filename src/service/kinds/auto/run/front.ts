import type { AutoRecommendation, JobMetrics, MetricName } from "../../../../core/index.ts";
import { METRICS, scoreOf } from "../../../../core/index.ts";
import type { AutoSpec } from "../spec.ts";

/** Which models of a search are worth having, and which of them is to be had. Pure: the same numbers give the same answer. */

export type Measured = Pick<JobMetrics, "size" | "fidelity" | "accuracy" | "latency" | "memory">;

export interface Contestant {
  readonly name: string;
  readonly measured: Measured;
}

type Objective = AutoSpec["params"]["objective"];
type Constraints = AutoSpec["params"]["constraints"];

/** An output without noise, in dB. */
const EXACT_DB = 200;

/** The signal to noise ratio of the worst output. */
export function sqnrOf({ fidelity }: Pick<Measured, "fidelity">): number {
  return Math.min(EXACT_DB, ...fidelity.outputs.map(({ sqnr_db }) => sqnr_db ?? EXACT_DB));
}

/** What models are compared in. */
export interface Axis {
  /** More is better. */
  readonly value: (measured: Measured) => number;
  /** The least difference between two values that counts. */
  readonly least: (a: number, b: number, measured: Measured) => number;
}

/** A part of the larger of two values. */
const share = (part: number) => (a: number, b: number) => part * Math.max(Math.abs(a), Math.abs(b));

const SIZE: Axis = { value: ({ size }) => -size.after_bytes, least: share(0.005) };
// Medians of the same model differ by that much from one measurement to the next, and so do peaks of memory.
const SPEED: Axis = { value: ({ latency }) => latency.speedup, least: share(0.03) };
const MEMORY: Axis = { value: ({ memory }) => -memory.after_peak_bytes, least: share(0.03) };
/** Less noise is chance. */
const LEAST_DB = 0.5;
const CLEANNESS: Axis = { value: sqnrOf, least: () => LEAST_DB };
const QUALITY: Axis = {
  value: (measured) =>
    measured.accuracy ? scoreOf(measured.accuracy.metric, measured.accuracy.after) : sqnrOf(measured),
  least: (a, b, { accuracy }) => {
    if (!accuracy) return LEAST_DB;
    return METRICS[accuracy.metric].isShare ? 1e-4 : share(1e-4)(a, b);
  },
};

/** Size, speed and quality, and what else a search is asked about: a model that alone is good in that must not be beaten by one that is not. */
export function axesFor({
  objective,
  constraints,
}: Pick<AutoSpec["params"], "objective" | "constraints">): readonly Axis[] {
  return [
    ...[SIZE, SPEED, QUALITY],
    ...(objective === "memory" || constraints.max_memory_bytes !== null ? [MEMORY] : []),
    ...(constraints.min_sqnr_db !== null ? [CLEANNESS] : []),
  ];
}

function qualityOf(measured: Measured): number {
  return QUALITY.value(measured);
}

/** Whether `a` makes `b` not worth having: in nothing worse by a difference that counts, in something better by `slack` of them. */
export function beats(a: Measured, b: Measured, axes: readonly Axis[], slack = 1): boolean {
  let isBetter = false;
  for (const { value, least } of axes) {
    const [x, y] = [value(a), value(b)];
    const counts = least(x, y, a);
    if (y - x > counts) return false;
    if (x - y > counts * slack) isBetter = true;
  }
  return isBetter;
}

/** Those that nothing else of the front beats, and for each of the others what does. The last of equals goes first. */
export function frontOf<T extends Contestant>(
  all: readonly T[],
  axes: readonly Axis[],
): { front: readonly T[]; beaten: ReadonlyMap<T, T> } {
  const left = [...all];
  const beaten = new Map<T, T>();
  for (let i = left.length - 1; i >= 0; i--) {
    const loser = left[i]!;
    const winner = left.find((other) => other !== loser && beats(other.measured, loser.measured, axes));
    if (!winner) continue;
    beaten.set(loser, winner);
    left.splice(i, 1);
  }
  return { front: left, beaten };
}

/** What is to be low. */
export const OBJECTIVES: Readonly<Record<Objective, (measured: Measured) => number>> = {
  latency: ({ latency }) => 1 / latency.speedup,
  size: ({ size }) => size.after_bytes,
  memory: ({ memory }) => memory.after_peak_bytes,
  metric: (measured) => -qualityOf(measured),
};

interface Rule {
  readonly bound: "min" | "max";
  readonly value: (measured: Measured) => number | null;
}

const RULES: { readonly [C in keyof Constraints]: Rule } = {
  max_metric_drop: { bound: "max", value: ({ accuracy }) => accuracy?.drop ?? null },
  min_sqnr_db: { bound: "min", value: sqnrOf },
  max_size_bytes: { bound: "max", value: ({ size }) => size.after_bytes },
  max_size_ratio: { bound: "max", value: ({ size }) => size.ratio },
  min_speedup: { bound: "min", value: ({ latency }) => latency.speedup },
  max_latency_ms: { bound: "max", value: ({ latency }) => latency.after.p50_ms },
  max_memory_bytes: { bound: "max", value: ({ memory }) => memory.after_peak_bytes },
};

/** Every constraint that is set, with what was measured. */
export function checkConstraints(constraints: Constraints, measured: Measured): JobMetrics["acceptance"] {
  return (Object.keys(RULES) as (keyof Constraints)[]).flatMap((name) => {
    const limit = constraints[name];
    if (limit === null) return [];
    const { bound, value: measure } = RULES[name];
    const value = measure(measured);
    const ok = value !== null && (bound === "min" ? value >= limit : value <= limit);
    return [{ name, limit, value, ok }];
  });
}

/** How far a model is from holding the constraints: the sum of what it misses, relative to each limit. */
export function distanceTo(constraints: Constraints, measured: Measured): number {
  return checkConstraints(constraints, measured)
    .filter(({ ok }) => !ok)
    .reduce((sum, { limit, value }) => {
      if (value === null) return sum + 1;
      return sum + Math.abs(value - limit) / Math.max(Math.abs(limit), 1e-3);
    }, 0);
}

export interface Choice<T> {
  readonly recommended: T;
  readonly accepted: boolean;
  readonly why: string;
  readonly nextBetter: (AutoRecommendation["next_better"] & { readonly candidate: string }) | null;
}

/** Costs that differ by less are equal; and speeds, where their intervals tell no more than that. */
const CLOSE = 0.01;
export const TOLD_APART = 0.03;

function mayBeAsFast({ latency }: Measured, than: Measured): boolean {
  const [own, other] = [latency.speedup_interval, than.latency.speedup_interval];
  return own !== null && other !== null && own[1] >= other[0];
}

/**
 * The best of the front in the objective among those that hold the constraints; of equals (within what counts as a difference) the one of
 * better quality, and where it was said what quality will do, the smallest. When nothing holds them, the nearest.
 */
export function choose<T extends Contestant>(
  front: readonly T[],
  objective: Objective,
  constraints: Constraints,
): Choice<T> {
  const cost = OBJECTIVES[objective];
  const holding = front.filter(({ measured }) => distanceTo(constraints, measured) === 0);
  const accepted = holding.length > 0;
  const pool = accepted ? holding : nearest(front, constraints);
  const best = Math.min(...pool.map(({ measured }) => cost(measured)));
  const first = pool.find(({ measured }) => cost(measured) === best)!;
  const isClose = ({ measured }: T) =>
    cost(measured) <= best + CLOSE * Math.abs(best) ||
    (objective === "latency" && cost(measured) <= best + TOLD_APART * best && mayBeAsFast(measured, first.measured));
  const quality = ({ measured }: T) => qualityOf(measured);
  const close = pool.filter(isClose);
  const saysQuality = constraints.max_metric_drop !== null || constraints.min_sqnr_db !== null;
  const equals = objective !== "metric" && saysQuality && accepted ? smallestOf(close) : close;
  const recommended = equals.reduce((a, b) => (quality(b) > quality(a) ? b : a));
  const better = front
    .filter((other) => other !== recommended && cost(other.measured) < cost(recommended.measured))
    .sort((a, b) => cost(b.measured) - cost(a.measured))[0];
  const trade = better ?? bestOfQuality(front, recommended);
  return {
    recommended,
    accepted,
    why: whyOf(recommended, pool.length, objective, constraints, accepted),
    nextBetter: trade ? tradeOf(recommended, trade, better !== undefined ? objective : "quality") : null,
  };
}

function smallestOf<T extends Contestant>(all: readonly T[]): readonly T[] {
  const least = Math.min(...all.map(({ measured }) => measured.size.after_bytes));
  return all.filter(({ measured }) => measured.size.after_bytes <= least * (1 + CLOSE));
}

function nearest<T extends Contestant>(front: readonly T[], constraints: Constraints): readonly T[] {
  const least = Math.min(...front.map(({ measured }) => distanceTo(constraints, measured)));
  return front.filter(({ measured }) => distanceTo(constraints, measured) === least);
}

/** The next in quality above the recommended. */
function bestOfQuality<T extends Contestant>(front: readonly T[], recommended: T): T | undefined {
  const quality = ({ measured }: T) => qualityOf(measured);
  return front.filter((other) => quality(other) > quality(recommended)).sort((a, b) => quality(a) - quality(b))[0];
}

const percent = (share: number) => `${Number((100 * share).toFixed(1))} %`;

/** A model in a few numbers. */
function inNumbers(measured: Measured): string {
  const { size, latency, accuracy } = measured;
  const sqnr = sqnrOf(measured);
  const quality = accuracy
    ? `${accuracy.metric} ${formatted(accuracy.metric, accuracy.after)}`
    : sqnr >= EXACT_DB
      ? "the same answers"
      : `${sqnr.toFixed(1)} dB`;
  return `${percent(size.ratio)} of the size, ${latency.speedup.toFixed(2)} times as fast, ${quality}`;
}

function formatted(metric: MetricName, value: number): string {
  return METRICS[metric].isShare ? percent(value) : value.toPrecision(3);
}

const SUPERLATIVES: Readonly<Record<Objective, string>> = {
  latency: "the fastest",
  size: "the smallest",
  memory: "the one that needs least memory",
  metric: "the most accurate",
};

function whyOf<T extends Contestant>(
  { name, measured }: T,
  count: number,
  objective: Objective,
  constraints: Constraints,
  accepted: boolean,
): string {
  const missed = checkConstraints(constraints, measured).filter(({ ok }) => !ok);
  if (!accepted) {
    const misses = missed
      .map(
        ({ name, limit, value }) =>
          `${name} is ${value === null ? "not measured" : Number(value.toPrecision(4))} instead of ${limit}`,
      )
      .join(", ");
    return `No model holds all constraints. ${name} comes nearest (${inNumbers(measured)}): ${misses}.`;
  }
  const set = Object.values(constraints).some((limit) => limit !== null);
  return `${name} is ${SUPERLATIVES[objective]} of ${count} models worth having${set ? " that hold the constraints" : ""}: ${inNumbers(measured)}.`;
}

function tradeOf<T extends Contestant>(
  from: T,
  to: T,
  gain: Objective | "quality",
): NonNullable<Choice<T>["nextBetter"]> {
  const [a, b] = [from.measured, to.measured];
  const said = [
    percent(Math.abs(b.size.ratio - a.size.ratio)) === percent(0)
      ? "the same size"
      : `${signed(b.size.ratio - a.size.ratio, percent)} of the original's size`,
    `${b.latency.speedup.toFixed(2)} instead of ${a.latency.speedup.toFixed(2)} times as fast`,
    a.accuracy && b.accuracy
      ? `${a.accuracy.metric} ${formatted(a.accuracy.metric, b.accuracy.after)} instead of ${formatted(a.accuracy.metric, a.accuracy.after)}`
      : `${sqnrOf(b).toFixed(1)} instead of ${sqnrOf(a).toFixed(1)} dB`,
  ];
  return {
    candidate: to.name,
    model_id: null,
    message: `The next better in ${gain} is ${to.name}: ${said.join(", ")}.`,
  };
}

function signed(value: number, format: (value: number) => string): string {
  return value < 0 ? `${format(-value)} less` : `${format(value)} more`;
}
