import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import { uuidv7 } from "uuidv7";
import { ServiceError } from "../errors.ts";
import { fromRedis, KEY_PREFIX, redisTime } from "../redis.ts";
import type { BlobRef, BlobStore } from "./blob-store.ts";
import type { BlobClaims } from "./claims.ts";

/**
 * Reads stored blobs again in the background and hashes them: disks lose bytes without a word, and whoever is given other bytes under the old
 * sha256 is told a lie. It runs in every worker, and one of them at a time does a round. What is damaged is logged and counted; sending the
 * same file again mends it.
 */
export interface BlobChecksOptions {
  readonly redis: Redis;
  readonly blobs: BlobStore;
  readonly claims: BlobClaims;
  /** Read at most so fast: jobs come first. */
  readonly bytesPerSecond: number;
  readonly log: Logger;
  /** Between the beginnings of two rounds, which end in less. */
  readonly intervalMs?: number;
  /** A blob that was whole is read again after this long. */
  readonly againMs?: number;
}

const INTERVAL_MS = 60_000;
const AGAIN_MS = 7 * 24 * 60 * 60 * 1000;
/** One that is damaged may have been mended. */
const DAMAGED_AGAIN_MS = 10 * 60 * 1000;
const BATCH = 100;
/** Whoever does a round says so for this long, again and again; when it dies, another takes over. */
const TURN_MS = 30_000;

const TURN = `${KEY_PREFIX}:blob-checks:turn`;
/** Blobs by when they were read last; 0: never. */
const CHECKED = `${KEY_PREFIX}:blob-checks:checked`;
/** What is wrong with those that are damaged. */
const DAMAGED = `${KEY_PREFIX}:blob-checks:damaged`;

/** KEYS: turn. ARGV: whose, for how long. Answers 1 when it is theirs. */
const KEEP_TURN = `
  local holder = redis.call('GET', KEYS[1])
  if holder and holder ~= ARGV[1] then return 0 end
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 1`;

/** KEYS: turn. ARGV: whose. */
const END_TURN = `if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end`;

/** How many blobs are known to be damaged. */
export function countDamagedBlobs(redis: Redis): Promise<number> {
  return fromRedis(redis.hlen(DAMAGED));
}

/** Checks blobs until it is closed. */
export function startBlobChecks(options: BlobChecksOptions): { close(): Promise<void> } {
  const { redis, blobs, claims, bytesPerSecond, log, intervalMs = INTERVAL_MS, againMs = AGAIN_MS } = options;
  const self = uuidv7();
  const closing = new AbortController();
  const { signal } = closing;
  let cursor = "0";

  const keepTurn = async () => (await fromRedis(redis.eval(KEEP_TURN, 1, TURN, self, TURN_MS))) === 1;

  /** Hashes a blob; undefined when it is what it is called, else what is wrong. Throws what has nothing to do with the blob. */
  async function findDamage(ref: BlobRef): Promise<string | undefined> {
    const hash = createHash("sha256");
    const started = performance.now();
    let size = 0;
    let kept = started;
    try {
      for await (const chunk of await blobs.get(ref)) {
        hash.update(chunk);
        size += chunk.byteLength;
        const aheadMs = (1000 * size) / bytesPerSecond - (performance.now() - started);
        if (aheadMs > 50) await sleep(aheadMs, undefined, { signal });
        signal.throwIfAborted();
        if (performance.now() - kept > TURN_MS / 3) {
          await keepTurn();
          kept = performance.now();
        }
      }
    } catch (error) {
      if (error instanceof ServiceError && error.code === "not_found") return "it is gone";
      throw error;
    }
    const found = hash.digest("hex");
    return found === ref.sha256 ? undefined : `it has ${size} of ${ref.size_bytes} bytes and the sha256 ${found}`;
  }

  async function check(member: string): Promise<void> {
    const [sha256 = "", size] = member.split(" ");
    const ref = { sha256, size_bytes: Number(size) };
    const damage = await findDamage(ref);
    // Deleted in the meantime, which is no damage.
    if (!(await claims.isClaimed(ref))) {
      await fromRedis(redis.multi().zrem(CHECKED, member).hdel(DAMAGED, member).exec());
      return;
    }
    const now = await redisTime(redis);
    const next = redis.multi();
    if (damage === undefined) next.zadd(CHECKED, now, member).hdel(DAMAGED, member);
    else next.zadd(CHECKED, now - againMs + Math.min(againMs, DAMAGED_AGAIN_MS), member).hset(DAMAGED, member, damage);
    await fromRedis(next.exec());
    if (damage !== undefined) log.error({ sha256, damage }, "a stored file is damaged; sending it again mends it");
  }

  async function round(): Promise<void> {
    if (!(await keepTurn())) return;
    const started = performance.now();
    const page = await claims.page(cursor);
    cursor = page.cursor;
    const members = page.refs.map((ref) => `${ref.sha256} ${ref.size_bytes}`);
    if (members.length > 0) await fromRedis(redis.zadd(CHECKED, "NX", ...members.flatMap((member) => [0, member])));
    const due = (await redisTime(redis)) - againMs;
    for (const member of await fromRedis(redis.zrangebyscore(CHECKED, "-inf", due, "LIMIT", 0, BATCH))) {
      if (performance.now() - started > intervalMs || !(await keepTurn())) return;
      await check(member);
    }
  }

  const ended = (async () => {
    while (!signal.aborted) {
      const started = performance.now();
      await round().catch((error) => signal.aborted || log.warn({ err: error }, "stored files could not be checked"));
      await sleep(Math.max(0, intervalMs - (performance.now() - started)), undefined, { signal }).catch(() => {});
    }
  })();

  return {
    async close() {
      closing.abort();
      await ended;
      await fromRedis(redis.eval(END_TURN, 1, TURN, self)).catch(() => {}); // It expires.
    },
  };
}
