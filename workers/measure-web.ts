import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { CoreError } from "../src/core/errors.ts";
import type { ElsewhereAnswer } from "../src/core/index.ts";
import type { ElsewhereRequest, MeasureElsewhere } from "../src/service/kinds/run/job-environment.ts";
import { compileCacheEnvironment } from "../src/tasks/compile-cache.ts";
import { ENVIRONMENT } from "../src/tasks/environment.ts";

const ENTRY = fileURLToPath(new URL("./web-child.ts", import.meta.url));

/**
 * Runs two models in turns in onnxruntime-web, in a process that does nothing else: WebAssembly that runs out of its memory ends that one. What keeps the
 * result from running there is an answer. Throws `cancelled`.
 */
export const measureWeb: MeasureElsewhere = (request: ElsewhereRequest, signal: AbortSignal) => {
  const { promise, resolve, reject } = Promise.withResolvers<ElsewhereAnswer>();
  const child = fork(ENTRY, [], {
    env: { ...ENVIRONMENT, ...compileCacheEnvironment() },
    serialization: "advanced",
    stdio: ["ignore", "ignore", "ignore", "ipc"],
  });
  const onAbort = () => child.kill("SIGKILL");
  signal.addEventListener("abort", onAbort);
  if (signal.aborted) onAbort();
  child.once("message", (answer: ElsewhereAnswer) => {
    resolve(answer);
    child.kill("SIGKILL");
  });
  child.once("error", reject);
  child.once("exit", (code, exitSignal) => {
    signal.removeEventListener("abort", onAbort);
    if (signal.aborted) reject(new CoreError("cancelled", "The work was cancelled."));
    // Has no effect when there was an answer.
    resolve({ failure: `Its process ended with ${exitSignal ?? `code ${code}`}.` });
  });
  child.send(request, () => {});
  return promise;
};
