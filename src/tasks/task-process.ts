import { spawn } from "node:child_process";
import { constants } from "node:os";
import type { Readable, Writable } from "node:stream";
import { stripVTControlCharacters } from "node:util";
import type { Logger } from "pino";
import { compileCacheEnvironment } from "./compile-cache.ts";
import { ENVIRONMENT } from "./environment.ts";
import { type Exit, failureOfExit } from "./failures.ts";
import { type CheckedMessage, checkResult, MAX_MESSAGE_BYTES, parseMessage, readLines, reasonOf } from "./messages.ts";
import { createProcessGroup } from "./process-group.ts";
import { kernelOomKills, MEMORY_POLL_MS } from "./process-memory.ts";
import { TaskError, type TaskFailure, type TaskLimits, type TaskNews } from "./protocol.ts";
import type { Reaper } from "./reaper.ts";
import type { Sandbox } from "./sandbox.ts";
import type { TaskMessage } from "./task-server.ts";

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
const CLOSE_TIMEOUT_MS = 1_000;
/** Of one child's stderr, as lines in the log of its task, and as the tail in which a cause is looked for. */
const MAX_STDERR_LINES = 200;
const MAX_STDERR_LINE_CHARS = 500;
const STDERR_TAIL_CHARS = 8_192;

/**
 * Before the program takes over: no core dumps (they would hold the model); bounds of files, descriptors and processes; and the kernel's
 * first choice when the machine is out of memory, so that a job dies and not its worker or Redis. None needs a privilege. Shells differ
 * in the letter for processes.
 */
const LAUNCH = `
ulimit -c 0
ulimit -f "$1"
ulimit -n 4096 2> /dev/null
for letter in u p; do (ulimit -$letter 8192) 2> /dev/null && ulimit -$letter 8192; done
echo 800 2> /dev/null > /proc/self/oom_score_adj
shift
exec "$@"
`;
/** The unit of \`ulimit -f\`. */
const BLOCK_BYTES = 512;

/**
 * glibc gives every allocation over its threshold fresh pages, whose faults cost 3 to 20 times the arithmetic on large tensors;
 * raised, it keeps them. Both must be in the environment before the process starts.
 */
const ALLOCATOR = { MALLOC_MMAP_THRESHOLD_: "1073741824", MALLOC_TRIM_THRESHOLD_: "4294967296" } as const;

/**
 * V8 begins with 1 MiB for young objects, and copies what lives of them each time that is full: a tenth of an inspection, whose objects, a graph,
 * all live. In MiB.
 */
const YOUNG_GENERATION = "--min-semi-space-size=8";

export const CANCELLED: TaskFailure = { code: "cancelled", message: "The work was cancelled before it started." };
export const NOT_STARTED: TaskFailure = {
  code: "unavailable",
  message: "The process that does the work did not start.",
};

type KillReason = NonNullable<Exit["killedFor"]>;
type Answer = Extract<CheckedMessage, { type: "result" | "failure" }>;

export interface TaskProcessOptions {
  /** The module that it runs, which must call `serveTask`. */
  readonly entry: string;
  readonly sandbox: Sandbox;
  /** The directory that it may write to, and where its temporary files go. */
  readonly room: string;
  /** No file that it writes may be larger. */
  readonly maxFileBytes: number;
  /** From the request to stop to SIGKILL. */
  readonly killGraceMs: number;
  readonly reaper: Reaper;
  readonly log: Logger;
}

/** Starts a process. Throws when the system refuses. */
export function startTaskProcess(options: TaskProcessOptions): TaskProcess {
  const { reaper, killGraceMs, log, sandbox, room } = options;
  const command = sandbox.wrap([process.execPath, YOUNG_GENERATION, options.entry], room);
  const blocks = Math.ceil(options.maxFileBytes / BLOCK_BYTES);
  const child = spawn("/bin/sh", ["-c", LAUNCH, "sh", `${blocks}`, ...command], {
    env: { ...ENVIRONMENT, ...compileCacheEnvironment(), ...ALLOCATOR, TMPDIR: room, MODELPRESS_ROOM: room },
    stdio: ["pipe", "ignore", "pipe", "pipe"],
    detached: true, // A process group of its own: whatever the child starts dies with it.
  });
  const { pid } = child;
  const group = createProcessGroup(pid, {
    ...{ reaper, mark: `MODELPRESS_ROOM=${room}`, mayLeave: sandbox.level === "none" },
  });
  const [stdin, , stderrPipe, messages] = child.stdio;
  if (stdin == null || stderrPipe == null || messages == null)
    throw new Error("There are no pipes to a child process.");
  stdin.on("error", () => {}); // It is ending: its exit says how.

  const ready = Promise.withResolvers<void>();
  const exited = Promise.withResolvers<void>();
  /** Settles when it has ended, and what it had sent before has arrived. */
  const over = Promise.withResolvers<{ code: number | null; signal: NodeJS.Signals | null }>();
  let alive = pid !== undefined;
  let onLine: ((line: string) => void) | undefined;
  let onMessage: ((message: CheckedMessage) => void) | undefined;
  const stderr = readStderr(stderrPipe, (line) => onLine?.(line));

  let killed = false;
  let started = false;
  /** What was wrong with what it has sent: it is ended for that. */
  let broken: string | undefined;
  ready.promise.catch(() => {}); // A spare may die unobserved.

  const breakOff = (reason: string) => {
    broken ??= reason;
    group.kill();
  };
  readLines(messages as Readable, {
    onLine(line) {
      if (broken !== undefined) return;
      try {
        receive(parseMessage(line));
      } catch (error) {
        breakOff(reasonOf(error));
      }
    },
    onTooLong: () => breakOff(`it is longer than ${MAX_MESSAGE_BYTES} bytes`),
  });
  function receive(message: CheckedMessage): void {
    if (message.type === "ready") {
      started = true;
      clearTimeout(startTimer);
      ready.resolve();
    } else onMessage?.(message);
  }

  const startTimer = setTimeout(() => group.kill(), START_TIMEOUT_MS);
  child.once("error", (error) => {
    end({ err: error });
    over.resolve({ code: null, signal: "SIGKILL" });
  });
  child.once("exit", (code, signal) => {
    end({ code, signal });
    // What has left its group may hold the pipes open: that is not waited for.
    const close = () => over.resolve({ code, signal });
    child.once("close", close);
    setTimeout(close, CLOSE_TIMEOUT_MS);
  });

  function end(how: object): void {
    alive = false;
    clearTimeout(startTimer);
    if (!started) {
      if (!killed) log.error({ ...how, stderr: stderr.tail }, "a child process did not start");
      ready.reject(new TaskError(killed ? CANCELLED : NOT_STARTED));
    }
    group.end();
    exited.resolve();
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
      if (alive) group.look();
      group.kill();
    },

    async run(task, { limits, signal, onNews, startMs }) {
      const asked = performance.now() - startMs;
      const outcome = Promise.withResolvers<unknown>();
      const oomKillsBefore = kernelOomKills();
      let killedFor: KillReason | undefined;
      let graceTimer: NodeJS.Timeout | undefined;
      let answer: Answer | undefined;

      const stop = (reason: KillReason) => {
        if (killedFor !== undefined || answer !== undefined) return;
        killedFor = reason;
        if (reason === "out_of_memory") return group.kill(); // Every further moment makes it worse.
        say(stdin, { stop: true });
        graceTimer = setTimeout(group.kill, killGraceMs);
      };
      const onAbort = () => stop("cancelled");
      onMessage = (message) => {
        if (answer !== undefined || message.type === "ready") return;
        if (message.type === "started") {
          const data = { child_start_ms: Math.round(performance.now() - asked) };
          return onNews?.({ kind: "metric", data });
        }
        if (message.type === "news") return onNews?.(message.news as TaskNews);
        if (message.type === "result") checkResult(task.kind, message.result);
        answer = message;
        group.look();
        group.kill();
        if (killedFor === undefined && message.type === "result") outcome.resolve(message.result);
      };
      const onOver = (code: number | null, exitSignal: NodeJS.Signals | null) => {
        if (killedFor === undefined && answer?.type === "failure")
          return outcome.reject(new TaskError(answer.failure as TaskFailure));
        const oomKills = kernelOomKills();
        const kernelOomKill = oomKills !== undefined && oomKillsBefore !== undefined && oomKills > oomKillsBefore;
        const why = killedFor ?? (killed ? "cancelled" : undefined);
        const how = sandbox.level === "none" ? { code, signal: exitSignal } : exitInside(code, exitSignal);
        const exit = { ...how, killedFor: why, stderr: stderr.tail, kernelOomKill, broken };
        outcome.reject(new TaskError(failureOfExit(exit, limits)));
      };

      onLine = (message) => onNews?.({ kind: "log", level: "warn", message });
      over.promise.then(({ code, signal }) => onOver(code, signal));
      const timeout = setTimeout(stop, limits.timeoutMs, "timeout");
      const poll = setInterval(() => {
        if (group.look() > limits.memoryBytes) stop("out_of_memory");
      }, MEMORY_POLL_MS);
      signal?.addEventListener("abort", onAbort);
      try {
        if (alive) say(stdin, task);
        if (signal?.aborted) onAbort();
        return await outcome.promise;
      } finally {
        clearTimeout(timeout);
        clearInterval(poll);
        clearTimeout(graceTimer);
        signal?.removeEventListener("abort", onAbort);
        onLine = undefined;
        onMessage = undefined;
      }
    },
  };
}

function say(stdin: Writable, message: object): void {
  stdin.write(`${JSON.stringify(message)}\n`);
}

/** How a program ended, as what ran it in its namespace tells: the way shells do. */
function exitInside(code: number | null, signal: NodeJS.Signals | null): Pick<Exit, "code" | "signal"> {
  const number = (code ?? 0) - 128;
  const [name] = Object.entries(constants.signals).find(([, value]) => value === number) ?? [];
  return name === undefined ? { code, signal } : { code: null, signal: name as NodeJS.Signals };
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
