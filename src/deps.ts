import { join } from "node:path";
import { setImmediate as othersTurn, setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type { Config } from "./config.ts";
import { INSPECT_ENTRY, type Neighbours } from "./neighbours.ts";
import { type ApiKeys, OPEN_TO_ALL, parseApiKeys } from "./service/api/api-keys.ts";
import type { ApiContext } from "./service/api/context.ts";
import { createJobQuota } from "./service/api/job-quota.ts";
import { countDamagedBlobs } from "./service/blobs/blob-checks.ts";
import { createBlobClaims } from "./service/blobs/claims.ts";
import { readTextFile } from "./service/blobs/fs.ts";
import { createLongTexts } from "./service/blobs/long-texts.ts";
import { openBlobStore } from "./service/blobs/open-blob-store.ts";
import { openObjects } from "./service/blobs/open-objects.ts";
import { createCatalog } from "./service/catalog.ts";
import { createIdempotency } from "./service/idempotency.ts";
import { type BullJobQueue, createJobQueue } from "./service/jobs/queue.ts";
import { createRedisJobStore } from "./service/jobs/redis-job-store.ts";
import { createWebhookSecrets } from "./service/jobs/webhook-secrets.ts";
import { createMlflowClient } from "./service/mlflow/client.ts";
import { checkClock, checkWrites, closeRedis } from "./service/redis.ts";
import { createSignedLinks } from "./service/signed-links.ts";
import { createUploadRegistry } from "./service/upload-registry.ts";
import { compileForChildren } from "./tasks/compile-cache.ts";
import { createSupervisor } from "./tasks/supervisor.ts";

export interface Deps {
  readonly context: ApiContext;
  readonly queues: readonly BullJobQueue["bull"][];
  /** Makes ready what the first requests for it would wait for. To be called when the API listens. */
  prepare(): Promise<void>;
  /** Ends open event streams and says "not ready"; requests are answered as before. */
  stop(): void;
  /** Ends everything, in phases that are logged with their times. Call it when no request runs any more. */
  close(): Promise<void>;
}

const PREPARE_AFTER_MS = 100;

/** What the API works with. Rejects, with the reason, when something of it cannot be used. */
export async function buildDeps(
  config: Config,
  { redis, sandbox, scratchDir }: Neighbours,
  log: Logger,
): Promise<Deps> {
  const keys = await loadApiKeys(config);
  const blobs = await openBlobStore(config);
  const claims = createBlobClaims(redis, blobs);
  const texts = createLongTexts(blobs, claims);
  const jobs = createRedisJobStore(redis, texts, { maxRecords: config.maxRecords });
  const queue = createJobQueue(redis, log);
  const tasks = createSupervisor({ entry: INSPECT_ENTRY, sandbox, log, tmpDir: scratchDir });
  const mlflow = config.mlflow && createMlflowClient(config.mlflow);
  const stopping = new AbortController();

  const phases: readonly [string, () => unknown][] = [
    ["inspections", () => tasks.close()],
    ["job events", () => jobs.close()],
    ["queue", () => queue.close()],
    ["MLflow", () => mlflow?.close()],
    ["redis", () => closeRedis(redis)],
  ];

  return {
    queues: [queue.bull],
    async prepare() {
      // Who has waited for the start is answered before: each of these keeps the process busy for a while.
      await sleep(PREPARE_AFTER_MS);
      const steps = [
        () => tasks.prepare(),
        () => queue.bull().catch((error) => log.error({ err: error }, "the queue does not open")),
        () =>
          compileForChildren().catch((error) =>
            log.warn({ err: error }, "the code of child processes is not kept compiled"),
          ),
      ];
      for (const step of steps) {
        if (stopping.signal.aborted) return;
        step();
        await othersTurn();
      }
    },
    stop: () => stopping.abort(),
    async close() {
      for (const [phase, end] of phases) {
        const started = performance.now();
        await end();
        log.info({ phase, ms: Math.round(performance.now() - started) }, "closed");
      }
    },
    context: {
      settings: {
        uploadsDir: join(config.dataDir, "uploads"),
        maxUploadBytes: config.maxUploadBytes,
        uploadIdleTimeoutMs: config.uploadIdleTimeoutMs,
        uploadExpiryMs: config.uploadExpiryMs,
        rateLimitPerMinute: config.rateLimitPerMinute,
        maxOpenUploadsPerKey: config.maxOpenUploadsPerKey,
        maxOpenUploadBytesPerKey: config.maxOpenUploadBytesPerKey,
        maxRequestsPerKey: config.maxRequestsPerKey,
        maxStreamsPerKey: config.maxStreamsPerKey,
        allowedHosts: config.allowedHosts,
        maxQueuedJobsPerKey: config.maxQueuedJobsPerKey,
        inspectConcurrency: config.inspectConcurrency,
        inspectTimeoutMs: config.inspectTimeoutMs,
        inspectMemoryBytes: config.inspectMemoryBytes,
        jobMemoryBytes: config.jobMemoryBytes,
        jobTimeoutMs: config.jobTimeoutMs,
        queueTimeoutMs: config.queueTimeoutMs,
        jobThreads: config.jobThreads,
        webhookAllowHosts: config.webhookAllowHosts,
        publicUrl: config.publicUrl,
        sourceAllowHosts: config.sourceAllowHosts,
        deliverAllowHosts: config.deliverAllowHosts,
        sourceAllowBuckets: config.sourceAllowBuckets,
        deliverAllowBuckets: config.deliverAllowBuckets,
        sourceAllowRegisteredModels: config.sourceAllowRegisteredModels,
        deliverAllowRegisteredModels: config.deliverAllowRegisteredModels,
        sourceAllowRepositories: config.sourceAllowRepositories,
        huggingFace: config.huggingFace,
      },
      keys,
      blobs,
      claims,
      objects: openObjects(config.s3),
      mlflow,
      catalog: createCatalog(redis, claims, texts, config.maxRecords),
      jobs,
      queue,
      quota: createJobQuota(redis, jobs),
      uploads: createUploadRegistry(redis, config),
      idempotency: createIdempotency(redis),
      webhookSecrets: config.webhookSecret === null ? null : createWebhookSecrets(redis, config.webhookSecret),
      links: createSignedLinks(redis, config.linkSecret),
      tasks,
      countDamagedBlobs: () => countDamagedBlobs(redis),
      async checkRedis() {
        await checkWrites(redis);
        await checkClock(redis);
      },
      stopping: stopping.signal,
    },
  };
}

async function loadApiKeys({ apiKeysFile }: Config): Promise<ApiKeys> {
  return apiKeysFile === null ? OPEN_TO_ALL : parseApiKeys(await readTextFile(apiKeysFile));
}
