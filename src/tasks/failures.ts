import { CoreError } from "../core/contract.ts";
import { ServiceError } from "../service/errors.ts";
import { TaskError, type TaskFailure, type TaskLimits } from "./protocol.ts";

/** The two ways for work to fail, an error or the end of its process, and what they mean to who asked for it. */

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

const DISK_FULL = new Set(["ENOSPC", "EDQUOT"]);

/** The failure that an error means. What is not a refusal is a bug, and is `internal`. */
export function failureOfError(error: unknown): TaskFailure {
  if (error instanceof CoreError || error instanceof TaskError) {
    const { code, message, subject } = error;
    const fields = error instanceof TaskError ? error.fields : undefined;
    return { code, message, ...(subject !== undefined && { subject }), ...(fields && { fields }) };
  }
  if (error instanceof ServiceError) return { code: error.code, message: error.message };
  const text = error instanceof Error ? error.message : String(error);
  if (OUT_OF_MEMORY.test(text))
    return { code: "out_of_memory", message: "The work could not get the memory it needs." };
  if (error instanceof Error && "code" in error && DISK_FULL.has(String(error.code))) {
    return { code: "unavailable", message: "There is no space left on the disk that the work needs." };
  }
  return { code: "internal", message: `The work failed in an unexpected way: ${text}` };
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
  if (OUT_OF_MEMORY.test(stderr))
    return { code: "out_of_memory", message: "The work could not get the memory it needs." };
  const how = signal !== null ? `was ended by ${signal}` : `ended with exit code ${code}`;
  return { code: "worker_crashed", message: `The process that did the work ${how} before it had a result.` };
}
