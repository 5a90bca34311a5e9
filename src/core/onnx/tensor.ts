import { CoreError } from "../errors.ts";
import { byteLengthOf, DTYPES, type DType } from "./dtype.ts";

/**
 * An immutable n-dimensional array: `dims` row-major, `bytes` little-endian and packed as ONNX `raw_data` is.
 * Tensors are shared by every clone of a graph, so nobody may write to `bytes`.
 *
 * `bytes` of a tensor that lives in external data is read at every access and is not kept: take it once, use it, let it go.
 */
export interface Tensor {
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly byteLength: number;
  readonly bytes: Uint8Array;
}

export type Numeric =
  | Float32Array
  | Float64Array
  | Float16Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

/** The dtypes with a JavaScript typed array of their own, and that array. */
const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Float16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
} as const satisfies Partial<Record<DType, unknown>>;

export type ArrayDType = keyof typeof ARRAYS;
export type ArrayOf<D extends ArrayDType> = InstanceType<(typeof ARRAYS)[D]>;
/** The same where threads may share the memory of floats. */
export type ViewOf<D extends ArrayDType> = D extends "float32" ? Float32Array : ArrayOf<D>;

/** Whether elements of this dtype have a typed array: what can be fed to a session, or read from a dataset. */
export function hasArray(dtype: DType): dtype is ArrayDType {
  return Object.hasOwn(ARRAYS, dtype);
}

/** Number of elements of a shape; `[]` is a scalar and has one. */
export function elementCount(dims: readonly number[]): number {
  let count = 1;
  for (const dim of dims) count *= dim;
  return count;
}

/**
 * The axes of stacked samples that say anything: the first, which counts the samples, and of the others those that are not of one. Values of
 * [n, 5], [n, 1, 5] and [n, 5, 1, 1] are the same numbers in the same order.
 */
export function withoutUnitAxes(dims: readonly number[]): readonly number[] {
  return dims.filter((dim, axis) => axis === 0 || dim !== 1);
}

/** A tensor over `bytes`, which it takes over. Throws `internal` when the length does not fit dtype and dims. */
export function tensor(dtype: DType, dims: readonly number[], bytes: Uint8Array): Tensor {
  const expected = byteLengthOf(dtype, elementCount(dims));
  if (bytes.byteLength !== expected) {
    throw new CoreError(
      "internal",
      `A ${dtype} tensor of shape [${dims}] needs ${expected} bytes and was given ${bytes.byteLength}.`,
    );
  }
  return Object.freeze({ dtype, dims: Object.freeze([...dims]), byteLength: expected, bytes });
}

/** A tensor whose bytes are fetched by `read` at every access: external data, or a scratch file. */
export function lazyTensor(dtype: DType, dims: readonly number[], read: () => Uint8Array): Tensor {
  return Object.freeze({
    dtype,
    dims: Object.freeze([...dims]),
    byteLength: byteLengthOf(dtype, elementCount(dims)),
    get bytes() {
      return read();
    },
  });
}

/** The group of derived tensors that was computed last. One is enough: tensors made together are written one after the other. */
let lastDerived: { readonly key: object; readonly bytes: Readonly<Record<string, Uint8Array>> } | undefined;

/**
 * Tensors that are computed together (codes, scales and zero points of one weight), not now but when their bytes are asked for.
 * Building a compressed graph therefore costs neither time nor memory, planning never computes, and saving holds one weight at a time.
 * `compute` must be pure: it runs again when the bytes are asked for again later.
 */
export function deriveTensors<K extends string>(
  types: Readonly<Record<K, { readonly dtype: DType; readonly dims: readonly number[] }>>,
  compute: () => Readonly<Record<K, Uint8Array>>,
): Readonly<Record<K, Tensor>> {
  const key = {};
  const bytesOf = (name: K): Uint8Array => {
    if (lastDerived?.key !== key) lastDerived = { key, bytes: compute() };
    return lastDerived.bytes[name]!;
  };
  return Object.fromEntries(
    (Object.keys(types) as K[]).map((name) => [
      name,
      lazyTensor(types[name].dtype, types[name].dims, () => bytesOf(name)),
    ]),
  ) as Record<K, Tensor>;
}

/** A tensor over a typed array (no copy), or over plain numbers. */
export function tensorOf<D extends ArrayDType>(
  dtype: D,
  dims: readonly number[],
  data: ViewOf<D> | readonly number[],
): Tensor {
  const Ctor = ARRAYS[dtype];
  let array: Numeric;
  if (ArrayBuffer.isView(data)) array = data as Numeric;
  else if (dtype === "int64" || dtype === "uint64") {
    array = new (Ctor as typeof BigInt64Array)((data as readonly number[]).map((x) => BigInt(x)));
  } else array = new (Ctor as typeof Float32Array)(data as readonly number[]);
  return tensor(dtype, dims, new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
}

/** A float32 or int64 scalar. */
export function scalarOf(dtype: ArrayDType, value: number): Tensor {
  return tensorOf(dtype, [], [value]);
}

/** The tensor's elements as the typed array of its dtype: a view when the bytes are aligned, a copy when not. */
export function arrayOf<D extends ArrayDType>(source: Tensor, dtype: D): ArrayOf<D> {
  if (source.dtype !== dtype) throw new CoreError("internal", `Expected a ${dtype} tensor, got ${source.dtype}.`);
  const Ctor = ARRAYS[dtype] as typeof Float32Array;
  let { bytes } = source;
  // Not `slice`: on a Buffer, which is what files are read into, that is a view, as unaligned as before.
  if (bytes.byteOffset % Ctor.BYTES_PER_ELEMENT !== 0) bytes = new Uint8Array(bytes);
  return new Ctor(
    bytes.buffer as ArrayBuffer,
    bytes.byteOffset,
    bytes.byteLength / Ctor.BYTES_PER_ELEMENT,
  ) as unknown as ArrayOf<D>;
}

/** Whether dtype is one that weights are stored in before compression. */
export function isFloat(dtype: DType | undefined): boolean {
  return dtype === "float32" || dtype === "float16" || dtype === "float64" || dtype === "bfloat16";
}

/** Elements of any float tensor as float32 (a view for float32). Throws `unsupported` for other dtypes. */
export function floatsOf(source: Tensor): Float32Array {
  switch (source.dtype) {
    case "float32":
      return arrayOf(source, "float32") as Float32Array;
    case "float16":
      return Float32Array.from(arrayOf(source, "float16") as Float16Array);
    case "float64":
      return Float32Array.from(arrayOf(source, "float64") as Float64Array);
    case "bfloat16": {
      const bytes = source.bytes;
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const words = new Uint32Array(bytes.byteLength / 2);
      for (let i = 0; i < words.length; i++) words[i] = view.getUint16(2 * i, true) << 16;
      return new Float32Array(words.buffer);
    }
    default:
      throw new CoreError("unsupported", `A ${source.dtype} tensor has no float values.`);
  }
}

/** Elements of a small integer or bool tensor as numbers: shapes, axes, pads. Packed 2- and 4-bit types are unpacked. */
export function integersOf(source: Tensor): number[] {
  const { bits, kind } = DTYPES[source.dtype];
  if (kind !== "int" && kind !== "uint" && kind !== "bool") {
    throw new CoreError("unsupported", `A ${source.dtype} tensor has no integer values.`);
  }
  if (bits >= 8) return Array.from(arrayOf(source, source.dtype as ArrayDType) as Int32Array, Number);
  const count = elementCount(source.dims);
  const perByte = 8 / bits;
  const mask = (1 << bits) - 1;
  const { bytes } = source;
  return Array.from({ length: count }, (_, i) => {
    const code = (bytes[Math.floor(i / perByte)]! >> (bits * (i % perByte))) & mask;
    return kind === "int" && code > mask >> 1 ? code - mask - 1 : code;
  });
}
