import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { z } from "zod";
import { newId } from "../catalog.ts";
import { type FieldError, ServiceError } from "../errors.ts";
import { canonicalJson, sha256Of } from "../identity.ts";
import { isTerminal } from "../jobs/job.ts";
import type { Delivery, JobRecord, JobSummary } from "../jobs/job-store.ts";
import type { WebhookSecrets } from "../jobs/webhook-secrets.ts";
import { checkWebhookUrl } from "../jobs/webhook-target.ts";
import { checkJob, needsPlan, unreadOf } from "../kinds/checks.ts";
import { exclusionsIn } from "../kinds/exclusions.ts";
import { type JobSpec, sourceModelId } from "../kinds/kinds.ts";
import { resourcesOf } from "../kinds/resources.ts";
import type { StoredResources } from "../kinds/stored-resources.ts";
import { askerOf, shareOf } from "./connection.ts";
import type { ApiContext } from "./context.ts";
import { deliveryErrors } from "./delivery-target.ts";
import { filterOf, renamed } from "./describe.ts";
import type { Asker } from "./inspection-lane.ts";
import type { Inspector } from "./inspector.ts";
import { artifactPath } from "./job-artifacts.ts";
import { prefersStream, sendEvents } from "./job-events.ts";
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
import type { JobRequest } from "./job-schemas.ts";
import type { JobMeter } from "./metrics.ts";
import { createOpenRequests } from "./open-requests.ts";
import { route } from "./operation.ts";
import { afterWait } from "./prefer-wait.ts";

/** Throws `validation_failed` when there are wrong fields. */
function refuse(fields: readonly FieldError[]): void {
  if (fields.length === 0) return;
  throw new ServiceError("validation_failed", fields.map(({ message }) => message).join(" "), { fields });
}

/** How soon it makes sense to ask for a job again. */
const POLL_SECONDS = 1;

export function registerJobs(app: FastifyInstance, context: ApiContext, inspector: Inspector, meter: JobMeter): void {
  const { catalog, jobs, queue, quota, claims, settings } = context;

  async function jobById(id: string): Promise<JobRecord> {
    const job = await jobs.get(id);
    if (job === undefined) throw new ServiceError("not_found", `There is no job ${id}.`);
    return job;
  }

  async function positionOf({ id, status }: Pick<JobRecord, "id" | "status">): Promise<number | null> {
    return status === "queued" ? queue.position(id) : null;
  }

  async function wireJob(job: JobRecord) {
    return jobOf(job, await positionOf(job));
  }

  async function wireSummary(job: JobSummary) {
    return { ...job, object: "job", queue_position: await positionOf(job) };
  }

  /** The records of those ids that exist. */
  async function recordsOf<R>(ids: readonly string[], get: (id: string) => Promise<R | undefined>) {
    const records = await Promise.all(ids.map(async (id) => [id, await get(id)] as const));
    return new Map(records.flatMap(([id, record]) => (record === undefined ? [] : [[id, record] as const])));
  }

  /** The models and datasets of a spec. Throws `validation_failed` with everything that does not go together. */
  async function resolve(spec: JobSpec): Promise<StoredResources> {
    const resources = resourcesOf(spec);
    const [models, datasets] = await Promise.all([
      recordsOf(resources.models, catalog.models.get),
      recordsOf(resources.datasets, catalog.datasets.get),
    ]);
    const fields = checkJob(spec, { models, datasets });
    refuse(fields);
    return { models, datasets };
  }

  /**
   * Records do not hold the names of nodes and values: what a job excludes is looked up in the model before it is accepted, and one of which facts
   * do not tell whether it can be is planned.
   */
  async function checkByFiles(asker: Asker, spec: JobSpec, stored: StoredResources, plan: () => Promise<unknown>) {
    const exclude = exclusionsIn(spec);
    if (exclude) refuse(await inspector.exclusions(asker, stored.models.get(sourceModelId(spec))!, exclude));
    if (needsPlan(spec, stored)) await plan();
  }

  async function checkWebhook({ url }: { readonly url: string }, owner: string): Promise<void> {
    const secrets = webhookSecretsOf("/webhook");
    checkWebhookUrl(url, settings.webhookAllowHosts, "/webhook/url");
    if ((await secrets.of(owner, url)).length > 0) return;
    const message =
      "There is no secret to sign it with: make one for this URL (POST /v1/webhook-secrets) and tell it to the receiver.";
    refuse([{ pointer: "/webhook/url", code: "no_webhook_secret", message }]);
  }

  /** Throws `validation_failed`, with the pointer, when there are no webhooks here. */
  function webhookSecretsOf(pointer: string): WebhookSecrets {
    if (context.webhookSecrets !== null) return context.webhookSecrets;
    const message = "This service sends no webhooks: it has no secret to sign them with.";
    throw new ServiceError("validation_failed", message, {
      fields: [{ pointer, code: "webhooks_off", message }],
    });
  }

  /** Records and enqueues a job. */
  async function submit(job: JobRecord, caller: string, idempotency?: { key: string; fingerprint: string }) {
    await quota.reserve(caller, job.id, settings.maxQueuedJobsPerKey);
    try {
      const recorded = await jobs.create(job, idempotency);
      if (!recorded.created) {
        await quota.cancel(caller, job.id);
        return recorded.job;
      }
    } catch (error) {
      await quota.cancel(caller, job.id).catch(() => {}); // The place is free again in a minute.
      throw error;
    }
    meter.submitted(job);
    // It is recorded: if the queue does not take it now, the reconciler hands it over later.
    const later = (error: unknown) => app.log.warn({ err: error, job: job.id }, "job not enqueued yet");
    await Promise.all([queue.enqueue(job).catch(later), quota.confirm(caller, job.id).catch(later)]);
    return job;
  }

  /** What a request asks for, checked as far as records tell, and what plans it. */
  async function prepare(
    asker: Asker,
    request: FastifyRequest,
    { name, metadata, priority, webhook, deliver_to, ...spec }: z.output<typeof JobRequest>,
  ) {
    const caller = request.caller!.name;
    if (webhook !== null) await checkWebhook(webhook, caller);
    if (deliver_to !== null) refuse(deliveryErrors(deliver_to, spec.type, settings));
    refuse(unreadOf(spec, sentParams(request)));
    const stored = await resolve(spec);
    const plan = () => inspector.plan(asker, spec, [...stored.models.values()], [...stored.datasets.values()]);
    return {
      spec,
      stored,
      plan,
      told: {
        ...{ name, metadata, priority },
        webhook: webhook && { ...webhook, owner: caller },
        deliver_to: deliver_to && { url: deliver_to.url, artifact: deliver_to.artifact },
      },
    };
  }

  route(app, planJob, async ({ body }, request, reply) =>
    (await prepare(askerOf(request, reply), request, body)).plan(),
  );

  route(app, createJob, async ({ query, headers, body }, request, reply) => {
    const asker = askerOf(request, reply);
    const { spec, stored, plan, told } = await prepare(asker, request, body);
    if (query.validate_only === "true") return plan();
    await checkByFiles(asker, spec, stored, plan);
    const caller = request.caller!.name;
    const job = await submit(
      newJob({
        spec,
        sent_params: sentParams(request),
        ...told,
        retry_of: null,
      }),
      caller,
      idempotencyOf(caller, headers, body),
    );
    return accepted(reply, await wireJob(await afterWait(context, job, headers.prefer, request, reply)));
  });

  route(app, createWebhookSecret, async ({ body: { url } }, request, reply) => {
    const secrets = webhookSecretsOf("/url");
    checkWebhookUrl(url, settings.webhookAllowHosts, "/url");
    const { secret, previousUntil } = await secrets.rotate(request.caller!.name, url);
    return reply.code(201).send({ url, secret, previous_valid_until: previousUntil });
  });

  route(app, redeliverJobWebhook, async ({ params }, _request, reply) => {
    const job = await jobById(params.job_id);
    if (!(await jobs.tellAgain(job.id))) {
      const events = job.webhook?.events.join(", ");
      const why = events === undefined ? "has no webhook" : `is ${job.status}, and its webhook is told of ${events}`;
      throw new ServiceError("conflict", `There is no end to tell of: the job ${why}.`);
    }
    return reply.code(202).send(await wireJob(job));
  });

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
    if (changed === undefined) throw new ServiceError("not_found", `There is no job ${job.id}.`);
    return wireJob(changed);
  });

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

  route(app, retryJob, async ({ params, headers }, request, reply) => {
    const job = await jobById(params.job_id);
    if (!isTerminal(job.status))
      throw new ServiceError("conflict", `The job is ${job.status}; only a finished one can be run again.`);
    await resolve(job.spec);
    // A pipeline that failed goes on behind its finished steps. What those have stored now belongs to the new job as well.
    const steps = job.status === "failed" ? job.steps.map((step) => ({ ...step, created: false })) : [];
    const again = { ...newJob({ ...job, retry_of: job.id }), steps };
    const caller = request.caller!.name;
    try {
      for (const { model_artifacts, report_artifacts } of steps) {
        for (const artifact of [...model_artifacts, ...report_artifacts]) await claims.claim(again.id, artifact);
      }
      const recorded = await submit(again, caller, idempotencyOf(caller, headers, ["retry", job.id]));
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

  route(app, deleteJob, async ({ params }, _request, reply) => {
    const job = await jobById(params.job_id);
    if (!(await jobs.delete(job.id))) throw new ServiceError("conflict", `The job is ${job.status}; cancel it first.`);
    await claims.release(job.id);
    return reply.code(204).send();
  });

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

/** Keys of different callers are different keys. */
function idempotencyOf(caller: string, headers: { "idempotency-key"?: string | undefined }, request: unknown) {
  const key = headers["idempotency-key"];
  return key === undefined ? undefined : { key: `${caller} ${key}`, fingerprint: sha256Of(canonicalJson(request)) };
}

/** The parameters of a job as they were sent, without defaults. */
function sentParams({ body }: FastifyRequest): unknown {
  return (body as { readonly params: unknown }).params;
}

function accepted<T extends { id: string }>(reply: FastifyReply, job: T): T {
  reply.code(202).header("location", `/v1/jobs/${job.id}`).header("retry-after", POLL_SECONDS);
  return job;
}

type Request = Pick<
  JobRecord,
  "spec" | "sent_params" | "name" | "metadata" | "priority" | "webhook" | "deliver_to" | "retry_of"
>;

function newJob({ deliver_to = null, ...request }: Request): JobRecord {
  const { spec, sent_params, name, metadata, priority, webhook, retry_of } = request;
  const created_at = new Date().toISOString();
  return {
    id: newId("job"),
    status: "queued",
    spec,
    sent_params,
    name,
    metadata,
    priority,
    webhook,
    deliver_to,
    delivery: deliver_to && { status: "waiting", at: created_at, detail: null, location: null },
    created_at,
    started_at: null,
    finished_at: null,
    retry_of,
    attempt: 0,
    handed_back: 0,
    progress: null,
    checkpoints: {},
    steps: [],
    result: null,
    error: null,
  };
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
