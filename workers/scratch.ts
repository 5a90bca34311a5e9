import { mkdir, readdir, rm, stat, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

/** A directory of this worker's own below a shared one; what it held is gone when the worker ends, also if it was killed. */
export interface WorkerScratch {
  readonly path: string;
  /** Says that the worker is alive, to workers on other machines that share the disk. */
  touch(): Promise<void>;
  remove(): Promise<void>;
}

/** Of a worker on another machine: after this long without a touch it is dead. */
const STALE_MS = 60 * 60 * 1000;

/** Makes the directory, and removes those of workers that are dead: their jobs may have left gigabytes. */
export async function createWorkerScratch(root: string, workerName: string): Promise<WorkerScratch> {
  const path = join(root, workerName);
  await mkdir(root, { recursive: true });
  for (const name of await readdir(root)) {
    if (await isDead(join(root, name), name)) await rm(join(root, name), { recursive: true, force: true });
  }
  await mkdir(path, { recursive: true, mode: 0o700 });
  return {
    path,
    async touch() {
      const now = new Date();
      await utimes(path, now, now);
    },
    remove: () => rm(path, { recursive: true, force: true }),
  };
}

/** Unique among the workers that run now, and tells on which machine. */
export function workerName(): string {
  return `${hostname()}.${process.pid}`;
}

async function isDead(path: string, name: string): Promise<boolean> {
  const [, host, pid] = /^(.*)\.(\d+)$/.exec(name) ?? [];
  if (host === hostname()) {
    // Our own pid: an earlier life in a container that was started again.
    if (Number(pid) === process.pid) return true;
    try {
      process.kill(Number(pid), 0);
      return false;
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === "ESRCH";
    }
  }
  const facts = await stat(path).catch(() => undefined);
  return facts !== undefined && facts.mtimeMs < Date.now() - STALE_MS;
}
