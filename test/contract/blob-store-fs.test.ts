import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { createFileBlobStore, type Scratch, withScratch } from "../../src/service/blobs/fs.ts";
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

test("a start removes what a killed process left, and leaves a running upload alone", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "blobs-"));
  t.after(() => rm(directory, { recursive: true }));
  const incoming = join(directory, "incoming");
  await mkdir(incoming);
  await writeFile(join(incoming, "left"), "half an upload");
  await writeFile(join(incoming, "running"), "another process writes this");
  const yesterday = new Date(Date.now() - 24 * 3600 * 1000);
  await utimes(join(incoming, "left"), yesterday, yesterday);
  await createFileBlobStore(directory);
  assert.deepEqual(await readdir(incoming), ["running"]);
});

test("blobs cannot be written to by accident", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "blobs-"));
  t.after(() => rm(directory, { recursive: true }));
  const store = await createFileBlobStore(directory);
  await store.put(chunksOf(Buffer.from("weights"), 3), { maxBytes: 100 });
  const [path] = await filesBelow(directory);
  assert.equal((await stat(path!)).mode & 0o777, 0o444);
});

test("a scratch directory is gone afterwards, also when its user fails", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "scratch-"));
  t.after(() => rm(root, { recursive: true }));
  const fill = async (scratch: Scratch) => writeFile(join(await scratch.folder("model"), "model.onnx"), "x");
  await withScratch(root, async (scratch) => {
    await fill(scratch);
    assert.equal((await filesBelow(root)).length, 1);
  });
  await assert.rejects(
    withScratch(root, async (scratch) => {
      await fill(scratch);
      throw new Error("failed");
    }),
    /failed/,
  );
  assert.deepEqual(await readdir(root), []);
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
