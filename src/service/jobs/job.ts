import type { JobMetrics } from "../../core/contract.ts";
import type { BlobRef } from "../blobs/blob-store.ts";
import { PROBLEMS, type ProblemCode, problemType } from "../errors.ts";

export const JOB_STATUSES = ["queued", "running", "cancelling", "succeeded", "failed", "cancelled"] as const;
export type JobStatus = (typeof JOB_STATUSES)[number];

/** The legal moves. `running` to `queued` is a worker that died or a crash that is retried once. */
export const TRANSITIONS = {
  queued: ["running", "cancelled", "failed"],
  running: ["queued", "cancelling", "succeeded", "failed", "cancelled"],
  cancelling: ["cancelled", "succeeded", "failed"],
  succeeded: [],
  failed: [],
  cancelled: [],
} as const satisfies Record<JobStatus, readonly JobStatus[]>;

export function isTerminal(status: JobStatus): boolean {
  return TRANSITIONS[status].length === 0;
}

/** The ends of jobs that webhooks tell of, when they are not told otherwise. */
export const END_EVENTS = ["job.succeeded", "job.failed", "job.cancelled"] as const;
/** What webhooks can tell of. A job runs once for each attempt. */
export const WEBHOOK_EVENTS = ["job.running", ...END_EVENTS] as const;

/** Ways to deliver what a job has made: `delivery-address.ts` knows their addresses. */
export const DELIVERY_KINDS = ["put", "s3", "mlflow"] as const;
export type DeliveryKind = (typeof DELIVERY_KINDS)[number];

/** How far a job is: `fraction` in [0, 1] over the whole job, `step` one of the names the report lists. */
export interface Progress {
  readonly step: string;
  readonly fraction: number;
  readonly message: string;
}

/** A problem as it is kept in a job's `error`. */
export interface JobError {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly code: ProblemCode;
  readonly detail: string;
  readonly subject?: string;
}

/** Of a job's error: its record is short. */
const MAX_DETAIL_LENGTH = 4_000;

/** The problem with a code, for a job's `error`. `message` says what happened in this case. */
export function jobError({
  code,
  message,
  subject,
}: {
  code: ProblemCode;
  message: string;
  subject?: string;
}): JobError {
  const { title, status } = PROBLEMS[code];
  const detail = message.length > MAX_DETAIL_LENGTH ? `${message.slice(0, MAX_DETAIL_LENGTH)}…` : message;
  const about = subject !== undefined && { subject: subject.slice(0, MAX_DETAIL_LENGTH) };
  return { type: problemType(code), title, status, code, detail, ...about };
}

export interface Artifact extends BlobRef {
  readonly name: string;
  readonly media_type: string;
}

/** A step of a pipeline that has made its model, kept so that later attempts and retries go on behind it. */
export interface FinishedStep {
  readonly name: string;
  readonly type: string;
  readonly model_id: string;
  /** False when the catalog had this model before. */
  readonly created: boolean;
  readonly parameters: number;
  readonly metrics: JobMetrics;
  /** The model's files first, as many as the model has; then the step's reports. */
  readonly model_artifacts: readonly Artifact[];
  readonly report_artifacts: readonly Artifact[];
}

/** What is told of a finished step. */
export function toldOf({ name, type, model_id, parameters, metrics }: FinishedStep) {
  return { name, type, model_id, parameters, metrics };
}

export const JOB_EVENT_TYPES = ["status", "progress", "log", "metric"] as const;

/** One entry of a job's event log; `id` counts from 1 within the job. */
export interface JobEvent {
  readonly id: number;
  readonly at: string;
  readonly type: (typeof JOB_EVENT_TYPES)[number];
  readonly data: Readonly<Record<string, unknown>>;
}
