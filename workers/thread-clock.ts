import { openSync, readSync } from "node:fs";

/**
 * A clock of what this thread could compute, in milliseconds: time of the clock less what the thread waited for a processor. Linux counts that wait in
 * nanoseconds, while `process.threadCpuUsage` goes on in ticks of some milliseconds, which is as long as a model runs. Undefined where the system does
 * not tell.
 */
export function openThreadClock(path = "/proc/thread-self/schedstat"): (() => number) | undefined {
  try {
    const file = openSync(path, "r");
    const text = Buffer.alloc(128);
    const now = () => {
      const fields = text.toString("latin1", 0, readSync(file, text, 0, text.length, 0)).split(" ");
      return performance.now() - Number(fields[1]) / 1e6;
    };
    return Number.isFinite(now()) ? now : undefined;
  } catch {
    return undefined;
  }
}
