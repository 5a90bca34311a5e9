import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, afterEach, before, test } from "node:test";
import { pino } from "pino";
import { Webhook } from "standardwebhooks";
import { jobError } from "../../src/service/jobs/job.ts";
import type { JobRecord, JobStore } from "../../src/service/jobs/job-store.ts";
import { createRedisJobStore } from "../../src/service/jobs/redis-job-store.ts";
import { createWebhookSecrets } from "../../src/service/jobs/webhook-secrets.ts";
import { startWebhooks } from "../../src/service/jobs/webhooks.ts";
import { emptyMetrics, queuedJob } from "../support/jobs.ts";
import { createMemoryTexts } from "../support/long-texts.ts";
import { startTestRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/until.ts";

const SECRET = `whsec_${Buffer.alloc(32, 7).toString("base64")}`;

interface Received {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

let redis: TestRedis;
let jobs: JobStore & { close(): void };
let webhooks: { close(): Promise<void> };
let receiver: Server;
let base: string;
let answers: number[] = [];
const received: Received[] = [];
const allowed: string[] = [];

before(async () => {
  redis = await startTestRedis();
  jobs = createRedisJobStore(redis.redis, createMemoryTexts());
  receiver = createServer(async (request, response) => {
    const chunks = await Array.fromAsync(request);
    received.push({ path: request.url!, headers: request.headers, body: Buffer.concat(chunks).toString() });
    response.writeHead(answers.shift() ?? 204, { location: "/elsewhere" }).end();
  }).listen(0, "127.0.0.1");
  await once(receiver, "listening");
  base = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`;
  allowed.push(new URL(base).host);
  webhooks = startWebhooks({
    redis: await redis.open("worker"),
    jobs,
    secret: SECRET,
    allowHosts: allowed,
    publicUrl: "https://press.example.com",
    log: pino({ level: "silent" }),
  });
});
afterEach(() => {
  received.splice(0);
  answers = [];
});
after(async () => {
  await webhooks.close();
  jobs.close();
  receiver.close();
  receiver.closeAllConnections();
  await redis.close();
});

async function createHooked(path: string, events: string[]): Promise<JobRecord> {
  return (await jobs.create(queuedJob({ webhook: { url: base + path, events } }))).job;
}

async function deliveries(count: number, withinMs: number): Promise<Received[]> {
  return await until(`${count} deliveries`, () => received.length >= count && received, withinMs);
}

/** Waits until nothing of a job is to be told any more: neither in the list, nor in a queue. */
async function settled(id: string): Promise<void> {
  const keys = async () => [
    ...(await redis.redis.keys("*:webhooks")),
    ...(await redis.redis.keys(`*:queue:webhook*:*${id}*`)),
  ];
  await until("nothing is left to be told", async () => (await keys()).length === 0);
}

const warnings = async (id: string) =>
  (await jobs.events(id, 0, 1000)).data.filter(({ type }) => type === "log").map(({ data }) => String(data.message));

test("the end of a job is told once, signed, to those who asked for that end", async () => {
  const failing = await createHooked("/failed", ["job.failed"]);
  const other = await createHooked("/not-wanted", ["job.succeeded"]);
  await jobs.transition(other.id, ["queued"], "cancelled");
  await jobs.transition(failing.id, ["queued"], "running", { attempt: 1 });
  const error = jobError({ code: "timeout", message: "too slow" });
  const finished_at = new Date().toISOString();
  await jobs.transition(failing.id, ["running"], "failed", { finished_at, error });

  const [{ path, headers, body }] = (await deliveries(1, 5_000)) as [Received];
  await Promise.all([settled(failing.id), settled(other.id)]);
  assert.equal(received.length, 1);
  assert.equal(path, "/failed");
  assert.equal(headers["webhook-id"], `msg_${failing.id}`);
  const payload = new Webhook(SECRET).verify(body, headers as Record<string, string>);
  assert.deepEqual(payload, {
    type: "job.failed",
    timestamp: finished_at,
    data: {
      id: failing.id,
      object: "job",
      type: "quantize",
      status: "failed",
      name: null,
      metadata: {},
      attempt: 1,
      model_id: "mdl_a",
      result: null,
      metrics: null,
      urls: { job: `https://press.example.com/v1/jobs/${failing.id}`, report: null, model: null },
      error,
    },
  });
  assert.throws(() => new Webhook(SECRET).verify(`${body} `, headers as Record<string, string>));
});

test("the start and the end of a job, with what was measured and where it is", async () => {
  const job = await createHooked("/both", ["job.running", "job.succeeded"]);
  const started_at = new Date().toISOString();
  await jobs.transition(job.id, ["queued"], "running", { attempt: 1, started_at });
  await deliveries(1, 5_000);
  const metrics = emptyMetrics();
  const result = { model_id: "mdl_b", accepted: true, artifacts: [], metrics, steps: null };
  await jobs.transition(job.id, ["running"], "succeeded", { finished_at: new Date().toISOString(), result });
  const [first, last] = (await deliveries(2, 5_000)).map(({ body, headers }) => ({
    id: headers["webhook-id"],
    ...(new Webhook(SECRET).verify(body, headers as Record<string, string>) as {
      type: string;
      timestamp: string;
      data: Record<string, unknown>;
    }),
  }));
  assert.deepEqual([first!.id, first!.type, first!.timestamp], [`msg_${job.id}_running_1`, "job.running", started_at]);
  assert.deepEqual([first!.data.status, first!.data.attempt, first!.data.metrics], ["running", 1, null]);
  assert.deepEqual([last!.id, last!.type], [`msg_${job.id}`, "job.succeeded"]);
  const { size, accuracy, latency, acceptance } = metrics;
  assert.deepEqual(last!.data.metrics, { size, accuracy, latency, acceptance });
  const url = `https://press.example.com/v1/jobs/${job.id}`;
  const model = "https://press.example.com/v1/models/mdl_b/content";
  assert.deepEqual(last!.data.urls, { job: url, report: `${url}/report`, model });
});

test("an end is told again under the same id, at once though an attempt waits, and not twice then", async () => {
  answers = [500, 204];
  const job = await createHooked("/redelivered", ["job.cancelled"]);
  assert.equal(await jobs.tellAgain(job.id), false);
  await jobs.transition(job.id, ["queued"], "cancelled");
  await deliveries(1, 5_000);
  assert.equal(await jobs.tellAgain(job.id), true);
  // The attempt that waits would come after 5 s.
  const [first, again] = (await deliveries(2, 4_500)) as [Received, Received];
  assert.equal(first.headers["webhook-id"], again.headers["webhook-id"]);
  await settled(job.id);
  const other = await createHooked("/not-for-this-end", ["job.succeeded"]);
  await jobs.transition(other.id, ["queued"], "cancelled");
  assert.equal(await jobs.tellAgain(other.id), false);
  assert.equal(await jobs.tellAgain("job_none"), false);
});

test("a receiver that fails is asked again under the same id; redirects are failures, and are not followed", async () => {
  answers = [302, 204];
  const { id } = await createHooked("/again", ["job.cancelled"]);
  await jobs.transition(id, ["queued"], "cancelled");
  const [first, second] = (await deliveries(2, 12_000)) as [Received, Received];
  assert.equal(second.path, "/again");
  assert.equal(first.headers["webhook-id"], second.headers["webhook-id"]);
  assert.notEqual(first.headers["webhook-timestamp"], second.headers["webhook-timestamp"]);
  assert.deepEqual(await warnings(id), [
    "The webhook was not delivered: the receiver answered 302. It will be tried again.",
  ]);
});

test("410 Gone is final", async () => {
  answers = [410];
  const { id } = await createHooked("/gone", ["job.cancelled"]);
  await jobs.transition(id, ["queued"], "cancelled");
  await deliveries(1, 5_000);
  await settled(id);
  assert.deepEqual(await warnings(id), [
    "The webhook was not delivered: the receiver answered 410 Gone. That was the last attempt.",
  ]);
});

test("a name that leads inside is not connected to, and the log does not say where it led", async () => {
  const { port } = receiver.address() as AddressInfo;
  const url = `https://localhost:${port}/inside`;
  const { job } = await jobs.create(queuedJob({ webhook: { url, events: ["job.cancelled"] } }));
  await jobs.transition(job.id, ["queued"], "cancelled");
  await until("it is warned of", async () => (await warnings(job.id)).length > 0);
  assert.match((await warnings(job.id))[0] ?? "", /^The webhook was not delivered: the receiver could not be reached/);
  assert.equal(received.length, 0);
});

test("each receiver has secrets of its own; while one is changed both are signed with", async () => {
  const secrets = createWebhookSecrets(redis.redis, SECRET);
  const url = `${base}/own`;
  const { secret: old, previousUntil } = await secrets.rotate("me", url);
  assert.equal(previousUntil, null);
  const told = async (owner: string, path = "/own") => {
    const { job } = await jobs.create(queuedJob({ webhook: { url: base + path, events: ["job.cancelled"], owner } }));
    await jobs.transition(job.id, ["queued"], "cancelled");
    const before = received.length;
    await deliveries(before + 1, 5_000);
    return received[before]!;
  };
  const verify = (secret: string, { body, headers }: Received) =>
    new Webhook(secret).verify(body, headers as Record<string, string>);
  const first = await told("me");
  verify(old, first);
  const next = await secrets.rotate("me", url);
  assert.ok(next.previousUntil !== null);
  const during = await told("me");
  verify(old, during);
  verify(next.secret, during);
  // Who has another receiver's secret, or the same receiver's of another key, cannot sign for this one.
  const { secret: others } = await secrets.rotate("me", `${base}/other`);
  const { secret: strangers } = await secrets.rotate("stranger", url);
  for (const secret of [others, strangers, SECRET]) assert.throws(() => verify(secret, during));
  const third = await secrets.rotate("me", url);
  const later = await told("me");
  assert.throws(() => verify(old, later));
  for (const secret of [next.secret, third.secret]) verify(secret, later);
});

test("slow receivers do not hold up others", async () => {
  let waiting = 0;
  const release = Promise.withResolvers<void>();
  const slow = createServer(async (_request, response) => {
    waiting++;
    await release.promise;
    response.writeHead(204).end();
  }).listen(0, "127.0.0.1");
  await once(slow, "listening");
  const slowUrl = `http://127.0.0.1:${(slow.address() as AddressInfo).port}/`;
  allowed.push(new URL(slowUrl).host);
  for (let i = 0; i < 40; i++) {
    const { job } = await jobs.create(queuedJob({ webhook: { url: slowUrl, events: ["job.cancelled"] } }));
    await jobs.transition(job.id, ["queued"], "cancelled");
  }
  await until("two are waited for", () => waiting === 2);
  const good = await createHooked("/good", ["job.cancelled"]);
  await jobs.transition(good.id, ["queued"], "cancelled");
  await deliveries(1, 15_000);
  assert.equal(received[0]!.path, "/good");
  assert.equal(waiting, 2);
  release.resolve();
  slow.close();
  slow.closeAllConnections();
});
