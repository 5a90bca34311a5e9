/**
 * Codes narrower than a byte, as onnxruntime and ONNX store them: low bits first.
 *
 * - ONNX tensors (int4, uint4, int2, uint2): the whole tensor as one run in row-major order.
 * - MatMulNBits: codes [N, ceil(K / block) · block] as one run (a block is a whole number of bytes); zero points [N, blocks] row by row,
 *   every row padded to whole bytes.
 * - GatherBlockQuantized over uint8: codes [V, D] and zero points [V, blocks] row by row; D is a whole number of bytes.
 *
 * So there is one layout, rows of codes that start at a byte, and a flat tensor is the case of a single row.
 */
import { CoreError } from "../errors.ts";

/** Bits of one code. */
export type CodeBits = 2 | 4 | 8;

/** Bytes of a row of `codes` codes. */
export function packedRowBytes(codes: number, bits: CodeBits): number {
  return Math.ceil((codes * bits) / 8);
}

/**
 * Packs rows of `rowLength` codes, one per element of `codes`; signed codes are kept in two's complement. Padding is zero.
 * 8-bit codes are answered as they are, not copied.
 */
export function packRows(codes: Uint8Array | Int8Array, rowLength: number, bits: CodeBits): Uint8Array {
  const bytes = new Uint8Array(codes.buffer, codes.byteOffset, codes.length);
  if (bits === 8) return bytes;
  const perByte = 8 / bits;
  // Rows without padding make one long row.
  const length = rowLength % perByte === 0 ? codes.length : rowLength;
  const rows = length === 0 ? 0 : codes.length / length;
  if (!Number.isInteger(rows)) throw new CoreError("internal", "The codes do not fill their rows.");
  const packed = new Uint8Array(rows * packedRowBytes(length, bits));
  const pack = bits === 4 ? pack4 : pack2;
  for (let row = 0, from = 0, to = 0; row < rows; row++, from += length) {
    to = pack(bytes, from, from + length, packed, to);
  }
  return packed;
}

/** Both answer where the next row goes. */
function pack4(codes: Uint8Array, from: number, end: number, packed: Uint8Array, to: number): number {
  if ((codes.byteOffset + from) % 4 === 0 && (packed.byteOffset + to) % 2 === 0) {
    // Four codes at a time: as a word, low byte first, they are 0d0c0b0a and become dcba.
    const quads = (end - from) >>> 2;
    const words = new Uint32Array(codes.buffer, codes.byteOffset + from, quads);
    const halves = new Uint16Array(packed.buffer, packed.byteOffset + to, quads);
    for (let i = 0; i < quads; i++) {
      const word = words[i]!;
      const pairs = (word & 0x000f000f) | ((word >>> 4) & 0x00f000f0);
      halves[i] = pairs | (pairs >>> 8);
    }
    from += 4 * quads;
    to += 2 * quads;
  }
  for (; from + 1 < end; from += 2) packed[to++] = (codes[from]! & 15) | (codes[from + 1]! << 4);
  if (from < end) packed[to++] = codes[from]! & 15;
  return to;
}

function pack2(codes: Uint8Array, from: number, end: number, packed: Uint8Array, to: number): number {
  for (; from + 3 < end; from += 4) {
    packed[to++] =
      (codes[from]! & 3) | ((codes[from + 1]! & 3) << 2) | ((codes[from + 2]! & 3) << 4) | (codes[from + 3]! << 6);
  }
  if (from < end) {
    let byte = 0;
    for (let shift = 0; from < end; from++, shift += 2) byte |= (codes[from]! & 3) << shift;
    packed[to++] = byte;
  }
  return to;
}

/**
 * Packs codes so that plain operators can take them apart (`weights/packed-parts.ts`): with p = 8 / bits values to a byte, part i of n codes is [i·m, (i + 1)·m),
 * m = ⌈n / p⌉, and byte j = Σ code[i·m + j] · 2^(bits·i). What is missing at the end is 0.
 */
export function packParts(codes: Uint8Array, bits: CodeBits): Uint8Array {
  const length = Math.ceil((codes.length * bits) / 8);
  const packed = new Uint8Array(length);
  for (let part = 0; part * length < codes.length; part++) {
    const from = part * length;
    const count = Math.min(length, codes.length - from);
    for (let j = 0; j < count; j++) packed[j]! |= codes[from + j]! << (bits * part);
  }
  return packed;
}

/** The inverse of `packRows`: `count` codes, one per element, from rows of `rowLength`. */
export function unpackRows(
  packed: Uint8Array,
  count: number,
  rowLength: number,
  bits: CodeBits,
  signed: boolean,
): Uint8Array | Int8Array {
  const rowBytes = packedRowBytes(rowLength, bits);
  const perByte = 8 / bits;
  const mask = 2 ** bits - 1;
  // Shifting a code to the top of an int32 and back extends its sign.
  const top = 32 - bits;
  const codes = signed ? new Int8Array(count) : new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const column = i % rowLength;
    const byte = packed[Math.floor(i / rowLength) * rowBytes + Math.floor(column / perByte)]!;
    const code = (byte >> ((column % perByte) * bits)) & mask;
    codes[i] = signed ? (code << top) >> top : code;
  }
  return codes;
}
