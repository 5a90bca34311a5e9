import assert from "node:assert/strict";
import { statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { memorySource } from "../../src/core/data/byte-source.ts";
import { readImages } from "../../src/core/data/images.ts";
import type { ImagesSpec } from "../../src/core/data/spec.ts";
import { checkDiskSpace, openScratch } from "../../workers/byte-source.ts";
import { writeZip } from "../support/dataset-writers.ts";

test("the disk is asked before samples are decoded: too much for ever, and too much for now, are told apart", async () => {
  const { bsize, blocks, bavail } = statfsSync(tmpdir());
  const [whole, free] = [blocks * bsize, bavail * bsize];
  checkDiskSpace(tmpdir(), 1);
  assert.throws(() => checkDiskSpace(tmpdir(), whole), { code: "limit_exceeded" });
  const between = Math.floor((whole + free) / 2) - 300 * 1024 * 1024;
  if (between > free) assert.throws(() => checkDiskSpace(tmpdir(), between), { code: "ENOSPC" });
  const scratch = openScratch();
  assert.throws(() => scratch.reserve(whole), { code: "limit_exceeded" });
  scratch.write(0, new Uint8Array([1, 2, 3]));
  assert.deepEqual([...scratch.read(0, 3)], [1, 2, 3]);
});

test("images are not decoded when their samples find no room", async () => {
  let decoded = 0;
  const decoder = {
    decode: async () => {
      decoded++;
      throw new Error("was decoded");
    },
    check: async () => {},
  };
  const archive = memorySource(writeZip(["a.png", "b.png"].map((name) => ({ name, data: new Uint8Array(10) }))));
  const spec: ImagesSpec = {
    ...{ kind: "images", input: "x", size: [4096, 4096], layout: "NCHW", color: "rgb", resize: "stretch" },
    dtype: "uint8",
  };
  const asked: number[] = [];
  const full = () => ({
    ...openScratch(),
    reserve(bytes: number) {
      asked.push(bytes);
      throw Object.assign(new Error("full"), { code: "ENOSPC" });
    },
  });
  const { prepare } = await readImages(archive, spec, { decoder, openScratch: full, verify: false });
  await assert.rejects(prepare!([0, 1]), { code: "ENOSPC" });
  assert.deepEqual([asked, decoded], [[2 * 3 * 4096 * 4096], 0]);
});
