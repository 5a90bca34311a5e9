import { fork } from "node:child_process";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { stripVTControlCharacters } from "node:util";
import type { Logger } from "pino";
import { ENVIRONMENT } from "./environment.ts";
import { type Exit, failureOfExit } from "./failures.ts";
import { kernelOomKills, MEMORY_POLL_MS, residentBytes } from "./process-memory.ts";
import { TaskError, type TaskFailure, type TaskLimits, type TaskNews } from "./protocol.ts";
import type { Reaper } from "./reaper.ts";
import type { ChildMessage, TaskMessage } from "./task-server.ts";

/** One child process: it gets ready, runs one task, and is over. */
export interface TaskProcess {
  readonly pid: number | undefined;
  /** False from the moment it has ended. */
  readonly alive: boolean;
  /** Rejects with a `TaskError` when it ends before it is ready for its task. */
  readonly ready: Promise<void>;
  /** Settles when no process of the group is left. */
  readonly exited: Promise<void>;
  /** Rejects with a `TaskError`, when the process has ended, or has not been given the task. */
  run(
    task: TaskMessage,
    options: { limits: TaskLimits; signal?: AbortSignal; onNews?: (news: TaskNews) => void; startMs: number },
  ): Promise<unknown>;
  kill(): void;
}

const START_TIMEOUT_MS = 120_000;
/** Of one child's stderr, as lines in the log of its task, and as the tail in which a cause is looked for. */
const MAX_STDERR_LINES = 200;
const MAX_STDERR_LINE_CHARS = 500;
const STDERR_TAIL_CHARS = 8_192;

/**
 * Before node takes over: no core dumps (they would hold the model), and the kernel's first choice when the machine is out of
 * memory, so that a job dies and not its worker or Redis. Neither needs a privilege.
 */
const LAUNCH = 'ulimit -c 0; echo 800 2> /dev/null > /proc/self/oom_score_adj; exec "$0" "$@"';

/**
 * glibc gives every allocation over its threshold fresh pages, whose faults cost 3 to 20 times the arithmetic on large tensors;
 * raised, it keeps them. Both must be in the environment before the process starts.
 */
const ALLOCATOR = { MALLOC_MMAP_THRESHOLD_: "1073741824", MALLOC_TRIM_THRESHOLD_: "4294967296" } as const;

export const CANCELLED: TaskFailure = { code: "cancelled", message: "The work was cancelled before it started." };
export const NOT_STARTED: TaskFailure = {
  code: "unavailable",
  message: "The process that does the work did not start.",
};

type KillReason = NonNullable<Exit["killedFor"]>;

/** Starts a process that runs the module `entry`, which must call `serveTask`. */
export function startTaskProcess(options: {
  entry: URL;
  tmpDir: string;
  /** From SIGTERM to SIGKILL. */
  killGraceMs: number;
  reaper: Reaper;
  log: Logger;
}): TaskProcess {
  const { reaper, killGraceMs, log } = options;
  const child = fork(fileURLToPath(options.entry), [], {
    execPath: "/bin/sh",
    execArgv: ["-c", LAUNCH, process.execPath],
    env: { ...ENVIRONMENT, ...ALLOCATOR, TMPDIR: options.tmpDir },
    serialization: "advanced",
    stdio: ["ignore", "ignore", "pipe", "ipc"],
    detached: true, // A process group of its own: whatever the child starts dies with it.
  });
  const { pid } = child;
  if (pid !== undefined) reaper.watch(pid);

  const ready = Promise.withResolvers<void>();
  const exited = Promise.withResolvers<void>();
  let alive = pid !== undefined;
  let onLine: ((line: string) => void) | undefined;
  const stderr = child.stderr === null ? { tail: "" } : readStderr(child.stderr, (line) => onLine?.(line));

  let killed = false;
  let started = false;
  ready.promise.catch(() => {}); // A spare may die unobserved.
  child.on("message", (message: ChildMessage) => {
    if (message.type !== "ready") return;
    started = true;
    clearTimeout(startTimer);
    ready.resolve();
  });
  const startTimer = setTimeout(() => signalGroup("SIGKILL"), START_TIMEOUT_MS);
  child.once("error", (error) => end({ err: error }));
  child.once("exit", (code, signal) => end({ code, signal }));

  function end(how: object): void {
    alive = false;
    clearTimeout(startTimer);
    if (!started) {
      if (!killed) log.error({ ...how, stderr: stderr.tail }, "a child process did not start");
      ready.reject(new TaskError(killed ? CANCELLED : NOT_STARTED));
    }
    signalGroup("SIGKILL"); // The leader is gone; what it started may not be.
    if (pid !== undefined) reaper.forget(pid);
    exited.resolve();
  }

  function signalGroup(signal: "SIGTERM" | "SIGKILL"): void {
    if (pid === undefined) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // Nobody is left in the group.
    }
  }

  return {
    pid,
    ready: ready.promise,
    get alive() {
      return alive;
    },
    exited: exited.promise,
    kill() {
      killed = true;
      signalGroup("SIGKILL");
    },

    async run(task, { limits, signal, onNews, startMs }) {
      const asked = performance.now() - startMs;
      const outcome = Promise.withResolvers<unknown>();
      const oomKillsBefore = kernelOomKills();
      let killedFor: KillReason | undefined;
      let graceTimer: NodeJS.Timeout | undefined;
      let answer: Extract<ChildMessage, { type: "result" | "failure" }> | undefined;

      const stop = (reason: KillReason) => {
        if (killedFor !== undefined || answer !== undefined) return;
        killedFor = reason;
        if (reason === "out_of_memory") return signalGroup("SIGKILL"); // Every further moment makes it worse.
        signalGroup("SIGTERM");
        graceTimer = setTimeout(signalGroup, killGraceMs, "SIGKILL");
      };
      const onAbort = () => stop("cancelled");
      const onMessage = (message: ChildMessage) => {
        if (message.type === "ready" || answer !== undefined) return;
        if (message.type === "started") {
          const data = { child_start_ms: Math.round(performance.now() - asked) };
          return onNews?.({ kind: "metric", data });
        }
        if (message.type === "news") return onNews?.(message.news);
        answer = message;
        signalGroup("SIGKILL");
        if (killedFor === undefined && message.type === "result") outcome.resolve(message.result);
      };
      const onExit = (code: number | null, exitSignal: NodeJS.Signals | null) => {
        if (killedFor === undefined && answer?.type === "failure") return outcome.reject(new TaskError(answer.failure));
        const oomKills = kernelOomKills();
        const kernelOomKill = oomKills !== undefined && oomKillsBefore !== undefined && oomKills > oomKillsBefore;
        const why = killedFor ?? (killed ? "cancelled" : undefined);
        const exit = { code, signal: exitSignal, killedFor: why, stderr: stderr.tail, kernelOomKill };
        outcome.reject(new TaskError(failureOfExit(exit, limits)));
      };

      onLine = (message) => onNews?.({ kind: "log", level: "warn", message });
      child.on("message", onMessage);
      child.once("exit", onExit);
      const timeout = setTimeout(stop, limits.timeoutMs, "timeout");
      const poll = setInterval(() => {
        if (pid !== undefined && residentBytes(pid) > limits.memoryBytes) stop("out_of_memory");
      }, MEMORY_POLL_MS);
      signal?.addEventListener("abort", onAbort);
      try {
        if (!alive) onExit(child.exitCode, child.signalCode);
        else child.send(task, () => {}); // When it cannot be sent the child is ending: onExit says how.
        return await outcome.promise;
      } finally {
        clearTimeout(timeout);
        clearInterval(poll);
        clearTimeout(graceTimer);
        signal?.removeEventListener("abort", onAbort);
        onLine = undefined;
      }
    },
  };
}

/** Settles like `promise`, or rejects as cancelled as soon as `signal` fires. */
export function unlessAborted(promise: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const stop = () => reject(new TaskError(CANCELLED));
    if (signal.aborted) return stop();
    signal.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

/** Hands on what a child writes, line by line and bounded: it is untrusted, and may be endless. */
function readStderr(stream: Readable, onLine: (line: string) => void): { readonly tail: string } {
  const state = { tail: "" };
  let line = "";
  let lines = 0;
  const flush = () => {
    const text = stripVTControlCharacters(line)
      .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, " ")
      .trim();
    line = "";
    if (text !== "" && lines++ < MAX_STDERR_LINES) onLine(text);
  };
  stream.setEncoding("utf8").on("data", (chunk: string) => {
    state.tail = (state.tail + chunk).slice(-STDERR_TAIL_CHARS);
    for (const [i, part] of chunk.split("\n").entries()) {
      if (i > 0) flush();
      line = (line + part).slice(0, MAX_STDERR_LINE_CHARS);
    }
  });
  stream.on("end", flush).on("error", () => {});
  return state;
}
