import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { descendants, hasEnded } from "../support/processes.ts";
import { until } from "../support/until.ts";

/** kill -9 of everything there is, each in the middle of a job, on the service as `npm start` runs it. */

/** A few seconds of work. */
const TURNS = 200_000;

let stack: Stack;
let jobs: LiveJobs;
before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  jobs = await openLiveJobs(stack);
});
after(() => stack?.close());

async function pidOf(program: string): Promise<number> {
  return until(`${program} runs`, async () => (await descendants(stack.pid, program))[0]);
}

test("the job's process killed: the job is handed back and run again", async () => {
  const { id } = await jobs.submit(TURNS);
  process.kill(await jobs.child(id), "SIGKILL");
  assert.equal((await jobs.ended(id)).status, "succeeded");
  assert.deepEqual(await jobs.statuses(id), ["queued", "running", "queued", "running", "succeeded"]);
});

test("its process killed again and again: it is handed back each time, and succeeds in the end", async () => {
  const { id } = await jobs.submit(TURNS);
  for (let kills = 1; kills <= 3; kills++) {
    await until("it runs", async () => (await jobs.statuses(id)).length === 2 * kills);
    process.kill(await jobs.child(id), "SIGKILL");
  }
  const job = await jobs.ended(id);
  assert.equal(job.status, "succeeded");
});

test("the worker killed: its child dies with it, and the job runs again", async () => {
  const { id } = await jobs.submit(TURNS);
  const child = await jobs.child(id);
  process.kill(await pidOf("workers/main.ts"), "SIGKILL");
  assert.ok(await hasEnded(child, 8_000), "it has ended before the lock of the job has");
  await until("it runs again", async () => (await jobs.statuses(id)).length === 4);
  assert.equal((await jobs.ended(id)).status, "succeeded");
});

test("redis-server killed: the API says 503, the job goes on, nothing is lost", async () => {
  const { id } = await jobs.submit(TURNS);
  await jobs.child(id);
  const following = jobs.client.follow(id, () => {});
  process.kill(await pidOf("redis-server"), "SIGKILL");
  await assert.rejects(jobs.client.job(id), { status: 503 });
  assert.equal((await jobs.ended(id)).status, "succeeded");
  assert.equal((await following).status, "succeeded");
  assert.deepEqual(await jobs.statuses(id), ["queued", "running", "succeeded"]);
  assert.ok((await jobs.client.request(`/v1/models/${jobs.modelId}`)).ok);
});

test("the API killed: the job does not notice", async () => {
  const { id } = await jobs.submit(TURNS);
  await jobs.child(id);
  process.kill(await pidOf("src/main.ts"), "SIGKILL");
  assert.equal((await jobs.ended(id)).status, "succeeded");
  assert.deepEqual(await jobs.statuses(id), ["queued", "running", "succeeded"]);
});

test("everything stopped in the middle of a job and started again: the job runs to its end", async () => {
  const dataDir = await mkdtemp(join(tmpdir(), "recovery-"));
  const first = await startStack({ LOG_LEVEL: "warn", DATA_DIR: dataDir });
  const { id } = await (async () => {
    const submitted = await (await openLiveJobs(first)).submit(40 * TURNS);
    await until(
      "it runs",
      async () => (await (await openLiveJobs(first)).client.job(submitted.id)).status === "running",
    );
    return submitted;
  })();
  await first.close();
  assert.deepEqual(await readdir(join(dataDir, "work")), []);

  const second = await startStack({ LOG_LEVEL: "warn", DATA_DIR: dataDir });
  const again = await openLiveJobs(second);
  await until("it runs again", async () => (await again.statuses(id)).length === 4);
  await again.cancel(id);
  assert.equal((await again.ended(id)).status, "cancelled");
  assert.deepEqual(await again.statuses(id), ["queued", "running", "queued", "running", "cancelling", "cancelled"]);
  await second.close();
  await rm(dataDir, { recursive: true });
});
