import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { type ByteSource, memorySource } from "../../../src/core/data/byte-source.ts";
import {
  type Batch,
  type BatchOptions,
  type Dataset,
  datasetView,
  openDataset,
} from "../../../src/core/data/dataset.ts";
import { CoreError, type CoreErrorCode } from "../../../src/core/errors.ts";
import { byteLengthOf, type DType } from "../../../src/core/onnx/dtype.ts";
import { arrayOf, elementCount, type Tensor, tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { type NpyOptions, writeNpy, writeNpz, writeSafetensors, writeZip } from "../../support/dataset-writers.ts";

const open = (bytes: Uint8Array, input = "x", verify = true) =>
  openDataset(memorySource(bytes), { spec: { kind: "array", input }, verify });

async function batchesOf(dataset: Dataset, options: Partial<BatchOptions> = {}): Promise<Batch[]> {
  return Array.fromAsync(dataset.batches({ batchSize: dataset.facts.samples, ...options }));
}

function assertSame(actual: Tensor | undefined, expected: Tensor): void {
  assert.ok(actual);
  assert.equal(actual.dtype, expected.dtype);
  assert.deepEqual(actual.dims, expected.dims);
  assert.deepEqual(Buffer.from(actual.bytes), Buffer.from(expected.bytes));
}

async function assertRefused(
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

const NUMERIC: readonly DType[] = [
  "bool",
  "int8",
  "uint8",
  "int16",
  "uint16",
  "int32",
  "uint32",
  "int64",
  "uint64",
  "float16",
  "float32",
  "float64",
];

function tensors(dtypes: readonly DType[], samples: fc.Arbitrary<number>): fc.Arbitrary<Tensor> {
  return fc
    .record({
      dtype: fc.constantFrom(...dtypes),
      samples,
      shape: fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 3 }),
    })
    .chain(({ dtype, samples, shape }) => {
      const dims = [samples, ...shape];
      const length = byteLengthOf(dtype, elementCount(dims));
      return fc
        .uint8Array({ minLength: length, maxLength: length, max: dtype === "bool" ? 1 : 255 })
        .map((bytes) => tensor(dtype, dims, bytes));
    });
}

const SMALL = tensorOf("float32", [2, 3], [1, 2, 3, 4, 5, 6]);

const NUMPY_FILE =
  "UEsDBC0AAAAIAAAAIQBP6QAq//////////8FABQAeC5ucHkBABAAmAAAAAAAAABVAAAAAAAAAJvsF+obEMnIUMZQrZ6SWpxcpG6loG6TZqKuo6" +
  "Cell9UUpSYF59flJIKEndLzClOBYoXZyQWpAL5GkY6CsaaOgq1CmQDLgYwaLAHEg5ABMQNQLzAAQBQSwMELQAAAAgAAAAhAO/qUs3/////////" +
  "/wYAFABzci5ucHkBABAAiAAAAAAAAABHAAAAAAAAAJvsF+obEMnIUMZQrZ6SWpxcpG6loG6TaaGuo6Cell9UUpSYF59flJIKEndLzClOBYoXZy" +
  "QWpAL5Gpo6CrUKFAGuBjsGMAAAUEsDBC0AAAAIAAAAIQBx+zmr//////////8KABQAbGFiZWxzLm5weQEAEACQAAAAAAAAAEgAAAAAAAAAm+wX" +
  "6hsQychQxlCtnpJanFykbqWgbpNpoa6joJ6WX1RSlJgXn1+UkgoSd0vMKU4FihdnJBakAvkaRjqaOgq1ChQALkYGVAAAUEsBAi0DLQAAAAgAAA" +
  "AhAE/pACpVAAAAmAAAAAUAAAAAAAAAAAAAAIABAAAAAHgubnB5UEsBAi0DLQAAAAgAAAAhAO/qUs1HAAAAiAAAAAYAAAAAAAAAAAAAAIABjAAA" +
  "AHNyLm5weVBLAQItAy0AAAAIAAAAIQBx+zmrSAAAAJAAAAAKAAAAAAAAAAAAAACAAQsBAABsYWJlbHMubnB5UEsFBgAAAAADAAMAnwAAAI8BAA" +
  "AAAA==";

describe(".npy", () => {
  it("gives back what was written: every dtype, version, element order and byte order", async () => {
    await fc.assert(
      fc.asyncProperty(
        tensors(NUMERIC, fc.integer({ min: 1, max: 5 })),
        fc.record<NpyOptions>({
          version: fc.constantFrom(1, 2, 3),
          fortranOrder: fc.boolean(),
          bigEndian: fc.boolean(),
        }),
        async (written, options) => {
          const dataset = await open(writeNpy(written, options));
          assert.deepEqual(dataset.facts, {
            samples: written.dims[0],
            fields: [{ name: "x", dtype: written.dtype, shape: written.dims.slice(1) }],
            has_labels: false,
            classes: null,
          });
          const [batch] = await batchesOf(dataset);
          assertSame(batch!.feeds.x, written);
        },
      ),
    );
  });

  it("accepts what NumPy has written over the years", async () => {
    for (const header of [
      "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
      "{'shape': (2L, 3L), 'fortran_order': False, 'descr': '<f4'}",
      '{"descr": "<f4", "fortran_order": False, "shape": (2,3)}',
    ]) {
      assertSame((await batchesOf(await open(writeNpy(SMALL, { header }))))[0]!.feeds.x, SMALL);
    }
  });

  it("refuses everything but plain arrays, and never evaluates a header", async () => {
    const cases: [string, RegExp][] = [
      ["{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }", /Python objects/],
      ["{'descr': '<U8', 'fortran_order': False, 'shape': (2, 3), }", /dtype "<U8"/],
      ["{'descr': '<c8', 'fortran_order': False, 'shape': (2, 3), }", /dtype "<c8"/],
      ["{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }", /not that of a plain array/],
      ["{'descr': '<f4', 'fortran_order': False, 'shape': (2, -3), }", /plain array/],
      ["{'descr': '<f4', 'fortran_order': False, 'shape': (6), }", /plain array/],
      ["{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'x': True}", /plain array/],
      ["{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", /plain array/],
      ["{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)} + [1]", /plain array/],
      ["{'descr': '<f4', 'fortran_order': False, 'shape': [2, 3]}", /plain array/],
      ["{'descr': '<f4', 'fortran_order': False, 'shape': 223}", /plain array/],
      ["{'descr': '<f4', 'fortran_order': False}", /plain array/],
      ["__import__('os')", /plain array/],
      ["{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }", /should have 32 bytes of data and has 24/],
    ];
    for (const [header, message] of cases) {
      await assertRefused(open(writeNpy(SMALL, { header })), "invalid_dataset", "x", message);
    }
    const long = writeNpy(SMALL, { version: 2, header: " ".repeat(66_000) });
    await assertRefused(open(long), "invalid_dataset", "x", /header of 6\d{4} bytes, more than is allowed/);
    const shape = (text: string) =>
      writeNpy(SMALL, { header: `{'descr': '<f4', 'fortran_order': False, 'shape': ${text}}` });
    await assertRefused(open(shape("(99999999999, 99999999999)")), "limit_exceeded", "x", /elements/);
    await assertRefused(open(shape("(9999999999999999999999, 1)")), "invalid_dataset", "x", /not a size/);
    await assertRefused(open(shape(`(${"1,".repeat(20)})`)), "limit_exceeded", "x", /20 axes/);
  });

  // One pattern for the whole shape took 22 s for these.
  it("refuses shapes of spaces and digits without end in moments", { timeout: 10_000 }, async () => {
    for (const shape of [
      `(${" ".repeat(60_000)}L), }`,
      `(${"1".repeat(60_000)} L), }`,
      `(${"1, ".repeat(20_000)}x), }`,
    ]) {
      const header = `{'descr': '<f4', 'fortran_order': False, 'shape': ${shape}`;
      await assertRefused(open(writeNpy(SMALL, { version: 2, header })), "invalid_dataset", "x", /plain array/);
    }
  });

  it("refuses samples that nothing stands behind", async () => {
    const empty = (shape: string) =>
      writeNpy(tensor("float32", [0], new Uint8Array(0)), {
        header: `{'descr': '<f4', 'fortran_order': False, 'shape': ${shape}, }`,
      });
    await assertRefused(open(empty("(4000000000, 0, 4)")), "limit_exceeded", "x", /4000000000 samples/);
    await assertRefused(
      open(empty("(5, 0)")),
      "invalid_dataset",
      "x",
      /samples of "x" are empty: their shape is \[0\]/,
    );
    const floats = (dims: number[]) => tensorOf("float32", dims, new Float32Array(elementCount(dims)));
    assert.equal((await open(writeNpz({ x: floats([3, 2]), past: floats([3, 0, 2]) }))).facts.samples, 3);
  });

  it("refuses a header longer than any array needs", async () => {
    await assertRefused(
      open(writeNpy(SMALL, { version: 2, header: " ".repeat(70_000) })),
      "invalid_dataset",
      "x",
      /header/,
    );
  });

  it("needs the name of the input it feeds", async () => {
    await assertRefused(openDataset(memorySource(writeNpy(SMALL))), "invalid_dataset", undefined, /names no input/);
  });
});

describe(".npz", () => {
  it("gives back what was written, stored or deflated", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 5 }).chain((samples) => {
          const some = tensors(NUMERIC, fc.constant(samples));
          return fc.tuple(some, some, some);
        }),
        fc.boolean(),
        async ([a, b, labels], deflate) => {
          const dataset = await open(writeNpz({ a, b, labels }, { deflate }));
          assert.deepEqual(
            dataset.facts.fields.map(({ name }) => name),
            ["a", "b"],
          );
          assert.ok(dataset.facts.has_labels);
          const [batch] = await batchesOf(dataset);
          assertSame(batch!.feeds.a, a);
          assertSame(batch!.feeds.b, b);
          assertSame(batch!.labels, labels);
        },
      ),
      { numRuns: 40 },
    );
  });

  it("reads what NumPy 2.4 writes", async () => {
    // numpy.savez_compressed(f, x=numpy.arange(6, dtype='<f4').reshape(2, 3), sr=numpy.int64(16000), labels=numpy.array([1, 0]))
    const dataset = await open(Buffer.from(NUMPY_FILE, "base64"));
    assert.deepEqual(dataset.facts, {
      samples: 2,
      fields: [
        { name: "x", dtype: "float32", shape: [3] },
        { name: "sr", dtype: "int64", shape: [] },
      ],
      has_labels: true,
      classes: null,
    });
    const [batch] = await batchesOf(dataset);
    assertSame(batch!.feeds.x, tensorOf("float32", [2, 3], [0, 1, 2, 3, 4, 5]));
    // An array without axes holds for every sample.
    assertSame(batch!.feeds.sr, tensorOf("int64", [2], [16000, 16000]));
    assertSame(batch!.labels, tensorOf("int64", [2], [1, 0]));
  });

  const npy = writeNpy(SMALL);
  const big = writeNpy(tensor("uint8", [70_000_000], new Uint8Array(70_000_000)));
  const hostile: [string, Uint8Array, CoreErrorCode, string | undefined, RegExp][] = [
    ["a path upwards", writeZip([{ name: "../x.npy", data: npy }]), "invalid_dataset", undefined, /\.\.\/x\.npy/],
    ["an absolute path", writeZip([{ name: "/x.npy", data: npy }]), "invalid_dataset", undefined, /\/x\.npy/],
    ["a folder", writeZip([{ name: "a/x.npy", data: npy }]), "invalid_dataset", "a/x.npy", /not an array/],
    ["a backslash", writeZip([{ name: "a\\x.npy", data: npy }]), "invalid_dataset", undefined, /x\.npy/],
    ["a NUL", writeZip([{ name: "x\0.npy", data: npy }]), "invalid_dataset", "x?", /not usable/],
    ["another file", writeZip([{ name: "x.pkl", data: npy }]), "invalid_dataset", "x.pkl", /not an array/],
    ["no name", writeZip([{ name: ".npy", data: npy }]), "invalid_dataset", ".npy", /not an array/],
    [
      "duplicates",
      writeZip([
        { name: "x.npy", data: npy },
        { name: "x.npy", data: npy },
      ]),
      "invalid_dataset",
      "x",
      /there twice/,
    ],
    [
      "a pickle",
      writeZip([{ name: "x.npy", data: Buffer.from("\x80\x04cos\nsystem\n") }]),
      "invalid_dataset",
      "x",
      /\.npy/,
    ],
    ["no members", writeZip([]), "invalid_dataset", undefined, /no arrays/],
    [
      "encryption",
      writeZip([{ name: "x.npy", data: npy, declared: { flags: 0x801 } }]),
      "invalid_dataset",
      undefined,
      /size mismatch|encrypted/,
    ],
    [
      "another method",
      writeZip([{ name: "x.npy", data: npy, declared: { method: 12 } }]),
      "invalid_dataset",
      "x",
      /method 12/,
    ],
    [
      "a wrong checksum",
      writeZip([{ name: "x.npy", data: npy, declared: { crc: 1 } }]),
      "invalid_dataset",
      "x",
      /checksum/,
    ],
    [
      "a wrong checksum of a deflated member",
      writeZip([{ name: "x.npy", data: npy, deflate: true, declared: { crc: 1 } }]),
      "invalid_dataset",
      "x",
      /checksum/,
    ],
    [
      "more than declared",
      writeZip([{ name: "x.npy", data: npy, deflate: true, declared: { uncompressedBytes: 100 } }]),
      "invalid_dataset",
      "x",
      /more bytes than it declares/,
    ],
    [
      "less than declared",
      writeZip([{ name: "x.npy", data: npy, deflate: true, declared: { uncompressedBytes: 1000 } }]),
      "invalid_dataset",
      "x",
      /fewer bytes than it declares/,
    ],
    ["a bomb", writeZip([{ name: "x.npy", data: big, deflate: true }]), "limit_exceeded", undefined, /100 times/],
    [
      "a bomb of many members",
      writeZip(Array.from({ length: 300 }, (_, i) => ({ name: `x${i}.npy`, data: npy }))),
      "limit_exceeded",
      undefined,
      /300 members/,
    ],
    [
      "a huge declared size",
      writeZip([{ name: "x.npy", data: npy, deflate: true, declared: { uncompressedBytes: 0xfffffffe } }]),
      "limit_exceeded",
      undefined,
      /100 times/,
    ],
    ["overlapping members", overlapping(), "invalid_dataset", "b", /overlaps/],
  ];
  for (const [name, bytes, code, subject, message] of hostile) {
    it(`refuses ${name}`, () => assertRefused(open(bytes), code, subject, message));
  }

  /** Two directory entries for the bytes of one member. */
  function overlapping(): Uint8Array {
    const bytes = Buffer.from(
      writeZip([
        { name: "a.npy", data: npy },
        { name: "b.npy", data: npy },
      ]),
    );
    // The second central directory entry points at the first member's header.
    const second = bytes.lastIndexOf("PK\x01\x02", undefined, "latin1");
    bytes.writeUInt32LE(0, second + 42);
    return bytes;
  }
});

describe(".safetensors", () => {
  it("gives back what was written", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc
          .integer({ min: 1, max: 5 })
          .chain((samples) =>
            fc.tuple(tensors([...NUMERIC, "bfloat16"], fc.constant(samples)), tensors(["int64"], fc.constant(samples))),
          ),
        async ([x, labels]) => {
          const dataset = await open(writeSafetensors({ "a/b:0": x, labels }));
          const [batch] = await batchesOf(dataset);
          assertSame(batch!.feeds["a/b:0"], x);
          assertSame(batch!.labels, labels);
        },
      ),
      { numRuns: 40 },
    );
  });

  it("ignores metadata", async () => {
    const bytes = writeSafetensors({ x: SMALL }, (header) => ({ __metadata__: { made: "by a test" }, ...header }));
    assert.deepEqual((await open(bytes)).facts.fields, [{ name: "x", dtype: "float32", shape: [3] }]);
  });

  const entry = { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] };
  const hostile: [string, (header: Record<string, unknown>) => unknown, CoreErrorCode, string | undefined, RegExp][] = [
    ["a header that is a list", () => [], "invalid_dataset", undefined, /none of the formats/],
    ["an unknown dtype", () => ({ x: { ...entry, dtype: "F8_E4M3" } }), "invalid_dataset", "x", /"F8_E4M3"/],
    [
      "a dtype that is a property of objects",
      () => ({ x: { ...entry, dtype: "toString" } }),
      "invalid_dataset",
      "x",
      /dtype/,
    ],
    ["a dtype that is no string", () => ({ x: { ...entry, dtype: {} } }), "invalid_dataset", "x", /dtype/],
    ["a negative dimension", () => ({ x: { ...entry, shape: [-2, -3] } }), "invalid_dataset", "x", /sizes/],
    ["an overflowing shape", () => ({ x: { ...entry, shape: [2 ** 40, 2 ** 40] } }), "limit_exceeded", "x", /elements/],
    [
      "offsets past the end",
      () => ({ x: { ...entry, shape: [4, 3], data_offsets: [0, 48] } }),
      "invalid_dataset",
      undefined,
      /take 48 bytes/,
    ],
    ["reversed offsets", () => ({ x: { ...entry, data_offsets: [24, 0] } }), "invalid_dataset", "x", /span -24/],
    [
      "a gap",
      () => ({ x: { ...entry, shape: [1, 3], data_offsets: [12, 24] } }),
      "invalid_dataset",
      "x",
      /does not begin/,
    ],
    [
      "a tail",
      () => ({ x: { ...entry, shape: [1, 3], data_offsets: [0, 12] } }),
      "invalid_dataset",
      undefined,
      /holds 24 bytes/,
    ],
    ["overlaps", () => ({ a: entry, x: entry }), "invalid_dataset", "x", /does not begin/],
    ["a missing shape", () => ({ x: { dtype: "F32", data_offsets: [0, 24] } }), "invalid_dataset", "x", /shape/],
    ["a null entry", () => ({ x: null }), "invalid_dataset", "x", /object/],
    ["an empty name", () => ({ "": entry }), "invalid_dataset", "", /name/],
  ];
  for (const [name, change, code, subject, message] of hostile) {
    it(`refuses ${name}`, () => assertRefused(open(writeSafetensors({ x: SMALL }, change)), code, subject, message));
  }

  it("refuses a header length that is not one", async () => {
    const bytes = Buffer.from(writeSafetensors({ x: SMALL }));
    bytes.writeBigUInt64LE(2n ** 63n);
    await assertRefused(open(bytes), "limit_exceeded", undefined, /claims/);
    bytes.writeBigUInt64LE(1000n);
    await assertRefused(open(bytes), "invalid_dataset", undefined, /cut off/);
    bytes.writeBigUInt64LE(20n);
    await assertRefused(open(bytes), "invalid_dataset", undefined, /JSON/);
  });

  it("survives a header nested as deep as it can be", async () => {
    const text = Buffer.from(`{"x":${"[".repeat(500_000)}`);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.byteLength));
    await assertRefused(open(Buffer.concat([length, text])), "invalid_dataset", undefined, /JSON/);
  });
});

describe("openDataset", () => {
  it("refuses other files", async () => {
    for (const bytes of [new Uint8Array(0), Buffer.from("PK"), Buffer.from("x,y\n1,2\n"), new Uint8Array(1000)]) {
      await assertRefused(open(bytes), "invalid_dataset", undefined, /formats/);
    }
  });

  it("refuses arrays of different lengths, of none, and without a sample axis", async () => {
    const floats = (dims: number[]) => tensorOf("float32", dims, new Float32Array(elementCount(dims)));
    await assertRefused(open(writeNpz({ x: floats([2]), y: floats([3]) })), "invalid_dataset", "y", /3 samples/);
    await assertRefused(
      open(writeNpz({ x: floats([2]), labels: floats([3]) })),
      "invalid_dataset",
      "labels",
      /3 samples/,
    );
    await assertRefused(open(writeNpz({ x: floats([0, 2]) })), "invalid_dataset", "x", /no samples/);
    await assertRefused(open(writeNpz({ x: floats([]) })), "invalid_dataset", undefined, /sample axis/);
    await assertRefused(open(writeNpz({ x: floats([2]), labels: floats([]) })), "invalid_dataset", "labels", /axis/);
    await assertRefused(open(writeNpz({ labels: floats([2]) })), "invalid_dataset", undefined, /no arrays/);
  });

  it("refuses bools that are not", async () => {
    const dataset = await open(writeNpy(tensor("bool", [3], new Uint8Array([0, 1, 2]))));
    await assert.rejects(batchesOf(dataset), { code: "invalid_dataset", subject: "x" });
  });

  const valid: [string, Uint8Array][] = [
    ["npy", writeNpy(SMALL)],
    ["npz", writeNpz({ x: SMALL, labels: tensorOf("int64", [2], [0, 1]) })],
    ["npz, deflated", writeNpz({ x: SMALL, labels: tensorOf("int64", [2], [0, 1]) }, { deflate: true })],
    ["safetensors", writeSafetensors({ x: SMALL, labels: tensorOf("int64", [2], [0, 1]) })],
  ];
  for (const [format, bytes] of valid) {
    const survives = async (damaged: Uint8Array, mustFail: boolean) => {
      try {
        await batchesOf(await open(damaged));
      } catch (error) {
        assert.ok(error instanceof CoreError, String(error));
        assert.notEqual(error.code, "internal");
        return;
      }
      // Data bytes and unused header fields may change without anyone noticing; the length may not.
      assert.ok(!mustFail, "a truncated file was accepted");
    };

    it(`refuses every truncation of a ${format} file`, async () => {
      for (let length = 0; length < bytes.byteLength; length++) await survives(bytes.slice(0, length), true);
    });

    it(`gives a dataset or a refusal for a ${format} file with damaged bytes`, async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.tuple(fc.nat(bytes.byteLength - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
          async (changes) => {
            const damaged = Uint8Array.from(bytes);
            for (const [at, byte] of changes) damaged[at] = byte;
            await survives(damaged, false);
          },
        ),
        { numRuns: 1500 },
      );
    });
  }
});

describe("batches", () => {
  const x = tensorOf(
    "int32",
    [10, 2],
    Array.from({ length: 20 }, (_, i) => i),
  );
  const labels = tensorOf(
    "int64",
    [10],
    Array.from({ length: 10 }, (_, i) => i),
  );
  const rows = (batches: Batch[]) =>
    batches.map(({ feeds, count }) => {
      const all = arrayOf(feeds.x!, "int32");
      return Array.from({ length: count }, (_, i) => [all[2 * i], all[2 * i + 1]]);
    });

  it("cuts samples into batches, the last one smaller", async () => {
    const dataset = await open(writeNpz({ x, labels }));
    const batches = await batchesOf(dataset, { batchSize: 4 });
    assert.deepEqual(
      batches.map(({ count, feeds, labels }) => [count, feeds.x!.dims, labels!.dims]),
      [
        [4, [4, 2], [4]],
        [4, [4, 2], [4]],
        [2, [2, 2], [2]],
      ],
    );
    assert.deepEqual(
      rows(batches).flat(),
      Array.from({ length: 10 }, (_, i) => [2 * i, 2 * i + 1]),
    );
    assert.deepEqual(
      rows(await batchesOf(dataset, { batchSize: 4, limit: 5 })).map((batch) => batch.length),
      [4, 1],
    );
  });

  it("shuffles features and labels together, by the seed", async () => {
    const dataset = await open(writeNpz({ x, labels }, { deflate: true }));
    const shuffled = await batchesOf(dataset, { batchSize: 3, shuffleSeed: 4 });
    const order = rows(shuffled).flat();
    assert.notDeepEqual(
      order,
      order.toSorted((a, b) => a[0]! - b[0]!),
    );
    assert.deepEqual(
      order.toSorted((a, b) => a[0]! - b[0]!),
      rows(await batchesOf(dataset)).flat(),
    );
    const shuffledLabels = shuffled.flatMap(({ labels }) => [...arrayOf(labels!, "int64")]);
    assert.deepEqual(
      shuffledLabels.map(Number),
      order.map(([first]) => first! / 2),
    );
    assert.deepEqual(rows(await batchesOf(dataset, { batchSize: 3, shuffleSeed: 4 })), rows(shuffled));
    assert.notDeepEqual(rows(await batchesOf(dataset, { batchSize: 3, shuffleSeed: 5 })), rows(shuffled));
  });

  it("reads no more of the file than the batches asked for", async () => {
    const bytes = writeNpy(tensor("uint8", [1000, 1000], new Uint8Array(1_000_000)));
    let read = 0;
    const counting: ByteSource = {
      size: bytes.byteLength,
      read: (offset, length) => {
        read += length;
        return bytes.subarray(offset, offset + length);
      },
    };
    const dataset = await openDataset(counting, { spec: { kind: "array", input: "x" } });
    await batchesOf(dataset, { batchSize: 2, limit: 10 });
    assert.ok(read < 11_000, `${read} bytes were read for 10 samples of 1000`);
  });

  it("any samples, in any order, and views of some of them", async () => {
    const source = await open(writeNpz({ x, labels }));
    const view = datasetView(source, Uint32Array.of(4, 1, 3));
    assert.deepEqual({ ...view.facts, samples: 0 }, { ...source.facts, samples: 0 });
    assert.equal(view.facts.samples, 3);
    assert.deepEqual(view.gather([2, 0]), source.gather([3, 4]));
    const [first, second] = await batchesOf(view, { batchSize: 2 });
    assert.deepEqual([first, second], [source.gather([4, 1]), source.gather([3])]);
    assert.equal((await batchesOf(view, { batchSize: 3 })).length, 1);
  });

  it("stops when cancelled", async () => {
    const dataset = await open(writeNpz({ x }));
    const controller = new AbortController();
    await assert.rejects(
      async () => {
        for await (const _ of dataset.batches({ batchSize: 1, signal: controller.signal })) controller.abort();
      },
      { code: "cancelled" },
    );
  });
});
