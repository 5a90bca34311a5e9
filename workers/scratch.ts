import { mkdir, rm, utimes } from "node:fs/promises";
import { join } from "node:path";
import { keepFreeOfLeftovers, processName } from "../src/leftovers.ts";

/** A directory of this worker's own below a shared one; what it held is gone when the worker ends, also if it was killed. */
export interface WorkerScratch {
  readonly path: string;
  /** Says that the worker is alive, to workers on other machines that share the disk. */
  touch(): Promise<void>;
  remove(): Promise<void>;
}

/** Makes the directory, and removes those of workers that are dead: their jobs may have left gigabytes. */
export async function createWorkerScratch(root: string): Promise<WorkerScratch> {
  const path = join(root, processName());
  await keepFreeOfLeftovers(root);
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
