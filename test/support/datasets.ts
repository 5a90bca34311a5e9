import assert from "node:assert/strict";
import { memorySource } from "../../src/core/data/byte-source.ts";
import { type Batch, type BatchOptions, type Dataset, openDataset } from "../../src/core/data/dataset.ts";
import { CoreError, type CoreErrorCode } from "../../src/core/errors.ts";
import { type Tensor, tensorOf } from "../../src/core/onnx/tensor.ts";

export const open = (bytes: Uint8Array, input = "x", verify = true) =>
  openDataset(memorySource(bytes), { spec: { kind: "array", input }, verify });

export async function batchesOf(dataset: Dataset, options: Partial<BatchOptions> = {}): Promise<Batch[]> {
  return Array.fromAsync(dataset.batches({ batchSize: dataset.facts.samples, ...options }));
}

export function assertSame(actual: Tensor | undefined, expected: Tensor): void {
  assert.ok(actual);
  assert.equal(actual.dtype, expected.dtype);
  assert.deepEqual(actual.dims, expected.dims);
  assert.deepEqual(Buffer.from(actual.bytes), Buffer.from(expected.bytes));
}

export async function assertRefused(
  opened: Promise<Dataset>,
  code: CoreErrorCode,
  subject: string | undefined,
  message: RegExp,
): Promise<void> {
  await assert.rejects(opened, (error) => {
    assert.ok(error instanceof CoreError, String(error));
    assert.match(error.message, message);
    assert.equal(error.code, code);
    assert.equal(error.subject, subject);
    return true;
  });
}

export const SMALL = tensorOf("float32", [2, 3], [1, 2, 3, 4, 5, 6]);
