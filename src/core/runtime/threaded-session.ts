/**
 * A session on a JavaScript thread of its own (`session-thread.ts`). A run of onnxruntime blocks the thread that it is called from; so several
 * models, or parts of a batch, are computed at one time only by several threads. Feeds go there in shared memory, of which nothing but the handle
 * is sent; what is not shared yet is copied into memory that is allocated once for each name. Outputs change hands without a copy.
 */
import { Worker } from "node:worker_threads";
import { CoreError, type CoreErrorCode, checkCancelled } from "../errors.ts";
import type { ValueFacts } from "../facts.ts";
import { byteLengthOf, type DType } from "../onnx/dtype.ts";
import { elementCount, type Tensor, tensor } from "../onnx/tensor.ts";
import type { ModelSource, Session, SessionOptions } from "./session.ts";

/** A tensor as it is sent. */
export interface SentTensor {
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly memory: SharedArrayBuffer | ArrayBuffer;
  readonly offset: number;
}

type Sent = Readonly<Record<string, SentTensor>>;

/** What the thread is started with. */
export interface ThreadStart {
  readonly model: ModelSource;
  readonly options: SessionOptions;
}

/** What the thread is asked. */
export interface ThreadRun {
  readonly feeds: Sent;
  readonly outputs: readonly string[] | undefined;
}

/** What it answers: first to being started, then to each run. */
export type ThreadAnswer =
  | { readonly kind: "open"; readonly inputs: readonly ValueFacts[]; readonly outputs: readonly ValueFacts[] }
  | { readonly kind: "results"; readonly results: Sent }
  | {
      readonly kind: "error";
      readonly code: CoreErrorCode;
      readonly message: string;
      readonly subject: string | undefined;
    };

/** Memory that both threads see, kept by name and used again for a tensor of the same size. */
class SharedMemory {
  readonly #memory = new Map<string, SharedArrayBuffer>();

  /** `tensors` where both threads see them. Copies of the last call are overwritten. */
  share(tensors: Readonly<Record<string, Tensor>>): Sent {
    return Object.fromEntries(Object.entries(tensors).map(([name, value]) => [name, this.#share(name, value)]));
  }

  #share(name: string, { dtype, dims, bytes }: Tensor): SentTensor {
    if (bytes.buffer instanceof SharedArrayBuffer) {
      return { dtype, dims, memory: bytes.buffer, offset: bytes.byteOffset };
    }
    let memory = this.#memory.get(name);
    if (memory?.byteLength !== bytes.byteLength) {
      memory = new SharedArrayBuffer(bytes.byteLength);
      this.#memory.set(name, memory);
    }
    new Uint8Array(memory).set(bytes);
    return { dtype, dims, memory, offset: 0 };
  }
}

/** Tensors over the memory that was sent. */
export function tensorsOf(sent: Sent): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(sent).map(([name, { dtype, dims, memory, offset }]) => [
      name,
      tensor(dtype, dims, new Uint8Array(memory, offset, byteLengthOf(dtype, elementCount(dims)))),
    ]),
  );
}

/** Gives back memory; arrays over it are empty from then on. */
export function freeMemory(memory: ArrayBufferLike): void {
  if (memory instanceof ArrayBuffer) memory.transfer(0);
}

interface Waiting {
  readonly resolve: (answer: ThreadAnswer) => void;
  readonly reject: (error: CoreError) => void;
}

class ThreadedSession implements Session {
  inputs: readonly ValueFacts[] = [];
  outputs: readonly ValueFacts[] = [];
  readonly #thread: Worker;
  readonly #memory = new SharedMemory();
  readonly #transient: boolean;
  /** What the last run has answered, where that is gone with the next one. */
  #last: Sent = {};
  #waiting: Waiting | undefined;
  /** Why the thread is no more. */
  #ended: CoreError | undefined;

  constructor(model: ModelSource, { ownThread: _, transientOutputs = false, ...options }: SessionOptions) {
    const start: ThreadStart = { model, options };
    this.#transient = transientOutputs;
    this.#thread = new Worker(new URL("./session-thread.ts", import.meta.url), { workerData: start });
    this.#thread.on("message", (answer: ThreadAnswer) => {
      const waiting = this.#waiting;
      this.#waiting = undefined;
      if (answer.kind === "error") waiting?.reject(new CoreError(answer.code, answer.message, answer.subject));
      else waiting?.resolve(answer);
    });
    this.#thread.on("error", (cause) => this.#end(`failed: ${cause.message}`));
    this.#thread.on("exit", () => this.#end("has ended"));
  }

  #end(what: string): void {
    this.#ended ??= new CoreError("internal", `The thread of a session ${what}.`);
    this.#waiting?.reject(this.#ended);
    this.#waiting = undefined;
  }

  async #answer(request?: ThreadRun): Promise<ThreadAnswer> {
    if (this.#ended) throw this.#ended;
    if (this.#waiting) throw new CoreError("internal", "A session on a thread runs once at a time.");
    const answer = new Promise<ThreadAnswer>((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
    if (request) this.#thread.postMessage(request);
    return answer;
  }

  async open(): Promise<void> {
    const answer = await this.#answer();
    if (answer.kind === "open") Object.assign(this, { inputs: answer.inputs, outputs: answer.outputs });
  }

  async run(
    feeds: Readonly<Record<string, Tensor>>,
    outputs?: readonly string[],
    signal?: AbortSignal,
  ): Promise<Record<string, Tensor>> {
    checkCancelled(signal);
    for (const { memory } of Object.values(this.#last)) freeMemory(memory);
    this.#last = {};
    const answer = await this.#answer({ feeds: this.#memory.share(feeds), outputs });
    if (answer.kind !== "results") return {};
    if (this.#transient) this.#last = answer.results;
    return tensorsOf(answer.results);
  }

  async close(): Promise<void> {
    await this.#thread.terminate();
  }
}

/** See `ownThread` of the options. Throws as `openSession` does. */
export async function openOnThread(model: ModelSource, options: SessionOptions): Promise<Session> {
  const session = new ThreadedSession(model, options);
  try {
    await session.open();
  } catch (error) {
    await session.close();
    throw error;
  }
  return session;
}
