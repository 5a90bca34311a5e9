import type { Redis } from "ioredis";
import { uuidv7 } from "uuidv7";
import type { DatasetFacts, ModelFacts } from "../core/contract.ts";
import type { BlobRef } from "./blobs/blob-store.ts";
import { type BlobClaims, claimsGone, settlingKeys } from "./blobs/claims.ts";
import type { LongTexts } from "./blobs/long-texts.ts";
import { ServiceError } from "./errors.ts";
import { type ListFilter, matches, scanPage } from "./list-filter.ts";
import type { Page } from "./pages.ts";
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
  readonly metadata: Readonly<Record<string, string>>;
  /** Equal for records that are the same thing: there is at most one of each. */
  readonly identity: string;
  /** Equal for records of the same bytes, read in the same way. Undefined in those of earlier versions, whose `identity` it is. */
  readonly content?: string;
  /** The key that has added it. Undefined for models that jobs have made, and for records of earlier versions: they are everybody's. */
  readonly owner?: string;
}

/** What a record is called; the only part of it that changes. */
export type Told = Pick<CatalogRecord, "name" | "metadata">;

export interface ModelRecord extends CatalogRecord {
  /** Of the one file; of several, of their sorted names and hashes (`bundleSha256`). */
  readonly sha256: string;
  readonly size_bytes: number;
  /** First the `.onnx`, then its external data files under the names that it uses. */
  readonly files: readonly CatalogFile[];
  readonly facts: ModelFacts;
  readonly derived_from: { readonly job_id: string; readonly model_id: string } | null;
}

export interface DatasetRecord extends CatalogRecord {
  readonly file: CatalogFile;
  /** How to read the file, as the client gave it; null when the format says it all. */
  readonly spec: unknown;
  readonly facts: DatasetFacts;
}

type Inner = "identity" | "content" | "owner";

/** What lists tell of a record: nothing that grows with the model or the dataset. */
export type ModelSummary = Omit<ModelRecord, Inner | "files" | "facts"> &
  Pick<ModelFacts, "nodes" | "parameters" | "weight_bytes">;
export type DatasetSummary = Omit<DatasetRecord, Inner | "file" | "spec" | "facts"> &
  Pick<BlobRef, "size_bytes" | "sha256"> &
  Pick<DatasetFacts, "samples" | "has_labels">;

/** Records of one kind. Every method rejects with `ServiceError("unavailable")` while Redis cannot be reached. */
export interface Collection<R extends CatalogRecord, Summary> {
  /**
   * Records something whose blobs are claimed by its id, and settles these claims; throws `unavailable` when they are
   * gone. When the same thing is recorded already, that record comes back with `created: false`, and the claims of the
   * new id are released. Throws `limit_exceeded` for a record of more than `MAX_RECORD_BYTES`.
   */
  add(record: R): Promise<{ readonly record: R; readonly created: boolean }>;
  get(id: string): Promise<R | undefined>;
  /** The records of the same bytes, read in the same way, oldest first. */
  sameContent(content: string): Promise<readonly R[]>;
  /** Gives a record to somebody who has sent it again: it is theirs as well now (`withdraw`). False when it is gone. */
  give(id: string): Promise<boolean>;
  /** Calls a record otherwise; `identity` is what it is one of from now on. Undefined when it was not there. */
  rename(id: string, told: Told, identity: string): Promise<R | undefined>;
  /**
   * Newest first, fewer than `limit` where those would be too many bytes, or where a filter lets few through (none at all perhaps). Throws
   * `invalid_request` for a cursor it did not make.
   */
  list(page: {
    readonly limit: number;
    readonly cursor?: string;
    readonly filter?: ListFilter;
  }): Promise<Page<Summary>>;
  /** Forgets the record, releases its blobs; false when it was not there. */
  remove(id: string): Promise<boolean>;
  /** The same for who has added it and takes it back: unless somebody else was given it meanwhile (`find`, `add`). */
  withdraw(id: string): Promise<boolean>;
}

export interface Catalog {
  readonly models: Collection<ModelRecord, ModelSummary>;
  readonly datasets: Collection<DatasetRecord, DatasetSummary>;
}

export const newId = (prefix: "mdl" | "dst" | "job"): string => `${prefix}_${uuidv7()}`;

/** The largest models known take 50 KiB: what comes near this is made to be large. It is in memory whenever the record is used. */
const MAX_RECORD_BYTES = 4 * 1024 * 1024;

/**
 * KEYS: record, ids, identities, summary, given, told, records of the content, those of `settlingKeys`. ARGV: id, record, identity, summary,
 * most records. Answers the id of the same thing, which is given once more then; "full" when there are as many as there may be; "released" when the claims are gone;
 * or nothing when it was added and its claims are settled: in one step, so that there is no record without its bytes.
 */
const ADD = `
  local same = redis.call('HGET', KEYS[3], ARGV[3])
  if same == ARGV[1] then return false end -- Asked again: the first answer was lost.
  if same then
    redis.call('SADD', KEYS[5], same)
    return same
  end
  if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then return 'full' end
  if redis.call('EXISTS', KEYS[8]) == 0 then return 'released' end
  redis.call('ZREM', KEYS[9], ARGV[1])
  redis.call('SADD', KEYS[7], ARGV[1])
  redis.call('SET', KEYS[1], ARGV[2])
  redis.call('SET', KEYS[4], ARGV[4])
  redis.call('ZADD', KEYS[2], 0, ARGV[1])
  redis.call('HSET', KEYS[3], ARGV[3], ARGV[1])`;

/** KEYS: record, given. ARGV: id. Answers whether there was a record to give. */
const GIVE = `
  if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
  redis.call('SADD', KEYS[2], ARGV[1])
  return 1`;

/**
 * KEYS: record, identities, summary, told. ARGV: id, identity so far, identity from now on, summary, told. An identity that is another record's
 * already stays that one's.
 */
const RENAME = `
  if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
  if redis.call('HGET', KEYS[2], ARGV[2]) == ARGV[1] then redis.call('HDEL', KEYS[2], ARGV[2]) end
  redis.call('HSETNX', KEYS[2], ARGV[3], ARGV[1])
  redis.call('SET', KEYS[3], ARGV[4])
  redis.call('SET', KEYS[4], ARGV[5])
  return 1`;

/**
 * KEYS: record, ids, identities, summary, given, told, records of the content. ARGV: id, identity, "1" to leave it when it was given to
 * others.
 */
const REMOVE = `
  if ARGV[3] == '1' and redis.call('SISMEMBER', KEYS[5], ARGV[1]) == 1 then return 0 end
  redis.call('SREM', KEYS[5], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  if redis.call('HGET', KEYS[3], ARGV[2]) == ARGV[1] then redis.call('HDEL', KEYS[3], ARGV[2]) end
  redis.call('DEL', KEYS[4], KEYS[6])
  redis.call('SREM', KEYS[7], ARGV[1])
  return redis.call('DEL', KEYS[1])`;

/** `maxRecords`: of each kind. */
export function createCatalog(
  redis: Redis,
  claims: BlobClaims,
  texts: LongTexts,
  maxRecords: number = Number.MAX_SAFE_INTEGER,
): Catalog {
  return {
    models: createCollection("models", modelSummary, redis, claims, texts, maxRecords),
    datasets: createCollection("datasets", datasetSummary, redis, claims, texts, maxRecords),
  };
}

function modelSummary(record: ModelRecord): ModelSummary {
  const { identity: _identity, content: _content, owner: _owner, files: _files, facts, ...rest } = record;
  const { nodes, parameters, weight_bytes } = facts;
  return { ...rest, nodes, parameters, weight_bytes };
}

function datasetSummary(record: DatasetRecord): DatasetSummary {
  const { identity: _identity, content: _content, owner: _owner, file, spec: _spec, facts, ...rest } = record;
  const { samples, has_labels } = facts;
  return { ...rest, size_bytes: file.size_bytes, sha256: file.sha256, samples, has_labels };
}

function createCollection<R extends CatalogRecord, Summary>(
  name: string,
  summaryOf: (record: R) => Summary,
  redis: Redis,
  claims: BlobClaims,
  texts: LongTexts,
  maxRecords: number,
): Collection<R, Summary> {
  const recordOf = (id: string) => `${KEY_PREFIX}:${name}:record:${id}`;
  const summaryKeyOf = (id: string) => `${KEY_PREFIX}:${name}:summary:${id}`;
  /** A sorted set with equal scores: its order is that of the ids. */
  const ids = `${KEY_PREFIX}:${name}:ids`;
  const identities = `${KEY_PREFIX}:${name}:identities`;

  /** Ids that were given to somebody who has sent the same thing. */
  const given = `${KEY_PREFIX}:${name}:given`;
  /** What a record is called now, where that has changed: the record itself stays as it was added. */
  const toldOf = (id: string) => `${KEY_PREFIX}:${name}:told:${id}`;
  const contentOf = (content: string) => `${KEY_PREFIX}:${name}:content:${content}`;
  const keysOf = ({ id, content, identity }: R) => [
    ...[recordOf(id), ids, identities, summaryKeyOf(id), given, toldOf(id)],
    contentOf(content ?? identity),
  ];

  async function get(id: string): Promise<R | undefined> {
    const [kept, told] = await fromRedis(redis.mget(recordOf(id), toldOf(id)));
    if (kept == null) return undefined;
    const record = JSON.parse(await texts.read(kept)) as R;
    // What it is one of changes with its name, and what its bytes are does not.
    return told == null ? record : { ...record, content: record.content ?? record.identity, ...JSON.parse(told) };
  }

  async function remove(id: string, leaveGiven: boolean): Promise<boolean> {
    const record = await get(id);
    if (record === undefined) return false;
    const keys = keysOf(record);
    const remove = redis.eval(REMOVE, keys.length, ...keys, id, record.identity, leaveGiven ? 1 : 0);
    const removed = await fromRedis(remove);
    if (removed !== 1) return false;
    await claims.release(id);
    return true;
  }

  /** The texts of the summaries; undefined for records that are gone. */
  async function summariesOf(page: readonly string[]): Promise<(string | undefined)[]> {
    if (page.length === 0) return [];
    const kept = await fromRedis(redis.mget(page.map(summaryKeyOf)));
    return Promise.all(
      page.map(async (id, i) => {
        if (kept[i] != null) return kept[i];
        // Removed since, or recorded by a version without summaries.
        const record = await get(id);
        return record && JSON.stringify(summaryOf(record));
      }),
    );
  }

  return {
    get,
    async add(record) {
      const { id, identity } = record;
      const text = JSON.stringify(record);
      if (Buffer.byteLength(text) > MAX_RECORD_BYTES) throw tooMuchToKnow(Buffer.byteLength(text));
      const kept = await texts.keep(id, text);
      const keys = [...keysOf(record), ...settlingKeys(id)];
      for (;;) {
        const args = [id, kept, identity, JSON.stringify(summaryOf(record)), maxRecords];
        const add = redis.eval(ADD, keys.length, ...keys, ...args);
        const same = (await fromRedis(add)) as string | null;
        if (same === "full") {
          throw new ServiceError("quota_exceeded", `There are ${maxRecords} ${name} already: delete some.`);
        }
        if (same === "released") throw claimsGone();
        if (same === null) {
          return { record, created: true };
        }
        const existing = await get(same);
        // It may have been removed since: then this one is the first again.
        if (existing === undefined) continue;
        await claims.release(id);
        return { record: existing, created: false };
      }
    },
    async sameContent(content) {
      const [found, earlier] = await Promise.all([
        fromRedis(redis.smembers(contentOf(content))),
        // Of versions that had one record for each content.
        fromRedis(redis.hget(identities, content)),
      ]);
      const all = [...new Set([...found, ...(earlier === null ? [] : [earlier])])].sort();
      return (await Promise.all(all.map(get))).filter((record) => record !== undefined);
    },
    async give(id) {
      return (await fromRedis(redis.eval(GIVE, 2, recordOf(id), given, id))) === 1;
    },
    async rename(id, told, identity) {
      const record = await get(id);
      if (record === undefined) return undefined;
      const renamed = { ...record, ...told, identity, content: record.content ?? record.identity };
      const keys = [recordOf(id), identities, summaryKeyOf(id), toldOf(id)];
      const summary = JSON.stringify(summaryOf(renamed));
      const args = [id, record.identity, identity, summary, JSON.stringify({ ...told, identity })];
      return (await fromRedis(redis.eval(RENAME, keys.length, ...keys, ...args))) === 1 ? renamed : undefined;
    },
    async list({ limit, cursor, filter = {} }) {
      const { data, last } = await scanPage<Summary>({
        limit,
        start: cursor === undefined ? "+" : `(${idOfCursor(cursor)}`,
        read: (from, count) => fromRedis(redis.zrange(ids, from, "-", "BYLEX", "REV", "LIMIT", 0, count)),
        summariesOf,
        isWanted: (summary) => matches(filter, summary as Summary & CatalogRecord),
      });
      return { data, next_cursor: last === null ? null : cursorOfId(last) };
    },
    remove: (id) => remove(id, false),
    withdraw: (id) => remove(id, true),
  };
}

function tooMuchToKnow(bytes: number): ServiceError {
  return new ServiceError(
    "limit_exceeded",
    `What there is to record of this (inputs, outputs, operators, classes, files) takes ${bytes} bytes; at most ${MAX_RECORD_BYTES} are kept.`,
  );
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
