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
  /** What was wrong with what it has sent; it was killed for that. */
  readonly broken?: string | undefined;
  /** Whether the kernel killed a process for lack of memory while it ran. */
  readonly kernelOomKill: boolean;
}

/** V8's, the C++ library's and onnxruntime's last words when memory cannot be had. */
const OUT_OF_MEMORY =
  /JavaScript heap out of memory|bad_?alloc|Failed to allocate memory|Array buffer allocation failed/i;

/**
 * What the machine cannot do at the moment, whatever the work is: these are failures of the machine, and the work is done again later. All
 * of them, and whatever else is away, have the code `unavailable`.
 */
const MACHINE_ERRORS: Readonly<Record<string, string>> = {
  ENOSPC: "There is no space left on the disk that the work needs.",
  EDQUOT: "There is no space left on the disk that the work needs.",
  EROFS: "The disk that the work needs has become read-only.",
  EIO: "The disk that the work needs has failed.",
  EMFILE: "No more files can be opened on the machine of the work.",
  ENFILE: "No more files can be opened on the machine of the work.",
  EAGAIN: "No more processes can be started on the machine of the work.",
  ECONNREFUSED: "A service that the work needs cannot be reached.",
  ECONNRESET: "A service that the work needs cannot be reached.",
  ETIMEDOUT: "A service that the work needs cannot be reached.",
  ERR_DLOPEN_FAILED: "A native library that the work needs cannot be loaded.",
  ERR_MODULE_NOT_FOUND: "A program that the work needs is not installed completely.",
  MODULE_NOT_FOUND: "A program that the work needs is not installed completely.",
};

/** The same, where native code says it in words. */
const MACHINE_WORDS: readonly (readonly [RegExp, keyof typeof MACHINE_ERRORS])[] = [
  [/No space left on device|Disk quota exceeded/i, "ENOSPC"],
  [/Too many open files/i, "EMFILE"],
  [/Read-only file system/i, "EROFS"],
];

/** How native code brings its own process down. Every other signal comes from outside. */
const CRASHES: ReadonlySet<string> = new Set([
  ...["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"],
  ...["SIGPIPE", "SIGXCPU"],
]);

const TOO_LARGE_FILE = "The work wrote a file that is larger than a file may be.";

/** Whether nothing is wrong with the work, but with where it was done: it is done again, later or elsewhere. */
export function isMachineFailure({ code }: TaskFailure): boolean {
  return code === "unavailable";
}

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
  if (error instanceof Error && "code" in error && error.code === "EFBIG") {
    return { code: "limit_exceeded", message: TOO_LARGE_FILE };
  }
  const machine = machineErrorOf(error, text);
  if (machine !== undefined) return { code: "unavailable", message: machine };
  return { code: "internal", message: `The work failed in an unexpected way: ${text}` };
}

function machineErrorOf(error: unknown, text: string): string | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const known = "code" in cause ? MACHINE_ERRORS[String(cause.code)] : undefined;
    if (known !== undefined) return known;
  }
  const said = MACHINE_WORDS.find(([words]) => words.test(text));
  return said && MACHINE_ERRORS[said[1]];
}

/** The failure that an exit means. */
export function failureOfExit(exit: Exit, limits: TaskLimits): TaskFailure {
  const { code, signal, killedFor, stderr, kernelOomKill } = exit;
  if (exit.broken !== undefined) {
    return {
      code: "worker_crashed",
      message: `The process that did the work sent something that is none of its messages (${exit.broken}), and was ended.`,
    };
  }
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
  if (signal === "SIGXFSZ") return { code: "limit_exceeded", message: TOO_LARGE_FILE };
  if (signal !== null && !CRASHES.has(signal)) {
    return { code: "unavailable", message: `The process that did the work was ended from outside by ${signal}.` };
  }
  const how = signal !== null ? `was ended by ${signal}` : `ended with exit code ${code}`;
  return { code: "worker_crashed", message: `The process that did the work ${how} before it had a result.` };
}
