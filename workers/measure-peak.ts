import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { CoreError } from "../src/core/errors.ts";
import type { MeasurePeak, PeakMemory, PeakRequest } from "../src/core/evaluate/evaluate.ts";
import { ENVIRONMENT } from "./environment.ts";

/** What the child answers: the measurement, or why there is none. */
export type PeakAnswer =
  | { readonly peak: PeakMemory }
  | { readonly failure: { readonly code: CoreError["code"]; readonly message: string } };

const ENTRY = fileURLToPath(new URL("./peak-child.ts", import.meta.url));

/** Runs a model in a process that does nothing else, and asks it how much memory it needed at most. */
export const measurePeak: MeasurePeak = (request: PeakRequest, signal?: AbortSignal) => {
  const { promise, resolve, reject } = Promise.withResolvers<PeakMemory>();
  // Without the raised malloc thresholds of job processes: they trade memory for speed.
  const child = fork(ENTRY, [], {
    env: ENVIRONMENT,
    serialization: "advanced",
    stdio: ["ignore", "ignore", "ignore", "ipc"],
  });
  const onAbort = () => child.kill("SIGKILL");
  signal?.addEventListener("abort", onAbort);
  if (signal?.aborted) onAbort();
  child.once("message", (answer: PeakAnswer) => {
    if ("peak" in answer) resolve(answer.peak);
    else reject(new CoreError(answer.failure.code, answer.failure.message));
    // It has nothing left to do, and the runtime's destructors are not worth waiting for.
    child.kill("SIGKILL");
  });
  child.once("error", reject);
  child.once("exit", (code, exitSignal) => {
    signal?.removeEventListener("abort", onAbort);
    if (signal?.aborted) reject(new CoreError("cancelled", "The work was cancelled."));
    // Has no effect when there was an answer.
    reject(new CoreError("internal", `The process that measured memory ended with ${exitSignal ?? `code ${code}`}.`));
  });
  child.send(request, () => {});
  return promise;
};
