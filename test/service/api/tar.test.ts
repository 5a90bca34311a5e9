import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { test } from "node:test";
import fc from "fast-check";
import { extract } from "tar-stream";
import { tarDownload } from "../../../src/service/api/tar.ts";
import type { BlobStore } from "../../../src/service/blobs/blob-store.ts";

/** A store of the given contents, and the files that name them. */
function filesOf(contents: Readonly<Record<string, Uint8Array>>) {
  const bySha = new Map<string, Uint8Array>();
  const files = Object.entries(contents).map(([name, bytes]) => {
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    bySha.set(sha256, bytes);
    return { name, sha256, size_bytes: bytes.length };
  });
  const blobs = {
    get: async ({ sha256 }, range) =>
      Readable.from([Buffer.from(bySha.get(sha256)!).subarray(range?.start, range?.end)]),
  } as Pick<BlobStore, "get"> as BlobStore;
  return { files, blobs };
}

async function bytesOf(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return Buffer.concat(parts);
}

async function untar(archive: Buffer): Promise<Record<string, Buffer>> {
  const contents: Record<string, Buffer> = {};
  const reader = extract();
  Readable.from([archive]).pipe(reader);
  for await (const entry of reader) contents[entry.header.name] = await bytesOf(entry as AsyncIterable<Uint8Array>);
  return contents;
}

const contents = {
  "model.onnx": Buffer.from("graph"),
  "weights.bin": Buffer.alloc(1500, "w"),
  empty: Buffer.alloc(0),
  "exactly-one-block": Buffer.alloc(512, "b"),
  [`${"long-".repeat(40)}name`]: Buffer.from("behind a long name"),
  "gewichte-äöü": Buffer.from("utf-8"),
};

test("another program reads the archive", async () => {
  const { files, blobs } = filesOf(contents);
  const { size_bytes, read } = tarDownload(blobs, files, "model.tar");
  const archive = await bytesOf(await read({ start: 0, end: size_bytes }));
  assert.equal(archive.length, size_bytes);
  assert.equal(archive.length % 512, 0);
  const found = await untar(archive);
  assert.deepEqual(Object.keys(found).sort(), Object.keys(contents).sort());
  for (const [name, bytes] of Object.entries(contents)) assert.deepEqual(found[name], bytes, name);
});

test("its tag is that of the files, and of another name or content another one", () => {
  const tagOf = (of: Readonly<Record<string, Uint8Array>>) => {
    const { files, blobs } = filesOf(of);
    return tarDownload(blobs, files, "model.tar").tag;
  };
  const [a, b] = ["a", "b"].map((text) => Buffer.from(text));
  assert.equal(tagOf({ x: a!, y: b! }), tagOf({ x: a!, y: b! }));
  assert.equal(new Set([{ x: a!, y: b! }, { x: b!, y: a! }, { x: a!, z: b! }, { x: a! }].map(tagOf)).size, 4);
});

test("any range of it is that part of the whole", async () => {
  const { files, blobs } = filesOf(contents);
  const { size_bytes, read } = tarDownload(blobs, files, "model.tar");
  const whole = await bytesOf(await read({ start: 0, end: size_bytes }));
  await fc.assert(
    fc.asyncProperty(fc.nat(size_bytes), fc.nat(size_bytes), async (a, b) => {
      const [start, end] = [Math.min(a, b), Math.max(a, b)];
      assert.deepEqual(await bytesOf(await read({ start, end })), whole.subarray(start, end));
    }),
  );
});

test("sizes past the octal field are in base 256, as GNU tar has them", async () => {
  const file = { name: "weights", sha256: "0".repeat(64), size_bytes: 20 * 1024 ** 3 };
  const { read } = tarDownload({} as BlobStore, [file], "model.tar");
  const header = await bytesOf(await read({ start: 0, end: 512 }));
  const reader = extract();
  const found = new Promise<number | undefined>((resolve) => reader.on("entry", ({ size }) => resolve(size)));
  reader.write(header);
  assert.equal(await found, file.size_bytes);
  reader.destroy();
});
