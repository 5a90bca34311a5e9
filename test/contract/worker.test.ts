import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { pino } from "pino";
import type { BlobStore } from "../../src/service/blobs/blob-store.ts";
import { type BlobClaims, createBlobClaims } from "../../src/service/blobs/claims.ts";
import { createFileBlobStore } from "../../src/service/blobs/fs.ts";
import { createLongTexts } from "../../src/service/blobs/long-texts.ts";
import { type Catalog, createCatalog } from "../../src/service/catalog.ts";
import { isTerminal } from "../../src/service/jobs/job.ts";
import type { JobRecord, JobStore } from "../../src/service/jobs/job-store.ts";
import { type BullJobQueue, createJobQueue } from "../../src/service/jobs/queue.ts";
import { createRedisJobStore } from "../../src/service/jobs/redis-job-store.ts";
import { factsSaying, queuedJob } from "../support/jobs.ts";
import { descendants, hasEnded } from "../support/processes.ts";
import { startTestRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/until.ts";

/**
 * Real workers in processes of their own, against a real redis-server; only what the jobs compute is acted. Each test kills, stops or cuts
 * off something in the middle of a job.
 */

const log = pino({ level: "silent" });
const MODEL_ID = "mdl_source";

let server: TestRedis;
let dataDir: string;
let blobs: BlobStore;
let claims: BlobClaims;
let catalog: Catalog;
let jobs: JobStore & { close(): void };
let queue: BullJobQueue;
const workers: ChildProcess[] = [];

before(async () => {
  server = await startTestRedis();
});
beforeEach(async () => {
  await server.redis.flushdb();
  dataDir = await mkdtemp(join(tmpdir(), "worker-"));
  blobs = await createFileBlobStore(join(dataDir, "blobs"));
  claims = createBlobClaims(server.redis, blobs);
  const texts = createLongTexts(blobs, claims);
  catalog = createCatalog(server.redis, claims, texts);
  jobs = createRedisJobStore(server.redis, texts);
  queue = createJobQueue(server.redis, log);
  const claim = (ref: Parameters<BlobClaims["claim"]>[1]) => claims.claim(MODEL_ID, ref);
  const ref = await blobs.put(
    (async function* () {
      yield Buffer.from("model");
    })(),
    { maxBytes: 100, claim },
  );
  await catalog.models.add({
    id: MODEL_ID,
    identity: ref.sha256,
    name: "source",
    created_at: new Date().toISOString(),
    sha256: ref.sha256,
    size_bytes: ref.size_bytes,
    files: [{ ...ref, name: "model.onnx" }],
    facts: factsSaying("test"),
    derived_from: null,
    metadata: {},
  });
});
afterEach(async () => {
  for (const worker of workers.splice(0)) {
    worker.kill("SIGCONT");
    worker.kill("SIGKILL");
    if (worker.exitCode === null && worker.signalCode === null) await once(worker, "exit");
  }
  jobs.close();
  await queue.close();
  await rm(dataDir, { recursive: true });
});
after(() => server.close());

async function startActingWorker(env: Record<string, string> = {}, drainGraceMs = 0): Promise<ChildProcess> {
  const all = {
    REDIS_URL: server.url,
    DATA_DIR: dataDir,
    LOG_LEVEL: "silent",
    JOB_MEMORY_BYTES: String(2 ** 30),
    ...env,
  };
  const alive = (await queue.workers()).length;
  const args = [
    new URL("../support/acting-worker.ts", import.meta.url).pathname,
    JSON.stringify(all),
    String(drainGraceMs),
  ];
  const worker = spawn(process.execPath, args, { stdio: ["ignore", "inherit", "inherit"] });
  workers.push(worker);
  await until("it has begun", async () => (await queue.workers()).length > alive);
  return worker;
}

async function submit(act: string[], fields: Parameters<typeof queuedJob>[0] = {}): Promise<JobRecord> {
  const { job } = await jobs.create(queuedJob({ model_id: MODEL_ID, exclude_nodes: act, ...fields }));
  await queue.enqueue(job);
  return job;
}

/** The record once its job has ended. */
const ended = (id: string): Promise<JobRecord> =>
  until(`${id} has ended`, async () => {
    const job = await jobs.get(id);
    return job !== undefined && isTerminal(job.status) && job;
  });

/** The pid of the child that does the job's `attempt`, once it is at work. */
const childOf = (id: string, attempt = 1): Promise<number> =>
  until(`${id} is at work`, async () => {
    const logged = (await jobs.events(id, 0, 1000)).data.map(
      ({ data }) => /^pid (\d+)$/.exec(String(data.message))?.[1],
    );
    const pid = logged.filter((text) => text !== undefined)[attempt - 1];
    return pid === undefined ? undefined : Number(pid);
  });

const statusesOf = async (id: string) =>
  (await jobs.events(id, 0, 1000)).data.filter(({ type }) => type === "status").map(({ data }) => data.status);

/** But for the rooms of spare children, which are empty. That of the last job goes when its child has ended. */
async function assertNothingLeft(): Promise<void> {
  const work = join(dataDir, "work");
  await until("nothing is left", async () => {
    const left = await readdir(work, { recursive: true }).catch(() => ["a room goes at this moment"]);
    return left.every((entry) => !entry.includes("/") || /\/([^/]*\.[0-9a-f-]{36}|[^/]*\.first)$/.test(entry));
  });
}

test("a job's results are stored, claimed, catalogued and recorded, and its directory is gone", async () => {
  await startActingWorker();
  const { id } = await submit(["echo"]);
  const job = await ended(id);
  assert.equal(job.status, "succeeded");
  assert.equal(job.attempt, 1);
  assert.ok(job.started_at !== null && job.finished_at !== null);
  assert.deepEqual(
    job.result?.artifacts.map(({ name }) => name),
    ["model.onnx", "report.json"],
  );

  const model = await catalog.models.get(job.result!.model_id);
  assert.deepEqual(model?.derived_from, { job_id: id, model_id: MODEL_ID });
  const chunks = await Array.fromAsync(await blobs.get(model!.files[0]!));
  assert.equal(Buffer.concat(chunks).toString(), "model compressed");

  // The artifact outlives the model: the job has a claim of its own.
  await catalog.models.remove(model!.id);
  assert.equal(
    Buffer.concat(await Array.fromAsync(await blobs.get(job.result!.artifacts[0]!))).toString(),
    "model compressed",
  );
  await claims.release(id);
  await assert.rejects(blobs.get(job.result!.artifacts[0]!), { code: "not_found" });

  const events = (await jobs.events(id, 0, 1000)).data;
  assert.deepEqual(
    events.filter(({ type }) => type === "status").map(({ data }) => data.status),
    ["queued", "running", "succeeded"],
  );
  assert.equal(events.at(-1)?.type, "status");
  assert.ok(events.some(({ data }) => typeof data.child_start_ms === "number"));
  await assertNothingLeft();
});

test("the same result of two jobs is one model", async () => {
  await startActingWorker();
  const first = await ended((await submit(["echo"])).id);
  const second = await ended((await submit(["echo"])).id);
  assert.equal(second.result?.model_id, first.result?.model_id);
});

test("a killed child is not the job's fault: it is handed back; one that crashes is tried once more", async () => {
  await startActingWorker();
  const { id } = await submit(["stubborn", "60000", "first"]);
  process.kill(await childOf(id), "SIGKILL");
  const job = await ended(id);
  assert.equal(job.status, "succeeded");
  assert.deepEqual([job.attempt, job.handed_back], [2, 1]);
  assert.ok(
    (await jobs.events(id, 0, 1000)).data.some(({ data }) =>
      /ended from outside by SIGKILL.*tried again in 1 s/.test(String(data.message)),
    ),
  );
  assert.equal((await jobs.totals()).handedBack, 1);
  assert.deepEqual(await statusesOf(id), ["queued", "running", "queued", "running", "succeeded"]);

  const crashed = await ended((await submit(["segfault"])).id);
  assert.equal(crashed.status, "failed");
  assert.equal(crashed.error?.code, "worker_crashed");
  assert.match(crashed.error?.detail ?? "", /SIGSEGV/);
  assert.equal(crashed.attempt, 2);
  assert.equal((await ended((await submit(["echo"])).id)).status, "succeeded");
  await assertNothingLeft();
});

test("a child that somebody else tells to stop is no cancelled job: it is tried again", async () => {
  await startActingWorker();
  const { id } = await submit(["sleep", "60000", "first"]);
  process.kill(await childOf(id), "SIGTERM");
  const job = await ended(id);
  assert.equal(job.status, "succeeded");
  assert.equal(job.attempt, 2);
});

test("limits and refusals are not retried", async () => {
  await startActingWorker({ JOB_TIMEOUT_MS: "1500", JOB_MEMORY_BYTES: String(300 * 2 ** 20) });
  for (const [act, code] of [
    [["native", "60000"], "timeout"],
    [["allocate", "4096"], "out_of_memory"],
    [["refuse", "node 7"], "invalid_model"],
    [["bug"], "internal"],
  ] as const) {
    const job = await ended((await submit([...act])).id);
    assert.equal(job.status, "failed", code);
    assert.equal(job.error?.code, code);
    assert.equal(job.attempt, 1, code);
  }
  const orphan = await submit(["echo"], { model_id: "mdl_deleted" });
  assert.equal((await ended(orphan.id)).error?.code, "not_found");
  await assertNothingLeft();
});

test("cancel stops a job within 5 s, also inside a native call", async () => {
  await startActingWorker();
  for (const act of ["sleep", "native"]) {
    const { id } = await submit([act, "600000"]);
    const child = await childOf(id);
    const start = performance.now();
    assert.ok(await jobs.transition(id, ["running"], "cancelling"));
    await queue.signalCancel(id);
    const job = await ended(id);
    const tookMs = performance.now() - start;
    assert.equal(job.status, "cancelled");
    assert.ok(tookMs < 5_000, `${act}: ${tookMs} ms`);
    assert.ok(await hasEnded(child, 10_000));
    assert.ok(job.finished_at !== null && job.error === null && job.result === null);
  }
  await assertNothingLeft();
});

test("a cancel whose signal was lost is honoured all the same", async () => {
  await startActingWorker();
  const { id } = await submit(["sleep", "600000"]);
  await childOf(id);
  await jobs.transition(id, ["running"], "cancelling"); // and no signal
  assert.equal((await ended(id)).status, "cancelled");
});

test("the job of a killed worker is run by another one, and the dead one's child is gone at once", async () => {
  const first = await startActingWorker();
  const { id } = await submit(["native", "600000", "first"]);
  const child = await childOf(id);
  const second = await startActingWorker();
  first.kill("SIGKILL");
  assert.ok(await hasEnded(child, 8_000), "it has ended before the lock of the job has");
  const nextChild = await childOf(id, 2);
  // That one works in another directory, so it stands in its native call again; its retry is the one that returns.
  process.kill(nextChild, "SIGKILL");
  const job = await ended(id);
  assert.equal(job.status, "succeeded");
  assert.equal(job.attempt, 3);
  assert.equal(second.exitCode, null);
});

test("a worker that is started again takes its job up, and removes what its earlier life left", async () => {
  const first = await startActingWorker();
  const { id } = await submit(["native", "600000"]);
  await childOf(id);
  first.kill("SIGKILL");
  await once(first, "exit");
  assert.equal((await readdir(join(dataDir, "work"))).length, 1);
  await startActingWorker();
  const names = await readdir(join(dataDir, "work"));
  assert.equal(names.length, 1);
  await childOf(id, 2);
});

test("a job that takes its worker down every time is given up", async () => {
  await startActingWorker();
  const { id } = await jobs.create(queuedJob({ model_id: MODEL_ID, attempt: 5 })).then(({ job }) => job);
  await queue.enqueue(queuedJob({ id }));
  const job = await ended(id);
  assert.equal(job.status, "failed");
  assert.equal(job.error?.code, "worker_crashed");
});

test("redis-server killed in the middle of a job: the job goes on, and its result is recorded", async () => {
  await startActingWorker();
  const { id } = await submit(["stubborn", "3000"]);
  await childOf(id);
  process.kill(server.server.pid, "SIGKILL");
  await until("the connection is lost", () => server.redis.status !== "ready");
  await until("it is back", () => server.redis.status === "ready");
  const job = await ended(id);
  assert.equal(job.status, "succeeded");
  assert.equal(job.attempt, 1);
  assert.equal((await ended((await submit(["echo"])).id)).status, "succeeded");
});

/** Bytes that a server has been sent over TCP and has not read. */
function unreadBytes(url: string): number {
  const port = Number(new URL(url).port).toString(16).toUpperCase().padStart(4, "0");
  const rows = readFileSync("/proc/net/tcp", "utf8").matchAll(/^ *\d+: \w+:(\w+) \S+ 01 \w+:(\w+)/gm);
  return [...rows].reduce((sum, [, local, queued]) => (local === port ? sum + Number.parseInt(queued!, 16) : sum), 0);
}

test("a job that ends while Redis is away is recorded when it is back", async () => {
  await startActingWorker();
  const { id } = await submit(["stubborn", "1500"]);
  const child = await childOf(id);
  process.kill(server.server.pid, "SIGSTOP");
  assert.ok(await hasEnded(child, 30_000));
  const unread = unreadBytes(server.url);
  await until("the worker tells it", () => unreadBytes(server.url) > unread);
  process.kill(server.server.pid, "SIGCONT");
  const job = await ended(id);
  assert.equal(job.status, "succeeded");
  assert.equal(job.attempt, 1);
});

test("SIGTERM hands the job back, and another worker runs it at once", async () => {
  const first = await startActingWorker();
  const { id } = await submit(["native", "600000"]);
  const child = await childOf(id);
  first.kill("SIGTERM");
  const [code] = await once(first, "exit");
  assert.equal(code, 0);
  assert.ok(await hasEnded(child, 10_000));
  assert.equal((await jobs.get(id))?.status, "queued");
  assert.equal(await queue.position(id), 1, "it waits: no lock and no delay has to run out first");
  await startActingWorker();
  await childOf(id, 2);
});

test("SIGTERM lets a short job finish, and takes no other", async () => {
  const worker = await startActingWorker({}, 20_000);
  const [first, second] = [await submit(["stubborn", "1500"]), await submit(["echo"])];
  await childOf(first.id);
  worker.kill("SIGTERM");
  const [code] = await once(worker, "exit");
  assert.equal(code, 0);
  assert.equal((await jobs.get(first.id))?.status, "succeeded");
  assert.equal((await jobs.get(second.id))?.status, "queued");
});

test("a worker that was frozen while another one took over records nothing", async () => {
  const frozen = await startActingWorker();
  const { id } = await submit(["stubborn", "2000"]);
  const child = await childOf(id);
  frozen.kill("SIGSTOP");
  await startActingWorker();
  const job = await ended(id);
  assert.equal(job.attempt, 2);
  frozen.kill("SIGCONT");
  assert.ok(await hasEnded(child, 30_000));
  // Each of the two workers runs one job at a time: once both are at work, this one has let go of the first.
  for (const { id: next } of [await submit(["stubborn", "600000"]), await submit(["stubborn", "600000"])]) {
    await childOf(next);
  }
  assert.deepEqual(await jobs.get(id), job);
});

test("a job that the queue has lost is queued again; a running one whose entry is lost, too", async () => {
  const waiting = await jobs.create(queuedJob({ model_id: MODEL_ID })).then(({ job }) => job);
  const running = await jobs.create(queuedJob({ model_id: MODEL_ID })).then(({ job }) => job);
  await jobs.transition(running.id, ["queued"], "running", { attempt: 1 });
  const cancelling = await jobs.create(queuedJob({ model_id: MODEL_ID })).then(({ job }) => job);
  await jobs.transition(cancelling.id, ["queued"], "running", { attempt: 1 });
  await jobs.transition(cancelling.id, ["running"], "cancelling");
  await startActingWorker(); // No one has enqueued them.
  assert.equal((await ended(waiting.id)).status, "succeeded");
  assert.equal((await ended(running.id)).attempt, 2);
  assert.equal((await ended(cancelling.id)).status, "cancelled");
});

test("a job that waited for too long expires; one that runs or has run does not", async () => {
  await startActingWorker({ QUEUE_TIMEOUT_MS: "1000" });
  const running = await submit(["stubborn", "14000"]);
  await childOf(running.id);
  const waiting = await submit(["echo"]);
  const job = await ended(waiting.id);
  assert.equal(job.status, "failed");
  assert.equal(job.error?.code, "expired");
  assert.equal(job.attempt, 0);
  assert.equal((await ended(running.id)).status, "succeeded");
});

test("finished jobs older than the retention are deleted with their artifacts; the model stays", async () => {
  const day = 24 * 60 * 60 * 1000;
  // Before there is a worker: one could find it before it has ended, and let it expire.
  const created_at = new Date(Date.now() - 3 * day).toISOString();
  const old = await jobs.create(queuedJob({ model_id: MODEL_ID, created_at })).then(({ job }) => job);
  await jobs.transition(old.id, ["queued"], "cancelled", { finished_at: new Date(Date.now() - 2 * day).toISOString() });
  await startActingWorker({ RETENTION_DAYS: "1", RETENTION_FAILED_DAYS: "1" });
  const fresh = await ended((await submit(["echo"])).id);
  await until("the old job is deleted", async () => (await jobs.get(old.id)) === undefined);
  assert.deepEqual(await jobs.get(fresh.id), fresh);
});

test("a job is not given up for machines that failed it as often as jobs are started", async () => {
  await startActingWorker();
  const fields = { model_id: MODEL_ID, attempt: 7, handed_back: 6 };
  const { job } = await jobs.create(queuedJob(fields));
  await queue.enqueue(job);
  assert.equal((await ended(job.id)).status, "succeeded");
});

test("a full disk, or files that cannot be opened, in the child: handed back, and the worker goes on", async () => {
  await startActingWorker();
  for (const errno of ["ENOSPC", "EMFILE", "EAGAIN"]) {
    const job = await ended((await submit(["errno", errno, "first"])).id);
    assert.equal(job.status, "succeeded", errno);
    assert.deepEqual([job.attempt, job.handed_back], [2, 1], errno);
  }
  assert.deepEqual(
    (await queue.workers()).map(({ refusals }) => refusals),
    [[]],
  );
});

test("a job that machines fail every time is given up in the end, and they are blamed", async () => {
  await startActingWorker();
  const { job } = await jobs.create(
    queuedJob({ model_id: MODEL_ID, exclude_nodes: ["errno", "ENOSPC"], handed_back: 20 }),
  );
  await queue.enqueue(job);
  const failed = await ended(job.id);
  assert.equal(failed.status, "failed");
  assert.equal(failed.error?.code, "unavailable");
});

test("a worker with too little disk takes no jobs, and says so; another one runs them", async () => {
  await startActingWorker({ MIN_FREE_DISK_BYTES: String(Number.MAX_SAFE_INTEGER) });
  const refusing = await until("it refuses", async () =>
    (await queue.workers()).find(({ refusals }) => refusals.length > 0),
  );
  assert.match(refusing.refusals.join(), /^disk: \d+ MiB are free, and \d+ MiB are needed\.$/);
  const { id } = await submit(["stubborn", "600000"]);
  const other = await startActingWorker();
  const child = await childOf(id);
  assert.ok((await descendants(other.pid!, "")).includes(child));
  assert.equal((await jobs.get(id))?.attempt, 1);
});

test("a blob store that cannot be written keeps what a job has made: only the storing is repeated", async () => {
  await startActingWorker();
  const { id } = await submit(["stubborn", "4000"]);
  await childOf(id);
  // Nobody can make a file below a file, root neither.
  const incoming = join(dataDir, "blobs", "incoming");
  await rm(incoming, { recursive: true });
  await writeFile(incoming, "");
  await until("it was told", async () =>
    (await jobs.events(id, 0, 1000)).data.some(({ data }) => /cannot be stored now/.test(String(data.message))),
  );
  await until("it refuses", async () =>
    (await queue.workers()).some(({ refusals }) => /^blob store:/.test(refusals.join())),
  );
  await rm(incoming);
  await mkdir(incoming);
  const job = await ended(id);
  assert.equal(job.status, "succeeded");
  assert.deepEqual([job.attempt, job.handed_back], [1, 0]);
  await until("nobody refuses", async () => (await queue.workers()).every(({ refusals }) => refusals.length === 0));
});

test("Redis that is full while a job ends: its result is recorded when there is room", async () => {
  await startActingWorker();
  const { id } = await submit(["stubborn", "4000"]);
  const child = await childOf(id);
  await server.redis.config("SET", "maxmemory", "1");
  assert.ok(await hasEnded(child, 30_000));
  const refusals = async () =>
    Number(/errorstat_OOM:count=(\d+)/.exec(await server.redis.info("errorstats"))?.[1] ?? 0);
  const before = await refusals();
  await until("it was refused several times", async () => (await refusals()) > before + 3);
  await server.redis.config("SET", "maxmemory", "0");
  const job = await ended(id);
  assert.deepEqual([job.status, job.attempt], ["succeeded", 1]);
});

test("a worker whose clock is far off does not start, and says why", async () => {
  const env = { REDIS_URL: server.url, DATA_DIR: dataDir, LOG_LEVEL: "silent" };
  const skewed = spawn(
    process.execPath,
    [
      "--import",
      new URL("../support/clock-ahead.ts", import.meta.url).href,
      new URL("../../workers/main.ts", import.meta.url).pathname,
    ],
    { env: { ...process.env, ...env }, stdio: ["ignore", "inherit", "pipe"] },
  );
  workers.push(skewed);
  const said = Buffer.concat(await Array.fromAsync(skewed.stderr!)).toString();
  assert.match(said, /clock is 90000 s ahead of the clock of Redis/);
});
