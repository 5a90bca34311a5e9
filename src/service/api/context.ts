import type { TaskRunner } from "../../tasks/protocol.ts";
import type { BlobStore } from "../blobs/blob-store.ts";
import type { BlobClaims } from "../blobs/claims.ts";
import type { Objects } from "../blobs/objects.ts";
import type { Catalog } from "../catalog.ts";
import type { Idempotency } from "../idempotency.ts";
import type { DeliveryLists } from "../jobs/delivery-address.ts";
import type { JobQueue, JobStore } from "../jobs/job-store.ts";
import type { WebhookSecrets } from "../jobs/webhook-secrets.ts";
import type { MlflowClient } from "../mlflow/client.ts";
import type { SignedLinks } from "../signed-links.ts";
import type { UploadRegistry } from "../upload-registry.ts";
import type { ApiKeys, Caller } from "./api-keys.ts";
import type { JobQuota } from "./job-quota.ts";
import type { HuggingFaceEndpoint } from "./sources/hugging-face-source.ts";

/** Everything the API works with. */
export interface ApiContext {
  readonly settings: ApiSettings;
  readonly keys: ApiKeys;
  readonly blobs: BlobStore;
  readonly claims: BlobClaims;
  /** Those that clients name; the blobs are not got by it. */
  readonly objects: Objects;
  /** Null: there is no MLflow. */
  readonly mlflow: MlflowClient | null;
  readonly catalog: Catalog;
  readonly jobs: JobStore;
  readonly queue: JobQueue;
  readonly quota: JobQuota;
  readonly uploads: UploadRegistry;
  readonly idempotency: Idempotency;
  /** Null: jobs cannot have webhooks. */
  readonly webhookSecrets: WebhookSecrets | null;
  readonly links: SignedLinks;
  readonly tasks: TaskRunner;
  /** Stored files that are known to have lost bytes. */
  readonly countDamagedBlobs: () => Promise<number>;
  /** Rejects, with the reason, while Redis does not answer or takes no writes, or its clock is not ours. */
  readonly checkRedis: () => Promise<void>;
  /** Fires when the service shuts down: open streams end then. */
  readonly stopping: AbortSignal;
}

export interface ApiSettings extends DeliveryLists {
  /** Directory of unfinished resumable uploads. */
  readonly uploadsDir: string;
  readonly maxUploadBytes: number;
  readonly uploadIdleTimeoutMs: number;
  readonly uploadExpiryMs: number;
  /** Resumable uploads of one key that are not used up, and their declared bytes. */
  readonly maxOpenUploadsPerKey: number;
  readonly maxOpenUploadBytesPerKey: number;
  readonly rateLimitPerMinute: number;
  readonly maxQueuedJobsPerKey: number;
  /** Requests, streams among them, and streams of events that one key (or address) may have open at the same time. */
  readonly maxRequestsPerKey: number;
  readonly maxStreamsPerKey: number;
  /** Names that the service without keys is called by, besides those of the loopback interface. */
  readonly allowedHosts: readonly string[];
  readonly inspectConcurrency: number;
  readonly inspectTimeoutMs: number;
  /** Of all inspections that run at the same time together. */
  readonly inspectMemoryBytes: number;
  readonly jobMemoryBytes: number;
  readonly jobTimeoutMs: number;
  readonly queueTimeoutMs: number;
  readonly jobThreads: number;
  /** Hosts (with ports) that webhooks may be sent to although they are not public. */
  readonly webhookAllowHosts: readonly string[];
  /** Hosts (with ports) that files may be fetched from, `*` for every public one; none: nothing is fetched. */
  readonly sourceAllowHosts: readonly string[];
  /** Buckets (`bucket/`), and folders of them (`bucket/folder/`), that files may be fetched from. */
  readonly sourceAllowBuckets: readonly string[];
  /** Models of MLflow's registry that versions may be fetched of, `name*` for all that begin so. */
  readonly sourceAllowRegisteredModels: readonly string[];
  /** Repositories of the hub that files may be fetched from, `org/*` for all of an organisation. */
  readonly sourceAllowRepositories: readonly string[];
  readonly huggingFace: HuggingFaceEndpoint;
  /** Where the service is for who gets links, without a slash at its end; null: where the client who makes one has found it. */
  readonly publicUrl: string | null;
}

declare module "fastify" {
  interface FastifyRequest {
    /** Set before any handler of a route that is not open. */
    caller: Caller | undefined;
  }
}
