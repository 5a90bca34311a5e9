import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";

const MIB = 2 ** 20;

let stack: Stack;
let jobs: LiveJobs;
before(async () => {
  stack = await startStack({
    LOG_LEVEL: "warn",
    JOB_TIMEOUT_MS: "25000",
    QUEUE_TIMEOUT_MS: "2000",
    JOB_MEMORY_BYTES: String(700 * MIB),
  });
  jobs = await openLiveJobs(stack);
});
after(() => stack?.close());

test("a job that waits for too long expires, and one that runs for too long is stopped in its native call", async () => {
  const { id } = await jobs.submit(100_000_000);
  await jobs.child(id);
  const start = performance.now();
  const waiting = await jobs.ended((await jobs.submit(1_000)).id);
  assert.equal(waiting.status, "failed");
  assert.equal(waiting.error?.code, "expired");
  assert.equal(waiting.started_at, null);
  assert.ok(performance.now() - start < 20_000);

  const job = await jobs.ended(id);
  assert.equal(job.status, "failed");
  assert.equal(job.error?.code, "timeout");
  assert.ok(performance.now() - start < 30_000);
  assert.deepEqual(await jobs.statuses(id), ["queued", "running", "failed"]);
});

test("a job that takes too much memory is stopped", async () => {
  const { id } = await jobs.submitHungry(4096 * MIB);
  const job = await jobs.ended(id);
  assert.equal(job.status, "failed");
  assert.equal(job.error?.code, "out_of_memory");
  assert.match(job.error?.detail ?? "", /700 MiB/);
  assert.equal((await jobs.ended((await jobs.submit(1_000)).id)).status, "succeeded");
});
