import type { Socket } from "node:net";
import helmet from "@fastify/helmet";
import multipart from "@fastify/multipart";
import rateLimit from "@fastify/rate-limit";
import Fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyRequest, LogController } from "fastify";
import type { Logger } from "pino";
import { uuidv7 } from "uuidv7";
import type { Config } from "./config.ts";
import { registerConsole } from "./console/console.ts";
import { accessRefusal } from "./service/api/api-keys.ts";
import { registerComparison } from "./service/api/compare.ts";
import { endEarly, limitJsonBodyTime, shareOf } from "./service/api/connection.ts";
import type { ApiContext } from "./service/api/context.ts";
import { registerDatasets } from "./service/api/datasets.ts";
import { registerSources } from "./service/api/from-source.ts";
import { createInspector } from "./service/api/inspector.ts";
import { linkedFileOf, registerJobFiles } from "./service/api/job-artifacts.ts";
import { registerJobs } from "./service/api/jobs.ts";
import { createMetrics } from "./service/api/metrics.ts";
import { registerModels } from "./service/api/models.ts";
import { createOpenRequests } from "./service/api/open-requests.ts";
import { buildOpenApi } from "./service/api/openapi.ts";
import { collectMethods } from "./service/api/operation.ts";
import { registerQueuePage, registerReference } from "./service/api/pages.ts";
import { answerBrokenRequest, registerProblems, sendProblem } from "./service/api/problem.ts";
import { registerResumableUploads } from "./service/api/resumable-uploads.ts";
import { registerSystem } from "./service/api/system.ts";
import { webPageRefusal } from "./service/api/web-pages.ts";
import { ServiceError } from "./service/errors.ts";
import type { BullJobQueue } from "./service/jobs/queue.ts";
import { isLink } from "./service/signed-links.ts";
import { VERSIONS } from "./service/versions.ts";

export interface AppDeps {
  readonly context: ApiContext;
  readonly log: Logger;
  readonly trustProxy: Config["trustProxy"];
  /** For the admin's page. */
  readonly queues: readonly BullJobQueue["bull"][];
}

/** JSON bodies; uploads have a limit of their own. */
const MAX_JSON_BYTES = 1024 * 1024;
const HEADERS_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_MS = 65_000;
const ACCEPTED_REQUEST_ID = /^[\w.-]{1,64}$/;

/** The API with everything registered; it does not listen yet. */
export async function buildApp({ context, log, trustProxy, queues }: AppDeps): Promise<FastifyInstance> {
  const app: FastifyInstance = Fastify({
    loggerInstance: log as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: MAX_JSON_BYTES,
    trustProxy: trustedBy(trustProxy),
    keepAliveTimeout: KEEP_ALIVE_MS,
    // Uploads take as long as they take; their pace is watched instead.
    requestTimeout: 0,
    http: { headersTimeout: HEADERS_TIMEOUT_MS },
    genReqId: ({ headers }) => {
      const given = headers["x-request-id"];
      return typeof given === "string" && ACCEPTED_REQUEST_ID.test(given) ? given : uuidv7();
    },
    // What comes while the service closes is answered as ever: load balancers have been told to go elsewhere.
    return503OnClosing: false,
    clientErrorHandler: answerBrokenRequest,
    frameworkErrors: (error, request, reply) => sendProblem(error, request, reply),
    routerOptions: { maxParamLength: 255 },
    // Requests are checked by zod schemas (`route`). Unless told otherwise, fastify loads two compilers of JSON schemas, a quarter of all that is loaded.
    schemaController: { compilersFactory: { buildValidator: noSchemas, buildSerializer: noSchemas } },
  });
  endUnusedConnections(app);
  const metrics = createMetrics(context);
  // Most services are never asked for it.
  let built: object | undefined;
  const document = () => {
    built ??= buildOpenApi(VERSIONS.modelpress);
    return built;
  };

  app.decorateRequest("caller", undefined);
  app.addHook("onRequest", async (request, reply) => {
    reply.header("x-request-id", request.id);
    const { config } = request.routeOptions;
    const isPage = config?.page === true && (request.method === "GET" || request.method === "HEAD");
    request.caller = context.keys.identify(request.headers.authorization, { basic: isPage });
    limitJsonBodyTime(request);
  });
  if (context.keys.open) {
    app.addHook("onRequest", async (request, reply) => {
      const refusal = webPageRefusal(request, context.settings.allowedHosts);
      if (refusal !== undefined) await sendProblem(refusal, request, reply);
    });
  }
  // Answers are data: a browser that shows one anyway may load nothing for it. Pages have a policy of their own.
  await app.register(helmet, {
    contentSecurityPolicy: { useDefaults: false, directives: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] } },
  });
  const limited = context.settings.rateLimitPerMinute > 0;
  if (limited) await app.register(rateLimit, rateLimitOptions(context));
  // After the limit, so that guessing keys is limited too, and before any body is read.
  app.addHook("preParsing", async (request, reply) => {
    const { access = "admin", linked = false } = request.routeOptions.config;
    const byLink = linked && isLink(request.query);
    const refusal = request.is404
      ? undefined
      : byLink
        ? await linkRefusal(context, request)
        : accessRefusal(request.caller, access);
    // Not thrown: the pages' plugins would catch it and answer in their own way.
    if (refusal !== undefined) await sendProblem(refusal, request, reply);
  });
  const requests = createOpenRequests(context.settings.maxRequestsPerKey, "requests");
  app.addHook("preParsing", async (request, reply) => {
    // Streams of events are open for long, and counted where they are opened. Probes are never told to wait.
    if (request.is404 || request.routeOptions.config.access === "open") return;
    requests.enter(shareOf(request), reply);
  });
  app.addHook("onSend", async (request, reply, payload) => endEarly(request, reply, payload));
  app.addHook("onResponse", async (request, reply) => {
    const route = request.routeOptions.config?.pattern ?? "unmatched";
    const { elapsedTime: ms, statusCode: status } = reply;
    metrics.responded(request.method, route, status, ms / 1000);
    request.log.info(
      { method: request.method, route, status, ms: Math.round(ms), caller: request.caller?.name },
      "request",
    );
  });
  registerProblems(app, collectMethods(app), limited ? [app.rateLimit()] : []);
  registerJsonParser(app);

  const inspector = createInspector(context);
  await app.register(async (scope) => {
    await scope.register(multipart);
    scope.addContentTypeParser("application/octet-stream", (_request, _payload, done) => done(null));
    const uploads = registerResumableUploads(scope, context);
    const models = registerModels(scope, context, inspector, uploads);
    const datasets = registerDatasets(scope, context, inspector, uploads);
    registerSources(scope, context, models, datasets);
  });
  registerJobs(app, context, inspector, metrics);
  registerJobFiles(app, context);
  registerComparison(app, context);
  registerSystem(app, context, metrics, document);
  registerConsole(app, document);
  registerReference(app);
  registerQueuePage(app, queues);
  return app;
}

function noSchemas(): never {
  throw new Error("Routes have no JSON schemas.");
}

/** Why a link does not open what it is for; undefined for one that does. */
async function linkRefusal({ links }: ApiContext, request: FastifyRequest): Promise<Error | undefined> {
  const query = request.query as Readonly<Record<string, unknown>>;
  return links.check(linkedFileOf(request), query).then(
    () => undefined,
    (error: Error) => error,
  );
}

/** Connections on which nothing was ever asked: closing would wait for their headers. Browsers and clients open some in advance. */
function endUnusedConnections(app: FastifyInstance): void {
  const open = new Set<Socket>();
  app.server.on("connection", (socket: Socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
  });
  app.addHook("preClose", async () => {
    for (const socket of open) if (socket.bytesRead === 0) socket.destroy();
  });
}

/** `X-Forwarded-*` of so many proxies in a row, of those with such addresses, or of none. */
function trustedBy(proxies: AppDeps["trustProxy"]) {
  if (typeof proxies === "number") return (_address: string, hop: number) => hop < proxies;
  return proxies === false ? false : [...proxies];
}

function rateLimitOptions({ settings }: ApiContext) {
  return {
    max: settings.rateLimitPerMinute,
    timeWindow: "1 minute",
    keyGenerator: (request: FastifyRequest) => request.caller?.name ?? request.ip,
    // Probes must never be told to wait.
    allowList: (request: FastifyRequest) => /^\/(healthz|readyz)$/.test(request.routeOptions.url ?? ""),
    errorResponseBuilder: (_request: FastifyRequest, { max, ttl }: { max: number; ttl: number }) =>
      new ServiceError("rate_limited", `At most ${max} requests per minute.`, {
        retryAfterSeconds: Math.ceil(ttl / 1000),
      }),
  };
}

/** JSON and nothing else; an empty body is no body, as clients send it with POST. */
function registerJsonParser(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  const parse = app.getDefaultJsonParser("error", "error");
  app.addContentTypeParser("application/json", { parseAs: "string" }, (request, body, done) => {
    if (body.length === 0) done(null, undefined);
    else parse(request, body as string, done);
  });
}
