import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { pino } from "pino";
import { type ConsumerOptions, consumeJobs } from "../../src/service/jobs/job-consumer.ts";
import type { JobRecord } from "../../src/service/jobs/job-store.ts";
import { type BullJobQueue, createJobQueue } from "../../src/service/jobs/queue.ts";
import { queuedJob } from "../support/jobs.ts";
import { startTestRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/until.ts";

const log = pino({ level: "silent" });
let server: TestRedis;
let queue: BullJobQueue;

before(async () => {
  server = await startTestRedis();
});
beforeEach(async () => {
  await queue?.close();
  await server.redis.flushdb();
  queue = createJobQueue(server.redis, log);
});
after(async () => {
  await queue.close();
  await server.close();
});

async function consume(options: Partial<ConsumerOptions> & Pick<ConsumerOptions, "run">) {
  const nothing = () => {};
  const refusals = () => [];
  const defaults = { name: "w", concurrency: 1, refusals, onCancel: nothing, onLost: nothing, onStuck: nothing, log };
  return consumeJobs(await server.open("worker"), { ...defaults, ...options });
}

const positions = (jobs: readonly JobRecord[]) => Promise.all(jobs.map((job) => queue.position(job.id)));

test("jobs run by priority, then in the order they came; positions say so before", async () => {
  const jobs = [5, 5, 1, 10, 1].map((priority) => queuedJob({ priority }));
  for (const job of jobs) await queue.enqueue(job);
  assert.deepEqual(await positions(jobs), [3, 4, 1, 5, 2]);
  assert.deepEqual(await queue.counts(), { waiting: 5, delayed: 0, active: 0 });

  const ran: string[] = [];
  const consumer = await consume({
    run: async (id) => {
      ran.push(id);
      return "done";
    },
  });
  await until("all ran", async () => (await queue.counts()).waiting === 0 && ran.length === 5);
  assert.deepEqual(
    ran,
    [2, 4, 0, 1, 3].map((i) => jobs[i]!.id),
  );
  await consumer.close();
  assert.deepEqual(await positions(jobs), [null, null, null, null, null]);
  assert.equal(await queue.stateOf(jobs[0]!.id), "absent");
});

test("a job that is queued already stays as it is; one that is done can be queued again", async () => {
  const job = queuedJob();
  await queue.enqueue(job);
  await queue.enqueue(job);
  assert.deepEqual(await queue.counts(), { waiting: 1, delayed: 0, active: 0 });
  let runs = 0;
  const consumer = await consume({
    run: async () => {
      runs++;
      return "done";
    },
  });
  await until("it is gone", async () => (await queue.stateOf(job.id)) === "absent");
  await queue.enqueue(job);
  await until("it ran twice", () => runs === 2);
  await consumer.close();
});

test("a waiting job can be taken out, one that a worker has cannot", async () => {
  const [first, second] = [queuedJob(), queuedJob()];
  await queue.enqueue(first);
  await queue.enqueue(second);
  const finish = Promise.withResolvers<void>();
  const consumer = await consume({
    run: async () => {
      await finish.promise;
      return "done";
    },
  });
  await until("the first runs", async () => (await queue.stateOf(first.id)) === "active");
  assert.deepEqual(await queue.counts(), { waiting: 1, delayed: 0, active: 1 });
  assert.equal(await queue.position(first.id), null);
  assert.equal(await queue.remove(first.id), false);
  assert.equal(await queue.remove(second.id), true);
  assert.equal(await queue.remove(second.id), false);
  assert.equal(await queue.remove("job_unknown"), false);
  finish.resolve();
  await consumer.close();
  assert.deepEqual(await queue.counts(), { waiting: 0, delayed: 0, active: 0 });
});

test("a job that is handed back runs before all others of its priority", async () => {
  const [first, second] = [queuedJob(), queuedJob()];
  await queue.enqueue(first);
  await queue.enqueue(second);
  const ran: string[] = [];
  const lines: string[] = [];
  const consumer = await consume({
    log: pino({}, { write: (line) => void lines.push(line) }),
    run: async (id) => {
      ran.push(id);
      return ran.length === 1 ? { againInMs: 0 } : "done";
    },
  });
  await until("all ran", () => ran.length === 3);
  assert.deepEqual(ran, [first.id, first.id, second.id]);
  await consumer.close();
  assert.deepEqual(lines, [], "BullMQ has nothing to complain of");
});

test("close waits for what runs and takes nothing more", async () => {
  const jobs = [queuedJob(), queuedJob()];
  for (const job of jobs) await queue.enqueue(job);
  const ended: string[] = [];
  const end = Promise.withResolvers<void>();
  const consumer = await consume({
    run: async (id) => {
      await end.promise;
      ended.push(id);
      return "done";
    },
  });
  await until("one runs", async () => (await queue.counts()).active === 1);
  const closed = consumer.close().then(() => [...ended]);
  end.resolve();
  assert.deepEqual(await closed, [jobs[0]!.id]);
  assert.deepEqual(await positions(jobs), [null, 1]);
});

test("a cancel signal reaches every worker, and a worker that could not hear is told so", async () => {
  const heard: (string | undefined)[] = [];
  const run = async () => "done" as const;
  const consumers = [
    await consume({ name: "a", run, onCancel: (id) => heard.push(id) }),
    await consume({ name: "b", run, onCancel: (id) => heard.push(id) }),
  ];
  await until("both heard", () => heard.length === 2);
  assert.deepEqual(heard.splice(0), [undefined, undefined]);
  await queue.signalCancel("job_x");
  await until("both heard", () => heard.length === 2);
  assert.deepEqual(heard, ["job_x", "job_x"]);
  for (const consumer of consumers) await consumer.close();
});

test("workers count as alive from their start until they close", async () => {
  assert.equal((await queue.workers()).length, 0);
  const run = async () => "done" as const;
  const [a, b] = [await consume({ name: "a", run }), await consume({ name: "b", run })];
  await until("both are known", async () => (await queue.workers()).length === 2);
  await a.close();
  assert.equal((await queue.workers()).length, 1);
  await b.close();
  assert.equal((await queue.workers()).length, 0);
});

test("while Redis is away every question is answered with unavailable", async () => {
  const away = await startTestRedis();
  const cut = createJobQueue(away.redis, log);
  await (await cut.bull()).waitUntilReady();
  await away.server.close();
  const questions = [
    () => cut.enqueue(queuedJob()),
    () => cut.remove("job_x"),
    () => cut.signalCancel("job_x"),
    () => cut.position("job_x"),
    () => cut.counts(),
    () => cut.workers(),
  ];
  for (const ask of questions) await assert.rejects(ask, { code: "unavailable" });
  await away.close();
});

test("a job that is handed back with a delay waits, and is run again when that is over", async () => {
  const started: number[] = [];
  const ended = Promise.withResolvers<void>();
  const job = queuedJob();
  await queue.enqueue(job);
  const consumer = await consume({
    run: async () => {
      started.push(performance.now());
      if (started.length === 1) return { againInMs: 600 };
      ended.resolve();
      return "done";
    },
  });
  await until("it waits", async () => (await queue.counts()).delayed === 1);
  assert.equal(await queue.stateOf(job.id), "waiting");
  assert.ok((await queue.ids()).has(job.id));
  await ended.promise;
  assert.ok(started[1]! - started[0]! >= 550);
  await consumer.close();
});

test("a worker that refuses says why, takes nothing, and takes jobs again when it does not", async () => {
  let reasons = ["disk: it is full."];
  const ran: string[] = [];
  const consumer = await consume({
    refusals: () => reasons,
    run: async (id) => {
      ran.push(id);
      return "done";
    },
  });
  await until("it refuses", async () => (await queue.workers())[0]?.refusals[0] === "disk: it is full.");
  const others: string[] = [];
  for (let i = 0; i < 5; i++) await queue.enqueue(queuedJob());
  const other = await consume({
    name: "other",
    run: async (id) => {
      others.push(id);
      return "done";
    },
  });
  await until("the other ran them", () => others.length === 5);
  await other.close();
  assert.deepEqual(ran, []);
  await queue.enqueue(queuedJob());
  reasons = [];
  await until("it takes jobs again", () => ran.length === 1);
  assert.deepEqual(await queue.workers(), [{ name: "w", refusals: [] }]);
  await consumer.close();
});
