/** A thread of `update-threads.ts`: sleeps until it is woken, and updates its share of the parameters, until it is terminated. */
import { receiveMessageOnPort, workerData } from "node:worker_threads";
import { applyUpdate } from "./optimizer.ts";
import { adoptMemory } from "./parameter-kernels.ts";
import { FAILED, FINISHED, type SharedRange, type UpdateThreadStart, WAKES } from "./update-threads.ts";

const { optimizer, memories, port, control } = workerData as UpdateThreadStart;
for (const memory of memories) adoptMemory(memory);

function update({ memory, data, gradient, slots, length, update: settings }: SharedRange): void {
  const { buffer } = memories[memory]!;
  const array = (at: number) => new Float32Array(buffer, at, length);
  applyUpdate(optimizer, array(data), array(gradient), slots.map(array), settings);
}

function finish(): void {
  Atomics.add(control, FINISHED, 1);
  Atomics.notify(control, FINISHED);
}

let wakes = 0;
finish();
for (;;) {
  Atomics.wait(control, WAKES, wakes);
  wakes = Atomics.load(control, WAKES);
  const received = receiveMessageOnPort(port) as { readonly message: readonly SharedRange[] } | undefined;
  if (!received) continue;
  try {
    received.message.forEach(update);
  } catch {
    Atomics.store(control, FAILED, 1);
  }
  finish();
}
