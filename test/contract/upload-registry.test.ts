import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { KEY_PREFIX } from "../../src/service/redis.ts";
import { createUploadRegistry } from "../../src/service/upload-registry.ts";
import { startTestRedis, type TestRedis } from "../support/redis.ts";

let server: TestRedis;
before(async () => {
  server = await startTestRedis();
});
after(() => server.close());
beforeEach(() => server.redis.flushdb());

const open = () =>
  createUploadRegistry(server.redis, {
    uploadExpiryMs: 60_000,
    maxOpenUploadsPerKey: 2,
    maxOpenUploadBytesPerKey: 100,
  });

test("expiry counts from the last use, and forgotten uploads leave nothing", async () => {
  const uploads = open();
  await uploads.open("upl_a", "me", 0);
  const makeOld = () => server.redis.zadd(`${KEY_PREFIX}:uploads:times`, 1, "upl_a");
  assert.deepEqual(await uploads.expired(), []);
  await makeOld();
  assert.deepEqual(await uploads.expired(), ["upl_a"]);
  assert.equal(await uploads.use("upl_a", "somebody else"), false);
  assert.deepEqual(await uploads.expired(), ["upl_a"]);
  assert.equal(await uploads.use("upl_a", "me"), true);
  assert.deepEqual(await uploads.expired(), []);
  await uploads.forget("upl_a");
  assert.equal(await uploads.use("upl_a", "me"), false);
  assert.deepEqual(await server.redis.keys(`${KEY_PREFIX}*`), []);
});

test("of those who want an upload one has it at a time, whichever process they are in", async () => {
  let holders = 0;
  const [a, b] = [open(), open()];
  const work = async () => {
    assert.equal(++holders, 1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    holders--;
  };
  await Promise.all([a, b, a, b].map((it) => it.withLock("upl_a", { waitMs: 60_000 }, work)));
  await assert.rejects(
    a.withLock("upl_a", { waitMs: 0 }, async () => assert.fail("why")),
    /why/,
  );
  await a.withLock("upl_a", { waitMs: 0 }, async () => {
    await assert.rejects(b.withLock("upl_a", { waitMs: 0 }, work), { code: "conflict" });
    const gone = AbortSignal.abort(new Error("gone"));
    await assert.rejects(b.withLock("upl_a", { waitMs: 60_000, signal: gone }, work), /gone/);
  });
});

test("a writer is asked to let go by one who would let go as well", async () => {
  const [a, b] = [open(), open()];
  const asked = Promise.withResolvers<void>();
  const held = a.withLock("upl_a", { waitMs: 0, onWanted: asked.resolve }, () => asked.promise);
  await b.withLock("upl_a", { waitMs: 60_000, onWanted: () => {} }, async () => {});
  await held;
});
