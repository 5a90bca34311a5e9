import type { TaskFailure, TaskLimits } from "../src/service/tasks.ts";

/** What is known about a child that ended without a result. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Why the supervisor killed it, if it did. */
  readonly killedFor: "cancelled" | "timeout" | "out_of_memory" | undefined;
  /** The end of what it wrote to stderr. */
  readonly stderr: string;
  /** Whether the kernel killed a process for lack of memory while it ran. */
  readonly kernelOomKill: boolean;
}

/** V8's, the C++ library's and onnxruntime's last words when memory cannot be had. */
const OUT_OF_MEMORY =
  /JavaScript heap out of memory|bad_?alloc|Failed to allocate memory|Array buffer allocation failed/i;

export function isOutOfMemory(text: string): boolean {
  return OUT_OF_MEMORY.test(text);
}

/** The failure that an exit means. */
export function failureOfExit(exit: Exit, limits: TaskLimits): TaskFailure {
  const { code, signal, killedFor, stderr, kernelOomKill } = exit;
  if (killedFor === "cancelled") return { code: "cancelled", message: "The work was cancelled." };
  if (killedFor === "timeout") {
    return { code: "timeout", message: `The work was stopped after ${limits.timeoutMs / 1000} s, its time limit.` };
  }
  if (killedFor === "out_of_memory") {
    const mib = Math.round(limits.memoryBytes / 2 ** 20);
    return {
      code: "out_of_memory",
      message: `The work was stopped when it used more than ${mib} MiB, its memory limit.`,
    };
  }
  if (signal === "SIGKILL" && kernelOomKill) {
    return { code: "out_of_memory", message: "The machine ran out of memory and stopped the work." };
  }
  if (isOutOfMemory(stderr)) return { code: "out_of_memory", message: "The work could not get the memory it needs." };
  const how = signal !== null ? `was ended by ${signal}` : `ended with exit code ${code}`;
  return { code: "worker_crashed", message: `The process that did the work ${how} before it had a result.` };
}
