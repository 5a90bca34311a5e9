import { z } from "zod";
import type { JobPlan as Plan } from "../../tasks/protocol.ts";
import { WEBHOOK_EVENTS } from "../jobs/job.ts";
import { each } from "../kinds/each.ts";
import { KINDS } from "../kinds/kinds.ts";
import { JobProblem, JobStatus, STATE } from "../kinds/wire.ts";
import { PageQuery, pageOf, Timestamp } from "../schemas.ts";

/** The wire forms of requests about jobs, their events and their plans. What is a kind's own stands with the kind. */

export const JobParams = z.object({ job_id: z.string() });
export const ArtifactParams = z.object({ job_id: z.string(), name: z.string() });
const JobType = z.enum(KINDS.map(({ type }) => type)).meta({ id: "JobType" });

export const CreateJobRequest = z.discriminatedUnion("type", each(KINDS, "request")).meta({ id: "CreateJobRequest" });

export const CreateJobQuery = z.strictObject({
  validate_only: z
    .enum(["true", "false"])
    .default("false")
    .meta({ description: "Answer 200 with what the job would do, and store nothing." }),
});

export const ListJobsQuery = PageQuery.extend({
  status: JobStatus.optional(),
  type: JobType.optional(),
  model_id: z.string().max(100).optional(),
});

export const Job = z.discriminatedUnion("type", each(KINDS, "job")).meta({ id: "Job" });
const JobSummary = z
  .object({
    id: z.string(),
    object: z.literal("job"),
    type: JobType,
    method: z.string().meta({ description: "Of quantization, or the mode of a distillation." }),
    name: STATE.name,
    metadata: STATE.metadata,
    status: STATE.status,
    model_id: z.string(),
    priority: STATE.priority,
    progress: STATE.progress,
    queue_position: STATE.queue_position,
    attempt: STATE.attempt,
    created_at: STATE.created_at,
    started_at: STATE.started_at,
    finished_at: STATE.finished_at,
    retry_of: STATE.retry_of,
    result: z
      .object({ model_id: z.string(), accepted: z.boolean() })
      .meta({ id: "JobResultSummary", description: "The model that was made, and whether it is within `acceptance`." })
      .nullable(),
    error: STATE.error,
  })
  .meta({ id: "JobSummary", description: "What lists tell of a job; ask for the job to know more." });
export const JobPage = pageOf("JobPage", JobSummary);

export const JobEnded = z
  .object({
    type: z.enum(WEBHOOK_EVENTS),
    timestamp: Timestamp,
    data: z
      .object({
        id: z.string(),
        object: z.literal("job"),
        type: z.string(),
        status: JobStatus,
        name: z.string().nullable(),
        model_id: z.string(),
        result: z.object({ model_id: z.string(), accepted: z.boolean() }).meta({ id: "JobEndedResult" }).nullable(),
        error: JobProblem.nullable(),
      })
      .meta({ id: "JobEndedData" }),
  })
  .meta({ id: "JobEnded", description: "What a webhook says; ask for the job to know more." });

export const JobPlan = z
  .discriminatedUnion("type", each(KINDS, "plan"))
  .meta({ id: "JobPlan", description: "What the job would do." });

const JobEvent = z
  .object({
    id: z.int().meta({ description: "Counts from 1 within the job; there may be gaps." }),
    at: Timestamp,
    type: z.enum(["status", "progress", "log", "metric"]),
    data: z.record(z.string(), z.unknown()),
  })
  .meta({ id: "JobEvent" });
export const JobEventPage = pageOf("JobEventPage", JobEvent);

export const ListJobEventsQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(1000).default(100).meta({ description: "Of the JSON list." }),
  cursor: z
    .string()
    .regex(/^\d{1,15}$/, "must be a next_cursor, or the id of an event")
    .optional()
    .meta({ description: "Events after this id." }),
});

export const ListJobEventsHeaders = z.object({
  accept: z.string().optional(),
  "last-event-id": z
    .string()
    .regex(/^\d{0,15}$/, "must be the id of an event")
    .optional()
    .meta({ description: "Of the stream: events after this id." }),
});

/** Compiles only while the wire form has every field of what plans say. */
type Covers<Wire extends Reported, Reported> = Wire;
/** @lintignore It is read by the compiler alone. */
export type WirePlan = Covers<z.output<typeof JobPlan>, Plan>;
