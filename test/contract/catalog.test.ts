import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { BlobRef, BlobStore } from "../../src/service/blobs/blob-store.ts";
import { type BlobClaims, createBlobClaims } from "../../src/service/blobs/claims.ts";
import { createFileBlobStore } from "../../src/service/blobs/fs.ts";
import { createLongTexts } from "../../src/service/blobs/long-texts.ts";
import { type Catalog, createCatalog, type DatasetRecord, newId } from "../../src/service/catalog.ts";
import { KEY_PREFIX } from "../../src/service/redis.ts";
import { startTestRedis } from "../support/redis.ts";
import { bytesOf, chunksOf } from "./blob-store.ts";

const LIMIT = { maxBytes: 1_000_000 };

let server: Awaited<ReturnType<typeof startTestRedis>>;
let directory: string;
let blobs: BlobStore;
let claims: BlobClaims;
let catalog: Catalog;

before(async () => {
  server = await startTestRedis();
  directory = await mkdtemp(join(tmpdir(), "catalog-"));
});
after(async () => {
  await server.close();
  await rm(directory, { recursive: true });
});
beforeEach(async () => {
  await server.redis.flushall();
  await rm(directory, { recursive: true });
  blobs = await createFileBlobStore(directory);
  claims = createBlobClaims(server.redis, blobs);
  catalog = createCatalog(server.redis, claims, createLongTexts(blobs, claims));
});

const put = (bytes: Uint8Array, owner: string): Promise<BlobRef> =>
  blobs.put(chunksOf(bytes, 100), { ...LIMIT, claim: (ref) => claims.claim(owner, ref) });

async function storedBlobs(): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
}

function dataset(id: string, ref: BlobRef, identity: string = ref.sha256): DatasetRecord {
  return {
    id,
    identity,
    name: "digits",
    created_at: new Date().toISOString(),
    file: { ...ref, name: "digits.npz" },
    spec: null,
    facts: { samples: 10, fields: [], has_labels: false, classes: null },
    metadata: {},
  };
}

async function addDataset(bytes: Uint8Array = randomBytes(500)): Promise<DatasetRecord> {
  const id = newId("dst");
  const { record } = await catalog.datasets.add(dataset(id, await put(bytes, id)));
  return record;
}

test("a record comes back as it was, until it is removed with its blob", async () => {
  const record = await addDataset();
  assert.deepEqual(await catalog.datasets.get(record.id), record);
  assert.deepEqual(await catalog.datasets.sameContent(record.identity), [record]);
  assert.deepEqual(await storedBlobs(), [record.file.sha256]);
  assert.equal(await catalog.datasets.remove(record.id), true);
  assert.equal(await catalog.datasets.remove(record.id), false);
  assert.equal(await catalog.datasets.get(record.id), undefined);
  assert.deepEqual(await catalog.datasets.sameContent(record.identity), []);
  assert.deepEqual(await storedBlobs(), []);
});

test("nothing of a removed record stays in Redis", async () => {
  const record = await addDataset();
  await catalog.datasets.remove(record.id);
  assert.deepEqual(await server.redis.keys(`${KEY_PREFIX}*`), []);
});

test("the same thing is recorded once, also when it comes eight times at once", async () => {
  const bytes = randomBytes(500);
  const records = await Promise.all(Array.from({ length: 8 }, () => addDataset(bytes)));
  assert.equal(new Set(records.map((record) => record.id)).size, 1);
  assert.equal((await catalog.datasets.list({ limit: 10 })).data.length, 1);
  await catalog.datasets.remove(records[0]!.id);
  assert.deepEqual(await storedBlobs(), []);
});

test("lists are newest first, and pages neither repeat nor skip while records come and go", async () => {
  const made: string[] = [];
  for (let i = 0; i < 7; i++) made.push((await addDataset()).id);
  const first = await catalog.datasets.list({ limit: 3 });
  assert.deepEqual(
    first.data.map((record) => record.id),
    made.slice(4).reverse(),
  );
  await addDataset();
  await catalog.datasets.remove(first.data[2]!.id);
  const second = await catalog.datasets.list({ limit: 3, cursor: first.next_cursor! });
  assert.deepEqual(
    second.data.map((record) => record.id),
    made.slice(1, 4).reverse(),
  );
  const third = await catalog.datasets.list({ limit: 3, cursor: second.next_cursor! });
  assert.deepEqual(
    third.data.map((record) => record.id),
    [made[0]],
  );
  assert.equal(third.next_cursor, null);
  await assert.rejects(catalog.datasets.list({ limit: 3, cursor: "bm8" }), { code: "invalid_request" });
});

test("a long record is a blob, and lists tell what does not grow with it", async () => {
  const id = newId("dst");
  const classes = Array.from({ length: 3000 }, (_, i) => `class ${i}`.padEnd(100, "x"));
  const short = dataset(id, await put(randomBytes(500), id));
  const record = { ...short, facts: { ...short.facts, has_labels: true, classes } };
  await catalog.datasets.add(record);
  assert.deepEqual(await catalog.datasets.get(id), record);
  const keys = await server.redis.keys(`${KEY_PREFIX}:datasets:*${id}`);
  for (const key of keys) assert.ok((await server.redis.strlen(key)) < 20_000, key);
  const { name, created_at, metadata, file } = record;
  assert.deepEqual((await catalog.datasets.list({ limit: 10 })).data, [
    ...[{ id, name, created_at, metadata, size_bytes: file.size_bytes, sha256: file.sha256 }].map((it) => ({
      ...it,
      ...{ samples: 10, has_labels: true },
    })),
  ]);
  await claims.sweep();
  assert.equal((await storedBlobs()).length, 2);
  await catalog.datasets.remove(id);
  assert.deepEqual(await storedBlobs(), []);
  assert.deepEqual(await server.redis.keys(`${KEY_PREFIX}*`), []);
});

test("a record of more bytes than a record may have is refused", async () => {
  const id = newId("dst");
  const record = dataset(id, await put(randomBytes(500), id));
  const facts = { ...record.facts, classes: ["x".repeat(5_000_000)] };
  await assert.rejects(catalog.datasets.add({ ...record, facts }), { code: "limit_exceeded" });
  assert.deepEqual((await catalog.datasets.list({ limit: 10 })).data, []);
  await claims.release(id);
});

test("there are so many records and no more, and the same thing again is no more", async () => {
  const small = createCatalog(server.redis, claims, createLongTexts(blobs, claims), 2);
  const add = async (bytes: Uint8Array) => {
    const id = newId("dst");
    return small.datasets.add(dataset(id, await put(bytes, id)));
  };
  const bytes = randomBytes(10);
  const first = await add(bytes);
  await add(randomBytes(10));
  await assert.rejects(add(randomBytes(10)), { code: "quota_exceeded" });
  assert.equal((await add(bytes)).created, false);
  await small.datasets.remove(first.record.id);
  assert.equal((await add(randomBytes(10))).created, true);
});

test("a page has a bound in bytes, and all pages together have every record once", async () => {
  const metadata = Object.fromEntries(Array.from({ length: 16 }, (_, i) => [`key ${i}`, "ä".repeat(512)]));
  const made: string[] = [];
  for (let i = 0; i < 40; i++) {
    const id = newId("dst");
    made.push((await catalog.datasets.add({ ...dataset(id, await put(randomBytes(50), id)), metadata })).record.id);
  }
  const seen: string[] = [];
  let cursor: string | undefined;
  do {
    const page = await catalog.datasets.list({ limit: 100, ...(cursor !== undefined && { cursor }) });
    assert.ok(page.data.length >= 1 && Buffer.byteLength(JSON.stringify(page.data)) < 300_000);
    seen.push(...page.data.map(({ id }) => id));
    cursor = page.next_cursor ?? undefined;
  } while (cursor !== undefined);
  assert.deepEqual(seen, made.toReversed());
});

test("records of versions without summaries are listed too", async () => {
  const { id } = await addDataset();
  const [before] = (await catalog.datasets.list({ limit: 10 })).data;
  await server.redis.del(`${KEY_PREFIX}:datasets:summary:${id}`);
  assert.deepEqual((await catalog.datasets.list({ limit: 10 })).data, [before]);
});

test("what was added can be taken back, unless somebody else was given it meanwhile", async () => {
  const alone = await addDataset();
  assert.equal(await catalog.datasets.withdraw(alone.id), true);
  assert.equal(await catalog.datasets.get(alone.id), undefined);
  const bytes = randomBytes(500);
  const added = await addDataset(bytes);
  assert.equal((await addDataset(bytes)).id, added.id);
  assert.equal(await catalog.datasets.withdraw(added.id), false);
  assert.deepEqual(await bytesOf(await blobs.get(added.file)), bytes);
  const found = await addDataset();
  assert.equal(await catalog.datasets.give(found.id), true);
  assert.equal(await catalog.datasets.withdraw(found.id), false);
  for (const { id } of [added, found]) assert.equal(await catalog.datasets.remove(id), true);
  assert.deepEqual(await server.redis.keys(`${KEY_PREFIX}*`), []);
});

test("records of the same bytes are their own: renamed, found and removed apart", async () => {
  const bytes = randomBytes(500);
  const add = async (identity: string) => {
    const id = newId("dst");
    const ref = await put(bytes, id);
    return (await catalog.datasets.add({ ...dataset(id, ref, identity), content: ref.sha256 })).record;
  };
  const [a, b] = [await add("one"), await add("two")];
  assert.deepEqual(await catalog.datasets.sameContent(a.file.sha256), [a, b]);
  const told = { name: "numbers", metadata: { team: "ocr" } };
  const renamed = { ...b, ...told, identity: "three" };
  assert.deepEqual(await catalog.datasets.rename(b.id, told, "three"), renamed);
  assert.deepEqual(await catalog.datasets.get(b.id), renamed);
  assert.deepEqual(await catalog.datasets.get(a.id), a);
  assert.deepEqual(
    (await catalog.datasets.list({ limit: 10 })).data.map(({ name }) => name),
    ["numbers", "digits"],
  );
  // What it was called is free again, and what it is called now is taken.
  const again = await add("two");
  assert.ok(![a.id, b.id].includes(again.id));
  assert.equal((await add("three")).id, b.id);
  assert.equal(await catalog.datasets.rename(newId("dst"), told, "four"), undefined);
  for (const { id } of [a, b, again]) {
    assert.deepEqual(await storedBlobs(), [a.file.sha256]);
    assert.equal(await catalog.datasets.remove(id), true);
  }
  assert.deepEqual(await storedBlobs(), []);
  assert.deepEqual(await server.redis.keys(`${KEY_PREFIX}*`), []);
});

test("a filter finds what it says wherever it is in the list, page by page", async () => {
  const made: string[] = [];
  for (let i = 0; i < 30; i++) {
    const id = newId("dst");
    const told = { name: i % 3 === 0 ? "third" : "other", metadata: { team: i % 2 === 0 ? "ocr" : "asr" } };
    made.push((await catalog.datasets.add({ ...dataset(id, await put(randomBytes(50), id)), ...told })).record.id);
  }
  const all = async (filter: Parameters<typeof catalog.datasets.list>[0]["filter"], limit = 2) => {
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await catalog.datasets.list({ limit, filter: filter!, ...(cursor !== undefined && { cursor }) });
      assert.ok(page.data.length <= limit);
      seen.push(...page.data.map(({ id }) => id));
      cursor = page.next_cursor ?? undefined;
    } while (cursor !== undefined);
    return seen.toReversed();
  };
  const at = (wanted: (i: number) => boolean) => made.filter((_, i) => wanted(i));
  assert.deepEqual(
    await all({ name: "third" }),
    at((i) => i % 3 === 0),
  );
  assert.deepEqual(
    await all({ name: "third", metadata: { team: "ocr" } }),
    at((i) => i % 6 === 0),
  );
  assert.deepEqual(await all({ metadata: { team: "tts" } }), []);
  const records = await Promise.all(made.map((id) => catalog.datasets.get(id)));
  assert.deepEqual(await all({ sha256: records[7]!.file.sha256 }), [made[7]]);
  const middle = records[14]!.created_at;
  const later = records.filter((record) => record!.created_at > middle).map((record) => record!.id);
  assert.deepEqual(await all({ created_after: middle }), later);
  const earlier = records.filter((record) => record!.created_at < middle).map((record) => record!.id);
  assert.deepEqual(await all({ created_before: middle }, 100), earlier);
});

test("a blob that two owners claim lives until both have let go", async () => {
  const bytes = randomBytes(500);
  await put(bytes, "mdl_a");
  await put(bytes, "job_b");
  await claims.release("mdl_a");
  assert.equal((await storedBlobs()).length, 1);
  await claims.release("job_b");
  assert.deepEqual(await storedBlobs(), []);
  await claims.release("job_b");
});

test("a put that runs beside the last release never ends without its bytes", async () => {
  const slow: BlobStore = { ...blobs, delete: (ref) => sleep(30).then(() => blobs.delete(ref)) };
  claims = createBlobClaims(server.redis, slow);
  const bytes = randomBytes(500);
  for (const delayMs of [0, 5, 10, 20, 28, 30, 32, 40]) {
    const ref = await put(bytes, "mdl_old");
    const [again] = await Promise.all([sleep(delayMs).then(() => put(bytes, "mdl_new")), claims.release("mdl_old")]);
    assert.deepEqual(again, ref);
    assert.deepEqual(await bytesOf(await blobs.get(ref)), bytes);
    await claims.release("mdl_new");
    assert.deepEqual(await storedBlobs(), []);
  }
});

test("the sweep releases what a killed process left, and nothing that was settled", async () => {
  await put(randomBytes(500), "mdl_killed");
  const kept = await addDataset();
  await put(randomBytes(500), "mdl_running");
  await server.redis.zadd(`${KEY_PREFIX}:claims:unsettled`, Date.now() - 25 * 3600 * 1000, "mdl_killed");
  await claims.sweep();
  const stored = await storedBlobs();
  assert.equal(stored.length, 2);
  assert.ok(stored.includes(kept.file.sha256));
});

test("a blob that could not be deleted is deleted by the next sweep", async () => {
  const ref = await put(randomBytes(500), "mdl_a");
  const offline = { ...blobs, delete: () => Promise.reject(new Error("offline")) };
  // The owner has let go all the same; what is left to do is the sweep's, which says so while it cannot.
  await createBlobClaims(server.redis, offline).release("mdl_a");
  await assert.rejects(createBlobClaims(server.redis, offline).sweep(), /offline/);
  assert.deepEqual(await storedBlobs(), [ref.sha256]);
  await claims.sweep();
  assert.deepEqual(await storedBlobs(), []);
  assert.deepEqual(await server.redis.keys(`${KEY_PREFIX}*`), []);
});

test("what was never settled is swept after a day, by the clock of Redis; what is settled is not", async () => {
  const forgotten = await put(randomBytes(500), "mdl_forgotten");
  const fresh = await put(randomBytes(500), "mdl_fresh");
  const record = await addDataset();
  // Whoever sweeps, 25 h ahead of everybody.
  const realNow = Date.now;
  Date.now = () => realNow() + 25 * 60 * 60 * 1000;
  try {
    await claims.sweep();
  } finally {
    Date.now = realNow;
  }
  assert.deepEqual((await storedBlobs()).sort(), [forgotten, fresh, record.file].map(({ sha256 }) => sha256).sort());
  await server.redis.zincrby(`${KEY_PREFIX}:claims:unsettled`, -25 * 60 * 60 * 1000, "mdl_forgotten");
  await claims.sweep();
  assert.deepEqual((await storedBlobs()).sort(), [fresh, record.file].map(({ sha256 }) => sha256).sort());
});

test("who was swept before its record was written hears of it, and there is no record without bytes", async () => {
  const id = newId("dst");
  const ref = await put(randomBytes(500), id);
  await claims.release(id);
  await assert.rejects(catalog.datasets.add(dataset(id, ref)), { code: "unavailable", message: /send them again/ });
  assert.equal(await catalog.datasets.get(id), undefined);
  await assert.rejects(claims.settle(id), { code: "unavailable" });
});

test("a record whose answer was lost keeps its bytes: asked again it is there, and to abandon it does nothing", async () => {
  const id = newId("dst");
  const record = dataset(id, await put(randomBytes(500), id));
  await catalog.datasets.add(record);
  assert.deepEqual(await catalog.datasets.add(record), { record, created: true });
  await claims.abandon(id);
  assert.deepEqual(await storedBlobs(), [record.file.sha256]);
});
