import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { after, afterEach, before, test } from "node:test";
import { formOf } from "../support/calls.ts";
import { createMemoryTasks, DATASET_FACTS } from "../support/memory-workers.ts";
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
  const listed = (await api.call("GET", "/v1/datasets")).json.data;
  assert.deepEqual(listed, [summaryOf(created.json)]);
  assert.ok((await api.call("GET", `/v1/datasets/${id}/content`)).body.equals(bytes));
  const part = await api.call("GET", `/v1/datasets/${id}/content`, { headers: { range: "bytes=10-19" } });
  assert.ok(part.body.equals(bytes.subarray(10, 20)));
  assert.equal((await api.call("DELETE", `/v1/datasets/${id}`)).status, 204);
  assert.equal((await api.call("GET", `/v1/datasets/${id}`)).status, 404);
  assert.equal((await api.call("DELETE", `/v1/datasets/${id}`)).status, 404);
});

/** What lists have of a dataset: nothing that grows with it. */
function summaryOf(dataset: Record<string, unknown>): Record<string, unknown> {
  const { fields: _f, classes: _c, class_count: _n, labels: _l, warnings: _w, ...summary } = dataset;
  return summary;
}

test("long class lists are told in pages", async () => {
  const classes = Array.from({ length: 2500 }, (_, i) => `class ${i}`);
  const named = await startTestServer({
    context: { tasks: createMemoryTasks({ inspect_dataset: async () => ({ ...DATASET_FACTS, classes }) }) },
  });
  try {
    const created = await named.call("POST", "/v1/datasets", { body: formOf({ "d.npz": randomBytes(10) }) });
    assert.deepEqual([created.json.classes, created.json.class_count], [null, 2500]);
    const seen: string[] = [];
    for (let cursor = ""; ; ) {
      const path = `/v1/datasets/${created.json.id}/classes?limit=1000${cursor}`;
      const { json } = await named.call("GET", path);
      seen.push(...json.data);
      if (json.next_cursor === null) break;
      cursor = `&cursor=${json.next_cursor}`;
    }
    assert.deepEqual(seen, classes);
  } finally {
    await named.close();
  }
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

test("the same file under another name is a dataset of its own, renamed and found apart", async () => {
  const bytes = randomBytes(100);
  const a = await upload({ "a.npz": bytes }, { name: "train" });
  const b = await upload({ "a.npz": bytes }, { name: "validation" });
  assert.deepEqual([a.status, b.status, a.json.sha256], [201, 201, b.json.sha256]);
  assert.equal((await upload({ "b.npz": bytes })).json.id, a.json.id);
  const renamed = await api.call("PATCH", `/v1/datasets/${b.json.id}`, {
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ metadata: { split: "2" } }),
  });
  assert.deepEqual(renamed.json, { ...b.json, metadata: { split: "2" } });
  const found = (await api.call("GET", `/v1/datasets?name=validation&metadata.split=2`)).json.data;
  assert.deepEqual(
    found.map(({ id }: { id: string }) => id),
    [b.json.id],
  );
  await api.call("DELETE", `/v1/datasets/${a.json.id}`);
  assert.ok((await api.call("GET", `/v1/datasets/${b.json.id}/content`)).body.equals(bytes));
  await api.call("DELETE", `/v1/datasets/${b.json.id}`);
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
  for (const name of ["data.xlsx", "data.npz.exe", "data", ".npz", "images.tar.gz"]) {
    const refused = await upload({ [name]: randomBytes(100) });
    assert.equal(refused.status, 415, name);
    assert.equal(refused.json.code, "unsupported_media_type");
  }
  const pickle = await upload({ "d.npy": Buffer.from("pickle") }, { spec: '{"input":"x"}' });
  assert.equal(pickle.status, 422);
  assert.equal(pickle.json.code, "invalid_dataset");
  const two = await upload({ "a.npz": randomBytes(10), "b.npz": randomBytes(10) });
  assert.equal(two.status, 422);
});

test("a spec that is missing, not needed, of another kind or wrong is refused with what to send", async () => {
  const images = '{"kind":"images","input":"x","size":[2,2]';
  const cases: [file: string, spec: string | undefined, pointer: string, message: RegExp][] = [
    ["a.npy", undefined, "/spec", /a \.npy file needs a spec, such as \{"input":"x"\}/],
    [
      "a.zip",
      undefined,
      "/spec",
      /a \.zip file needs a spec, such as \{"kind":"images","input":"x","size":\[224,224\]\}/,
    ],
    ["a.csv", undefined, "/spec", /a \.csv file needs a spec, such as \{"kind":"csv"/],
    ["a.jsonl", `${images}}`, "/spec", /needs a spec of kind "jsonl", such as .*; this one is of kind "images"/],
    ["a.npz", '{"input":"x"}', "/spec", /a \.npz file needs no spec/],
    [
      "a.npy",
      '{"input":"x","axis":1}',
      "/spec/kind",
      /must be "images" \(for \.zip\), "csv", "jsonl", "parquet", or "array"/,
    ],
    ["a.npy", '{"kind":"array","input":"x","axis":1}', "/spec/axis", /no such field/],
    ["a.zip", "{", "/spec", /must be JSON/],
    ["a.zip", `${images},"mean":[0.5]}`, "/spec/mean", /one number for each channel, 3/],
    ["a.zip", `${images},"dtype":"uint8","scale":1}`, "/spec/scale", /not for dtype uint8/],
    ["a.zip", `${images},"pad_value":1}`, "/spec/pad_value", /only for resize "pad"/],
    ["a.zip", `${images},"resize":"crop","shorter_side":1}`, "/spec/shorter_side", /not be less than/],
    ["a.zip", `${images},"std":[1,0,1]}`, "/spec/std/1", /must be more than 0/],
    ["a.csv", '{"kind":"csv","inputs":{}}', "/spec/inputs", /must name a model input/],
    ["a.csv", '{"kind":"csv","inputs":{"x":{},"y":{}}}', "/spec/inputs/y/columns", /only one input/],
    ["a.csv", '{"kind":"csv","inputs":{"x":{"dtype":"object"}}}', "/spec/inputs/x/dtype", /must be "bool", /],
  ];
  for (const [file, spec, pointer, message] of cases) {
    const refused = await upload({ [file]: randomBytes(10) }, spec === undefined ? {} : { spec });
    assert.equal(refused.status, 422, `${file} ${spec}`);
    assert.equal(refused.json.code, "validation_failed");
    assert.deepEqual(
      refused.json.errors.map((error: { pointer: string }) => error.pointer),
      [pointer],
    );
    assert.match(refused.json.detail, message);
  }
});

test("a raw body has its spec in the query", async () => {
  const headers = { "content-type": "application/octet-stream" };
  const query = (spec: string) => `/v1/datasets?name=rows.csv&spec=${encodeURIComponent(spec)}`;
  const spec = '{"kind":"csv","inputs":{"x":{}}}';
  const created = await api.call("POST", query(spec), { body: randomBytes(50), headers });
  assert.equal(created.status, 201);
  await api.call("DELETE", `/v1/datasets/${created.json.id}`);
  const refused = await api.call("POST", query('{"kind":"csv"}'), { body: randomBytes(50), headers });
  assert.equal(refused.json.errors[0].pointer, "/spec/inputs");
  const misplaced = await api.call("POST", query(spec), { body: formOf({ "a.csv": randomBytes(10) }) });
  assert.equal(misplaced.json.errors[0].pointer, "#/query/spec");
});
