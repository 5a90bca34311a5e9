import type { JobMetrics } from "../../core/contract.ts";
import type { BlobRef } from "../blobs/blob-store.ts";
import type { JobSpec } from "../kinds/kinds.ts";
import type { ListFilter } from "../list-filter.ts";
import type { Page } from "../pages.ts";
import type { Artifact, FinishedStep, JobError, JobEvent, JobStatus, Progress } from "./job.ts";

/** A job as it is kept. Times are RFC 3339 UTC. */
export interface JobRecord {
  readonly id: string;
  readonly status: JobStatus;
  readonly spec: JobSpec;
  /** `params` as the client sent them; `spec.params` has the defaults filled in. */
  readonly sent_params: unknown;
  readonly name: string | null;
  readonly metadata: Readonly<Record<string, string>>;
  readonly priority: number;
  readonly webhook: {
    readonly url: string;
    readonly events: readonly string[];
    /** Whose secret for the URL signs it; undefined in jobs of versions that had one secret for all. */
    readonly owner?: string;
  } | null;
  /** Where to put an artifact when the job has succeeded. Undefined in jobs of earlier versions. */
  readonly deliver_to?: { readonly url: string; readonly artifact: string } | null;
  /** What has become of that. */
  readonly delivery?: Delivery | null;
  readonly created_at: string;
  readonly started_at: string | null;
  readonly finished_at: string | null;
  readonly retry_of: string | null;
  /** How often a worker has started it. */
  readonly attempt: number;
  /** How many of these attempts ended for reasons of the machine, so that they do not count. */
  readonly handed_back: number;
  readonly progress: Progress | null;
  /** From where the next attempt goes on, by name; the blobs are gone when the job has ended. */
  readonly checkpoints: Readonly<Record<string, BlobRef>>;
  /** Of a pipeline: the steps that have made their models. */
  readonly steps: readonly FinishedStep[];
  readonly result: {
    readonly model_id: string;
    readonly accepted: boolean;
    readonly artifacts: readonly Artifact[];
    readonly metrics: JobMetrics;
    /** Of a pipeline, in their order; null for other jobs. */
    readonly steps:
      | readonly {
          readonly name: string;
          readonly type: string;
          readonly model_id: string;
          readonly parameters: number;
          readonly metrics: JobMetrics;
        }[]
      | null;
  } | null;
  readonly error: JobError | null;
}

export interface Delivery {
  /** `waiting` for the end of the job, or for another attempt. */
  readonly status: "waiting" | "delivered" | "failed";
  readonly at: string;
  readonly detail: string | null;
  /** Where it has been put; null until then, and for addresses that are secret. Undefined in records of earlier versions. */
  readonly location?: string | null;
}

export interface JobFilter extends Omit<ListFilter, "sha256"> {
  readonly status?: JobStatus;
  readonly type?: string;
  readonly model_id?: string;
}

/** Of all jobs that ever ended, the deleted ones too. */
export interface JobTotals {
  readonly succeeded: number;
  readonly failed: number;
  readonly cancelled: number;
  /** Attempts that ended for reasons of the machine: full disks, killed processes, workers that shut down. */
  readonly handedBack: number;
  /** How long they ran, all together. */
  readonly runSeconds: number;
}

/** What lists tell of a job: nothing that grows with its parameters or its result. */
export interface JobSummary
  extends Pick<
    JobRecord,
    | "id"
    | "status"
    | "name"
    | "metadata"
    | "priority"
    | "created_at"
    | "started_at"
    | "finished_at"
    | "retry_of"
    | "attempt"
    | "progress"
    | "error"
  > {
  readonly type: string;
  /** Of quantization, or the mode of a distillation. */
  readonly method: string;
  readonly model_id: string;
  readonly result: { readonly model_id: string; readonly accepted: boolean } | null;
}

/**
 * The truth about jobs, in Redis. The queue only carries ids: what is recorded here and lost there is enqueued again by the
 * reconciler. Every method rejects with `ServiceError("unavailable")` while Redis cannot be reached.
 */
export interface JobStore {
  /**
   * Records a queued job. With an idempotency key that was used before: the first job again (`created: false`) when `fingerprint` is the
   * same, `ServiceError("idempotency_conflict")` when it is not.
   */
  create(
    job: JobRecord,
    idempotency?: { readonly key: string; readonly fingerprint: string },
  ): Promise<{ readonly job: JobRecord; readonly created: boolean }>;
  get(id: string): Promise<JobRecord | undefined>;
  /** Calls a job otherwise. Undefined when there is no such job. */
  rename(id: string, told: Pick<JobRecord, "name" | "metadata">): Promise<JobRecord | undefined>;
  /** Newest first, fewer than `limit` where those would be too many bytes, or a filter lets few through. Throws `invalid_request` for a cursor it did not make. */
  list(filter: JobFilter, page: { readonly limit: number; readonly cursor?: string }): Promise<Page<JobSummary>>;
  /**
   * Moves a job to `to` and merges `patch` in one atomic step, when its status is one of `from`; else changes nothing and answers
   * undefined. A change of status is logged as an event and wakes up who follows the job.
   * `guard.attempt`: and only when the job is still in that attempt, so that a worker which was given up cannot record a result.
   */
  transition(
    id: string,
    from: readonly JobStatus[],
    to: JobStatus,
    patch?: Partial<
      Pick<JobRecord, "started_at" | "finished_at" | "attempt" | "handed_back" | "progress" | "result" | "error">
    >,
    guard?: { readonly attempt?: number },
  ): Promise<JobRecord | undefined>;
  /**
   * Ignored unless the job is running. Of a run of progress events of one step the log keeps the newest only.
   */
  setProgress(id: string, progress: Progress): Promise<void>;
  /** Replaces the checkpoints; false, and nothing is changed, unless the job is running in that attempt. */
  setCheckpoints(id: string, attempt: number, checkpoints: JobRecord["checkpoints"]): Promise<boolean>;
  /** The same for the finished steps of a pipeline. */
  setSteps(id: string, attempt: number, steps: JobRecord["steps"]): Promise<boolean>;
  /** Says what has become of the job's delivery, and logs a sentence about it. */
  setDelivery(
    id: string,
    delivery: Delivery,
    log: { readonly level: "info" | "warn"; readonly message: string },
  ): Promise<void>;
  appendEvent(id: string, type: JobEvent["type"], data: JobEvent["data"]): Promise<void>;
  /** Events after `afterId` (0: all), oldest first, at most `limit`: fewer where those would be too many bytes. */
  events(
    id: string,
    afterId: number,
    limit: number,
  ): Promise<{ readonly data: readonly JobEvent[]; readonly more: boolean }>;
  /** Events after `afterId` as they come; ends after the event of a terminal status, or when `signal` fires. */
  follow(id: string, afterId: number, signal: AbortSignal): AsyncIterable<JobEvent>;
  /** Has the job's webhook told of its end once more; false when it has not ended, or has no webhook for such an end. */
  tellAgain(id: string): Promise<boolean>;
  /** Resolves when the job has ended or is gone, or `signal` fires. Many may wait for one job: they share what it takes. */
  ended(id: string, signal: AbortSignal): Promise<void>;
  /** Forgets a finished job; false when it is not finished. */
  delete(id: string): Promise<boolean>;
  /** Ids of the unfinished jobs that read this model or dataset. */
  activeUsers(resourceId: string): Promise<readonly string[]>;
  /** Ids of the jobs in one of the active statuses, oldest first. */
  active(status: "queued" | "running" | "cancelling"): Promise<readonly string[]>;
  totals(): Promise<JobTotals>;
  /** Ids of jobs that have ended so and were created before a time (RFC 3339), oldest first, at most `limit`. */
  finishedBefore(
    statuses: readonly ("succeeded" | "failed" | "cancelled")[],
    time: string,
    limit: number,
  ): Promise<readonly string[]>;
}

export interface LiveWorker {
  readonly name: string;
  /** Why it takes no jobs now; empty when it does. */
  readonly refusals: readonly string[];
}

/** Hands recorded jobs to workers. */
export interface JobQueue {
  /** Idempotent: a job that is queued already stays as it is. */
  enqueue(job: JobRecord): Promise<void>;
  /** Takes a waiting job out; false when a worker has it already, or it is not there. */
  remove(id: string): Promise<boolean>;
  /** Tells the worker that runs the job to stop its child. */
  signalCancel(id: string): Promise<void>;
  /** 1 = next to run; null when it is not waiting. */
  position(id: string): Promise<number | null>;
  /** `delayed`: handed back, and not to be run before some time. */
  counts(): Promise<{ readonly waiting: number; readonly delayed: number; readonly active: number }>;
  /** Those that are alive. */
  workers(): Promise<readonly LiveWorker[]>;
}
