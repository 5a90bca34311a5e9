import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { modelBytes } from "../support/memory-workers.ts";
import { connectRaw } from "../support/raw-http.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

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
  api.call("POST", path, { body: JSON.stringify(body), headers: { "content-type": "application/json" } });

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
  assert.equal((await useAs("/v1/models", body)).json.errors[0].pointer, "/uploads/0/upload_id");
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
  await sleep(200);
  connection.socket.destroy();
  let offset = 0;
  for (let i = 0; i < 100 && offset === 0; i++) {
    await sleep(20);
    offset = await offsetOf(path);
  }
  assert.ok(offset > 0 && offset <= 120_000, `${offset}`);
  assert.equal((await send(path, offset, bytes.subarray(offset))).status, 204);
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
  await sleep(200);
  assert.equal(await offsetOf(path), 0);
  await api.call("DELETE", path, { headers: TUS });
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
