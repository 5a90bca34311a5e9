import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { METRIC_NAMES, TRAINABLE_OPERATORS } from "../../core/contract.ts";
import { type FieldError, ServiceError } from "../errors.ts";
import type { LiveWorker } from "../jobs/job-store.ts";
import { KINDS } from "../kinds/kinds.ts";
import { TARGETS } from "../kinds/quantize/targets.ts";
import { VERSIONS } from "../versions.ts";
import type { ApiContext } from "./context.ts";
import { DATASET_SUFFIXES } from "./datasets.ts";
import type { Metrics } from "./metrics.ts";
import { defineOperation, route } from "./operation.ts";
import { sharedFor } from "./shared-check.ts";
import { MAX_FILES } from "./upload-intake.ts";

/** Longer than any healthy part takes to answer. */
const CHECK_TIMEOUT_MS = 2_000;
/** From one look at the parts to the next. */
const CHECK_INTERVAL_MS = 1_000;

const Health = z.object({ status: z.literal("ok") }).meta({ id: "Health" });

const Readiness = z
  .object({
    status: z.literal("ready"),
    workers: z.int().meta({ description: "Live worker processes that take jobs." }),
    refusing_workers: z.int().meta({
      description:
        "Live worker processes that take none, for example because their disk is full; their logs and `/metrics` say why.",
    }),
  })
  .meta({ id: "Readiness" });

const Capabilities = z
  .object({
    versions: z.object({ modelpress: z.string(), node: z.string(), onnxruntime: z.string() }).meta({ id: "Versions" }),
    model_suffixes: z.array(z.string()),
    dataset_suffixes: z.array(z.string()),
    methods: z.array(
      z
        .object({
          type: z.string(),
          method: z.string(),
          params_schema: z.string().meta({ description: "Name of the schema of `params` in the API document." }),
        })
        .meta({ id: "Method" }),
    ),
    metrics: z.array(z.string()),
    targets: z.array(
      z
        .object({
          name: z.string(),
          isa: z.array(z.string()).meta({ description: "Instruction set extensions it counts on." }),
          description: z.string(),
        })
        .meta({ id: "Target" }),
    ),
    trainable_operators: z.array(z.string()).meta({
      description:
        "Operators that gradients pass through. A student of others is refused; a teacher can be made of any.",
    }),
    limits: z
      .object({
        max_upload_bytes: z.int(),
        max_files: z.int().meta({ description: "Of one model." }),
        max_queued_jobs: z.int().meta({ description: "Of one API key." }),
        job_timeout_ms: z.int(),
        queue_timeout_ms: z.int(),
        inspect_timeout_ms: z.int(),
        memory_bytes: z.int().meta({ description: "Of the process of one job." }),
        inspect_memory_bytes: z.int().meta({
          description: "Of all inspections that run at the same time together: two thirds for uploads.",
        }),
        job_threads: z.int(),
        requests_per_minute: z.int().nullable(),
      })
      .meta({ id: "Limits" }),
  })
  .meta({ id: "Capabilities" });

const AUTO = { isa: [], description: "The machine that the worker runs on." };

const getHealth = defineOperation({
  id: "getHealth",
  method: "GET",
  path: "/healthz",
  tag: "System",
  summary: "Whether the process is alive",
  description: "Looks at nothing else: a probe that restarts what has died.",
  access: "open",
  responses: { 200: { description: "It is.", content: { "application/json": Health }, example: { status: "ok" } } },
  problems: [],
});

const getReadiness = defineOperation({
  id: "getReadiness",
  method: "GET",
  path: "/readyz",
  tag: "System",
  summary: "Whether jobs can be accepted and run",
  description:
    "Looks whether Redis takes writes, at the blob store and at the workers. 503 names in `errors` each part that is missing.",
  access: "open",
  responses: {
    200: {
      description: "Everything is there.",
      content: { "application/json": Readiness },
      example: { status: "ready", workers: 1, refusing_workers: 0 },
    },
  },
  problems: [],
});

const getMetrics = defineOperation({
  id: "getMetrics",
  method: "GET",
  path: "/metrics",
  tag: "System",
  summary: "Numbers for Prometheus",
  description: "Requests, jobs, queue and workers. The guide to operations says what each means.",
  access: "read",
  responses: { 200: { description: "In Prometheus' text format.", content: { "text/plain": z.string() } } },
  problems: [],
});

const getCapabilities = defineOperation({
  id: "getCapabilities",
  method: "GET",
  path: "/v1/capabilities",
  tag: "System",
  summary: "What this service can do",
  description: "Ask it instead of knowing it: methods, file formats, metrics, targets and the limits in force.",
  access: "read",
  responses: { 200: { description: "Versions, methods and limits.", content: { "application/json": Capabilities } } },
  problems: [],
});

const getOpenApiJson = defineOperation({
  id: "getOpenApiJson",
  method: "GET",
  path: "/openapi.json",
  tag: "System",
  summary: "This document as JSON",
  description: "To generate a client from the service that it is for.",
  access: "open",
  responses: {
    200: { description: "OpenAPI 3.1.", content: { "application/json": z.record(z.string(), z.unknown()) } },
  },
  problems: [],
});

const getOpenApiYaml = defineOperation({
  id: "getOpenApiYaml",
  method: "GET",
  path: "/openapi.yaml",
  tag: "System",
  summary: "This document as YAML",
  description: "To generate a client from the service that it is for.",
  access: "open",
  responses: { 200: { description: "OpenAPI 3.1.", content: { "application/yaml": z.string() } } },
  problems: [],
});

export const SYSTEM_OPERATIONS = [getHealth, getReadiness, getMetrics, getCapabilities, getOpenApiJson, getOpenApiYaml];

/** `document` gives the OpenAPI document. */
export function registerSystem(
  app: FastifyInstance,
  context: ApiContext,
  metrics: Metrics,
  document: () => object,
): void {
  const capabilities = capabilitiesOf(context);
  let yaml: Promise<string> | undefined;

  route(app, getHealth, async () => ({ status: "ok" }));

  // Open to all, and it writes to Redis and to the disk: they share one look a second.
  const look = sharedFor(CHECK_INTERVAL_MS, async () => {
    const workers = context.queue.workers();
    const missing = await Promise.all([
      missingPart("redis", context.checkRedis()),
      missingPart("blob_store", context.blobs.check()),
      missingPart(
        "workers",
        workers.then((alive) => {
          if (alive.length === 0) throw new Error("no worker is running");
          if (!alive.some(takesJobs)) {
            const why = [...new Set(alive.flatMap(({ refusals }) => refusals))].join(" ");
            throw new Error(`no worker takes jobs (${why})`);
          }
        }),
      ),
    ]);
    const fields = missing.filter((part) => part !== undefined);
    return { fields, alive: fields.length === 0 ? await workers : [] };
  });

  route(app, getReadiness, async () => {
    if (context.stopping.aborted) throw new ServiceError("unavailable", "The service is shutting down.");
    const { fields, alive } = await look();
    if (fields.length === 0) {
      const ready = alive.filter(takesJobs).length;
      return { status: "ready", workers: ready, refusing_workers: alive.length - ready };
    }
    const detail = fields.map(({ message }) => message).join(" ");
    throw new ServiceError("unavailable", detail, { fields, retryAfterSeconds: 5 });
  });

  route(app, getMetrics, async (_input, _request, reply) => reply.type(metrics.contentType).send(await metrics.text()));
  route(app, getCapabilities, async () => capabilities);
  route(app, getOpenApiJson, async () => document());
  route(app, getOpenApiYaml, async (_input, _request, reply) => {
    yaml ??= openApiYaml(document());
    return reply.type("application/yaml").send(await yaml);
  });
}

/** The document as it is committed and served. */
export async function openApiYaml(document: object): Promise<string> {
  const { stringify: toYaml } = await import("yaml");
  // References in YAML would make the text depend on which objects happen to be shared.
  return toYaml(document, { aliasDuplicateObjects: false, lineWidth: 120 });
}

async function missingPart(part: string, check: Promise<unknown>): Promise<FieldError | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("it does not answer")), CHECK_TIMEOUT_MS);
  });
  try {
    await Promise.race([check, late]);
    return undefined;
  } catch (error) {
    return {
      pointer: `#/parts/${part}`,
      code: "missing",
      message: `${part}: ${(error as Error).message}.`.replace(/\.+$/, "."),
    };
  } finally {
    clearTimeout(timer);
  }
}

const takesJobs = ({ refusals }: LiveWorker) => refusals.length === 0;

/** A method, once for each form that its parameters can have. */
function formsOf(type: string, method: string, params: z.ZodType) {
  const forms = params instanceof z.ZodUnion ? (params.options as readonly z.ZodType[]) : [params];
  return forms.map((form) => ({ type, method, params_schema: z.globalRegistry.get(form)!.id! }));
}

function capabilitiesOf({ settings }: ApiContext): z.input<typeof Capabilities> {
  const { maxUploadBytes, maxQueuedJobsPerKey, jobTimeoutMs, queueTimeoutMs, jobThreads } = settings;
  return {
    versions: VERSIONS,
    model_suffixes: [".onnx"],
    dataset_suffixes: [...DATASET_SUFFIXES],
    methods: KINDS.flatMap(({ type, methods }) => methods.flatMap((it) => formsOf(type, it.method, it.params))),
    metrics: [...METRIC_NAMES],
    targets: [["auto", AUTO] as const, ...Object.entries(TARGETS)].map(([name, { isa, description }]) => ({
      name,
      isa: [...isa],
      description,
    })),
    trainable_operators: [...TRAINABLE_OPERATORS],
    limits: {
      max_upload_bytes: maxUploadBytes,
      max_files: MAX_FILES,
      max_queued_jobs: maxQueuedJobsPerKey,
      job_timeout_ms: jobTimeoutMs,
      queue_timeout_ms: queueTimeoutMs,
      inspect_timeout_ms: settings.inspectTimeoutMs,
      memory_bytes: settings.jobMemoryBytes,
      inspect_memory_bytes: settings.inspectMemoryBytes,
      job_threads: jobThreads,
      requests_per_minute: settings.rateLimitPerMinute || null,
    },
  };
}
