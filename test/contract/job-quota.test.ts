import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createJobQuota } from "../../src/service/api/job-quota.ts";
import type { JobStore } from "../../src/service/jobs/job-store.ts";
import { KEY_PREFIX } from "../../src/service/redis.ts";
import { startTestRedis, type TestRedis } from "../support/redis.ts";

let server: TestRedis;
before(async () => {
  server = await startTestRedis();
});
after(() => server.close());

test("a place is kept for a request that is under way, and for one that has died a minute at most", async () => {
  const waiting: string[] = [];
  const jobs = { active: async () => waiting } as Pick<JobStore, "active"> as JobStore;
  const quota = createJobQuota(server.redis, jobs);
  const refused = (caller: string, id: string) =>
    assert.rejects(quota.reserve(caller, id, 2), { code: "quota_exceeded" });

  await quota.reserve("me", "job_recorded", 2);
  await quota.reserve("me", "job_under_way", 2);
  await refused("me", "job_3");
  waiting.push("job_recorded");
  await quota.confirm("me", "job_recorded");
  await refused("me", "job_3");
  await quota.reserve("somebody else", "job_3", 2);

  // Its process was killed before the job was recorded.
  await server.redis.zadd(`${KEY_PREFIX}:quota:me`, "XX", Date.now() - 59_000, "job_under_way");
  await refused("me", "job_4");
  await server.redis.zadd(`${KEY_PREFIX}:quota:me`, "XX", Date.now() - 61_000, "job_under_way");
  await quota.reserve("me", "job_4", 2);

  await quota.cancel("me", "job_4");
  await quota.reserve("me", "job_5", 2);
  await refused("me", "job_6");
  waiting.length = 0;
  await quota.reserve("me", "job_6", 2);
});
