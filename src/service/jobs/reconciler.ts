import type { Redis } from "ioredis";
import type { Logger } from "pino";
import type { BlobClaims } from "../blobs/claims.ts";
import { fromRedis, KEY_PREFIX, redisTime } from "../redis.ts";
import { jobError } from "./job.ts";
import type { JobRecord, JobStore } from "./job-store.ts";
import type { BullJobQueue } from "./queue.ts";

export interface ReconcilerOptions {
  readonly redis: Redis;
  readonly jobs: JobStore;
  readonly queue: BullJobQueue;
  readonly claims: BlobClaims;
  readonly queueTimeoutMs: number;
  /** How long jobs are kept that have succeeded, and that have not; null: for ever. */
  readonly retentionMs: { readonly succeeded: number | null; readonly failed: number | null };
  readonly log: Logger;
  /** Between two rounds of all workers together. */
  readonly intervalMs?: number;
}

export interface Reconciler {
  close(): void;
}

const INTERVAL_MS = 10_000;
/** Of one round; the rest has time until the next. */
const MAX_DELETIONS = 1_000;

/**
 * Makes the queue agree with the records, which are the truth: both are written one after the other, and a process may die in between.
 * It runs in every worker, and one of them at a time does a round.
 */
export function startReconciler(options: ReconcilerOptions): Reconciler {
  const { redis, log, intervalMs = INTERVAL_MS } = options;
  let closed = false;
  let timer: NodeJS.Timeout | undefined;

  async function keepReconciling(): Promise<void> {
    try {
      // Who gets the key does this round, and there is no other one until it expires.
      const turn = redis.set(`${KEY_PREFIX}:reconciler`, "taken", "PX", intervalMs, "NX");
      if ((await fromRedis(turn)) !== null) await reconcile(options);
    } catch (error) {
      log.warn({ err: error }, "reconciliation failed");
    }
    if (!closed) timer = setTimeout(keepReconciling, intervalMs / 2);
  }
  keepReconciling();

  return {
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
}

/** One round. */
async function reconcile(options: Omit<ReconcilerOptions, "intervalMs">): Promise<void> {
  const { redis, jobs, queue, claims, queueTimeoutMs, retentionMs, log } = options;
  // One clock decides what is too old, whichever worker does the round.
  const time = await redisTime(redis);
  const ago = (ms: number) => new Date(time - ms).toISOString();
  const now = () => ago(0);

  // Records first: what is recorded and enqueued later than this is not looked at.
  const [queued, running, cancelling] = [
    await jobs.active("queued"),
    await jobs.active("running"),
    await jobs.active("cancelling"),
  ];
  const known = await queue.ids();

  /** The record of a job that is still in `status` while the queue does not have it: asked again, one after the other. */
  async function lost(id: string, status: JobRecord["status"]): Promise<JobRecord | undefined> {
    if (known.has(id)) return undefined;
    const job = await jobs.get(id);
    return job?.status === status && (await queue.stateOf(id)) === "absent" ? job : undefined;
  }

  for (const id of queued) {
    const job = await lost(id, "queued");
    if (job === undefined) continue;
    log.warn({ job: id }, "a recorded job was not in the queue; it is queued again");
    await queue.enqueue(job);
  }

  for (const id of running) {
    const job = await lost(id, "running");
    if (job === undefined) continue;
    log.warn({ job: id }, "a running job was not in the queue; it is started again");
    const requeued = await jobs.transition(id, ["running"], "queued", { progress: null }, { attempt: job.attempt });
    if (requeued !== undefined) await queue.enqueue(requeued);
  }

  for (const id of cancelling) {
    // Waiting: its worker died, and no other one has taken it yet.
    if ((await queue.stateOf(id)) === "active") continue;
    await queue.remove(id);
    if (await jobs.transition(id, ["cancelling"], "cancelled", { finished_at: now() })) await claims.release(id);
  }

  const tooOld = ago(queueTimeoutMs);
  for (const id of queued) {
    const job = await jobs.get(id);
    if (job === undefined) continue;
    if (job.created_at >= tooOld) break; // Oldest first.
    // A job that a worker has started before waits for another one; its time in the queue was over then.
    if (job.status !== "queued" || job.attempt > 0 || !(await queue.remove(id))) continue;
    const error = jobError({ code: "expired", message: `The job waited for longer than ${queueTimeoutMs / 1000} s.` });
    await jobs.transition(id, ["queued"], "failed", { finished_at: now(), error });
  }

  for (const [statuses, keptMs] of [
    [["succeeded"], retentionMs.succeeded],
    [["failed", "cancelled"], retentionMs.failed],
  ] as const) {
    if (keptMs === null) continue;
    const tooOldToKeep = ago(keptMs);
    for (const id of await jobs.finishedBefore(statuses, tooOldToKeep, MAX_DELETIONS)) {
      const job = await jobs.get(id);
      if (job === undefined || (job.finished_at ?? job.created_at) >= tooOldToKeep) continue;
      if (await jobs.delete(id)) await claims.release(id);
    }
  }

  await claims.sweep();
}
