/** Inverse factors of several matrices, computed one after the other on a thread of their own while those before are used. */
import { Worker } from "node:worker_threads";
import { CoreError, type CoreErrorCode } from "../../errors.ts";
import { inverseFactor } from "./inverse-factor.ts";

export interface FactorRequest {
  readonly gram: Float32Array;
  readonly depth: number;
}

export interface FactorAnswer {
  readonly factor?: Float64Array<ArrayBuffer> | undefined;
  readonly error?: { readonly code: CoreErrorCode; readonly message: string };
}

/** Elements of factors that may be waiting, 8 bytes each; one may always be. */
const MOST_WAITING = 2 ** 24;

/**
 * Answers what `inverseFactor` does, for matrices that are asked for in the order in which they were given; each may be asked for again as long as no other
 * was. Others are computed when they are asked for.
 */
export class FactorsAhead implements AsyncDisposable {
  /** Not sent yet. */
  readonly #coming: Float32Array[];
  /** Sent, and not asked for. */
  readonly #sent = new Map<Float32Array, Promise<Float64Array | undefined>>();
  readonly #answers: PromiseWithResolvers<Float64Array | undefined>[] = [];
  #thread: Worker | undefined;
  #last: { readonly gram: Float32Array; readonly factor: Float64Array | undefined } | undefined;

  /** Matrices [depth, depth]; the first is left to who asks for it, who would have to wait. */
  constructor(grams: readonly Float32Array[]) {
    this.#coming = [...new Set(grams)].slice(1);
    this.#send();
  }

  async factorOf(gram: Float32Array, depth: number): Promise<Float64Array | undefined> {
    if (this.#last?.gram === gram) return this.#last.factor;
    this.#last = undefined;
    const sent = this.#sent.get(gram);
    this.#sent.delete(gram);
    this.#send();
    const factor = sent ? await sent : inverseFactor(gram, depth);
    this.#last = { gram, factor };
    return factor;
  }

  #send(): void {
    for (;;) {
      const waiting = this.#sent.keys().reduce((sum, { length }) => sum + length, 0);
      const [gram] = this.#coming;
      if (!gram || (waiting > 0 && waiting + gram.length > MOST_WAITING)) return;
      this.#coming.shift();
      const answer = Promise.withResolvers<Float64Array | undefined>();
      // It may fail before it is asked for.
      answer.promise.catch(() => {});
      this.#answers.push(answer);
      this.#sent.set(gram, answer.promise);
      this.#thread ??= this.#start();
      this.#thread.postMessage({ gram, depth: Math.sqrt(gram.length) } satisfies FactorRequest);
    }
  }

  #start(): Worker {
    const thread = new Worker(new URL("./factor-thread.ts", import.meta.url));
    thread.on("message", ({ factor, error }: FactorAnswer) => {
      const answer = this.#answers.shift()!;
      if (error) answer.reject(new CoreError(error.code, error.message));
      else answer.resolve(factor);
    });
    thread.on("error", (cause) => this.#end(`failed: ${cause.message}`));
    thread.on("exit", () => this.#end("has ended"));
    return thread;
  }

  #end(what: string): void {
    const error = new CoreError("internal", `The thread of inverse factors ${what}.`);
    for (const answer of this.#answers.splice(0)) answer.reject(error);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#thread?.terminate();
  }
}
