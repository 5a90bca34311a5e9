import type { FastifyBaseLogger, FastifyRequest } from "fastify";
import type { z } from "zod";
import { newId } from "../catalog.ts";
import { type FieldError, ServiceError } from "../errors.ts";
import { canonicalJson, sha256Of } from "../identity.ts";
import type { JobRecord } from "../jobs/job-store.ts";
import type { WebhookSecrets } from "../jobs/webhook-secrets.ts";
import { checkWebhookUrl } from "../jobs/webhook-target.ts";
import { checkJob, needsPlan, unreadOf } from "../kinds/checks.ts";
import { exclusionsIn } from "../kinds/exclusions.ts";
import { type JobSpec, sourceModelId } from "../kinds/kinds.ts";
import { resourcesOf } from "../kinds/resources.ts";
import type { StoredResources } from "../kinds/stored-resources.ts";
import type { ApiContext } from "./context.ts";
import { deliveryErrors } from "./delivery-target.ts";
import type { Asker } from "./inspection-lane.ts";
import type { Inspector } from "./inspector.ts";
import type { JobRequest } from "./job-schemas.ts";
import type { JobMeter } from "./metrics.ts";

/** Throws `validation_failed` when there are wrong fields. */
function refuse(fields: readonly FieldError[]): void {
  if (fields.length === 0) return;
  throw new ServiceError("validation_failed", fields.map(({ message }) => message).join(" "), { fields });
}

/** What a request for a job asks for, checked as far as records tell. */
export interface PreparedJob {
  readonly spec: JobSpec;
  readonly stored: StoredResources;
  /** Plans it, in a child. */
  readonly plan: () => ReturnType<Inspector["plan"]>;
  /** What the job keeps besides its spec. */
  readonly told: Pick<JobRecord, "name" | "metadata" | "priority" | "webhook" | "deliver_to">;
}

/** Ties requests that are sent again under one `Idempotency-Key` to the job that was made for the first. */
interface Idempotency {
  readonly key: string;
  readonly fingerprint: string;
}

/** From a request for a job to its record in the queue. */
export interface JobIntake {
  /** Throws `validation_failed` with everything that does not go together. */
  prepare(asker: Asker, request: FastifyRequest, body: z.output<typeof JobRequest>): Promise<PreparedJob>;
  /**
   * Records do not hold the names of nodes and values: what a job excludes is looked up in the model before it is accepted, and one of which facts
   * do not tell whether it can be is planned. Throws `validation_failed`.
   */
  checkByFiles(asker: Asker, job: PreparedJob): Promise<void>;
  /** The models and datasets of a spec. Throws `validation_failed` with everything that does not go together. */
  resolve(spec: JobSpec): Promise<StoredResources>;
  /** Records and enqueues a job. Answers the one that is there where the same was submitted before. */
  submit(job: JobRecord, caller: string, idempotency?: Idempotency): Promise<JobRecord>;
}

export function createJobIntake(
  context: ApiContext,
  inspector: Inspector,
  meter: JobMeter,
  log: FastifyBaseLogger,
): JobIntake {
  const { catalog, jobs, queue, quota, settings } = context;

  async function resolve(spec: JobSpec): Promise<StoredResources> {
    const resources = resourcesOf(spec);
    const [models, datasets] = await Promise.all([
      recordsOf(resources.models, catalog.models.get),
      recordsOf(resources.datasets, catalog.datasets.get),
    ]);
    refuse(checkJob(spec, { models, datasets }));
    return { models, datasets };
  }

  return {
    resolve,

    async prepare(asker, request, { name, metadata, priority, webhook, deliver_to, ...spec }) {
      const caller = request.caller!.name;
      if (webhook !== null) await checkWebhook(context, webhook.url, caller);
      if (deliver_to !== null) refuse(deliveryErrors(deliver_to, spec.type, settings));
      refuse(unreadOf(spec, sentParams(request)));
      const stored = await resolve(spec);
      return {
        spec,
        stored,
        plan: () => inspector.plan(asker, spec, [...stored.models.values()], [...stored.datasets.values()]),
        told: {
          ...{ name, metadata, priority },
          webhook: webhook && { ...webhook, owner: caller },
          deliver_to: deliver_to && { url: deliver_to.url, artifact: deliver_to.artifact },
        },
      };
    },

    async checkByFiles(asker, { spec, stored, plan }) {
      const exclude = exclusionsIn(spec);
      if (exclude) refuse(await inspector.exclusions(asker, stored.models.get(sourceModelId(spec))!, exclude));
      if (needsPlan(spec, stored)) await plan();
    },

    async submit(job, caller, idempotency) {
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
      const later = (error: unknown) => log.warn({ err: error, job: job.id }, "job not enqueued yet");
      await Promise.all([queue.enqueue(job).catch(later), quota.confirm(caller, job.id).catch(later)]);
      return job;
    },
  };
}

/** The records of those ids that exist. */
async function recordsOf<R>(ids: readonly string[], get: (id: string) => Promise<R | undefined>) {
  const records = await Promise.all(ids.map(async (id) => [id, await get(id)] as const));
  return new Map(records.flatMap(([id, record]) => (record === undefined ? [] : [[id, record] as const])));
}

/** Throws `validation_failed` unless what is sent to `url` can be signed for the caller. */
async function checkWebhook(context: ApiContext, url: string, caller: string): Promise<void> {
  const secrets = webhookSecretsOf(context, "/webhook");
  checkWebhookUrl(url, context.settings.webhookAllowHosts, "/webhook/url");
  if ((await secrets.of(caller, url)).length > 0) return;
  const message =
    "There is no secret to sign it with: make one for this URL (POST /v1/webhook-secrets) and tell it to the receiver.";
  refuse([{ pointer: "/webhook/url", code: "no_webhook_secret", message }]);
}

/** Throws `validation_failed`, with the pointer, when there are no webhooks here. */
export function webhookSecretsOf({ webhookSecrets }: ApiContext, pointer: string): WebhookSecrets {
  if (webhookSecrets !== null) return webhookSecrets;
  const message = "This service sends no webhooks: it has no secret to sign them with.";
  throw new ServiceError("validation_failed", message, { fields: [{ pointer, code: "webhooks_off", message }] });
}

/** Keys of different callers are different keys. */
export function idempotencyOf(caller: string, headers: { "idempotency-key"?: string | undefined }, request: unknown) {
  const key = headers["idempotency-key"];
  return key === undefined ? undefined : { key: `${caller} ${key}`, fingerprint: sha256Of(canonicalJson(request)) };
}

/** The parameters of a job as they were sent, without defaults. */
export function sentParams({ body }: FastifyRequest): unknown {
  return (body as { readonly params: unknown }).params;
}

type Request = Pick<
  JobRecord,
  "spec" | "sent_params" | "name" | "metadata" | "priority" | "webhook" | "deliver_to" | "retry_of"
>;

/** The record of a job that waits to be run. */
export function newJob({ deliver_to = null, ...request }: Request): JobRecord {
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
