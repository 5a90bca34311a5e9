import { setTimeout as sleep } from "node:timers/promises";
import type { Redis } from "ioredis";
import { ServiceError } from "../errors.ts";
import { fromRedis, KEY_PREFIX, LUA_NOW } from "../redis.ts";
import type { BlobRef, BlobStore } from "./blob-store.ts";

/**
 * Who needs which blob. An owner is the id of a model, dataset or job; a blob is deleted from the store when its last
 * claim is gone.
 *
 * The order that never loses bytes: claim a blob while it is being put (`PutOptions.claim`), write the owner's record,
 * `settle` the owner; on any failure in between, `abandon` it. What a killed process leaves unsettled is released by
 * `sweep` a day later.
 */
export interface BlobClaims {
  /** Idempotent. */
  claim(owner: string, ref: BlobRef): Promise<void>;
  /**
   * Says that the owner's record is written: from now on only `release` ends its claims. Throws `unavailable` when its claims are gone: they
   * were swept, and the bytes may be deleted.
   */
  settle(owner: string): Promise<void>;
  /**
   * Releases an owner whose record could not be written; does nothing when it is settled: the record was written, and only the answer was lost.
   */
  abandon(owner: string): Promise<void>;
  /** Ends all claims of an owner, and deletes the blobs that nobody else claims. No error when it has none. */
  release(owner: string): Promise<void>;
  /** Releases owners that were never settled, and deletes what an earlier release could not. */
  sweep(): Promise<void>;
  /** Some of all blobs that are claimed, and where to go on; from the cursor `0` to the cursor `0` each that stays comes at least once. */
  page(cursor: string): Promise<{ readonly refs: readonly BlobRef[]; readonly cursor: string }>;
  /** Whether somebody needs the blob. */
  isClaimed(ref: BlobRef): Promise<boolean>;
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
 * KEYS: deleting, owners of the blob, blobs of the owner, unsettled. ARGV: owner, blob. Answers 0 while the blob is
 * deleted.
 */
const CLAIM = `
  ${LUA_NOW}
  if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
  redis.call('SADD', KEYS[2], ARGV[1])
  if redis.call('SADD', KEYS[3], ARGV[2]) == 1 and redis.call('SCARD', KEYS[3]) == 1 then
    redis.call('ZADD', KEYS[4], now, ARGV[1])
  end
  return 1`;

/** For scripts that settle an owner in one step with writing its record: its blobs, none when it was released; who is unsettled. */
export const settlingKeys = (owner: string): [string, string] => [blobsOf(owner), UNSETTLED];

export function claimsGone(): ServiceError {
  const message = "The stored bytes were thrown away before they were recorded: send them again.";
  return new ServiceError("unavailable", message, { retryAfterSeconds: 1 });
}

/** KEYS: `settlingKeys`. ARGV: owner. Answers 0 when the owner has no claims. */
const SETTLE = `
  if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
  redis.call('ZREM', KEYS[2], ARGV[1])
  return 1`;

/**
 * KEYS: blobs of the owner, unsettled, garbage. ARGV: owner, where the owners of blobs are, for how long the owner must have been unsettled
 * or nothing. In one step, so that an owner is either settled or released. The last claim turns a blob into garbage. Answers the owner's blobs.
 */
const RELEASE = `
  ${LUA_NOW}
  if ARGV[3] ~= '' then
    local since = redis.call('ZSCORE', KEYS[2], ARGV[1])
    if not since or tonumber(since) > now - tonumber(ARGV[3]) then return {} end
  end
  local blobs = redis.call('SMEMBERS', KEYS[1])
  for _, blob in ipairs(blobs) do
    local owners = ARGV[2] .. string.match(blob, '^%S+')
    redis.call('SREM', owners, ARGV[1])
    if redis.call('SCARD', owners) == 0 then redis.call('SADD', KEYS[3], blob) end
  end
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  return blobs`;

/** KEYS: unsettled. ARGV: for how long. Answers the owners that have been unsettled for so long. */
const FORGOTTEN = `${LUA_NOW} return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])`;

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

  /** Deletes blobs that nobody claims; what cannot be deleted now stays garbage, for the sweep. Answers what went wrong. */
  async function collect(members: readonly string[]): Promise<unknown> {
    let problem: unknown;
    for (const member of members) {
      const ref = refOf(member);
      const deleting = deletingOf(ref.sha256);
      const start = redis.eval(START_DELETE, 3, ownersOf(ref.sha256), deleting, GARBAGE, member, DELETING_MS);
      if ((await fromRedis(start)) !== 1) continue;
      try {
        const failure = await blobs.delete(ref).catch((error) => error ?? "unknown");
        if (failure === undefined) await fromRedis(redis.srem(GARBAGE, member));
        else problem = failure;
      } finally {
        await fromRedis(redis.del(deleting));
      }
    }
    return problem;
  }

  async function release(owner: string, unsettledForMs: number | ""): Promise<void> {
    const keys = [blobsOf(owner), UNSETTLED, GARBAGE];
    await collect((await fromRedis(redis.eval(RELEASE, 3, ...keys, owner, ownersOf(""), unsettledForMs))) as string[]);
  }

  return {
    async claim(owner, ref) {
      const keys = [deletingOf(ref.sha256), ownersOf(ref.sha256), blobsOf(owner), UNSETTLED];
      for (let waitedMs = 0; waitedMs <= 2 * DELETING_MS; waitedMs += RETRY_MS) {
        if ((await fromRedis(redis.eval(CLAIM, 4, ...keys, owner, memberOf(ref)))) === 1) return;
        await sleep(RETRY_MS);
      }
      throw new ServiceError("unavailable", "An earlier copy of these bytes is still being deleted.", {
        retryAfterSeconds: 5,
      });
    },
    async settle(owner) {
      if ((await fromRedis(redis.eval(SETTLE, 2, ...settlingKeys(owner), owner))) === 1) return;
      throw claimsGone();
    },
    abandon: (owner) => release(owner, 0),
    release: (owner) => release(owner, ""),
    async sweep() {
      const forgotten = await fromRedis(redis.eval(FORGOTTEN, 1, UNSETTLED, UNSETTLED_MS));
      for (const owner of forgotten as string[]) await release(owner, UNSETTLED_MS);
      const problem = await collect(await fromRedis(redis.smembers(GARBAGE)));
      if (problem !== undefined) throw problem;
    },
    async page(cursor) {
      const [next, owners] = await fromRedis(redis.scan(cursor, "MATCH", blobsOf("*"), "COUNT", 1000));
      const members = await Promise.all(owners.map((owner) => fromRedis(redis.smembers(owner))));
      return { refs: [...new Set(members.flat())].map(refOf), cursor: next };
    },
    async isClaimed(ref) {
      return (await fromRedis(redis.scard(ownersOf(ref.sha256)))) > 0;
    },
  };
}
