import assert from "node:assert/strict";
import { test } from "node:test";
import { formOf } from "../support/calls.ts";
import { createMemoryTasks, failingTask, MODEL_FACTS, modelBytes } from "../support/memory-workers.ts";
import { startTestServer } from "../support/server.ts";

/** What becomes of an upload when its inspection ends badly, or does not end. */

test("however an inspection fails, the upload is refused with the reason and nothing stays", async (t) => {
  let code: Parameters<typeof failingTask>[0] = "worker_crashed";
  const api = await startTestServer({
    context: { tasks: createMemoryTasks({ inspect_model: () => failingTask(code)() }) },
  });
  t.after(() => api.close());
  for (const [failure, status] of [
    ["worker_crashed", 422],
    ["out_of_memory", 422],
    ["timeout", 422],
    ["invalid_model", 422],
    ["unsupported", 422],
    ["limit_exceeded", 422],
    ["internal", 500],
  ] as const) {
    code = failure;
    const answer = await api.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) });
    assert.equal(answer.status, status, failure);
    assert.equal(answer.json.code, failure);
    assert.deepEqual(await api.files(), []);
  }
  const answer = await api.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) });
  assert.doesNotMatch(answer.json.detail, /secret path/, "internal errors are for the log");
  assert.ok(api.logged.some((line) => line.includes("secret path")));
});

test("only so many inspections run at once; the others wait, and too many are told to come back", async (t) => {
  let running = 0;
  let most = 0;
  const release = Promise.withResolvers<void>();
  const tasks = createMemoryTasks({
    async inspect_model() {
      most = Math.max(most, ++running);
      await release.promise;
      running--;
      return MODEL_FACTS;
    },
  });
  const api = await startTestServer({ context: { tasks }, settings: { inspectConcurrency: 2 } });
  t.after(() => api.close());
  const uploads = Array.from({ length: 40 }, () =>
    api.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) }),
  );
  const first = await Promise.any(uploads.map(async (upload) => assert.ok((await upload).status === 503)));
  assert.equal(first, undefined);
  release.resolve();
  const statuses = (await Promise.all(uploads)).map(({ status }) => status);
  assert.equal(most, 2);
  assert.equal(statuses.filter((status) => status === 201).length, 34);
  assert.equal(statuses.filter((status) => status === 503).length, 6);
});
