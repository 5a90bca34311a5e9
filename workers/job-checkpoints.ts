import { createReadStream } from "node:fs";
import { mkdir, realpath, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "pino";
import type { BlobRef, BlobStore } from "../src/service/blobs/blob-store.ts";
import type { BlobClaims } from "../src/service/blobs/claims.ts";
import { isTerminal } from "../src/service/jobs/job.ts";
import type { JobRecord, JobStore } from "../src/service/jobs/job-store.ts";
import type { LocalFile, TaskNews } from "../src/tasks/protocol.ts";
import { checkProduced } from "./job-files.ts";

type CheckpointNews = Extract<TaskNews, { kind: "checkpoint" }>;

/**
 * What a job has done so far, kept where the next attempt finds it, on whatever machine that runs. Of each name only the newest is kept, and
 * all are gone when the job has ended.
 */
export interface JobCheckpoints {
  /** Brings what earlier attempts have stored into `directory`, by name. What is lost is left out: that work is done again. */
  fetch(job: JobRecord, directory: string): Promise<Readonly<Record<string, LocalFile>>>;
  /** Stores what the children of an attempt tell of. */
  recorder(job: JobRecord): CheckpointRecorder;
  /** Forgets those of a job, if it has ended. Never rejects. */
  drop(id: string): Promise<void>;
}

export interface CheckpointRecorder {
  /** A file that a child has made below `root`. It is removed when it is stored: until then the child makes no other of the same name. */
  record(news: CheckpointNews, root: string): void;
  /** Resolves when all of them are stored. */
  finish(): Promise<void>;
}

export function createJobCheckpoints(deps: {
  blobs: BlobStore;
  claims: BlobClaims;
  jobs: JobStore;
  log: Logger;
}): JobCheckpoints {
  const { blobs, claims, jobs, log } = deps;

  /** Never settled, so that whatever a killed worker leaves behind is swept a day later. */
  const ownerOf = (id: string, name: string, { sha256 }: BlobRef) => `${id}:checkpoint:${name}:${sha256}`;

  return {
    async fetch({ id, checkpoints }, directory) {
      await mkdir(directory, { recursive: true });
      const found: Record<string, LocalFile> = {};
      for (const [name, ref] of Object.entries(checkpoints)) {
        const path = join(directory, name);
        try {
          await blobs.materialize(ref, path);
          found[name] = { name, path };
        } catch (error) {
          log.warn({ job: id, err: error }, "a checkpoint is lost");
        }
      }
      return found;
    },

    recorder(job) {
      let stored = job.checkpoints;
      let writes = Promise.resolve();

      async function store({ name, path }: CheckpointNews): Promise<void> {
        const ref = await blobs.put(createReadStream(path), {
          maxBytes: Number.MAX_SAFE_INTEGER, // The disk it was written to has set the limit.
          claim: (ref) => claims.claim(ownerOf(job.id, name, ref), ref),
        });
        const before = stored[name];
        if (before?.sha256 === ref.sha256) return;
        const next = { ...stored, [name]: ref };
        const isOurs = await jobs.setCheckpoints(job.id, job.attempt, next);
        if (isOurs) stored = next;
        const obsolete = isOurs ? before : ref;
        if (obsolete !== undefined) await claims.release(ownerOf(job.id, name, obsolete));
      }

      return {
        record(news, root) {
          writes = writes
            .then(async () => {
              // Before anything is done with the file, removing it included.
              await checkProduced(news, await realpath(root));
              await store(news).finally(() => rm(news.path, { force: true }));
            })
            .catch((error) => log.warn({ job: job.id, err: error }, "a checkpoint was not stored"));
        },
        finish: () => writes,
      };
    },

    async drop(id) {
      try {
        const job = await jobs.get(id);
        if (job === undefined || !isTerminal(job.status)) return;
        for (const [name, ref] of Object.entries(job.checkpoints)) await claims.release(ownerOf(id, name, ref));
      } catch (error) {
        log.warn({ job: id, err: error }, "the checkpoints of a job are left to be swept");
      }
    },
  };
}
