/** The thread of a session of `threaded-session.ts`: opens the model that it was started with, and answers each request with one run. */
import { parentPort, workerData } from "node:worker_threads";
import { CoreError } from "../errors.ts";
import type { Tensor } from "../onnx/tensor.ts";
import { openSession, type Session } from "./session.ts";
import { type SentTensor, type ThreadAnswer, type ThreadRun, type ThreadStart, tensorsOf } from "./threaded-session.ts";

/** What goes over to the other thread with an answer. */
function memoryOf(answer: ThreadAnswer): ArrayBuffer[] {
  if (answer.kind !== "results") return [];
  return Object.values(answer.results).map(({ memory }) => memory as ArrayBuffer);
}

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
  parentPort!.postMessage(answer, memoryOf(answer));
}

let session: Session | undefined;
await answered(async () => {
  const { model, options } = workerData as ThreadStart;
  session = await openSession(model, options);
  return { kind: "open", inputs: session.inputs, outputs: session.outputs };
});
/** Outputs have memory of their own. */
function sent({ dtype, dims, bytes }: Tensor): SentTensor {
  return { dtype, dims, memory: bytes.buffer as ArrayBuffer, offset: bytes.byteOffset };
}

parentPort!.on("message", ({ feeds, outputs }: ThreadRun) =>
  answered(async () => {
    const results = Object.entries(await session!.run(tensorsOf(feeds), outputs));
    return { kind: "results", results: Object.fromEntries(results.map(([name, value]) => [name, sent(value)])) };
  }),
);
