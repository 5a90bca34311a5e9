import { DelayedError, type Job, WaitingError, Worker } from "bullmq";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import { closeRedis, duplicateRedis, fromRedis, KEY_PREFIX, LUA_NOW } from "../redis.ts";
import { ALIVE_MS, bullPrefix, cancelChannel, createJobQueue, QUEUE_NAME, refusalsKey, workersKey } from "./queue.ts";

/** The queue as seen by a worker, which takes jobs out of it. */

/**
 * A worker that dies holds its job for the rest of its lock; then the next look for stalled jobs gives it to another one. Looks are shared
 * by all workers and may just miss each other, so that takes at most LOCK_MS + 2 · STALLED_INTERVAL_MS = 16 s. Shorter locks would be lost
 * when Redis is restarted; workers compute nothing themselves, so they can always renew in time.
 */
const LOCK_MS = 10_000;
const STALLED_INTERVAL_MS = 3_000;
/** BullMQ would fail a job that stalled too often, behind the job store's back. The worker counts attempts. */
const MAX_STALLED_COUNT = 1_000_000;
/** After a failed command BullMQ would wait for 15 s. */
const RETRY_DELAY_MS = 1_000;

/** A job that came to a worker which takes none waits this long for another one. */
const REFUSED_DELAY_MS = 2_000;

const HEARTBEAT_MS = 3_000;
/** Jobs wait, this worker has a free slot, and nothing happens: its connection is stuck. */
const STUCK_MS = 60_000;

/** KEYS: workers, refusals. ARGV: alive in ms, worker, its refusals as JSON. */
const BEAT = `${LUA_NOW}
  redis.call('ZADD', KEYS[1], now, ARGV[2])
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
  for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])) do redis.call('HDEL', KEYS[2], dead) end
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])`;

/** Takes a job out of the queue, or puts it in again: not before so many ms, or at once, to be run next by whoever is free. */
export type RunEnd = "done" | { readonly againInMs: number };

export interface ConsumerOptions {
  /** Unique among the workers alive. */
  readonly name: string;
  readonly concurrency: number;
  readonly run: (id: string) => Promise<RunEnd>;
  /** Why this worker takes no jobs now; empty when it does. Asked at every heartbeat, and before a job is run. */
  readonly refusals: () => readonly string[];
  /** Somebody asks to cancel a job, maybe one of ours; undefined: one may have asked while we could not hear it. */
  readonly onCancel: (id: string | undefined) => void;
  /** The job's lock is lost: another worker may have taken it over. */
  readonly onLost: (id: string) => void;
  /** The consumer takes no jobs although there are some: only a new process helps. */
  readonly onStuck: () => void;
  readonly log: Logger;
}

export interface JobConsumer {
  /** Takes no more jobs, and resolves when those that run have ended. */
  close(): Promise<void>;
}

/** Takes jobs out of the queue, through a connection with role `worker`, and says that this worker is alive. */
export function consumeJobs(redis: Redis, options: ConsumerOptions, prefix: string = KEY_PREFIX): JobConsumer {
  const { name, concurrency, log } = options;
  let running = 0;

  async function take(job: Job, token?: string): Promise<void> {
    running++;
    let end: RunEnd;
    try {
      // It may have been on its way already when this worker stopped to take jobs.
      end = options.refusals().length > 0 ? { againInMs: REFUSED_DELAY_MS } : await options.run(job.id!);
    } finally {
      running--;
    }
    if (end === "done") return;
    if (end.againInMs > 0) {
      await job.moveToDelayed(Date.now() + end.againInMs, token);
      throw new DelayedError();
    }
    await job.moveToWait(token);
    throw new WaitingError(); // BullMQ's way to hear that the job is not its any more.
  }

  const worker = new Worker(QUEUE_NAME, take, {
    connection: redis,
    prefix: bullPrefix(prefix),
    concurrency,
    lockDuration: LOCK_MS,
    stalledInterval: STALLED_INTERVAL_MS,
    maxStalledCount: MAX_STALLED_COUNT,
    runRetryDelay: RETRY_DELAY_MS,
  });
  worker.on("error", (error) => log.debug({ err: error }, "queue worker"));
  worker.on("stalled", (id) => log.warn({ job: id }, "a worker died in the middle of this job; it is queued again"));
  worker.on("lockRenewalFailed", (ids) => ids.forEach(options.onLost));

  const subscriber = duplicateRedis(redis, "subscriber");
  subscriber.on("message", (_channel: string, id: string) => options.onCancel(id));
  subscriber.on("ready", async () => {
    await subscriber.subscribe(cancelChannel(prefix)).catch(() => {}); // Lost again: "ready" comes again, too.
    options.onCancel(undefined);
  });

  const queue = createJobQueue(redis, log, prefix);
  let idleSince: number | undefined;

  async function beat(): Promise<void> {
    const refusals = options.refusals();
    if (refusals.length === 0) worker.resume();
    else await worker.pause(true);
    const { waiting } = await queue.counts();
    const idle = waiting > 0 && running < concurrency && refusals.length === 0;
    idleSince = idle ? (idleSince ?? performance.now()) : undefined;
    if (idleSince !== undefined && performance.now() - idleSince > STUCK_MS) return options.onStuck();
    const keys = [workersKey(prefix), refusalsKey(prefix)];
    await fromRedis(redis.eval(BEAT, keys.length, ...keys, ALIVE_MS, name, JSON.stringify(refusals)));
  }

  // One after the other: while Redis is away they would pile up.
  let beating: NodeJS.Timeout | undefined;
  let closed = false;
  const keepBeating = async () => {
    await beat().catch((error) => log.warn({ err: error }, "no heartbeat"));
    if (!closed) beating = setTimeout(keepBeating, HEARTBEAT_MS);
  };
  keepBeating();

  return {
    async close() {
      await worker.close();
      closed = true;
      clearTimeout(beating);
      await closeRedis(subscriber);
      await queue.close();
      if (redis.status === "ready") await redis.zrem(workersKey(prefix), name).catch(() => {});
      if (redis.status === "ready") await redis.hdel(refusalsKey(prefix), name).catch(() => {});
    },
  };
}
