import type { AutoSpec } from "../spec.ts";
import { axesFor, beats, distanceTo, type Measured, OBJECTIVES, sqnrOf } from "./front.ts";
import type { Tried } from "./search.ts";

/** So many are measured in full, at most. */
export const MAX_FINALISTS = 8;
/** In a trial numbers are rough: to be beaten there, a candidate must be worse by so many times what counts in a measurement. */
const SLACK = 4;
/** Noise that trials tell apart. */
const LEAST_DB = 1;

/**
 * Which of the candidates that were tried are measured in full, and why the others are not. `loadingMs` is what they may take together, by what
 * `costOf` says of each.
 */
export function finalistsOf(
  tried: readonly Tried[],
  params: AutoSpec["params"],
  loadingMs: number,
  costOf: (tried: Tried) => number,
): { readonly chosen: readonly Tried[]; readonly outranked: ReadonlyMap<string, string> } {
  const { objective, constraints } = params;
  const axes = axesFor(params);
  const outranked = new Map<string, string>();
  const running = tried.filter((it): it is Tried & { trial: Measured } => it.dropped === null && it.trial !== null);
  // On few samples most have the same metric: what has less noise may still be better.
  const isCleaner = (a: Measured, b: Measured) => sqnrOf(a) > sqnrOf(b) - LEAST_DB;
  const left = running.filter((it) => {
    const winner = running.find(
      (other) => other !== it && isCleaner(other.trial, it.trial) && beats(other.trial, it.trial, axes, SLACK),
    );
    if (winner)
      outranked.set(it.name, `In trials ${winner.name} was in nothing worse, and in something clearly better.`);
    return !winner;
  });
  const cost = ({ trial }: { trial: Measured }) => OBJECTIVES[objective](trial);
  const misses = ({ trial }: { trial: Measured }) => distanceTo(constraints, trial);
  const ranked = left.toSorted((a, b) => misses(a) - misses(b) || cost(a) - cost(b));
  // The best of each axis belongs to the front whatever it costs.
  const ends = axes.flatMap(({ value }) => ranked.toSorted((a, b) => value(b.trial) - value(a.trial)).slice(0, 1));
  // At least two: one says nothing of what it costs.
  const chosen = new Set<(typeof left)[number]>();
  let spent = 0;
  for (const it of [...ends, ...ranked]) {
    if (chosen.size === MAX_FINALISTS || chosen.has(it)) continue;
    spent += costOf(it);
    if (chosen.size < 2 || spent <= loadingMs) chosen.add(it);
  }
  for (const it of left) {
    if (chosen.has(it)) continue;
    const message = `There was time to measure ${chosen.size} of those that had good trials, and others promised more.`;
    outranked.set(it.name, message);
  }
  const names = new Set([...chosen].map(({ name }) => name));
  return { chosen: tried.filter(({ name }) => names.has(name)), outranked };
}
