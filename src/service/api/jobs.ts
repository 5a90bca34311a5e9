import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { ServiceError } from "../errors.ts";
import { isTerminal } from "../jobs/job.ts";
import type { Delivery, JobRecord, JobSummary } from "../jobs/job-store.ts";
import { checkWebhookUrl } from "../jobs/webhook-target.ts";
import { sourceModelId } from "../kinds/kinds.ts";
import { askerOf, shareOf } from "./connection.ts";
import type { ApiContext } from "./context.ts";
import { filterOf, renamed } from "./describe.ts";
import type { Inspector } from "./inspector.ts";
import { artifactPath } from "./job-artifacts.ts";
import { prefersStream, sendEvents } from "./job-events.ts";
import { createJobIntake, idempotencyOf, type JobIntake, newJob, sentParams, webhookSecretsOf } from "./job-intake.ts";
import {
  cancelJob,
  createJob,
  createWebhookSecret,
  deleteJob,
  getJob,
  listJobEvents,
  listJobs,
  planJob,
  redeliverJobWebhook,
  renameJob,
  retryJob,
  streamJobEvents,
} from "./job-operations.ts";
import type { JobMeter } from "./metrics.ts";
import { createOpenRequests } from "./open-requests.ts";
import { route } from "./operation.ts";
import { afterWait } from "./prefer-wait.ts";

/** How soon it makes sense to ask for a job again. */
const POLL_SECONDS = 1;

/** Finds jobs, and says what the API tells of them. */
function createJobAnswers({ jobs, queue }: ApiContext) {
  async function positionOf({ id, status }: Pick<JobRecord, "id" | "status">): Promise<number | null> {
    return status === "queued" ? queue.position(id) : null;
  }
  return {
    /** Throws `not_found`. */
    async jobById(id: string): Promise<JobRecord> {
      const job = await jobs.get(id);
      if (job === undefined) throw notFound(id);
      return job;
    },
    wireJob: async (job: JobRecord) => jobOf(job, await positionOf(job)),
    wireSummary: async (job: JobSummary) => ({ ...job, object: "job", queue_position: await positionOf(job) }),
  };
}

type JobAnswers = ReturnType<typeof createJobAnswers>;

const notFound = (id: string) => new ServiceError("not_found", `There is no job ${id}.`);

export function registerJobs(app: FastifyInstance, context: ApiContext, inspector: Inspector, meter: JobMeter): void {
  const answers = createJobAnswers(context);
  const intake = createJobIntake(context, inspector, meter, app.log);
  registerSubmission(app, context, answers, intake);
  registerReading(app, context, answers);
  registerEnding(app, context, answers);
  registerWebhooks(app, context, answers);
  registerEvents(app, context, answers);
}

/** What makes jobs. */
function registerSubmission(app: FastifyInstance, context: ApiContext, answers: JobAnswers, intake: JobIntake): void {
  const { claims } = context;
  const { jobById, wireJob } = answers;

  route(app, planJob, async ({ body }, request, reply) =>
    (await intake.prepare(askerOf(request, reply), request, body)).plan(),
  );

  route(app, createJob, async ({ query, headers, body }, request, reply) => {
    const asker = askerOf(request, reply);
    const prepared = await intake.prepare(asker, request, body);
    if (query.validate_only === "true") return prepared.plan();
    await intake.checkByFiles(asker, prepared);
    const caller = request.caller!.name;
    const { spec, told } = prepared;
    const asked = newJob({ spec, sent_params: sentParams(request), ...told, retry_of: null });
    const job = await intake.submit(asked, caller, idempotencyOf(caller, headers, body));
    return accepted(reply, await wireJob(await afterWait(context, job, headers.prefer, request, reply)));
  });

  route(app, retryJob, async ({ params, headers }, request, reply) => {
    const job = await jobById(params.job_id);
    if (!isTerminal(job.status))
      throw new ServiceError("conflict", `The job is ${job.status}; only a finished one can be run again.`);
    await intake.resolve(job.spec);
    // A pipeline that failed goes on behind its finished steps. What those have stored now belongs to the new job as well.
    const steps = job.status === "failed" ? job.steps.map((step) => ({ ...step, created: false })) : [];
    const again = { ...newJob({ ...job, retry_of: job.id }), steps };
    const caller = request.caller!.name;
    try {
      for (const { model_artifacts, report_artifacts } of steps) {
        for (const artifact of [...model_artifacts, ...report_artifacts]) await claims.claim(again.id, artifact);
      }
      const recorded = await intake.submit(again, caller, idempotencyOf(caller, headers, ["retry", job.id]));
      if (recorded.id !== again.id) {
        await claims.release(again.id);
        return accepted(reply, await wireJob(recorded));
      }
    } catch (error) {
      await claims.release(again.id);
      throw error;
    }
    // From here on the job is recorded, and needs what was claimed.
    if (steps.length > 0) await claims.settle(again.id);
    return accepted(reply, await wireJob(again));
  });
}

/** What tells of jobs, and what they are called. */
function registerReading(app: FastifyInstance, context: ApiContext, answers: JobAnswers): void {
  const { jobs } = context;
  const { jobById, wireJob, wireSummary } = answers;

  route(app, listJobs, async ({ query }) => {
    const { limit, cursor, status, type, model_id } = query;
    const filter = {
      ...filterOf(query),
      ...(status && { status }),
      ...(type && { type }),
      ...(model_id !== undefined && { model_id }),
    };
    const page = await jobs.list(filter, { limit, ...(cursor !== undefined && { cursor }) });
    return { ...page, data: await Promise.all(page.data.map(wireSummary)) };
  });

  route(app, getJob, async ({ params, headers }, request, reply) => {
    const job = await jobById(params.job_id);
    return wireJob(await afterWait(context, job, headers.prefer, request, reply));
  });

  route(app, renameJob, async ({ params, body }) => {
    const job = await jobById(params.job_id);
    const changed = await jobs.rename(job.id, renamed(job, body));
    if (changed === undefined) throw notFound(job.id);
    return wireJob(changed);
  });
}

/** What ends jobs, and takes them away. */
function registerEnding(app: FastifyInstance, context: ApiContext, { jobById, wireJob }: JobAnswers): void {
  const { jobs, queue, claims } = context;

  route(app, cancelJob, async ({ params }, _request, reply) => {
    const { job_id } = params;
    const job = await jobById(job_id);
    reply.code(202);
    if (job.status === "cancelled" || job.status === "cancelling") return wireJob(job);
    const finished_at = new Date().toISOString();
    const cancelled = await jobs.transition(job_id, ["queued"], "cancelled", { finished_at });
    if (cancelled !== undefined) {
      // A worker that takes it all the same finds it cancelled.
      await queue.remove(job_id);
      return wireJob(cancelled);
    }
    const cancelling = await jobs.transition(job_id, ["running"], "cancelling");
    if (cancelling === undefined)
      throw new ServiceError("conflict", `The job has ${(await jobById(job_id)).status} already.`);
    await queue.signalCancel(job_id);
    return wireJob(cancelling);
  });

  route(app, deleteJob, async ({ params }, _request, reply) => {
    const job = await jobById(params.job_id);
    if (!(await jobs.delete(job.id))) throw new ServiceError("conflict", `The job is ${job.status}; cancel it first.`);
    await claims.release(job.id);
    return reply.code(204).send();
  });
}

/** What signs messages about jobs, and what sends one again. */
function registerWebhooks(app: FastifyInstance, context: ApiContext, { jobById, wireJob }: JobAnswers): void {
  route(app, createWebhookSecret, async ({ body: { url } }, request, reply) => {
    const secrets = webhookSecretsOf(context, "/url");
    checkWebhookUrl(url, context.settings.webhookAllowHosts, "/url");
    const { secret, previousUntil } = await secrets.rotate(request.caller!.name, url);
    return reply.code(201).send({ url, secret, previous_valid_until: previousUntil });
  });

  route(app, redeliverJobWebhook, async ({ params }, _request, reply) => {
    const job = await jobById(params.job_id);
    if (!(await context.jobs.tellAgain(job.id))) {
      const events = job.webhook?.events.join(", ");
      const why = events === undefined ? "has no webhook" : `is ${job.status}, and its webhook is told of ${events}`;
      throw new ServiceError("conflict", `There is no end to tell of: the job ${why}.`);
    }
    return reply.code(202).send(await wireJob(job));
  });
}

/** What has happened to a job, as a list and as a stream. */
function registerEvents(app: FastifyInstance, context: ApiContext, { jobById }: JobAnswers): void {
  const { jobs, settings } = context;
  const streams = createOpenRequests(settings.maxStreamsPerKey, "streams of events");

  function streamEvents(
    id: string,
    { cursor }: { readonly cursor?: string | undefined },
    headers: { readonly "last-event-id"?: string | undefined },
    request: FastifyRequest,
    reply: FastifyReply,
  ) {
    streams.enter(shareOf(request), reply);
    const after = Number(headers["last-event-id"] || (cursor ?? 0));
    return sendEvents(reply, context.stopping, (signal) => jobs.follow(id, after, signal));
  }

  route(app, streamJobEvents, async ({ params, query, headers }, request, reply) => {
    const { id } = await jobById(params.job_id);
    if (request.method === "HEAD") return reply.type("text/event-stream").send();
    return streamEvents(id, query, headers, request, reply);
  });

  route(app, listJobEvents, async ({ params, query, headers }, request, reply) => {
    const { id } = await jobById(params.job_id);
    reply.header("vary", "accept");
    if (prefersStream(request) && request.method === "GET") return streamEvents(id, query, headers, request, reply);
    const { data, more } = await jobs.events(id, Number(query.cursor ?? 0), query.limit);
    return { data, next_cursor: more ? String(data.at(-1)!.id) : null };
  });
}

function accepted<T extends { id: string }>(reply: FastifyReply, job: T): T {
  reply.code(202).header("location", `/v1/jobs/${job.id}`).header("retry-after", POLL_SECONDS);
  return job;
}

function jobOf(job: JobRecord, queue_position: number | null) {
  const { spec, sent_params, result, delivery = null, ...inner } = job;
  const { webhook: _webhook, deliver_to: _deliver, checkpoints: _checkpoints, steps: _steps, ...rest } = inner;
  const { type, params, evaluation, acceptance } = spec;
  return {
    ...rest,
    object: "job",
    type,
    model_id: sourceModelId(spec),
    params: sent_params,
    effective_params: params,
    evaluation,
    acceptance,
    queue_position,
    delivery: delivery && deliveryOf(job, delivery),
    result: result && {
      ...result,
      artifacts: result.artifacts.map((artifact) => ({ ...artifact, url: artifactPath(job.id, artifact.name) })),
    },
  };
}

/** What has become of a delivery: a job that did not succeed has nothing to deliver. */
function deliveryOf({ status, finished_at }: JobRecord, delivery: Delivery): Delivery {
  if (!isTerminal(status) || status === "succeeded") return { location: null, ...delivery };
  return { status: "failed", at: finished_at!, detail: "The job has not succeeded.", location: null };
}
