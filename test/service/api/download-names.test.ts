import assert from "node:assert/strict";
import { test } from "node:test";
import { artifactFileName, modelFileName } from "../../../src/service/api/download-names.ts";

test("downloads are named after the model and what was done to it", () => {
  assert.equal(modelFileName("rec", 1), "rec.onnx");
  assert.equal(modelFileName("rec.ONNX", 1), "rec.onnx");
  assert.equal(modelFileName("rec static", 2), "rec static.tar");
  assert.equal(artifactFileName("model.onnx", "rec static"), "rec static.onnx");
  assert.equal(artifactFileName("report.html", "rec static"), "rec static report.html");
  assert.equal(artifactFileName("step-1.report.json", "rec pipeline"), "rec pipeline step-1.report.json");
  // The graph names it: under another name the model could not be loaded.
  assert.equal(artifactFileName("model.onnx.data", "rec static"), "model.onnx.data");
  assert.equal(artifactFileName("model.onnx", undefined), "model.onnx");
});

test("what file systems do not take is replaced, and names stay short", () => {
  assert.equal(modelFileName("a/b\\c:d\u0000e", 1), "a-b-c-d-e.onnx");
  assert.equal(modelFileName("../../etc", 1), "--..-etc.onnx");
  const long = artifactFileName("report.html", "ä".repeat(200));
  assert.ok(Buffer.byteLength(long) <= 255 && long.endsWith(" report.html") && !long.includes("\ufffd"));
});
