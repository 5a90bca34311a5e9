import type { Redis } from "ioredis";
import { ServiceError } from "../errors.ts";
import type { JobStore } from "../jobs/job-store.ts";
import { fromRedis, KEY_PREFIX } from "../redis.ts";

/** Bounds how many jobs one API key may have waiting in the queue. */
export interface JobQuota {
  /**
   * Takes a place for a job that is about to be recorded. Throws `quota_exceeded` when `caller` has `max` jobs waiting.
   */
  reserve(caller: string, jobId: string, max: number): Promise<void>;
  /** Says that the job is recorded: its place is free again as soon as it does not wait any more. */
  confirm(caller: string, jobId: string): Promise<void>;
  /** Gives a place back that was not used. */
  cancel(caller: string, jobId: string): Promise<void>;
}

/** From taking a place to recording its job no request takes longer. */
const RESERVED_MS = 60_000;
/** The time of a place whose job is recorded. */
const CONFIRMED = 0;

/**
 * Places are remembered per caller and checked against the job store only when they seem to run out: nobody has to give
 * places back when jobs start, end or are deleted.
 */
export function createJobQuota(redis: Redis, jobs: JobStore): JobQuota {
  const placesOf = (caller: string) => `${KEY_PREFIX}:quota:${caller}`;

  async function take(caller: string, jobId: string): Promise<number> {
    const places = placesOf(caller);
    const answers = await fromRedis(redis.multi().zadd(places, Date.now(), jobId).zcard(places).exec());
    return answers?.[1]?.[1] as number;
  }

  /** Forgets the places of jobs that do not wait any more, but not of those that are about to be recorded. */
  async function prune(caller: string): Promise<void> {
    const places = placesOf(caller);
    // In this order: a job that is confirmed in the first answer and not in the second does not wait any more.
    const taken = await fromRedis(redis.zrange(places, 0, "-1", "WITHSCORES"));
    const waiting = new Set(await jobs.active("queued"));
    const gone: string[] = [];
    for (let i = 0; i < taken.length; i += 2) {
      const [id, takenAt] = [taken[i]!, Number(taken[i + 1])];
      // The time of a confirmed place is long ago.
      const aboutToBe = takenAt > Date.now() - RESERVED_MS;
      if (!waiting.has(id) && !aboutToBe) gone.push(id);
    }
    if (gone.length > 0) await fromRedis(redis.zrem(places, ...gone));
  }

  const quota: JobQuota = {
    async reserve(caller, jobId, max) {
      if ((await take(caller, jobId)) <= max) return;
      await prune(caller);
      if ((await fromRedis(redis.zcard(placesOf(caller)))) <= max) return;
      await quota.cancel(caller, jobId);
      throw new ServiceError(
        "quota_exceeded",
        `This key has ${max} jobs waiting already; send more when some have started.`,
        { retryAfterSeconds: 10 },
      );
    },
    async confirm(caller, jobId) {
      // XX: a place that was pruned meanwhile stays away.
      await fromRedis(redis.zadd(placesOf(caller), "XX", CONFIRMED, jobId));
    },
    async cancel(caller, jobId) {
      await fromRedis(redis.zrem(placesOf(caller), jobId));
    },
  };
  return quota;
}
