import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { CoreError } from "../src/core/errors.ts";
import { BrokenModel } from "../src/core/evaluate/comparison.ts";
import type { MeasurePeak, PeakMemory, PeakRequest } from "../src/core/evaluate/evaluate.ts";
import { compileCacheEnvironment } from "../src/tasks/compile-cache.ts";
import { ENVIRONMENT } from "../src/tasks/environment.ts";

/** What the child answers: the measurement, or why there is none. */
export type PeakAnswer =
  | { readonly peak: PeakMemory }
  | {
      readonly failure: {
        readonly code: CoreError["code"];
        readonly message: string;
        readonly subject: string | undefined;
      };
    };

const ENTRY = fileURLToPath(new URL("./peak-child.ts", import.meta.url));

/** How a process ends that native code has brought down. Out of memory it would be SIGKILL. */
const CRASHES: ReadonlySet<NodeJS.Signals> = new Set(["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP"]);

/** Runs a model in a process that does nothing else, and asks it how much memory it needed at most. */
export const measurePeak: MeasurePeak = (request: PeakRequest, signal?: AbortSignal) => {
  const { promise, resolve, reject } = Promise.withResolvers<PeakMemory>();
  // Without the raised malloc thresholds of job processes: they trade memory for speed.
  const child = fork(ENTRY, [], {
    env: { ...ENVIRONMENT, ...compileCacheEnvironment() },
    serialization: "advanced",
    stdio: ["ignore", "ignore", "ignore", "ipc"],
  });
  const onAbort = () => child.kill("SIGKILL");
  signal?.addEventListener("abort", onAbort);
  if (signal?.aborted) onAbort();
  child.once("message", (answer: PeakAnswer) => {
    if ("peak" in answer) resolve(answer.peak);
    else reject(new CoreError(answer.failure.code, answer.failure.message, answer.failure.subject));
    // It has nothing left to do, and the runtime's destructors are not worth waiting for.
    child.kill("SIGKILL");
  });
  child.once("error", reject);
  child.once("exit", (code, exitSignal) => {
    signal?.removeEventListener("abort", onAbort);
    if (signal?.aborted) reject(new CoreError("cancelled", "The work was cancelled."));
    // Has no effect when there was an answer.
    const how = exitSignal ?? `code ${code}`;
    reject(
      exitSignal !== null && CRASHES.has(exitSignal)
        ? new BrokenModel(`onnxruntime crashed with it (${how}).`)
        : new CoreError("internal", `The process that measured memory ended with ${how}.`),
    );
  });
  child.send(request, () => {});
  return promise;
};
