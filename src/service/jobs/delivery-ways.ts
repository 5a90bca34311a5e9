import { Readable } from "node:stream";
import { UnrecoverableError } from "bullmq";
import type { BlobStore } from "../blobs/blob-store.ts";
import { ObjectError, type Objects, parseObjectAddress } from "../blobs/objects.ts";
import type { Catalog } from "../catalog.ts";
import { ServiceError } from "../errors.ts";
import { parseModelAddress } from "../mlflow/address.ts";
import { type MlflowClient, MlflowError } from "../mlflow/client.ts";
import { versionOf } from "../mlflow/job-version.ts";
import { publishVersion } from "../mlflow/registry.ts";
import { reasonOf as connectionReason, mayPass } from "../remote-file.ts";
import { createGuardedClient } from "./guarded-client.ts";
import type { Artifact, DeliveryKind } from "./job.ts";
import type { Delivery, JobRecord } from "./job-store.ts";
import { isAllowedInside } from "./webhook-target.ts";

/** For the whole file. */
const TIMEOUT_MS = 30 * 60_000;
const MAX_ANSWER_BYTES = 16_384;

export interface DeliveryWaysOptions {
  readonly blobs: BlobStore;
  readonly models: Pick<Catalog["models"], "get">;
  readonly objects: Objects;
  /** Null: there is no MLflow. Runs are made in `experiment`. */
  readonly mlflow: { readonly client: MlflowClient; readonly experiment: string } | null;
  /** Hosts of private networks that files may be sent to. */
  readonly allowHosts: readonly string[];
}

/** Delivers in one way. Throws an UnrecoverableError for what another attempt would not change. */
type Deliver = (job: JobRecord, artifact: Artifact, url: string) => Promise<Pick<Delivery, "location">>;

/** The ways to deliver an artifact of a job that has succeeded. */
export interface DeliveryWays {
  readonly deliver: Readonly<Record<DeliveryKind, Deliver>>;
  close(): Promise<void>;
}

/**
 * By one PUT to an address that is signed for it, as object stores make them (`put`); as an object of a listed bucket (`s3`); as a version of a
 * listed model of MLflow's registry (`mlflow`). The last two use the operator's credentials.
 */
export function createDeliveryWays({ blobs, models, objects, mlflow, allowHosts }: DeliveryWaysOptions): DeliveryWays {
  const web = createGuardedClient((url) => isAllowedInside(url, allowHosts));

  const read = async (ref: Pick<Artifact, "sha256" | "size_bytes">) =>
    Readable.from(await blobs.get(ref), { objectMode: false });

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

  async function s3(_job: JobRecord, artifact: Artifact, address: string) {
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

  return { deliver: { put, s3, mlflow: publish }, close: () => web.destroy() };
}

class ReceiverError extends Error {
  override readonly name = "ReceiverError";
}

/** Why a delivery has failed: what the receiver did, but not where it is. */
export function deliveryReason(error: unknown): string {
  if (error instanceof MlflowError) return `MLflow: ${error.message}`;
  if ([ReceiverError, ObjectError, UnrecoverableError].some((kind) => error instanceof kind)) {
    return (error as Error).message;
  }
  if (error instanceof ServiceError) return `its bytes could not be read here (${error.code})`;
  return `the receiver could not be reached (${connectionReason(error)})`;
}
