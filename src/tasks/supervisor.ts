import { tmpdir } from "node:os";
import type { Logger } from "pino";
import { TaskError, type TaskRunner, type Tasks } from "./protocol.ts";
import { createReaper } from "./reaper.ts";
import { CANCELLED, NOT_STARTED, startTaskProcess, type TaskProcess, unlessAborted } from "./task-process.ts";

export interface SupervisorOptions {
  /** The module that the child processes run. */
  readonly entry: URL;
  readonly log: Logger;
  /** Where children put temporary files. */
  readonly tmpDir?: string;
  readonly killGraceMs?: number;
}

/** A cancelled task must be gone within 5 s, whatever it does; this leaves time for the signal to get here. */
const KILL_GRACE_MS = 2_500;

/** A child that dies before it is ready is replaced so often. */
const MAX_STARTS = 3;

/**
 * Runs every task in a process of its own, which may crash, hang in native code or take all memory without harm to this one.
 * One spare process has loaded everything already and waits, so that a task does not pay for the start. It is replaced when the
 * task is over, not while the task runs and may be measuring latencies. How many tasks run at the same time is the caller's business.
 */
export function createSupervisor(options: SupervisorOptions): TaskRunner {
  const { log, entry } = options;
  const reaper = createReaper(log);
  const children = new Set<TaskProcess>();
  let closed = false;
  /** Tasks that have, or wait for, a child. */
  let working = 0;
  let spare: TaskProcess | undefined;
  startSpare();

  function start(): TaskProcess {
    const { tmpDir = tmpdir(), killGraceMs = KILL_GRACE_MS } = options;
    try {
      const child = startTaskProcess({ entry, tmpDir, killGraceMs, reaper, log });
      children.add(child);
      child.exited.then(() => children.delete(child));
      return child;
    } catch (cause) {
      // No descriptors or no memory for another process, for example.
      log.error({ err: cause }, "a child process cannot be started");
      throw new TaskError(NOT_STARTED, { cause });
    }
  }

  function startSpare(): void {
    if (spare?.alive || closed) return;
    try {
      spare = start();
    } catch {
      spare = undefined; // It is logged, and whoever needs one hears of it.
    }
  }

  /** A child that is ready. Nothing is lost when one dies before it is: then there is another one. */
  async function readyChild(signal: AbortSignal | undefined): Promise<TaskProcess> {
    for (let starts = 1; ; starts++) {
      const child = spare?.alive ? spare : start();
      spare = undefined;
      try {
        await unlessAborted(child.ready, signal);
        return child;
      } catch (error) {
        if (closed || signal?.aborted || starts === MAX_STARTS) {
          child.kill();
          throw closed ? new TaskError(CANCELLED) : error;
        }
      }
    }
  }

  return {
    async run(kind, request, { limits, signal, onNews }) {
      if (closed || signal?.aborted) throw new TaskError(CANCELLED);
      const asked = performance.now();
      working++;
      const child = await readyChild(signal).catch((error) => {
        working--;
        throw error;
      });
      try {
        const startMs = performance.now() - asked;
        const result = await child.run(
          { kind, request },
          { limits, startMs, ...(signal && { signal }), ...(onNews && { onNews }) },
        );
        return result as Tasks[typeof kind]["result"];
      } finally {
        working--;
        child.kill();
        child.exited.then(startSpare);
      }
    },

    async check() {
      // A child at work shows that they can be started; and its measurements are not to be disturbed.
      if (working > 0 || closed) return;
      const child = await readyChild(undefined);
      if (spare?.alive || working > 0) child.kill();
      else spare = child;
    },

    async close() {
      closed = true;
      const ended = [...children].map((child) => child.exited);
      for (const child of children) child.kill();
      await Promise.all(ended);
      reaper.close();
    },
  };
}
