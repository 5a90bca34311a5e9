import assert from "node:assert/strict";
import { test } from "node:test";
import { parseObjectAddress, unlistedObject } from "../../src/service/blobs/objects.ts";

test("an address of an object is a bucket and a key, which is taken as it is", () => {
  assert.deepEqual(parseObjectAddress("s3://models/a/b%20c d?versionId=1#x.onnx"), {
    bucket: "models",
    key: "a/b%20c d?versionId=1#x.onnx",
  });
  assert.deepEqual(parseObjectAddress("s3://models//a//ü..onnx")?.key, "/a//ü..onnx");
  assert.equal(parseObjectAddress(`s3://models/${"k".repeat(1024)}`)?.key.length, 1024);
  const wrong = [
    ...["https://models/a", "S3://models/a", "s3://models", "s3://models/", "s3:///a", "s3://mo/a", "s3://mod els/a"],
    ...["s3://user@models/a", "s3://models:9000/a", "s3://arn:aws:s3:::models/a", "s3://..a/a", "s3://models/folder/"],
    ...["s3://models/a/../b", "s3://models/./a", "s3://models/..", "s3://models/a\nb", "s3://models/\ud800", ""],
    `s3://models/${"k".repeat(1025)}`,
  ];
  for (const text of wrong) assert.equal(parseObjectAddress(text), undefined, JSON.stringify(text));
});

test("only objects of listed buckets and folders are reached, by whole names", () => {
  const refusal = (text: string, ...entries: string[]) => unlistedObject(text, entries, "LIST");
  assert.equal(refusal("s3://models/any/key", "other/", "models/"), undefined);
  assert.equal(refusal("s3://models/released/a.onnx", "models/released/"), undefined);
  for (const [text, entry] of [
    ["s3://models-private/key", "models/"],
    ["s3://Models/key", "models/"],
    ["s3://models/Released/a", "models/released/"],
    ["s3://models/released", "models/released/"],
    ["s3://models/released-not/a", "models/released/"],
    ["s3://other/models/released/a", "models/released/"],
  ] as const) {
    assert.match(refusal(text, entry)!, /in no bucket or folder .* \(LIST\): those are s3:\/\/models/, text);
  }
  assert.match(refusal("s3://models/released/../a", "models/released/")!, /must be s3:\/\/bucket\/key/);
  assert.match(refusal("s3://models/a")!, /has allowed no bucket: LIST lists them/);
  assert.match(refusal("https://models/a", "models")!, /must be s3:\/\/bucket\/key/);
});
