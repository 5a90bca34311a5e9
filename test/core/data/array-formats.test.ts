import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { memorySource } from "../../../src/core/data/byte-source.ts";
import { openDataset } from "../../../src/core/data/dataset.ts";
import type { CoreErrorCode } from "../../../src/core/errors.ts";
import { byteLengthOf, type DType } from "../../../src/core/onnx/dtype.ts";
import { elementCount, type Tensor, tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { type NpyOptions, writeNpy, writeNpz, writeSafetensors, writeZip } from "../../support/dataset-writers.ts";
import { assertRefused, assertSame, batchesOf, open, SMALL } from "../../support/datasets.ts";

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
