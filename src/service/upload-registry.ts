import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Redis } from "ioredis";
import { ServiceError } from "./errors.ts";
import { fromRedis, KEY_PREFIX } from "./redis.ts";

/**
 * What is known of resumable uploads, in Redis, so that all API processes agree: whose they are, when they were last used, who writes to one
 * now, and what became of those that are used up. All times are those of Redis.
 */
export interface UploadRegistry {
  /** Records an upload that is about to be created. Throws `quota_exceeded` when its owner has too many, or too many bytes. */
  open(id: string, owner: string, bytes: number): Promise<void>;
  /** Whether the upload is there and is `owner`'s; it counts as used now. */
  use(id: string, owner: string): Promise<boolean>;
  forget(id: string): Promise<void>;
  /** Uploads that nobody has used for `uploadExpiryMs`. */
  expired(): Promise<readonly string[]>;
  isKnown(id: string): Promise<boolean>;
  /**
   * Runs `work` while nobody else has the upload. `onWanted`: somebody waits for it, so that a writer whose client may have gone lets go; without it
   * others have to wait. Rejects with `conflict` when it cannot be had for `waitMs`, and as `signal` does.
   */
  withLock<T>(id: string, options: LockOptions, work: () => Promise<T>): Promise<T>;
  /** Remembers for a day what an upload has become, and for which request. */
  remember(id: string, outcome: UploadOutcome): Promise<void>;
  outcome(id: string): Promise<UploadOutcome | undefined>;
}

export interface LockOptions {
  readonly waitMs: number;
  readonly signal?: AbortSignal;
  readonly onWanted?: () => void;
}

export interface UploadOutcome {
  /** Of the model or dataset. */
  readonly resource: string;
  readonly owner: string;
  /** Of the request that made it. */
  readonly fingerprint: string;
}

export interface UploadLimits {
  readonly uploadExpiryMs: number;
  readonly maxOpenUploadsPerKey: number;
  readonly maxOpenUploadBytesPerKey: number;
}

const OUTCOME_SECONDS = 24 * 60 * 60;
/** A process that dies gives its locks up after this long. */
const LOCK_MS = 15_000;
const RENEW_MS = 1_000;
const POLL_MS = 50;

const NOW = `local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)`;

/** KEYS: uploads of the owner, upload, times. ARGV: id, owner, bytes, most uploads, most bytes. */
const OPEN = `
  ${NOW}
  local bytes = tonumber(ARGV[3])
  for _, size in ipairs(redis.call('HVALS', KEYS[1])) do bytes = bytes + tonumber(size) end
  if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then return 'count' end
  if bytes > tonumber(ARGV[5]) then return 'bytes' end
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  redis.call('SET', KEYS[2], ARGV[2])
  redis.call('ZADD', KEYS[3], now, ARGV[1])
  return 'open'`;

/** KEYS: upload, times. ARGV: id, owner. */
const USE = `
  ${NOW}
  if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
  redis.call('ZADD', KEYS[2], now, ARGV[1])
  return 1`;

/** KEYS: times. ARGV: how long an upload may be unused. */
const EXPIRED = `${NOW} return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])`;

/** KEYS: lock, wanted. ARGV: token, ms. Answers 0 when the lock was lost, 2 when somebody waits for it. */
const RENEW = `
  if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  if redis.call('EXISTS', KEYS[2]) == 1 then return 2 end
  return 1`;

/** KEYS: lock, wanted. ARGV: token. */
const UNLOCK = `
  if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1], KEYS[2]) end`;

export function createUploadRegistry(redis: Redis, limits: UploadLimits): UploadRegistry {
  const { uploadExpiryMs, maxOpenUploadsPerKey, maxOpenUploadBytesPerKey } = limits;
  const uploadOf = (id: string) => `${KEY_PREFIX}:upload:${id}`;
  const ownedBy = (owner: string) => `${KEY_PREFIX}:uploads:of:${owner}`;
  const times = `${KEY_PREFIX}:uploads:times`;

  /** Resolves when the lock is taken. */
  async function take(id: string, token: string, { waitMs, signal, onWanted }: LockOptions): Promise<void> {
    const [lock, wanted] = [`${uploadOf(id)}:lock`, `${uploadOf(id)}:wanted`];
    for (const end = performance.now() + waitMs; ; ) {
      signal?.throwIfAborted();
      if ((await fromRedis(redis.set(lock, token, "PX", LOCK_MS, "NX"))) !== null) return;
      if (performance.now() > end) {
        throw new ServiceError("conflict", `Another request uses upload ${id}.`, { retryAfterSeconds: 5 });
      }
      // Only who would let go as well may ask another one to.
      if (onWanted) await fromRedis(redis.set(wanted, "1", "PX", 2 * RENEW_MS));
      await sleep(POLL_MS);
    }
  }

  return {
    async open(id, owner, bytes) {
      const keys = [ownedBy(owner), uploadOf(id), times];
      const args = [id, owner, bytes, maxOpenUploadsPerKey, maxOpenUploadBytesPerKey];
      const answer = await fromRedis(redis.eval(OPEN, 3, ...keys, ...args));
      if (answer === "open") return;
      const what =
        answer === "count" ? `${maxOpenUploadsPerKey} uploads open already` : "too many bytes in uploads that are open";
      const most = answer === "bytes" ? ` At most ${maxOpenUploadBytesPerKey} are allowed.` : "";
      throw new ServiceError("quota_exceeded", `This key has ${what}: use them, or throw some away.${most}`, {
        retryAfterSeconds: 60,
      });
    },
    async use(id, owner) {
      return (await fromRedis(redis.eval(USE, 2, uploadOf(id), times, id, owner))) === 1;
    },
    async forget(id) {
      const owner = await fromRedis(redis.get(uploadOf(id)));
      await fromRedis(redis.zrem(times, id));
      if (owner !== null) await fromRedis(redis.hdel(ownedBy(owner), id));
      await fromRedis(redis.del(uploadOf(id)));
    },
    async expired() {
      return (await fromRedis(redis.eval(EXPIRED, 1, times, uploadExpiryMs))) as string[];
    },
    async isKnown(id) {
      return (await fromRedis(redis.exists(uploadOf(id)))) === 1;
    },
    async withLock(id, options, work) {
      const token = randomUUID();
      await take(id, token, options);
      const keys = [`${uploadOf(id)}:lock`, `${uploadOf(id)}:wanted`] as const;
      const renew = async () => {
        const state = await redis.eval(RENEW, 2, ...keys, token, LOCK_MS).catch(() => 1);
        if (state !== 1) options.onWanted?.();
      };
      const renewal = setInterval(renew, RENEW_MS);
      try {
        return await work();
      } finally {
        clearInterval(renewal);
        // A lock that cannot be given back runs out.
        await redis.eval(UNLOCK, 2, ...keys, token).catch(() => {});
      }
    },
    async remember(id, outcome) {
      await fromRedis(redis.set(`${uploadOf(id)}:outcome`, JSON.stringify(outcome), "EX", OUTCOME_SECONDS));
    },
    async outcome(id) {
      const text = await fromRedis(redis.get(`${uploadOf(id)}:outcome`));
      return text === null ? undefined : (JSON.parse(text) as UploadOutcome);
    },
  };
}
