import { z } from "zod";
import { Job } from "../kinds/wire.ts";
import { JobRenaming } from "./describe.ts";
import * as examples from "./examples.ts";
import { IdempotencyHeaders } from "./idempotent.ts";
import * as jobExamples from "./job-examples.ts";
import {
  CreateJobQuery,
  JobEnded,
  JobEventPage,
  JobPage,
  JobParams,
  JobPlan,
  JobRequest,
  ListJobEventsQuery,
  ListJobsQuery,
  StreamJobEventsHeaders,
  StreamJobEventsQuery,
  WebhookReceiver,
  WebhookSecret,
} from "./job-schemas.ts";
import { defineOperation } from "./operation.ts";
import { PREFER } from "./prefer-wait.ts";

/** The operations on jobs, as data; `jobs.ts` does them. */

const json = (schema: z.ZodType) => ({ "application/json": schema });

const REQUEST_PROBLEMS = [
  "validation_failed",
  "invalid_params",
  "unsupported",
  "invalid_model",
  "timeout",
  "too_large",
  "unsupported_media_type",
] as const;

const REQUEST_EXAMPLES = {
  quantize: jobExamples.createJobRequest,
  qat: jobExamples.createQatJobRequest,
  distill: jobExamples.createDistillJobRequest,
  distill_online: jobExamples.createOnlineJobRequest,
  distill_self: jobExamples.createSelfJobRequest,
  train: jobExamples.createTrainingJobRequest,
  simplify: jobExamples.createSimplifyJobRequest,
  pipeline: jobExamples.createPipelineJobRequest,
  evaluate: jobExamples.createEvaluateJobRequest,
  auto: jobExamples.createAutoJobRequest,
};

export const createJob = defineOperation({
  id: "createJob",
  method: "POST",
  path: "/v1/jobs",
  tag: "Jobs",
  summary: "Start a job",
  description:
    "Compresses a model, trains one, or measures some. The request is checked against the recorded facts of models and datasets at " +
    "once; follow the job by its Location or its events, or wait for its end with `Prefer: wait=60`. For the command line, `?validate_only=true` is `planJob`.",
  access: "write",
  query: CreateJobQuery,
  headers: IdempotencyHeaders.extend({ prefer: PREFER }),
  body: JobRequest,
  responses: {
    202: {
      description: "The job is recorded and waits for a worker; with `Prefer: wait` it may have ended.",
      content: json(Job),
      headers: {
        Location: "Path of the job.",
        "Retry-After": "Seconds after which to ask for it.",
      },
      example: jobExamples.queuedJob,
      links: { getJob: { job_id: "id" }, listJobEvents: { job_id: "id" }, cancelJob: { job_id: "id" } },
    },
  },
  problems: [...REQUEST_PROBLEMS, "idempotency_conflict", "quota_exceeded", "conflict"],
  examples: REQUEST_EXAMPLES,
  callback: {
    name: "jobEnded",
    to: "{$request.body#/webhook/url}",
    summary: "A job has ended, or has begun to run",
    description:
      "Sent to the `webhook` of a job, by the Standard Webhooks specification, until it is answered with 2xx.",
    body: JobEnded,
  },
});

export const planJob = defineOperation({
  id: "planJob",
  method: "POST",
  path: "/v1/jobs/plan",
  tag: "Jobs",
  summary: "Ask what a job would do",
  description: "Takes the same request as `createJob`, refuses what that refuses, and stores nothing.",
  access: "write",
  body: JobRequest,
  responses: { 200: { description: "What the job would do.", content: json(JobPlan), example: jobExamples.plan } },
  problems: REQUEST_PROBLEMS,
  examples: REQUEST_EXAMPLES,
});

export const createWebhookSecret = defineOperation({
  id: "createWebhookSecret",
  method: "POST",
  path: "/v1/webhook-secrets",
  tag: "Jobs",
  summary: "Make a secret for a receiver of webhooks",
  description:
    "What your jobs tell this URL is signed with it, and with nobody else's. Asked again, it is a new one; for a day everything is signed with both, " +
    "so that the receiver can change over.",
  access: "write",
  body: WebhookReceiver,
  responses: {
    201: { description: "The secret, once.", content: json(WebhookSecret), example: examples.webhookSecret },
  },
  problems: ["validation_failed", "unsupported_media_type", "too_large"],
  examples: { receiver: { url: "https://ci.example.com/hooks/modelpress" } },
});

export const redeliverJobWebhook = defineOperation({
  id: "redeliverJobWebhook",
  method: "POST",
  path: "/v1/jobs/{job_id}/webhook/redeliver",
  tag: "Jobs",
  summary: "Tell of a job's end once more",
  description:
    "Sends what the job's webhook was told of its end again, under the same `webhook-id`: for a receiver that was away for too long. What is still " +
    "tried is tried now.",
  access: "write",
  params: JobParams,
  responses: { 202: { description: "It is sent.", content: json(Job), example: jobExamples.finishedJob } },
  problems: ["not_found", "conflict"],
});

export const listJobs = defineOperation({
  id: "listJobs",
  method: "GET",
  path: "/v1/jobs",
  tag: "Jobs",
  summary: "List jobs",
  description:
    "Page by page: `next_cursor` of one page is the `cursor` of the next. Filters narrow it down together; a page may be short, or empty, " +
    "although there is a next one: a request looks through 10,000 records at the most.",
  access: "read",
  query: ListJobsQuery,
  responses: {
    200: {
      description: "Newest first.",
      content: json(JobPage),
      example: { data: [jobExamples.jobSummary], next_cursor: null },
    },
  },
  problems: ["validation_failed"],
});

export const getJob = defineOperation({
  id: "getJob",
  method: "GET",
  path: "/v1/jobs/{job_id}",
  tag: "Jobs",
  summary: "Get a job",
  description:
    "Where it stands; when it has ended, what came of it. With `Prefer: wait=60` it answers when the job has ended.",
  access: "read",
  params: JobParams,
  headers: z.object({ prefer: PREFER }),
  responses: {
    200: {
      description: "The job.",
      content: json(Job),
      example: jobExamples.finishedJob,
    },
  },
  problems: ["not_found"],
});

export const renameJob = defineOperation({
  id: "renameJob",
  method: "PATCH",
  path: "/v1/jobs/{job_id}",
  tag: "Jobs",
  summary: "Change what a job is called",
  description: "Its name, its metadata, or both, whether it has ended or not. Its report keeps the name that it had.",
  access: "write",
  params: JobParams,
  body: JobRenaming,
  responses: {
    200: { description: "The job, as it is called now.", content: json(Job), example: jobExamples.finishedJob },
  },
  problems: ["not_found", "validation_failed", "unsupported_media_type", "too_large"],
  examples: { renamed: examples.renaming },
});

export const cancelJob = defineOperation({
  id: "cancelJob",
  method: "POST",
  path: "/v1/jobs/{job_id}/cancel",
  tag: "Jobs",
  summary: "Cancel a job",
  description: "A waiting job is cancelled at once, a running one within a few seconds. Asking again is no error.",
  access: "write",
  params: JobParams,
  responses: {
    202: { description: "It is cancelled, or will be.", content: json(Job), example: jobExamples.queuedJob },
  },
  problems: ["not_found", "conflict"],
});

export const retryJob = defineOperation({
  id: "retryJob",
  method: "POST",
  path: "/v1/jobs/{job_id}/retry",
  tag: "Jobs",
  summary: "Run a finished job again",
  description: "Makes a new job with the same request; its `retry_of` names the old one.",
  access: "write",
  params: JobParams,
  headers: IdempotencyHeaders,
  responses: {
    202: {
      description: "The new job.",
      content: json(Job),
      headers: { Location: "Path of the new job.", "Retry-After": "Seconds after which to ask for it." },
      example: jobExamples.queuedJob,
    },
  },
  problems: ["not_found", "conflict", "quota_exceeded", "validation_failed", "idempotency_conflict"],
});

export const deleteJob = defineOperation({
  id: "deleteJob",
  method: "DELETE",
  path: "/v1/jobs/{job_id}",
  tag: "Jobs",
  summary: "Delete a job",
  description: "With its events and artifacts; the model it made stays.",
  access: "write",
  params: JobParams,
  responses: { 204: { description: "The job is gone." } },
  problems: ["not_found", "conflict"],
});

export const listJobEvents = defineOperation({
  id: "listJobEvents",
  method: "GET",
  path: "/v1/jobs/{job_id}/events",
  tag: "Jobs",
  summary: "List what has happened to a job",
  description:
    "Page by page. To be told as it happens: `streamJobEvents`, which also answers here to who prefers " +
    "`text/event-stream` in `Accept`.",
  access: "read",
  params: JobParams,
  query: ListJobEventsQuery,
  headers: StreamJobEventsHeaders.extend({
    "last-event-id": StreamJobEventsHeaders.shape["last-event-id"].meta({ curlOnly: true }),
  }),
  responses: {
    200: {
      description: "Oldest first.",
      content: json(JobEventPage),
      example: { data: [jobExamples.event], next_cursor: null },
    },
  },
  problems: ["not_found", "validation_failed"],
});

export const streamJobEvents = defineOperation({
  id: "streamJobEvents",
  method: "GET",
  path: "/v1/jobs/{job_id}/events/stream",
  tag: "Jobs",
  summary: "Follow a job",
  description:
    "Server-sent events as they come: the data of each is a `JobEvent` as JSON, its id works as `Last-Event-ID` after a " +
    "reconnection, and the stream ends after the event of the job's final status.",
  access: "read",
  params: JobParams,
  query: StreamJobEventsQuery,
  headers: StreamJobEventsHeaders,
  responses: { 200: { description: "Oldest first.", content: { "text/event-stream": z.string() } } },
  problems: ["not_found", "validation_failed"],
});

export const JOB_OPERATIONS = [
  createJob,
  planJob,
  createWebhookSecret,
  redeliverJobWebhook,
  listJobs,
  getJob,
  renameJob,
  cancelJob,
  retryJob,
  deleteJob,
  listJobEvents,
  streamJobEvents,
];
