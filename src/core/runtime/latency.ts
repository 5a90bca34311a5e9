import { checkCancelled } from "../errors.ts";
import type { Timing } from "../facts.ts";
import type { Tensor } from "../onnx/tensor.ts";
import type { Session } from "./session.ts";

export interface Contestant {
  readonly session: Session;
  readonly feeds: Readonly<Record<string, Tensor>>;
}

export interface LatencyOptions {
  readonly before: Contestant;
  readonly after: Contestant;
  /** Measured runs of each. */
  readonly runs: number;
  /** No round begins after this; at least one always runs. */
  readonly maxMs?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (fraction: number) => void;
}

export interface Latency {
  readonly before: Timing;
  readonly after: Timing;
  /** Ratio of medians: above 1 the second is faster. */
  readonly speedup: number;
  readonly runs: number;
  /** Every measured run, in order. */
  readonly samplesMs: { readonly before: readonly number[]; readonly after: readonly number[] };
}

const MAX_MS = 30_000;
/** Runs that are not counted: the first ones allocate, and cost several times as much. */
const WARM_UP_RUNS = 3;
const WARM_UP_SHARE = 0.2;

/**
 * Times two models in one process, in turns A B A B …, so that whatever else the machine does hits both alike. The time of a run is that
 * of the whole call, in milliseconds of wall-clock time.
 */
export async function measureLatency(options: LatencyOptions): Promise<Latency> {
  const { before, after, runs, maxMs = MAX_MS, signal, onProgress } = options;
  const start = performance.now();
  const elapsed = () => performance.now() - start;
  for (let run = 0; run < WARM_UP_RUNS && (run === 0 || elapsed() < maxMs * WARM_UP_SHARE); run++) {
    await timeOf(before, signal);
    await timeOf(after, signal);
  }
  const samplesMs = { before: [] as number[], after: [] as number[] };
  for (let run = 0; run < runs && (run === 0 || elapsed() < maxMs); run++) {
    samplesMs.before.push(await timeOf(before, signal));
    samplesMs.after.push(await timeOf(after, signal));
    onProgress?.((run + 1) / runs);
  }
  const timings = { before: timingOf(samplesMs.before), after: timingOf(samplesMs.after) };
  return {
    ...timings,
    speedup: timings.before.p50_ms / timings.after.p50_ms,
    runs: samplesMs.before.length,
    samplesMs,
  };
}

async function timeOf({ session, feeds }: Contestant, signal: AbortSignal | undefined): Promise<number> {
  checkCancelled(signal);
  const start = performance.now();
  await session.run(feeds);
  return rounded(performance.now() - start);
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
