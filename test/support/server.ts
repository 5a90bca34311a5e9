import { createHash } from "node:crypto";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { pino } from "pino";
import { buildApp } from "../../src/app.ts";
import { type ApiKeys, OPEN_TO_ALL, parseApiKeys } from "../../src/service/api/api-keys.ts";
import type { ApiContext, ApiSettings } from "../../src/service/api/context.ts";
import { createJobQuota } from "../../src/service/api/job-quota.ts";
import { countDamagedBlobs } from "../../src/service/blobs/blob-checks.ts";
import { createBlobClaims } from "../../src/service/blobs/claims.ts";
import { createFileBlobStore } from "../../src/service/blobs/fs.ts";
import { createLongTexts } from "../../src/service/blobs/long-texts.ts";
import { openObjects } from "../../src/service/blobs/open-objects.ts";
import { createCatalog } from "../../src/service/catalog.ts";
import { createIdempotency } from "../../src/service/idempotency.ts";
import { createRedisJobStore } from "../../src/service/jobs/redis-job-store.ts";
import { createWebhookSecrets } from "../../src/service/jobs/webhook-secrets.ts";
import { createMlflowClient, type MlflowEndpoint } from "../../src/service/mlflow/client.ts";
import { checkWrites } from "../../src/service/redis.ts";
import { createSignedLinks } from "../../src/service/signed-links.ts";
import { createUploadRegistry } from "../../src/service/upload-registry.ts";
import { type Caller, createCaller } from "./calls.ts";
import { createMemoryQueue, createMemoryTasks } from "./memory-workers.ts";
import { startTestRedis } from "./redis.ts";
import { S3_CREDENTIALS, type S3Server } from "./s3-server.ts";

export interface TestServer extends Caller {
  readonly context: ApiContext;
  /** Stops redis-server, for good. */
  stopRedis(): Promise<void>;
  /** Stops and continues redis-server's process: it is there, but does not answer. */
  signalRedis(signal: "SIGSTOP" | "SIGCONT"): void;
  /** Sets a setting of redis-server, for example one that makes it refuse writes. */
  setRedis(setting: string, value: string): Promise<void>;
  /** What was logged, one JSON line each. */
  readonly logged: string[];
  /** Every file below the data directory, but for those of redis-server. */
  files(): Promise<readonly string[]>;
  stop(): void;
  close(): Promise<void>;
}

export interface TestServerOptions {
  readonly settings?: Partial<ApiSettings>;
  readonly context?: Partial<ApiContext>;
  readonly webhookSecret?: string;
  /** Where objects are fetched from; otherwise there is nothing. */
  readonly s3?: S3Server;
  /** The same of models of a registry. */
  readonly mlflow?: MlflowEndpoint;
  readonly trustProxy?: Parameters<typeof buildApp>[0]["trustProxy"];
}

/** The API on a free port of the loopback interface, with a redis-server and a data directory of its own. */
export async function startTestServer(options: TestServerOptions = {}): Promise<TestServer> {
  const dataDir = await mkdtemp(join(tmpdir(), "modelpress-test-"));
  const testRedis = await startTestRedis();
  const { redis } = testRedis;
  const logged: string[] = [];
  const log = pino(
    { level: "info" },
    new Writable({
      write(line, _encoding, done) {
        logged.push(String(line));
        done();
      },
    }),
  );
  const stopping = new AbortController();
  const blobs = await createFileBlobStore(join(dataDir, "blobs"));
  const claims = createBlobClaims(redis, blobs);
  const texts = createLongTexts(blobs, claims);
  const jobs = createRedisJobStore(redis, texts);
  const settings: ApiSettings = {
    uploadsDir: join(dataDir, "uploads"),
    maxUploadBytes: 64 * 1024 * 1024,
    uploadIdleTimeoutMs: 30_000,
    uploadExpiryMs: 60_000,
    maxOpenUploadsPerKey: 64,
    maxOpenUploadBytesPerKey: 2 ** 32,
    rateLimitPerMinute: 0,
    maxQueuedJobsPerKey: 100,
    maxRequestsPerKey: 256,
    maxStreamsPerKey: 100,
    allowedHosts: [],
    inspectConcurrency: 2,
    inspectTimeoutMs: 60_000,
    inspectMemoryBytes: 2 ** 32,
    jobMemoryBytes: 2 ** 31,
    jobTimeoutMs: 60_000,
    queueTimeoutMs: 60_000,
    jobThreads: 1,
    webhookAllowHosts: [],
    publicUrl: null,
    sourceAllowHosts: [],
    deliverAllowHosts: [],
    sourceAllowBuckets: [],
    deliverAllowBuckets: [],
    sourceAllowRegisteredModels: [],
    deliverAllowRegisteredModels: [],
    sourceAllowRepositories: [],
    huggingFace: { url: "http://127.0.0.1:9", token: null },
    ...options.settings,
  };
  const mlflow = options.mlflow === undefined ? null : createMlflowClient(options.mlflow);
  const context: ApiContext = {
    settings,
    keys: OPEN_TO_ALL,
    blobs,
    claims,
    objects: openObjects({
      endpoint: options.s3?.endpoint ?? "http://127.0.0.1:9",
      region: "us-east-1",
      credentials: S3_CREDENTIALS,
    }),
    mlflow,
    catalog: createCatalog(redis, claims, texts),
    jobs,
    queue: createMemoryQueue(),
    quota: createJobQuota(redis, jobs),
    uploads: createUploadRegistry(redis, settings),
    idempotency: createIdempotency(redis),
    webhookSecrets: options.webhookSecret === undefined ? null : createWebhookSecrets(redis, options.webhookSecret),
    links: createSignedLinks(redis, null),
    tasks: createMemoryTasks(),
    countDamagedBlobs: () => countDamagedBlobs(redis),
    checkRedis: () => checkWrites(redis),
    stopping: stopping.signal,
    ...options.context,
  };
  const app = await buildApp({ context, log, trustProxy: options.trustProxy ?? false, queues: [] });
  await app.listen({ host: "127.0.0.1", port: 0 });
  const url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`;
  const caller = await createCaller(url);
  return {
    ...caller,
    context,
    stopRedis: () => testRedis.server.close(),
    signalRedis: (signal) => void process.kill(testRedis.server.pid, signal),
    setRedis: async (setting, value) => void (await redis.config("SET", setting, value)),
    logged,
    async files() {
      const entries = await readdir(dataDir, { recursive: true, withFileTypes: true });
      return entries
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name).slice(dataDir.length + 1));
    },
    stop: () => stopping.abort(),
    async close() {
      stopping.abort();
      await app.close();
      jobs.close();
      await mlflow?.close();
      await testRedis.close();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** Keys of the given texts. */
export function apiKeys(keys: readonly { name: string; key: string; scopes?: readonly string[] }[]): ApiKeys {
  const hash = (key: string) => createHash("sha256").update(key).digest("hex");
  return parseApiKeys(JSON.stringify(keys.map(({ key, ...rest }) => ({ ...rest, sha256: hash(key) }))));
}

/** Another API process on the same Redis and the same disk, as far as a test can tell. */
export async function startSecondApi({
  context,
}: TestServer): Promise<{ readonly url: string; close(): Promise<void> }> {
  const app = await buildApp({ context, log: pino({ level: "silent" }), trustProxy: false, queues: [] });
  await app.listen({ host: "127.0.0.1", port: 0 });
  return {
    url: `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`,
    close: async () => void (await app.close()),
  };
}
