import type { Clock, State } from "./search-run.ts";

/** How the budget of a search is shared out. */

/** Trials take no more than this share of the budget; what is left is for measuring the finalists. */
const TRIAL_SHARE = 0.6;
/** And where measuring is known to take less, no more than this. */
const MAX_TRIAL_SHARE = 0.85;
/** Seconds of the budget that are kept for what comes before and after on an idle machine: files that are fetched, the report, models that are stored. */
const RESERVE_S = 5;
/** A busy machine takes longer for that: as much as time passes for a second of computing, but no more than this. */
const MAX_BUSY = 3;
/** Before so many seconds have passed, nothing is known of that. */
const KNOWN_AFTER_S = 5;
/** Where that is much of the budget, no more than this share. */
const MAX_RESERVE_SHARE = 0.2;
/** Of the time for measuring, what loading all finalists may take. */
const LOADING_SHARE = 0.4;
/** A finalist is loaded to be judged, to be timed, and, if it is worth having, to be described. */
const LOADS = 3;
/** Of the time that loading leaves, what comparing outputs may take; of what that leaves, what timing may. */
const COMPARING_SHARE = 0.6;
const TIMING_SHARE = 0.9;

function computedMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/**
 * The clock of a search with a budget of `seconds` that goes on from `state`; `now` tells milliseconds, `computed` for how many of them this process has
 * computed.
 */
export function startClock(seconds: number, state: State, now = () => performance.now(), computed = computedMs): Clock {
  const [start, computedBefore] = [now(), computed()];
  const own = () => (now() - start) / 1000;
  const passed = () => state.seconds + own();
  const busy = () => {
    if (own() < KNOWN_AFTER_S) return 1;
    return Math.max(1, Math.min(MAX_BUSY, (1000 * own()) / Math.max(1, computed() - computedBefore)));
  };
  const usable = () => seconds - Math.min(RESERVE_S * busy(), seconds * MAX_RESERVE_SHARE);
  return { state, seconds: passed, left: (share = 1) => Math.max(0, 1000 * (usable() * share - passed())) };
}

/** The share of a budget of `seconds` for trials where measuring the finalists takes so many milliseconds; undefined: not known yet. */
export function trialShare(seconds: number, measuringMs: number | undefined): number {
  if (measuringMs === undefined) return TRIAL_SHARE;
  return Math.max(TRIAL_SHARE, Math.min(MAX_TRIAL_SHARE, 1 - measuringMs / (1000 * seconds)));
}

/** What it takes to have a candidate in the final, apart from running it: `loadMs` for a load, `makeMs` where it must be made again. */
export function finalMs(loadMs: number, makeMs: number): number {
  return makeMs + LOADS * loadMs;
}

/** What all finalists may take of that. */
export function finalsMs(clock: Clock): number {
  return LOADING_SHARE * clock.left();
}

/** How long timing may take of what is left, in ms. */
export function timingShare(clock: Clock): number {
  return TIMING_SHARE * clock.left();
}

/** How long the finalists may run, asked when each begins: what it takes to load them later is kept. `loadMs`: to load all of them once. */
export function measuringLimits(clock: Clock, loadMs: number) {
  const without = (loads: number) => Math.max(0, clock.left() - loads * loadMs);
  return {
    compareMs: () => COMPARING_SHARE * without(LOADS - 1),
    latencyMs: () => TIMING_SHARE * without(LOADS - 2),
  };
}
