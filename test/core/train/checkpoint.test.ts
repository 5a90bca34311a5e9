import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import { decodeCheckpoint, encodeCheckpoint } from "../../../src/core/train/checkpoint.ts";

const checkpoint = {
  state: { epoch: 3, history: [{ loss: 0.1 }], name: "größer" },
  arrays: { "parameter/w": Float32Array.of(1, -2.5, Number.NaN), "slot0/w": Float32Array.of(), b: Float32Array.of(7) },
};

test("what was encoded is decoded, wherever the bytes lie", () => {
  const bytes = encodeCheckpoint(checkpoint);
  assert.deepEqual(decodeCheckpoint(bytes), checkpoint);
  // As a file is read: a view into a larger pool, at an odd address.
  const pool = Buffer.alloc(bytes.byteLength + 9);
  pool.set(bytes, 5);
  const read = decodeCheckpoint(pool.subarray(5, 5 + bytes.byteLength));
  assert.deepEqual(read, checkpoint);
  pool.fill(0);
  assert.deepEqual(read, checkpoint);
});

test("bytes that are no checkpoint are refused", () => {
  const bytes = encodeCheckpoint(checkpoint);
  for (const broken of [
    bytes.subarray(0, 4),
    bytes.subarray(0, bytes.byteLength - 1),
    bytes.subarray(1),
    new Uint8Array(64),
  ]) {
    assert.throws(() => decodeCheckpoint(broken), { code: "invalid_params" });
  }
});
