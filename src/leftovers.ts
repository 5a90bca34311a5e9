import { readlinkSync } from "node:fs";
import { mkdir, readdir, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

/** Files and directories of one process below a directory that several processes share, and their removal when that process has been killed. */

/** What nobody has touched for this long belongs to a process that is gone, wherever that ran. */
const STALE_MS = 60 * 60 * 1000;

/**
 * Unique among the processes that run now, and tells where they run: `<host>.<pid namespace>.<pid>`. Containers may share a host's name and have
 * the same pids.
 */
export function processName(pid: number = process.pid): string {
  return `${hostname()}.${pidNamespace}.${pid}`;
}

const pidNamespace = readPidNamespace();

function readPidNamespace(): string {
  try {
    return readlinkSync("/proc/self/ns/pid").replace(/\D/g, "");
  } catch {
    return "0"; // Not Linux.
  }
}

/** A new name, in a shared directory, for a file or a directory of this process. */
export function ownName(): string {
  return `${processName()}.${crypto.randomUUID()}`;
}

/**
 * Removes what killed processes have left in a directory: at once what a process of this machine owned, after an hour what one of another machine
 * did. Does it again every hour. Creates the directory when it is missing.
 */
export async function keepFreeOfLeftovers(directory: string): Promise<void> {
  await removeLeftovers(directory);
  setInterval(() => removeLeftovers(directory).catch(() => {}), STALE_MS).unref();
}

async function removeLeftovers(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  for (const name of await readdir(directory)) {
    if (await isLeft(directory, name)) await rm(join(directory, name), { recursive: true, force: true });
  }
}

async function isLeft(directory: string, name: string): Promise<boolean> {
  const touched = (await stat(join(directory, name)).catch(() => undefined))?.mtimeMs;
  if (touched === undefined) return false;
  if (touched < Date.now() - STALE_MS) return true;
  const prefix = processName(0).slice(0, -1);
  const pid = name.startsWith(prefix) ? Number.parseInt(name.slice(prefix.length), 10) : Number.NaN;
  if (Number.isNaN(pid)) return false;
  // Our own pid: an earlier life in a container that was started again.
  return pid === process.pid ? touched < performance.timeOrigin : !isRunning(pid);
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}
