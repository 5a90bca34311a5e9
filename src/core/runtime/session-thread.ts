/** The thread of a session of `threaded-session.ts`: opens the model that it is told to, answers requests to run it, and closes it for the next one. */
import { parentPort } from "node:worker_threads";
import { CoreError } from "../errors.ts";
import type { Tensor } from "../onnx/tensor.ts";
import { openSession, type Session } from "./session.ts";
import { type SentTensor, type ThreadAnswer, type ThreadRequest, tensorsOf } from "./threaded-session.ts";

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

/** Outputs have memory of their own. */
function sent({ dtype, dims, bytes }: Tensor): SentTensor {
  return { dtype, dims, memory: bytes.buffer as ArrayBuffer, offset: bytes.byteOffset };
}

let session: Session | undefined;

async function answerTo(request: ThreadRequest): Promise<ThreadAnswer> {
  switch (request.kind) {
    case "open":
      session = await openSession(request.model, request.options);
      return { kind: "open", inputs: session.inputs, outputs: session.outputs };
    case "run": {
      const results = Object.entries(await session!.run(tensorsOf(request.feeds), request.outputs));
      return { kind: "results", results: Object.fromEntries(results.map(([name, value]) => [name, sent(value)])) };
    }
    case "close":
      await session?.close();
      session = undefined;
      return { kind: "closed" };
  }
}

parentPort!.on("message", (request: ThreadRequest) => answered(() => answerTo(request)));
