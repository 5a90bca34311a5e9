/** The thread of `factors-ahead.ts`: answers each matrix with its inverse factor. */
import { parentPort } from "node:worker_threads";
import { CoreError } from "../../errors.ts";
import type { FactorAnswer, FactorRequest } from "./factors-ahead.ts";
import { inverseFactor } from "./inverse-factor.ts";

function answerOf({ gram, depth }: FactorRequest): FactorAnswer {
  try {
    return { factor: inverseFactor(gram, depth) };
  } catch (error) {
    // What is no CoreError is a fault of the program: the thread ends with it, and the other one is told.
    if (!(error instanceof CoreError)) throw error;
    return { error: { code: error.code, message: error.message } };
  }
}

parentPort!.on("message", (request: FactorRequest) => {
  const answer = answerOf(request);
  parentPort!.postMessage(answer, answer.factor ? [answer.factor.buffer] : []);
});
