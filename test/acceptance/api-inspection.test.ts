import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
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

test("only so many inspections run at once; the others wait, and too many are told when to come back", async (t) => {
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
  // 18 are taken: all others are told before one of those ends.
  const told = Promise.withResolvers<void>();
  const refused: Awaited<(typeof uploads)[number]>[] = [];
  for (const upload of uploads) {
    void upload.then((answer) => {
      if (answer.status === 503) refused.push(answer);
      if (refused.length === 22) told.resolve();
    });
  }
  await told.promise;
  // 18 of 2 s each in 2 slots.
  assert.deepEqual(new Set(refused.map(({ headers }) => headers.get("retry-after"))), new Set(["18"]));
  release.resolve();
  const statuses = (await Promise.all(uploads)).map(({ status }) => status);
  assert.equal(most, 2);
  assert.equal(statuses.filter((status) => status === 201).length, 18);
  assert.equal(refused.length, 22);
});

test("clients that ask and hang up shut nobody out: their inspections end with them, and uploads have a lane of their own", async (t) => {
  const ended = Promise.withResolvers<void>();
  let asked = 0;
  const tasks = createMemoryTasks({
    async inspect_model({ dims }, signal) {
      if (Object.keys(dims).length === 0) return MODEL_FACTS;
      asked++;
      await once(signal!, "abort");
      if (asked === 20) ended.resolve();
      return failingTask("cancelled")();
    },
  });
  const api = await startTestServer({ context: { tasks } });
  t.after(() => api.close());
  const { id } = (await api.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) })).json;
  for (let i = 1; i <= 20; i++) {
    const client = new AbortController();
    const question = fetch(`${api.url}/v1/models/${id}?dims=w:${i}`, { signal: client.signal });
    question.catch(() => {});
    while (asked < i) await sleep(5);
    const upload = await api.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) });
    assert.equal(upload.status, 201);
    client.abort();
    await assert.rejects(question);
  }
  await ended.promise;
});

test("what was found out about a model is answered again without another inspection", async (t) => {
  const tasks = createMemoryTasks();
  const api = await startTestServer({ context: { tasks } });
  t.after(() => api.close());
  const { id } = (await api.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) })).json;
  tasks.ran.length = 0;
  const ask = async (path: string) => (await api.call("GET", `/v1/models/${id}${path}`)).json;
  const [a, b] = await Promise.all([ask("?dims=w:3,n:1"), ask("?dims=n:1,w:3")]);
  assert.deepEqual([a.macs, b.macs, (await ask("?dims=w:3,n:1")).macs], [3000, 3000, 3000]);
  assert.equal((await ask("?dims=w:4")).macs, 4000);
  for (let i = 0; i < 3; i++) assert.equal((await ask("/layers")).data.length, 1);
  assert.deepEqual(tasks.ran.toSorted(), ["inspect_model", "inspect_model", "list_layers"]);
});
