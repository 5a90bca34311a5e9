import type { Redis } from "ioredis";
import { ServiceError } from "./errors.ts";
import { fromRedis, KEY_PREFIX } from "./redis.ts";

/** What was made for requests with an `Idempotency-Key`, for a day. Jobs keep theirs in the job store, in the step that records them. */
export interface Idempotency {
  /**
   * Reserves the key of a caller for a request, and answers what `id` it is for: the one given, or that of the first request with it. Throws
   * `idempotency_conflict` when that was another request.
   */
  reserve(caller: string, key: string, fingerprint: string, id: string): Promise<string>;
  /** Says what came of it, where that was not known before. */
  settle(caller: string, key: string, fingerprint: string, id: string): Promise<void>;
  /** Gives the key of a request back that came to nothing. */
  release(caller: string, key: string): Promise<void>;
}

const KEPT_SECONDS = 24 * 60 * 60;

/** KEYS: entry. ARGV: fingerprint, id, seconds. Answers the fingerprint and id that count. */
const RESERVE = `
  local earlier = redis.call('HMGET', KEYS[1], 'fingerprint', 'id')
  if earlier[1] then return earlier end
  redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'id', ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  return { ARGV[1], ARGV[2] }`;

export function createIdempotency(redis: Redis): Idempotency {
  const entryOf = (caller: string, key: string) => `${KEY_PREFIX}:idempotent:${caller} ${key}`;
  return {
    async reserve(caller, key, fingerprint, id) {
      const found = await fromRedis(redis.eval(RESERVE, 1, entryOf(caller, key), fingerprint, id, KEPT_SECONDS));
      const [first, earlier] = found as [string, string];
      if (first === fingerprint) return earlier;
      throw new ServiceError("idempotency_conflict", "This Idempotency-Key was used for a different request.");
    },
    async settle(caller, key, fingerprint, id) {
      const entry = entryOf(caller, key);
      const set = redis.multi().hset(entry, { fingerprint, id }).expire(entry, KEPT_SECONDS);
      await fromRedis(set.exec());
    },
    async release(caller, key) {
      await fromRedis(redis.del(entryOf(caller, key)));
    },
  };
}
