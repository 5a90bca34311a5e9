import { statfs } from "node:fs/promises";
import type { Logger } from "pino";
import type { TaskFailure } from "../src/tasks/protocol.ts";

/**
 * Whether this worker should be given jobs. It looks at what every job needs (its probes) in rounds; and it counts attempts that failed
 * for reasons of this machine all the same. While it refuses, jobs stay in the queue for other workers, or for better times.
 */
export interface WorkerHealth {
  /** Why no jobs should come here now, one sentence each; empty when they may. */
  refusals(): readonly string[];
  /** How an attempt ended that this process, not the child, found the machine at fault for. It looks at everything again at once. */
  failed(failure: TaskFailure): void;
  /** An attempt went well. */
  succeeded(): void;
  close(): void;
}

/** Rejects, with the reason as its message, when jobs cannot be run. */
export type Probe = () => Promise<void>;

export interface HealthOptions {
  readonly probes: Readonly<Record<string, Probe>>;
  readonly log: Logger;
  readonly intervalMs?: number;
}

const INTERVAL_MS = 5_000;
/** Longer than any healthy part takes to answer. */
const PROBE_TIMEOUT_MS = 150_000;
/** So many attempts in a row that fail for reasons of the machine, although all probes are well, end the taking of jobs for a while. */
const MAX_FAILURES = 3;
/** ... for so long at first, and doubled each time. Then one job may try. */
const PAUSE_MS = { first: 15_000, most: 5 * 60_000 };

export function startWorkerHealth({ probes, log, intervalMs = INTERVAL_MS }: HealthOptions): WorkerHealth {
  let found: readonly string[] = [];
  let closed = false;
  let timer: NodeJS.Timeout | undefined;
  let failures = 0;
  let pauseMs = PAUSE_MS.first;
  let pausedUntil = 0;
  let pausedFor = "";

  async function look(): Promise<void> {
    const answers = await Promise.all(Object.entries(probes).map(([name, probe]) => refusalOf(name, probe)));
    if (closed) return;
    const refusals = answers.filter((answer) => answer !== undefined);
    if (refusals.join() !== found.join()) {
      if (refusals.length > 0) log.error({ refusals }, "this worker takes no jobs now");
      else log.info("this worker takes jobs again");
    }
    found = refusals;
  }

  let looking: Promise<void> | undefined;
  /** One look at a time. */
  function lookNow(): Promise<void> {
    looking ??= look().finally(() => {
      looking = undefined;
      clearTimeout(timer);
      if (!closed) timer = setTimeout(lookNow, intervalMs);
    });
    return looking;
  }
  lookNow();

  return {
    refusals: () => (performance.now() < pausedUntil ? [...found, pausedFor] : found),
    failed({ message }) {
      lookNow();
      if (++failures < MAX_FAILURES) return;
      pausedUntil = performance.now() + pauseMs;
      pausedFor = `jobs: the last ${failures} attempts here failed for reasons of the machine, the last one so: ${message}`;
      log.error(
        { pauseMs, failures, message },
        "this worker takes no jobs for a while: attempts fail for reasons of the machine",
      );
      pauseMs = Math.min(2 * pauseMs, PAUSE_MS.most);
    },
    succeeded() {
      failures = 0;
      pauseMs = PAUSE_MS.first;
    },
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
}

async function refusalOf(name: string, probe: Probe): Promise<string | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("it does not answer.")), PROBE_TIMEOUT_MS);
  });
  try {
    await Promise.race([probe(), late]);
    return undefined;
  } catch (error) {
    return `${name}: ${(error as Error).message}`;
  } finally {
    clearTimeout(timer);
  }
}

const MIB = 2 ** 20;

/** Bytes that may still be written to the disk that `path` is on. */
export async function freeBytes(path: string): Promise<number> {
  const { bavail, bsize } = await statfs(path);
  return bavail * bsize;
}

/** Rejects when fewer than `bytes` are free on the disk of `path`. */
export function diskProbe(path: string, bytes: number): Probe {
  return async () => {
    const free = await freeBytes(path);
    if (free >= bytes) return;
    throw new Error(`${Math.floor(free / MIB)} MiB are free, and ${Math.ceil(bytes / MIB)} MiB are needed.`);
  };
}
