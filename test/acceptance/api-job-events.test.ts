import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { formOf } from "../support/calls.ts";
import { finishJob, startJob } from "../support/job-life.ts";
import { modelBytes } from "../support/memory-workers.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let api: TestServer;
let modelId: string;
before(async () => {
  api = await startTestServer();
  modelId = (await api.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) })).json.id;
});
after(() => api.close());

async function newJob(): Promise<string> {
  const body = JSON.stringify({ type: "quantize", model_id: modelId, params: { method: "float16" } });
  return (await api.call("POST", "/v1/jobs", { body, headers: { "content-type": "application/json" } })).json.id;
}

interface Message {
  readonly id: number;
  readonly event: string;
  readonly data: { readonly id: number; readonly type: string; readonly data: Record<string, unknown> };
}

/** Reads a stream of events until it ends. */
async function* streamOf(
  id: string,
  headers: Record<string, string> = {},
  signal?: AbortSignal,
): AsyncGenerator<Message> {
  const init = { headers, ...(signal && { signal }) };
  const response = await fetch(`${api.url}/v1/jobs/${id}/events/stream`, init);
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  assert.match(response.headers.get("cache-control")!, /no-cache/);
  let text = "";
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const fields = new Map(
        text
          .slice(0, end)
          .split("\n")
          .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]),
      );
      text = text.slice(end + 2);
      if (!fields.has("data")) continue;
      const data = JSON.parse(fields.get("data")!);
      api.validator.checkValue("/components/schemas/JobEvent", data);
      yield { id: Number(fields.get("id")), event: fields.get("event")!, data };
    }
  }
}

const progress = (fraction: number) => ({ step: "quantize", fraction, message: `${100 * fraction} %` });

test("a stream has what was, then what comes, and ends after the final status", async () => {
  const id = await newJob();
  await startJob(api, id);
  const seen: Message[] = [];
  for await (const message of streamOf(id)) {
    assert.equal(message.id, message.data.id);
    assert.equal(message.event, message.data.type);
    seen.push(message);
    if (seen.length === 2) await api.context.jobs.setProgress(id, progress(0.5));
    if (seen.length === 3) await api.context.jobs.appendEvent(id, "log", { level: "info", message: "half way" });
    if (seen.length === 4) await finishJob(api, id, {});
  }
  assert.deepEqual(
    seen.map(({ data }) => data.data.status ?? data.type),
    ["queued", "running", "progress", "log", "succeeded"],
  );
  assert.ok(seen.every(({ id: number }, i) => i === 0 || number > seen[i - 1]!.id));
});

test("Last-Event-ID goes on after that event; a finished job's stream is a replay", async () => {
  const id = await newJob();
  await startJob(api, id);
  for (let i = 0; i < 3; i++) await api.context.jobs.appendEvent(id, "log", { level: "info", message: `${i}` });
  await finishJob(api, id, {});
  const all = await Array.fromAsync(streamOf(id));
  assert.equal(all.length, 6);
  const rest = await Array.fromAsync(streamOf(id, { "last-event-id": String(all[3]!.id) }));
  assert.deepEqual(rest, all.slice(4));
  assert.deepEqual(await Array.fromAsync(streamOf(id, { "last-event-id": String(all[5]!.id) })), []);
});

test("the list is the same events, in pages", async () => {
  const id = await newJob();
  await startJob(api, id);
  for (let i = 0; i < 8; i++) await api.context.jobs.appendEvent(id, "metric", { loss: i });
  await finishJob(api, id, {});
  const all = (await Array.fromAsync(streamOf(id))).map(({ data }) => data);
  const listed: unknown[] = [];
  for (let cursor = ""; ; ) {
    const { json } = await api.call("GET", `/v1/jobs/${id}/events?limit=4${cursor}`);
    listed.push(...json.data);
    if (json.next_cursor === null) break;
    cursor = `&cursor=${json.next_cursor}`;
  }
  assert.deepEqual(listed, all);
});

test("what cannot be an event id, and what has no events", async () => {
  const id = await newJob();
  for (const [query, headers] of [
    ["?cursor=x", {}],
    ["?limit=0", {}],
    ["", { "last-event-id": "-1" }],
    ["", { "last-event-id": "1e3" }],
  ] as const) {
    for (const path of query === "?limit=0" ? ["events"] : ["events", "events/stream"]) {
      const init = { headers: { accept: "text/event-stream", ...headers } };
      assert.equal((await api.call("GET", `/v1/jobs/${id}/${path}${query}`, init)).status, 422);
    }
  }
  assert.equal((await api.call("GET", "/v1/jobs/job_unknown/events")).status, 404);
  assert.equal((await api.call("GET", "/v1/jobs/job_unknown/events/stream")).status, 404);
});

test("the list is a stream for who likes that better, and for nobody else", async () => {
  const id = await newJob();
  const typeFor = async (accept: string) => {
    const aborter = new AbortController();
    const { headers } = await fetch(`${api.url}/v1/jobs/${id}/events`, { headers: { accept }, signal: aborter.signal });
    aborter.abort();
    assert.equal(headers.get("vary"), "accept");
    return headers.get("content-type")!.split(";")[0];
  };
  const cases = {
    "application/json": "application/json",
    "*/*": "application/json",
    "application/*": "application/json",
    "application/json, text/event-stream": "application/json",
    "text/event-stream;q=0.5, application/json": "application/json",
    "text/event-stream;q=0.5, */*;q=0.8": "application/json",
    "text/event-stream;q=0, application/problem+json": "application/json",
    "image/png": "application/json",
    "text/event-stream": "text/event-stream",
    "text/*": "text/event-stream",
    "application/json;q=0.5, text/event-stream": "text/event-stream",
    "text/event-stream, application/json;q=0.9, */*;q=0.1": "text/event-stream",
  };
  for (const [accept, expected] of Object.entries(cases)) assert.equal(await typeFor(accept), expected, accept);
});

test("Prefer: wait answers when the job has ended, also beside 200 others that wait", async () => {
  const [id, slow] = [await newJob(), await newJob()];
  await startJob(api, id);
  const get = (job: string, prefer: string) => api.call("GET", `/v1/jobs/${job}`, { headers: { prefer } });
  const ofOthers = Array.from({ length: 200 }, (_, i) => get(i % 2 === 0 ? id : slow, "respond-async, wait=60"));
  const created = api.call("POST", "/v1/jobs", {
    body: JSON.stringify({ type: "quantize", model_id: modelId, params: { method: "dynamic" } }),
    headers: { "content-type": "application/json", prefer: "wait=45" },
  });
  // What does not wait is answered meanwhile.
  assert.equal((await api.call("GET", `/v1/jobs/${id}`)).headers.get("preference-applied"), null);
  const late = await get(id, "wait=1");
  assert.deepEqual([late.json.status, late.headers.get("preference-applied")], ["running", "wait=1"]);
  await finishJob(api, id, {});
  const mine = await Promise.all(ofOthers.filter((_, i) => i % 2 === 0));
  for (const { status, json, headers } of mine) {
    assert.deepEqual([status, json.status, headers.get("preference-applied")], [200, "succeeded", "wait=60"]);
  }
  let third: string | undefined;
  while (third === undefined) {
    third = (await api.call("GET", "/v1/jobs?limit=1&status=queued")).json.data.find(
      (job: { id: string; method: string }) => job.method === "dynamic",
    )?.id;
  }
  await api.call("POST", `/v1/jobs/${third}/cancel`);
  const answer = await created;
  assert.deepEqual([answer.status, answer.json.status], [202, "cancelled"]);
  assert.equal(answer.headers.get("preference-applied"), "wait=45");
  await api.call("POST", `/v1/jobs/${slow}/cancel`);
  for (const { json } of await Promise.all(ofOthers)) assert.ok(["succeeded", "cancelled"].includes(json.status));
  // An ended job is answered at once; more than a minute is a minute; what says no time does not wait.
  assert.equal((await get(id, "wait=3600")).headers.get("preference-applied"), "wait=60");
  assert.equal((await get(id, 'WAIT = "7"')).headers.get("preference-applied"), "wait=7");
  for (const prefer of ["return=minimal", "wait", "wait=soon", "await=5"]) {
    assert.equal((await get(slow, prefer)).headers.get("preference-applied"), null, prefer);
  }
});

test("a client that goes away, and one that is there when the service stops", async () => {
  const id = await newJob();
  const gone = new AbortController();
  const first = streamOf(id, {}, gone.signal);
  await first.next();
  gone.abort();
  await assert.rejects(first.next(), { name: "AbortError" });

  const last = streamOf(id);
  await last.next();
  const end = last.next();
  api.stop();
  assert.equal((await end).done, true);
  assert.equal((await api.call("GET", "/readyz")).status, 503);
});

test("a caller has so many streams open and no more, and gets a place back when one ends", async (t) => {
  const few = await startTestServer({ settings: { maxStreamsPerKey: 2, maxRequestsPerKey: 4 } });
  t.after(() => few.close());
  const { json: model } = await few.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) });
  const { json: job } = await few.call("POST", "/v1/jobs", {
    body: JSON.stringify({ type: "quantize", model_id: model.id, params: { method: "dynamic" } }),
    headers: { "content-type": "application/json" },
  });
  const open = () => {
    const client = new AbortController();
    const headers = { accept: "text/event-stream" };
    const answer = fetch(`${few.url}/v1/jobs/${job.id}/events/stream`, { headers, signal: client.signal });
    return answer.then(({ status }) => ({ status, end: () => client.abort() }));
  };
  const [first, second] = [await open(), await open()];
  assert.deepEqual([first.status, second.status, (await open()).status], [200, 200, 429]);
  first.end();
  let again = await open();
  while (again.status === 429) again = await open();
  assert.equal(again.status, 200);
  assert.equal((await few.call("GET", "/v1/models")).status, 200);
  for (const stream of [second, again]) stream.end();
});
