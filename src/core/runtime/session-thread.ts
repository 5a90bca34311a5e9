/** The thread of a session of `threaded-session.ts`: opens the model that it was started with, and answers each request with one run. */
import { parentPort, workerData } from "node:worker_threads";
import { CoreError } from "../errors.ts";
import { openSession, type Session } from "./session.ts";
import { SharedMemory, type ThreadAnswer, type ThreadRun, type ThreadStart, tensorsOf } from "./threaded-session.ts";

const results = new SharedMemory();

async function answered(work: () => Promise<ThreadAnswer>): Promise<void> {
  let answer: ThreadAnswer;
  try {
    answer = await work();
  } catch (error) {
    // What is no CoreError is a fault of the program: the thread ends with it, and its session is told.
    if (!(error instanceof CoreError)) throw error;
    const { code, message, subject } = error;
    answer = { kind: "error", code, message, subject };
  }
  parentPort!.postMessage(answer);
}

let session: Session | undefined;
await answered(async () => {
  const { model, options } = workerData as ThreadStart;
  session = await openSession(model, options);
  return { kind: "open", inputs: session.inputs, outputs: session.outputs };
});
parentPort!.on("message", ({ feeds, outputs }: ThreadRun) =>
  answered(async () => ({ kind: "results", results: results.copy(await session!.run(tensorsOf(feeds), outputs)) })),
);
