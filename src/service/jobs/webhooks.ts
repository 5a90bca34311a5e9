import { type Job, Queue, UnrecoverableError, Worker } from "bullmq";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import { Webhook } from "standardwebhooks";
import { request } from "undici";
import { sourceModelId } from "../kinds/kinds.ts";
import { fromRedis, KEY_PREFIX } from "../redis.ts";
import { isTerminal } from "./job.ts";
import type { JobRecord, JobStore } from "./job-store.ts";
import { createWebhookAgent } from "./webhook-agent.ts";

/**
 * Tells a URL how a job has ended, by the Standard Webhooks specification 1.0.0 (standardwebhooks.com): the same `webhook-id` on every
 * attempt, signature `v1` over id, timestamp and body, 2xx is success, 3xx is not followed, 410 ends the attempts.
 *
 * The job store puts a job with a webhook on the list P:webhooks in the same step that ends it, so none is forgotten. From there a queue
 * takes it, which tries until it succeeds or the attempts are used up.
 */

const QUEUE_NAME = "webhooks";
/** The specification's suggestion: waits before the second attempt and the following ones, about 75 hours in all. */
const RETRY_DELAYS_S = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
const MAX_RETRY_AFTER_S = 86_400;
const DELIVERY_TIMEOUT_MS = 20_000;
const MAX_ANSWER_BYTES = 16_384;
const CONCURRENCY = 8;
const POLL_MS = 1_000;
const BATCH = 100;

export interface WebhookOptions {
  /** A connection with role `worker`. */
  readonly redis: Redis;
  readonly jobs: JobStore;
  /** `whsec_` and 24 to 64 bytes in base64. */
  readonly secret: string;
  readonly allowHosts: readonly string[];
  readonly log: Logger;
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

/** Delivers webhooks until it is closed; every worker process may do so. */
export function startWebhooks(options: WebhookOptions, prefix: string = KEY_PREFIX): { close(): Promise<void> } {
  const { redis, jobs, log } = options;
  const outbox = `${prefix}:webhooks`;
  const bullOptions = { connection: redis, prefix: `${prefix}:queue` };
  const agent = createWebhookAgent(options.allowHosts);
  const signer = new Webhook(options.secret);

  const queue = new Queue(QUEUE_NAME, {
    ...bullOptions,
    defaultJobOptions: {
      attempts: RETRY_DELAYS_S.length + 1,
      backoff: { type: "custom" },
      removeOnComplete: true,
      removeOnFail: true,
    },
  });
  const worker = new Worker(QUEUE_NAME, deliver, {
    ...bullOptions,
    concurrency: CONCURRENCY,
    lockDuration: 2 * DELIVERY_TIMEOUT_MS,
    runRetryDelay: POLL_MS,
    settings: {
      backoffStrategy: (attempt, _type, error) => {
        const suggested = RETRY_DELAYS_S[attempt - 1] ?? RETRY_DELAYS_S.at(-1)!;
        return 1_000 * Math.max(suggested, error instanceof DeliveryError ? error.retryAfterS : 0);
      },
    },
  });
  const onError = (error: Error) => log.debug({ err: error }, "webhook queue");
  queue.on("error", onError);
  worker.on("error", onError);

  async function deliver(task: Job): Promise<void> {
    const job = await jobs.get(task.id!);
    // Deleted since: nobody wants to hear of it.
    if (job?.webhook == null || !isTerminal(job.status)) return;
    try {
      await post(job);
      log.info({ job: job.id, attempt: task.attemptsMade + 1 }, "webhook delivered");
    } catch (error) {
      const message = reasonOf(error);
      log.info({ job: job.id, attempt: task.attemptsMade + 1, reason: message }, "webhook not delivered");
      const last = error instanceof UnrecoverableError || task.attemptsMade >= RETRY_DELAYS_S.length;
      const next = last ? "That was the last attempt." : "It will be tried again.";
      await jobs.appendEvent(job.id, "log", {
        level: "warn",
        message: `The webhook was not delivered: ${message}. ${next}`,
      });
      throw error;
    }
  }

  async function post(job: JobRecord): Promise<void> {
    const id = `msg_${job.id}`;
    const sentAt = new Date();
    const body = JSON.stringify(payloadOf(job));
    const answer = await request(job.webhook!.url, {
      method: "POST",
      dispatcher: agent,
      signal: AbortSignal.timeout(DELIVERY_TIMEOUT_MS),
      headers: {
        "content-type": "application/json",
        "user-agent": "modelpress",
        "webhook-id": id,
        "webhook-timestamp": String(Math.floor(sentAt.getTime() / 1_000)),
        "webhook-signature": signer.sign(id, sentAt, body),
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

  /** From the list to the queue. A job that is in the queue already stays one: a crash in between repeats the step. */
  async function collect(): Promise<void> {
    const ids = await fromRedis(redis.lrange(outbox, 0, BATCH - 1));
    for (const id of ids) {
      await queue.add("deliver", {}, { jobId: id });
      await fromRedis(redis.lrem(outbox, 1, id));
    }
  }

  let closed = false;
  let timer: NodeJS.Timeout | undefined;
  const keepCollecting = async () => {
    await collect().catch((error) => log.warn({ err: error }, "webhooks were not collected"));
    if (!closed) timer = setTimeout(keepCollecting, POLL_MS);
  };
  keepCollecting();

  return {
    async close() {
      closed = true;
      clearTimeout(timer);
      await worker.close();
      await queue.close();
      await agent.close();
    },
  };
}

/** For the job's log: what the receiver did, but not where it is. */
function reasonOf(error: unknown): string {
  if (error instanceof DeliveryError || error instanceof UnrecoverableError) return error.message;
  const code = error instanceof Error && "code" in error ? String(error.code) : (error as Error).name;
  return `the receiver could not be reached (${code})`;
}

/** Thin: who wants more asks the API, which also is how it knows that the answer is true. */
function payloadOf(job: JobRecord): unknown {
  const { id, status, spec, name, finished_at, error, result } = job;
  return {
    type: `job.${status}`,
    timestamp: finished_at,
    data: {
      id,
      object: "job",
      type: spec.type,
      status,
      name,
      model_id: sourceModelId(spec),
      result: result === null ? null : { model_id: result.model_id, accepted: result.accepted },
      error,
    },
  };
}
