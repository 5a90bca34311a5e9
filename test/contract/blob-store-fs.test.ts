import assert from "node:assert/strict";
import { chmod, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { createFileBlobStore } from "../../src/service/blobs/fs.ts";
import { chunksOf, describeBlobStore } from "./blob-store.ts";

/** Every file below `directory`. */
async function filesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

describeBlobStore("files", async () => {
  const directory = await mkdtemp(join(tmpdir(), "blobs-"));
  return {
    store: await createFileBlobStore(directory),
    contents: () => filesBelow(directory),
    close: () => rm(directory, { recursive: true }),
  };
});

test("blobs cannot be written to by accident", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "blobs-"));
  t.after(() => rm(directory, { recursive: true }));
  const store = await createFileBlobStore(directory);
  await store.put(chunksOf(Buffer.from("weights"), 3), { maxBytes: 100 });
  const [path] = await filesBelow(directory);
  assert.equal((await stat(path!)).mode & 0o777, 0o444);
});

test("what is materialized is a copy: whoever writes to it does not reach the store", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "blobs-"));
  t.after(() => rm(directory, { recursive: true }));
  const store = await createFileBlobStore(directory);
  const ref = await store.put(chunksOf(Buffer.from("weights"), 3), { maxBytes: 100 });
  const copy = join(directory, "copy");
  await store.materialize(ref, copy);
  await chmod(copy, 0o644);
  await writeFile(copy, "other bytes");
  assert.equal(Buffer.concat(await Array.fromAsync(await store.get(ref))).toString(), "weights");
});

test("a full disk is said to be one", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "blobs-"));
  t.after(() => rm(directory, { recursive: true }));
  const store = await createFileBlobStore(directory);
  const full = async function* () {
    yield Buffer.from("weights");
    throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
  };
  await assert.rejects(store.put(full(), { maxBytes: 100 }), { name: "ServiceError", code: "unavailable" });
  assert.deepEqual(await filesBelow(directory), []);
});
