/**
 * The dtype table: every ONNX element type this project can name, with what the rest of the code needs to know of it.
 * Names are onnxruntime's (`float32`, `int4`); `onnx` is TensorProto.DataType.
 * Types narrower than a byte are packed low bits first, in flat row-major order, and the last byte is padded with zeros.
 */
export const DTYPES = {
  float32: { onnx: 1, bits: 32, kind: "float" },
  uint8: { onnx: 2, bits: 8, kind: "uint" },
  int8: { onnx: 3, bits: 8, kind: "int" },
  uint16: { onnx: 4, bits: 16, kind: "uint" },
  int16: { onnx: 5, bits: 16, kind: "int" },
  int32: { onnx: 6, bits: 32, kind: "int" },
  int64: { onnx: 7, bits: 64, kind: "int" },
  string: { onnx: 8, bits: 0, kind: "string" },
  bool: { onnx: 9, bits: 8, kind: "bool" },
  float16: { onnx: 10, bits: 16, kind: "float" },
  float64: { onnx: 11, bits: 64, kind: "float" },
  uint32: { onnx: 12, bits: 32, kind: "uint" },
  uint64: { onnx: 13, bits: 64, kind: "uint" },
  complex64: { onnx: 14, bits: 64, kind: "complex" },
  complex128: { onnx: 15, bits: 128, kind: "complex" },
  bfloat16: { onnx: 16, bits: 16, kind: "float" },
  float8e4m3fn: { onnx: 17, bits: 8, kind: "float" },
  float8e4m3fnuz: { onnx: 18, bits: 8, kind: "float" },
  float8e5m2: { onnx: 19, bits: 8, kind: "float" },
  float8e5m2fnuz: { onnx: 20, bits: 8, kind: "float" },
  uint4: { onnx: 21, bits: 4, kind: "uint" },
  int4: { onnx: 22, bits: 4, kind: "int" },
  float4e2m1: { onnx: 23, bits: 4, kind: "float" },
  float8e8m0: { onnx: 24, bits: 8, kind: "float" },
  uint2: { onnx: 25, bits: 2, kind: "uint" },
  int2: { onnx: 26, bits: 2, kind: "int" },
} as const satisfies Record<string, { onnx: number; bits: number; kind: string }>;

export type DType = keyof typeof DTYPES;

const BY_ONNX = new Map<number, DType>((Object.keys(DTYPES) as DType[]).map((dtype) => [DTYPES[dtype].onnx, dtype]));

/** The dtype of a TensorProto.DataType number, or undefined when the number is not one we know. */
export function dtypeOfOnnx(onnx: number): DType | undefined {
  return BY_ONNX.get(onnx);
}

/** TensorProto.DataType of a dtype. */
export function onnxOfDtype(dtype: DType): number {
  return DTYPES[dtype].onnx;
}

/** Bytes that `count` elements of `dtype` occupy when packed. */
export function byteLengthOf(dtype: DType, count: number): number {
  return Math.ceil((count * DTYPES[dtype].bits) / 8);
}
