import { createReadStream } from "node:fs";
import { mkdir, readFile, realpath, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import type { BlobRef, BlobStore } from "../src/service/blobs/blob-store.ts";
import type { BlobClaims } from "../src/service/blobs/claims.ts";
import type { JobRecord } from "../src/service/jobs/job-store.ts";
import { cacheKeysOf } from "../src/service/kinds/kinds.ts";
import { SHARED_FINDS } from "../src/service/kinds/quantize/cache-keys.ts";
import type { MeasuredHost } from "../src/service/kinds/quantize/kernels-file.ts";
import { fromRedis, KEY_PREFIX } from "../src/service/redis.ts";
import type { LocalFile, TaskNews } from "../src/tasks/protocol.ts";
import { checkProduced } from "./job-files.ts";

type CacheNews = Extract<TaskNews, { kind: "cache" }>;

/** A job, or a step of a pipeline as a job of its own. */
type CachedJob = Pick<JobRecord, "id" | "spec">;

/** What jobs have found out that others would find out again, kept for a day. Whatever goes wrong here, the work is only done again. */
export interface JobCache {
  /** Brings what there is for a job into `directory`, by name. */
  fetch(job: CachedJob, directory: string): Promise<Readonly<Record<string, LocalFile>>>;
  /** Stores a file that the child of a job has made below `root`. Never rejects. */
  store(job: CachedJob, root: string, news: CacheNews): Promise<void>;
}

/** Shorter than unsettled claims last: the claims on what is kept here are never settled, and sweeping them away is how it ends. */
const KEPT_SECONDS = 23 * 60 * 60;

export function createJobCache(deps: {
  redis: Redis;
  blobs: BlobStore;
  claims: BlobClaims;
  /** The machine that jobs run on. */
  host: MeasuredHost;
  log: Logger;
}): JobCache {
  const { redis, blobs, claims, host, log } = deps;
  const entryOf = (key: string) => `${KEY_PREFIX}:cache:${key}`;

  async function find(key: string): Promise<BlobRef | undefined> {
    const text = await fromRedis(redis.get(entryOf(key)));
    return text === null ? undefined : (JSON.parse(text) as BlobRef);
  }

  /** Writes what was kept under `key` into the file as well, for finds that jobs share; answers whether there is anything to keep. */
  async function gather(name: string, key: string, path: string): Promise<boolean> {
    const shared = SHARED_FINDS[name];
    if (!shared) return true;
    if ((await stat(path)).size > shared.maxBytes) return false;
    const ref = await find(key);
    const earlier = `${path}.kept`;
    const kept =
      ref &&
      (await blobs
        .materialize(ref, earlier)
        .then(() => readFile(earlier))
        .catch(() => undefined));
    await rm(earlier, { force: true });
    const found = await readFile(path);
    const all = shared.merged(kept ?? found, found, host);
    if (all) await writeFile(path, all);
    return all !== undefined;
  }

  return {
    async fetch({ id, spec }, directory) {
      await mkdir(directory, { recursive: true });
      const found: Record<string, LocalFile> = {};
      for (const [name, key] of Object.entries(cacheKeysOf(spec, host))) {
        const path = join(directory, name);
        try {
          const ref = await find(key);
          if (ref === undefined) continue;
          await blobs.materialize(ref, path);
          found[name] = { name, path };
        } catch (error) {
          log.warn({ job: id, err: error }, "what an earlier job has found out is lost");
        }
      }
      return found;
    },

    async store({ id, spec }, root, { name, path }) {
      try {
        // Before anything is done with the file, removing it included.
        await checkProduced({ name, path }, await realpath(root));
        const key = cacheKeysOf(spec, host)[name];
        if (key === undefined || !(await gather(name, key, path))) return;
        const ref = await blobs.put(createReadStream(path), {
          maxBytes: Number.MAX_SAFE_INTEGER, // The disk it was written to has set the limit.
          claim: (ref) => claims.claim(`cache:${key}`, ref),
        });
        await fromRedis(redis.set(entryOf(key), JSON.stringify(ref), "EX", KEPT_SECONDS));
        await rm(path, { force: true });
      } catch (error) {
        log.warn({ job: id, err: error }, "what a job has found out is not kept for others");
      }
    },
  };
}
