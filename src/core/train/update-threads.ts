/**
 * The optimizer's update of a step, shared by threads: every number is updated by itself, so that it does not matter which thread does it.
 * The thread that trains takes the last share itself. The others sleep until they are woken through shared memory: a message alone would
 * take longer than a small network's update.
 */
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import { CoreError } from "../errors.ts";
import type { SharedWasmMemory } from "../wasm-assembler.ts";
import { applyUpdate, type OptimizerSpec, slotCount, type Update } from "./optimizer.ts";
import { type Floats, memoryOf, type ParameterArrays } from "./parameter-kernels.ts";

/** How one parameter is moved in a step. */
export interface ParameterUpdate {
  readonly parameter: ParameterArrays;
  readonly gradient: Float32Array;
  readonly update: Update;
}

/** Places in `control`: how often threads were woken, how many have started or since then finished, and whether one has failed. */
export const [WAKES, FINISHED, FAILED] = [0, 1, 2];

/** What a thread is started with. */
export interface UpdateThreadStart {
  readonly optimizer: OptimizerSpec;
  readonly memories: readonly SharedWasmMemory[];
  readonly port: MessagePort;
  readonly control: Int32Array<SharedArrayBuffer>;
}

/** A range of a parameter's numbers, all arrays in one memory. */
export interface SharedRange {
  readonly memory: number;
  /** Where the values, the gradient and the optimizer's state begin, in bytes. */
  readonly data: number;
  readonly gradient: number;
  readonly slots: readonly number[];
  readonly length: number;
  readonly update: Update;
}

/** Fewer numbers for each thread are updated by one before the others are awake. */
const MIN_SHARE = 2 ** 16;
/** Shares of a parameter begin at a multiple of it: whole pieces of the kernel. */
const GRAIN = 4096;
const PATIENCE_MS = 60_000;

interface Range {
  readonly from: number;
  readonly to: number;
}

export class UpdateThreads {
  readonly #optimizer: OptimizerSpec;
  readonly #memories: readonly SharedWasmMemory[];
  readonly #control = new Int32Array(new SharedArrayBuffer(12));
  readonly #threads: readonly { readonly worker: Worker; readonly port: MessagePort }[];

  /** `threads` with the one that trains, for parameters of `allocateParameters`. */
  constructor(optimizer: OptimizerSpec, threads: number, parameters: readonly ParameterArrays[]) {
    this.#optimizer = optimizer;
    this.#memories = [...new Set(parameters.map(({ data }) => memoryOf(data)))];
    const numbers = parameters.reduce((sum, { data }) => sum + data.length, 0);
    const helpers = Math.min(threads, Math.floor(numbers / MIN_SHARE)) - 1;
    this.#threads = Array.from({ length: Math.max(0, helpers) }, () => this.#start());
  }

  #start() {
    const { port1, port2 } = new MessageChannel();
    const start: UpdateThreadStart = {
      ...{ optimizer: this.#optimizer, memories: this.#memories },
      ...{ port: port2, control: this.#control },
    };
    const worker = new Worker(new URL("./update-thread.ts", import.meta.url), {
      workerData: start,
      transferList: [port2],
    });
    worker.unref();
    port1.unref();
    return { worker, port: port1 };
  }

  /** Moves parameters along their gradients, which are in the arrays for sums or anywhere else. */
  apply(updates: readonly ParameterUpdate[]): void {
    // Until all have started, one thread does it all: the numbers are the same.
    const ready = Atomics.load(this.#control, FINISHED) >= this.#threads.length;
    const shares = dividedAmong(updates, ready ? this.#threads.length + 1 : 1);
    const own = shares.pop()!;
    if (shares.length > 0) this.#wake(shares.map((share) => share.map((part) => this.#shared(part))));
    for (const { parameter, gradient, update, from, to } of own) {
      const range = (array: Floats) => array.subarray(from, to);
      const slots = parameter.slots.slice(0, slotCount(this.#optimizer)).map(range);
      applyUpdate(this.#optimizer, range(parameter.data), gradient.subarray(from, to), slots, update);
    }
    if (shares.length > 0) this.#wait(shares.length);
  }

  #shared({ parameter: { data, slots, sum }, gradient, update, from, to }: ParameterUpdate & Range): SharedRange {
    if (gradient.buffer !== sum.buffer) sum.set(gradient.subarray(from, to), from);
    const at = (array: Float32Array) => array.byteOffset + 4 * from;
    return {
      memory: this.#memories.indexOf(memoryOf(data)),
      data: at(data),
      gradient: at(gradient.buffer === sum.buffer ? gradient : sum),
      slots: slots.slice(0, slotCount(this.#optimizer)).map(at),
      length: to - from,
      update,
    };
  }

  #wake(shares: readonly (readonly SharedRange[])[]): void {
    Atomics.store(this.#control, FINISHED, 0);
    for (const [i, share] of shares.entries()) this.#threads[i]!.port.postMessage(share);
    Atomics.add(this.#control, WAKES, 1);
    Atomics.notify(this.#control, WAKES);
  }

  #wait(count: number): void {
    for (;;) {
      const finished = Atomics.load(this.#control, FINISHED);
      if (finished === count) break;
      if (Atomics.wait(this.#control, FINISHED, finished, PATIENCE_MS) === "timed-out") {
        throw new CoreError("internal", "A thread that updates parameters does not answer.");
      }
    }
    if (Atomics.load(this.#control, FAILED) > 0)
      throw new CoreError("internal", "A thread could not update parameters.");
  }

  async close(): Promise<void> {
    for (const { worker, port } of this.#threads) {
      port.close();
      await worker.terminate();
    }
  }
}

/** Shares of about as many numbers each, in order. */
function dividedAmong(updates: readonly ParameterUpdate[], count: number): (ParameterUpdate & Range)[][] {
  const shareOf = updates.reduce((sum, { parameter }) => sum + parameter.data.length, 0) / count;
  const shares: (ParameterUpdate & Range)[][] = Array.from({ length: count }, () => []);
  let seen = 0;
  for (const update of updates) {
    const { length } = update.parameter.data;
    for (let from = 0; from < length; ) {
      const share = Math.min(count - 1, Math.floor((seen + from) / shareOf));
      const end = Math.ceil(((share + 1) * shareOf - seen) / GRAIN) * GRAIN;
      const to = share === count - 1 ? length : Math.min(length, end);
      shares[share]!.push({ ...update, from, to });
      from = to;
    }
    seen += length;
  }
  return shares;
}
