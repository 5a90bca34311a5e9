import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { promisify } from "node:util";
import { generate } from "../../../scripts/openapi.ts";
import { ALL_OPERATIONS } from "../../../src/service/api/all-operations.ts";
import { buildOpenApi } from "../../../src/service/api/openapi.ts";
import { PROBLEMS } from "../../../src/service/errors.ts";
import {
  createOpenApiValidator,
  type OpenApiDocument,
  type OpenApiOperation,
} from "../../support/openapi-validator.ts";

const document = buildOpenApi("0.0.0") as unknown as OpenApiDocument;
const operations = Object.entries(document.paths).flatMap(([path, item]) =>
  Object.entries(item).map(([method, operation]) => ({ path, method, operation })),
);

/** Every object in the document that is a schema, with where it is. */
function* schemasIn(node: unknown, pointer = ""): Generator<{ pointer: string; schema: Record<string, unknown> }> {
  if (node === null || typeof node !== "object") return;
  if (!Array.isArray(node)) yield { pointer, schema: node as Record<string, unknown> };
  for (const [key, child] of Object.entries(node)) {
    if (key !== "example" && key !== "examples") yield* schemasIn(child, `${pointer}/${key.replaceAll("/", "~1")}`);
  }
}

test("openapi.yaml and the generated types are what the code says (npm run openapi)", async () => {
  for (const { file, text } of await generate()) {
    assert.equal(await readFile(file, "utf8"), text, `${file.pathname} has drifted`);
  }
});

test("the document passes the linter without an exception", async () => {
  const root = new URL("../../..", import.meta.url).pathname;
  const env = { ...process.env, REDOCLY_TELEMETRY: "off", REDOCLY_SUPPRESS_UPDATE_NOTICE: "true" };
  const lint = promisify(execFile)("node_modules/.bin/redocly", ["lint", "--format=json"], { cwd: root, env });
  const { stdout } = await lint.catch((failed: { stdout: string }) => failed);
  assert.deepEqual(JSON.parse(stdout).problems, []);
});

test("the operation ids of the contract are all there, and each id is there once", () => {
  const contract =
    "createModel listModels getModel downloadModel listModelLayers deleteModel createDataset listDatasets getDataset downloadDataset " +
    "deleteDataset createJob listJobs getJob cancelJob retryJob deleteJob listJobEvents downloadJobArtifact getJobReport getCapabilities";
  const ids = operations.map(({ operation }) => operation.operationId);
  assert.equal(new Set(ids).size, ids.length);
  assert.deepEqual(
    contract.split(" ").filter((id) => !ids.includes(id)),
    [],
  );
});

test("every operation lists its refusals, as problem+json", () => {
  for (const { operation } of operations) {
    const refusals = Object.entries(operation.responses).filter(
      ([status]) => status === "default" || Number(status) >= 400,
    );
    for (const status of ["400", "429", "500", "503", "default"]) {
      assert.ok(
        refusals.some(([it]) => it === status),
        `${operation.operationId} does not list ${status}`,
      );
    }
    for (const [status, { $ref }] of refusals) {
      const name = $ref?.replace("#/components/responses/", "") ?? "";
      const { content } = document.components.responses[name] ?? {};
      assert.deepEqual(Object.keys(content ?? {}), ["application/problem+json"], `${operation.operationId} ${status}`);
    }
  }
  const open = ["getHealth", "getReadiness", "getOpenApiJson", "getOpenApiYaml", "getUploadOptions"];
  for (const { operation } of operations) {
    assert.equal("401" in operation.responses, !open.includes(operation.operationId), operation.operationId);
  }
});

test("the mapping of a union's discriminator names its members", () => {
  let unions = 0;
  for (const { pointer, schema } of schemasIn(document)) {
    if (schema.discriminator === undefined) continue;
    unions++;
    assert.ok(Array.isArray(schema.oneOf), pointer);
    const { propertyName, mapping } = schema.discriminator as { propertyName: string; mapping: Record<string, string> };
    assert.deepEqual(
      Object.values(mapping).sort(),
      schema.oneOf.map((it: { $ref: string }) => it.$ref).sort(),
      pointer,
    );
    for (const [value, $ref] of Object.entries(mapping)) {
      const name = $ref.replace("#/components/schemas/", "");
      const member = document.components.schemas[name] as { properties: Record<string, unknown>; required: string[] };
      assert.deepEqual((member.properties[propertyName] as { const: string }).const, value);
      assert.ok(member.required.includes(propertyName));
    }
  }
  assert.ok(unions >= 4, `${unions} unions`);
});

test("responses may grow: no schema that they reach refuses unknown fields", () => {
  const reached = new Set<string>();
  const visit = (node: unknown): void => {
    for (const { schema } of schemasIn(node)) {
      assert.notEqual(schema.additionalProperties, false, JSON.stringify(schema).slice(0, 300));
      const ref = typeof schema.$ref === "string" ? schema.$ref : "";
      const name = ref.replace(/^#\/components\/(schemas|responses)\//, "");
      if (ref === "" || reached.has(ref)) continue;
      reached.add(ref);
      visit(ref.includes("/responses/") ? document.components.responses[name] : document.components.schemas[name]);
    }
  };
  for (const { operation } of operations) visit(operation.responses);
  assert.ok(reached.has("#/components/schemas/EffectiveEvaluationOptions"));
});

test("a schema that requests and responses share is one component; no Input twins", () => {
  const names = Object.keys(document.components.schemas);
  assert.deepEqual(
    names.filter((name) => /(Input|Output)$/.test(name)),
    [],
  );
  assert.ok(names.includes("Metadata") && !names.includes("EffectiveMetadata"));
});

test("request fields with a default are optional, and in answers they are there", () => {
  const { Float16Params, EvaluationOptions, EffectiveEvaluationOptions } = document.components.schemas as Record<
    string,
    { required?: string[] }
  >;
  assert.deepEqual(Float16Params!.required, ["method"]);
  assert.equal(EvaluationOptions!.required, undefined);
  assert.ok(EffectiveEvaluationOptions!.required!.includes("samples"));
});

test("every example is valid", () => {
  const validator = createOpenApiValidator(document);
  let examples = 0;
  const check = (pointer: string, content: OpenApiOperation["responses"][string]["content"]) => {
    for (const [type, { example, examples: named = {} }] of Object.entries(content ?? {})) {
      for (const value of [example, ...Object.values(named).map(({ value }) => value)]) {
        if (value === undefined) continue;
        examples++;
        validator.checkValue(`${pointer}/content/${type.replaceAll("/", "~1")}/schema`, value);
      }
    }
  };
  for (const { path, method, operation } of operations) {
    const pointer = `/paths/${path.replaceAll("/", "~1")}/${method}`;
    check(`${pointer}/requestBody`, operation.requestBody?.content);
    for (const [status, response] of Object.entries(operation.responses)) {
      check(`${pointer}/responses/${status}`, response.content);
    }
  }
  assert.ok(examples > 17, `${examples} examples`);
});

test("every problem code is documented", () => {
  const text = JSON.stringify(document);
  for (const code of Object.keys(PROBLEMS)) assert.ok(text.includes(`\`${code}\``), code);
  assert.ok(ALL_OPERATIONS.length === operations.length);
});
