import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { hasEnded } from "../support/processes.ts";

let stack: Stack;
let jobs: LiveJobs;
before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  jobs = await openLiveJobs(stack);
});
after(() => stack?.close());

test("a running job is cancelled in the middle of a native call, and a waiting one at once", async () => {
  // A single run takes half a minute: wherever the job is in its evaluation, it is inside one.
  const { id } = await jobs.submit(20_000_000);
  const child = await jobs.child(id);
  const waiting = await jobs.submit(1_000);
  assert.equal((await jobs.client.job(waiting.id)).status, "queued");

  assert.equal((await jobs.cancel(waiting.id)).status, "cancelled");
  const start = performance.now();
  assert.equal((await jobs.cancel(id)).status, "cancelling");
  assert.equal((await jobs.cancel(id)).status, "cancelling");
  const job = await jobs.ended(id);
  const tookMs = performance.now() - start;
  assert.equal(job.status, "cancelled");
  assert.equal(job.result, null);
  assert.ok(tookMs < 20_000, `the end of the run was not waited for: ${tookMs} ms`);
  assert.ok(await hasEnded(child, 10_000));
  assert.deepEqual(await jobs.statuses(id), ["queued", "running", "cancelling", "cancelled"]);

  const next = await jobs.ended((await jobs.submit(1_000)).id);
  assert.equal(next.status, "succeeded");
  await assert.rejects(jobs.cancel(next.id), { status: 409 });
});

test("a cancelled job can be run again, and deleted", async () => {
  const { id } = await jobs.submit(20_000_000);
  await jobs.child(id);
  await assert.rejects(jobs.client.request(`/v1/jobs/${id}`, { method: "DELETE" }), { status: 409 });
  await assert.rejects(jobs.client.request(`/v1/models/${jobs.modelId}`, { method: "DELETE" }), { status: 409 });
  await jobs.cancel(id);
  await jobs.ended(id);
  const again = await (await jobs.client.request(`/v1/jobs/${id}/retry`, { method: "POST" })).json();
  assert.equal((again as { retry_of: string }).retry_of, id);
  await jobs.cancel((again as { id: string }).id);
  await jobs.ended((again as { id: string }).id);
  await jobs.client.request(`/v1/jobs/${id}`, { method: "DELETE" });
  await assert.rejects(jobs.client.job(id), { status: 404 });
});
