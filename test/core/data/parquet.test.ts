import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { brotliCompressSync, gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { memorySource } from "../../../src/core/data/byte-source.ts";
import { openDataset } from "../../../src/core/data/dataset.ts";
import type { RowsSpec, TableDType } from "../../../src/core/data/spec.ts";
import { CoreError } from "../../../src/core/errors.ts";
import { type ArrayDType, arrayOf, type Tensor } from "../../../src/core/onnx/tensor.ts";
import { type ParquetColumn, writeParquet } from "../../support/parquet.ts";

const spec = (
  inputs: Readonly<Record<string, { columns?: string[]; dtype?: TableDType; shape?: number[] }>>,
  labels?: string,
): RowsSpec => ({
  kind: "parquet",
  inputs: Object.fromEntries(
    Object.entries(inputs).map(([name, input]) => [name, { dtype: "float32" as const, ...input }]),
  ),
  labels,
});

const open = (bytes: Uint8Array, of: RowsSpec) => openDataset(memorySource(bytes), { spec: of, verify: true });

async function read(bytes: Uint8Array, of: RowsSpec) {
  const dataset = await open(bytes, of);
  const [batch] = await Array.fromAsync(dataset.batches({ batchSize: dataset.facts.samples }));
  const values = (tensor: Tensor) => [...(arrayOf(tensor, tensor.dtype as ArrayDType) as Iterable<number | bigint>)];
  const named = Object.fromEntries(Object.entries(batch!.feeds).map(([name, tensor]) => [name, values(tensor)]));
  return { facts: dataset.facts, ...named, labels: batch!.labels && values(batch!.labels) } as {
    facts: typeof dataset.facts;
    labels: (number | bigint)[] | undefined;
    [name: string]: unknown;
  };
}

async function refused(bytes: Uint8Array, of: RowsSpec, message: RegExp): Promise<void> {
  await assert.rejects(open(bytes, of), (error) => {
    assert.ok(error instanceof CoreError, String(error));
    assert.match(error.message, message);
    assert.ok(["invalid_dataset", "limit_exceeded"].includes(error.code), error.code);
    return true;
  });
}

describe(".parquet", () => {
  it("gives the columns of each input, in the order asked for, and the labels, from all row groups", async () => {
    const file = writeParquet(
      {
        a: { data: [1.5, 2.5, -3, 4, 5], type: "DOUBLE" },
        ids: { data: [1n, 2n ** 62n, 3n, 4n, -5n].map((id) => [id, 7n]), type: "INT64", lists: 1 },
        unused: { data: Array(5).fill(new Date(0)), type: "TIMESTAMP" },
        b: { data: [0, 1, 2, 3, 4], type: "INT32" },
        mask: { data: [true, false, true, true, false], type: "BOOLEAN" },
        mood: { data: ["sad", "glad", "sad", "sad", "glad"], type: "STRING" },
      },
      { rowGroupSize: 2 },
    );
    const of = spec(
      {
        x: { columns: ["b", "a"] },
        ids: { columns: ["ids"], dtype: "int64" },
        mask: { columns: ["mask"], dtype: "bool", shape: [] },
      },
      "mood",
    );
    const { facts, x, ids, mask, labels } = await read(file, of);
    assert.equal(facts.samples, 5);
    assert.deepEqual(
      facts.fields.map(({ name, shape }) => [name, shape]),
      [
        ["x", [2]],
        ["ids", [2]],
        ["mask", []],
      ],
    );
    assert.deepEqual(x, [0, 1.5, 1, 2.5, 2, -3, 3, 4, 4, 5]);
    assert.deepEqual(ids, [1n, 7n, 2n ** 62n, 7n, 3n, 7n, 4n, 7n, -5n, 7n]);
    assert.deepEqual(mask, [1, 0, 1, 1, 0]);
    assert.deepEqual(
      [facts.classes, labels],
      [
        ["glad", "sad"],
        [1n, 0n, 1n, 1n, 0n],
      ],
    );
  });

  it("gives nested lists in their shape, whatever the pages, the row groups and the compression", async () => {
    const codecs = ["UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD", "BROTLI"] as const;
    const compressors = { GZIP: gzipSync, ZSTD: zstdCompressSync, BROTLI: brotliCompressSync };
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...codecs),
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 8, max: 400 }),
        fc.array(fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: 6, maxLength: 6 }), {
          minLength: 1,
          maxLength: 20,
        }),
        async (codec, rowGroupSize, pageSize, rows) => {
          const data = rows.map((row) => [row.slice(0, 3), row.slice(3)]);
          const file = writeParquet(
            { x: { data, type: "FLOAT", lists: 2 } },
            { codec, compressors, rowGroupSize, pageSize },
          );
          const { facts, x } = await read(file, spec({ x: {} }));
          assert.deepEqual(facts.fields[0]!.shape, [2, 3]);
          assert.deepEqual(x, rows.flat());
        },
      ),
      { numRuns: 60 },
    );
  });

  it("names the row and the column of what is no number", async () => {
    const one = (data: readonly unknown[], type: ParquetColumn["type"], lists = 0) =>
      writeParquet({ v: { data, type, lists } }, { rowGroupSize: 2 });
    const x = spec({ x: {} });
    await refused(one([1, 2, null], "FLOAT"), x, /^Row 3, column "v" is empty\.$/);
    await refused(one([1, NaN], "FLOAT"), x, /^Row 2, column "v" holds NaN\.$/);
    await refused(
      one(
        [
          [1, 2],
          [3, null],
        ],
        "FLOAT",
        1,
      ),
      x,
      /^Row 2, column "v" is empty\.$/,
    );
    await refused(one([[1, 2], [3, 4], [5]], "FLOAT", 1), x, /^Row 3, column "v" has the shape \[1\]/);
    await refused(one(["a"], "STRING"), x, /^Row 1, column "v" holds "a", which is not a number/);
    await refused(one([1.5], "DOUBLE"), spec({ x: { dtype: "int64" } }), /holds 1\.5, which is not an integer/);
    await refused(one([2n ** 40n], "INT64"), spec({ x: { dtype: "int32" } }), /holds 1099511627776; int32 goes from/);
    await refused(one([new Date(0)], "TIMESTAMP"), x, /^The column "v" holds TIMESTAMP_MILLIS; numbers/);
    await refused(
      one([1], "FLOAT"),
      spec({ x: { columns: ["w"] } }),
      /There is no column "w" for the input "x"; there are "v"/,
    );
    await refused(one([], "FLOAT"), x, /The table has no rows/);
  });

  it("refuses bytes that are not said to be text, and two columns of one name", async () => {
    const bytes = writeParquet({ v: { data: [Buffer.from("a")], type: "BYTE_ARRAY" } });
    await refused(bytes, spec({ x: {} }), /^The column "v" holds BYTE_ARRAY; numbers, booleans, text/);
    const two = Buffer.from(
      writeParquet({ first: { data: [1, 2], type: "FLOAT" }, other: { data: [3, 4], type: "FLOAT" } }),
    );
    for (let at = two.indexOf("other"); at >= 0; at = two.indexOf("other")) two.write("first", at);
    await refused(two, spec({ x: {} }), /^There are two columns "first"\.$/);
  });

  it("refuses what is no such file, and a footer that claims too much", async () => {
    const file = Buffer.from(writeParquet({ v: { data: [1, 2], type: "FLOAT" } }));
    const x = spec({ x: {} });
    await refused(Buffer.from("PAR1"), x, /not a \.parquet file/);
    await refused(Buffer.from("PK\u0003\u0004 something else"), x, /not a \.parquet file/);
    await refused(file.subarray(0, file.length - 5), x, /does not end with PAR1/);
    const long = Buffer.from(file);
    long.writeUInt32LE(file.length, file.length - 8);
    await refused(long, x, /footer is longer than the file/);
    long.writeUInt32LE(2 ** 31, file.length - 8);
    await refused(long, x, /claims 2147483648 bytes/);
  });

  it("refuses a codec that it does not have, by name", async () => {
    const file = writeParquet(
      { v: { data: [1, 2], type: "FLOAT" } },
      { codec: "LZ4_RAW", compressors: { LZ4_RAW: (it) => it } },
    );
    await refused(
      file,
      spec({ x: {} }),
      /"v" is compressed with LZ4_RAW; what can be read is UNCOMPRESSED, SNAPPY, GZIP/,
    );
  });

  it("refuses damage, or reads it as other values, and never fails in another way", async () => {
    const data = Array.from({ length: 40 }, (_, i) => [i, i + 0.5, -i]);
    const labels = data.map((_, i) => i % 3);
    const whole = writeParquet(
      { v: { data, type: "FLOAT", lists: 1 }, label: { data: labels, type: "INT32" } },
      { rowGroupSize: 15 },
    );
    const of = spec({ x: { columns: ["v"] } }, "label");
    let refusals = 0;
    const attempt = async (bytes: Uint8Array) => {
      try {
        await open(bytes, of);
      } catch (error) {
        assert.ok(error instanceof CoreError && /^(invalid_dataset|limit_exceeded)$/.test(error.code), String(error));
        refusals++;
      }
    };
    for (let length = 0; length < whole.length; length += 7) await attempt(whole.subarray(0, length));
    const cut = refusals;
    assert.equal(cut, Math.ceil(whole.length / 7), "every file that is cut off is refused");
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), async (place, flip) => {
        const bytes = Uint8Array.from(whole);
        bytes[place]! ^= flip;
        await attempt(bytes);
      }),
      { numRuns: 600 },
    );
    assert.ok(refusals > cut, "some of what is flipped shows");
  });
});
