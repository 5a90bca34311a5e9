import type { Redis } from "ioredis";
import { uuidv7 } from "uuidv7";
import type { DatasetFacts, ModelFacts } from "../core/index.ts";
import type { BlobRef } from "./blobs/blob-store.ts";
import type { BlobClaims } from "./blobs/claims.ts";
import { ServiceError } from "./errors.ts";
import type { Page } from "./jobs/job-store.ts";
import { fromRedis, KEY_PREFIX } from "./redis.ts";

/** A file of a model or dataset, and where its bytes are. */
export interface CatalogFile extends BlobRef {
  readonly name: string;
}

interface CatalogRecord {
  /** A prefix and a UUIDv7, so that ids sort by the time they were made. */
  readonly id: string;
  readonly name: string;
  readonly created_at: string;
  /** Equal for records that are the same thing: there is at most one of each. */
  readonly identity: string;
}

export interface ModelRecord extends CatalogRecord {
  /** Of the one file; of several, of their sorted names and hashes (`bundleSha256`). */
  readonly sha256: string;
  readonly size_bytes: number;
  /** First the `.onnx`, then its external data files under the names that it uses. */
  readonly files: readonly CatalogFile[];
  readonly facts: ModelFacts;
  readonly derived_from: { readonly job_id: string; readonly model_id: string } | null;
  readonly metadata: Readonly<Record<string, string>>;
}

export interface DatasetRecord extends CatalogRecord {
  readonly file: CatalogFile;
  /** How to read the file, as the client gave it; null when the format says it all. */
  readonly spec: unknown;
  readonly facts: DatasetFacts;
  readonly metadata: Readonly<Record<string, string>>;
}

/** Records of one kind. Every method rejects with `ServiceError("unavailable")` while Redis cannot be reached. */
export interface Collection<R extends CatalogRecord> {
  /**
   * Records something whose blobs are claimed by its id, and settles these claims. When the same thing is recorded
   * already, that record comes back with `created: false`, and the claims of the new id are released.
   */
  add(record: R): Promise<{ readonly record: R; readonly created: boolean }>;
  get(id: string): Promise<R | undefined>;
  /** The record of the same thing. */
  find(identity: string): Promise<R | undefined>;
  /** Newest first. Throws `invalid_request` for a cursor it did not make. */
  list(page: { readonly limit: number; readonly cursor?: string }): Promise<Page<R>>;
  /** Forgets the record, releases its blobs; false when it was not there. */
  remove(id: string): Promise<boolean>;
}

export interface Catalog {
  readonly models: Collection<ModelRecord>;
  readonly datasets: Collection<DatasetRecord>;
}

export const newId = (prefix: "mdl" | "dst" | "job"): string => `${prefix}_${uuidv7()}`;

/**
 * KEYS: record, ids, identities. ARGV: id, record, identity. Answers the id of the same thing, or nothing when it was
 * added.
 */
const ADD = `
  local same = redis.call('HGET', KEYS[3], ARGV[3])
  if same then return same end
  redis.call('SET', KEYS[1], ARGV[2])
  redis.call('ZADD', KEYS[2], 0, ARGV[1])
  redis.call('HSET', KEYS[3], ARGV[3], ARGV[1])`;

/** KEYS: record, ids, identities. ARGV: id, identity. */
const REMOVE = `
  redis.call('ZREM', KEYS[2], ARGV[1])
  if redis.call('HGET', KEYS[3], ARGV[2]) == ARGV[1] then redis.call('HDEL', KEYS[3], ARGV[2]) end
  return redis.call('DEL', KEYS[1])`;

export function createCatalog(redis: Redis, claims: BlobClaims): Catalog {
  return {
    models: createCollection<ModelRecord>(redis, claims, "models"),
    datasets: createCollection<DatasetRecord>(redis, claims, "datasets"),
  };
}

function createCollection<R extends CatalogRecord>(redis: Redis, claims: BlobClaims, name: string): Collection<R> {
  const recordOf = (id: string) => `${KEY_PREFIX}:${name}:record:${id}`;
  /** A sorted set with equal scores: its order is that of the ids. */
  const ids = `${KEY_PREFIX}:${name}:ids`;
  const identities = `${KEY_PREFIX}:${name}:identities`;

  async function get(id: string): Promise<R | undefined> {
    const text = await fromRedis(redis.get(recordOf(id)));
    return text === null ? undefined : (JSON.parse(text) as R);
  }

  return {
    get,
    async add(record) {
      const { id, identity } = record;
      for (;;) {
        const add = redis.eval(ADD, 3, recordOf(id), ids, identities, id, JSON.stringify(record), identity);
        const same = (await fromRedis(add)) as string | null;
        if (same === null) {
          await claims.settle(id);
          return { record, created: true };
        }
        const existing = await get(same);
        // It may have been removed since: then this one is the first again.
        if (existing === undefined) continue;
        await claims.release(id);
        return { record: existing, created: false };
      }
    },
    async find(identity) {
      const id = await fromRedis(redis.hget(identities, identity));
      return id === null ? undefined : get(id);
    },
    async list({ limit, cursor }) {
      const from = cursor === undefined ? "+" : `(${idOfCursor(cursor)}`;
      const found = await fromRedis(redis.zrange(ids, from, "-", "BYLEX", "REV", "LIMIT", 0, limit + 1));
      const page = found.slice(0, limit);
      const texts = page.length === 0 ? [] : await fromRedis(redis.mget(page.map(recordOf)));
      return {
        data: texts.filter((text) => text !== null).map((text) => JSON.parse(text) as R),
        next_cursor: found.length > limit ? cursorOfId(page.at(-1)!) : null,
      };
    },
    async remove(id) {
      const record = await get(id);
      if (record === undefined) return false;
      const removed = await fromRedis(redis.eval(REMOVE, 3, recordOf(id), ids, identities, id, record.identity));
      await claims.release(id);
      return removed === 1;
    },
  };
}

function cursorOfId(id: string): string {
  return Buffer.from(id).toString("base64url");
}

function idOfCursor(cursor: string): string {
  const id = Buffer.from(cursor, "base64url").toString();
  if (!/^[a-z]{3}_[0-9a-f-]{36}$/.test(id)) {
    throw new ServiceError("invalid_request", "This cursor did not come from an earlier page.", {
      fields: [
        { pointer: "#/query/cursor", code: "invalid_cursor", message: "Use the next_cursor of the page before." },
      ],
    });
  }
  return id;
}
