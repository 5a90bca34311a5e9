import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { classCount, classRows, labelledAxis } from "../../../src/core/onnx/class-axis.ts";
import { elementCount } from "../../../src/core/onnx/tensor.ts";

test("classes lie along the last axis that is not of one, or along the channels where only these fit the labels", () => {
  for (const [scores, labels, expected] of [
    [[4, 10], [4], null],
    [[4, 10], [4, 1], null],
    [[4, 10, 1, 1], [4], null],
    [[4, 7, 10], [4, 7], null],
    [[4, 3, 5, 6], [4, 5, 6], 1],
    [[4, 3, 5, 6], [4, 1, 5, 6], 1],
    [[4, 3, 5, 1], [4, 5], 1],
    [[4, 5, 5, 5], [4, 5, 5], null],
    [[4, 3, 5, 6], [4, 3, 6], undefined],
    [[4, 10], [4, 10], undefined],
    [[4, 1], [4], undefined],
  ] as const) {
    assert.equal(labelledAxis(scores, labels), expected, `[${scores}] with labels of [${labels}]`);
  }
  assert.equal(classCount([4, 3, 1, 1], null), 3);
  assert.equal(classCount([4, 3, 5, 6], 1), 3);
  assert.equal(classCount([4, 3, 5, 6], -2), 5);
});

test("rows of classes are the columns of an axis, in the order of the other axes", () => {
  const shapes = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 2, maxLength: 5 });
  fc.assert(
    fc.property(shapes, fc.nat(), fc.boolean(), (dims, pick, fromEnd) => {
      const axis = pick % dims.length;
      const values = Float32Array.from({ length: elementCount(dims) }, (_, i) => i);
      const others = dims.toSpliced(axis, 1);
      const strides = dims.map((_, i) => elementCount(dims.slice(i + 1)));
      const expected: number[] = [];
      for (let row = 0; row < elementCount(others); row++) {
        let [rest, start] = [row, 0];
        for (let i = others.length - 1; i >= 0; i--) {
          start += (rest % others[i]!) * strides[i < axis ? i : i + 1]!;
          rest = Math.floor(rest / others[i]!);
        }
        for (let k = 0; k < dims[axis]!; k++) expected.push(start + k * strides[axis]!);
      }
      assert.deepEqual([...classRows(values, dims, fromEnd ? axis - dims.length : axis)], expected);
    }),
  );
  const values = Float32Array.of(1, 2);
  assert.equal(classRows(values, [1, 2], null), values);
});
