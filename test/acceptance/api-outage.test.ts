import assert from "node:assert/strict";
import { test } from "node:test";
import { formOf } from "../support/calls.ts";
import { createMemoryTasks, modelBytes } from "../support/memory-workers.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

/** What the API says when something behind it is away: 503 with Retry-After, soon, and nothing left behind. */

const JSON_BODY = { "content-type": "application/json" };

test("without Redis every answer that needs it is 503, at once", async (t) => {
  const api = await startTestServer();
  t.after(() => api.close());
  const { json: model } = await api.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) });
  const stored = await api.files();
  await api.stopRedis();
  const body = JSON.stringify({ type: "quantize", model_id: model.id, params: { method: "float16" } });
  const requests = [
    ["GET", "/v1/models", {}],
    ["GET", `/v1/models/${model.id}`, {}],
    ["GET", `/v1/models/${model.id}/content`, {}],
    ["DELETE", `/v1/models/${model.id}`, {}],
    ["POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) }],
    ["POST", "/v1/datasets", { body: formOf({ "d.npz": Buffer.from("data") }) }],
    ["GET", "/v1/jobs", {}],
    ["POST", "/v1/jobs", { body, headers: JSON_BODY }],
    ["GET", "/v1/jobs/job_1/events", { headers: { accept: "text/event-stream" } }],
    ["GET", "/readyz", {}],
  ] as const;
  for (const [method, path, init] of requests) {
    const started = performance.now();
    const { status, json, headers } = await api.call(method, path, init);
    assert.equal(status, 503, `${method} ${path}`);
    assert.equal(json.code, "unavailable");
    assert.ok(Number(headers.get("retry-after")) > 0);
    assert.ok(performance.now() - started < 1000, `${method} ${path} took ${performance.now() - started} ms`);
  }
  assert.deepEqual(await api.files(), stored, "nothing of the refused uploads stays");
  for (const path of ["/healthz", "/metrics", "/openapi.json", "/v1/capabilities"]) {
    assert.equal((await api.call("GET", path)).status, 200, path);
  }
});

test("a Redis that does not answer is no different, a few seconds later; then all is well again", async (t) => {
  const api = await startTestServer();
  t.after(() => api.close());
  api.signalRedis("SIGSTOP");
  const started = performance.now();
  const { status } = await api.call("GET", "/v1/jobs");
  assert.equal(status, 503);
  assert.ok(performance.now() - started < 8000);
  api.signalRedis("SIGCONT");
  await until("it answers again", async () => (await api.call("GET", "/v1/jobs")).status === 200);
});

test("when Redis goes away during an inspection, the upload fails and its files wait for the sweep", async (t) => {
  const running = Promise.withResolvers<void>();
  const end = Promise.withResolvers<never>();
  const tasks = createMemoryTasks({
    inspect_model() {
      running.resolve();
      return end.promise;
    },
  });
  const api = await startTestServer({ context: { tasks } });
  t.after(() => api.close());
  const upload = api.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) });
  await running.promise;
  await api.stopRedis();
  end.reject(new Error("whatever it was"));
  const { status } = await upload;
  assert.equal(status, 500);
  assert.equal((await api.files()).length, 1);
  assert.ok(api.logged.some((line) => line.includes("claims not released")));
});

test("a Redis that takes no writes: 503 with Retry-After, not ready, and reads go on", async (t) => {
  const api = await startTestServer();
  t.after(() => api.close());
  const { json: model } = await api.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) });
  const body = JSON.stringify({ type: "quantize", model_id: model.id, params: { method: "float16" } });
  const job = { body, headers: JSON_BODY };
  for (const [setting, refuses, takes, name] of [
    ["maxmemory", "1", "0", "OOM"],
    ["min-replicas-to-write", "3", "0", "NOREPLICAS"],
  ] as const) {
    await api.setRedis(setting, refuses);
    const refused = await api.call("POST", "/v1/jobs", job);
    assert.equal(refused.status, 503, name);
    assert.equal(refused.json.code, "unavailable");
    assert.match(refused.json.detail, new RegExp(name));
    assert.ok(Number(refused.headers.get("retry-after")) > 0);
    const ready = await readiness(api, 503);
    assert.deepEqual(
      ready.json.errors.map(({ pointer }: { pointer: string }) => pointer),
      ["#/parts/redis"],
    );
    assert.equal(
      (await api.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) })).status,
      503,
      name,
    );
    assert.equal((await api.call("GET", `/v1/models/${model.id}`)).status, 200);
    await api.setRedis(setting, takes);
    await readiness(api, 200);
    assert.equal((await api.call("POST", "/v1/jobs", job)).status, 202);
  }
});

/** The answer of `/readyz` once it has this status: all who ask within a second share one look at Redis. */
function readiness(api: TestServer, status: number): ReturnType<TestServer["call"]> {
  return until(`/readyz is ${status}`, async () => {
    const answer = await api.call("GET", "/readyz");
    return answer.status === status && answer;
  });
}
