import { CoreError } from "../errors.ts";
import { byteLengthOf, DTYPES, type DType } from "../onnx/dtype.ts";
import { type ByteSource, memorySource, sliceSource } from "./byte-source.ts";
import { checkDims, LIMITS } from "./limits.ts";
import { bigEndian, type StoredArray } from "./sample-array.ts";

/** NumPy's type codes (kind and bytes) for the dtypes that a dataset may hold. Everything else, objects above all, is refused. */
const TYPE_CODES: Readonly<Record<string, DType>> = {
  b1: "bool",
  i1: "int8",
  u1: "uint8",
  i2: "int16",
  u2: "uint16",
  i4: "int32",
  u4: "uint32",
  i8: "int64",
  u8: "uint64",
  f2: "float16",
  f4: "float32",
  f8: "float64",
};

/** Format versions and the bytes of their header length field (https://numpy.org/neps/nep-0001-npy-format.html). */
const LENGTH_BYTES: Readonly<Record<number, number>> = { 1: 2, 2: 4, 3: 4 };

const MAGIC = "\x93NUMPY";

/** Whether a file begins as a .npy does. */
export function isNpy(source: ByteSource): boolean {
  return source.size >= MAGIC.length && latin1(source.read(0, MAGIC.length)) === MAGIC;
}

/**
 * Reads the header of a .npy file. The header is a Python literal; the little parser below accepts exactly what NumPy writes for plain
 * arrays and evaluates nothing. `name` is what the array is called. Throws `invalid_dataset`.
 */
export function readNpy(source: ByteSource, name: string): StoredArray {
  const refuse = (why: string): never => {
    throw new CoreError("invalid_dataset", `"${name}" ${why}.`, name);
  };
  if (!isNpy(source) || source.size < 12) return refuse("is not a .npy array");
  const start = source.read(0, 12);
  const lengthBytes = LENGTH_BYTES[start[6]!];
  if (!lengthBytes) return refuse(`is in version ${start[6]} of the .npy format, which is not known`);
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength);
  const headerBytes = lengthBytes === 2 ? view.getUint16(8, true) : view.getUint32(8, true);
  const dataStart = 8 + lengthBytes + headerBytes;
  if (headerBytes > LIMITS.npyHeaderBytes) return refuse(`has a header of ${headerBytes} bytes, more than is allowed`);
  if (dataStart > source.size) return refuse("is cut off inside its header");

  const header = parseHeader(latin1(source.read(8 + lengthBytes, headerBytes)));
  if (!header) return refuse("has a header that is not that of a plain array");
  const [, order, code] = /^([<>|=])([a-zA-Z]\d+)$/.exec(header.descr) ?? [];
  const dtype = code === undefined ? undefined : TYPE_CODES[code];
  if (!dtype || order === "=") {
    return refuse(
      /O/.test(header.descr)
        ? "holds Python objects, which are never read; save it with a numeric dtype"
        : `has the dtype "${header.descr.slice(0, 40)}", which is not supported`,
    );
  }
  const count = checkDims(header.shape, name);
  const dataBytes = byteLengthOf(dtype, count);
  if (dataStart + dataBytes !== source.size) {
    return refuse(`should have ${dataBytes} bytes of data and has ${source.size - dataStart}`);
  }
  const data = sliceSource(source, dataStart, dataBytes);
  return {
    name,
    dtype,
    dims: header.shape,
    source: header.fortranOrder ? toRowMajor(data, dtype, header.shape, name) : data,
    encoding: order === ">" ? bigEndian(dtype) : undefined,
  };
}

interface NpyHeader {
  readonly descr: string;
  readonly fortranOrder: boolean;
  readonly shape: readonly number[];
}

/** `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, its keys in any order. */
function parseHeader(text: string): NpyHeader | undefined {
  let rest = text;
  const take = (pattern: RegExp): string | undefined => {
    const match = pattern.exec(rest);
    if (!match) return undefined;
    rest = rest.slice(match[0].length);
    return match[1] ?? "";
  };
  const fields = new Map<string, string>();
  if (take(/^\s*\{/) === undefined) return undefined;
  while (take(/^\s*\}\s*$/) === undefined) {
    const key = take(/^\s*['"](\w+)['"]\s*:/);
    const value = take(/^\s*('[^'\\]*'|"[^"\\]*"|True|False|\([\d\sL,]*\))\s*/);
    if (key === undefined || value === undefined || fields.has(key)) return undefined;
    fields.set(key, value);
    if (take(/^,/) === undefined && !/^\}\s*$/.test(rest)) return undefined;
  }
  const descr = /^['"](.*)['"]$/.exec(fields.get("descr") ?? "")?.[1];
  const order = fields.get("fortran_order");
  const shape = parseShape(fields.get("shape") ?? "");
  if (fields.size !== 3 || descr === undefined || !shape || (order !== "True" && order !== "False")) return undefined;
  return { descr, fortranOrder: order === "True", shape };
}

/** A tuple of sizes. Cut at its commas: one pattern for all of it would take time that grows with the square of its length. */
function parseShape(text: string): number[] | undefined {
  if (!text.startsWith("(") || !text.endsWith(")")) return undefined;
  const parts = text.slice(1, -1).split(",");
  // After the last comma there need not be another size; `(3)`, without one, is a number in Python and no tuple.
  if (parts.at(-1)!.trim() === "") parts.pop();
  else if (parts.length === 1) return undefined;
  const sizes = parts.map((part) => /^(\d{1,40})L?$/.exec(part.trim())?.[1]);
  return sizes.includes(undefined) ? undefined : sizes.map(Number);
}

/**
 * Column-major to row-major, in memory. Column-major data of two or more axes has the elements of a sample spread over the whole file,
 * so it cannot be read sample by sample.
 */
function toRowMajor(source: ByteSource, dtype: DType, dims: readonly number[], name: string): ByteSource {
  if (dims.length < 2) return source;
  if (source.size > LIMITS.memoryBytes) {
    throw new CoreError(
      "limit_exceeded",
      `"${name}" is in Fortran order and larger than ${LIMITS.memoryBytes} bytes: save it in C order (numpy.ascontiguousarray).`,
      name,
    );
  }
  const size = DTYPES[dtype].bits / 8;
  const from = source.read(0, source.size);
  const to = new Uint8Array(from.byteLength);
  // Walks the output in order; `at` is the element's place in the input, moved by one stride per step of an axis.
  const strides = dims.map((_, axis) => dims.slice(0, axis).reduce((product, dim) => product * dim, 1));
  const index = new Array<number>(dims.length).fill(0);
  let at = 0;
  for (let out = 0; out < to.byteLength; out += size) {
    for (let k = 0; k < size; k++) to[out + k] = from[at * size + k]!;
    for (let axis = dims.length - 1; axis >= 0; axis--) {
      at += strides[axis]!;
      if (++index[axis]! < dims[axis]!) break;
      at -= strides[axis]! * dims[axis]!;
      index[axis] = 0;
    }
  }
  return memorySource(to);
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}
