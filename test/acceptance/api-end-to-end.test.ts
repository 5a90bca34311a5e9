import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { ModelProtoSchema } from "onnx-buf";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { type Caller, createCaller, formOf } from "../support/calls.ts";
import { writeNpz } from "../support/dataset-writers.ts";
import { external, model as modelProto } from "../support/protos.ts";
import { readRealModel } from "../support/real-models.ts";
import { assertRecorded } from "../support/recorded.ts";

/**
 * Real models through the whole service: API, queue, worker, children. Every answer is checked against openapi.yaml.
 */

/** In ONNX's `TensorProto.DataType`. */
const FLOAT = 1;
const CLASSIFIER = readRealModel("ppocr-cls");

let stack: Stack;
let api: Caller;
before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn", JOB_THREADS: "1" });
  api = await createCaller(stack.url);
});
after(() => stack?.close());

const blobs = async () => {
  const entries = await readdir(join(stack.dataDir, "blobs"), { recursive: true, withFileTypes: true });
  const uploads = await readdir(join(stack.dataDir, "scratch")).catch(() => []);
  return (
    entries.filter((entry) => entry.isFile()).length + uploads.filter((name) => /^[0-9a-f-]{36}$/.test(name)).length
  );
};
const json = { "content-type": "application/json" };

/** Nodes by operator, and numbers in tensors of more than one, of a model that keeps its weights in Constants. */
function contentOf(file: Uint8Array) {
  const { node } = fromBinary(ModelProtoSchema, file).graph!;
  const nodes: Record<string, number> = {};
  let parameters = 0;
  for (const { opType, attribute } of node) {
    nodes[opType] = (nodes[opType] ?? 0) + 1;
    const { dims = [], dataType } = attribute[0]?.t ?? {};
    const size = dims.reduce((product, dim) => product * Number(dim), 1);
    if (opType === "Constant" && dataType === FLOAT && size > 1) parameters += size;
  }
  return { nodes, parameters };
}

async function finished(id: string) {
  const stream = await fetch(`${stack.url}/v1/jobs/${id}/events`, { headers: { accept: "text/event-stream" } });
  await stream.text(); // It ends with the job.
  return (await api.call("GET", `/v1/jobs/${id}`)).json;
}

test("a classifier: facts, layers, plan, every method, artifacts, report, the model that was made", async () => {
  const uploaded = await api.call("POST", "/v1/models", { body: formOf({ "cls.onnx": CLASSIFIER }) });
  assert.equal(uploaded.status, 201);
  const { json: model } = uploaded;
  assert.equal(model.sha256, createHash("sha256").update(CLASSIFIER).digest("hex"));
  const { nodes, parameters } = contentOf(CLASSIFIER);
  const { Constant: _, ...operators } = nodes;
  assert.deepEqual(model.operators, operators);
  assert.deepEqual([model.parameters, model.weight_bytes], [parameters, 4 * parameters]);
  const [input] = model.inputs;
  const dims = Object.fromEntries(
    input.shape.flatMap((dim: unknown, i: number) => (typeof dim === "string" ? [[dim, [1, 3, 48, 192][i]]] : [])),
  );
  const sized = await api.call(
    "GET",
    `/v1/models/${model.id}?dims=${Object.entries(dims).map(([name, size]) => `${encodeURIComponent(name)}:${size}`)}`,
  );
  assert.ok(sized.json.macs > 1_000_000, `${sized.json.macs}`);
  const layers = (await api.call("GET", `/v1/models/${model.id}/layers`)).json.data;
  assert.equal(layers.length, operators.Conv! + operators.MatMul!);
  const inLayers = layers.reduce((sum: number, layer: { parameters: number }) => sum + layer.parameters, 0);
  // The rest are those of BatchNormalizations, biases that are added, and divisors.
  assert.ok(inLayers > 0.9 * parameters && inLayers < parameters, `${inLayers} of ${parameters}`);

  const pixels = Float32Array.from(randomBytes(4 * 3 * 48 * 192), (byte) => byte / 255);
  const bytes = new Uint8Array(pixels.buffer);
  const images = { dtype: "float32", dims: [4, 3, 48, 192], byteLength: bytes.byteLength, bytes } as const;
  const data = await api.call("POST", "/v1/datasets", {
    body: formOf({ "images.npz": writeNpz({ [input.name]: images }) }),
  });
  assert.equal(data.status, 201);
  assert.equal(data.json.samples, 4);
  const [min, max] = [Math.min, Math.max].map((pick) => pixels.reduce((a, b) => pick(a, b)));
  const content = { min, max, non_finite: 0, first_non_finite: null };
  assert.deepEqual(data.json.fields, [{ name: input.name, dtype: "float32", shape: [3, 48, 192], content }]);

  // What becomes smaller, as a share of the file: weights of so many bits instead of 32; the graph is 0.08 of it, and says a little more then.
  for (const [ratio, params] of [
    [0.48, { method: "float16" }],
    [0.32, { method: "dynamic" }],
    [0.33, { method: "weight_only", bits: 8, format: "qdq" }],
    [0.29, { method: "weight_only", bits: 4, format: "qdq" }],
  ] as const) {
    const evaluation = { dataset_id: data.json.id, latency: { runs: 5 }, dims };
    const body = JSON.stringify({
      type: "quantize",
      model_id: model.id,
      params,
      evaluation,
      acceptance: { max_size_ratio: 0.9 },
    });
    const plan = await api.call("POST", "/v1/jobs?validate_only=true", { body, headers: json });
    assert.equal(plan.status, 200, `${plan.body}\n${stack.log()}`);
    const created = await api.call("POST", "/v1/jobs", { body, headers: json });
    assert.equal(created.status, 202);
    const job = await finished(created.json.id);
    assert.equal(job.status, "succeeded", JSON.stringify(job.error));
    const { result } = job;
    assert.equal(result.metrics.fidelity.data, "evaluation");
    assert.equal(result.metrics.fidelity.samples, 4);
    assertRecorded(result.metrics.size.ratio, ratio, 0.01, params.method);

    const [artifact] = result.artifacts;
    const download = await api.call("GET", artifact.url);
    assert.equal(createHash("sha256").update(download.body).digest("hex"), artifact.sha256);
    const { producerName, metadataProps } = fromBinary(ModelProtoSchema, download.body);
    const told = Object.fromEntries(metadataProps.map(({ key, value }) => [key, value]));
    assert.equal(producerName, "modelpress");
    assert.equal(told["modelpress.method"], params.method);
    assert.equal(told["modelpress.source_sha256"], model.sha256);
    assert.match(told["modelpress.params_sha256"]!, /^[0-9a-f]{64}$/);
    const report = await api.call("GET", `/v1/jobs/${job.id}/report`);
    assert.match(report.body.toString(), /<html/);
    const { json: made } = await api.call("GET", `/v1/models/${result.model_id}`);
    assert.match(made.producer, /^modelpress \d/);
    assert.deepEqual(made.derived_from, { job_id: job.id, model_id: model.id });
    const content = await api.call("GET", `/v1/models/${made.id}/content`);
    assert.ok(content.body.equals(download.body));

    assert.equal((await api.call("DELETE", `/v1/jobs/${job.id}`)).status, 204);
    assert.equal((await api.call("DELETE", `/v1/models/${made.id}`)).status, 204);
  }
  await api.call("DELETE", `/v1/models/${model.id}`);
  await api.call("DELETE", `/v1/datasets/${data.json.id}`);
  assert.equal(await blobs(), 0, "nothing is left");
});

test("models that are not: random, truncated, external data that is missing, too short or escapes", async () => {
  const before = await blobs();
  const withExternal = (location: string, more: Record<string, string> = {}) =>
    modelProto({ initializer: [external(location, more)] });
  const cases: readonly Readonly<Record<string, Uint8Array>>[] = [
    { "m.onnx": randomBytes(100_000) },
    { "m.onnx": Buffer.alloc(0) },
    { "m.onnx": Buffer.from("<html>404</html>") },
    { "m.onnx": CLASSIFIER.subarray(0, CLASSIFIER.length - 1000) },
    { "m.onnx": CLASSIFIER.subarray(0, 1000) },
    { "m.onnx": CLASSIFIER.subarray(1000) },
    { "m.onnx": withExternal("weights.bin") },
    { "m.onnx": withExternal("weights.bin"), "other.bin": Buffer.alloc(24) },
    { "m.onnx": withExternal("weights.bin"), "weights.bin": Buffer.alloc(23) },
    { "m.onnx": withExternal("weights.bin", { offset: "8" }), "weights.bin": Buffer.alloc(24) },
    { "m.onnx": withExternal("/etc/passwd") },
    { "m.onnx": withExternal("../../../../../../etc/passwd") },
    { "m.onnx": modelProto({ node: [{ name: "n", opType: "NoSuchOperator", input: ["x"], output: ["y"] }] }) },
  ];
  for (const [i, files] of cases.entries()) {
    const { status, json: refused } = await api.call("POST", "/v1/models", { body: formOf(files) });
    assert.equal(status, 422, `case ${i}`);
    assert.equal(refused.code, "invalid_model", `case ${i}: ${refused.detail}`);
    assert.ok(refused.detail.length > 20, refused.detail);
    assert.doesNotMatch(refused.detail, /\/tmp|modelpress-/, "paths of this machine are nobody's business");
  }
  assert.equal(await blobs(), before);
});

test("external data is part of the model, and comes back in its tar", async () => {
  const before = await blobs();
  const files = {
    "m.onnx": modelProto({ initializer: [external("weights.bin")] }),
    "weights.bin": Buffer.alloc(24, 1),
  };
  const { status, json: model } = await api.call("POST", "/v1/models", { body: formOf(files) });
  assert.equal(status, 201);
  assert.equal(model.weight_bytes, 24);
  assert.deepEqual(
    model.files.map((file: { name: string }) => file.name),
    ["m.onnx", "weights.bin"],
  );
  const archive = await api.call("GET", `/v1/models/${model.id}/content`);
  assert.ok(archive.body.includes(Buffer.alloc(24, 1)));
  await api.call("DELETE", `/v1/models/${model.id}`);
  assert.equal(await blobs(), before);
});

test("datasets that are not", async () => {
  const before = await blobs();
  for (const [name, bytes] of [
    ["d.npz", randomBytes(10_000)],
    ["d.npz", Buffer.from("PK\x03\x04 no archive")],
    ["d.npy", randomBytes(100)],
    ["d.safetensors", Buffer.concat([Buffer.from([255, 255, 255, 255, 255, 255, 255, 127]), randomBytes(100)])],
    ["d.safetensors", Buffer.alloc(0)],
  ] as const) {
    const spec: Record<string, string> = name.endsWith(".npy") ? { spec: '{"input":"x"}' } : {};
    const { status, json: refused } = await api.call("POST", "/v1/datasets", { body: formOf({ [name]: bytes }, spec) });
    assert.equal(status, 422, name);
    assert.ok(["invalid_dataset", "limit_exceeded"].includes(refused.code), refused.code);
  }
  assert.equal(await blobs(), before);
});
