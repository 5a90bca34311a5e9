import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createRedisJobStore } from "../../src/service/jobs/redis-job-store.ts";
import { KEY_PREFIX } from "../../src/service/redis.ts";
import { emptyMetrics, queuedJob } from "../support/jobs.ts";
import { createMemoryTexts } from "../support/long-texts.ts";
import { startTestRedis } from "../support/redis.ts";
import { testJobStore } from "./job-store.ts";

const server = await startTestRedis();
const opened: { close(): void }[] = [];
after(async () => {
  for (const store of opened) store.close();
  await server.close();
});

testJobStore("redis", async () => {
  await server.redis.flushdb();
  const store = createRedisJobStore(server.redis, createMemoryTexts());
  opened.push(store);
  return store;
});

test("what is long of a job is kept apart as long as the job, and is not in lists", async () => {
  await server.redis.flushdb();
  const texts = createMemoryTexts();
  const store = createRedisJobStore(server.redis, texts);
  opened.push(store);
  const exclude_nodes = Array.from({ length: 10_000 }, (_, i) => `/model/layers.${i}/attention/MatMul`);
  const job = queuedJob({ exclude_nodes });
  await store.create(job);
  assert.deepEqual(await store.get(job.id), job);
  assert.ok((await server.redis.memory("USAGE", `${KEY_PREFIX}:job:${job.id}`))! < 10_000);
  const warnings = Array.from({ length: 1000 }, () => ({
    ...{ code: "unused_fields" as const, message: "m".repeat(100), value: 1 },
  }));
  const metrics = { ...emptyMetrics(), warnings };
  const result = { model_id: "mdl_b", accepted: true, artifacts: [], metrics, steps: null };
  await store.transition(job.id, ["queued"], "running", { attempt: 1 });
  const done = await store.transition(job.id, ["running"], "succeeded", { result });
  assert.deepEqual(done?.result, result);
  assert.ok((await server.redis.memory("USAGE", `${KEY_PREFIX}:job:${job.id}`))! < 10_000);
  const [summary] = (await store.list({}, { limit: 10 })).data;
  assert.ok(JSON.stringify(summary).length < 1_000);
  assert.deepEqual(summary!.result, { model_id: "mdl_b", accepted: true });
  assert.equal(summary!.method, "float16");
  // Records of versions that did not keep what lists tell.
  await server.redis.hdel(`${KEY_PREFIX}:job:${job.id}`, "_method", "_result");
  assert.deepEqual((await store.list({}, { limit: 10 })).data, [summary]);
  await store.delete(job.id);
  assert.equal(texts.kept.size, 0);
});

test("many wait for one job by one subscription, and one look for each thing that happens to it", async (t) => {
  await server.redis.flushdb();
  const store = createRedisJobStore(server.redis, createMemoryTexts());
  opened.push(store);
  const [waited, other, deleted] = [queuedJob(), queuedJob(), queuedJob()];
  for (const job of [waited, other, deleted]) await store.create(job);
  const never = new AbortController().signal;
  const subscribers = async () => Number((await server.redis.pubsub("NUMSUB", `${KEY_PREFIX}:events`))[1]);
  const earlier = await subscribers();
  const looks = t.mock.method(server.redis, "hget").mock;
  const ended = new Set<number>();
  const all = Array.from({ length: 200 }, (_, i) => store.ended(waited.id, never).then(() => ended.add(i)));
  const given = new AbortController();
  const others = [store.ended(other.id, given.signal), store.ended(deleted.id, never)];
  await store.transition(waited.id, ["queued"], "running", { attempt: 1 });
  for (let i = 0; i < 50; i++) await store.appendEvent(waited.id, "log", { message: String(i) });
  assert.equal(ended.size, 0);
  await store.transition(waited.id, ["running"], "succeeded", {});
  await Promise.all(all);
  assert.equal(ended.size, 200);
  // Asked one by one they would have looked 10,000 times.
  assert.ok(looks.callCount() <= 60, `${looks.callCount()} looks`);
  assert.equal((await subscribers()) - earlier, 1);
  // The others are done when their wait is over, and when there is nothing to wait for any more.
  given.abort();
  await store.transition(deleted.id, ["queued"], "cancelled");
  await store.delete(deleted.id);
  await Promise.all(others);
  for (const id of [waited.id, deleted.id, "job_unknown"]) await store.ended(id, never);
});

test("pages of jobs and of events have a bound in bytes", async () => {
  await server.redis.flushdb();
  const store = createRedisJobStore(server.redis, createMemoryTexts());
  opened.push(store);
  const metadata = Object.fromEntries(Array.from({ length: 16 }, (_, i) => [`key ${i}`, "ä".repeat(512)]));
  const made: string[] = [];
  for (let i = 0; i < 40; i++) made.push((await store.create(queuedJob({ metadata }))).job.id);
  const seen: string[] = [];
  let cursor: string | null = null;
  do {
    const page = await store.list({}, { limit: 100, ...(cursor !== null && { cursor }) });
    assert.ok(Buffer.byteLength(JSON.stringify(page.data)) < 300_000);
    seen.push(...page.data.map(({ id }) => id));
    cursor = page.next_cursor;
  } while (cursor !== null);
  assert.deepEqual(seen.sort(), made.sort());
  const [id] = made as [string];
  for (let i = 0; i < 30; i++) await store.appendEvent(id, "log", { message: "m".repeat(50_000) });
  const first = await store.events(id, 0, 1000);
  assert.ok(first.more && first.data.length < 10);
  const followed: number[] = [];
  await store.transition(id, ["queued"], "cancelled");
  for await (const event of store.follow(id, 0, new AbortController().signal)) followed.push(event.id);
  assert.deepEqual(
    followed,
    Array.from({ length: 32 }, (_, i) => i + 1),
  );
});
