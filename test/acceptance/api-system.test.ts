import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { parse } from "yaml";
import { createMemoryQueue } from "../support/memory-workers.ts";
import { apiKeys, startTestServer, type TestServer } from "../support/server.ts";

let api: TestServer;
before(async () => {
  api = await startTestServer();
});
after(() => api.close());

test("alive, ready, and what is missing when not", async (t) => {
  assert.deepEqual((await api.call("GET", "/healthz")).json, { status: "ok" });
  assert.deepEqual((await api.call("GET", "/readyz")).json, { status: "ready", workers: 1, refusing_workers: 0 });
  const broken = await startTestServer({
    context: {
      queue: { ...createMemoryQueue(), workers: async () => [] },
      checkRedis: () => new Promise(() => {}),
    },
  });
  t.after(() => broken.close());
  const started = performance.now();
  const answer = await broken.call("GET", "/readyz");
  assert.ok(performance.now() - started < 4000, "a part that hangs must not hang the answer");
  assert.equal(answer.status, 503);
  assert.deepEqual(
    answer.json.errors.map((error: { pointer: string }) => error.pointer),
    ["#/parts/redis", "#/parts/workers"],
  );
  assert.ok(answer.headers.get("retry-after"));
});

test("metrics have routes, never URLs", async () => {
  await api.call("GET", "/v1/models/mdl_somebody");
  await api.call("GET", "/nowhere/at/all");
  const { body, headers } = await api.call("GET", "/metrics");
  assert.match(headers.get("content-type")!, /^text\/plain; version=0\.0\.4/);
  const text = body.toString();
  const seen =
    /modelpress_http_request_duration_seconds_count\{method="GET",route="\/v1\/models\/\{model_id\}",status="404"\} 1/;
  assert.match(text, seen);
  assert.match(text, /route="unmatched",status="404"/);
  assert.doesNotMatch(text, /mdl_somebody|nowhere/);
  for (const metric of ['modelpress_queue_jobs{state="waiting"} 0', "modelpress_workers 1", "modelpress_redis_up 1"]) {
    assert.ok(text.includes(metric), metric);
  }
});

test("capabilities name the methods whose parameters the document has", async () => {
  const { json } = await api.call("GET", "/v1/capabilities");
  const methods = json.methods.map((it: { type: string; method: string }) => `${it.type} ${it.method}`);
  for (const method of [
    "quantize float16",
    "quantize dynamic",
    "quantize weight_only",
    "distill offline",
    "distill self",
  ]) {
    assert.ok(methods.includes(method), method);
  }
  assert.ok(json.trainable_operators.includes("Conv") && !json.trainable_operators.includes("NonMaxSuppression"));
  for (const { params_schema } of json.methods) assert.ok(params_schema in api.document.components.schemas);
  assert.match(json.versions.onnxruntime, /^\d+\.\d+\.\d+/);
  assert.equal(json.versions.node, process.versions.node);
  assert.equal(json.limits.max_upload_bytes, 64 * 1024 * 1024);
  assert.deepEqual(
    json.targets.map((it: { name: string }) => it.name),
    ["auto", "x64-vnni", "x64-avx2", "arm64", "portable", "web", "openvino", "tensorrt", "qnn"],
  );
});

test("the document as JSON and as YAML is one document", async () => {
  const yaml = await api.call("GET", "/openapi.yaml");
  assert.equal(yaml.headers.get("content-type"), "application/yaml");
  assert.deepEqual(parse(yaml.body.toString()), (await api.call("GET", "/openapi.json")).json);
});

test("the reference works without the internet", async () => {
  const page = await fetch(`${api.url}/docs/`);
  assert.equal(page.status, 200);
  const html = await page.text();
  assert.match(html, /\/openapi\.json/);
  assert.doesNotMatch(html, /(src|href)="https?:\/\//);
  const policy = page.headers.get("content-security-policy")!;
  assert.match(policy, /default-src 'self'/);
  assert.doesNotMatch(policy, /https?:/);
  const [script] = html.match(/js\/scalar\.js/)!;
  const bundle = await fetch(`${api.url}/docs/${script}`);
  assert.equal(bundle.status, 200);
  assert.ok((await bundle.text()).length > 1_000_000);
});

test("every answer has a request id and says that it is data", async () => {
  for (const path of ["/healthz", "/nowhere", "/v1/jobs/x", "/docs/"]) {
    const { headers } = await fetch(api.url + path);
    assert.ok(headers.get("x-request-id"), path);
    assert.equal(headers.get("x-content-type-options"), "nosniff");
    assert.ok(headers.get("content-security-policy"));
  }
  const named = await api.call("GET", "/nowhere", { headers: { "x-request-id": "build-7.step-2" } });
  assert.equal(named.json.request_id, "build-7.step-2");
  const hostile = await api.call("GET", "/nowhere", { headers: { "x-request-id": 'a"b{}' } });
  assert.notEqual(hostile.json.request_id, 'a"b{}');
});

test("a path that is there, but not with this method", async () => {
  for (const [method, path, allowed] of [
    ["PUT", "/v1/models", "GET, HEAD, POST"],
    ["POST", "/healthz", "GET, HEAD"],
    ["PUT", "/v1/jobs/job_1", "DELETE, GET, HEAD, PATCH"],
    ["DELETE", "/v1/jobs/job_1/report", "GET, HEAD"],
  ] as const) {
    const answer = await api.call(method, path);
    assert.equal(answer.status, 405, path);
    assert.equal(answer.json.code, "method_not_allowed");
    assert.equal(answer.headers.get("allow"), allowed);
  }
  for (const path of [
    "/v1",
    "/v1/models/",
    "/v1/models/a/b/c",
    "/%",
    "/v1/models/%ff",
    `/v1/models/${"x".repeat(300)}`,
  ]) {
    const { status, json } = await api.call("GET", path);
    assert.ok(status === 404 || status === 400, `${status} for ${path}`);
    assert.ok(json.code === "not_found" || json.code === "invalid_request");
  }
});

test("keys: who may do what", async (t) => {
  const keys = apiKeys([
    { name: "reader", key: "read-key", scopes: ["read"] },
    { name: "writer", key: "write-key" },
    { name: "admin", key: "admin-key", scopes: ["read", "write", "admin"] },
  ]);
  const guarded = await startTestServer({ context: { keys } });
  t.after(() => guarded.close());
  const status = async (method: string, path: string, key?: string) =>
    (await guarded.call(method, path, key === undefined ? {} : { headers: { authorization: `Bearer ${key}` } })).status;

  for (const path of ["/healthz", "/readyz", "/openapi.json", "/openapi.yaml"])
    assert.equal(await status("GET", path), 200);
  for (const path of ["/v1/models", "/v1/jobs", "/metrics", "/v1/capabilities"]) {
    assert.equal(await status("GET", path), 401, path);
    assert.equal(await status("GET", path, "wrong"), 401, path);
    assert.equal(await status("GET", path, "read-key"), 200, path);
  }
  assert.equal(await status("DELETE", "/v1/models/mdl_1", "read-key"), 403);
  assert.equal(await status("DELETE", "/v1/models/mdl_1", "write-key"), 404);
  assert.equal(await status("GET", "/nowhere"), 404);

  const page = (authorization?: string) =>
    fetch(`${guarded.url}/admin/queues`, authorization === undefined ? {} : { headers: { authorization } });
  const basic = (key: string) => `Basic ${Buffer.from(`me:${key}`).toString("base64")}`;
  assert.equal((await page()).headers.get("www-authenticate"), 'Basic realm="modelpress"');
  assert.equal((await page(basic("write-key"))).status, 403);
  assert.equal((await page(basic("admin-key"))).status, 200);
  assert.equal((await page("Bearer admin-key")).status, 200);
  // An upload by a stranger is refused before it is read.
  const refused = await guarded.call("POST", "/v1/models", {
    body: Buffer.alloc(1000),
    headers: { "content-type": "application/octet-stream" },
  });
  assert.equal(refused.status, 401);

  const log = guarded.logged.join("");
  assert.ok(log.includes('"caller":"reader"'));
  for (const secret of ["read-key", "write-key", "admin-key"]) {
    assert.ok(!log.includes(secret), "keys are not logged");
    assert.ok(!log.includes(createHash("sha256").update(secret).digest("hex")));
  }
});

test("too many requests of one key or address", async (t) => {
  const keys = apiKeys([
    { name: "busy", key: "busy-key" },
    { name: "calm", key: "calm-key" },
  ]);
  const limited = await startTestServer({ context: { keys }, settings: { rateLimitPerMinute: 10 } });
  t.after(() => limited.close());
  const get = (key: string) => limited.call("GET", "/v1/jobs", { headers: { authorization: `Bearer ${key}` } });
  for (let i = 0; i < 10; i++) assert.equal((await get("busy-key")).status, 200);
  const refused = await get("busy-key");
  assert.equal(refused.status, 429);
  assert.equal(refused.json.code, "rate_limited");
  assert.ok(Number(refused.headers.get("retry-after")) > 0);
  assert.equal((await get("calm-key")).status, 200);
  // Guessing keys, and paths, is limited by address. One request was made at the start.
  const guesses: number[] = [];
  for (let i = 0; i < 12; i++) guesses.push((await get(`guess-${i}`)).status);
  assert.deepEqual(new Set(guesses), new Set([401, 429]));
  assert.equal((await limited.call("GET", "/nowhere")).status, 429);
  for (let i = 0; i < 20; i++) assert.equal((await limited.call("GET", "/healthz")).status, 200);
});

test("connections on which nothing is asked do not hold up closing", async () => {
  const idle = await startTestServer();
  const { hostname, port } = new URL(idle.url);
  const socket = connect(Number(port), hostname);
  await once(socket, "connect");
  // Its connection has been accepted when a later one has been answered.
  await idle.call("GET", "/healthz");
  const started = performance.now();
  await idle.close();
  // Without it, closing waits for headers: ten seconds and more.
  assert.ok(performance.now() - started < 9_000);
  socket.destroy();
});
