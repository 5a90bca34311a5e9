import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { createS3BlobStore } from "../../src/service/blobs/s3.ts";
import { ServiceError } from "../../src/service/errors.ts";
import { S3_CREDENTIALS, startS3Server } from "../support/s3-server.ts";
import { chunksOf, describeBlobStore } from "./blob-store.ts";

async function openStore() {
  const server = await startS3Server();
  const incoming = await mkdtemp(join(tmpdir(), "s3-incoming-"));
  const { bucket, endpoint } = server;
  const store = await createS3BlobStore({
    bucket,
    endpoint,
    region: "us-east-1",
    incoming,
    credentials: S3_CREDENTIALS,
  });
  return {
    server,
    incoming,
    store,
    contents: async () => [...(await readdir(incoming)), ...server.objects.keys(), ...server.openUploads.keys()],
    close: async () => {
      await server.close();
      await rm(incoming, { recursive: true });
    },
  };
}

describeBlobStore("S3", openStore);

test("large blobs go up in parts, and bytes that are there already are not sent again", async (t) => {
  const { server, store, close } = await openStore();
  t.after(close);
  const bytes = randomBytes(11 * 1024 * 1024);
  const ref = await store.put(chunksOf(bytes, 64 * 1024), { maxBytes: bytes.length });
  assert.equal(server.seen.get("PUT ?uploadId"), 3);
  assert.deepEqual(await store.put(chunksOf(bytes, 64 * 1024), { maxBytes: bytes.length }), ref);
  assert.equal(server.seen.get("PUT ?uploadId"), 3);
});

test("damaged bytes are noticed when they are materialized", async (t) => {
  const { server, store, close } = await openStore();
  t.after(close);
  const ref = await store.put(chunksOf(Buffer.from("weights"), 3), { maxBytes: 100 });
  (server.objects as Map<string, Buffer>).set(`blobs/${ref.sha256}`, Buffer.from("WEIGHTS"));
  const directory = await mkdtemp(join(tmpdir(), "s3-"));
  t.after(() => rm(directory, { recursive: true }));
  await assert.rejects(store.materialize(ref, join(directory, "model")), /damaged/);
  assert.deepEqual(await readdir(directory), []);
});

test("a proxy that answers instead of the object store is no bug either", async (t) => {
  const { server, store, close } = await openStore();
  t.after(close);
  const ref = await store.put(chunksOf(Buffer.from("weights"), 3), { maxBytes: 100 });
  server.refusals.set(`blobs/${ref.sha256}`, { status: 502 });
  await assert.rejects(
    store.get(ref),
    (error: unknown) => error instanceof ServiceError && error.code === "unavailable",
  );
});

test("an object store that is gone is unavailable, not a bug", async (t) => {
  const incoming = await mkdtemp(join(tmpdir(), "s3-incoming-"));
  t.after(() => rm(incoming, { recursive: true }));
  await writeFile(join(incoming, "other"), "a running upload of another process");
  const server = await startS3Server();
  const { bucket, endpoint } = server;
  await server.close();
  const store = await createS3BlobStore({
    bucket,
    endpoint,
    region: "us-east-1",
    incoming,
    credentials: S3_CREDENTIALS,
  });
  const isUnavailable = (error: unknown) => error instanceof ServiceError && error.code === "unavailable";
  await assert.rejects(store.check(), isUnavailable);
  await assert.rejects(store.put(chunksOf(Buffer.from("weights"), 3), { maxBytes: 100 }), isUnavailable);
  assert.deepEqual(await readdir(incoming), ["other"]);
});
