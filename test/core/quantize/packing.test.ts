import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { CoreError } from "../../../src/core/errors.ts";
import { integersOf, tensor } from "../../../src/core/onnx/tensor.ts";
import { type CodeBits, packedRowBytes, packRows, unpackRows } from "../../../src/core/quantize/packing.ts";

const BITS = [2, 4, 8] as const;

/** Rows of random codes that fit `bits`. */
const rowsOfCodes = fc
  .record({
    bits: fc.constantFrom<CodeBits>(...BITS),
    signed: fc.boolean(),
    rows: fc.nat({ max: 5 }),
    rowLength: fc.integer({ min: 1, max: 37 }),
    seed: fc.infiniteStream(fc.nat({ max: 255 })),
  })
  .map(({ bits, signed, rows, rowLength, seed }) => {
    const half = signed ? 2 ** (bits - 1) : 0;
    const values = Array.from({ length: rows * rowLength }, () => (seed.next().value! % 2 ** bits) - half);
    return { bits, signed, rows, rowLength, codes: signed ? Int8Array.from(values) : Uint8Array.from(values) };
  });

describe("packRows", () => {
  it("puts the first code into the low bits and pads rows to whole bytes", () => {
    assert.deepEqual(packRows(Uint8Array.of(1, 2, 3, 4, 5, 6), 3, 4), Uint8Array.of(0x21, 0x03, 0x54, 0x06));
    assert.deepEqual(packRows(Uint8Array.of(1, 2, 3, 4), 4, 4), Uint8Array.of(0x21, 0x43));
    assert.deepEqual(packRows(Int8Array.of(-1, 7, -8), 3, 4), Uint8Array.of(0x7f, 0x08));
    assert.deepEqual(packRows(Uint8Array.of(3, 0, 1, 2, 1), 5, 2), Uint8Array.of(0b10_01_00_11, 0b01));
    assert.deepEqual(packRows(Int8Array.of(-2, 1, -1, 0), 4, 2), Uint8Array.of(0b00_11_01_10));
  });

  it("is undone by unpackRows", () => {
    fc.assert(
      fc.property(rowsOfCodes, ({ bits, signed, rows, rowLength, codes }) => {
        const packed = packRows(codes, rowLength, bits);
        assert.equal(packed.length, rows * packedRowBytes(rowLength, bits));
        assert.deepEqual(unpackRows(packed, codes.length, rowLength, bits, signed), codes);
      }),
    );
  });

  it("packs a flat tensor the way ONNX reads it", () => {
    fc.assert(
      fc.property(rowsOfCodes, ({ bits, signed, codes }) => {
        const packed = packRows(codes, Math.max(codes.length, 1), bits);
        const dtype = `${signed ? "int" : "uint"}${bits}` as const;
        assert.deepEqual(integersOf(tensor(dtype, [codes.length], packed)), Array.from(codes));
      }),
    );
  });

  it("refuses rows that the codes do not fill", () => {
    assert.throws(
      () => packRows(new Uint8Array(7), 3, 4),
      (error) => error instanceof CoreError && error.code === "internal",
    );
  });
});
