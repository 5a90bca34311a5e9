import { ServiceError } from "../errors.ts";

/** Who asks for an inspection: what runs or waits for somebody ends when `signal` fires. */
export interface Asker {
  /** Whose share it counts to. */
  readonly key: string;
  readonly signal: AbortSignal;
}

export interface LaneOptions {
  /** What is done in it, for messages: "uploads are being inspected". */
  readonly what: string;
  /** Inspections that run at the same time. */
  readonly slots: number;
  /** Of all that run at the same time together. */
  readonly memoryBytes: number;
  /** Slots that one asker may have, so that one is left to others. */
  readonly slotsPerKey: number;
}

/** Inspections that share slots and memory: askers take turns, and nobody may fill the queue. */
export interface InspectionLane {
  /** Runs `task` when its turn has come, with the memory it may take. Rejects with `unavailable` when too many wait, and when the asker goes. */
  run<T>(asker: Asker, inputBytes: number, task: (memoryBytes: number) => Promise<T>): Promise<T>;
}

/** Each that waits holds a connection, and an upload its disk space. */
const MAX_WAITING = 64;
const MAX_WAITING_PER_KEY = 16;

/** What the runtime takes before it has read anything, and how often what it reads is in memory at once. */
const BASE_BYTES = 512 * 1024 * 1024;
const COPIES = 4;

/** What is thought of how long an inspection takes, before the first; each that ends counts a quarter. */
const FIRST_GUESS_MS = 2_000;
const MEMORY_OF_TIMES = 0.25;
const MAX_RETRY_AFTER_S = 600;

interface Waiting {
  readonly need: number;
  start(): void;
}

export function createInspectionLane({ what, slots, memoryBytes, slotsPerKey }: LaneOptions): InspectionLane {
  /** In the order of their turns. */
  const queues = new Map<string, Waiting[]>();
  const runningOf = new Map<string, number>();
  let running = 0;
  let waiting = 0;
  let freeBytes = memoryBytes;
  let meanMs = FIRST_GUESS_MS;

  const needOf = (inputBytes: number) =>
    Math.min(memoryBytes, Math.max(Math.floor(memoryBytes / slots), BASE_BYTES + COPIES * inputBytes));

  /** The first in turn that may have a slot now; the next one is not passed over for smaller ones: it would wait for ever. */
  function takeNext(): Waiting | undefined {
    if (running >= slots) return undefined;
    for (const [key, queue] of queues) {
      if ((runningOf.get(key) ?? 0) >= slotsPerKey) continue;
      if (queue[0]!.need > freeBytes) return undefined;
      queues.delete(key);
      if (queue.length > 1) queues.set(key, queue.slice(1));
      return queue[0];
    }
    return undefined;
  }

  function startNext(): void {
    for (let next = takeNext(); next !== undefined; next = takeNext()) next.start();
  }

  function refuse(): ServiceError {
    const seconds = Math.ceil(((waiting + running) / slots) * (meanMs / 1000));
    return new ServiceError("unavailable", `Too many ${what}.`, {
      retryAfterSeconds: Math.min(Math.max(seconds, 1), MAX_RETRY_AFTER_S),
    });
  }

  /** Resolves when it is the asker's turn; slot and memory are taken then. */
  function turn({ key, signal }: Asker, need: number): Promise<void> {
    const own = queues.get(key) ?? [];
    if (waiting >= MAX_WAITING || own.length >= MAX_WAITING_PER_KEY) throw refuse();
    return new Promise((resolve, reject) => {
      const leave = () => {
        waiting--;
        const others = queues.get(key)!.filter((it) => it !== entry);
        if (others.length > 0) queues.set(key, others);
        else queues.delete(key);
        reject(signal.reason);
        startNext();
      };
      const entry: Waiting = {
        need,
        start() {
          waiting--;
          running++;
          freeBytes -= need;
          runningOf.set(key, (runningOf.get(key) ?? 0) + 1);
          signal.removeEventListener("abort", leave);
          resolve();
        },
      };
      waiting++;
      queues.set(key, [...own, entry]);
      signal.addEventListener("abort", leave, { once: true });
      startNext();
    });
  }

  return {
    async run(asker, inputBytes, task) {
      asker.signal.throwIfAborted();
      const need = needOf(inputBytes);
      await turn(asker, need);
      const started = performance.now();
      try {
        return await task(need);
      } finally {
        meanMs += MEMORY_OF_TIMES * (performance.now() - started - meanMs);
        running--;
        freeBytes += need;
        const left = runningOf.get(asker.key)! - 1;
        if (left > 0) runningOf.set(asker.key, left);
        else runningOf.delete(asker.key);
        startNext();
      }
    },
  };
}
