import assert from "node:assert/strict";
import { test } from "node:test";
import { tellingNames } from "../../tools/telling-names.ts";

const named = (...paths: string[]) => [...tellingNames(paths)];

test("files are called by as much of the end of their paths as tells them apart", () => {
  assert.deepEqual(named("a/model.onnx"), [["a/model.onnx", "model.onnx"]]);
  assert.deepEqual(named("a/model.onnx", "/x/b/model.onnx", "c.onnx"), [
    ["a/model.onnx", "a/model.onnx"],
    ["/x/b/model.onnx", "b/model.onnx"],
    ["c.onnx", "c.onnx"],
  ]);
  assert.deepEqual(named("a.onnx", "a.onnx"), [["a.onnx", "a.onnx"]]);
  assert.deepEqual(named(), []);
});

test("files whose paths differ in nothing but slashes are called by these", () => {
  assert.deepEqual(named("/a.onnx", "a.onnx"), [
    ["/a.onnx", "/a.onnx"],
    ["a.onnx", "a.onnx"],
  ]);
});
