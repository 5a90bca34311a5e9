import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import createClient from "openapi-fetch";
import type { components, paths } from "../support/api-types.ts";
import { formOf } from "../support/calls.ts";
import { finishJob, startJob } from "../support/job-life.ts";
import { LISTED, NEWS, startLaterService } from "../support/later-service.ts";
import { modelBytes } from "../support/memory-workers.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

/** A client that knows the service from openapi.yaml alone. That this file compiles is half of the test. */

let api: TestServer;
let client: ReturnType<typeof createClient<paths>>;
before(async () => {
  api = await startTestServer();
  client = createClient<paths>({ baseUrl: api.url });
});
after(() => api.close());

test("upload, job, events, artifacts, deletion through the generated types", async () => {
  const bytes = modelBytes(2000);
  const uploaded = await client.POST("/v1/models", {
    body: { file: ["m.onnx"], name: "typed" },
    bodySerializer: () => formOf({ "m.onnx": bytes }, { name: "typed" }),
  });
  assert.equal(uploaded.response.status, 201);
  const model = uploaded.data!;
  const macs: number | null = model.macs;
  assert.equal(macs, null);

  const request: components["schemas"]["JobRequest"] = {
    type: "quantize",
    model_id: model.id,
    params: { method: "weight_only", bits: 8 },
  };
  const planned = await client.POST("/v1/jobs/plan", { body: request });
  const predicted: number = planned.data!.size!.ratio;
  assert.ok(predicted > 0);
  const created = await client.POST("/v1/jobs", {
    params: { header: { "idempotency-key": "typed-1" } },
    body: request,
  });
  const job = created.data!;
  assert.equal(job.effective_params.block_size, 128, "the default for eight bits");

  await startJob(api, job.id);
  await finishJob(api, job.id, { "model.onnx": bytes });
  const path = { job_id: job.id };
  const done = await client.GET("/v1/jobs/{job_id}", { params: { path } });
  const ratio: number = done.data!.result!.metrics.size.ratio;
  assert.ok(ratio > 0);
  const events = await client.GET("/v1/jobs/{job_id}/events", { params: { path, query: { limit: 10 } } });
  assert.deepEqual(
    events.data!.data.map((event) => event.data.status),
    ["queued", "running", "succeeded"],
  );
  const artifact = await client.GET("/v1/jobs/{job_id}/artifacts/{name}", {
    params: { path: { ...path, name: "model.onnx" } },
    parseAs: "arrayBuffer",
  });
  assert.ok(Buffer.from(artifact.data as ArrayBuffer).equals(bytes));
  assert.equal((await client.DELETE("/v1/jobs/{job_id}", { params: { path } })).response.status, 204);
  await client.DELETE("/v1/models/{model_id}", { params: { path: { model_id: model.id } } });
  assert.deepEqual(await api.files(), []);
});

test("errors are typed, too", async () => {
  const { data, error } = await client.GET("/v1/models/{model_id}", { params: { path: { model_id: "mdl_none" } } });
  assert.equal(data, undefined);
  const problem: components["schemas"]["Problem"] = error!;
  assert.equal(problem.code, "not_found");
});

test("types of today hold what later versions add to a list: a field, a method, a status, a type of job", async () => {
  const later = await startLaterService();
  try {
    for (const [news, added] of Object.entries(NEWS)) {
      const { data } = await createClient<paths>({ baseUrl: `${later.url}/${news}` }).GET("/v1/jobs");
      const [summary] = data!.data;
      assert.deepEqual(summary, { ...LISTED, ...added });
      // That these compile is the test: none of them is a list of values that are known today.
      const known: components["schemas"]["JobSummary"] = {
        ...summary!,
        status: "paused",
        type: "prune",
        method: "sparse",
      };
      assert.equal(known.status, "paused");
    }
  } finally {
    later.close();
  }
});

test("pages can be walked to their end", async () => {
  let cursor: string | undefined;
  do {
    const { data } = await client.GET("/v1/jobs", {
      params: { query: { limit: 5, status: "succeeded", ...(cursor !== undefined && { cursor }) } },
    });
    cursor = data!.next_cursor ?? undefined;
  } while (cursor !== undefined);
});
