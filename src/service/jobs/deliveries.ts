import { type Job, Queue, UnrecoverableError, Worker } from "bullmq";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import { KEY_PREFIX } from "../redis.ts";
import { type DeliveryLists, deliveryKindOf, deliveryRefusal } from "./delivery-address.ts";
import { createDeliveryWays, type DeliveryWaysOptions, deliveryReason } from "./delivery-ways.ts";
import type { Delivery, JobStore } from "./job-store.ts";
import { startOutbox } from "./outbox.ts";

/**
 * Puts an artifact of a job that has succeeded where the job was told to (`delivery-ways.ts`). The job store puts the job on the list
 * P:deliveries in the step that ends it; a queue takes it from there, and tries again where that may help. The job has succeeded whatever becomes
 * of it: `delivery` of the job says.
 */

const QUEUE_NAME = "deliveries";
/** Waits before the second attempt and the following ones: signed addresses seldom hold longer. */
const RETRY_DELAYS_S = [5, 30, 120, 600, 1_800];
const CONCURRENCY = 4;
const POLL_MS = 1_000;
const FORBIDDEN_SINCE = "it is not allowed to go there any more";

export interface DeliveriesOptions extends Omit<DeliveryWaysOptions, "allowHosts"> {
  /** A connection with role `worker`. */
  readonly redis: Redis;
  readonly jobs: JobStore;
  readonly lists: DeliveryLists;
  readonly log: Logger;
}

/** Delivers until it is closed; every worker process may do so. */
export function startDeliveries(options: DeliveriesOptions, prefix: string = KEY_PREFIX): { close(): Promise<void> } {
  const { redis, jobs, lists, log } = options;
  const bullOptions = { connection: redis, prefix: `${prefix}:queue` };
  const ways = createDeliveryWays({ ...options, allowHosts: lists.deliverAllowHosts });
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
    let where: Pick<Delivery, "location">;
    try {
      const found = job.result.artifacts.find(({ name }) => name === artifact);
      if (found === undefined) throw new UnrecoverableError(`the job has no artifact ${artifact}`);
      const kind = deliveryKindOf(url);
      if (deliveryRefusal(kind, url, lists) !== undefined) throw new UnrecoverableError(FORBIDDEN_SINCE);
      where = await ways.deliver[kind](job, found, url);
    } catch (error) {
      const reason = deliveryReason(error);
      const last = error instanceof UnrecoverableError || task.attemptsMade >= RETRY_DELAYS_S.length;
      const detail = `${artifact} was not delivered: ${reason}.`;
      const next = last ? "That was the last attempt." : "It will be tried again.";
      log.info({ job: job.id, reason, last }, "artifact not delivered");
      await told({ status: last ? "failed" : "waiting", detail, location: null }, `${detail} ${next}`, "warn");
      throw error;
    }
    log.info({ job: job.id }, "artifact delivered");
    const named = where.location === null ? "" : ` as ${where.location}`;
    await told({ status: "delivered", detail: null, ...where }, `${artifact} was delivered${named}.`, "info");
  }

  const list = `${prefix}:deliveries`;
  const outbox = startOutbox({ redis, list, queue, taskOf: (id) => ({ id, data: {} }), log });

  return {
    async close() {
      outbox.close();
      // What is under way is tried again by another worker.
      await worker.close(true);
      await Promise.all([queue.close(), ways.close()]);
    },
  };
}
