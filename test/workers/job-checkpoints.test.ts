import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pino } from "pino";
import type { BlobStore } from "../../src/service/blobs/blob-store.ts";
import type { BlobClaims } from "../../src/service/blobs/claims.ts";
import type { JobRecord, JobStore } from "../../src/service/jobs/job-store.ts";
import { createJobCheckpoints } from "../../workers/job-checkpoints.ts";
import { queuedJob } from "../support/jobs.ts";

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "job-checkpoints-"));
});
after(() => rm(directory, { recursive: true }));

/** Blobs, claims and one job in memory; a blob is there while somebody claims it. */
function memory(job: JobRecord) {
  const bytesOf = new Map<string, Buffer>();
  const owners = new Map<string, string>();
  let record = job;
  const blobs: Partial<BlobStore> = {
    async put(bytes, { claim }) {
      const content = Buffer.concat(await Array.fromAsync(bytes));
      const ref = { sha256: createHash("sha256").update(content).digest("hex"), size_bytes: content.length };
      await claim?.(ref);
      bytesOf.set(ref.sha256, content);
      return ref;
    },
    async materialize({ sha256 }, path) {
      if (!bytesOf.has(sha256)) throw new Error("it is not there");
      await writeFile(path, bytesOf.get(sha256)!);
    },
  };
  const claims: Partial<BlobClaims> = {
    claim: async (owner, { sha256 }) => void owners.set(owner, sha256),
    async release(owner) {
      const sha256 = owners.get(owner);
      owners.delete(owner);
      if (sha256 && ![...owners.values()].includes(sha256)) bytesOf.delete(sha256);
    },
  };
  const jobs: Partial<JobStore> = {
    get: async () => record,
    async setCheckpoints(_id, attempt, checkpoints) {
      if (record.status !== "running" || record.attempt !== attempt) return false;
      record = { ...record, checkpoints };
      return true;
    },
  };
  const deps = { blobs, claims, jobs, log: pino({ level: "silent" }) };
  const checkpoints = createJobCheckpoints(deps as unknown as Parameters<typeof createJobCheckpoints>[0]);
  return {
    checkpoints,
    stored: () => [...bytesOf.values()].map(String).sort(),
    now: () => record,
    change: (fields: Partial<JobRecord>) => {
      record = { ...record, ...fields };
    },
  };
}

const running = () => queuedJob({ status: "running", attempt: 1 });

async function checkpointFile(
  content: string,
  name = "distill",
): Promise<{ kind: "checkpoint"; name: string; path: string }> {
  const path = join(directory, `${name}.checkpoint`);
  await writeFile(path, content);
  return { kind: "checkpoint", name, path };
}

test("of each name the newest is kept, files are removed when they are stored, and the next attempt gets them", async () => {
  const { checkpoints, stored, now } = memory(running());
  const recorder = checkpoints.recorder(now());
  for (const content of ["one", "two", "two", "three"]) {
    const news = await checkpointFile(content);
    recorder.record(news, directory);
    await recorder.finish();
    assert.ok(!existsSync(news.path));
  }
  recorder.record(await checkpointFile("base", "baseline"), directory);
  await recorder.finish();
  assert.deepEqual(stored(), ["base", "three"]);
  const found = await checkpoints.fetch(now(), join(directory, "next"));
  assert.deepEqual(Object.keys(found).sort(), ["baseline", "distill"]);
  assert.equal(await readFile(found.distill!.path, "utf8"), "three");

  await checkpoints.drop(now().id);
  assert.deepEqual(stored(), ["base", "three"], "the job is not over");
});

test("those of a finished job go, and those that are lost are done without", async () => {
  const { checkpoints, stored, now, change } = memory(running());
  const recorder = checkpoints.recorder(now());
  recorder.record(await checkpointFile("state"), directory);
  await recorder.finish();
  change({ status: "succeeded" });
  await checkpoints.drop(now().id);
  assert.deepEqual(stored(), []);
  assert.deepEqual(await checkpoints.fetch(now(), join(directory, "lost")), {});
});

test("an attempt that was given up cannot replace what the new one has", async () => {
  const { checkpoints, stored, now, change } = memory(running());
  const old = checkpoints.recorder(now());
  change({ attempt: 2 });
  const current = checkpoints.recorder(now());
  current.record(await checkpointFile("new"), directory);
  await current.finish();
  old.record(await checkpointFile("old"), directory);
  await old.finish();
  assert.deepEqual(stored(), ["new"]);
});

test("a child can have no file stored but its own", async () => {
  const { checkpoints, stored, now } = memory(running());
  const secret = join(directory, "secret");
  await writeFile(secret, "secret");
  const scratch = await mkdtemp(join(directory, "work-"));
  const link = join(scratch, "distill.checkpoint");
  await symlink(secret, link);
  const recorder = checkpoints.recorder(now());
  recorder.record({ kind: "checkpoint", name: "distill", path: link }, scratch);
  recorder.record({ kind: "checkpoint", name: "../x", path: link }, scratch);
  recorder.record({ kind: "checkpoint", name: "distill", path: secret }, scratch);
  await recorder.finish();
  assert.deepEqual(stored(), []);
  assert.equal(await readFile(secret, "utf8"), "secret");
});
