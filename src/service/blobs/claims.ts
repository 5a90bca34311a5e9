import { setTimeout as sleep } from "node:timers/promises";
import type { Redis } from "ioredis";
import { ServiceError } from "../errors.ts";
import { fromRedis, KEY_PREFIX } from "../redis.ts";
import type { BlobRef, BlobStore } from "./blob-store.ts";

/**
 * Who needs which blob. An owner is the id of a model, dataset or job; a blob is deleted from the store when its last
 * claim is gone.
 *
 * The order that never loses bytes: claim a blob while it is being put (`PutOptions.claim`), write the owner's record,
 * `settle` the owner; on any failure in between, `release` it. What a killed process leaves unsettled is released by
 * `sweep` a day later.
 */
export interface BlobClaims {
  /** Idempotent. */
  claim(owner: string, ref: BlobRef): Promise<void>;
  /** Says that the owner's record is written: from now on only `release` ends its claims. */
  settle(owner: string): Promise<void>;
  /** Ends all claims of an owner, and deletes the blobs that nobody else claims. No error when it has none. */
  release(owner: string): Promise<void>;
  /** Releases owners that were never settled, and deletes what an earlier release could not. */
  sweep(): Promise<void>;
}

/** No upload or job takes that long from its first blob to its record. */
const UNSETTLED_MS = 24 * 60 * 60 * 1000;
/** A deleter that was killed holds up claims on the same bytes for this long. */
const DELETING_MS = 30_000;
const RETRY_MS = 25;

const ownersOf = (sha256: string) => `${KEY_PREFIX}:claims:blob:${sha256}`;
const deletingOf = (sha256: string) => `${KEY_PREFIX}:claims:deleting:${sha256}`;
const blobsOf = (owner: string) => `${KEY_PREFIX}:claims:owner:${owner}`;
const UNSETTLED = `${KEY_PREFIX}:claims:unsettled`;
const GARBAGE = `${KEY_PREFIX}:claims:garbage`;

/**
 * KEYS: deleting, owners of the blob, blobs of the owner, unsettled. ARGV: owner, blob, now. Answers 0 while the blob
 * is deleted.
 */
const CLAIM = `
  if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
  redis.call('SADD', KEYS[2], ARGV[1])
  if redis.call('SADD', KEYS[3], ARGV[2]) == 1 and redis.call('SCARD', KEYS[3]) == 1 then
    redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
  end
  return 1`;

/**
 * KEYS: owners of the blob, blobs of the owner, garbage. ARGV: owner, blob. The last claim turns the blob into garbage.
 */
const DROP = `
  redis.call('SREM', KEYS[1], ARGV[1])
  redis.call('SREM', KEYS[2], ARGV[2])
  if redis.call('SCARD', KEYS[1]) == 0 then redis.call('SADD', KEYS[3], ARGV[2]) end`;

/**
 * KEYS: owners of the blob, deleting, garbage. ARGV: blob, how long. Answers 1 when the caller must delete the blob
 * now.
 */
const START_DELETE = `
  if redis.call('SCARD', KEYS[1]) > 0 then
    redis.call('SREM', KEYS[3], ARGV[1])
    return 0
  end
  if redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[2]) then return 1 end
  return 0`;

export function createBlobClaims(redis: Redis, blobs: BlobStore): BlobClaims {
  const memberOf = (ref: BlobRef) => `${ref.sha256} ${ref.size_bytes}`;
  const refOf = (member: string): BlobRef => {
    const [sha256 = "", size] = member.split(" ");
    return { sha256, size_bytes: Number(size) };
  };

  async function collect(members: readonly string[]): Promise<void> {
    for (const member of members) {
      const ref = refOf(member);
      const deleting = deletingOf(ref.sha256);
      const start = redis.eval(START_DELETE, 3, ownersOf(ref.sha256), deleting, GARBAGE, member, DELETING_MS);
      if ((await fromRedis(start)) !== 1) continue;
      try {
        await blobs.delete(ref);
        await fromRedis(redis.srem(GARBAGE, member));
      } finally {
        await fromRedis(redis.del(deleting));
      }
    }
  }

  return {
    async claim(owner, ref) {
      const keys = [deletingOf(ref.sha256), ownersOf(ref.sha256), blobsOf(owner), UNSETTLED];
      for (let waitedMs = 0; waitedMs <= 2 * DELETING_MS; waitedMs += RETRY_MS) {
        if ((await fromRedis(redis.eval(CLAIM, 4, ...keys, owner, memberOf(ref), Date.now()))) === 1) return;
        await sleep(RETRY_MS);
      }
      throw new ServiceError("unavailable", "An earlier copy of these bytes is still being deleted.", {
        retryAfterSeconds: 5,
      });
    },
    async settle(owner) {
      await fromRedis(redis.zrem(UNSETTLED, owner));
    },
    async release(owner) {
      const members = await fromRedis(redis.smembers(blobsOf(owner)));
      for (const member of members) {
        const { sha256 } = refOf(member);
        await fromRedis(redis.eval(DROP, 3, ownersOf(sha256), blobsOf(owner), GARBAGE, owner, member));
      }
      await fromRedis(redis.zrem(UNSETTLED, owner));
      await collect(members);
    },
    async sweep() {
      const forgotten = await fromRedis(redis.zrangebyscore(UNSETTLED, "-inf", Date.now() - UNSETTLED_MS));
      for (const owner of forgotten) await this.release(owner);
      await collect(await fromRedis(redis.smembers(GARBAGE)));
    },
  };
}
