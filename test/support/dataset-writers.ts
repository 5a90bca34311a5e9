import { Buffer } from "node:buffer";
import { crc32, deflateRawSync } from "node:zlib";
import { DTYPES, type DType } from "../../src/core/onnx/dtype.ts";
import type { Tensor } from "../../src/core/onnx/tensor.ts";

/** Writers of the dataset formats, for tests: what NumPy and the safetensors library would have written. */

const NPY_CODES: Partial<Record<DType, string>> = {
  bool: "b1",
  int8: "i1",
  uint8: "u1",
  int16: "i2",
  uint16: "u2",
  int32: "i4",
  uint32: "u4",
  int64: "i8",
  uint64: "u8",
  float16: "f2",
  float32: "f4",
  float64: "f8",
};

const SAFETENSORS_CODES: Partial<Record<DType, string>> = {
  bool: "BOOL",
  int8: "I8",
  uint8: "U8",
  int16: "I16",
  uint16: "U16",
  int32: "I32",
  uint32: "U32",
  int64: "I64",
  uint64: "U64",
  float16: "F16",
  bfloat16: "BF16",
  float32: "F32",
  float64: "F64",
};

export interface NpyOptions {
  /** Format version; 1 unless given. */
  readonly version?: 1 | 2 | 3;
  readonly fortranOrder?: boolean;
  readonly bigEndian?: boolean;
  /** Replaces the header's text, for hostile files. */
  readonly header?: string;
}

/** A .npy file. */
export function writeNpy(tensor: Tensor, options: NpyOptions = {}): Uint8Array {
  const { version = 1, fortranOrder = false, bigEndian = false } = options;
  const size = DTYPES[tensor.dtype].bits / 8;
  const order = size === 1 ? "|" : bigEndian ? ">" : "<";
  const shape = tensor.dims.length === 1 ? `(${tensor.dims[0]},)` : `(${tensor.dims.join(", ")})`;
  const header =
    options.header ??
    `{'descr': '${order}${NPY_CODES[tensor.dtype]}', 'fortran_order': ${fortranOrder ? "True" : "False"}, 'shape': ${shape}, }`;
  const lengthBytes = version === 1 ? 2 : 4;
  // The data begins at a multiple of 64, after a line feed.
  const padded = `${header.padEnd(Math.ceil((8 + lengthBytes + header.length + 1) / 64) * 64 - 8 - lengthBytes - 1)}\n`;
  const start = Buffer.alloc(8 + lengthBytes);
  start.write("\x93NUMPY", "latin1");
  start[6] = version;
  start.writeUIntLE(padded.length, 8, lengthBytes);
  let data = fortranOrder ? columnMajor(tensor, size) : Buffer.from(tensor.bytes);
  if (bigEndian) data = swapped(data, size);
  return Buffer.concat([start, Buffer.from(padded, "latin1"), data]);
}

function columnMajor({ bytes, dims }: Tensor, size: number): Buffer {
  const data = Buffer.alloc(bytes.byteLength);
  const count = bytes.byteLength / size;
  for (let at = 0; at < count; at++) {
    // The element's index along each axis, last axis fastest; then its place with the first axis fastest.
    let rest = at;
    const index = dims.toReversed().map((dim) => {
      const i = rest % dim;
      rest = Math.floor(rest / dim);
      return i;
    });
    const place = index.reduce((sum, i, k) => sum * dims[dims.length - 1 - k]! + i, 0);
    data.set(bytes.subarray(at * size, (at + 1) * size), place * size);
  }
  return data;
}

function swapped(bytes: Uint8Array, size: number): Buffer {
  const result = Buffer.from(bytes);
  for (let at = 0; at < result.byteLength; at += size) result.subarray(at, at + size).reverse();
  return result;
}

export interface ZipMember {
  /** As it is in the archive, `.npy` included. */
  readonly name: string;
  readonly data: Uint8Array;
  readonly deflate?: boolean;
  /** Lies of hostile archives; the truth unless given. */
  readonly declared?: {
    readonly uncompressedBytes?: number;
    readonly crc?: number;
    readonly method?: number;
    readonly flags?: number;
  };
}

/** A zip archive, member by member, as it is told. */
export function writeZip(members: readonly ZipMember[]): Uint8Array {
  const locals: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, data, deflate = false, declared = {} } of members) {
    const packed = deflate ? deflateRawSync(data) : data;
    const encoded = Buffer.from(name);
    // From "version needed" to "extra field length": the same in both headers.
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(declared.flags ?? 0x800, 2);
    common.writeUInt16LE(declared.method ?? (deflate ? 8 : 0), 4);
    common.writeUInt32LE(0x00210000, 6);
    common.writeUInt32LE(declared.crc ?? crc32(data), 10);
    common.writeUInt32LE(packed.byteLength, 14);
    common.writeUInt32LE(declared.uncompressedBytes ?? data.byteLength, 18);
    common.writeUInt16LE(encoded.byteLength, 22);
    const local = Buffer.concat([Buffer.from("PK\x03\x04", "latin1"), common, encoded, packed]);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(offset, 10);
    directory.push(Buffer.from("PK\x01\x02\x14\x00", "latin1"), common, rest, encoded);
    locals.push(local);
    offset += local.byteLength;
  }
  const central = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06", "latin1");
  end.writeUInt16LE(members.length, 8);
  end.writeUInt16LE(members.length, 10);
  end.writeUInt32LE(central.byteLength, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...locals, central, end]);
}

/** A .npz file, as `numpy.savez` writes it, or `numpy.savez_compressed` with `deflate`. */
export function writeNpz(
  arrays: Readonly<Record<string, Tensor>>,
  options: NpyOptions & { readonly deflate?: boolean } = {},
): Uint8Array {
  const { deflate = false } = options;
  return writeZip(
    Object.entries(arrays).map(([name, tensor]) => ({ name: `${name}.npy`, data: writeNpy(tensor, options), deflate })),
  );
}

/** A .safetensors file; `header` may change the entries before they are written. */
export function writeSafetensors(
  arrays: Readonly<Record<string, Tensor>>,
  change: (header: Record<string, unknown>) => unknown = (header) => header,
): Uint8Array {
  const header: Record<string, unknown> = {};
  const data: Uint8Array[] = [];
  let offset = 0;
  for (const [name, { dtype, dims, bytes }] of Object.entries(arrays)) {
    header[name] = {
      dtype: SAFETENSORS_CODES[dtype],
      shape: dims,
      data_offsets: [offset, offset + bytes.byteLength],
    };
    data.push(bytes);
    offset += bytes.byteLength;
  }
  const text = Buffer.from(JSON.stringify(change(header)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.byteLength));
  return Buffer.concat([length, text, ...data]);
}
