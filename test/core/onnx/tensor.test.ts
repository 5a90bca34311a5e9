import assert from "node:assert/strict";
import { test } from "node:test";
import { TensorProto_DataType as DataType } from "onnx-buf";
import { byteLengthOf, DTYPES, type DType, dtypeOfOnnx, onnxOfDtype } from "../../../src/core/onnx/dtype.ts";
import {
  arrayOf,
  deriveTensors,
  elementCount,
  floatsOf,
  integersOf,
  lazyTensor,
  scalarOf,
  tensor,
  tensorOf,
} from "../../../src/core/onnx/tensor.ts";

test("the dtype table has every type of the format under its number", () => {
  const numbers = Object.values(DataType).filter((value) => typeof value === "number" && value !== 0);
  for (const number of numbers) {
    const dtype = dtypeOfOnnx(number as number);
    assert.ok(dtype, `data type ${number}`);
    assert.equal(onnxOfDtype(dtype), number);
  }
  assert.equal(Object.keys(DTYPES).length, numbers.length);
  assert.equal(dtypeOfOnnx(0), undefined);
});

test("bytes of packed types round up", () => {
  const cases: [DType, number, number][] = [
    ["float32", 3, 12],
    ["int4", 3, 2],
    ["int2", 5, 2],
    ["uint2", 4, 1],
    ["complex128", 1, 16],
    ["bool", 3, 3],
    ["int4", 0, 0],
  ];
  for (const [dtype, count, bytes] of cases) assert.equal(byteLengthOf(dtype, count), bytes);
});

test("a scalar has one element, and an axis of 0 makes a tensor empty", () => {
  assert.equal(elementCount([]), 1);
  assert.equal(elementCount([3, 0, 5]), 0);
});

test("a tensor's bytes must fit its shape", () => {
  assert.throws(() => tensor("float32", [2], new Uint8Array(7)), { code: "internal" });
  assert.equal(tensor("int4", [3], new Uint8Array(2)).byteLength, 2);
});

test("the elements are a view when the bytes are aligned, and right when they are not", () => {
  const bytes = new Uint8Array(new Float32Array([0, 1.5, -2]).buffer);
  const aligned = tensor("float32", [3], bytes);
  assert.equal(arrayOf(aligned, "float32").buffer, bytes.buffer);
  const shifted = new Uint8Array(13);
  shifted.set(bytes, 1);
  assert.deepEqual([...arrayOf(tensor("float32", [3], shifted.subarray(1)), "float32")], [0, 1.5, -2]);
  assert.throws(() => arrayOf(aligned, "int32"), { code: "internal" });
});

test("every float type gives float32 values", () => {
  const expected = [0, 1.5, -2];
  assert.deepEqual([...floatsOf(tensorOf("float32", [3], expected))], expected);
  assert.deepEqual([...floatsOf(tensorOf("float64", [3], expected))], expected);
  assert.deepEqual([...floatsOf(tensorOf("float16", [3], expected))], expected);
  const bfloat16 = Uint8Array.of(0, 0, 0xc0, 0x3f, 0, 0xc0);
  assert.deepEqual([...floatsOf(tensor("bfloat16", [3], bfloat16))], expected);
  assert.throws(() => floatsOf(tensorOf("int32", [1], [1])), { code: "unsupported" });
});

test("every integer type gives numbers, packed ones low bits first", () => {
  assert.deepEqual(integersOf(tensorOf("int64", [2], [-5, 7])), [-5, 7]);
  assert.deepEqual(integersOf(tensorOf("uint8", [2], [255, 0])), [255, 0]);
  assert.deepEqual(integersOf(tensorOf("bool", [2], [1, 0])), [1, 0]);
  assert.deepEqual(integersOf(tensor("int4", [3], Uint8Array.of(0x8f, 0x07))), [-1, -8, 7]);
  assert.deepEqual(integersOf(tensor("uint4", [3], Uint8Array.of(0x8f, 0x07))), [15, 8, 7]);
  assert.deepEqual(integersOf(tensor("int2", [5], Uint8Array.of(0b11_10_01_00, 0b10))), [0, 1, -2, -1, -2]);
  assert.deepEqual(integersOf(tensor("uint2", [4], Uint8Array.of(0b11_10_01_00))), [0, 1, 2, 3]);
  assert.throws(() => integersOf(scalarOf("float32", 1)), { code: "unsupported" });
});

test("lazy bytes are read at every access, derived ones are computed for the group", () => {
  let reads = 0;
  const lazy = lazyTensor("int8", [2], () => {
    reads++;
    return Uint8Array.of(1, 2);
  });
  assert.equal(lazy.byteLength, 2);
  assert.equal(reads, 0);
  assert.deepEqual([...lazy.bytes, ...lazy.bytes], [1, 2, 1, 2]);
  assert.equal(reads, 2);

  let computed = 0;
  const types = { a: { dtype: "int8", dims: [1] }, b: { dtype: "int8", dims: [1] } } as const;
  const group = (value: number) =>
    deriveTensors(types, () => {
      computed++;
      return { a: Uint8Array.of(value), b: Uint8Array.of(value + 1) };
    });
  const [first, second] = [group(1), group(3)];
  assert.deepEqual([first.a.bytes[0], first.b.bytes[0]], [1, 2]);
  assert.equal(computed, 1);
  assert.deepEqual([second.a.bytes[0], first.b.bytes[0]], [3, 2]);
  assert.equal(computed, 3);
});
