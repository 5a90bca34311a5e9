import { Readable } from "node:stream";
import { type Job, Queue, UnrecoverableError, Worker } from "bullmq";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import { request } from "undici";
import type { BlobStore } from "../blobs/blob-store.ts";
import { isObjectAddress, ObjectError, type Objects, parseObjectAddress, unlistedObject } from "../blobs/objects.ts";
import { ServiceError } from "../errors.ts";
import { fromRedis, KEY_PREFIX } from "../redis.ts";
import type { Artifact } from "./job.ts";
import type { Delivery, JobStore } from "./job-store.ts";
import { createWebhookAgent } from "./webhook-agent.ts";
import { isAllowedInside, unlisted } from "./webhook-target.ts";

/**
 * Puts an artifact of a job that has succeeded where the job was told to: by one PUT to an address that is signed for it, as object stores make
 * them, or as an object of a listed bucket, with the operator's credentials. The job store puts the job on the list P:deliveries in the step that ends
 * it; a queue takes it from there, and tries again where that may help. The job has succeeded whatever becomes of it: `delivery` of the job says.
 */

const QUEUE_NAME = "deliveries";
/** Waits before the second attempt and the following ones: signed addresses seldom hold longer. */
const RETRY_DELAYS_S = [5, 30, 120, 600, 1_800];
/** For the whole file. */
const TIMEOUT_MS = 30 * 60_000;
const MAX_ANSWER_BYTES = 16_384;
const CONCURRENCY = 4;
const POLL_MS = 1_000;
const BATCH = 100;
const FORBIDDEN_SINCE = "it is not allowed to go there any more";

export interface DeliveriesOptions {
  /** A connection with role `worker`. */
  readonly redis: Redis;
  readonly jobs: JobStore;
  readonly blobs: BlobStore;
  readonly objects: Objects;
  readonly allowHosts: readonly string[];
  readonly allowBuckets: readonly string[];
  readonly log: Logger;
}

/** Delivers until it is closed; every worker process may do so. */
export function startDeliveries(options: DeliveriesOptions, prefix: string = KEY_PREFIX): { close(): Promise<void> } {
  const { redis, jobs, blobs, objects, allowHosts, allowBuckets, log } = options;
  const outbox = `${prefix}:deliveries`;
  const bullOptions = { connection: redis, prefix: `${prefix}:queue` };
  const outside = createWebhookAgent({ inside: false });
  const inside = createWebhookAgent({ inside: true });
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
    lockDuration: 60_000,
    runRetryDelay: POLL_MS,
    concurrency: CONCURRENCY,
    settings: { backoffStrategy: (attempt) => 1_000 * (RETRY_DELAYS_S[attempt - 1] ?? RETRY_DELAYS_S.at(-1)!) },
  });
  const onError = (error: Error) => log.debug({ err: error }, "queue of deliveries");
  queue.on("error", onError);
  worker.on("error", onError);

  async function deliver(task: Job): Promise<void> {
    const job = await jobs.get(task.id!);
    // Deleted since: there is nothing to deliver any more.
    if (job?.deliver_to == null || job.result === null) return;
    const { artifact, url } = job.deliver_to;
    const told = (delivery: Omit<Delivery, "at">, message: string, level: "info" | "warn") =>
      jobs.setDelivery(job.id, { ...delivery, at: new Date().toISOString() }, { level, message });
    try {
      const found = job.result.artifacts.find(({ name }) => name === artifact);
      if (found === undefined) throw new UnrecoverableError(`the job has no artifact ${artifact}`);
      await (isObjectAddress(url) ? write(url, found) : put(new URL(url), found));
    } catch (error) {
      const reason = reasonOf(error);
      const last = error instanceof UnrecoverableError || task.attemptsMade >= RETRY_DELAYS_S.length;
      const detail = `${artifact} was not delivered: ${reason}.`;
      const next = last ? "That was the last attempt." : "It will be tried again.";
      log.info({ job: job.id, reason, last }, "artifact not delivered");
      await told({ status: last ? "failed" : "waiting", detail }, `${detail} ${next}`, "warn");
      throw error;
    }
    log.info({ job: job.id }, "artifact delivered");
    await told({ status: "delivered", detail: null }, `${artifact} was delivered.`, "info");
  }

  /** As `put`, of an object. */
  async function write(text: string, artifact: Artifact): Promise<void> {
    const refusal = unlistedObject(text, allowBuckets, "DELIVER_ALLOW_BUCKETS");
    if (refusal !== undefined) throw new UnrecoverableError(FORBIDDEN_SINCE);
    const bytes = Readable.from(await blobs.get(artifact), { objectMode: false });
    try {
      await objects.put(parseObjectAddress(text)!, bytes, artifact.size_bytes, AbortSignal.timeout(TIMEOUT_MS));
    } catch (error) {
      throw error instanceof ObjectError && !error.mayPass ? new UnrecoverableError(error.message) : error;
    } finally {
      bytes.destroy();
    }
  }

  /** Throws an UnrecoverableError for what another attempt would not change. */
  async function put(url: URL, artifact: Artifact): Promise<void> {
    if (unlisted(url, allowHosts) !== undefined) throw new UnrecoverableError(FORBIDDEN_SINCE);
    const { statusCode, body } = await request(url, {
      method: "PUT",
      dispatcher: isAllowedInside(url, allowHosts) ? inside : outside,
      signal: AbortSignal.timeout(TIMEOUT_MS),
      // As signers of addresses expect it: a body of a known length, and no type that they have not signed.
      headers: { "content-length": String(artifact.size_bytes), "user-agent": "modelpress" },
      body: Readable.from(await blobs.get(artifact), { objectMode: false }),
    });
    await body.dump({ limit: MAX_ANSWER_BYTES });
    if (statusCode >= 200 && statusCode < 300) return;
    const message = `the receiver answered ${statusCode}`;
    const mayChange = statusCode >= 500 || statusCode === 408 || statusCode === 429;
    throw mayChange ? new ReceiverError(message) : new UnrecoverableError(message);
  }

  async function collect(): Promise<void> {
    for (const id of await fromRedis(redis.lrange(outbox, 0, BATCH - 1))) {
      await queue.add("deliver", {}, { jobId: id });
      await fromRedis(redis.lrem(outbox, 1, id));
    }
  }

  let closed = false;
  let timer: NodeJS.Timeout | undefined;
  const keepCollecting = async () => {
    await collect().catch((error) => log.warn({ err: error }, "deliveries were not collected"));
    if (!closed) timer = setTimeout(keepCollecting, POLL_MS);
  };
  keepCollecting();

  return {
    async close() {
      closed = true;
      clearTimeout(timer);
      // What is under way is tried again by another worker.
      await worker.close(true);
      await Promise.all([queue.close(), inside.destroy(), outside.destroy()]);
    },
  };
}

class ReceiverError extends Error {
  override readonly name = "ReceiverError";
}

/** What the receiver did, but not where it is. */
function reasonOf(error: unknown): string {
  if ([ReceiverError, ObjectError, UnrecoverableError].some((kind) => error instanceof kind)) {
    return (error as Error).message;
  }
  if (error instanceof ServiceError) return `its bytes could not be read here (${error.code})`;
  const { name, code } = error as Error & { readonly code?: unknown };
  return `the receiver could not be reached (${typeof code === "string" ? code : name})`;
}
