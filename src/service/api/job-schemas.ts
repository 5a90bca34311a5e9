import { z } from "zod";
import { JOB_EVENT_TYPES, WEBHOOK_EVENTS } from "../jobs/job.ts";
import { each } from "../kinds/each.ts";
import { KINDS } from "../kinds/kinds.ts";
import { EpochRecord, JobMetricsSchema, SizeMetrics } from "../kinds/metrics-schemas.ts";
import { Job, JobProblem, JobStatus, planOf } from "../kinds/wire.ts";
import { Count, Metadata, pageOf, Timestamp } from "../schemas.ts";
import { listQuery } from "./describe.ts";

/** The wire forms of requests about jobs, their events and their plans. What is a kind's own stands with the kind. */

export const JobParams = z.object({ job_id: z.string() });
const JobType = z.enum(KINDS.map(({ type }) => type)).meta({ id: "JobType" });

export const JobRequest = z.discriminatedUnion("type", each(KINDS, "request")).meta({ id: "JobRequest" });

export const CreateJobQuery = z.strictObject({
  validate_only: z.enum(["true", "false"]).default("false").meta({ curlOnly: true }),
});

export const WebhookReceiver = z
  .strictObject({ url: z.string().max(2000).meta({ description: "As in `webhook.url` of the jobs, to the letter." }) })
  .meta({ id: "WebhookReceiver" });

export const WebhookSecret = z
  .object({
    url: z.string(),
    secret: z.string().meta({ description: "`whsec_` and base64, as Standard Webhooks has it. It is not told again." }),
    previous_valid_until: Timestamp.nullable().meta({
      description: "Until then what is sent is signed with the secret before as well; null when there was none.",
    }),
  })
  .meta({ id: "WebhookSecret" });

export const ListJobsQuery = listQuery({
  status: JobStatus.optional(),
  type: JobType.optional(),
  model_id: z.string().max(100).optional(),
});

const JobSummary = Job.pick({
  ...{ id: true, object: true, type: true, name: true, metadata: true, status: true, model_id: true, priority: true },
  ...{ progress: true, queue_position: true, attempt: true, retry_of: true, error: true },
  ...{ created_at: true, started_at: true, finished_at: true },
})
  .extend({
    method: z.string().meta({ description: "Of quantization, or the mode of a distillation." }),
    result: z
      .object({ model_id: z.string(), accepted: z.boolean() })
      .meta({ id: "JobResultSummary", description: "The model that was made, and whether it is within `acceptance`." })
      .nullable(),
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
        metadata: Metadata,
        attempt: Count.meta({ description: "How often a worker has started it." }),
        model_id: z.string(),
        result: z.object({ model_id: z.string(), accepted: z.boolean() }).meta({ id: "JobEndedResult" }).nullable(),
        metrics: JobMetricsSchema.pick({ size: true, accuracy: true, latency: true, acceptance: true })
          .meta({ id: "JobEndedMetrics", description: "Of a job that has succeeded: the start of `result.metrics`." })
          .nullable(),
        urls: z
          .object({
            job: z.string(),
            report: z.string().nullable().meta({ description: "Null when there is none." }),
            model: z.string().nullable().meta({ description: "Of the model's file; null when there is none." }),
          })
          .meta({
            id: "JobEndedUrls",
            description: "They begin with `PUBLIC_URL`; where that is not set they are paths. They need a key.",
          }),
        error: JobProblem.nullable(),
      })
      .meta({ id: "JobEndedData" }),
  })
  .meta({ id: "JobEnded", description: "What a webhook says; ask for the job to know more." });

export const JobPlan = planOf(KINDS).meta({ id: "JobPlan" });

const JobEventData = z
  .object({
    status: JobStatus.optional().meta({ description: "Of `status`: what the job has become." }),
    attempt: Count.optional().meta({ description: "Of `status` `running`: how often it has been started." }),
    error: JobProblem.optional().meta({ description: "Of `status` `failed`." }),
    step: z.string().optional().meta({
      description: "Of `progress`: what is being done. Of `metric`, in a pipeline: the step that it is of.",
    }),
    fraction: z.number().optional().meta({ description: "Of `progress`: how much of the whole job is done, 0 to 1." }),
    message: z.string().optional().meta({ description: "Of `progress` and `log`: a sentence." }),
    level: z.enum(["info", "warn"]).optional().meta({ description: "Of `log`." }),
    phase: z.string().optional().meta({ description: "Of `metric`, after an epoch of training: what is trained." }),
    network: z.string().optional().meta({ description: "Of `metric`, where several networks are trained: which." }),
    epochs: Count.optional().meta({ description: "Of `metric`: how many there will be." }),
    ...EpochRecord.partial().shape,
    fetch_inputs_ms: Count.optional().meta({ description: "Of `metric`: how long the job's files took to get." }),
    model_id: z.string().optional().meta({ description: "Of `metric`, after a step of a pipeline: its model." }),
    size: SizeMetrics.optional().meta({ description: "Of `metric`, after a step of a pipeline." }),
  })
  .meta({ id: "JobEventData", description: "Which fields there are follows from the event's type." });

const JobEvent = z
  .object({
    id: z.int().meta({ description: "Counts from 1 within the job; there may be gaps." }),
    at: Timestamp,
    type: z.enum(JOB_EVENT_TYPES),
    data: JobEventData,
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

export const StreamJobEventsQuery = ListJobEventsQuery.pick({ cursor: true });

export const StreamJobEventsHeaders = z.object({
  "last-event-id": z
    .string()
    .regex(/^\d{0,15}$/, "must be the id of an event")
    .optional()
    .meta({ description: "Events after this id; goes before `cursor`." }),
});
