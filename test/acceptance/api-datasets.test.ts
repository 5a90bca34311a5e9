import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { after, afterEach, before, test } from "node:test";
import { formOf } from "../support/calls.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let api: TestServer;
before(async () => {
  api = await startTestServer();
});
after(() => api.close());
afterEach(async () => assert.deepEqual(await api.files(), []));

const upload = (files: Readonly<Record<string, Uint8Array>>, fields?: Readonly<Record<string, string>>) =>
  api.call("POST", "/v1/datasets", { body: formOf(files, fields) });

test("a dataset is uploaded, found, listed, downloaded and deleted", async () => {
  const bytes = randomBytes(3000);
  const created = await upload({ "lines.npz": bytes }, { name: "text lines", metadata: '{"source":"scans"}' });
  assert.equal(created.status, 201);
  const { id, sha256 } = created.json;
  assert.match(id, /^dst_/);
  assert.equal(created.headers.get("location"), `/v1/datasets/${id}`);
  assert.equal(created.json.name, "text lines");
  assert.equal(sha256, createHash("sha256").update(bytes).digest("hex"));
  assert.equal(created.json.size_bytes, 3000);
  assert.equal(created.json.samples, 10);
  assert.deepEqual((await api.call("GET", `/v1/datasets/${id}`)).json, created.json);
  assert.deepEqual((await api.call("GET", "/v1/datasets")).json.data, [created.json]);
  assert.ok((await api.call("GET", `/v1/datasets/${id}/content`)).body.equals(bytes));
  const part = await api.call("GET", `/v1/datasets/${id}/content`, { headers: { range: "bytes=10-19" } });
  assert.ok(part.body.equals(bytes.subarray(10, 20)));
  assert.equal((await api.call("DELETE", `/v1/datasets/${id}`)).status, 204);
  assert.equal((await api.call("GET", `/v1/datasets/${id}`)).status, 404);
  assert.equal((await api.call("DELETE", `/v1/datasets/${id}`)).status, 404);
});

test("the same file with the same spec is the same dataset; read another way it is another one", async () => {
  const bytes = randomBytes(100);
  const x = await upload({ "a.npy": bytes }, { spec: '{"input":"x"}' });
  const again = await upload({ "b.npy": bytes }, { spec: '{ "input": "x" }' });
  assert.equal(again.status, 200);
  assert.equal(again.json.id, x.json.id);
  const y = await upload({ "a.npy": bytes }, { spec: '{"input":"y"}' });
  assert.equal(y.status, 201);
  assert.notEqual(y.json.id, x.json.id);
  await api.call("DELETE", `/v1/datasets/${x.json.id}`);
  // One blob, which the other one still needs.
  assert.ok((await api.call("GET", `/v1/datasets/${y.json.id}/content`)).body.equals(bytes));
  await api.call("DELETE", `/v1/datasets/${y.json.id}`);
});

test("raw bytes, with the name that tells the format", async () => {
  const headers = { "content-type": "application/octet-stream" };
  const created = await api.call("POST", "/v1/datasets?name=lines.safetensors", { body: randomBytes(50), headers });
  assert.equal(created.status, 201);
  assert.equal(created.json.name, "lines");
  await api.call("DELETE", `/v1/datasets/${created.json.id}`);
  assert.equal((await api.call("POST", "/v1/datasets", { body: randomBytes(50), headers })).status, 415);
});

test("what no reader is for is refused before it is read, what cannot be read with the reason", async () => {
  for (const name of ["data.csv", "data.npz.exe", "data", ".npz", "images.tar.gz"]) {
    const refused = await upload({ [name]: randomBytes(100) });
    assert.equal(refused.status, 415, name);
    assert.equal(refused.json.code, "unsupported_media_type");
  }
  const pickle = await upload({ "d.npy": Buffer.from("pickle") });
  assert.equal(pickle.status, 422);
  assert.equal(pickle.json.code, "invalid_dataset");
  const two = await upload({ "a.npz": randomBytes(10), "b.npz": randomBytes(10) });
  assert.equal(two.status, 422);
  const spec = await upload({ "a.npy": randomBytes(10) }, { spec: '{"input":"x","axis":1}' });
  assert.deepEqual(
    spec.json.errors.map((error: { pointer: string }) => error.pointer),
    ["/spec/axis"],
  );
});
