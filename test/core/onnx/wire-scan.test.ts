import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { ModelProtoSchema } from "onnx-buf";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { scanModelBytes } from "../../../src/core/onnx/wire-scan.ts";
import { branches } from "../../support/graphs.ts";
import { model } from "../../support/protos.ts";
import { REAL_MODEL_NAMES, readRealModel } from "../../support/real-models.ts";

/** Tag of a field. */
const tag = (number: number, wire: number) => number * 8 + wire;
const field = (number: number, content: readonly number[]) => [tag(number, 2), content.length, ...content];

const GRAPH = 7;
const PRODUCER_NAME = 2;
const NODE = 1;

const DAMAGED: Record<string, readonly number[]> = {
  "a tag without content": [tag(1, 0)],
  "a length past the end": [tag(PRODUCER_NAME, 2), 5, 97],
  "a length of 2^63": [tag(PRODUCER_NAME, 2), ...Array(9).fill(0xff), 1],
  "a varint of 11 bytes": [tag(1, 0), ...Array(10).fill(0xff), 1],
  "field number 0": [tag(0, 0), 1],
  "a group": [tag(100, 3), tag(100, 4)],
  "an end of a group": [tag(100, 4)],
  "an unknown wire type": [tag(100, 6)],
  "a string sent as a number": [tag(PRODUCER_NAME, 0), 1],
  "a number sent as a string": field(1, [1]),
  "a message sent as a number": [tag(GRAPH, 0), 1],
  // protobuf-es reads on past the end of the inner message; C++ refuses.
  "an inner field that is longer than its message": [...field(GRAPH, [tag(NODE, 2), 9]), ...Array(16).fill(0)],
  "a fixed number that is cut off": [tag(100, 5), 1, 2],
};

for (const [name, bytes] of Object.entries(DAMAGED)) {
  test(`refused: ${name}`, () => {
    assert.throws(() => scanModelBytes(Uint8Array.from(bytes)), { name: "CoreError", code: "invalid_model" });
  });
}

test("unknown fields of every wire type are passed over", () => {
  const unknown = [tag(15, 0), 1, tag(15, 1), ...Array(8).fill(0), ...field(15, [1, 2]), tag(15, 5), 0, 0, 0, 0];
  scanModelBytes(Uint8Array.from([...model(), ...unknown]));
});

test("lists of numbers may come packed or one by one", () => {
  const initializer = (content: readonly number[]) => Uint8Array.from(field(GRAPH, field(5, content)));
  scanModelBytes(initializer(field(1, [1, 2, 3])));
  scanModelBytes(initializer([tag(1, 0), 1, tag(1, 0), 2]));
  assert.throws(() => scanModelBytes(initializer(field(4, [0, 0, 0]))), /middle of one/);
});

test("real models pass", () => {
  for (const name of REAL_MODEL_NAMES) scanModelBytes(readRealModel(name));
});

test("every file cut off anywhere is refused, or is a whole message", () => {
  const bytes = modelToBytes(branches({ features: 4 }));
  let whole = 0;
  for (let length = 0; length < bytes.length; length++) {
    const cut = bytes.subarray(0, length);
    try {
      scanModelBytes(cut);
    } catch (error) {
      assert.equal((error as { code?: string }).code, "invalid_model");
      continue;
    }
    whole++;
    fromBinary(ModelProtoSchema, cut);
  }
  // Between the fields of the outermost message a file may end.
  assert.ok(whole >= 1 && whole < 10, `${whole} lengths`);
});
