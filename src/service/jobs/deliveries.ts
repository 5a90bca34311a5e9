import { Readable } from "node:stream";
import { type Job, Queue, UnrecoverableError, Worker } from "bullmq";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import type { BlobStore } from "../blobs/blob-store.ts";
import { ObjectError, type Objects, parseObjectAddress } from "../blobs/objects.ts";
import type { Catalog } from "../catalog.ts";
import { ServiceError } from "../errors.ts";
import { parseModelAddress } from "../mlflow/address.ts";
import { type MlflowClient, MlflowError } from "../mlflow/client.ts";
import { versionOf } from "../mlflow/job-version.ts";
import { publishVersion } from "../mlflow/registry.ts";
import { fromRedis, KEY_PREFIX } from "../redis.ts";
import { reasonOf as connectionReason, mayPass } from "../remote-file.ts";
import { type DeliveryLists, deliveryKindOf, deliveryRefusal } from "./delivery-address.ts";
import { createGuardedClient } from "./guarded-client.ts";
import type { Artifact, DeliveryKind } from "./job.ts";
import type { Delivery, JobRecord, JobStore } from "./job-store.ts";
import { isAllowedInside } from "./webhook-target.ts";

/**
 * Puts an artifact of a job that has succeeded where the job was told to: by one PUT to an address that is signed for it, as object stores make
 * them; as an object of a listed bucket; as a version of a listed model of MLflow's registry, the last two with the operator's credentials. The job store puts the job on the list P:deliveries in the step that ends
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
  readonly models: Pick<Catalog["models"], "get">;
  readonly objects: Objects;
  /** Null: there is no MLflow. Runs are made in `experiment`. */
  readonly mlflow: { readonly client: MlflowClient; readonly experiment: string } | null;
  readonly lists: DeliveryLists;
  readonly log: Logger;
}

/** Delivers in one way. Throws an UnrecoverableError for what another attempt would not change. */
type Deliver = (job: JobRecord, artifact: Artifact, url: string) => Promise<Pick<Delivery, "location">>;

/** Delivers until it is closed; every worker process may do so. */
export function startDeliveries(options: DeliveriesOptions, prefix: string = KEY_PREFIX): { close(): Promise<void> } {
  const { redis, jobs, blobs, models, objects, mlflow, lists, log } = options;
  const outbox = `${prefix}:deliveries`;
  const bullOptions = { connection: redis, prefix: `${prefix}:queue` };
  const web = createGuardedClient((url) => isAllowedInside(url, lists.deliverAllowHosts));
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
      where = await DELIVER[kind](job, found, url);
    } catch (error) {
      const reason = reasonOf(error);
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

  const read = async (ref: Pick<Artifact, "sha256" | "size_bytes">) =>
    Readable.from(await blobs.get(ref), { objectMode: false });

  const DELIVER: Readonly<Record<DeliveryKind, Deliver>> = { put, s3: write, mlflow: publish };

  async function put(_job: JobRecord, artifact: Artifact, address: string) {
    const url = new URL(address);
    const { statusCode, body } = await web.request(url, {
      method: "PUT",
      signal: AbortSignal.timeout(TIMEOUT_MS),
      // As signers of addresses expect it: a body of a known length, and no type that they have not signed.
      headers: { "content-length": String(artifact.size_bytes), "user-agent": "modelpress" },
      body: await read(artifact),
    });
    await body.dump({ limit: MAX_ANSWER_BYTES });
    // The address is signed, and so a secret.
    if (statusCode >= 200 && statusCode < 300) return { location: null };
    const message = `the receiver answered ${statusCode}`;
    throw mayPass(statusCode) ? new ReceiverError(message) : new UnrecoverableError(message);
  }

  async function write(_job: JobRecord, artifact: Artifact, address: string) {
    const bytes = await read(artifact);
    try {
      await objects.put(parseObjectAddress(address)!, bytes, artifact.size_bytes, AbortSignal.timeout(TIMEOUT_MS));
      return { location: address };
    } catch (error) {
      throw error instanceof ObjectError && !error.mayPass ? new UnrecoverableError(error.message) : error;
    } finally {
      bytes.destroy();
    }
  }

  async function publish(job: JobRecord, _artifact: Artifact, address: string) {
    const model = await models.get(job.result!.model_id);
    if (model === undefined) throw new UnrecoverableError("the model that the job has made was deleted");
    const version = versionOf(job, model);
    const files = version.files.map((file) =>
      "text" in file
        ? {
            path: file.path,
            sizeBytes: Buffer.byteLength(file.text),
            open: async () => Readable.from(Buffer.from(file.text)),
          }
        : { path: file.path, sizeBytes: file.size_bytes, open: () => read(file) },
    );
    const { client, experiment } = mlflow!;
    const of = { ...version, files, name: parseModelAddress(address)!, experiment };
    try {
      return { location: await publishVersion(client, of, AbortSignal.timeout(TIMEOUT_MS)) };
    } catch (error) {
      if (!(error instanceof MlflowError)) throw error;
      throw error.mayPass ? error : new UnrecoverableError(`MLflow: ${error.message}`);
    }
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
      await Promise.all([queue.close(), web.destroy()]);
    },
  };
}

class ReceiverError extends Error {
  override readonly name = "ReceiverError";
}

/** What the receiver did, but not where it is. */
function reasonOf(error: unknown): string {
  if (error instanceof MlflowError) return `MLflow: ${error.message}`;
  if ([ReceiverError, ObjectError, UnrecoverableError].some((kind) => error instanceof kind)) {
    return (error as Error).message;
  }
  if (error instanceof ServiceError) return `its bytes could not be read here (${error.code})`;
  return `the receiver could not be reached (${connectionReason(error)})`;
}
