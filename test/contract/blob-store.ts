import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Arrival, BlobRef, BlobStore } from "../../src/service/blobs/blob-store.ts";
import { ServiceError } from "../../src/service/errors.ts";

/** A store under test, and a way to see everything it keeps: one line per file or object, temporary ones too. */
export interface StoreUnderTest {
  readonly store: BlobStore;
  readonly contents: () => Promise<readonly string[]>;
  readonly close: () => Promise<void>;
}

const LIMIT = { maxBytes: 64 * 1024 * 1024 };

/** What every BlobStore must do. */
export function describeBlobStore(name: string, create: () => Promise<StoreUnderTest>): void {
  describe(`BlobStore contract: ${name}`, () => {
    let subject: StoreUnderTest;
    let store: BlobStore;
    let scratch: string;
    before(async () => {
      subject = await create();
      store = subject.store;
      scratch = await mkdtemp(join(tmpdir(), "blob-contract-"));
    });
    after(async () => {
      await subject.close();
      await rm(scratch, { recursive: true });
    });

    const isCode = (code: string) => (error: unknown) => error instanceof ServiceError && error.code === code;
    const absent: BlobRef = { sha256: "0".repeat(64), size_bytes: 1 };

    test("what was put comes back under its sha256, in whole and in part", async () => {
      const bytes = randomBytes(3_000_001);
      const ref = await store.put(chunksOf(bytes, 70_001), LIMIT);
      assert.equal(ref.sha256, createHash("sha256").update(bytes).digest("hex"));
      assert.equal(ref.size_bytes, bytes.length);
      assert.deepEqual(await bytesOf(await store.get(ref)), bytes);
      for (const [start, end] of [
        [0, 1],
        [999_999, 2_000_000],
        [bytes.length - 1, bytes.length],
        [5, 5],
      ] as const) {
        assert.deepEqual(await bytesOf(await store.get(ref, { start, end })), bytes.subarray(start, end));
      }
      await store.delete(ref);
    });

    test("an empty blob and one of many parts", async () => {
      const empty = await store.put(chunksOf(Buffer.alloc(0), 1), LIMIT);
      assert.equal(empty.size_bytes, 0);
      assert.equal((await bytesOf(await store.get(empty))).length, 0);
      const big = Buffer.alloc(22 * 1024 * 1024, "many parts ");
      const ref = await store.put(chunksOf(big, 64 * 1024), LIMIT);
      assert.ok((await bytesOf(await store.get(ref))).equals(big));
      await store.delete(empty);
      await store.delete(ref);
    });

    test("the same bytes are kept once, also when they come twice at the same time", async () => {
      const bytes = randomBytes(100_000);
      const [first, second] = await Promise.all([
        store.put(chunksOf(bytes, 999), LIMIT),
        store.put(chunksOf(bytes, 1234), LIMIT),
      ]);
      assert.deepEqual(first, second);
      assert.equal((await subject.contents()).length, 1);
      await store.delete(first);
      assert.deepEqual(await subject.contents(), []);
      await store.delete(first);
    });

    test("what has arrived can be copied when it is claimed, before it is stored and after", async () => {
      const bytes = randomBytes(2_000_001);
      const told: string[] = [];
      const path = join(scratch, "arrived");
      let copied: Promise<void> | undefined;
      let arrival: Arrival | undefined;
      const ref = await store.put(chunksOf(bytes, 70_001), {
        ...LIMIT,
        claim: async () => void told.push("claimed"),
        arrived(it) {
          told.push("arrived");
          arrival = it;
          copied = it.copyTo(path);
        },
      });
      await copied;
      assert.deepEqual(told, ["claimed", "arrived"]);
      assert.deepEqual(arrival!.ref, ref);
      assert.deepEqual(await readFile(path), bytes);
      const later = join(scratch, "arrived-later");
      await arrival!.copyTo(later);
      assert.deepEqual(await readFile(later), bytes);
      await store.delete(ref);
      await assert.rejects(arrival!.copyTo(join(scratch, "arrived-and-gone")), isCode("not_found"));
    });

    test("bytes that are not wanted do not arrive", async () => {
      const arrived = () => assert.fail("arrived");
      const claim = async () => Promise.reject(new Error("not claimed"));
      await assert.rejects(store.put(chunksOf(randomBytes(1000), 100), { ...LIMIT, claim, arrived }), /not claimed/);
      await assert.rejects(
        store.put(chunksOf(randomBytes(1000), 100), { maxBytes: 999, arrived }),
        isCode("too_large"),
      );
      assert.deepEqual(await subject.contents(), []);
    });

    test("a missing blob is not_found before the first byte", async () => {
      await assert.rejects(store.get(absent), isCode("not_found"));
      await assert.rejects(store.materialize(absent, join(scratch, "absent")), isCode("not_found"));
    });

    test("materialize gives a file with the same bytes, which outlives the blob", async () => {
      const bytes = randomBytes(50_000);
      const ref = await store.put(chunksOf(bytes, 10_000), LIMIT);
      const path = join(scratch, "model.onnx");
      await store.materialize(ref, path);
      await store.delete(ref);
      assert.deepEqual(await readFile(path), bytes);
    });

    test("past maxBytes it is too_large, and nothing stays", async () => {
      await assert.rejects(store.put(chunksOf(randomBytes(2000), 100), { maxBytes: 1999 }), isCode("too_large"));
      const exact = await store.put(chunksOf(randomBytes(2000), 100), { maxBytes: 2000 });
      await store.delete(exact);
      assert.deepEqual(await subject.contents(), []);
    });

    test("a source that breaks rejects the put with its own error, and nothing stays", async () => {
      const broken = async function* () {
        yield randomBytes(10_000);
        throw new Error("the client went away");
      };
      await assert.rejects(store.put(broken(), LIMIT), /the client went away/);
      assert.deepEqual(await subject.contents(), []);
    });

    test("an abort ends a put that waits for bytes, and nothing stays", async () => {
      const aborter = new AbortController();
      const stuck = async function* () {
        yield randomBytes(10_000);
        setImmediate(() => aborter.abort());
        await new Promise((_, reject) => aborter.signal.addEventListener("abort", () => reject(aborter.signal.reason)));
      };
      await assert.rejects(store.put(stuck(), { ...LIMIT, signal: aborter.signal }), { name: "AbortError" });
      assert.deepEqual(await subject.contents(), []);
    });

    test("the claim comes before the blob is visible, and a refused claim leaves nothing", async () => {
      const bytes = randomBytes(1000);
      let claimed: BlobRef | undefined;
      const ref = await store.put(chunksOf(bytes, 100), {
        ...LIMIT,
        claim: async (early) => {
          claimed = early;
          await assert.rejects(store.get(early), isCode("not_found"));
        },
      });
      assert.deepEqual(claimed, ref);
      await store.delete(ref);
      const refuse = () => Promise.reject(new Error("no claim"));
      await assert.rejects(store.put(chunksOf(bytes, 100), { ...LIMIT, claim: refuse }), /no claim/);
      assert.deepEqual(await subject.contents(), []);
    });

    test("check resolves and leaves nothing", async () => {
      await store.check();
      assert.deepEqual(await subject.contents(), []);
    });
  });
}

export async function* chunksOf(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size) yield bytes.subarray(start, start + size);
}

export async function bytesOf(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return Buffer.concat(parts);
}
