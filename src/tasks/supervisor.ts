import { tmpdir } from "node:os";
import type { Logger } from "pino";
import { TaskError, type TaskRunner, type Tasks } from "./protocol.ts";
import { createReaper } from "./reaper.ts";
import { startTaskProcess, type TaskProcess } from "./task-process.ts";

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
  let spare: TaskProcess | undefined = start();

  function start(): TaskProcess {
    const { tmpDir = tmpdir(), killGraceMs = KILL_GRACE_MS } = options;
    const child = startTaskProcess({ entry, tmpDir, killGraceMs, reaper, log });
    children.add(child);
    child.exited.then(() => children.delete(child));
    return child;
  }

  return {
    async run(kind, request, { limits, signal, onNews }) {
      if (closed || signal?.aborted) {
        throw new TaskError({ code: "cancelled", message: "The work was cancelled before it started." });
      }
      const child = spare?.alive ? spare : start();
      spare = undefined;
      try {
        const result = await child.run(
          { kind, request },
          { limits, ...(signal && { signal }), ...(onNews && { onNews }) },
        );
        return result as Tasks[typeof kind]["result"];
      } finally {
        child.kill();
        child.exited.then(() => {
          if (!spare?.alive && !closed) spare = start();
        });
      }
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
