import type { AutoSpec } from "../spec.ts";
import { beats, distanceTo, type Measured, OBJECTIVES, qualityOf } from "./front.ts";
import type { Tried } from "./search.ts";

/** So many are measured in full, at most. */
const MAX_FINALISTS = 8;
/** In a trial numbers are rough: to be beaten there, a candidate must be worse by so many times what counts in a measurement. */
const SLACK = 4;

/** Which of the candidates that were tried are measured in full, and why the others are not. */
export function finalistsOf(
  tried: readonly Tried[],
  { objective, constraints }: AutoSpec["params"],
): { readonly chosen: readonly Tried[]; readonly outranked: ReadonlyMap<string, string> } {
  const outranked = new Map<string, string>();
  const running = tried.filter((it): it is Tried & { trial: Measured } => it.dropped === null && it.trial !== null);
  const left = running.filter((it) => {
    const winner = running.find((other) => other !== it && beats(other.trial, it.trial, SLACK));
    if (winner)
      outranked.set(it.name, `In trials ${winner.name} was in nothing worse, and in something clearly better.`);
    return !winner;
  });
  const cost = ({ trial }: { trial: Measured }) => OBJECTIVES[objective](trial);
  const misses = ({ trial }: { trial: Measured }) => distanceTo(constraints, trial);
  const ranked = left.toSorted((a, b) => misses(a) - misses(b) || cost(a) - cost(b));
  // The best of each axis belongs to the front whatever it costs.
  const ends = [
    (it: { trial: Measured }) => it.trial.size.after_bytes,
    (it: { trial: Measured }) => -it.trial.latency.speedup,
    (it: { trial: Measured }) => -qualityOf(it.trial),
  ].flatMap((axis) => ranked.toSorted((a, b) => axis(a) - axis(b)).slice(0, 1));
  const chosen = new Set(
    [...ends, ...ranked]
      .slice(0, MAX_FINALISTS + ends.length)
      .filter((it, i, all) => all.indexOf(it) === i)
      .slice(0, MAX_FINALISTS),
  );
  for (const it of left) {
    if (!chosen.has(it))
      outranked.set(it.name, `${MAX_FINALISTS} others promised more for the objective within the constraints.`);
  }
  return { chosen: tried.filter((it) => chosen.has(it as (typeof left)[number])), outranked };
}
