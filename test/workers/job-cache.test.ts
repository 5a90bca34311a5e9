import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Redis } from "ioredis";
import { pino } from "pino";
import { JobRequest } from "../../src/service/api/job-schemas.ts";
import type { BlobStore } from "../../src/service/blobs/blob-store.ts";
import type { BlobClaims } from "../../src/service/blobs/claims.ts";
import type { JobSpec } from "../../src/service/kinds/kinds.ts";
import { bookFromBytes, bookToBytes } from "../../src/service/kinds/quantize/kernels-file.ts";
import { createJobCache } from "../../workers/job-cache.ts";
import { queuedJob } from "../support/jobs.ts";

const HOST = { cpu: "a processor", isa: ["avx2"] };

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "job-cache-"));
});
after(() => rm(directory, { recursive: true }));

const job = (params: object = {}) => ({
  ...queuedJob(),
  spec: JobRequest.parse({
    type: "quantize",
    model_id: "mdl_1",
    params: { method: "static", dataset_id: "dst_1", ...params },
  }) as JobSpec,
});

/** A cache over blobs and entries in memory. */
function memory() {
  const contents = new Map<string, Buffer>();
  const entries = new Map<string, { text: string; seconds: number }>();
  const blobs: Partial<BlobStore> = {
    async put(bytes, { claim }) {
      const content = Buffer.concat(await Array.fromAsync(bytes));
      const ref = { sha256: content.toString("hex"), size_bytes: content.length };
      await claim?.(ref);
      contents.set(ref.sha256, content);
      return ref;
    },
    async materialize({ sha256 }, path) {
      if (!contents.has(sha256)) throw new Error("it is not there");
      await writeFile(path, contents.get(sha256)!);
    },
  };
  const claimed: string[] = [];
  const claims: Partial<BlobClaims> = { claim: async (owner) => void claimed.push(owner) };
  const redis = {
    get: async (key: string) => entries.get(key)?.text ?? null,
    set: async (key: string, text: string, _unit: "EX", seconds: number) => void entries.set(key, { text, seconds }),
  };
  const deps = { redis: redis as unknown as Redis, blobs: blobs as BlobStore, claims: claims as BlobClaims };
  return { cache: createJobCache({ ...deps, host: HOST, log: pino({ level: "silent" }) }), contents, entries, claimed };
}

async function made(name: string, content: string) {
  const root = await mkdtemp(join(directory, "work-"));
  const path = join(root, name);
  await writeFile(path, content);
  return { root, news: { kind: "cache", name: "calibration", path } as const };
}

test("what one job has found another one gets, and a third that needs something else does not", async () => {
  const { cache, entries, claimed } = memory();
  const folder = join(directory, "fetched");
  assert.deepEqual(await cache.fetch(job(), folder), {});
  const { root, news } = await made("calibration.cache", "ranges");
  await cache.store(job(), root, news);
  assert.ok(!existsSync(news.path), "it takes no space twice");
  const found = await cache.fetch(job({ calibration: "minmax" }), folder);
  assert.equal(await readFile(found.calibration!.path, "utf8"), "ranges");
  assert.deepEqual(await cache.fetch(job({ seed: 1 }), folder), {});
  // The entry is gone before the claim that keeps its bytes is swept, a day after it was made.
  const [entry] = entries.values();
  assert.ok(entry!.seconds < 24 * 60 * 60);
  assert.deepEqual(claimed.length, 1);
});

test("what kernels take is shared by jobs on all models, and what the first has found stays", async () => {
  const { cache } = memory();
  const bookOf = (units: Readonly<Record<string, number>>) => {
    const own = Object.entries(units).map(([key, us]) => [key.padEnd(22, "k"), { floatUs: us, int8Us: us }] as const);
    const book = { units: new Map(own), conversions: new Map(), models: new Map() };
    return Buffer.from(bookToBytes(book, HOST)).toString();
  };
  const stored = async (model_id: string, content: string) => {
    const { root, news } = await made("kernels.cache", content);
    await cache.store({ ...job(), spec: { ...job().spec, model_id } as JobSpec }, root, { ...news, name: "kernels" });
  };
  const folder = join(directory, "kernels");
  const kept = async () => {
    const { kernels } = await cache.fetch(job(), folder);
    return kernels && bookFromBytes(await readFile(kernels.path), HOST);
  };
  await stored("mdl_1", "no book");
  assert.equal(await kept(), undefined);
  await stored("mdl_2", bookOf({ a: 1 }));
  await stored("mdl_3", bookOf({ a: 9, b: 2 }));
  await stored("mdl_4", "no book");
  await stored("mdl_5", bookOf({}).padEnd(5 * 2 ** 20));
  assert.deepEqual(
    [...(await kept())!.units.values()].map(({ floatUs }) => floatUs),
    [1, 2],
  );
});

test("bytes that are gone, and entries that are damaged, are as if they had never been", async () => {
  const { cache, contents, entries } = memory();
  const { root, news } = await made("calibration.cache", "ranges");
  await cache.store(job(), root, news);
  contents.clear();
  assert.deepEqual(await cache.fetch(job(), join(directory, "gone")), {});
  for (const entry of entries.values()) entry.text = "{";
  assert.deepEqual(await cache.fetch(job(), join(directory, "damaged")), {});
});

test("a child cannot have files outside of its directory stored, nor names that its job has no use for", async () => {
  const { cache, contents } = memory();
  const { root, news } = await made("calibration.cache", "ranges");
  const outside = join(directory, "secret");
  await writeFile(outside, "secret");
  await cache.store(job(), root, { ...news, path: outside });
  assert.ok(existsSync(outside));
  await mkdir(join(root, "folder"));
  await cache.store(job(), root, { ...news, path: join(root, "folder") });
  await cache.store(job(), root, { ...news, name: "other" });
  await cache.store(queuedJob(), root, news);
  assert.equal(contents.size, 0);
});
