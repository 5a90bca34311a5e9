import type { Queue } from "bullmq";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import { fromRedis } from "../redis.ts";

const POLL_MS = 1_000;
const BATCH = 100;

export interface OutboxOptions {
  readonly redis: Redis;
  /** The key of the list that the job's own script appends to. */
  readonly list: string;
  readonly queue: Queue;
  /** What an entry of the list becomes in the queue: its id there, which cannot have colons or spaces, and what its processor needs besides. */
  readonly taskOf: (entry: string) => { readonly id: string; readonly data: object };
  readonly log: Logger;
}

/**
 * Moves entries from a list in Redis to a queue until it is closed. An entry leaves the list when the queue has it, and one that the queue
 * has already stays one there: a crash in between repeats the step, and nothing is lost or done twice.
 */
export function startOutbox({ redis, list, queue, taskOf, log }: OutboxOptions): { close(): void } {
  async function collect(): Promise<void> {
    for (const entry of await fromRedis(redis.lrange(list, 0, BATCH - 1))) {
      const { id, data } = taskOf(entry);
      await queue.add("deliver", data, { jobId: id });
      await fromRedis(redis.lrem(list, 1, entry));
    }
  }

  let closed = false;
  let timer: NodeJS.Timeout | undefined;
  const keepCollecting = async () => {
    await collect().catch((error) => log.warn({ err: error, list }, "an outbox was not emptied"));
    if (!closed) timer = setTimeout(keepCollecting, POLL_MS);
  };
  keepCollecting();

  return {
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
}
