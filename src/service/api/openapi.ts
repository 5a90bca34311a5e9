import { z } from "zod";
import { PROBLEMS, type ProblemCode, problemType } from "../errors.ts";
import { PROBLEM_MEDIA_TYPE, Problem } from "../problem-schema.ts";
import { ALL_OPERATIONS } from "./all-operations.ts";
import { JobEnded } from "./job-schemas.ts";
import type { Operation, ResponseSpec } from "./operation.ts";

/**
 * The OpenAPI 3.1 document of the API, from the operations and their zod schemas. What generators of clients trip over
 * is put right here: unions get a discriminator with a mapping, every named schema is a component exactly once,
 * responses may grow fields.
 */

type Json = Record<string, unknown>;

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
  const webhooks = { jobEnded: { post: jobEndedObject(components) } };
  const schemas = components.schemas();
  return {
    openapi: "3.1.0",
    info: {
      title: "modelpress",
      version,
      summary: "Model compression as a service.",
      description:
        "Send an ONNX model, choose a method, and get a smaller model back together with the measured evidence. " +
        "Clients must accept fields, enum values and problem codes that they do not know: they may be added at any " +
        "time.",
      license: { name: "Proprietary", identifier: "LicenseRef-Proprietary" },
    },
    servers: [{ url: "/", description: "Where this document came from." }],
    tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
    security: [{ apiKey: [] }],
    paths,
    webhooks,
    components: {
      schemas,
      responses,
      securitySchemes: {
        apiKey: { type: "http", scheme: "bearer", description: "Not needed when the service has no keys configured." },
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
    ...(description !== undefined && { description }),
    ...(access === "open" && { security: [] }),
    parameters: [
      ...parameters("path", operation.params, components),
      ...parameters("query", operation.query, components),
      ...parameters("header", operation.headers, components),
    ],
    ...(body !== undefined && { requestBody: body }),
    responses,
  };
}

function jobEndedObject(components: Components): Json {
  const headers = {
    "webhook-id": "The same for every attempt to deliver it.",
    "webhook-timestamp": "Seconds since 1970.",
    "webhook-signature": "`v1,` and the base64 of HMAC-SHA256 over id, timestamp and body, joined with dots.",
  };
  return {
    operationId: "jobEnded",
    tags: ["Jobs"],
    summary: "A job has ended",
    description:
      "Sent to the `webhook` of a job, by the Standard Webhooks specification, until it is answered with 2xx.",
    security: [],
    parameters: Object.entries(headers).map(([name, description]) => ({
      name,
      in: "header",
      required: true,
      description,
      schema: { type: "string" },
    })),
    requestBody: {
      required: true,
      content: { "application/json": { schema: components.schemaOf(JobEnded, "output") } },
    },
    responses: {
      "2XX": { description: "It was received." },
      "410": { description: "Nobody wants it: it is not sent again." },
      default: { description: "It is sent again later." },
    },
  };
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

const BINARY = { type: "string", format: "binary" };

function headerObjects(headers: Readonly<Record<string, string>>): Json {
  return Object.fromEntries(
    Object.entries(headers).map(([name, description]) => [name, { description, schema: { type: "string" } }]),
  );
}

function requestBody(operation: Operation, components: Components): Json | undefined {
  const types = {
    ...(operation.body && { "application/json": operation.body }),
    ...operation.streams,
  };
  if (Object.keys(types).length === 0) return undefined;
  const content = Object.entries(types).map(([type, schema]) => {
    const named = Object.entries(operation.examples?.[type] ?? {}).map(([name, value]) => [name, { value }]);
    const examples = named.length > 0 && { examples: Object.fromEntries(named) };
    return [type, { schema: components.schemaOf(schema, "input"), ...examples }];
  });
  return { required: operation.id !== "createUpload", content: Object.fromEntries(content) };
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
    .filter(([name]) => !(where === "header" && NOT_PARAMETERS.includes(name)))
    .map(([name, { description, ...rest }]) => ({
      name,
      in: where,
      required: where === "path" || required.includes(name),
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

/**
 * Collects the named schemas. One that reads the same in requests and responses is one component; where they differ
 * because responses have every default filled in, the response's is called `Effective…`.
 */
class Components {
  readonly #forms = { input: new Map<string, Json>(), output: new Map<string, Json>() };
  readonly #responses: Json[] = [];

  /** The schema as OpenAPI has it, with references to the named ones in it. */
  schemaOf(schema: z.ZodType, io: "input" | "output"): Json {
    const { $schema, $defs, ...root } = z.toJSONSchema(schema, {
      io,
      target: "draft-2020-12",
      override: improve,
    }) as Json;
    for (const [name, definition] of Object.entries(($defs ?? {}) as Record<string, Json>)) {
      this.#forms[io].set(name, tidy(definition, io));
    }
    const tidied = tidy(root, io);
    if (io === "output") this.#responses.push(tidied);
    return tidied;
  }

  /**
   * All of them by name. Call it last: it also rewrites, in responses that `schemaOf` has answered, references to
   * `Effective…`.
   */
  schemas(): Json {
    const { input, output } = this.#forms;
    const effective = new Set<string>();
    // A schema also differs when one that it refers to does.
    for (let size = -1; size !== effective.size; ) {
      size = effective.size;
      for (const [name, form] of output) {
        const request = input.get(name);
        if (request === undefined) continue;
        const differs = comparable(form) !== comparable(request) || referencesOf(form).some((it) => effective.has(it));
        if (differs) effective.add(name);
      }
    }
    const named = new Map(input);
    for (const response of this.#responses) renameReferences(response, effective);
    for (const [name, form] of output) {
      renameReferences(form, effective);
      named.set(effective.has(name) ? `Effective${name}` : name, form);
    }
    return Object.fromEntries([...named].sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}

const PREFIX = "#/components/schemas/";

/** Called for each schema while it is converted, with the zod schema it comes from. */
function improve({ zodSchema, jsonSchema }: { zodSchema: z.core.$ZodTypes; jsonSchema: Json }): void {
  const { def } = zodSchema._zod;
  if (def.type === "union" && "discriminator" in def)
    addDiscriminator(def as z.core.$ZodDiscriminatedUnionDef, jsonSchema);
  if (def.type === "file") {
    for (const key of Object.keys(jsonSchema)) delete jsonSchema[key];
    Object.assign(jsonSchema, BINARY);
  }
  // The format says it; the pattern is 250 characters of calendar.
  if (jsonSchema.format === "date-time") delete jsonSchema.pattern;
  // Bounds of JavaScript's numbers, not of the field.
  if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
  if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
  if (jsonSchema.type === "integer") jsonSchema.format = "int64";
  if (def.type === "record") delete jsonSchema.propertyNames;
}

function addDiscriminator({ discriminator, options }: z.core.$ZodDiscriminatedUnionDef, jsonSchema: Json): void {
  // OpenAPI maps to objects only: the members of a union that holds another one are told apart by their constants.
  if (options.some((option) => option._zod.def.type === "union")) {
    jsonSchema.anyOf = jsonSchema.oneOf;
    delete jsonSchema.oneOf;
    return;
  }
  const mapping: Record<string, string> = {};
  for (const option of options) {
    const name = z.globalRegistry.get(option)?.id;
    if (name === undefined) throw new Error("The members of a union must be named.");
    const values = option._zod.propValues?.[discriminator] ?? new Set();
    for (const value of values) if (value !== undefined) mapping[String(value)] = PREFIX + name;
  }
  jsonSchema.discriminator = { propertyName: discriminator, mapping };
}

/** Points references at the components, makes lists of constants enums, and lets responses grow. */
function tidy(value: unknown, io: "input" | "output"): Json {
  const walk = (node: unknown): unknown => {
    if (Array.isArray(node)) return node.map(walk);
    if (node === null || typeof node !== "object") return node;
    const out: Json = {};
    for (const [key, child] of Object.entries(node)) {
      if (key === "additionalProperties" && child === false && io === "output") continue;
      if (key === "$ref" && typeof child === "string") out.$ref = child.replace("#/$defs/", PREFIX);
      else out[key] = walk(child);
    }
    const constants = Array.isArray(out.anyOf) ? out.anyOf.map((it: Json) => it.const) : [];
    if (constants.length > 0 && constants.every((it) => typeof it === "number")) {
      out.type = constants.every(Number.isInteger) ? "integer" : "number";
      out.enum = constants;
      delete out.anyOf;
    }
    return out;
  };
  return walk(value) as Json;
}

/** Requests may refuse unknown fields where responses must not: that alone is no difference. */
function comparable(schema: Json): string {
  return JSON.stringify(schema, (key, value) =>
    key === "additionalProperties" && value === false ? undefined : value,
  );
}

function referencesOf(node: unknown): string[] {
  if (node === null || typeof node !== "object") return [];
  return Object.entries(node).flatMap(([key, child]) =>
    key === "$ref" ? [String(child).slice(PREFIX.length)] : referencesOf(child),
  );
}

function renameReferences(node: unknown, effective: ReadonlySet<string>): void {
  if (node === null || typeof node !== "object") return;
  for (const [key, child] of Object.entries(node)) {
    const name = typeof child === "string" && child.startsWith(PREFIX) ? child.slice(PREFIX.length) : undefined;
    if (name !== undefined && effective.has(name)) (node as Json)[key] = `${PREFIX}Effective${name}`;
    else renameReferences(child, effective);
  }
}
