import type { Queue } from "bullmq";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import { fromRedis, KEY_PREFIX, LUA_NOW } from "../redis.ts";
import type { JobQueue, LiveWorker } from "./job-store.ts";

/**
 * The queue, on BullMQ, as seen by those who fill it. It carries ids only and forgets a job when its worker is done with it; what became of the job is
 * in the job store. BullMQ is loaded when it is first needed: that takes a tenth of the API's start.
 */

export const QUEUE_NAME = "jobs";
export const bullPrefix = (prefix: string) => `${prefix}:queue`;
export const cancelChannel = (prefix: string) => `${prefix}:cancel`;
export const workersKey = (prefix: string) => `${prefix}:workers`;
export const refusalsKey = (prefix: string) => `${prefix}:workers:refusals`;

/** A worker that was silent for this long is not alive. */
export const ALIVE_MS = 10_000;
/** KEYS: workers, refusals. ARGV: alive in ms. Answers names and refusals in turn. */
const ALIVE = `${LUA_NOW}
  local answer = {}
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now - ARGV[1], '+inf')) do
    table.insert(answer, name)
    table.insert(answer, redis.call('HGET', KEYS[2], name) or '[]')
  end
  return answer`;

export interface BullJobQueue extends JobQueue {
  /** BullMQ's own queue. */
  bull(): Promise<Queue>;
  /** Where the queue has a job: `active` is in a worker's hands, `absent` is nowhere. */
  stateOf(id: string): Promise<"waiting" | "active" | "absent">;
  /** Every job that the queue has. */
  ids(): Promise<ReadonlySet<string>>;
  close(): Promise<void>;
}

/** The connection stays the caller's. */
export function createJobQueue(redis: Redis, log: Logger, prefix: string = KEY_PREFIX): BullJobQueue {
  let opening: Promise<Queue> | undefined;
  async function open(): Promise<Queue> {
    const { Queue } = await import("bullmq");
    const opened = new Queue(QUEUE_NAME, {
      connection: redis,
      prefix: bullPrefix(prefix),
      streams: { events: { maxLen: 1_000 } },
      defaultJobOptions: { removeOnComplete: true, removeOnFail: true },
    });
    opened.on("error", (error) => log.debug({ err: error }, "queue connection"));
    return opened;
  }
  const bull = () => {
    // What has failed is tried again.
    opening ??= open().catch((error) => {
      opening = undefined;
      throw error;
    });
    return opening;
  };

  const queue: BullJobQueue = {
    bull,

    async enqueue(job) {
      // A priority always: BullMQ runs jobs without one before all others.
      const opened = await bull();
      await fromRedis(opened.add("run", {}, { jobId: job.id, priority: job.priority }));
    },

    async remove(id) {
      if ((await queue.stateOf(id)) !== "waiting") return false;
      // 0: a worker locked it since.
      const opened = await bull();
      return (await fromRedis(opened.remove(id))) === 1;
    },

    async signalCancel(id) {
      await fromRedis(redis.publish(cancelChannel(prefix), id));
    },

    async position(id) {
      // First the list of jobs whose worker died, taken from its right end, then the others by priority.
      const opened = await bull();
      const [stalled, prioritized] = [opened.toKey("wait"), opened.toKey("prioritized")];
      const replies = await fromRedis(redis.multi().llen(stalled).lpos(stalled, id).zrank(prioritized, id).exec());
      const [length, place, rank] = (replies ?? []).map(([, value]) => value as number | null);
      if (length == null) return null;
      if (place != null) return length - place;
      return rank == null ? null : length + rank + 1;
    },

    async counts() {
      const opened = await bull();
      const {
        wait = 0,
        prioritized = 0,
        delayed = 0,
        active = 0,
      } = await fromRedis(opened.getJobCounts("wait", "prioritized", "delayed", "active"));
      return { waiting: wait + prioritized, delayed, active };
    },

    async workers() {
      const flat = await fromRedis(redis.eval(ALIVE, 2, workersKey(prefix), refusalsKey(prefix), ALIVE_MS));
      const alive: LiveWorker[] = [];
      for (let rest = flat as string[]; rest.length > 0; rest = rest.slice(2)) {
        alive.push({ name: rest[0]!, refusals: JSON.parse(rest[1]!) });
      }
      return alive;
    },

    async stateOf(id) {
      const opened = await bull();
      const state = await fromRedis(opened.getJobState(id));
      if (state === "active") return "active";
      return state === "unknown" || state === "completed" || state === "failed" ? "absent" : "waiting";
    },

    async ids() {
      const opened = await bull();
      return new Set(await fromRedis(opened.getRanges(["wait", "prioritized", "active", "delayed"], 0, -1)));
    },

    async close() {
      await (await opening)?.close();
    },
  };
  return queue;
}
