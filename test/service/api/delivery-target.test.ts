import assert from "node:assert/strict";
import { test } from "node:test";
import { deliveryErrors } from "../../../src/service/api/delivery-target.ts";

const SETTINGS = {
  deliverAllowHosts: ["store.internal:9000"],
  deliverAllowBuckets: ["models/out/"],
  deliverAllowRegisteredModels: ["digits", "ocr-*"],
};

test("a job delivers to listed hosts by PUT, to listed buckets by S3, to listed models of MLflow; one list does not open the other", () => {
  const errors = (kind: "put" | "s3" | "mlflow", url: string, settings = SETTINGS) =>
    deliveryErrors({ kind, url, artifact: "model.onnx" }, "quantize", settings);
  assert.deepEqual(errors("put", "http://store.internal:9000/key?signature=1"), []);
  assert.deepEqual(errors("s3", "s3://models/out/key"), []);
  for (const [kind, url, message] of [
    ["put", "https://models/out/key", /Its host is not one/],
    ["put", "s3://models/out/key", /needs the `kind` s3/],
    ["s3", "http://store.internal:9000/key", /must be s3:\/\/bucket\/key/],
    ["s3", "s3://models/blobs/key", /\(DELIVER_ALLOW_BUCKETS\): those are s3:\/\/models\/out\//],
    ["s3", "s3://store.internal/key", /in no bucket or folder/],
    ["mlflow", "models:/digits2", /\(DELIVER_ALLOW_REGISTERED_MODELS\): those are digits, ocr-\*/],
    ["mlflow", "models:/digits/3", /must be models:\/name, of which the delivery makes a new version/],
    ["mlflow", "s3://models/out/key", /must be models:\/name/],
    ["put", "models:/digits", /must start with https/],
  ] as const) {
    const [error] = errors(kind, url);
    assert.deepEqual([error?.pointer, error?.code], ["/deliver_to/url", "delivery_refused"], url);
    assert.match(error!.message, message);
  }
  for (const url of ["models:/digits", "models:/ocr-rec 2"]) assert.deepEqual(errors("mlflow", url), []);
  const other = deliveryErrors(
    { kind: "mlflow", url: "models:/digits", artifact: "report.json" },
    "quantize",
    SETTINGS,
  );
  assert.deepEqual([other[0]?.pointer, other[0]?.code], ["/deliver_to/artifact", "no_effect"]);
  const off = { deliverAllowHosts: ["*"], deliverAllowBuckets: [], deliverAllowRegisteredModels: [] };
  assert.match(errors("mlflow", "models:/digits", off)[0]!.message, /DELIVER_ALLOW_REGISTERED_MODELS lists them/);
  assert.match(errors("s3", "s3://models/out/key", off)[0]!.message, /DELIVER_ALLOW_BUCKETS lists them/);
  const evaluation = deliveryErrors({ kind: "s3", url: "s3://a", artifact: "model.onnx" }, "evaluate", SETTINGS);
  assert.deepEqual(
    evaluation.map(({ pointer }) => pointer),
    ["/deliver_to/url", "/deliver_to/artifact"],
  );
});
