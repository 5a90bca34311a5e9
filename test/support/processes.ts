import { existsSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  // In a container nobody may collect the orphans: a zombie has ended, too.
  return !existsSync(`/proc/${pid}/stat`) || !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
}

/** Whether a process ends within a time. */
export async function hasEnded(pid: number, withinMs: number): Promise<boolean> {
  for (const start = performance.now(); performance.now() - start < withinMs; await sleep(20)) {
    if (!isRunning(pid)) return true;
  }
  return false;
}
