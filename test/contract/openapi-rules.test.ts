import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { parse } from "yaml";

/**
 * What generators of clients need of openapi.yaml, so that what they make compiles and goes on to work when the service learns more.
 * Each rule is one that some generator breaks without: bench/clients shows it.
 */

type Json = Readonly<Record<string, unknown>>;
interface Media {
  readonly schema: Json;
}
interface Response {
  readonly $ref?: string;
  readonly content?: Readonly<Record<string, Media>>;
}
interface OperationObject {
  readonly operationId: string;
  readonly summary: string;
  readonly description: string;
  readonly tags: readonly string[];
  readonly parameters: readonly { readonly name: string; readonly in: string; readonly schema: Json }[];
  readonly requestBody?: { readonly content: Readonly<Record<string, Media>> };
  readonly responses: Readonly<Record<string, Response>>;
  readonly callbacks?: Json;
}
interface Document {
  readonly security: readonly Json[];
  readonly webhooks?: unknown;
  readonly paths: Readonly<Record<string, Readonly<Record<string, OperationObject>>>>;
  readonly components: {
    readonly schemas: Readonly<Record<string, Json>>;
    readonly responses: Readonly<Record<string, Response>>;
  };
}

const document = parse(await readFile(new URL("../../openapi.yaml", import.meta.url), "utf8")) as Document;
const { schemas } = document.components;
const operations = Object.values(document.paths).flatMap((item) => Object.values(item));
const PREFIX = "#/components/schemas/";

/** Every schema below one, itself too, without following references. */
function* below(schema: Json, where: string): Generator<{ readonly where: string; readonly schema: Json }> {
  yield { where, schema };
  for (const key of ["items", "additionalProperties", "not"]) {
    const child = schema[key];
    if (typeof child === "object" && child !== null) yield* below(child as Json, `${where}/${key}`);
  }
  for (const key of ["anyOf", "oneOf", "allOf"]) {
    for (const [i, child] of ((schema[key] as Json[] | undefined) ?? []).entries()) {
      yield* below(child, `${where}/${key}/${i}`);
    }
  }
  for (const [name, child] of Object.entries((schema.properties as Record<string, Json> | undefined) ?? {})) {
    yield* below(child, `${where}/${name}`);
  }
}

/** All schemas that these reach, references followed. */
function reached(roots: readonly { readonly where: string; readonly schema: Json }[]) {
  const found = new Map<string, Json>();
  const visit = (root: Json, at: string): void => {
    for (const { where, schema } of below(root, at)) {
      found.set(where, schema);
      const name = typeof schema.$ref === "string" ? schema.$ref.slice(PREFIX.length) : undefined;
      if (name !== undefined && !found.has(name)) visit(schemas[name]!, name);
    }
  };
  for (const { where, schema } of roots) visit(schema, where);
  return [...found].map(([where, schema]) => ({ where, schema }));
}

const bodiesOf = (content: Readonly<Record<string, Media>> | undefined) => Object.values(content ?? {});
const responseOf = ({ $ref, ...response }: Response) =>
  $ref === undefined ? response : document.components.responses[$ref.split("/").at(-1)!]!;

const requests = reached(
  operations.flatMap(({ operationId, parameters, requestBody }) => [
    ...parameters.map(({ name, schema }) => ({ where: `${operationId} ${name}`, schema })),
    ...bodiesOf(requestBody?.content).map(({ schema }) => ({ where: `${operationId} body`, schema })),
  ]),
);
const callbackBodies = operations.flatMap(({ operationId, callbacks = {} }) =>
  [...JSON.stringify(callbacks).matchAll(/"\$ref":"#\/components\/schemas\/(\w+)"/g)].map(([, name]) => ({
    where: `${operationId} callback`,
    schema: { $ref: PREFIX + name },
  })),
);
const answers = reached([
  ...operations.flatMap(({ operationId, responses }) =>
    Object.entries(responses).flatMap(([status, response]) =>
      bodiesOf(responseOf(response).content).map(({ schema }) => ({ where: `${operationId} ${status}`, schema })),
    ),
  ),
  ...callbackBodies,
]);
const all = reached([...requests, ...answers]);

const typesOf = ({ type }: Json) => [type].flat();
const unionOf = (schema: Json) => (schema.anyOf ?? schema.oneOf) as readonly Json[] | undefined;

/** Where a rule is broken. */
function broken(where: typeof all, breaks: (schema: Json) => boolean): readonly string[] {
  return where.filter(({ schema }) => breaks(schema)).map((it) => it.where);
}

test("the walk finds the document", () => {
  assert.ok(operations.length > 20 && requests.length > 300 && answers.length > 300);
  assert.ok(answers.some(({ where }) => where === "Job/status") && requests.some(({ where }) => where === "Training"));
  assert.ok(callbackBodies.length > 0);
  // Nothing is declared that no operation uses.
  assert.deepEqual(
    Object.keys(schemas).filter((name) => !all.some(({ where }) => where === name)),
    [],
  );
});

test("an operation takes one media type, answers with one, and has one schema for success", () => {
  for (const { operationId, requestBody, responses } of operations) {
    assert.ok(Object.keys(requestBody?.content ?? { none: 1 }).length === 1, operationId);
    const successes = Object.entries(responses).filter(([status]) => status.startsWith("2"));
    const contents = successes.flatMap(([, { content }]) => Object.entries(content ?? {}));
    assert.ok(new Set(contents.map(([type]) => type)).size <= 1, `${operationId}: ${contents.map(([type]) => type)}`);
    assert.ok(new Set(contents.map(([, { schema }]) => JSON.stringify(schema))).size <= 1, operationId);
    assert.ok(!contents.some(([type]) => type.includes("*")), operationId);
  }
});

test("every operation is described, has one tag, and no webhook is an operation", () => {
  assert.equal(document.webhooks, undefined);
  for (const { operationId, summary, description, tags } of operations) {
    assert.ok(summary.length > 5 && description.length > 20, operationId);
    assert.equal(tags.length, 1, operationId);
  }
});

test("keys are optional: a service may have none", () => {
  assert.ok(document.security.some((scheme) => Object.keys(scheme).length === 0));
});

test("defaults are scalars, of what is no union, and in requests only", () => {
  assert.deepEqual(
    broken(requests, (schema) => {
      const isUnion = unionOf(schema) !== undefined || typesOf(schema).length > 1;
      return "default" in schema && (isUnion || schema.default === null || typeof schema.default === "object");
    }),
    [],
  );
  assert.deepEqual(
    broken(answers.filter(isOwn), (schema) => "default" in schema),
    [],
  );
});

/** Whether a schema of an answer is not one that requests use as well. */
function isOwn({ where }: { readonly where: string }): boolean {
  return !requests.some((request) => request.where === where);
}

test("no titles, no tuples, no schema that is a mere false", () => {
  assert.deepEqual(
    broken(all, (schema) => "title" in schema || "prefixItems" in schema || schema.items === false),
    [],
  );
});

test("numbers and integers say how wide they are", () => {
  assert.deepEqual(
    broken(all, (schema) => typesOf(schema).includes("number") && schema.format !== "double" && !schema.enum),
    [],
  );
  assert.deepEqual(
    broken(all, (schema) => typesOf(schema).includes("integer") && schema.format !== "int64" && !schema.enum),
    [],
  );
});

test("lists of names are components, and of names only", () => {
  const lists = all.filter(({ schema }) => Array.isArray(schema.enum) && schema.type === "string");
  assert.ok(lists.length > 15);
  for (const { where, schema } of lists) {
    assert.ok(where in schemas, `${where} needs a name`);
    for (const value of schema.enum as string[]) assert.match(value, /^[\w.-]+$/, where);
  }
});

test("unions have members of one kind, objects by name", () => {
  for (const { where, schema } of all) {
    const members = unionOf(schema)?.filter(({ type }) => type !== "null") ?? [];
    const references = members.filter((member) => typeof member.$ref === "string");
    assert.ok(references.length === 0 || references.length === members.length, where);
    for (const { type } of members) assert.ok(type !== "array" && type !== "object", where);
  }
});

test("unions of objects choose one, and each pair of members can be told apart", () => {
  const objects = ({ $ref }: Json) =>
    schemas[String($ref).slice(PREFIX.length)] as { properties: Record<string, Json>; required?: string[] };
  let unions = 0;
  for (const { where, schema } of all) {
    const members = unionOf(schema)?.filter((member) => typeof member.$ref === "string") ?? [];
    if (members.length < 2) continue;
    unions++;
    // Of `anyOf` openapi-generator makes one object that needs the fields of all members.
    assert.deepEqual(schema.oneOf, members, where);
    for (const [i, member] of members.entries()) {
      for (const other of members.slice(i + 1)) {
        const [a, b] = [objects(member), objects(other)];
        const needs = (it: typeof a) => it.required ?? [];
        const constants = needs(a).some((name) => {
          const [x, y] = [a.properties[name]!.const, b.properties[name]?.const];
          return x !== undefined && y !== undefined && x !== y;
        });
        const fields =
          needs(a).some((name) => !(name in b.properties)) && needs(b).some((name) => !(name in a.properties));
        assert.ok(constants || fields, `${where}: ${member.$ref} and ${other.$ref}`);
      }
    }
  }
  assert.ok(unions > 6, `${unions} unions`);
});

test("answers are open: no constants, no lists of values, no unions of objects, nothing refused", () => {
  const own = answers.filter(isOwn);
  assert.deepEqual(
    broken(own, (schema) => "enum" in schema || "const" in schema),
    [],
  );
  assert.deepEqual(
    broken(own, (schema) => "additionalProperties" in schema && schema.additionalProperties === false),
    [],
  );
  assert.deepEqual(
    broken(own, (schema) => {
      const objects = unionOf(schema)?.filter((member) => typeof member.$ref === "string") ?? [];
      return objects.length > 1 || "discriminator" in schema;
    }),
    [],
  );
  const bounds = ["minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems"];
  assert.deepEqual(
    broken(own, (schema) => bounds.some((bound) => bound in schema)),
    [],
  );
  const job = schemas.Job as { properties: Record<string, Json> };
  for (const name of ["params", "effective_params"]) {
    assert.deepEqual(job.properties[name]!.additionalProperties, {}, name);
  }
});

test("what answers share with requests has no lists and no unions either", () => {
  assert.deepEqual(
    broken(answers, (schema) => "enum" in schema || "const" in schema || "discriminator" in schema),
    [],
  );
});

test("no schema has the name that a generator gives to the parts of an operation", () => {
  const suffixes = ["Request", "Response", "Responses", "Error", "Errors", "Data", "Params", "Body", "Options"];
  const taken = new Set(
    operations.flatMap(({ operationId }) => suffixes.map((suffix) => `${operationId}${suffix}`.toLowerCase())),
  );
  assert.deepEqual(
    Object.keys(schemas).filter((name) => taken.has(name.toLowerCase())),
    [],
  );
});

test("no schema has the name of another one's constructor in Go, and no boolean is a list of values", () => {
  assert.deepEqual(
    Object.keys(schemas).filter((name) => /^New[A-Z]/.test(name)),
    [],
  );
  assert.deepEqual(
    broken(all, (schema) =>
      [schema.const, ...((schema.enum as unknown[] | undefined) ?? [])].some((it) => typeof it === "boolean"),
    ),
    [],
  );
});

test("names stay apart when case and separators are lost", () => {
  const plain = (name: string) => name.toLowerCase().replaceAll(/[^a-z0-9]/g, "");
  const names = Object.keys(schemas).map(plain);
  assert.equal(new Set(names).size, names.length);
});
