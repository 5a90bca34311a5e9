import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { z } from "zod";
import { type FieldError, type ProblemCode, ServiceError } from "../errors.ts";
import { fieldErrorsOf, whatItMustBe } from "../field-errors.ts";

/**
 * One operation of the API as data: the route, the validation of requests and the OpenAPI document all come from it, so
 * they cannot disagree. `path` is written as OpenAPI does: `/v1/models/{model_id}`.
 */
export interface Operation<Params = unknown, Query = unknown, Headers = unknown, Body = unknown> {
  /** The operationId: the name of the method in generated clients. */
  readonly id: string;
  readonly method: "GET" | "POST" | "PATCH" | "HEAD" | "DELETE" | "OPTIONS";
  readonly path: string;
  readonly tag: "Models" | "Datasets" | "Uploads" | "Jobs" | "System";
  readonly summary: string;
  readonly description: string;
  readonly access: Access;
  /** What people look at in a browser, which can send a key as `Basic` only. */
  readonly page?: boolean;
  /** A file that signed links open without a key. */
  readonly linked?: boolean;
  readonly params?: z.ZodType<Params> & ObjectSchema;
  /** A field whose meta says `curlOnly` is taken, and told of in the description, but is no parameter of generated clients;
   * one whose meta says `clientsMustSend` has another name for the command line, and none for clients. */
  readonly query?: z.ZodType<Query> & ObjectSchema;
  /** Request headers that the operation reads; lower-case names. */
  readonly headers?: z.ZodType<Headers> & ObjectSchema;
  /** The JSON body, when there is one. */
  readonly body?: z.ZodType<Body>;
  /** A body that is streamed; the handler reads it itself, the schema is for the document. There is no `body` then. */
  readonly stream?: { readonly mediaType: string; readonly schema: z.ZodType };
  readonly responses: Readonly<Record<number, ResponseSpec>>;
  /** Refusals besides those that any operation may answer with. */
  readonly problems: readonly ProblemCode[];
  /** A webhook that the operation asks for: `to` is where in the request its URL is, `body` what is sent. */
  readonly callback?: {
    readonly name: string;
    readonly to: string;
    readonly summary: string;
    readonly description: string;
    readonly body: z.ZodType;
  };
  /** By name; request bodies that work as they are. */
  readonly examples?: Readonly<Record<string, unknown>>;
}

type ObjectSchema = z.ZodObject;

/** `open`: nobody needs a key. The others name the scope that a key must have. */
export type Access = "open" | "read" | "write" | "admin";

export interface ResponseSpec {
  readonly description: string;
  /** By media type: the schema of the body, or null for bytes. */
  readonly content?: Readonly<Record<string, z.ZodType | null>>;
  /** Names and what they say. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly example?: unknown;
  /** Operations that go on from this answer: their ids, and where in the body their parameters are. */
  readonly links?: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

export interface OperationInput<Params, Query, Headers, Body> {
  readonly params: Params;
  readonly query: Query;
  readonly headers: Headers;
  readonly body: Body;
}

declare module "fastify" {
  interface FastifyContextConfig {
    /** Who may call this route; a route that does not say is for admins. */
    access?: Access;
    /** A page for a browser: its key may come as `Basic`. */
    page?: boolean;
    /** Signed links open it without a key. */
    linked?: boolean;
    /** The route pattern for metrics and logs, as in the document. */
    pattern?: string;
    /** The body is a stream of any length: its pace is watched, not its duration. */
    streamsBody?: boolean;
  }
}

export function defineOperation<Params, Query, Headers, Body>(
  operation: Operation<Params, Query, Headers, Body>,
): Operation<Params, Query, Headers, Body> {
  return operation;
}

/** Registers an operation: its handler sees only what its schemas let through. */
export function route<Params, Query, Headers, Body>(
  app: FastifyInstance,
  operation: Operation<Params, Query, Headers, Body>,
  handler: (
    input: OperationInput<Params, Query, Headers, Body>,
    request: FastifyRequest,
    reply: FastifyReply,
  ) => Promise<unknown>,
): void {
  app.route({
    method: operation.method,
    url: operation.path.replaceAll(/\{(\w+)\}/g, ":$1"),
    config: {
      access: operation.access,
      page: operation.page ?? false,
      linked: operation.linked ?? false,
      pattern: operation.path,
      streamsBody: operation.stream !== undefined,
    },
    handler: (request, reply) => handler(parseInput(operation, request), request, reply),
  });
}

/** Remembers the routes that are registered from now on, and answers which methods a path has. */
export function collectMethods(app: FastifyInstance): (path: string) => readonly string[] {
  const known: { path: RegExp; methods: readonly string[] }[] = [];
  app.addHook("onRoute", ({ url, method }) => {
    const pattern = url
      .replaceAll(/[.+?^${}()|[\]\\]/g, "\\$&")
      .replaceAll(/:\w+/g, "[^/]+")
      .replaceAll("*", ".*");
    known.push({ path: new RegExp(`^${pattern}$`), methods: [method].flat() });
  });
  return (path) =>
    [...new Set(known.filter((route) => route.path.test(path)).flatMap((route) => route.methods))].sort();
}

/** Checks all parts of a request and reports every wrong field at once. */
function parseInput<Params, Query, Headers, Body>(
  operation: Operation<Params, Query, Headers, Body>,
  request: FastifyRequest,
): OperationInput<Params, Query, Headers, Body> {
  const fields: FieldError[] = [];
  const parse = <T>(schema: z.ZodType<T> | undefined, value: unknown, prefix: string): T => {
    const parsed = schema?.safeParse(value, { error: whatItMustBe });
    if (parsed?.success === false) fields.push(...fieldErrorsOf(parsed.error, prefix));
    return parsed?.data as T;
  };
  const params = parse(operation.params, request.params, "#/path");
  const query = parse(operation.query, request.query, "#/query");
  const headers = parse(operation.headers, request.headers, "#/headers");
  const body = parse(operation.body, request.body, "");
  if (operation.body !== undefined && request.body === undefined) {
    throw new ServiceError("invalid_request", "This operation needs a JSON body.");
  }
  if (fields.length > 0) {
    throw new ServiceError("validation_failed", fields.map(({ message }) => message).join(" "), { fields });
  }
  return { params, query, headers, body };
}
