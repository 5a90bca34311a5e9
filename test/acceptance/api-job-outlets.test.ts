import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { formOf } from "../support/calls.ts";
import { finishJob, startJob } from "../support/job-life.ts";
import { addModel, postJson, quantization } from "../support/job-requests.ts";
import { modelBytes } from "../support/memory-workers.ts";
import { apiKeys, startTestServer, type TestServer } from "../support/server.ts";

/** How what a job came to gets to others than who asks for it: by links, by webhooks, by deliveries. */

let api: TestServer;
let modelId: string;
before(async () => {
  api = await startTestServer();
  modelId = await addModel(api);
});
after(() => api.close());

test("a link opens one file of a job without a key, for a while", async () => {
  const keys = apiKeys([{ name: "me", key: "my-key", scopes: ["read", "write"] }]);
  const closed = await startTestServer({ context: { keys }, settings: { publicUrl: "https://press.example.com/ml" } });
  const authorization = "Bearer my-key";
  const send = (path: string, body: object | FormData) =>
    closed.call("POST", path, {
      headers: { authorization, ...(!(body instanceof FormData) && { "content-type": "application/json" }) },
      body: body instanceof FormData ? body : JSON.stringify(body),
    });
  try {
    const model = (await send("/v1/models", formOf({ "rec.onnx": modelBytes() }))).json.id;
    const { id } = (await send("/v1/jobs", quantization(model))).json;
    const links = `/v1/jobs/${id}/links`;
    assert.equal((await send(links, {})).json.code, "not_found");
    await startJob(closed, id);
    const html = Buffer.from("<h1>Report</h1>");
    await finishJob(closed, id, { "model.onnx": modelBytes(), "report.html": html });
    const made = await send(links, { expires_in_s: 60 });
    assert.equal(made.status, 201);
    const url = new URL(made.json.url);
    assert.equal(url.origin + url.pathname, `https://press.example.com/ml/v1/jobs/${id}/report`);
    const leftMs = Date.parse(made.json.expires_at) - Date.now();
    assert.ok(leftMs > 50_000 && leftMs <= 61_000);
    const open = (path: string) => closed.call("GET", path);
    const report = await open(`/v1/jobs/${id}/report${url.search}`);
    assert.deepEqual([report.status, report.body.equals(html)], [200, true]);
    assert.match(report.headers.get("content-security-policy")!, /^sandbox/);
    assert.equal((await closed.call("HEAD", `/v1/jobs/${id}/report${url.search}`)).status, 200);
    const file = new URL((await send(links, { artifact: "model.onnx" })).json.url);
    assert.equal((await open(`/v1/jobs/${id}/artifacts/model.onnx${file.search}`)).status, 200);
    for (const path of [
      `/v1/jobs/${id}/artifacts/model.onnx${url.search}`,
      `/v1/jobs/${id}/report${file.search}`,
      `/v1/jobs/${id}/report?expires=9999999999&signature=AAAA`,
    ]) {
      const refused = await open(path);
      assert.deepEqual([refused.status, refused.json.code], [403, "invalid_link"]);
    }
    const query = await closed.context.links.sign({ jobId: id, artifact: "report.html" }, new Date(Date.now() - 1000));
    const expired = await open(`/v1/jobs/${id}/report?${query}`);
    assert.equal(expired.status, 403);
    assert.match(expired.json.detail, /expired/);
    // A link is for files, and asks for nothing else.
    for (const path of [`/v1/jobs/${id}${url.search}`, `/v1/jobs/${id}/report`]) {
      assert.equal((await open(path)).status, 401);
    }
    assert.equal((await send(links, { artifact: "other.onnx" })).status, 404);
    assert.equal((await send(links, { expires_in_s: 8 * 86_400 })).status, 422);
  } finally {
    await closed.close();
  }
});

test("webhooks need a secret, and a place outside to go to", async (t) => {
  const off = await postJson(api, "/v1/jobs", quantization(modelId, { webhook: { url: "https://example.org/hook" } }));
  assert.equal(off.status, 422);
  assert.equal(off.json.errors[0].pointer, "/webhook");

  const on = await startTestServer({
    settings: { webhookAllowHosts: ["ci.internal:8080"] },
    webhookSecret: `whsec_${Buffer.alloc(32, 7).toString("base64")}`,
  });
  t.after(() => on.close());
  const model = await addModel(on);
  const send = (webhook: unknown) => postJson(on, "/v1/jobs", quantization(model, { webhook }));
  for (const url of ["https://example.org/hook", "http://ci.internal:8080/hook"]) {
    const unsigned = await send({ url });
    assert.deepEqual([unsigned.status, unsigned.json.errors[0].code], [422, "no_webhook_secret"]);
    const make = () => postJson(on, "/v1/webhook-secrets", { url });
    const [first, second] = [(await make()).json, (await make()).json];
    assert.match(first.secret, /^whsec_/);
    assert.notEqual(first.secret, second.secret);
    assert.deepEqual([first.previous_valid_until === null, second.previous_valid_until === null], [true, false]);
    const accepted = await send({ url, events: ["job.failed"] });
    assert.equal(accepted.status, 202, url);
    assert.ok(!accepted.body.includes("hook"), "the address may hold a secret");
    assert.deepEqual((await on.context.jobs.get(accepted.json.id))?.webhook, {
      ...{ url, events: ["job.failed"], owner: "anybody" },
    });
  }
  for (const url of [
    "http://example.org",
    "https://127.0.0.1",
    "https://169.254.169.254/latest",
    "file:///etc/passwd",
    "x",
  ]) {
    const refused = await send({ url });
    assert.equal(refused.status, 422, url);
    assert.equal(refused.json.errors[0].pointer, "/webhook/url");
  }
  const told = (await send({ url: "https://example.org/hook" })).json.id;
  assert.deepEqual((await on.context.jobs.get(told))?.webhook?.events, [
    "job.succeeded",
    "job.failed",
    "job.cancelled",
  ]);
  const again = (id: string) => on.call("POST", `/v1/jobs/${id}/webhook/redeliver`);
  const early = await again(told);
  assert.deepEqual([early.status, early.json.code], [409, "conflict"]);
  await on.call("POST", `/v1/jobs/${told}/cancel`);
  assert.deepEqual([(await again(told)).status, (await again("job_none")).status], [202, 404]);
  const untold = (await send(null)).json.id;
  await on.call("POST", `/v1/jobs/${untold}/cancel`);
  assert.match((await again(untold)).json.detail, /has no webhook/);
});

test("a job delivers to hosts that were allowed, and does not tell the address", async (t) => {
  const url = "http://store.internal:9000/bucket/key?X-Amz-Signature=secret";
  const refusedAt = async (at: TestServer, body: object) => {
    const answer = await postJson(at, "/v1/jobs", body);
    return [answer.status, answer.json.errors?.[0].pointer, answer.json.errors?.[0].code];
  };
  const to = (address: string, more: object = {}) => ({ deliver_to: { kind: "put", url: address, ...more } });
  assert.deepEqual(await refusedAt(api, quantization(modelId, to(url))), [422, "/deliver_to/url", "delivery_refused"]);
  const on = await startTestServer({ settings: { deliverAllowHosts: ["store.internal:9000"] } });
  t.after(() => on.close());
  const model = await addModel(on);
  const body = (more: object) => quantization(model, more);
  for (const address of ["https://example.org/key", "http://169.254.169.254/", "x"]) {
    assert.deepEqual(await refusedAt(on, body(to(address))), [422, "/deliver_to/url", "delivery_refused"]);
  }
  const evaluation = { type: "evaluate", params: { model_ids: [model] }, ...to(url) };
  assert.deepEqual(await refusedAt(on, evaluation), [422, "/deliver_to/artifact", "no_effect"]);
  const created = await postJson(on, "/v1/jobs", body(to(url)));
  assert.equal(created.status, 202);
  assert.equal(created.json.delivery.status, "waiting");
  assert.ok(!created.body.includes("secret"), "the address is as good as a key");
  const { id } = created.json;
  assert.deepEqual((await on.context.jobs.get(id))?.deliver_to, { url, artifact: "model.onnx" });
  const { json } = await on.call("POST", `/v1/jobs/${id}/cancel`);
  assert.deepEqual([json.delivery.status, json.delivery.detail], ["failed", "The job has not succeeded."]);
});
