import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { formOf } from "../support/calls.ts";
import { finishJob, startJob } from "../support/job-life.ts";
import { addModel, postJson, quantization } from "../support/job-requests.ts";
import { modelBytes } from "../support/memory-workers.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let api: TestServer;
let modelId: string;
let datasetId: string;
let labelledId: string;
before(async () => {
  api = await startTestServer({ settings: { maxQueuedJobsPerKey: 20 } });
  modelId = await addModel(api);
  datasetId = (await api.call("POST", "/v1/datasets", { body: formOf({ "d.npz": Buffer.from("data") }) })).json.id;
  labelledId = (await api.call("POST", "/v1/datasets", { body: formOf({ "l.npz": Buffer.from("labels") }) })).json.id;
});
after(() => api.close());

const bodyOf = (parts: object = {}) => quantization(modelId, parts);
const post = (body: unknown, headers: Record<string, string> = {}, query = "") =>
  postJson(api, `/v1/jobs${query}`, body, headers);
const drop = async (id: string) => {
  await api.call("POST", `/v1/jobs/${id}/cancel`);
  await api.call("DELETE", `/v1/jobs/${id}`);
};

test("a job is accepted with every default filled in, and found again", async () => {
  const created = await post(bodyOf({ params: { method: "weight_only", bits: 8 }, name: "first" }));
  assert.equal(created.status, 202);
  const job = created.json;
  assert.equal(created.headers.get("location"), `/v1/jobs/${job.id}`);
  assert.equal(created.headers.get("retry-after"), "1");
  assert.equal(job.status, "queued");
  assert.equal(job.queue_position, 1);
  assert.deepEqual(job.params, { method: "weight_only", bits: 8 });
  assert.equal(job.effective_params.bits, 8);
  assert.equal(job.effective_params.block_size, 128);
  assert.deepEqual(job.effective_params.exclude_ops, []);
  assert.deepEqual(job.evaluation.latency, { runs: 50, batch_size: 1, threads: 1 });
  assert.equal(job.priority, 5);
  assert.deepEqual((await api.call("GET", `/v1/jobs/${job.id}`)).json, job);
  await drop(job.id);
});

test("every wrong field is named at once, with a pointer", async () => {
  const refused = await post(
    bodyOf({
      params: { method: "weight_only", bits: 3, blok_size: 1 },
      priority: 11,
      metadata: { a: 1 },
      evaluation: { samples: 0 },
    }),
  );
  assert.equal(refused.status, 422);
  assert.equal(refused.json.code, "validation_failed");
  assert.deepEqual(refused.json.errors.map((it: { pointer: string }) => it.pointer).sort(), [
    "/evaluation/samples",
    "/metadata/a",
    "/params/bits",
    "/params/blok_size",
    "/priority",
  ]);
  const method = await post(bodyOf({ params: { method: "magic" } }));
  assert.equal(method.json.errors[0].pointer, "/params/method");
  const type = await post(bodyOf({ type: "shrink" }));
  assert.equal(type.json.errors[0].pointer, "/type");
});

test("bodies that are not a JSON object", async () => {
  for (const [body, status] of [
    ["{", 400],
    ["", 400],
    ["null", 422],
    ["[]", 422],
    ['"text"', 422],
    ['{"__proto__": {"a": 1}}', 400],
  ] as const) {
    const refused = await api.call("POST", "/v1/jobs", { body, headers: { "content-type": "application/json" } });
    assert.equal(refused.status, status, body);
  }
  const large = await post(bodyOf({ name: "x".repeat(2_000_000) }));
  assert.equal(large.status, 413);
  const form = await api.call("POST", "/v1/jobs", { body: new URLSearchParams({ type: "quantize" }) });
  assert.equal(form.status, 415);
});

test("what does not go together is refused from the recorded facts, without starting a process", async () => {
  const before = (api.context.tasks as unknown as { ran: string[] }).ran.length;
  const cases = [
    [bodyOf({ model_id: "mdl_unknown" }), "/model_id", "unknown_model"],
    [bodyOf({ evaluation: { dataset_id: "dst_unknown" } }), "/evaluation/dataset_id", "unknown_dataset"],
    [bodyOf({ evaluation: { dataset_id: datasetId, metric: "top1" } }), "/evaluation/metric", "no_labels"],
    [bodyOf({ acceptance: { max_metric_drop: 0.1 } }), "/acceptance/max_metric_drop", "no_labels"],
    [bodyOf({ evaluation: { dims: { h: 3 } } }), "/evaluation/dims/h", "unknown_dimension"],
  ] as const;
  for (const [body, pointer, code] of cases) {
    const refused = await post(body);
    assert.equal(refused.status, 422, pointer);
    assert.equal(refused.json.errors[0].pointer, pointer);
    assert.equal(refused.json.errors[0].code, code);
  }
  const accepted = await post(bodyOf({ evaluation: { dataset_id: labelledId, metric: "top1" } }));
  assert.equal(accepted.status, 202);
  assert.equal((api.context.tasks as unknown as { ran: string[] }).ran.length, before);
  await drop(accepted.json.id);
});

test("a plan is answered and nothing stored, also by validate_only", async () => {
  const plan = await post(bodyOf(), {}, "/plan");
  assert.equal(plan.status, 200);
  assert.equal(plan.json.method, "dynamic");
  assert.deepEqual((await post(bodyOf(), {}, "?validate_only=true")).json, plan.json);
  assert.equal((await post(bodyOf({ model_id: "mdl_unknown" }), {}, "/plan")).status, 422);
  assert.deepEqual((await api.call("GET", "/v1/jobs")).json.data, []);
  assert.equal((await post(bodyOf({ model_id: "mdl_unknown" }), {}, "?validate_only=true")).status, 422);
  assert.equal((await post(bodyOf(), {}, "?validate_only=maybe")).status, 422);
});

test("an Idempotency-Key makes one job of many requests, and is not for two different ones", async () => {
  const headers = { "idempotency-key": "build-42" };
  const answers = await Promise.all([1, 2, 3].map(() => post(bodyOf(), headers)));
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([202]));
  assert.equal(new Set(answers.map(({ json }) => json.id)).size, 1);
  // The same request written differently.
  const { type, model_id, params } = bodyOf();
  const reordered = await post({ priority: 5, params, model_id, type }, headers);
  assert.equal(reordered.json.id, answers[0]!.json.id);
  const other = await post(bodyOf({ priority: 6 }), headers);
  assert.equal(other.status, 422);
  assert.equal(other.json.code, "idempotency_conflict");
  assert.equal((await api.call("GET", "/v1/jobs")).json.data.length, 1);
  await drop(answers[0]!.json.id);
});

test("a key may have so many jobs waiting; jobs that have started do not count", async () => {
  const made: string[] = [];
  for (let i = 0; i < 20; i++) made.push((await post(bodyOf())).json.id);
  const refused = await post(bodyOf());
  assert.equal(refused.status, 429);
  assert.equal(refused.json.code, "quota_exceeded");
  assert.equal(refused.headers.get("retry-after"), "10");
  await startJob(api, made[0]!);
  const accepted = await post(bodyOf());
  assert.equal(accepted.status, 202);
  made.push(accepted.json.id);
  assert.equal((await post(bodyOf())).status, 429);
  await finishJob(api, made[0]!, {});
  for (const id of made) await drop(id);
  assert.equal((await api.call("GET", "/v1/jobs")).json.data.length, 0);
});

test("lists can be filtered, and their pages go on", async () => {
  const first = (await post(bodyOf())).json.id;
  const second = (await post(bodyOf())).json.id;
  await startJob(api, first);
  const ids = async (query: string) =>
    (await api.call("GET", `/v1/jobs?${query}`)).json.data.map((job: { id: string }) => job.id);
  assert.deepEqual(await ids(""), [second, first]);
  assert.deepEqual(await ids("status=running"), [first]);
  assert.deepEqual(await ids("status=queued&type=quantize"), [second]);
  assert.deepEqual(await ids("type=distill"), []);
  assert.deepEqual(await ids(`model_id=${modelId}`), [second, first]);
  assert.deepEqual(await ids("model_id=mdl_other"), []);
  const page = await api.call("GET", "/v1/jobs?limit=1");
  assert.deepEqual(await ids(`limit=1&cursor=${page.json.next_cursor}`), [first]);
  for (const query of ["status=lost", "type=shrink", "cursor=bm8"]) {
    assert.ok([400, 422].includes((await api.call("GET", `/v1/jobs?${query}`)).status), query);
  }
  await finishJob(api, first, {});
  await drop(first);
  await drop(second);
});

test("a job is called otherwise, and found by it", async () => {
  const { json: job } = await post(bodyOf({ name: "nightly", metadata: { team: "ocr" } }));
  const patch = (body: object) =>
    api.call("PATCH", `/v1/jobs/${job.id}`, {
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  assert.deepEqual((await patch({ metadata: { team: "ocr", build: "12" } })).json.metadata, {
    team: "ocr",
    build: "12",
  });
  const listed = async (query: string) => (await api.call("GET", `/v1/jobs?${query}`)).json.data.length;
  assert.equal(await listed("name=nightly&metadata.build=12&status=queued"), 1);
  assert.equal(await listed("name=nightly&metadata.build=13"), 0);
  assert.equal((await patch({ name: null })).json.name, null);
  assert.equal((await api.call("GET", `/v1/jobs/${job.id}`)).json.name, null);
  assert.equal(await listed("name=nightly"), 0);
  assert.equal((await patch({ priority: 1 })).status, 422);
  await drop(job.id);
});

test("cancel: waiting at once, running soon, finished not at all", async () => {
  const waiting = (await post(bodyOf())).json.id;
  const cancelled = await api.call("POST", `/v1/jobs/${waiting}/cancel`);
  assert.equal(cancelled.status, 202);
  assert.equal(cancelled.json.status, "cancelled");
  assert.ok(cancelled.json.finished_at);
  assert.equal((await api.context.queue.counts()).waiting, 0);
  assert.equal((await api.call("POST", `/v1/jobs/${waiting}/cancel`)).status, 202);

  const running = (await post(bodyOf())).json.id;
  await startJob(api, running);
  const cancelling = await api.call("POST", `/v1/jobs/${running}/cancel`, {
    headers: { "content-type": "application/json" },
  });
  assert.equal(cancelling.status, 202);
  assert.equal(cancelling.json.status, "cancelling");
  assert.equal((await api.call("DELETE", `/v1/jobs/${running}`)).status, 409);
  await api.context.jobs.transition(running, ["cancelling"], "cancelled", { finished_at: new Date().toISOString() });

  const done = (await post(bodyOf())).json.id;
  await startJob(api, done);
  await finishJob(api, done, {});
  const late = await api.call("POST", `/v1/jobs/${done}/cancel`);
  assert.equal(late.status, 409);
  assert.equal(late.json.code, "conflict");
  assert.equal((await api.call("POST", "/v1/jobs/job_unknown/cancel")).status, 404);
  for (const id of [waiting, running, done]) await drop(id);
});

test("retry makes a new job of the same request", async () => {
  const body = bodyOf({ name: "again", metadata: { a: "b" }, priority: 2 });
  const { json: job } = await post(body);
  assert.equal((await api.call("POST", `/v1/jobs/${job.id}/retry`)).status, 409);
  await api.call("POST", `/v1/jobs/${job.id}/cancel`);
  const again = await api.call("POST", `/v1/jobs/${job.id}/retry`);
  assert.equal(again.status, 202);
  assert.notEqual(again.json.id, job.id);
  assert.equal(again.json.retry_of, job.id);
  for (const field of ["params", "effective_params", "evaluation", "metadata", "name", "priority", "model_id"]) {
    assert.deepEqual(again.json[field], job[field], field);
  }
  await drop(again.json.id);
  await drop(job.id);
});

test("a model or dataset cannot be deleted while a job uses it", async () => {
  const { json: job } = await post(bodyOf({ evaluation: { dataset_id: datasetId } }));
  for (const path of [`/v1/models/${modelId}`, `/v1/datasets/${datasetId}`]) {
    const refused = await api.call("DELETE", path);
    assert.equal(refused.status, 409);
    assert.match(refused.json.detail, new RegExp(job.id));
  }
  await drop(job.id);
});

test("artifacts and the report of a finished job; both go with it", async () => {
  const { json: job } = await post(bodyOf());
  const path = `/v1/jobs/${job.id}`;
  assert.equal((await api.call("GET", `${path}/report`)).status, 404);
  const before = await api.files();
  await startJob(api, job.id);
  const html = Buffer.from("<h1>Report</h1><script>alert(1)</script>");
  const model = modelBytes(5000);
  await finishJob(api, job.id, { "model.onnx": model, "report.json": Buffer.from('{"a":1}'), "report.html": html });

  const { json: done } = await api.call("GET", path);
  assert.equal(done.status, "succeeded");
  const [artifact] = done.result.artifacts;
  assert.equal(artifact.url, `${path}/artifacts/model.onnx`);
  const download = await api.call("GET", artifact.url);
  assert.ok(download.body.equals(model));
  assert.equal(download.headers.get("content-type"), "application/octet-stream");
  assert.match(download.headers.get("content-disposition")!, /^attachment; filename="m dynamic.onnx";/);
  assert.equal((await api.call("GET", artifact.url, { headers: { range: "bytes=-1" } })).status, 206);
  assert.equal(
    (await api.call("GET", artifact.url, { headers: { "if-none-match": `"${artifact.sha256}"` } })).status,
    304,
  );
  const numbers = await api.call("GET", `${path}/artifacts/report.json`);
  assert.equal(numbers.headers.get("content-type"), "application/octet-stream");
  assert.equal(JSON.parse(numbers.body.toString()).a, 1);

  const report = await api.call("GET", `${path}/report`);
  assert.ok(report.body.equals(html));
  assert.match(report.headers.get("content-type")!, /^text\/html/);
  assert.match(report.headers.get("content-disposition")!, /^inline/);
  assert.match(
    report.headers.get("content-security-policy")!,
    /^sandbox allow-scripts; default-src 'none'; .*script-src 'sha256-/,
  );
  assert.equal(report.headers.get("x-content-type-options"), "nosniff");
  for (const name of ["other", "..%2Freport.json", "%2e%2e%2freport.json", "report.json%00"]) {
    assert.equal((await api.call("GET", `${path}/artifacts/${name}`)).status, 404, name);
  }

  assert.equal((await api.call("DELETE", path)).status, 204);
  assert.deepEqual((await api.files()).toSorted(), before.toSorted());
  for (const sub of ["", "/events", "/report", "/artifacts/model.onnx"]) {
    assert.equal((await api.call("GET", path + sub)).status, 404);
  }
});

test("jobs are compared, as data and as a page, with what keeps their numbers apart", async () => {
  const { json: one } = await post(bodyOf({ name: "<b>first</b>" }));
  const { json: two } = await post(bodyOf({ evaluation: { dataset_id: datasetId } }));
  const { json: open } = await post(bodyOf());
  const finished = async () => {
    const text = (await api.call("GET", "/metrics")).body.toString();
    return Number(/^modelpress_jobs_finished_total\{status="succeeded"\} (\d+)$/m.exec(text)![1]);
  };
  const before = await finished();
  for (const { id } of [one, two]) {
    await startJob(api, id);
    await finishJob(api, id, { "report.html": Buffer.from("<h1>") });
  }
  assert.equal(await finished(), before + 2);
  const ids = `${two.id},${one.id},${open.id}`;
  const { json } = await api.call("GET", `/v1/compare?job_ids=${ids}`);
  assert.deepEqual(
    json.jobs.map((job: { job_id: string; status: string; method: string }) => [job.job_id, job.status, job.method]),
    [
      [two.id, "succeeded", "dynamic"],
      [one.id, "succeeded", "dynamic"],
      [open.id, "queued", "dynamic"],
    ],
  );
  const { metrics } = (await api.call("GET", `/v1/jobs/${one.id}`)).json.result;
  const { size, accuracy, latency, memory, acceptance, fidelity } = metrics;
  const worst = Math.min(...fidelity.outputs.map((output: { sqnr_db: number }) => output.sqnr_db));
  assert.deepEqual(json.jobs[1].metrics, {
    ...{ size, accuracy, latency, memory, acceptance },
    ...{ worst_sqnr_db: worst, fidelity_data: fidelity.data },
  });
  assert.equal(json.jobs[2].metrics, null);
  assert.deepEqual(
    json.differences.map(({ code }: { code: string }) => code),
    ["data_differ"],
  );
  assert.deepEqual((await api.call("GET", `/v1/compare?jobs=${ids}`)).json, json);

  const page = await api.call("GET", `/v1/compare/report?job_ids=${ids}`);
  assert.match(page.headers.get("content-type")!, /^text\/html/);
  assert.match(page.headers.get("content-security-policy")!, /^sandbox allow-scripts; default-src 'none'/);
  const text = page.body.toString();
  assert.ok(text.includes("&lt;b&gt;first&lt;/b&gt;") && !text.includes("<b>first"));
  assert.ok(text.includes(`/v1/jobs/${two.id}/report`) && text.includes("judged on different data"));
  const refused = await api.call("GET", `/v1/compare?job_ids=${one.id},job_x,job_y`);
  assert.equal(refused.status, 404);
  assert.match(refused.json.detail, /job_x, job_y/);
  const many = Array.from({ length: 21 }, (_, i) => `job_${i}`).join(",");
  for (const query of ["", "?job_ids=", "?job_ids=a,,b", "?job_ids=a&jobs=b", `?job_ids=${many}`]) {
    const answer = await api.call("GET", `/v1/compare${query}`);
    assert.deepEqual([answer.status, answer.json.errors[0].pointer], [422, "#/query/job_ids"], query);
  }
  for (const { id } of [one, two, open]) await drop(id);
});

test("a retry takes an Idempotency-Key: sent twice it makes one job", async () => {
  const { id } = (await post(bodyOf())).json;
  await api.call("POST", `/v1/jobs/${id}/cancel`);
  const retry = (of: string, key: string) =>
    api.call("POST", `/v1/jobs/${of}/retry`, { headers: { "idempotency-key": key } });
  const answers = await Promise.all([retry(id, "again"), retry(id, "again"), retry(id, "again")]);
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([202]));
  const made = new Set(answers.map(({ json }) => json.id as string));
  assert.equal(made.size, 1);
  const [again] = [...made] as [string];
  const other = (await retry(id, "other")).json.id;
  assert.notEqual(other, again);
  await api.call("POST", `/v1/jobs/${other}/cancel`);
  const refused = await retry(other, "again");
  assert.deepEqual([refused.status, refused.json.code], [422, "idempotency_conflict"]);
  for (const job of [again, other, id]) await drop(job);
});
