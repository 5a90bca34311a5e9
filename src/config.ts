import { availableParallelism, totalmem } from "node:os";
import { resolve } from "node:path";
import ipaddr from "ipaddr.js";
import { z } from "zod";
import { ConfigError } from "./config-error.ts";

/**
 * Everything that can be set from outside, read once. No other module looks at `process.env`.
 * An empty variable counts as unset, so that compose files may pass `${NAME:-}` through.
 */
export interface Config {
  readonly host: string;
  readonly port: number;
  /** Absolute. Holds blobs, unfinished uploads, scratch space, and the private redis-server's file. */
  readonly dataDir: string;
  /** Null: start a private redis-server. */
  readonly redisUrl: string | null;
  readonly blobStore:
    | { readonly kind: "file" }
    | { readonly kind: "s3"; readonly bucket: string; readonly endpoint: string | null; readonly region: string };
  /** The object store of these buckets; that of the blobs too, when they are in one. Null: Amazon's own endpoint. */
  readonly s3: { readonly endpoint: string | null; readonly region: string };
  /** Null: no key is needed, and only the loopback interface may be listened on. */
  readonly apiKeysFile: string | null;
  /** Of one model or dataset, all its files together. */
  readonly maxUploadBytes: number;
  /** An upload that brings next to nothing for this long is given up. */
  readonly uploadIdleTimeoutMs: number;
  /** Resumable uploads that were not used for this long are thrown away. */
  readonly uploadExpiryMs: number;
  /** Resumable uploads of one key that are not used up, and their declared bytes. */
  readonly maxOpenUploadsPerKey: number;
  readonly maxOpenUploadBytesPerKey: number;
  readonly maxQueuedJobsPerKey: number;
  /** Requests, streams among them, and streams of events that one key (or address) may have open at one API process. */
  readonly maxRequestsPerKey: number;
  readonly maxStreamsPerKey: number;
  /** Of models, and of datasets; and of jobs. */
  readonly maxRecords: number;
  /** Requests of one key (or address) to one API process; 0: no limit. */
  readonly rateLimitPerMinute: number;
  /** Jobs that one worker process runs at the same time. */
  readonly workerConcurrency: number;
  /** Threads that a job computes with. */
  readonly jobThreads: number;
  /** Run time of one job. */
  readonly jobTimeoutMs: number;
  /** Time a job may wait in the queue. */
  readonly queueTimeoutMs: number;
  /** Finished jobs, with their artifacts, are deleted after this long; null: never. The models they made stay. */
  readonly retentionMs: { readonly succeeded: number | null; readonly failed: number | null };
  /** Resident memory of one job's process. */
  readonly jobMemoryBytes: number;
  /** Resident memory of all inspections of one API process together. */
  readonly inspectMemoryBytes: number;
  /** What child processes can reach; `auto`: as little as this machine allows. */
  readonly sandbox: (typeof SANDBOXES)[number];
  /** A worker with less free disk than this takes no jobs. */
  readonly minFreeDiskBytes: number;
  /** Stored files are read again in the background, at most so fast; 0: never. */
  readonly blobCheckBytesPerSecond: number;
  /** Run time of the inspection of one upload. */
  readonly inspectTimeoutMs: number;
  /** Inspections that one API process runs at the same time. */
  readonly inspectConcurrency: number;
  /** Names (with or without port) that the service without keys is called by, besides those of the loopback interface. */
  readonly allowedHosts: readonly string[];
  /** Whose `X-Forwarded-*` headers are believed: nobody's, those of so many proxies in a row, or of proxies with these addresses. */
  readonly trustProxy: false | number | readonly string[];
  /** Signs webhooks; null: jobs cannot have any. */
  readonly webhookSecret: string | null;
  /** Hosts that webhooks may be sent to although they are not public, also without TLS. */
  readonly webhookAllowHosts: readonly string[];
  /** Hosts that models and datasets may be fetched from, also without TLS; `*`: every public one, with TLS. None: nothing is fetched. */
  readonly sourceAllowHosts: readonly string[];
  /** The same for addresses that jobs may put their artifacts to. */
  readonly deliverAllowHosts: readonly string[];
  /** Buckets (`bucket/`) and folders of them (`bucket/folder/`) that models and datasets may be fetched from with our credentials. */
  readonly sourceAllowBuckets: readonly string[];
  /** The same for what jobs may write. */
  readonly deliverAllowBuckets: readonly string[];
  /** The tracking server whose registry models are fetched from and delivered to; null: none. */
  readonly mlflow: {
    readonly url: string;
    readonly credentials: { readonly username: string; readonly password: string } | { readonly token: string } | null;
    /** What the runs of deliveries are filed under. */
    readonly experiment: string;
  } | null;
  /** Models of that registry that may be fetched, `name*` for all that begin so; and those that jobs may make versions of. */
  readonly sourceAllowRegisteredModels: readonly string[];
  readonly deliverAllowRegisteredModels: readonly string[];
  readonly huggingFace: { readonly url: string; readonly token: string | null };
  /** Repositories of the hub that may be fetched from, `org/*` for all of an organisation. */
  readonly sourceAllowRepositories: readonly string[];
  /** Where the service is for its users, without a slash at its end: what links begin with. Null: as the client calls it. */
  readonly publicUrl: string | null;
  /** Signs links to files of jobs; null: one that is kept in Redis. */
  readonly linkSecret: string | null;
  readonly logLevel: (typeof LOG_LEVELS)[number];
}

const LOG_LEVELS = ["fatal", "error", "warn", "info", "debug", "trace", "silent"] as const;
const SANDBOXES = ["auto", "bubblewrap", "unshare", "none"] as const;
const KIB = 1024;
const MINUTE_MS = 60_000;
/**
 * Of the machine's memory (or the container's), for all jobs and for all inspections that run at the same time. The last quarter is left to
 * the API, the worker, the page cache and redis-server.
 */
const JOBS_SHARE = 3 / 8;
const INSPECTIONS_SHARE = 3 / 8;

const integer = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d+$/, "must be a whole number")
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be between ${min} and ${max}`);
const durationMs = integer(1, 2 ** 31 - 1);
const url = (...protocols: string[]) =>
  z.string().refine((text) => protocols.includes(URL.parse(text)?.protocol ?? ""), {
    error: `must be a URL that starts with ${protocols.map((protocol) => `${protocol}//`).join(" or ")}`,
  });

const isBetween = (min: number, max: number, value: number) => value >= min && value <= max;

/** The items of a comma-separated list, in lower case. */
function listOf(text: string): string[] {
  const items = text.split(",").map((item) => item.trim().toLowerCase());
  return items.filter((item) => item !== "");
}

/** A comma-separated list of names, which are case-sensitive; `*` at the end of one stands for all that begin so. */
const names = z
  .string()
  .default("")
  .transform((text) => text.split(",").map((item) => item.trim()))
  .transform((items) => items.filter((item) => item !== ""))
  .refine((items) => items.every((item) => !item.slice(0, -1).includes("*")), {
    error: "must be a list of names, with * only at the end of one",
  });

/** `bucket` or `bucket/folder/`. */
const BUCKET_ENTRY = /^[A-Za-z0-9][A-Za-z0-9._-]{2,254}(\/((?!\.{1,2}\/)[^/]+\/)*)?$/;

/** A comma-separated list of buckets and folders of them, each with a slash at its end then. Keys are case-sensitive. */
const buckets = z
  .string()
  .default("")
  .transform((text) => text.split(",").map((item) => item.trim()))
  .transform((items) => items.filter((item) => item !== ""))
  .refine((items) => items.every((item) => BUCKET_ENTRY.test(item)), {
    error:
      "must be a list of buckets (models) and folders with the slash at their end (models/released/), without s3://",
  })
  .transform((items) => items.map((item) => (item.endsWith("/") ? item : `${item}/`)));

/** Ranges of addresses that have a name. */
const NAMED_RANGES = ["loopback", "linklocal", "uniquelocal"];
const MAX_PROXIES = 16;

/** What `TRUST_PROXY` says; undefined when it says nothing that makes sense: `true` would let every client choose its address. */
function proxiesOf(text: string): Config["trustProxy"] | undefined {
  if (text === "false") return false;
  if (/^\d+$/.test(text)) return Number(text) >= 1 && Number(text) <= MAX_PROXIES ? Number(text) : undefined;
  const ranges = listOf(text);
  const isRange = (range: string) =>
    NAMED_RANGES.includes(range) || ipaddr.isValid(range) || (range.includes("/") && ipaddr.isValidCIDR(range));
  return ranges.length > 0 && ranges.every(isRange) ? ranges : undefined;
}

/** What paths are appended to: without a slash at its end. */
const baseUrl = url("http:", "https:")
  .refine((text) => !/[?#]/.test(text), "must have neither a query nor a fragment")
  .transform((text) => text.replace(/\/+$/, ""));

/** The variables, their defaults, and what is wrong with a bad value. */
const Environment = z.object({
  HOST: z.string().default("127.0.0.1"),
  PORT: integer(0, 65_535).default(8080),
  DATA_DIR: z.string().default("./data"),
  REDIS_URL: url("redis:", "rediss:", "unix:").optional(),
  BLOB_STORE: z.enum(["file", "s3"], "must be file or s3").default("file"),
  S3_BUCKET: z.string().optional(),
  S3_ENDPOINT: url("http:", "https:").optional(),
  S3_REGION: z.string().default("us-east-1"),
  API_KEYS_FILE: z.string().optional(),
  MAX_UPLOAD_BYTES: integer(KIB, Number.MAX_SAFE_INTEGER).default(8 * KIB ** 3),
  UPLOAD_IDLE_TIMEOUT_MS: durationMs.default(30_000),
  UPLOAD_EXPIRY_MS: durationMs.default(24 * 60 * MINUTE_MS),
  MAX_OPEN_UPLOADS_PER_KEY: integer(1, 1_000_000).default(64),
  MAX_OPEN_UPLOAD_BYTES_PER_KEY: integer(KIB, Number.MAX_SAFE_INTEGER).optional(),
  MAX_QUEUED_JOBS_PER_KEY: integer(1, 1_000_000).default(100),
  MAX_REQUESTS_PER_KEY: integer(1, 1_000_000).default(256),
  MAX_STREAMS_PER_KEY: integer(1, 1_000_000).default(100),
  MAX_RECORDS: integer(1, 10_000_000).default(100_000),
  RATE_LIMIT_PER_MINUTE: integer(0, 1_000_000_000).default(6000),
  WORKER_CONCURRENCY: integer(1, 256).default(1),
  JOB_THREADS: integer(1, 1024).optional(),
  JOB_TIMEOUT_MS: durationMs.default(60 * MINUTE_MS),
  QUEUE_TIMEOUT_MS: durationMs.default(24 * 60 * MINUTE_MS),
  RETENTION_DAYS: integer(0, 36_500).default(0),
  RETENTION_FAILED_DAYS: integer(0, 36_500).default(30),
  JOB_MEMORY_BYTES: integer(64 * KIB ** 2, Number.MAX_SAFE_INTEGER).optional(),
  INSPECT_MEMORY_BYTES: integer(64 * KIB ** 2, Number.MAX_SAFE_INTEGER).optional(),
  SANDBOX: z.enum(SANDBOXES, `must be one of ${SANDBOXES.join(", ")}`).default("auto"),
  MIN_FREE_DISK_BYTES: integer(0, Number.MAX_SAFE_INTEGER).default(512 * KIB ** 2),
  BLOB_CHECK_BYTES_PER_SECOND: integer(0, Number.MAX_SAFE_INTEGER).default(8 * KIB ** 2),
  INSPECT_TIMEOUT_MS: durationMs.default(2 * MINUTE_MS),
  INSPECT_CONCURRENCY: integer(1, 64).default(2),
  ALLOWED_HOSTS: z.string().default("").transform(listOf),
  TRUST_PROXY: z
    .string()
    .default("false")
    .refine((text) => proxiesOf(text) !== undefined, {
      error: "must be false, how many proxies there are in a row, or a list of their addresses (10.0.0.0/8, loopback)",
    })
    .transform((text) => proxiesOf(text)!),
  WEBHOOK_SECRET: z
    .string()
    .regex(/^whsec_[A-Za-z0-9+/]+={0,2}$/, "must be whsec_ and base64")
    .refine((text) => isBetween(24, 64, Buffer.from(text.slice(6), "base64").length), "must hold 24 to 64 bytes")
    .optional(),
  WEBHOOK_ALLOW_HOSTS: z.string().default("").transform(listOf),
  PUBLIC_URL: baseUrl.optional(),
  SOURCE_ALLOW_HOSTS: z.string().default("").transform(listOf),
  DELIVER_ALLOW_HOSTS: z.string().default("").transform(listOf),
  SOURCE_ALLOW_BUCKETS: buckets,
  DELIVER_ALLOW_BUCKETS: buckets,
  MLFLOW_TRACKING_URI: baseUrl.optional(),
  MLFLOW_TRACKING_USERNAME: z.string().optional(),
  MLFLOW_TRACKING_PASSWORD: z.string().optional(),
  MLFLOW_TRACKING_TOKEN: z.string().optional(),
  MLFLOW_EXPERIMENT_NAME: z.string().max(200).default("modelpress"),
  SOURCE_ALLOW_REGISTERED_MODELS: names,
  DELIVER_ALLOW_REGISTERED_MODELS: names,
  HF_ENDPOINT: baseUrl.default("https://huggingface.co"),
  HF_TOKEN: z.string().optional(),
  SOURCE_ALLOW_REPOSITORIES: names,
  LINK_SECRET: z.string().min(32, "must have at least 32 characters").optional(),
  LOG_LEVEL: z.enum(LOG_LEVELS, `must be one of ${LOG_LEVELS.join(", ")}`).default("info"),
});

/** Reads the environment. Throws a `ConfigError` that lists everything that is wrong. */
export function loadConfig(env: Readonly<Record<string, string | undefined>> = process.env): Config {
  const set = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ""));
  const parsed = Environment.safeParse(set);
  const problems = parsed.success ? [] : parsed.error.issues.map((issue) => `${issue.path.join(".")} ${issue.message}`);
  // Rules between variables look at the raw text, so that they are reported together with the rest.
  if (set.BLOB_STORE === "s3" && set.S3_BUCKET === undefined) {
    problems.push("S3_BUCKET must be set when BLOB_STORE is s3");
  }
  const blobs = set.BLOB_STORE === "s3" ? `${set.S3_BUCKET}/blobs/` : undefined;
  const writable = parsed.data?.DELIVER_ALLOW_BUCKETS ?? [];
  if (blobs !== undefined && writable.some((place) => place.startsWith(blobs) || blobs.startsWith(place))) {
    problems.push(`DELIVER_ALLOW_BUCKETS must not reach ${blobs}: jobs could overwrite what is stored there`);
  }
  for (const list of ["SOURCE_ALLOW_REGISTERED_MODELS", "DELIVER_ALLOW_REGISTERED_MODELS"]) {
    if (set[list] === undefined || set.MLFLOW_TRACKING_URI !== undefined) continue;
    problems.push(`MLFLOW_TRACKING_URI must be set when ${list} is: it says whose models these are`);
  }
  if ((set.MLFLOW_TRACKING_USERNAME === undefined) !== (set.MLFLOW_TRACKING_PASSWORD === undefined)) {
    problems.push("MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD must be set together");
  }
  if (set.API_KEYS_FILE === undefined && !isLoopback(set.HOST ?? "127.0.0.1")) {
    problems.push(
      "API_KEYS_FILE must be set when HOST is not a loopback address: without keys everybody could use the service",
    );
  }
  if (!parsed.success || problems.length > 0) throw new ConfigError(problems);

  const values = parsed.data;
  const s3 = { endpoint: values.S3_ENDPOINT ?? null, region: values.S3_REGION };
  const machineBytes = Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
  const days = (count: number) => (count === 0 ? null : count * 24 * 60 * MINUTE_MS);
  return Object.freeze<Config>({
    host: values.HOST,
    port: values.PORT,
    dataDir: resolve(values.DATA_DIR),
    redisUrl: values.REDIS_URL ?? null,
    blobStore: values.BLOB_STORE === "file" ? { kind: "file" } : { kind: "s3", bucket: values.S3_BUCKET!, ...s3 },
    s3,
    apiKeysFile: values.API_KEYS_FILE ?? null,
    maxUploadBytes: values.MAX_UPLOAD_BYTES,
    uploadIdleTimeoutMs: values.UPLOAD_IDLE_TIMEOUT_MS,
    uploadExpiryMs: values.UPLOAD_EXPIRY_MS,
    maxOpenUploadsPerKey: values.MAX_OPEN_UPLOADS_PER_KEY,
    maxOpenUploadBytesPerKey: values.MAX_OPEN_UPLOAD_BYTES_PER_KEY ?? 4 * values.MAX_UPLOAD_BYTES,
    maxQueuedJobsPerKey: values.MAX_QUEUED_JOBS_PER_KEY,
    maxRequestsPerKey: values.MAX_REQUESTS_PER_KEY,
    maxStreamsPerKey: values.MAX_STREAMS_PER_KEY,
    maxRecords: values.MAX_RECORDS,
    rateLimitPerMinute: values.RATE_LIMIT_PER_MINUTE,
    workerConcurrency: values.WORKER_CONCURRENCY,
    jobThreads: values.JOB_THREADS ?? Math.max(1, Math.floor(availableParallelism() / values.WORKER_CONCURRENCY)),
    jobTimeoutMs: values.JOB_TIMEOUT_MS,
    queueTimeoutMs: values.QUEUE_TIMEOUT_MS,
    retentionMs: { succeeded: days(values.RETENTION_DAYS), failed: days(values.RETENTION_FAILED_DAYS) },
    jobMemoryBytes: values.JOB_MEMORY_BYTES ?? Math.floor((machineBytes * JOBS_SHARE) / values.WORKER_CONCURRENCY),
    inspectMemoryBytes: values.INSPECT_MEMORY_BYTES ?? Math.floor(machineBytes * INSPECTIONS_SHARE),
    sandbox: values.SANDBOX,
    minFreeDiskBytes: values.MIN_FREE_DISK_BYTES,
    blobCheckBytesPerSecond: values.BLOB_CHECK_BYTES_PER_SECOND,
    inspectTimeoutMs: values.INSPECT_TIMEOUT_MS,
    inspectConcurrency: values.INSPECT_CONCURRENCY,
    allowedHosts: values.ALLOWED_HOSTS,
    trustProxy: values.TRUST_PROXY,
    webhookSecret: values.WEBHOOK_SECRET ?? null,
    webhookAllowHosts: values.WEBHOOK_ALLOW_HOSTS,
    sourceAllowHosts: values.SOURCE_ALLOW_HOSTS,
    deliverAllowHosts: values.DELIVER_ALLOW_HOSTS,
    sourceAllowBuckets: values.SOURCE_ALLOW_BUCKETS,
    deliverAllowBuckets: values.DELIVER_ALLOW_BUCKETS,
    mlflow: mlflowOf(values),
    sourceAllowRegisteredModels: values.SOURCE_ALLOW_REGISTERED_MODELS,
    deliverAllowRegisteredModels: values.DELIVER_ALLOW_REGISTERED_MODELS,
    huggingFace: { url: values.HF_ENDPOINT, token: values.HF_TOKEN ?? null },
    sourceAllowRepositories: values.SOURCE_ALLOW_REPOSITORIES,
    publicUrl: values.PUBLIC_URL ?? null,
    linkSecret: values.LINK_SECRET ?? null,
    logLevel: values.LOG_LEVEL,
  });
}

/** As MLflow's own clients read these variables: a token only where there is no user. */
function mlflowOf(values: z.output<typeof Environment>): Config["mlflow"] {
  const { MLFLOW_TRACKING_URI: url, MLFLOW_EXPERIMENT_NAME: experiment } = values;
  const {
    MLFLOW_TRACKING_USERNAME: username,
    MLFLOW_TRACKING_PASSWORD: password,
    MLFLOW_TRACKING_TOKEN: token,
  } = values;
  if (url === undefined) return null;
  const basic = username === undefined || password === undefined ? null : { username, password };
  return { url, experiment, credentials: basic ?? (token === undefined ? null : { token }) };
}

/** Whether only this machine can reach `host`. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}
