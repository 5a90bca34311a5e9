import assert from "node:assert/strict";
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

/** What of an OpenAPI document the checks look at. */
/** A body in one media type. */
interface Media {
  readonly schema: unknown;
  readonly example?: unknown;
  readonly examples?: Readonly<Record<string, { readonly value: unknown }>>;
}

export interface OpenApiDocument {
  readonly paths: Readonly<Record<string, Readonly<Record<string, OpenApiOperation>>>>;
  readonly components: {
    readonly schemas: Readonly<Record<string, unknown>>;
    readonly responses: Readonly<Record<string, OpenApiResponse>>;
  };
}

export interface OpenApiOperation {
  readonly operationId: string;
  readonly parameters: readonly { readonly name: string; readonly in: string; readonly schema: unknown }[];
  readonly requestBody?: {
    readonly content: Readonly<Record<string, Media>>;
  };
  readonly responses: Readonly<Record<string, OpenApiResponse>>;
}

export interface OpenApiResponse {
  readonly $ref?: string;
  readonly headers?: Readonly<Record<string, unknown>>;
  readonly content?: Readonly<Record<string, Media>>;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Buffer;
}

export interface OpenApiValidator {
  /** Throws an AssertionError when the document does not declare this answer. */
  checkAnswer(method: string, path: string, answer: Answer): void;
  /** Throws when a value does not fit the schema at a JSON pointer into the document. */
  checkValue(pointer: string, value: unknown): void;
}

/**
 * Checks answers against the document: status, media type, body. Stricter than clients must be: a status that only
 * `default` covers and a field that no schema names are failures.
 */
export function createOpenApiValidator(document: OpenApiDocument): OpenApiValidator {
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  addFormats.default(ajv);
  ajv.addFormat("int64", true);
  ajv.addFormat("binary", true);
  ajv.addSchema({ $id: "api", ...(closed(document) as object) });

  // Compiling takes far longer than validating, and ajv remembers no schema by what is in it.
  const compiled = new Map<string, ValidateFunction>();

  function checkValue(pointer: string, value: unknown): void {
    const validate = compiled.get(pointer) ?? ajv.compile({ $ref: `api#${pointer}` });
    compiled.set(pointer, validate);
    assert.ok(
      validate(value),
      `${pointer}: ${ajv.errorsText(validate.errors)}\n${JSON.stringify(value).slice(0, 2000)}`,
    );
  }

  function responseAt(method: string, path: string, status: number) {
    const template = Object.keys(document.paths)
      .filter((it) => new RegExp(`^${it.replaceAll(/\{\w+\}/g, "[^/]+")}$`).test(path))
      .sort((a, b) => (a.match(/\{/g)?.length ?? 0) - (b.match(/\{/g)?.length ?? 0))[0];
    // A path or method that nobody declares can only be refused.
    const undeclared = { pointer: "/components/responses/Problem", declared: [400, 404, 405, 429].includes(status) };
    if (template === undefined) return undeclared;
    const verb = method.toLowerCase();
    // HEAD is GET without a body.
    const item = document.paths[template]!;
    const key = verb === "head" && item.head === undefined ? "get" : verb;
    if (item[key] === undefined) return undeclared;
    const ref = item[key].responses[status]?.$ref;
    const pointer = ref?.slice(1) ?? `/paths/${template.replaceAll("/", "~1")}/${key}/responses/${status}`;
    return { pointer, declared: item[key].responses[status] !== undefined };
  }

  return {
    checkValue,
    checkAnswer(method, path, { status, headers, body }) {
      const where = `${method} ${path} -> ${status}`;
      assert.ok(headers.get("x-request-id"), `${where}: no x-request-id`);
      const { pointer, declared } = responseAt(method, path, status);
      assert.ok(declared, `${where}: the document does not declare this status\n${body.subarray(0, 1000)}`);
      const response = at(document, pointer) as OpenApiResponse | undefined;
      assert.ok(response, `${where}: nothing at ${pointer}`);
      for (const name of Object.keys(response.headers ?? {})) {
        const optional = ["Retry-After", "Upload-Expires", "Repr-Digest"].includes(name);
        assert.ok(optional || headers.has(name), `${where}: the document promises the header ${name}`);
      }
      if (method === "HEAD" || status === 304) return assert.equal(body.length, 0, `${where}: there must be no body`);
      if (response.content === undefined)
        return assert.equal(body.length, 0, `${where}: the document declares no body`);
      const type = headers.get("content-type")?.split(";")[0] ?? "";
      assert.ok(type in response.content, `${where}: media type ${type} is not declared`);
      if (!/json$/.test(type)) return;
      checkValue(`${pointer}/content/${type.replaceAll("/", "~1")}/schema`, JSON.parse(body.toString()));
    },
  };
}

export function at(document: unknown, pointer: string): unknown {
  return pointer
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    .reduce<unknown>((node, part) => (node as Record<string, unknown> | undefined)?.[part], document);
}

/** The same document, whose objects have the fields that it names and no others. */
function closed(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(closed);
  if (node === null || typeof node !== "object") return node;
  const out = Object.fromEntries(Object.entries(node).map(([key, child]) => [key, closed(child)]));
  if (out.type === "object" && out.properties !== undefined && out.additionalProperties === undefined) {
    out.additionalProperties = false;
  }
  return out;
}
