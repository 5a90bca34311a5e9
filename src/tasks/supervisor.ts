import { mkdirSync, realpathSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Logger } from "pino";
import { ownName } from "../leftovers.ts";
import { TaskError, type TaskRunner, type Tasks } from "./protocol.ts";
import { createReaper } from "./reaper.ts";
import type { Sandbox } from "./sandbox.ts";
import { CANCELLED, NOT_STARTED, startTaskProcess, type TaskProcess, unlessAborted } from "./task-process.ts";

export interface SupervisorOptions {
  /** The module that the child processes run. */
  readonly entry: URL;
  /** What they can reach (`openSandbox`). */
  readonly sandbox: Sandbox;
  readonly log: Logger;
  /** Where the rooms of children are made. */
  readonly tmpDir?: string;
  /** No file that a child writes may be larger. */
  readonly maxFileBytes?: number;
  readonly killGraceMs?: number;
  /** How many warm children wait; 2 unless given. */
  readonly spares?: number;
}

/** A cancelled task must be gone within 5 s, whatever it does; this leaves time for the request to get here. */
const KILL_GRACE_MS = 2_500;
/** A child that dies before it is ready is replaced so often. */
const MAX_STARTS = 3;
const MAX_FILE_BYTES = 64 * 2 ** 30;

interface Child {
  readonly process: TaskProcess;
  /** The only directory that it may write to; of its own. */
  readonly room: string;
}

/** One for the next task, and one for a task that comes before that one's successor is ready. */
const SPARES = 2;

/**
 * Runs every task in a process of its own, which may crash, hang in native code or take all memory without harm to this one.
 * Spare processes have loaded everything already and wait, so that no task pays for the start, not even one that comes right behind another. Each is
 * replaced when its task is over, not while that runs and may be measuring latencies; of two tasks without a pause between them the second begins
 * beside the start of a spare. How many tasks run at the same time is the caller's business.
 */
export function createSupervisor(options: SupervisorOptions): TaskRunner {
  const { log, sandbox, tmpDir = tmpdir(), killGraceMs = KILL_GRACE_MS, maxFileBytes = MAX_FILE_BYTES } = options;
  const mostSpares = options.spares ?? SPARES;
  const entry = fileURLToPath(options.entry);
  const reaper = createReaper(log);
  const children = new Set<Child>();
  /** Ends of tasks that are not over. */
  const ending = new Set<Promise<void>>();
  let closed = false;
  /** Tasks that have, or wait for, a child. */
  let working = 0;
  let spares: Child[] = [];

  function start(): Child {
    let room: string | undefined;
    try {
      room = join(tmpDir, ownName());
      mkdirSync(room, { recursive: true, mode: 0o700 });
      room = realpathSync(room);
      const process = startTaskProcess({ entry, sandbox, room, maxFileBytes, killGraceMs, reaper, log });
      const child = { process, room };
      children.add(child);
      process.exited.then(() => children.delete(child));
      return child;
    } catch (cause) {
      if (room !== undefined) rm(room, { recursive: true, force: true }).catch(() => {});
      // No descriptors, no memory or no disk for another process, for example.
      log.error({ err: cause }, "a child process cannot be started");
      throw new TaskError(NOT_STARTED, { cause });
    }
  }

  /** Starts a spare, and when that is ready another one, while nobody works. */
  function startSpares(): void {
    for (const dead of spares.filter(({ process }) => !process.alive)) leave(dead);
    spares = spares.filter(({ process }) => process.alive);
    if (spares.length >= mostSpares || closed) return;
    try {
      const child = start();
      spares.push(child);
      // One that dies is not replaced before the next task or check: the one after it would die as well.
      child.process.ready.then(() => working === 0 && startSpares()).catch(() => {});
    } catch {
      // It is logged, and whoever needs one hears of it.
    }
  }

  /** Ends a child, and removes its room. */
  async function leave({ process, room }: Child): Promise<void> {
    process.kill();
    await process.exited;
    await rm(room, { recursive: true, force: true }).catch((error) => log.warn({ err: error }, "a room stays"));
  }

  /** Ends the child of a task. Nobody waits for that: a process with much memory takes its time. */
  function finish(child: Child | undefined): void {
    const end = (child === undefined ? Promise.resolve() : leave(child)).then(() => {
      ending.delete(end);
      working--;
      startSpares();
    });
    ending.add(end);
  }

  /** The spare that was started first. */
  function takeSpare(): Child | undefined {
    for (let child = spares.shift(); child !== undefined; child = spares.shift()) {
      if (child.process.alive) return child;
      leave(child);
    }
    return undefined;
  }

  /** A child that is ready. Nothing is lost when one dies before it is: then there is another one. */
  async function readyChild(signal: AbortSignal | undefined): Promise<Child> {
    for (let starts = 1; ; starts++) {
      const child = takeSpare() ?? start();
      try {
        await unlessAborted(child.process.ready, signal);
        return child;
      } catch (error) {
        leave(child);
        if (closed) throw new TaskError(CANCELLED);
        if (signal?.aborted || starts === MAX_STARTS) throw error;
      }
    }
  }

  return {
    async withRoom(use, signal) {
      if (closed || signal?.aborted) throw new TaskError(CANCELLED);
      const asked = performance.now();
      working++;
      let child: Child | undefined;
      try {
        child = await readyChild(signal);
        const { process, room } = child;
        const startMs = performance.now() - asked;
        return await use({
          directory: room,
          async run(kind, request, { limits, signal, onNews }) {
            const news = { ...(signal && { signal }), ...(onNews && { onNews }) };
            const result = await process.run({ kind, request }, { limits, startMs, ...news });
            return result as Tasks[typeof kind]["result"];
          },
        });
      } finally {
        finish(child);
      }
    },

    prepare: startSpares,

    async check() {
      // A child at work shows that they can be started; and its measurements are not to be disturbed.
      if (working > 0 || closed) return;
      const child = await readyChild(undefined);
      if (closed || working > 0 || spares.length >= mostSpares) return leave(child);
      spares.unshift(child);
      startSpares();
    },

    async close() {
      closed = true;
      await Promise.all([...[...children].map(leave), ...ending]);
      reaper.close();
    },
  };
}
