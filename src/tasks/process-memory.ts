import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";

/** How often the memory of a child is worth looking at: a file read on Linux, a `ps` elsewhere. */
export const MEMORY_POLL_MS = process.platform === "linux" ? 100 : 1_000;

/**
 * Resident bytes of a process and its descendants, 0 for one that is gone. Pages shared between them count once for each.
 * `pid` must lead a process group of its own.
 */
export function residentBytes(pid: number): number {
  return process.platform === "linux" ? residentByProc(pid) : residentByPs(pid);
}

function residentByProc(pid: number): number {
  try {
    const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1] ?? "0";
    // libuv forks from the main thread, whose id is the process's.
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1").trim();
    let bytes = Number(kib) * 1024;
    for (const child of children === "" ? [] : children.split(" ")) bytes += residentByProc(Number(child));
    return bytes;
  } catch {
    return 0; // It ended while we looked.
  }
}

function residentByPs(group: number): number {
  try {
    const rows = execFileSync("/bin/ps", ["-axo", "pgid=,rss="], { encoding: "latin1", timeout: 2_000 }).split("\n");
    let kib = 0;
    for (const row of rows) {
      const [pgid, rss] = row.trim().split(/\s+/);
      if (Number(pgid) === group) kib += Number(rss);
    }
    return kib * 1024;
  } catch {
    return 0;
  }
}

/**
 * How many processes the kernel has killed for lack of memory so far, in all of this machine; undefined where it does not say.
 * A SIGKILL that nobody here sent and a higher count mean that the kernel did it.
 */
export function kernelOomKills(): number | undefined {
  if (process.platform !== "linux") return undefined;
  try {
    const count = /^oom_kill (\d+)$/m.exec(readFileSync("/proc/vmstat", "latin1"))?.[1];
    return count === undefined ? undefined : Number(count);
  } catch {
    return undefined;
  }
}

/** A process, and when it started: numbers are used again. */
export interface Descendant {
  readonly pid: number;
  readonly startedAt: string;
}

/** The processes below `pid` at this moment, on Linux. */
export function descendantsOf(pid: number): Descendant[] {
  const found: Descendant[] = [];
  try {
    for (const child of readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1").trim().split(" ")) {
      const startedAt = child === "" ? undefined : startOf(Number(child));
      if (startedAt !== undefined) found.push({ pid: Number(child), startedAt }, ...descendantsOf(Number(child)));
    }
  } catch {
    // It ended while we looked.
  }
  return found;
}

/** Whether that process, and no later one of its number, is there. */
export function isThere({ pid, startedAt }: Descendant): boolean {
  return startOf(pid) === startedAt;
}

function startOf(pid: number): string | undefined {
  try {
    // The name, in brackets, may hold spaces; the start is the 20th field behind it.
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    return text.slice(text.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}

/** The processes of this machine, but for this one, whose environment holds `text`, on Linux. */
export function processesWith(text: string): Descendant[] {
  if (process.platform !== "linux") return [];
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((name) => {
      try {
        if (!readFileSync(`/proc/${name}/environ`, "latin1").includes(text)) return [];
        const startedAt = startOf(Number(name));
        return startedAt === undefined ? [] : [{ pid: Number(name), startedAt }];
      } catch {
        return []; // Not ours, or gone.
      }
    });
}
