import { CoreError } from "../errors.ts";
import { byteLengthOf, type DType } from "../onnx/dtype.ts";
import { type ByteSource, sliceSource } from "./byte-source.ts";
import { checkDims, checkName, LIMITS } from "./limits.ts";
import type { StoredArray } from "./sample-array.ts";

/** The format's dtypes that a dataset may hold. */
const TYPE_CODES: Readonly<Record<string, DType>> = {
  BOOL: "bool",
  I8: "int8",
  U8: "uint8",
  I16: "int16",
  U16: "uint16",
  I32: "int32",
  U32: "uint32",
  I64: "int64",
  U64: "uint64",
  F16: "float16",
  BF16: "bfloat16",
  F32: "float32",
  F64: "float64",
};

const LENGTH_BYTES = 8;

/** Whether a file begins as a .safetensors does: a plausible header length, then JSON. */
export function isSafetensors(source: ByteSource): boolean {
  return source.size > LENGTH_BYTES && source.read(LENGTH_BYTES, 1)[0] === "{".charCodeAt(0);
}

/**
 * The arrays of a .safetensors file (https://huggingface.co/docs/safetensors): eight bytes of header length, a JSON header, the data.
 * As the format demands, the arrays must cover the data without gaps and without overlaps. Throws `invalid_dataset` or `limit_exceeded`.
 */
export function readSafetensors(source: ByteSource): StoredArray[] {
  const lengthBytes = source.read(0, LENGTH_BYTES);
  const headerBytes = new DataView(lengthBytes.buffer, lengthBytes.byteOffset, LENGTH_BYTES).getBigUint64(0, true);
  if (headerBytes > LIMITS.safetensorsHeaderBytes) {
    throw new CoreError("limit_exceeded", `The .safetensors header claims ${headerBytes} bytes, more than is allowed.`);
  }
  const dataStart = LENGTH_BYTES + Number(headerBytes);
  if (dataStart > source.size)
    throw new CoreError("invalid_dataset", "The .safetensors file is cut off in its header.");

  const header = parseHeader(source.read(LENGTH_BYTES, Number(headerBytes)));
  const entries = Object.entries(header).filter(([name]) => name !== "__metadata__");
  if (entries.length > LIMITS.arrays) {
    throw new CoreError(
      "limit_exceeded",
      `The dataset has ${entries.length} arrays; at most ${LIMITS.arrays} are allowed.`,
    );
  }
  const located = entries.map(([name, entry]) => locate(name, entry));
  located.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let covered = 0;
  for (const { name, begin, end } of located) {
    if (begin !== covered) {
      throw new CoreError("invalid_dataset", `"${name}" does not begin where the array before it ends.`, name);
    }
    covered = end;
  }
  if (covered !== source.size - dataStart) {
    throw new CoreError(
      "invalid_dataset",
      `The arrays take ${covered} bytes and the file holds ${source.size - dataStart} bytes of data.`,
    );
  }
  return located.map(({ name, dtype, dims, begin, end }) => ({
    name,
    dtype,
    dims,
    source: sliceSource(source, dataStart + begin, end - begin),
  }));
}

function parseHeader(bytes: Uint8Array): object {
  try {
    const header: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (isObject(header)) return header;
  } catch {
    // Refused below, like JSON that is not an object.
  }
  throw new CoreError("invalid_dataset", "The .safetensors header is not a JSON object.");
}

function locate(name: string, entry: unknown) {
  checkName(name);
  const refuse = (why: string): never => {
    throw new CoreError("invalid_dataset", `"${name}" ${why}.`, name);
  };
  if (!isObject(entry)) return refuse("is not described by an object");
  const { dtype: code, shape, data_offsets: offsets } = entry as Readonly<Record<string, unknown>>;
  const dtype = typeof code === "string" && Object.hasOwn(TYPE_CODES, code) ? TYPE_CODES[code] : undefined;
  if (!dtype) return refuse(`has the dtype ${JSON.stringify(code)?.slice(0, 40)}, which is not supported`);
  if (!isSizes(shape)) return refuse("has a shape that is not a list of sizes");
  if (!isSizes(offsets) || offsets.length !== 2) return refuse("has offsets that are not two sizes");
  const [begin, end] = offsets as [number, number];
  const bytes = byteLengthOf(dtype, checkDims(shape, name));
  if (end - begin !== bytes) return refuse(`needs ${bytes} bytes and its offsets span ${end - begin}`);
  return { name, dtype, dims: shape, begin, end };
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}
