import { type Job, Queue, WaitingError, Worker } from "bullmq";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import { closeRedis, duplicateRedis, fromRedis, KEY_PREFIX } from "../redis.ts";
import type { JobQueue } from "./job-store.ts";

/**
 * The queue, on BullMQ. It carries ids only and forgets a job when its worker is done with it; what became of the job is in the job store.
 */

const QUEUE_NAME = "jobs";
const bullPrefix = (prefix: string) => `${prefix}:queue`;
const cancelChannel = (prefix: string) => `${prefix}:cancel`;
const workersKey = (prefix: string) => `${prefix}:workers`;

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

const HEARTBEAT_MS = 3_000;
/** A worker that was silent for this long is not alive. */
const ALIVE_MS = 10_000;
/** Jobs wait, this worker has a free slot, and nothing happens: its connection is stuck. */
const STUCK_MS = 60_000;

/** Both by the clock of Redis: those of the machines differ. KEYS: workers. ARGV: alive in ms, worker. */
const NOW = `local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)`;
const BEAT = `${NOW} redis.call('ZADD', KEYS[1], now, ARGV[2]) redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])`;
const COUNT_ALIVE = `${NOW} return redis.call('ZCOUNT', KEYS[1], now - ARGV[1], '+inf')`;

export interface BullJobQueue extends JobQueue {
  /** For queue browsers. */
  readonly bull: Queue;
  /** Where the queue has a job: `active` is in a worker's hands, `absent` is nowhere. */
  stateOf(id: string): Promise<"waiting" | "active" | "absent">;
  /** Every job that the queue has. */
  ids(): Promise<ReadonlySet<string>>;
  close(): Promise<void>;
}

/** The queue as seen by those who fill it. The connection stays the caller's. */
export function createJobQueue(redis: Redis, log: Logger, prefix: string = KEY_PREFIX): BullJobQueue {
  const bull = new Queue(QUEUE_NAME, {
    connection: redis,
    prefix: bullPrefix(prefix),
    streams: { events: { maxLen: 1_000 } },
    defaultJobOptions: { removeOnComplete: true, removeOnFail: true },
  });
  bull.on("error", (error) => log.debug({ err: error }, "queue connection"));

  const queue: BullJobQueue = {
    bull,

    async enqueue(job) {
      // A priority always: BullMQ runs jobs without one before all others.
      await fromRedis(bull.add("run", {}, { jobId: job.id, priority: job.priority }));
    },

    async remove(id) {
      if ((await queue.stateOf(id)) !== "waiting") return false;
      // 0: a worker locked it since.
      return (await fromRedis(bull.remove(id))) === 1;
    },

    async signalCancel(id) {
      await fromRedis(redis.publish(cancelChannel(prefix), id));
    },

    async position(id) {
      // First the list of jobs whose worker died, taken from its right end, then the others by priority.
      const [stalled, prioritized] = [bull.toKey("wait"), bull.toKey("prioritized")];
      const replies = await fromRedis(redis.multi().llen(stalled).lpos(stalled, id).zrank(prioritized, id).exec());
      const [length, place, rank] = (replies ?? []).map(([, value]) => value as number | null);
      if (length == null) return null;
      if (place != null) return length - place;
      return rank == null ? null : length + rank + 1;
    },

    async counts() {
      const {
        wait = 0,
        prioritized = 0,
        active = 0,
      } = await fromRedis(bull.getJobCounts("wait", "prioritized", "active"));
      return { waiting: wait + prioritized, active };
    },

    async liveWorkers() {
      return (await fromRedis(redis.eval(COUNT_ALIVE, 1, workersKey(prefix), ALIVE_MS))) as number;
    },

    async stateOf(id) {
      const state = await fromRedis(bull.getJobState(id));
      if (state === "active") return "active";
      return state === "unknown" || state === "completed" || state === "failed" ? "absent" : "waiting";
    },

    async ids() {
      return new Set(await fromRedis(bull.getRanges(["wait", "prioritized", "active", "delayed"], 0, -1)));
    },

    close: () => bull.close(),
  };
  return queue;
}

export interface ConsumerOptions {
  /** Unique among the workers alive. */
  readonly name: string;
  readonly concurrency: number;
  /** Runs a job. `done` takes it out of the queue, `hand back` puts it in again, to be run next by whoever is free. */
  readonly run: (id: string) => Promise<"done" | "hand back">;
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
    try {
      if ((await options.run(job.id!)) === "done") return;
    } finally {
      running--;
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
    const { waiting } = await queue.counts();
    const idle = waiting > 0 && running < concurrency;
    idleSince = idle ? (idleSince ?? performance.now()) : undefined;
    if (idleSince !== undefined && performance.now() - idleSince > STUCK_MS) return options.onStuck();
    await fromRedis(redis.eval(BEAT, 1, workersKey(prefix), ALIVE_MS, name));
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
    },
  };
}
