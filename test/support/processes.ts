import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

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

/** Pids of the processes below `root` whose command line contains `text`. */
export async function descendants(root: number, text: string): Promise<number[]> {
  const { stdout } = await promisify(execFile)("ps", ["-axo", "pid=,ppid=,args="]);
  const rows = stdout.split("\n").map((line) => /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line) ?? []);
  const below = new Set([String(root)]);
  // A child may be listed before its parent: again until nothing is added.
  for (let size = 0; size !== below.size; ) {
    size = below.size;
    for (const [, pid, parent] of rows) if (pid !== undefined && below.has(parent!)) below.add(pid);
  }
  below.delete(String(root));
  return rows
    .filter(([, pid, , args]) => pid !== undefined && below.has(pid) && args!.includes(text))
    .map(([, pid]) => Number(pid));
}
