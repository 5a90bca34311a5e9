import type { z } from "zod";
import { PROBLEMS, type ProblemCode, problemType } from "../errors.ts";
import { PROBLEM_MEDIA_TYPE, Problem } from "../problem-schema.ts";
import { ALL_OPERATIONS } from "./all-operations.ts";
import { BINARY, Components, type Json } from "./openapi-schemas.ts";
import type { Operation, ResponseSpec } from "./operation.ts";

/**
 * The OpenAPI 3.1 document of the API, from the operations and their zod schemas (`openapi-schemas.ts`). What generators of clients trip
 * over is kept out of it; `test/contract/openapi-rules.test.ts` has the rules.
 */

/** Refusals that any operation may answer with. */
const ALWAYS: readonly ProblemCode[] = [
  "invalid_request",
  "rate_limited",
  "headers_too_large",
  "internal",
  "unavailable",
];
const WITH_KEY: readonly ProblemCode[] = ["unauthorized", "forbidden"];

const TAGS = {
  Models: "ONNX models, uploaded or made by jobs.",
  Datasets: "Data to calibrate and evaluate with.",
  Uploads: "Resumable uploads of large files (tus 1.0).",
  Jobs: "Compression, and what came of it.",
  System: "The service itself.",
} as const satisfies Record<Operation["tag"], string>;

export function buildOpenApi(version: string): Json {
  const components = new Components();
  const paths: Record<string, Json> = {};
  for (const operation of ALL_OPERATIONS) {
    paths[operation.path] ??= {};
    paths[operation.path]![operation.method.toLowerCase()] = operationObject(operation, components);
  }
  const responses = problemResponses(components);
  const schemas = components.schemas();
  return {
    openapi: "3.1.0",
    info: {
      title: "modelpress",
      version,
      summary: "Model compression as a service.",
      description:
        "Send an ONNX model, choose a method, and get a smaller model back together with the measured evidence.\n\n" +
        "1. `POST /v1/models` with the file; `POST /v1/datasets` with samples, if there are some.\n" +
        "2. `POST /v1/jobs/plan` says what a job would do; `POST /v1/jobs` does it.\n" +
        "3. `GET /v1/jobs/{job_id}/events/stream` follows it; `GET /v1/jobs/{job_id}` has what came of it.\n" +
        "4. `GET /v1/jobs/{job_id}/report` is the page to look at, and `/v1/jobs/{job_id}/artifacts/model.onnx` the model.\n\n" +
        "There is a console for people at [/](/). A service with keys wants `Authorization: Bearer <key>` with every request.\n\n" +
        "Every refusal is `application/problem+json`: `code` is stable, `detail` says what is wrong, `errors` where.\n\n" +
        "Clients must accept fields, statuses, types and codes that they do not know: they may be added at any time. In " +
        "answers these are therefore plain strings, whose present values are told.",
      license: { name: "Proprietary", identifier: "LicenseRef-Proprietary" },
    },
    servers: [{ url: "/", description: "Where this document came from." }],
    tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
    // A service without keys is open to its own machine; one with keys asks for them.
    security: [{ apiKey: [] }, {}],
    paths,
    components: {
      schemas,
      responses,
      securitySchemes: {
        apiKey: {
          type: "http",
          scheme: "bearer",
          description: "Needed when the service has keys configured; without any it is open, to its own machine only.",
        },
      },
    },
  };
}

function operationObject(operation: Operation, components: Components): Json {
  const { id, tag, summary, description, access, problems } = operation;
  const codes = [...ALWAYS, ...(access === "open" ? [] : WITH_KEY), ...problems];
  const statuses = [...new Set(codes.map((code) => PROBLEMS[code].status))].sort((a, b) => a - b);
  const responses: Json = {};
  for (const [status, response] of Object.entries(operation.responses)) {
    responses[status] = responseObject(response, components);
  }
  for (const status of statuses) responses[status] = { $ref: `#/components/responses/Problem${status}` };
  responses.default = { $ref: "#/components/responses/Problem" };
  const body = requestBody(operation, components);
  return {
    operationId: id,
    tags: [tag],
    summary,
    description,
    ...(access === "open" && { security: [] }),
    parameters: [
      ...parameters("path", operation.params, components),
      ...parameters("query", operation.query, components),
      ...parameters("header", operation.headers, components),
    ],
    ...(body !== undefined && { requestBody: body }),
    responses,
    ...(operation.callback && { callbacks: callbackObject(operation.callback, components) }),
  };
}

/** A webhook. It has no operation id: generators would make a method of the client of it. */
function callbackObject(
  { name, to, body, ...texts }: NonNullable<Operation["callback"]>,
  components: Components,
): Json {
  const headers = {
    "webhook-id": "The same for every attempt to deliver it.",
    "webhook-timestamp": "Seconds since 1970.",
    "webhook-signature": "`v1,` and the base64 of HMAC-SHA256 over id, timestamp and body, joined with dots.",
  };
  const post = {
    ...texts,
    parameters: Object.entries(headers).map(([name, description]) => ({
      name,
      in: "header",
      required: true,
      description,
      schema: { type: "string" },
    })),
    requestBody: { required: true, content: { "application/json": { schema: components.schemaOf(body, "output") } } },
    responses: {
      "2XX": { description: "It was received." },
      "410": { description: "Nobody wants it: it is not sent again." },
      default: { description: "It is sent again later." },
    },
  };
  return { [name]: { [to]: { post } } };
}

function responseObject({ description, content, headers, example, links }: ResponseSpec, components: Components): Json {
  const media = Object.entries(content ?? {}).map(([type, schema]) => [
    type,
    {
      schema: schema === null ? BINARY : components.schemaOf(schema, "output"),
      ...(type === "application/json" && example !== undefined && { example }),
    },
  ]);
  return {
    description,
    ...(headers && { headers: headerObjects(headers) }),
    ...(media.length > 0 && { content: Object.fromEntries(media) }),
    ...(links && { links: linkObjects(links) }),
  };
}

function linkObjects(links: NonNullable<ResponseSpec["links"]>): Json {
  return Object.fromEntries(
    Object.entries(links).map(([operationId, parameters]) => [
      operationId,
      {
        operationId,
        parameters: Object.fromEntries(
          Object.entries(parameters).map(([name, field]) => [name, `$response.body#/${field}`]),
        ),
      },
    ]),
  );
}

function headerObjects(headers: Readonly<Record<string, string>>): Json {
  return Object.fromEntries(
    Object.entries(headers).map(([name, description]) => [name, { description, schema: { type: "string" } }]),
  );
}

function requestBody(operation: Operation, components: Components): Json | undefined {
  const { body, stream, examples = {} } = operation;
  const [mediaType, schema] = stream ? [stream.mediaType, stream.schema] : ["application/json", body];
  if (schema === undefined) return undefined;
  const named = Object.entries(examples).map(([name, value]) => [name, { value }]);
  const content = {
    schema: components.schemaOf(schema, "input"),
    ...(named.length > 0 && { examples: Object.fromEntries(named) }),
  };
  return { required: operation.id !== "createUpload", content: { [mediaType]: content } };
}

/** Headers that OpenAPI has its own words for. */
const NOT_PARAMETERS = ["accept", "content-type", "authorization"];

function parameters(
  where: "path" | "query" | "header",
  schema: z.ZodObject | undefined,
  components: Components,
): Json[] {
  if (schema === undefined) return [];
  const { properties = {}, required = [] } = components.schemaOf(schema, "input") as {
    properties?: Record<string, Json>;
    required?: string[];
  };
  return Object.entries(properties)
    .filter(([name, { curlOnly }]) => curlOnly !== true && !(where === "header" && NOT_PARAMETERS.includes(name)))
    .map(([name, { description, clientsMustSend, ...rest }]) => ({
      name,
      in: where,
      required: where === "path" || required.includes(name) || clientsMustSend === true,
      ...(description !== undefined && { description }),
      schema: rest,
    }));
}

function problemResponses(components: Components): Json {
  const schema = components.schemaOf(Problem, "output");
  const byStatus = Map.groupBy(Object.keys(PROBLEMS) as ProblemCode[], (code) => PROBLEMS[code].status);
  const retry = { "Retry-After": { description: "Seconds.", schema: { type: "string" } } };
  // 405 has no operation that could list it: it is for the methods that a path does not have.
  byStatus.delete(PROBLEMS.method_not_allowed.status);
  const responses = [...byStatus].map(([status, codes]) => {
    const code = codes[0]!;
    const { title } = PROBLEMS[code];
    const example = {
      type: problemType(code),
      title,
      status,
      detail: `${title}.`,
      code,
      request_id: "0199d3b2-4f6e-7000",
    };
    return [
      `Problem${status}`,
      {
        description: codes.map((it) => `\`${it}\`: ${PROBLEMS[it].title}.`).join(" "),
        ...((status === 429 || status === 503) && { headers: retry }),
        content: { [PROBLEM_MEDIA_TYPE]: { schema, example } },
      },
    ];
  });
  const other = { description: "Any other problem.", content: { [PROBLEM_MEDIA_TYPE]: { schema } } };
  return { Problem: other, ...Object.fromEntries(responses) };
}
