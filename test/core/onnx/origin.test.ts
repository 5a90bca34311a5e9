import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { ModelProtoSchema } from "onnx-buf";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { toldBefore, UNTOLD } from "../../../src/core/onnx/origin.ts";
import { modelToBytes, predictedBytes } from "../../../src/core/onnx/save.ts";
import { mlp } from "../../support/networks.ts";

const ORIGIN = { producerName: "modelpress", producerVersion: "1.2.3", metadata: { method: "static", source: "ab" } };
const propsOf = (bytes: Uint8Array) =>
  fromBinary(ModelProtoSchema, bytes).metadataProps.map(({ key, value }) => [key, value]);

test("a file says where it comes from, keeps what it has said of itself, and says it once", () => {
  const made = mlp([4, 3, 2]);
  made.origin = { ...ORIGIN, metadata: { method: "float16", teacher: "cd" } };
  const first = loadModel(modelToBytes(made));
  assert.equal(toldBefore(first.source, "method"), "float16");
  first.source!.metadataProps.unshift({ ...first.source!.metadataProps[0]!, key: "author", value: "somebody" });
  const copy = first.clone();
  copy.origin = ORIGIN;
  const bytes = modelToBytes(copy);
  assert.equal(predictedBytes(copy), bytes.length);
  assert.deepEqual(propsOf(bytes), [
    ["author", "somebody"],
    ["modelpress.method", "static"],
    ["modelpress.source", "ab"],
  ]);
  const { producerName, producerVersion } = fromBinary(ModelProtoSchema, bytes);
  assert.deepEqual([producerName, producerVersion], ["modelpress", "1.2.3"]);
  assert.deepEqual(modelToBytes(copy), bytes);
});

test("models that differ in their origin only are the same without it", () => {
  const bytesOf = (origin: typeof ORIGIN | undefined) => {
    const model = mlp([4, 3, 2]);
    model.origin = origin;
    const read = loadModel(modelToBytes(model));
    read.origin = UNTOLD;
    return modelToBytes(read);
  };
  assert.deepEqual(bytesOf(ORIGIN), bytesOf({ ...ORIGIN, producerVersion: "2.0.0" }));
  assert.deepEqual(bytesOf(ORIGIN), bytesOf(undefined));
});
