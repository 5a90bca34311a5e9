import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { Readable } from "node:stream";
import { after, afterEach, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { formOf } from "../support/calls.ts";
import { modelBytes } from "../support/memory-workers.ts";
import { connectRaw } from "../support/raw-http.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

/**
 * Uploads that are too large, too slow, cut off, malformed or malicious: the right code, and nothing left on the disk.
 */

const LIMIT = 1_000_000;

let api: TestServer;
before(async () => {
  api = await startTestServer({ settings: { maxUploadBytes: LIMIT, uploadIdleTimeoutMs: 300 } });
});
after(() => api.close());
afterEach(async () => {
  assert.deepEqual(await api.files(), [], "something was left on the disk");
  assert.deepEqual((await api.call("GET", "/v1/models")).json.data, []);
});

const octets = { "content-type": "application/octet-stream" };
const head = (...lines: string[]) => ["POST /v1/models HTTP/1.1", "host: localhost", ...lines, "", ""].join("\r\n");
const checked = async (answer: ReturnType<ReturnType<typeof connectRaw>["answer"]>) => {
  const received = await answer;
  api.validator.checkAnswer("POST", "/v1/models", received);
  return { ...received, json: JSON.parse(received.body.toString()) };
};
/** Waits for what happens after the client has gone. */
const settled = () => until("nothing is left", async () => (await api.files()).length === 0);

test("a declared length over the limit is refused before a byte of it is read", async () => {
  for (const type of ["application/octet-stream", "multipart/form-data; boundary=b"]) {
    const connection = connectRaw(api.url);
    connection.write(head(`content-type: ${type}`, `content-length: ${8 * LIMIT}`));
    const { status, json, headers } = await checked(connection.answer());
    assert.equal(status, 413);
    assert.equal(json.code, "too_large");
    assert.equal(headers.get("connection"), "close");
    await connection.closed();
  }
});

test("a client that goes on sending after a refusal still gets the answer, and is then cut off", async () => {
  const connection = connectRaw(api.url);
  connection.write(head("content-type: application/octet-stream", `content-length: ${800 * LIMIT}`));
  const chunk = randomBytes(64 * 1024);
  let sent = 0;
  const pump = () => {
    while (connection.socket.writable && connection.socket.write(chunk)) sent += chunk.length;
    connection.socket.once("drain", pump);
  };
  pump();
  assert.equal((await checked(connection.answer())).status, 413);
  await connection.closed();
  assert.ok(sent < 800 * LIMIT);
});

test("an undeclared length over the limit is refused when it is passed", async () => {
  const endless = () =>
    Readable.from(
      (function* () {
        for (let i = 0; i < 64; i++) yield randomBytes(64 * 1024);
      })(),
    );
  const send = (body: Readable, headers: Record<string, string>) =>
    api.call("POST", "/v1/models", {
      body: Readable.toWeb(body) as ReadableStream,
      duplex: "half",
      headers,
    } as RequestInit);
  const refused = await send(endless(), octets);
  assert.equal(refused.status, 413);
  assert.equal(refused.json.code, "too_large");
});

test("the limit is for all files of a model together", async () => {
  const half = randomBytes(0.6 * LIMIT);
  const refused = await api.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes(), a: half, b: half }) });
  assert.equal(refused.status, 413);
  const exact = modelBytes(LIMIT);
  const created = await api.call("POST", "/v1/models", { body: exact, headers: octets });
  assert.equal(created.status, 201);
  await api.call("DELETE", `/v1/models/${created.json.id}`);
});

test("a connection that is cut in the middle leaves nothing", async () => {
  const part = '--b\r\ncontent-disposition: form-data; name="file"; filename="m.onnx"\r\n\r\n';
  for (const [type, start] of [
    ["application/octet-stream", ""],
    ["multipart/form-data; boundary=b", part],
  ] as const) {
    const connection = connectRaw(api.url);
    connection.write(head(`content-type: ${type}`, "content-length: 500000"));
    connection.write(start);
    connection.write(randomBytes(200_000));
    await until("the upload is under way", async () => (await api.files()).length === 1);
    connection.socket.destroy();
    await settled();
  }
});

test("a connection may be cut at any moment", async () => {
  const part = '--b\r\ncontent-disposition: form-data; name="file"; filename="m.onnx"\r\n\r\n';
  for (let i = 0; i < 120; i++) {
    const [type, start] = i % 2 === 0 ? ["application/octet-stream", ""] : ["multipart/form-data; boundary=b", part];
    const connection = connectRaw(api.url);
    connection.write(head(`content-type: ${type}`, "content-length: 500000") + start);
    await once(connection.socket, "connect");
    // From before the request is seen to the middle of its body.
    await sleep(i / 20);
    connection.socket.destroy();
  }
  // Answered after what came before: the service runs in this process.
  assert.equal((await api.call("GET", "/healthz")).status, 200);
  await settled();
});

test("a multipart body that ends too early is malformed, not a model", async () => {
  const bodies = [
    "",
    "--b",
    "--b--\r\n",
    "no boundary at all",
    '--b\r\ncontent-disposition: form-data; name="file"; filename="m.onnx"\r\n\r\nmemory model\n',
    '--b\r\ncontent-disposition: form-data; name="file"; filename="m.onnx"\r\n\r\nmemory model\n\r\n--b\r\n',
  ];
  for (const body of bodies) {
    const headers = { "content-type": "multipart/form-data; boundary=b" };
    const { status, json } = await api.call("POST", "/v1/models", { body, headers });
    assert.ok(
      status === 400 || (status === 422 && json.code === "validation_failed"),
      `${status} for ${JSON.stringify(body)}`,
    );
  }
});

test("content types that are not an upload", async () => {
  const cases = [
    ["text/plain", 415],
    ["application/xml", 415],
    ["application/octet-stream-not", 415],
    ["application/x-www-form-urlencoded", 415],
    ["multipart/mixed; boundary=b", 415],
    ["multipart/form-data", 400],
    ["application/json", 400],
    ["application/json; charset=utf-8", 400],
    ["application/jsonx", 415],
  ] as const;
  for (const [type, expected] of cases) {
    const connection = connectRaw(api.url);
    connection.write(head(`content-type: ${type}`, "content-length: 13", "connection: close"));
    connection.write("memory model\n");
    const { status } = await checked(connection.answer());
    assert.equal(status, expected, JSON.stringify(type));
  }
  const none = connectRaw(api.url);
  none.write(head("content-length: 13", "connection: close"));
  none.write("memory model\n");
  assert.equal((await checked(none.answer())).status, 415);
});

test("file names that are paths are refused before the file is read", async () => {
  const names = [
    "../m.onnx",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b.onnx",
    "..",
    ".",
    "C:\\\\m.onnx",
    "a\\\\b",
    "x".repeat(256),
    "",
  ];
  for (const name of names) {
    const disposition = `content-disposition: form-data; name="file"; filename="${name}"`;
    const body = `--b\r\n${disposition}\r\n\r\nmemory model\n\r\n--b--\r\n`;
    const headers = { "content-type": "multipart/form-data; boundary=b" };
    const { status, json } = await api.call("POST", "/v1/models", { body, headers });
    assert.equal(status, 422, JSON.stringify(name));
    assert.equal(json.code, "validation_failed");
    assert.equal(json.errors[0].pointer, "/file");
  }
});

test("forms that are not a set of files", async () => {
  const file = modelBytes();
  const form = (fill: (form: FormData) => void) => {
    const it = new FormData();
    fill(it);
    return api.call("POST", "/v1/models", { body: it });
  };
  const blob = new Blob([file]);
  const cases = [
    [await form((it) => it.set("name", "x")), 422, "/file"],
    [await form((it) => it.set("file", "just text")), 422, "/file"],
    [await form((it) => it.set("model", blob, "m.onnx")), 422, "/model"],
    [await form((it) => [1, 2].map(() => it.append("file", blob, "m.onnx"))), 422, "/file"],
  ] as const;
  for (const [{ status, json }, expected, pointer] of cases) {
    assert.equal(status, expected);
    assert.equal(json.errors[0].pointer, pointer);
  }
  assert.equal((await form((it) => it.set("__proto__", "x"))).status, 400);
  const many = await form((it) => {
    for (let i = 0; i < 40; i++) it.set(`field-${i}`, "x");
  });
  assert.equal(many.status, 413);
  const large = await form((it) => it.set("metadata", "x".repeat(100_000)));
  assert.equal(large.status, 413);
});

test("an upload that stands still is given up", async () => {
  const part = '--b\r\ncontent-disposition: form-data; name="file"; filename="m.onnx"\r\n\r\nmemory';
  for (const [type, start] of [
    ["application/octet-stream", ""],
    ["application/octet-stream", "memory"],
    ["multipart/form-data; boundary=b", ""],
    ["multipart/form-data; boundary=b", part],
  ] as const) {
    const connection = connectRaw(api.url);
    connection.write(head(`content-type: ${type}`, "content-length: 500000"));
    connection.write(start);
    // A byte now and then is standing still, too.
    const drip = setInterval(() => connection.write("x"), 50);
    const { status, json } = await checked(connection.answer());
    clearInterval(drip);
    assert.equal(status, 408, `${type} ${JSON.stringify(start)}`);
    assert.equal(json.code, "request_timeout");
    connection.socket.destroy();
    await settled();
  }
});

test("a slow upload that moves is not", async () => {
  const bytes = modelBytes(20_000);
  const body = Readable.from(
    (async function* () {
      for (let at = 0; at < bytes.length; at += 2000) {
        yield bytes.subarray(at, at + 2000);
        await sleep(100);
      }
    })(),
  );
  const init = { body: Readable.toWeb(body) as ReadableStream, duplex: "half", headers: octets } as RequestInit;
  const created = await api.call("POST", "/v1/models", init);
  assert.equal(created.status, 201);
  await api.call("DELETE", `/v1/models/${created.json.id}`);
});

test("headers that are too large, and what is not HTTP", async () => {
  const large = connectRaw(api.url);
  large.write(head(`x-large: ${"x".repeat(100_000)}`));
  const answer = await large.answer();
  assert.equal(answer.status, 431);
  assert.equal(JSON.parse(answer.body.toString()).code, "headers_too_large");
  api.validator.checkAnswer("POST", "/v1/models", answer);
  const noise = connectRaw(api.url);
  noise.write("\x16\x03\x01 this is TLS\r\n\r\n");
  assert.equal((await noise.answer()).status, 400);
});

test("bodies with two lengths, or lengths that lie", async () => {
  const twice = connectRaw(api.url);
  twice.write(head("content-type: application/octet-stream", "content-length: 13", "transfer-encoding: chunked"));
  twice.write("memory model\n");
  assert.equal((await twice.answer()).status, 400);
  const short = connectRaw(api.url);
  short.write(head("content-type: application/octet-stream", "content-length: 1000"));
  short.write("memory model\n");
  short.socket.end();
  await short.closed();
  await settled();
});

test("a large upload does not grow the process", async (t) => {
  const large = await startTestServer({ settings: { maxUploadBytes: 1e9 } });
  t.after(() => large.close());
  const chunk = randomBytes(64 * 1024);
  const bytes = async function* () {
    yield modelBytes(13);
    for (let sent = 0; sent < 300e6; sent += chunk.length) yield chunk;
  };
  const start = process.memoryUsage.rss();
  let peak = start;
  const timer = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss());
  }, 10);
  const body = Readable.toWeb(Readable.from(bytes())) as ReadableStream;
  const created = await large.call("POST", "/v1/models", { body, duplex: "half", headers: octets } as RequestInit);
  clearInterval(timer);
  assert.equal(created.status, 201);
  assert.ok(created.json.size_bytes > 300e6);
  // The client is in this process, too; what is bounded is far below the upload.
  assert.ok(peak - start < 150e6, `${Math.round((peak - start) / 1e6)} MB for 300 MB`);
});
