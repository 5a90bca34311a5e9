import { DelayedError, type Job, Queue, UnrecoverableError, Worker } from "bullmq";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import { Webhook } from "standardwebhooks";
import { sourceModelId } from "../kinds/kinds.ts";
import { KEY_PREFIX } from "../redis.ts";
import { createGuardedClient } from "./guarded-client.ts";
import { isTerminal } from "./job.ts";
import type { JobRecord, JobStore } from "./job-store.ts";
import { startOutbox } from "./outbox.ts";
import { createWebhookGates } from "./webhook-gates.ts";
import { createWebhookSecrets } from "./webhook-secrets.ts";
import { isAllowedInside, refusalOf } from "./webhook-target.ts";

/**
 * Tells a URL what becomes of a job, by the Standard Webhooks specification 1.0.0 (standardwebhooks.com): the same `webhook-id` on every
 * attempt, signature `v1` over id, timestamp and body, 2xx is success, 3xx is not followed, 410 ends the attempts.
 *
 * The job store puts a job with a webhook on the list P:webhooks in the same step that starts or ends it, so none is forgotten. From there a
 * queue takes it, which tries until it succeeds or the attempts are used up.
 */

const QUEUE_NAME = "webhooks";
const RETRIES_NAME = "webhook-retries";
/** The specification's suggestion: waits before the second attempt and the following ones, about 75 hours in all. */
const RETRY_DELAYS_S = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
const MAX_RETRY_AFTER_S = 86_400;
const DELIVERY_TIMEOUT_MS = 20_000;
const MAX_ANSWER_BYTES = 16_384;
/** Deliveries wait for receivers and take nothing else of us; `webhook-gates.ts` shares them out. */
const CONCURRENCY = 32;
const RETRIES_CONCURRENCY = 16;
const POLL_MS = 1_000;

export interface WebhookOptions {
  /** A connection with role `worker`. */
  readonly redis: Redis;
  readonly jobs: JobStore;
  /** `whsec_` and 24 to 64 bytes in base64: what the secrets of receivers are derived from. */
  readonly secret: string;
  readonly allowHosts: readonly string[];
  /** What URLs begin with; null makes them paths. */
  readonly publicUrl: string | null;
  readonly log: Logger;
}

/** What a delivery tells: how a job has ended, or that an attempt at it has begun. */
interface Delivery {
  readonly jobId: string;
  /** Undefined for the end. */
  readonly attempt?: number;
}

/** What an entry of the outbox, `job` or `job running attempt`, becomes in the queues. */
function taskOf(entry: string): { readonly id: string; readonly data: Delivery } {
  const [jobId = "", , attempt] = entry.split(" ");
  if (attempt === undefined) return { id: jobId, data: { jobId } };
  return { id: `${jobId}-running-${attempt}`, data: { jobId, attempt: Number(attempt) } };
}

/** Thrown when an attempt has failed and another one may succeed. */
class DeliveryError extends Error {
  override readonly name = "DeliveryError";
  readonly retryAfterS: number;

  constructor(message: string, retryAfterS: number) {
    super(message);
    this.retryAfterS = retryAfterS;
  }
}

/** How long to wait after so many retries have failed (0: the first attempt). */
function delayMs(retriesMade: number, error: Error | undefined): number {
  const suggested = RETRY_DELAYS_S[retriesMade] ?? RETRY_DELAYS_S.at(-1)!;
  return 1_000 * Math.max(suggested, error instanceof DeliveryError ? error.retryAfterS : 0);
}

/** Delivers webhooks until it is closed; every worker process may do so. */
export function startWebhooks(options: WebhookOptions, prefix: string = KEY_PREFIX): { close(): Promise<void> } {
  const { redis, jobs, log } = options;
  const bullOptions = { connection: redis, prefix: `${prefix}:queue` };
  const client = createGuardedClient((url) => isAllowedInside(url, options.allowHosts));
  const gates = createWebhookGates();
  const secrets = createWebhookSecrets(redis, options.secret);

  const queue = new Queue(QUEUE_NAME, {
    ...bullOptions,
    defaultJobOptions: { removeOnComplete: true, removeOnFail: true },
  });
  const retries = new Queue(RETRIES_NAME, {
    ...bullOptions,
    defaultJobOptions: {
      attempts: RETRY_DELAYS_S.length,
      backoff: { type: "custom" },
      removeOnComplete: true,
      removeOnFail: true,
    },
  });
  const workerOptions = { ...bullOptions, lockDuration: 2 * DELIVERY_TIMEOUT_MS, runRetryDelay: POLL_MS };
  const firsts = new Worker(QUEUE_NAME, deliverFirst, { ...workerOptions, concurrency: CONCURRENCY });
  const again = new Worker(RETRIES_NAME, deliverAgain, {
    ...workerOptions,
    concurrency: RETRIES_CONCURRENCY,
    settings: { backoffStrategy: (attempt, _type, error) => delayMs(attempt, error) },
  });
  const onError = (error: Error) => log.debug({ err: error }, "webhook queue");
  for (const lane of [queue, retries]) lane.on("error", onError);
  for (const worker of [firsts, again]) worker.on("error", onError);

  /** The first attempt. What fails goes into the lane of retries, so that they never hold up those that come first. */
  async function deliverFirst(task: Job, token?: string): Promise<void> {
    try {
      await deliver(task, token, 1);
    } catch (error) {
      if (error instanceof DelayedError || error instanceof UnrecoverableError) throw error;
      await retries.add("deliver", task.data, { jobId: task.id!, delay: delayMs(0, error as Error) });
      return;
    }
    // Of one that was asked for again while an earlier one waited for its next attempt.
    await retries.remove(task.id!);
  }

  async function deliverAgain(task: Job, token?: string): Promise<void> {
    await deliver(task, token, task.attemptsMade + 2);
  }

  async function deliver(task: Job, token: string | undefined, attempt: number): Promise<void> {
    // Of versions that told of ends only there are no data.
    const { jobId = task.id!, attempt: begun } = task.data as Partial<Delivery>;
    const job = await jobs.get(jobId);
    // Deleted since, or begun and over since: nobody wants to hear of it.
    const holds = job && (begun === undefined ? isTerminal(job.status) : isIn(job, begun));
    if (!holds || job.webhook === null) return;
    const { host } = new URL(job.webhook.url);
    const waitMs = gates.enter(host);
    if (waitMs > 0) {
      await task.moveToDelayed(Date.now() + waitMs, token);
      throw new DelayedError(); // BullMQ's way to hear that it was put back, which is no attempt.
    }
    let ok = false;
    try {
      await post(job, begun === undefined ? `msg_${job.id}` : `msg_${job.id}_running_${begun}`);
      ok = true;
      log.info({ job: job.id, attempt }, "webhook delivered");
    } catch (error) {
      const message = reasonOf(error);
      log.info({ job: job.id, attempt, reason: message }, "webhook not delivered");
      const last = error instanceof UnrecoverableError || attempt > RETRY_DELAYS_S.length;
      const next = last ? "That was the last attempt." : "It will be tried again.";
      await jobs.appendEvent(job.id, "log", {
        level: "warn",
        message: `The webhook was not delivered: ${message}. ${next}`,
      });
      throw error;
    } finally {
      gates.leave(host, ok);
    }
  }

  async function post(job: JobRecord, id: string): Promise<void> {
    const webhook = job.webhook!;
    const url = new URL(webhook.url);
    const refusal = refusalOf(url, options.allowHosts);
    if (refusal !== undefined) throw new UnrecoverableError("it is not allowed to go there any more");
    // Jobs of versions without secrets of receivers are signed with the service's own.
    const signers = webhook.owner == null ? [options.secret] : await secrets.of(webhook.owner, webhook.url);
    if (signers.length === 0) throw new UnrecoverableError("there is no secret to sign it with");
    const sentAt = new Date();
    const body = JSON.stringify(payloadOf(job, options.publicUrl ?? ""));
    const answer = await client.request(url, {
      method: "POST",
      signal: AbortSignal.timeout(DELIVERY_TIMEOUT_MS),
      headers: {
        "content-type": "application/json",
        "user-agent": "modelpress",
        "webhook-id": id,
        "webhook-timestamp": String(Math.floor(sentAt.getTime() / 1_000)),
        "webhook-signature": signers.map((secret) => new Webhook(secret).sign(id, sentAt, body)).join(" "),
      },
      body,
    });
    await answer.body.dump({ limit: MAX_ANSWER_BYTES });
    const { statusCode, headers } = answer;
    if (statusCode >= 200 && statusCode < 300) return;
    if (statusCode === 410) throw new UnrecoverableError("the receiver answered 410 Gone");
    const retryAfter = Number(headers["retry-after"]);
    throw new DeliveryError(
      `the receiver answered ${statusCode}`,
      Number.isFinite(retryAfter) ? Math.min(Math.max(retryAfter, 0), MAX_RETRY_AFTER_S) : 0,
    );
  }

  const outbox = startOutbox({ redis, list: `${prefix}:webhooks`, queue, taskOf, log });

  return {
    async close() {
      outbox.close();
      await Promise.all([firsts.close(), again.close()]);
      await Promise.all([queue.close(), retries.close(), client.close()]);
    },
  };
}

/** For the job's log: what the receiver did, but not where it is. */
function reasonOf(error: unknown): string {
  if (error instanceof DeliveryError || error instanceof UnrecoverableError) return error.message;
  const code = error instanceof Error && "code" in error ? String(error.code) : (error as Error).name;
  return `the receiver could not be reached (${code})`;
}

/** Whether the job is in that attempt, and runs. */
function isIn({ status, attempt }: JobRecord, begun: number): boolean {
  return status === "running" && attempt === begun;
}

/** Short: what a dashboard shows. Who wants more asks the API, which also is how it knows that the answer is true. */
function payloadOf(job: JobRecord, origin: string): unknown {
  const { id, status, spec, name, metadata, attempt, started_at, finished_at, error, result } = job;
  const { size, accuracy, latency, acceptance } = result?.metrics ?? {};
  const url = `${origin}/v1/jobs/${id}`;
  return {
    type: `job.${status}`,
    timestamp: finished_at ?? started_at,
    data: {
      id,
      object: "job",
      type: spec.type,
      status,
      name,
      metadata,
      attempt,
      model_id: sourceModelId(spec),
      result: result === null ? null : { model_id: result.model_id, accepted: result.accepted },
      metrics: result === null ? null : { size, accuracy, latency, acceptance },
      urls: {
        job: url,
        report: result === null ? null : `${url}/report`,
        model: result === null ? null : `${origin}/v1/models/${result.model_id}/content`,
      },
      error,
    },
  };
}
