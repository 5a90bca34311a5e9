import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";
import fc from "fast-check";
import type { JobError, JobEvent, JobStatus } from "../../src/service/jobs/job.ts";
import { isTerminal, JOB_STATUSES, TRANSITIONS } from "../../src/service/jobs/job.ts";
import type { JobRecord, JobStore } from "../../src/service/jobs/job-store.ts";
import { sourceModelId } from "../../src/service/kinds/kinds.ts";
import { queuedJob } from "../support/jobs.ts";

const FAILURE: JobError = { type: "about:blank", title: "t", status: 422, code: "timeout", detail: "too slow" };

const ENDED = ["succeeded", "failed", "cancelled"] as const;

/** What every job store must do. `open` gives an empty one each time. */
export function testJobStore(name: string, open: () => Promise<JobStore>): void {
  describe(`${name} is a job store`, () => {
    let store: JobStore;
    beforeEach(async () => {
      store = await open();
    });

    const create = async (fields: Parameters<typeof queuedJob>[0] = {}) => (await store.create(queuedJob(fields))).job;
    const eventsOf = async (id: string) =>
      (await store.events(id, 0, 1000)).data.map(({ id, type, data }) => ({ id, type, data }));

    test("a record comes back as it was stored", async () => {
      const job = queuedJob({
        name: "näme ☃",
        metadata: { empty: "", quote: '"' },
        webhook: { url: "https://example.com/h", events: [] },
        sent_params: { method: "float16", list: [], nested: { nothing: null, big: 2 ** 53 - 1, small: 1e-7 } },
      });
      assert.deepEqual(await store.create(job), { job, created: true });
      assert.deepEqual(await store.get(job.id), job);
      assert.equal(await store.get("job_unknown"), undefined);
    });

    test("an idempotency key gives the first job again, and refuses another request", async () => {
      const first = queuedJob();
      await store.create(first, { key: "k", fingerprint: "a" });
      assert.deepEqual(await store.create(queuedJob(), { key: "k", fingerprint: "a" }), { job: first, created: false });
      await assert.rejects(store.create(queuedJob(), { key: "k", fingerprint: "b" }), { code: "idempotency_conflict" });
      assert.equal((await store.create(queuedJob(), { key: "other", fingerprint: "b" })).created, true);
      assert.equal((await store.list({}, { limit: 10 })).data.length, 2);
    });

    test("of many concurrent requests with one idempotency key one creates the job", async () => {
      const jobs = Array.from({ length: 20 }, () => queuedJob());
      const answers = await Promise.all(jobs.map((job) => store.create(job, { key: "k", fingerprint: "a" })));
      assert.equal(answers.filter((answer) => answer.created).length, 1);
      assert.equal(new Set(answers.map((answer) => answer.job.id)).size, 1);
    });

    test("a key whose job was deleted is free again", async () => {
      const first = queuedJob();
      await store.create(first, { key: "k", fingerprint: "a" });
      await store.transition(first.id, ["queued"], "cancelled");
      await store.delete(first.id);
      assert.equal((await store.create(queuedJob(), { key: "k", fingerprint: "b" })).created, true);
    });

    test("a move changes status and fields at once, and only from where it may start", async () => {
      const job = await create();
      const started = { started_at: "2026-01-01T00:00:00.000Z", attempt: 1 };
      assert.deepEqual(await store.transition(job.id, ["queued"], "running", started), {
        ...job,
        ...started,
        status: "running",
      });
      assert.equal(await store.transition(job.id, ["queued"], "running", { attempt: 7 }), undefined);
      assert.deepEqual(await store.get(job.id), { ...job, ...started, status: "running" });
      assert.equal(await store.transition("job_unknown", ["queued"], "running"), undefined);
      await assert.rejects(store.transition(job.id, ["succeeded"], "running"), { code: "internal" });
    });

    test("of many concurrent moves one wins", async () => {
      const job = await create();
      const moves = Array.from({ length: 20 }, (_, i) =>
        store.transition(job.id, ["queued"], "running", { attempt: i }),
      );
      const winners = (await Promise.all(moves)).filter((record) => record !== undefined);
      assert.equal(winners.length, 1);
      assert.deepEqual(await store.get(job.id), winners[0]);
    });

    test("a worker whose attempt is over cannot record anything", async () => {
      const job = await create();
      await store.transition(job.id, ["queued"], "running", { attempt: 1 });
      await store.transition(job.id, ["running"], "queued");
      await store.transition(job.id, ["queued"], "running", { attempt: 2 });
      assert.equal(await store.transition(job.id, ["running"], "succeeded", {}, { attempt: 1 }), undefined);
      assert.equal((await store.transition(job.id, ["running"], "succeeded", {}, { attempt: 2 }))?.status, "succeeded");
    });

    test("checkpoints are replaced as a whole, by the attempt that runs and by no other", async () => {
      const { id } = await create();
      const ref = (digit: string) => ({ sha256: digit.repeat(64), size_bytes: Number(digit) });
      assert.equal(await store.setCheckpoints(id, 0, { distill: ref("1") }), false);
      await store.transition(id, ["queued"], "running", { attempt: 1 });
      assert.equal(await store.setCheckpoints(id, 1, { distill: ref("1") }), true);
      assert.equal(await store.setCheckpoints(id, 1, { distill: ref("2"), baseline: ref("3") }), true);
      assert.equal(await store.setCheckpoints(id, 2, {}), false);
      await store.transition(id, ["running"], "queued");
      assert.equal(await store.setCheckpoints(id, 1, {}), false);
      assert.equal(await store.setCheckpoints("job_unknown", 1, {}), false);
      assert.deepEqual((await store.get(id))?.checkpoints, { distill: ref("2"), baseline: ref("3") });
      assert.equal((await eventsOf(id)).length, 3);
    });

    test("how jobs ended is counted, also after they were deleted", async () => {
      assert.deepEqual(await store.totals(), { succeeded: 0, failed: 0, cancelled: 0, handedBack: 0, runSeconds: 0 });
      const [done, lost, waiting] = [await create(), await create(), await create()];
      for (const job of [done, lost]) {
        await store.transition(job.id, ["queued"], "running", { started_at: "2026-01-01T00:00:00.000Z" });
      }
      await store.transition(done.id, ["running"], "succeeded", { finished_at: "2026-01-01T00:00:01.500Z" });
      await store.transition(lost.id, ["running"], "failed", { finished_at: "2026-01-01T00:00:02.000Z" });
      await store.transition(waiting.id, ["queued"], "cancelled", { finished_at: "2026-01-01T00:00:09.000Z" });
      assert.equal(await store.transition(waiting.id, ["queued"], "cancelled"), undefined);
      await store.delete(done.id);
      assert.deepEqual(await store.totals(), { succeeded: 1, failed: 1, cancelled: 1, handedBack: 0, runSeconds: 3.5 });
    });

    test("lists are newest first, filtered, and in pages without gaps or repetitions", async () => {
      const at = (i: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, Math.floor(i / 3))).toISOString();
      const jobs: JobRecord[] = [];
      for (let i = 0; i < 23; i++)
        jobs.push(await create({ created_at: at(i), model_id: i % 2 === 0 ? "mdl_a" : "mdl_b" }));
      for (const job of jobs.slice(0, 7)) await store.transition(job.id, ["queued"], "running");
      const newestFirst = jobs.toSorted((a, b) =>
        a.created_at === b.created_at ? (a.id < b.id ? 1 : -1) : a.created_at < b.created_at ? 1 : -1,
      );
      const running = new Set(jobs.slice(0, 7).map((job) => job.id));

      const read = async (filter: Parameters<JobStore["list"]>[0], limit: number) => {
        const ids: string[] = [];
        let cursor: string | undefined;
        do {
          const page = await store.list(filter, { limit, ...(cursor !== undefined && { cursor }) });
          assert.ok(page.data.length <= limit);
          ids.push(...page.data.map((job) => job.id));
          cursor = page.next_cursor ?? undefined;
        } while (cursor !== undefined);
        return ids;
      };
      const expected = (keep: (job: JobRecord) => boolean) => newestFirst.filter(keep).map((job) => job.id);

      for (const limit of [1, 5, 23, 100])
        assert.deepEqual(
          await read({}, limit),
          expected(() => true),
        );
      assert.deepEqual(
        await read({ status: "running" }, 3),
        expected((job) => running.has(job.id)),
      );
      assert.deepEqual(
        await read({ model_id: "mdl_b" }, 4),
        expected((job) => sourceModelId(job.spec) === "mdl_b"),
      );
      assert.deepEqual(
        await read({ type: "quantize", status: "queued", model_id: "mdl_a" }, 4),
        expected((job) => !running.has(job.id) && sourceModelId(job.spec) === "mdl_a"),
      );
      assert.deepEqual(await read({ type: "distill" }, 5), []);
      assert.deepEqual(await read({ model_id: "*" }, 5), []);
      await assert.rejects(store.list({}, { limit: 5, cursor: "bm9wZQ" }), { code: "invalid_request" });
    });

    test("a job is called otherwise, and found by what it is called and when it was made", async () => {
      const at = (i: number) => `2026-01-01T00:00:0${i}.000Z`;
      const jobs: JobRecord[] = [];
      for (let i = 0; i < 6; i++) {
        jobs.push(await create({ name: i % 2 === 0 ? "even" : null, metadata: { team: "ocr" }, created_at: at(i) }));
      }
      const told = { name: "nightly", metadata: { run: "7" } };
      assert.deepEqual(await store.rename(jobs[4]!.id, told), { ...jobs[4], ...told });
      assert.equal(await store.rename("job_none", told), undefined);
      const found = async (filter: Parameters<JobStore["list"]>[0]) =>
        (await store.list(filter, { limit: 10 })).data.map(({ id }) => jobs.findIndex((job) => job.id === id));
      assert.deepEqual(await found({ name: "even" }), [2, 0]);
      assert.deepEqual(await found({ name: "nightly", metadata: { run: "7" } }), [4]);
      assert.deepEqual(
        await found({ metadata: { team: "ocr" }, created_after: at(0), created_before: at(5) }),
        [3, 2, 1],
      );
      assert.deepEqual(await found({ status: "queued", name: "even", created_after: at(0) }), [2]);
    });

    test("a page survives the deletion of the job its cursor names, and new jobs", async () => {
      const jobs: JobRecord[] = [];
      for (let i = 0; i < 6; i++) jobs.push(await create({ created_at: `2026-01-01T00:00:0${i}.000Z` }));
      const first = await store.list({}, { limit: 3 });
      await store.transition(jobs[3]!.id, ["queued"], "cancelled");
      await store.delete(jobs[3]!.id);
      await create({ created_at: "2026-01-01T00:01:00.000Z" });
      const second = await store.list({}, { limit: 3, cursor: first.next_cursor ?? "" });
      assert.deepEqual(
        second.data.map((job) => job.id),
        [jobs[2]!.id, jobs[1]!.id, jobs[0]!.id],
      );
      assert.equal(second.next_cursor, null);
    });

    test("only a finished job can be deleted, and nothing of it remains", async () => {
      const job = await create({ model_id: "mdl_a" });
      assert.equal(await store.delete(job.id), false);
      await store.transition(job.id, ["queued"], "running");
      assert.equal(await store.delete(job.id), false);
      await store.transition(job.id, ["running"], "failed", { error: FAILURE });
      assert.equal(await store.delete(job.id), true);
      assert.equal(await store.get(job.id), undefined);
      assert.deepEqual((await store.events(job.id, 0, 1000)).data, []);
      for (const filter of [{}, { status: "failed" }, { type: "quantize" }, { model_id: "mdl_a" }] as const) {
        assert.deepEqual((await store.list(filter, { limit: 5 })).data, []);
      }
      await store.appendEvent(job.id, "log", { message: "late" });
      await store.setProgress(job.id, { step: "late", fraction: 0, message: "" });
      assert.equal(await store.get(job.id), undefined);
      assert.deepEqual((await store.events(job.id, 0, 1000)).data, []);
    });

    test("a model or dataset has users while an unfinished job reads it", async () => {
      const one = await create({ model_id: "mdl_x", dataset_id: "dst_x" });
      const two = await create({ model_id: "mdl_x" });
      assert.deepEqual(new Set(await store.activeUsers("mdl_x")), new Set([one.id, two.id]));
      assert.deepEqual(await store.activeUsers("dst_x"), [one.id]);
      assert.deepEqual(await store.activeUsers("mdl_unknown"), []);
      await store.transition(one.id, ["queued"], "running");
      assert.deepEqual(await store.activeUsers("dst_x"), [one.id]);
      await store.transition(one.id, ["running"], "succeeded");
      await store.transition(two.id, ["queued"], "cancelled");
      assert.deepEqual(await store.activeUsers("mdl_x"), []);
      assert.deepEqual(await store.activeUsers("dst_x"), []);
    });

    test("active lists the jobs of a status, oldest first", async () => {
      const jobs = [await create(), await create({ created_at: "2020-01-01T00:00:00.000Z" }), await create()];
      await store.transition(jobs[2]!.id, ["queued"], "running");
      assert.deepEqual(await store.active("queued"), [jobs[1]!.id, jobs[0]!.id]);
      assert.deepEqual(await store.active("running"), [jobs[2]!.id]);
      assert.deepEqual(await store.active("cancelling"), []);
    });

    test("finished jobs are found by their age, oldest first", async () => {
      const at = (hour: number) => `2026-01-01T0${hour}:00:00.000Z`;
      const jobs = [await create({ created_at: at(3) }), await create({ created_at: at(1) })];
      const failed = await create({ created_at: at(2) });
      await create({ created_at: at(0) }); // unfinished
      for (const job of jobs) await store.transition(job.id, ["queued"], "cancelled");
      await store.transition(failed.id, ["queued"], "failed");
      assert.deepEqual(await store.finishedBefore(ENDED, at(3), 10), [jobs[1]!.id, failed.id]);
      assert.deepEqual(await store.finishedBefore(ENDED, at(4), 10), [jobs[1]!.id, failed.id, jobs[0]!.id]);
      assert.deepEqual(await store.finishedBefore(ENDED, at(4), 1), [jobs[1]!.id]);
      assert.deepEqual(await store.finishedBefore(ENDED, at(0), 10), []);
      assert.deepEqual(await store.finishedBefore(["failed"], at(4), 10), [failed.id]);
    });

    test("any sequence of legal moves ends where the table says, logged in order", async () => {
      const walk = fc.array(fc.nat(4), { maxLength: 8 });
      await fc.assert(
        fc.asyncProperty(walk, async (choices) => {
          const job = await create();
          const path: JobStatus[] = ["queued"];
          for (const choice of choices) {
            const status = path.at(-1)!;
            const next: readonly JobStatus[] = TRANSITIONS[status];
            if (next.length === 0) break;
            const to = next[choice % next.length]!;
            assert.equal((await store.transition(job.id, [status], to))?.status, to);
            path.push(to);
          }
          assert.deepEqual(
            (await eventsOf(job.id)).map((event) => event.data.status),
            path,
          );
          for (const status of JOB_STATUSES) {
            const listed = (await store.list({ status }, { limit: 100 })).data.some(
              (listedJob) => listedJob.id === job.id,
            );
            assert.equal(listed, status === path.at(-1));
          }
          assert.equal((await store.activeUsers("mdl_a")).includes(job.id), !isTerminal(path.at(-1)!));
        }),
        { numRuns: 25 },
      );
    });

    test("events count from 1; the log of progress keeps the newest of a step", async () => {
      const job = await create();
      await store.setProgress(job.id, { step: "early", fraction: 0, message: "not running: ignored" });
      await store.transition(job.id, ["queued"], "running", { attempt: 1 });
      for (const fraction of [0.1, 0.2, 0.3]) await store.setProgress(job.id, { step: "load", fraction, message: "" });
      await store.setProgress(job.id, { step: "work", fraction: 0.4, message: "" });
      await store.appendEvent(job.id, "log", { level: "info", message: "hello" });
      await store.setProgress(job.id, { step: "work", fraction: 0.5, message: "" });
      await store.transition(job.id, ["running"], "failed", { error: FAILURE });
      assert.deepEqual((await store.get(job.id))?.progress, { step: "work", fraction: 0.5, message: "" });
      assert.deepEqual(await eventsOf(job.id), [
        { id: 1, type: "status", data: { status: "queued" } },
        { id: 2, type: "status", data: { status: "running", attempt: 1 } },
        { id: 5, type: "progress", data: { step: "load", fraction: 0.3, message: "" } },
        { id: 6, type: "progress", data: { step: "work", fraction: 0.4, message: "" } },
        { id: 7, type: "log", data: { level: "info", message: "hello" } },
        { id: 8, type: "progress", data: { step: "work", fraction: 0.5, message: "" } },
        { id: 9, type: "status", data: { status: "failed", error: FAILURE } },
      ]);
      assert.deepEqual(
        (await store.events(job.id, 7, 1000)).data.map((event) => event.id),
        [8, 9],
      );
      assert.deepEqual((await store.events(job.id, 9, 1000)).data, []);
    });

    const collect = async (follower: AsyncIterable<JobEvent>) => {
      const ids: number[] = [];
      for await (const event of follower) ids.push(event.id);
      return ids;
    };

    test("followers see every event once and in order, whenever they join, and end with the job", async () => {
      const job = await create();
      await store.transition(job.id, ["queued"], "running");
      const never = new AbortController().signal;
      const total = 300;
      const followers: Promise<number[]>[] = [];
      for (let i = 3; i <= total; i++) {
        if (i % 30 === 0)
          followers.push(collect(store.follow(job.id, 0, never)), collect(store.follow(job.id, 5, never)));
        await store.appendEvent(job.id, "log", { level: "info", message: `${i}` });
      }
      await store.transition(job.id, ["running"], "succeeded");
      const all = Array.from({ length: total + 1 }, (_, i) => i + 1);
      for (const [i, ids] of (await Promise.all(followers)).entries()) {
        assert.deepEqual(ids, i % 2 === 0 ? all : all.slice(5));
      }
    });

    test("a follower that comes after the end, or for no job, ends at once", async () => {
      const job = await create();
      await store.transition(job.id, ["queued"], "cancelled");
      const never = new AbortController().signal;
      assert.deepEqual(await collect(store.follow(job.id, 0, never)), [1, 2]);
      assert.deepEqual(await collect(store.follow(job.id, 2, never)), []);
      assert.deepEqual(await collect(store.follow("job_unknown", 0, never)), []);
    });

    test("a follower ends when its signal fires, or its job is deleted", async () => {
      const job = await create();
      const controller = new AbortController();
      for await (const { id } of store.follow(job.id, 0, controller.signal)) {
        assert.equal(id, 1);
        // It waits for the next one then.
        setImmediate(() => controller.abort());
      }

      await store.transition(job.id, ["queued"], "cancelled");
      const late = collect(store.follow(job.id, 0, new AbortController().signal));
      await store.delete(job.id);
      assert.ok((await late).length <= 2);
    });
  });
}
