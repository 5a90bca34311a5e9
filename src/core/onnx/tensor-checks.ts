import { type SparseTensorProto, type TensorProto, TensorProto_DataLocation, TensorProto_DataType } from "onnx-buf";
import { CoreError } from "../errors.ts";
import { DTYPES, type DType, dtypeOfOnnx } from "./dtype.ts";
import { type ExternalData, externalRangeOf } from "./external-data.ts";
import { LIMITS, quoted } from "./limits.ts";

/**
 * The fields of a TensorProto that list elements one by one, and how many entries `count` elements take there. 16-bit and 8-bit types put
 * one element into an int32, narrower ones a byte of packed elements; complex numbers are two entries.
 */
const TYPED_FIELDS = {
  floatData: { float32: 1, complex64: 2 },
  doubleData: { float64: 1, complex128: 2 },
  int64Data: { int64: 1 },
  uint64Data: { uint64: 1, uint32: 1 },
  stringData: { string: 1 },
  int32Data: {
    int32: 1,
    int16: 1,
    int8: 1,
    uint16: 1,
    uint8: 1,
    bool: 1,
    float16: 1,
    bfloat16: 1,
    float8e4m3fn: 1,
    float8e4m3fnuz: 1,
    float8e5m2: 1,
    float8e5m2fnuz: 1,
    float8e8m0: 1,
    uint4: 1 / 2,
    int4: 1 / 2,
    float4e2m1: 1 / 2,
    uint2: 1 / 4,
    int2: 1 / 4,
  },
} as const satisfies Partial<Record<keyof TensorProto, Partial<Record<DType, number>>>>;

type TypedField = keyof typeof TYPED_FIELDS;

/**
 * Throws unless dtype, dims and data of a tensor agree exactly. `external` undefined means that external data is not allowed here at all.
 * Afterwards dims and every product of them are exact as doubles.
 */
export function checkTensor(proto: TensorProto, external: ExternalData | undefined): void {
  const fail: (what: string) => never = (what) => {
    throw new CoreError("invalid_model", `The tensor ${quoted(proto.name)} ${what}.`, proto.name);
  };
  const dtype = dtypeOfOnnx(proto.dataType);
  if (!dtype) fail(`has the unknown data type ${proto.dataType}`);
  const count = checkDims(proto.dims, fail);
  if (proto.segment) fail("is stored in segments, which no runtime reads");

  const typed = (Object.keys(TYPED_FIELDS) as TypedField[]).filter((field) => proto[field].length > 0);
  if (proto.dataLocation === TensorProto_DataLocation.EXTERNAL) {
    if (!external) fail("keeps its data outside the model, which is allowed for initializers and Constant nodes only");
    if (dtype === "string") fail("holds strings, which cannot be kept outside the model");
    if (typed.length > 0 || proto.rawData.length > 0) fail("has data both inside and outside the model");
    checkExternal(proto, bytesOf(dtype, count), external);
    return;
  }
  if (typed.length > 1 || (typed.length > 0 && proto.rawData.length > 0)) fail("stores its data twice");
  const [field] = typed;
  if (field) {
    const perElement = (TYPED_FIELDS[field] as Partial<Record<DType, number>>)[dtype];
    if (perElement === undefined) fail(`is ${dtype} and stores its data in a field for other types`);
    const expected = Math.ceil(count * perElement);
    if (proto[field].length !== expected) {
      fail(`has ${proto[field].length} stored values where its shape [${proto.dims}] needs ${expected}`);
    }
    return;
  }
  if (dtype === "string" && (count > 0 || proto.rawData.length > 0)) fail("has no strings for its shape");
  const expected = bytesOf(dtype, count);
  if (proto.rawData.length !== expected) {
    fail(`has ${proto.rawData.length} bytes of data where ${dtype} of shape [${proto.dims}] needs ${expected}`);
  }
}

/** The number of elements; exact, because it and every axis is within `LIMITS.elements`. */
function checkDims(dims: readonly bigint[], fail: (what: string) => never): number {
  if (dims.length > LIMITS.rank) return fail(`has ${dims.length} axes (at most ${LIMITS.rank})`);
  const limit = BigInt(LIMITS.elements);
  let count = 1n;
  // Zero axes count as one for the bound, so that no partial product of the others can overflow either.
  let bound = 1n;
  for (const dim of dims) {
    if (dim < 0n) return fail(`has the negative dimension ${dim}`);
    count *= dim;
    bound *= dim > 0n ? dim : 1n;
    if (bound > limit) return fail(`has the shape [${dims}], which is more than ${LIMITS.elements} elements`);
  }
  return Number(count);
}

function bytesOf(dtype: DType, count: number): number {
  return Math.ceil((count * DTYPES[dtype].bits) / 8);
}

function checkExternal(proto: TensorProto, expected: number, external: ExternalData): void {
  const { location, offset, length } = externalRangeOf(proto);
  const name = quoted(proto.name);
  const size = external.size(location);
  if (size === undefined) {
    throw new CoreError(
      "invalid_model",
      `The tensor ${name} keeps its data in the file ${quoted(location)}, which was not given: upload that file together with the model.`,
      location,
    );
  }
  if (length !== undefined && length !== expected) {
    throw new CoreError(
      "invalid_model",
      `The tensor ${name} takes ${length} bytes of ${quoted(location)} where its type and shape need ${expected}.`,
      proto.name,
    );
  }
  if (offset + expected > size) {
    throw new CoreError(
      "invalid_model",
      `The tensor ${name} needs bytes ${offset} to ${offset + expected} of ${quoted(location)}, which has ${size}.`,
      proto.name,
    );
  }
}

/**
 * Throws unless the values are a list of n, the indices n positions inside the dense shape, and that shape bearable: the runtime makes the
 * dense tensor when it loads the model.
 */
export function checkSparseTensor(proto: SparseTensorProto): void {
  const { values, indices } = proto;
  const name = values?.name ?? "";
  const fail: (what: string) => never = (what) => {
    throw new CoreError("invalid_model", `The sparse tensor ${quoted(name)} ${what}.`, name || undefined);
  };
  if (!values || !indices) fail("lacks its values or its indices");
  checkTensor(values, undefined);
  checkTensor(indices, undefined);
  const dense = checkDims(proto.dims, fail);
  if (dense > LIMITS.madeElements) fail(`has a dense shape of more than ${LIMITS.madeElements} elements`);
  const rank = proto.dims.length;
  if (values.dims.length !== 1 || rank === 0) fail("must list its values along one axis of a tensor with axes");
  const count = Number(values.dims[0]);
  if (indices.dataType !== TensorProto_DataType.INT64) fail("has indices that are not int64");
  const flat = indices.dims.length === 1;
  if (Number(indices.dims[0]) !== count || !(flat || (indices.dims.length === 2 && Number(indices.dims[1]) === rank))) {
    fail(`has ${count} values and indices of shape [${indices.dims}]`);
  }
  const bounds = flat ? [BigInt(dense)] : proto.dims;
  const positions = int64sOf(indices);
  for (let i = 0; i < positions.length; i++) {
    const position = positions[i]!;
    const bound = bounds[i % bounds.length]!;
    if (position < 0n || position >= bound) fail(`has the index ${position} on an axis of ${bound}`);
  }
}

/** The elements of an int64 tensor that `checkTensor` has passed and that is inside the model. */
function int64sOf(proto: TensorProto): readonly bigint[] | BigInt64Array {
  if (proto.int64Data.length > 0) return proto.int64Data;
  return new BigInt64Array(proto.rawData.slice().buffer);
}
