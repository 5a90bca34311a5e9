import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { modelBytes } from "../support/memory-workers.ts";
import { connectRaw } from "../support/raw-http.ts";
import { apiKeys, startSecondApi, startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

let api: TestServer;
before(async () => {
  api = await startTestServer({ settings: { maxUploadBytes: 1_000_000, uploadIdleTimeoutMs: 300 } });
});
after(() => api.close());

const TUS = { "tus-resumable": "1.0.0" };
const CHUNK = { ...TUS, "content-type": "application/offset+octet-stream" };

async function start(length: number): Promise<string> {
  const created = await api.call("POST", "/v1/uploads", { headers: { ...TUS, "upload-length": String(length) } });
  assert.equal(created.status, 201);
  const location = created.headers.get("location")!;
  assert.match(location, /^\/v1\/uploads\/upl_[0-9a-f-]{36}$/);
  assert.ok(created.headers.get("upload-expires"));
  return location;
}

const send = (path: string, offset: number, bytes: Uint8Array) =>
  api.call("PATCH", path, { headers: { ...CHUNK, "upload-offset": String(offset) }, body: Buffer.from(bytes) });
const offsetOf = async (path: string) =>
  Number((await api.call("HEAD", path, { headers: TUS })).headers.get("upload-offset"));
const idOf = (path: string) => path.split("/").at(-1)!;
const useAs = (path: "/v1/models" | "/v1/datasets", body: unknown) =>
  api.call("POST", `${path}/from-uploads`, {
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
  });

test("a file in pieces becomes a model, and is used up by it", async () => {
  const bytes = modelBytes(300_000);
  const path = await start(bytes.length);
  assert.equal((await send(path, 0, bytes.subarray(0, 100_000))).headers.get("upload-offset"), "100000");
  assert.equal(await offsetOf(path), 100_000);
  const unfinished = await useAs("/v1/models", { uploads: [{ upload_id: idOf(path), filename: "m.onnx" }] });
  assert.equal(unfinished.status, 422);
  assert.equal(unfinished.json.errors[0].pointer, "/uploads/0/upload_id");
  assert.match(unfinished.json.detail, /100000 of 300000/);
  assert.equal((await send(path, 100_000, bytes.subarray(100_000))).status, 204);

  const body = { uploads: [{ upload_id: idOf(path), filename: "m.onnx" }], name: "in pieces", metadata: { a: "b" } };
  const created = await useAs("/v1/models", body);
  assert.equal(created.status, 201);
  assert.equal(created.json.name, "in pieces");
  assert.ok((await api.call("GET", `/v1/models/${created.json.id}/content`)).body.equals(bytes));
  assert.equal((await api.call("HEAD", path, { headers: TUS })).status, 404);
  // A client that did not hear the answer asks again, and is told what became of its upload.
  const again = await useAs("/v1/models", body);
  assert.deepEqual([again.status, again.json.id], [200, created.json.id]);
  const other = await useAs("/v1/models", { ...body, name: "other" });
  assert.equal(other.status, 422);
  assert.match(other.json.detail, new RegExp(`was used for ${created.json.id} by another request`));
  await api.call("DELETE", `/v1/models/${created.json.id}`);
  assert.deepEqual(await api.files(), []);
});

test("a connection that breaks loses nothing that has arrived", async () => {
  const bytes = modelBytes(200_000);
  const path = await start(bytes.length);
  const connection = connectRaw(api.url);
  const head = [`PATCH ${path} HTTP/1.1`, "host: localhost", "tus-resumable: 1.0.0", "upload-offset: 0"];
  const type = ["content-type: application/offset+octet-stream", `content-length: ${bytes.length}`, "", ""];
  connection.write([...head, ...type].join("\r\n"));
  connection.write(bytes.subarray(0, 120_000));
  await until("bytes are there", async () => (await offsetOf(path)) > 0);
  connection.socket.destroy();
  // What is on its way may still arrive: as any client, the test asks again.
  await until("the rest is taken", async () => {
    const offset = await offsetOf(path);
    assert.ok(offset > 0 && offset <= 120_000, `${offset}`);
    const { status } = await send(path, offset, bytes.subarray(offset));
    assert.ok(status === 204 || status === 409, `${status}`);
    return status === 204;
  });
  const created = await useAs("/v1/datasets", { uploads: [{ upload_id: idOf(path), filename: "d.npz" }] });
  assert.equal(created.status, 201);
  assert.ok((await api.call("GET", `/v1/datasets/${created.json.id}/content`)).body.equals(bytes));
  await api.call("DELETE", `/v1/datasets/${created.json.id}`);
});

test("a connection may be cut at any moment", async () => {
  const path = await start(500_000);
  const head = [`PATCH ${path} HTTP/1.1`, "host: localhost", "tus-resumable: 1.0.0", "upload-offset: 0"];
  const rest = ["content-type: application/offset+octet-stream", "content-length: 500000", "", ""];
  for (let i = 0; i < 60; i++) {
    const connection = connectRaw(api.url);
    connection.write([...head, ...rest].join("\r\n"));
    await once(connection.socket, "connect");
    await sleep(i / 10);
    connection.socket.destroy();
  }
  assert.equal(await offsetOf(path), 0);
  assert.equal((await api.call("DELETE", path, { headers: TUS })).status, 204);
  assert.deepEqual(await api.files(), []);
});

test("a piece that stands still is given up; the upload stays", async () => {
  const path = await start(200_000);
  const connection = connectRaw(api.url);
  const head = [`PATCH ${path} HTTP/1.1`, "host: localhost", "tus-resumable: 1.0.0", "upload-offset: 0"];
  connection.write(
    [...head, "content-type: application/offset+octet-stream", "content-length: 200000", "", ""].join("\r\n"),
  );
  connection.write(Buffer.alloc(50_000));
  const answer = await connection.answer();
  assert.equal(answer.status, 408);
  api.validator.checkAnswer("PATCH", path, answer);
  connection.socket.destroy();
  assert.equal((await api.call("DELETE", path, { headers: TUS })).status, 204);
  assert.deepEqual(await api.files(), []);
});

test("what the protocol refuses is a problem like any other", async () => {
  const path = await start(1000);
  const missing = "/v1/uploads/upl_00000000-0000-0000-0000-000000000000";
  const cases = [
    ["HEAD", path, {}, 412],
    ["HEAD", missing, TUS, 404],
    ["HEAD", "/v1/uploads/..%2f..%2fetc", TUS, 404],
    ["HEAD", "/v1/uploads/upl_1.json", TUS, 404],
    ["PATCH", path, { ...CHUNK, "upload-offset": "5" }, 409],
    ["PATCH", path, CHUNK, 400],
    ["PATCH", path, { ...TUS, "upload-offset": "0", "content-type": "text/plain" }, 415],
    ["PATCH", missing, { ...CHUNK, "upload-offset": "0" }, 404],
    ["POST", "/v1/uploads", { ...TUS, "upload-length": "1000001" }, 413],
    ["POST", "/v1/uploads", { ...TUS, "upload-length": "-1" }, 400],
    ["POST", "/v1/uploads", { ...TUS, "upload-length": "x" }, 400],
    ["POST", "/v1/uploads", { ...TUS, "upload-defer-length": "1" }, 400],
    ["POST", "/v1/uploads", TUS, 400],
    ["POST", "/v1/uploads", { ...TUS, "upload-length": "1", "upload-metadata": "a b c" }, 400],
    ["DELETE", missing, TUS, 404],
  ] as const;
  for (const [method, at, headers, expected] of cases) {
    const body = method === "PATCH" ? { body: Buffer.from("12345") } : {};
    const { status } = await api.call(method, at, { headers, ...body });
    assert.equal(status, expected, `${method} ${at} ${JSON.stringify(headers)}`);
  }
  const tooMuch = await send(path, 0, Buffer.alloc(2000));
  assert.equal(tooMuch.status, 413);
  await api.call("DELETE", path, { headers: TUS });
  assert.deepEqual(await api.files(), []);
});

test("what it can do is told to anybody, and to no other site's scripts", async () => {
  const { headers } = await api.call("OPTIONS", "/v1/uploads", { headers: { origin: "https://elsewhere.example" } });
  assert.equal(headers.get("tus-version"), "1.0.0");
  assert.equal(headers.get("tus-max-size"), "1000000");
  assert.deepEqual(headers.get("tus-extension")?.split(",").sort(), [
    "creation",
    "creation-with-upload",
    "expiration",
    "termination",
  ]);
  assert.equal(headers.get("access-control-allow-origin"), null);
});

test("where files are taken, JSON is told where it goes", async () => {
  for (const path of ["/v1/models", "/v1/datasets"]) {
    const init = { body: JSON.stringify({ uploads: [] }), headers: { "content-type": "application/json" } };
    const { status, json } = await api.call("POST", path, init);
    assert.equal(status, 415);
    assert.match(json.detail, new RegExp(`${path}/from-uploads`));
  }
});

test("references that lead nowhere, or out", async () => {
  for (const upload_id of ["upl_1", "../../etc/passwd", "upl_00000000-0000-0000-0000-000000000000"]) {
    const refused = await useAs("/v1/models", { uploads: [{ upload_id, filename: "m.onnx" }] });
    assert.equal(refused.status, 422, upload_id);
    assert.equal(refused.json.errors[0].pointer, "/uploads/0/upload_id");
  }
  const bytes = modelBytes(100);
  const path = await start(bytes.length);
  await send(path, 0, bytes);
  const outside = await useAs("/v1/models", { uploads: [{ upload_id: idOf(path), filename: "../m.onnx" }] });
  assert.equal(outside.status, 422);
  assert.equal((await useAs("/v1/models", { uploads: [] })).status, 422);
  await api.call("DELETE", path, { headers: TUS });
  assert.deepEqual(await api.files(), []);
});

test("one upload that is named by three requests at once is one model, which all of them get", async () => {
  const bytes = modelBytes(50_000);
  const path = await start(bytes.length);
  await send(path, 0, bytes);
  const body = { uploads: [{ upload_id: idOf(path), filename: "m.onnx" }] };
  const answers = await Promise.all([1, 2, 3].map(() => useAs("/v1/models", body)));
  assert.deepEqual(answers.map(({ status }) => status).toSorted(), [200, 200, 201]);
  assert.equal(new Set(answers.map(({ json }) => json.id)).size, 1);
  await api.call("DELETE", `/v1/models/${answers[0]!.json.id}`);
  assert.deepEqual(await api.files(), []);
});

test("of two processes one writes a piece; the other one's makes it let go, and neither's bytes get between", async (t) => {
  const { url: otherUrl, close } = await startSecondApi(api);
  t.after(close);
  const path = await start(200_000);
  const connection = connectRaw(api.url);
  const head = [`PATCH ${path} HTTP/1.1`, "host: localhost", "tus-resumable: 1.0.0", "upload-offset: 0"];
  const rest = ["content-type: application/offset+octet-stream", "content-length: 200000", "", ""];
  connection.write([...head, ...rest].join("\r\n"));
  connection.write(Buffer.alloc(60_000, "a"));
  await until("bytes are there", async () => (await offsetOf(path)) > 0);
  const late = await fetch(otherUrl + path, {
    method: "PATCH",
    headers: { ...CHUNK, "upload-offset": "0" },
    body: Buffer.alloc(200_000, "b"),
  });
  assert.equal(late.status, 409);
  connection.socket.destroy();
  const offset = await offsetOf(path);
  assert.ok(offset > 0 && offset <= 60_000, `${offset}`);
  const resumed = await fetch(otherUrl + path, {
    method: "PATCH",
    headers: { ...CHUNK, "upload-offset": String(offset) },
    body: Buffer.alloc(200_000 - offset, "b"),
  });
  assert.equal(resumed.status, 204);
  const created = await useAs("/v1/datasets", { uploads: [{ upload_id: idOf(path), filename: "d.npz" }] });
  const { body } = await api.call("GET", `/v1/datasets/${created.json.id}/content`);
  assert.ok(body.equals(Buffer.concat([Buffer.alloc(offset, "a"), Buffer.alloc(200_000 - offset, "b")])));
  await api.call("DELETE", `/v1/datasets/${created.json.id}`);
});

test("an upload belongs to its key, and a key has so many and no more, empty ones too", async (t) => {
  const keys = apiKeys(["a", "b"].map((name) => ({ name, key: `key-${name}` })));
  const settings = { maxOpenUploadsPerKey: 3, maxOpenUploadBytesPerKey: 1000, uploadExpiryMs: 60_000 };
  const keyed = await startTestServer({ settings, context: { keys } });
  t.after(() => keyed.close());
  const as = (name: string) => ({ ...TUS, authorization: `Bearer key-${name}` });
  const open = (name: string, length: number) =>
    keyed.call("POST", "/v1/uploads", { headers: { ...as(name), "upload-length": String(length) } });
  const path = (await open("a", 600)).headers.get("location")!;
  assert.equal((await keyed.call("HEAD", path, { headers: as("b") })).status, 404);
  assert.equal((await keyed.call("DELETE", path, { headers: as("b") })).status, 404);
  const stolen = await keyed.call("POST", "/v1/models/from-uploads", {
    body: JSON.stringify({ uploads: [{ upload_id: idOf(path), filename: "m.onnx" }] }),
    headers: { ...as("b"), "content-type": "application/json" },
  });
  assert.match(stolen.json.detail, /There is no upload/);
  const tooMany = await open("a", 500);
  assert.deepEqual([tooMany.status, tooMany.json.code], [429, "quota_exceeded"]);
  assert.match(tooMany.json.detail, /too many bytes in uploads that are open.*1000/);
  assert.equal((await open("a", 0)).status, 201);
  assert.equal((await open("a", 0)).status, 201);
  assert.match((await open("a", 0)).json.detail, /3 uploads open already/);
  assert.equal((await open("b", 500)).status, 201);
  assert.equal((await keyed.call("DELETE", path, { headers: as("a") })).status, 204);
  assert.equal((await open("a", 900)).status, 201);
});

test("uploads take Idempotency-Key: the same request again gets what the first has made", async () => {
  const headers = { ...TUS, "upload-length": "100", "idempotency-key": "start" };
  const first = await api.call("POST", "/v1/uploads", { headers });
  const again = await api.call("POST", "/v1/uploads", { headers });
  assert.equal(again.status, 201);
  assert.equal(again.headers.get("location"), first.headers.get("location"));
  const other = await api.call("POST", "/v1/uploads", { headers: { ...headers, "upload-length": "101" } });
  assert.deepEqual([other.status, other.json.code], [422, "idempotency_conflict"]);
  await api.call("DELETE", first.headers.get("location")!, { headers: TUS });
  const anew = await api.call("POST", "/v1/uploads", { headers });
  assert.notEqual(anew.headers.get("location"), first.headers.get("location"));
  await api.call("DELETE", anew.headers.get("location")!, { headers: TUS });

  const bytes = modelBytes(200);
  const raw = { "content-type": "application/octet-stream", "idempotency-key": "model" };
  const made = await api.call("POST", "/v1/models?name=x", { body: bytes, headers: raw });
  assert.equal(made.status, 201);
  const repeated = await api.call("POST", "/v1/models?name=x", { body: bytes, headers: raw });
  assert.deepEqual([repeated.status, repeated.json.id], [200, made.json.id]);
  const different = await api.call("POST", "/v1/models?name=x", { body: modelBytes(200), headers: raw });
  assert.deepEqual([different.status, different.json.code], [422, "idempotency_conflict"]);
  // A request that came to nothing leaves its key.
  const broken = { ...raw, "idempotency-key": "broken" };
  assert.equal((await api.call("POST", "/v1/models", { body: Buffer.from("x"), headers: broken })).status, 422);
  const mended = await api.call("POST", "/v1/models", { body: modelBytes(201), headers: broken });
  assert.equal(mended.status, 201);
  for (const { json } of [made, mended]) await api.call("DELETE", `/v1/models/${json.id}`);
  assert.deepEqual(await api.files(), []);
});
