import type { Redis } from "ioredis";
import { ServiceError } from "../errors.ts";
import type { JobStore } from "../jobs/job-store.ts";
import { fromRedis, KEY_PREFIX } from "../redis.ts";

/** Bounds how many jobs one API key may have waiting in the queue. */
export interface JobQuota {
  /** Takes a place for a job that is about to be recorded. Throws `quota_exceeded` when `caller` has `max` jobs waiting. */
  reserve(caller: string, jobId: string, max: number): Promise<void>;
  /** Gives a place back that was not used. */
  cancel(caller: string, jobId: string): Promise<void>;
}

/** From taking a place to recording its job no request takes longer. */
const RESERVED_MS = 60_000;

/**
 * Places are remembered per caller and checked against the job store only when they seem to run out: most requests cost one
 * round trip, and nobody has to give places back when jobs start.
 */
export function createJobQuota(redis: Redis, jobs: JobStore): JobQuota {
  const placesOf = (caller: string) => `${KEY_PREFIX}:quota:${caller}`;

  async function take(caller: string, jobId: string): Promise<number> {
    const answers = await fromRedis(
      redis.multi().zadd(placesOf(caller), Date.now(), jobId).zcard(placesOf(caller)).exec(),
    );
    return answers?.[1]?.[1] as number;
  }

  /** Forgets the places of jobs that do not wait any more, but not of those that are about to be recorded. */
  async function prune(caller: string): Promise<void> {
    const places = placesOf(caller);
    const waiting = new Set(await jobs.active("queued"));
    const taken = await fromRedis(redis.zrange(places, 0, "-1", "WITHSCORES"));
    for (let i = 0; i < taken.length; i += 2) {
      const [id, takenAt] = [taken[i]!, Number(taken[i + 1])];
      if (waiting.has(id)) continue;
      const job = await jobs.get(id);
      const gone = job === undefined ? takenAt < Date.now() - RESERVED_MS : job.status !== "queued";
      if (gone) await fromRedis(redis.zrem(places, id));
    }
  }

  return {
    async reserve(caller, jobId, max) {
      if ((await take(caller, jobId)) <= max) return;
      await prune(caller);
      if ((await fromRedis(redis.zcard(placesOf(caller)))) <= max) return;
      await this.cancel(caller, jobId);
      throw new ServiceError(
        "quota_exceeded",
        `This key has ${max} jobs waiting already; send more when some have started.`,
        {
          retryAfterSeconds: 10,
        },
      );
    },
    async cancel(caller, jobId) {
      await fromRedis(redis.zrem(placesOf(caller), jobId));
    },
  };
}
