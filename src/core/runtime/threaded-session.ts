/**
 * Sessions on JavaScript threads of their own (`session-thread.ts`). A run of onnxruntime blocks the thread that it is called from; so several
 * models, or parts of a batch, are computed at one time only by several threads. Feeds go there in shared memory, of which nothing but the
 * handle is sent; what is not shared yet is copied into memory that is allocated once for each name. Outputs change hands without a copy.
 * A thread whose session was closed waits for the next one: starting one takes longer than most models take to load.
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

/** What the thread is asked: it has one session at a time. */
export type ThreadRequest =
  | { readonly kind: "open"; readonly model: ModelSource; readonly options: SessionOptions }
  | { readonly kind: "run"; readonly feeds: Sent; readonly outputs: readonly string[] | undefined }
  | { readonly kind: "close" };

/** What it answers to each. */
export type ThreadAnswer =
  | { readonly kind: "open"; readonly inputs: readonly ValueFacts[]; readonly outputs: readonly ValueFacts[] }
  | { readonly kind: "results"; readonly results: Sent }
  | { readonly kind: "closed" }
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

const CLOSED = "The session is closed.";

interface Waiting {
  readonly resolve: (answer: ThreadAnswer) => void;
  readonly reject: (error: CoreError) => void;
}

/** A thread that has a session, or waits for one. */
class SessionThread {
  /** Those that wait. They keep no process from ending. */
  static readonly #idle: SessionThread[] = [];
  readonly #worker = new Worker(new URL("./session-thread.ts", import.meta.url));
  #waiting: Waiting | undefined;
  /** Why the thread is no more. */
  #ended: CoreError | undefined;

  private constructor() {
    this.#worker.on("message", (answer: ThreadAnswer) => {
      const waiting = this.#waiting;
      this.#waiting = undefined;
      if (answer.kind === "error") waiting?.reject(new CoreError(answer.code, answer.message, answer.subject));
      else waiting?.resolve(answer);
    });
    this.#worker.on("error", (cause) => this.#end(`failed: ${cause.message}`));
    this.#worker.on("exit", () => this.#end("has ended"));
  }

  /** One that waits, or a new one. */
  static take(): SessionThread {
    const thread = SessionThread.#idle.pop() ?? new SessionThread();
    thread.#worker.ref();
    return thread;
  }

  /** Starts threads until so many wait. */
  static start(count: number): void {
    while (SessionThread.#idle.length < count) new SessionThread().#wait();
  }

  #wait(): void {
    this.#worker.unref();
    SessionThread.#idle.push(this);
  }

  #end(what: string): void {
    this.#ended ??= new CoreError("internal", `The thread of a session ${what}.`);
    this.#waiting?.reject(this.#ended);
    this.#waiting = undefined;
    const at = SessionThread.#idle.indexOf(this);
    if (at >= 0) SessionThread.#idle.splice(at, 1);
  }

  async ask(request: ThreadRequest): Promise<ThreadAnswer> {
    if (this.#ended) throw this.#ended;
    if (this.#waiting) throw new CoreError("internal", "A session on a thread runs once at a time.");
    const answer = new Promise<ThreadAnswer>((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
    this.#worker.postMessage(request);
    return answer;
  }

  /**
   * Closes its session, and waits for the next one. What it is asked for at that time fails; a run goes on to its end, because a thread that is ended in the
   * middle of one takes the process with it.
   */
  async release(): Promise<void> {
    const waiting = this.#waiting;
    if (waiting) {
      const over = new Promise<void>((resolve) => {
        this.#waiting = { resolve: () => resolve(), reject: () => resolve() };
      });
      waiting.reject(new CoreError("internal", CLOSED));
      await over;
    }
    if (this.#ended) return;
    await this.ask({ kind: "close" });
    this.#wait();
  }
}

/** Starts `count` threads for sessions that are soon to be opened, beside what the caller does meanwhile. */
export function startSessionThreads(count: number): void {
  SessionThread.start(count);
}

class ThreadedSession implements Session {
  readonly inputs: readonly ValueFacts[];
  readonly outputs: readonly ValueFacts[];
  readonly #thread: SessionThread;
  readonly #memory = new SharedMemory();
  readonly #transient: boolean;
  /** What the last run has answered, where that is gone with the next one. */
  #last: Sent = {};
  #isOpen = true;

  private constructor(thread: SessionThread, facts: Pick<Session, "inputs" | "outputs">, transient: boolean) {
    this.#thread = thread;
    this.inputs = facts.inputs;
    this.outputs = facts.outputs;
    this.#transient = transient;
  }

  static async open(model: ModelSource, options: SessionOptions): Promise<ThreadedSession> {
    const { transientOutputs = false, ...others } = options;
    const thread = SessionThread.take();
    try {
      const facts = await thread.ask({ kind: "open", model, options: others });
      if (facts.kind !== "open") throw new CoreError("internal", "The thread of a session has not opened it.");
      return new ThreadedSession(thread, facts, transientOutputs);
    } catch (error) {
      await thread.release();
      throw error;
    }
  }

  async run(
    feeds: Readonly<Record<string, Tensor>>,
    outputs?: readonly string[],
    signal?: AbortSignal,
  ): Promise<Record<string, Tensor>> {
    checkCancelled(signal);
    if (!this.#isOpen) throw new CoreError("internal", CLOSED);
    for (const { memory } of Object.values(this.#last)) freeMemory(memory);
    this.#last = {};
    const answer = await this.#thread.ask({ kind: "run", feeds: this.#memory.share(feeds), outputs });
    if (answer.kind !== "results") return {};
    if (this.#transient) this.#last = answer.results;
    return tensorsOf(answer.results);
  }

  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#thread.release();
  }
}

/** See `ownThread` of the options. Throws as `openSession` does. */
export function openOnThread(model: ModelSource, { ownThread: _, ...options }: SessionOptions): Promise<Session> {
  return ThreadedSession.open(model, options);
}
