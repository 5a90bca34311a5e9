/**
 * A session on a JavaScript thread of its own (`session-thread.ts`). A run of onnxruntime blocks the thread that it is called from; so several
 * models, or parts of a batch, are computed at one time only by several threads. Tensors go to and fro through shared memory, which is
 * allocated once for each name: nothing but its handle is sent.
 */
import { Worker } from "node:worker_threads";
import { CoreError, type CoreErrorCode, checkCancelled } from "../errors.ts";
import type { ValueFacts } from "../facts.ts";
import type { DType } from "../onnx/dtype.ts";
import { type Tensor, tensor } from "../onnx/tensor.ts";
import type { ModelSource, Session, SessionOptions } from "./session.ts";

/** A tensor whose bytes both threads see. */
export interface SharedTensor {
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly memory: SharedArrayBuffer;
}

type Shared = Readonly<Record<string, SharedTensor>>;

/** What the thread is started with. */
export interface ThreadStart {
  readonly model: ModelSource;
  readonly options: SessionOptions;
}

/** What the thread is asked. */
export interface ThreadRun {
  readonly feeds: Shared;
  readonly outputs: readonly string[] | undefined;
}

/** What it answers: first to being started, then to each run. */
export type ThreadAnswer =
  | { readonly kind: "open"; readonly inputs: readonly ValueFacts[]; readonly outputs: readonly ValueFacts[] }
  | { readonly kind: "results"; readonly results: Shared }
  | {
      readonly kind: "error";
      readonly code: CoreErrorCode;
      readonly message: string;
      readonly subject: string | undefined;
    };

/** Tensors in shared memory, which is kept by name and used again for one of the same size. */
export class SharedMemory {
  readonly #memory = new Map<string, SharedArrayBuffer>();

  /** Copies of `tensors`. Those of the last call are overwritten. */
  copy(tensors: Readonly<Record<string, Tensor>>): Shared {
    const copies = Object.entries(tensors).map(([name, { dtype, dims, bytes }]): [string, SharedTensor] => {
      let memory = this.#memory.get(name);
      if (memory?.byteLength !== bytes.byteLength) {
        memory = new SharedArrayBuffer(bytes.byteLength);
        this.#memory.set(name, memory);
      }
      new Uint8Array(memory).set(bytes);
      return [name, { dtype, dims, memory }];
    });
    return Object.fromEntries(copies);
  }
}

/** Tensors over the shared memory. */
export function tensorsOf(shared: Shared): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(shared).map(([name, { dtype, dims, memory }]) => [
      name,
      tensor(dtype, dims, new Uint8Array(memory)),
    ]),
  );
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
  #waiting: Waiting | undefined;
  /** Why the thread is no more. */
  #ended: CoreError | undefined;

  constructor(start: ThreadStart) {
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
    const answer = await this.#answer({ feeds: this.#memory.copy(feeds), outputs });
    return answer.kind === "results" ? tensorsOf(answer.results) : {};
  }

  async close(): Promise<void> {
    await this.#thread.terminate();
  }
}

/** See `ownThread` of the options. Throws as `openSession` does. */
export async function openOnThread(model: ModelSource, options: SessionOptions): Promise<Session> {
  const session = new ThreadedSession({ model, options: { ...options, ownThread: false } });
  try {
    await session.open();
  } catch (error) {
    await session.close();
    throw error;
  }
  return session;
}
