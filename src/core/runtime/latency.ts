import { checkCancelled } from "../errors.ts";
import type { Timing } from "../facts.ts";
import { bootstrap } from "../intervals.ts";
import type { Tensor } from "../onnx/tensor.ts";
import type { Session } from "./session.ts";

export interface Contestant {
  readonly session: Session;
  readonly feeds: Readonly<Record<string, Tensor>>;
}

/** How many runs are timed, and for how long at most. */
interface Timed {
  /** Measured runs of each. */
  readonly runs: number;
  /** No round begins after this; at least one always runs. */
  readonly maxMs?: number;
  /** No round that warms up begins after this, but for the first; a fifth of `maxMs` unless given. */
  readonly maxWarmUpMs?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (fraction: number) => void;
  /** Whether what was measured, in order, is enough: asked after every round. All runs are made unless given. */
  readonly isEnough?: (samplesMs: readonly (readonly number[])[]) => boolean;
  /**
   * What to time by, in milliseconds, several short runs as one; by the time of day and every run for itself unless given. A clock of what this thread
   * computes leaves out what else the machine does: for sessions of one thread, which compute in the thread that runs them.
   */
  readonly clock?: (() => number) | undefined;
}

/** Runs that are timed as one by a clock of one's own take so long together. */
const TOGETHER_MS = 5;
/** No more than these, however short they are. */
const MOST_TOGETHER = 1000;

export interface LatencyOptions extends Timed {
  readonly before: Contestant;
  readonly after: Contestant;
}

export interface Latency {
  readonly before: Timing;
  readonly after: Timing;
  /** Ratio of medians: above 1 the second is faster. */
  readonly speedup: number;
  /** At 95 %, over rounds; null for a single one. */
  readonly speedupInterval: readonly [number, number] | null;
  readonly runs: number;
  /** Every measured run, in order. */
  readonly samplesMs: { readonly before: readonly number[]; readonly after: readonly number[] };
}

const MAX_MS = 30_000;
/** Runs that are not counted: the first ones allocate, and cost several times as much. */
const WARM_UP_RUNS = 3;
const WARM_UP_SHARE = 0.2;

/** Times two models against each other, as `timeInTurns` does. */
export async function measureLatency({ before, after, ...timed }: LatencyOptions): Promise<Latency> {
  const [first, second] = (await timeInTurns([before, after], timed)) as [readonly number[], readonly number[]];
  const timings = { before: timingOf(first), after: timingOf(second) };
  return {
    ...timings,
    speedup: timings.before.p50_ms / timings.after.p50_ms,
    speedupInterval: speedupInterval(first, second),
    runs: first.length,
    samplesMs: { before: first, after: second },
  };
}

/**
 * Times models in one process, in turns A B C A B C …, so that whatever else the machine does hits all alike. The time of a run is that of the
 * whole call, in milliseconds of wall-clock time. Answers every measured run of each, in order: as many of one as of another.
 */
export async function timeInTurns(
  contestants: readonly Contestant[],
  { runs, maxMs = MAX_MS, maxWarmUpMs = maxMs * WARM_UP_SHARE, signal, onProgress, isEnough, clock }: Timed,
): Promise<readonly (readonly number[])[]> {
  const start = performance.now();
  const elapsed = () => performance.now() - start;
  const leastMs = contestants.map(() => Number.POSITIVE_INFINITY);
  for (let run = 0; run < WARM_UP_RUNS && (run === 0 || elapsed() < maxWarmUpMs); run++) {
    for (const [i, contestant] of contestants.entries()) {
      leastMs[i] = Math.min(leastMs[i]!, await timeOf(contestant, 1, signal, clock));
    }
  }
  // A model that is run once where others are run several times finds what it needs pushed out of the caches: a run that something held up must not decide that.
  const repeats = leastMs.map((ms) => (clock ? Math.min(MOST_TOGETHER, Math.max(1, Math.ceil(TOGETHER_MS / ms))) : 1));
  const samplesMs = contestants.map((): number[] => []);
  for (let run = 0; run < runs && (run === 0 || elapsed() < maxMs); run++) {
    for (const [i, contestant] of contestants.entries())
      samplesMs[i]!.push(await timeOf(contestant, repeats[i]!, signal, clock));
    onProgress?.((run + 1) / runs);
    if (isEnough?.(samplesMs)) break;
  }
  return samplesMs;
}

/**
 * The interval of the ratio of medians at 95 %: rounds are drawn again with replacement, both times of a round together, because what
 * slows one down slows the other down as well. Null for a single round.
 */
export function speedupInterval(before: readonly number[], after: readonly number[]): readonly [number, number] | null {
  const [first, second] = [before, after].map(weightedMedian) as [WeightedMedian, WeightedMedian];
  return bootstrap(before.length, (weights) => first(weights) / second(weights)) ?? null;
}

type WeightedMedian = (weights: Uint32Array) => number;

/** The lower median of values of which each counts so often as its weight says. */
function weightedMedian(values: readonly number[]): WeightedMedian {
  const order = Uint32Array.from(values.keys()).sort((a, b) => values[a]! - values[b]!);
  return (weights) => {
    let left = values.length / 2;
    for (const i of order) {
      left -= weights[i]!;
      if (left <= 0) return values[i]!;
    }
    return Number.NaN;
  };
}

async function timeOf(
  { session, feeds }: Contestant,
  repeats: number,
  signal: AbortSignal | undefined,
  clock = () => performance.now(),
): Promise<number> {
  const start = clock();
  for (let i = 0; i < repeats; i++) {
    checkCancelled(signal);
    await session.run(feeds);
  }
  return rounded((clock() - start) / repeats);
}

/** Median, 90th percentile and mean of at least one time. */
export function timingOf(samplesMs: readonly number[]): Timing {
  const sorted = samplesMs.toSorted((a, b) => a - b);
  return {
    p50_ms: quantile(sorted, 0.5),
    p90_ms: quantile(sorted, 0.9),
    mean_ms: rounded(sorted.reduce((sum, sample) => sum + sample, 0) / sorted.length),
  };
}

/** To 0.1 us: the clock's resolution, and all that anyone wants to read. */
function rounded(ms: number): number {
  return Math.round(ms * 1e4) / 1e4;
}

/** The `q` quantile of sorted numbers, interpolated linearly between neighbours. */
function quantile(sorted: readonly number[], q: number): number {
  const at = (sorted.length - 1) * q;
  const below = sorted[Math.floor(at)]!;
  const above = sorted[Math.ceil(at)]!;
  return rounded(below + (above - below) * (at - Math.floor(at)));
}
