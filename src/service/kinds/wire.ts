import { z } from "zod";
import { DELIVERY_KINDS, END_EVENTS, JOB_STATUSES, WEBHOOK_EVENTS } from "../jobs/job.ts";
import { Problem } from "../problem-schema.ts";
import { Bytes, Count, Metadata, Name, Sha256, Timestamp } from "../schemas.ts";
import { Acceptance, Evaluation } from "./evaluation.ts";
import { JobMetricsSchema } from "./metrics-schemas.ts";

/** The wire forms that all kinds of jobs share. */

export const JobStatus = z.enum(JOB_STATUSES).meta({ id: "JobStatus" });

const WebhookTarget = z
  .strictObject({
    url: z.string().max(2000).meta({ description: "https, at a public address." }),
    events: z
      .array(z.enum(WEBHOOK_EVENTS).meta({ id: "WebhookEvent" }))
      .min(1)
      .default([...END_EVENTS])
      .meta({ description: "What to tell of: ends, and `job.running` for every attempt that begins." }),
  })
  .meta({
    id: "WebhookTarget",
    description: "Whom to tell what becomes of the job, by the Standard Webhooks specification.",
  });

export const DeliveryTarget = z
  .strictObject({
    kind: z.enum(DELIVERY_KINDS).meta({ id: "DeliveryKind" }),
    url: z
      .string()
      .max(4000)
      .meta({
        description:
          "`put`: https, at a host that the operator has allowed; an address that is signed for one PUT. `s3`: `s3://bucket/key`, in a bucket that " +
          "the operator has allowed, written with the operator's credentials; an object of this key is replaced. `mlflow`: `models:/name`, a registered " +
          "model of the operator's MLflow that the operator has allowed; the job makes a new version of it. It is not told again: `delivery.location` says where the artifact is.",
      }),
    artifact: z
      .string()
      .min(1)
      .max(255)
      .default("model.onnx")
      .meta({ description: "By the name that it will have in `result.artifacts`." }),
  })
  .meta({ id: "DeliveryTarget", description: "Where to put an artifact when the job has succeeded." });

const JobDelivery = z
  .object({
    status: z.enum(["waiting", "delivered", "failed"]).meta({
      description: "`waiting`: for the end of the job, or for another attempt.",
    }),
    at: Timestamp.meta({ description: "Since when." }),
    detail: z.string().nullable().meta({ description: "Why it was not delivered." }),
    location: z.string().nullable().meta({
      description:
        "Where it was delivered to: `s3://bucket/key`, `models:/name/4`. Null until then, and for `put`, whose address is a secret.",
    }),
  })
  .meta({ id: "JobDelivery", description: "What has become of `deliver_to`." });

/** What can be said of every job. */
export const OFFER = {
  evaluation: Evaluation.prefault({}),
  acceptance: Acceptance.prefault({}),
  name: Name.nullable().default(null),
  metadata: Metadata.default({}),
  priority: z.int().min(1).max(10).default(5).meta({ description: "1 runs first." }),
  webhook: WebhookTarget.nullable().default(null),
  deliver_to: DeliveryTarget.nullable().default(null),
};

const JobProgress = z
  .object({ step: z.string(), fraction: z.number().min(0).max(1), message: z.string() })
  .meta({ id: "JobProgress", description: "`fraction` is of the whole job." });

const Artifact = z
  .object({ name: z.string(), media_type: z.string(), size_bytes: Bytes, sha256: Sha256, url: z.string() })
  .meta({ id: "Artifact" });

const StepResult = z
  .object({
    name: z.string(),
    type: z.string(),
    model_id: z.string(),
    parameters: Count.meta({ description: "Of the model that it has made." }),
    metrics: JobMetricsSchema,
  })
  .meta({ id: "StepResult", description: "Of a step: its model against the one that it was fed." });

const JobResult = z
  .object({
    model_id: z.string(),
    accepted: z.boolean().meta({ description: "False when a limit of `acceptance` was missed." }),
    artifacts: z.array(Artifact),
    metrics: JobMetricsSchema,
    steps: z.array(StepResult).nullable().meta({ description: "Of a pipeline, in their order; null for other jobs." }),
  })
  .meta({ id: "JobResult" });

export const JobProblem = Problem.omit({ request_id: true, errors: true }).meta({
  id: "JobProblem",
  description: "Why a job failed; the form of every other problem.",
});

const OpenParams = z.record(z.string(), z.unknown());

/** One form for every kind of job, also for those that do not exist yet: what a kind has of its own is in `params` and `metrics`. */
export const Job = z
  .object({
    id: z.string(),
    object: z.literal("job"),
    type: z.string().meta({ description: "The kind of job; `getCapabilities` lists those there are." }),
    status: JobStatus,
    model_id: z.string().meta({
      description:
        "What the result is a form of: the model that is quantized, the uploaded student, the teacher that a student is made from, or " +
        "the first of the models that are evaluated.",
    }),
    params: OpenParams.meta({ description: "As they were sent." }),
    effective_params: OpenParams.meta({
      description: "With every default filled in: the form of the request's `params` of that type and method.",
    }),
    name: z.string().nullable(),
    evaluation: Evaluation,
    acceptance: Acceptance,
    metadata: Metadata,
    priority: z.int(),
    progress: JobProgress.nullable(),
    queue_position: z.int().nullable().meta({ description: "1 is next; null when the job is not waiting." }),
    attempt: Count.meta({ description: "How often a worker has started it." }),
    handed_back: Count.meta({
      description:
        "How many of these attempts ended for reasons of the machine (a full disk, a killed process, a worker that was stopped). " +
        "They do not count against the job.",
    }),
    created_at: Timestamp,
    started_at: Timestamp.nullable(),
    finished_at: Timestamp.nullable(),
    retry_of: z.string().nullable(),
    result: JobResult.nullable(),
    error: JobProblem.nullable(),
    delivery: JobDelivery.nullable().meta({ description: "Null without `deliver_to`." }),
  })
  .meta({ id: "Job" });

/**
 * The plan of a job of one of these kinds: `type`, and of the rest what the kind can tell. It is one open form, because a client must be
 * able to read the plan of a kind that it does not know. Throws when two kinds mean different things by one field.
 */
export function planOf(kinds: readonly { readonly type: string; readonly plan: z.ZodObject }[]): z.ZodObject {
  const fields: Record<string, z.core.$ZodType> = {};
  for (const { type, plan } of kinds) {
    for (const [name, schema] of Object.entries(plan.partial().shape)) {
      if (name in fields) throw new Error(`The plan of ${type} has the field ${name}, as that of another kind.`);
      fields[name] = schema;
    }
  }
  const told = kinds.map(
    ({ type, plan }) =>
      `of \`${type}\`: ${Object.keys(plan.shape)
        .map((name) => `\`${name}\``)
        .join(", ")}`,
  );
  return z.object({ type: z.enum(kinds.map(({ type }) => type)), ...fields }).meta({
    description: `What the job would do, ${told.join("; ")}.`,
  });
}

export const StepName = z
  .string()
  .regex(/^[a-z0-9][a-z0-9_-]{0,39}$/i, "must be letters, digits, - and _, at most 40")
  .optional()
  .meta({
    description: "What reports and artifacts of the step are called. When it is not given: `step-1`, `step-2`, …",
  });
