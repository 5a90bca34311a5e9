import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { arbitraryFor } from "../support/arbitrary-requests.ts";
import { formOf } from "../support/calls.ts";
import { modelBytes } from "../support/memory-workers.ts";
import { at } from "../support/openapi-validator.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

/** Random requests made from the document: whatever comes, the answer is a declared one, and never 5xx. */

let api: TestServer;
let modelId: string;
before(async () => {
  api = await startTestServer({ settings: { maxUploadBytes: 100_000, maxQueuedJobsPerKey: 10_000 } });
  modelId = (await api.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) })).json.id;
});
after(() => api.close());

/** Strings that break things. */
const odd = fc.constantFrom(
  "",
  " ",
  ".",
  "..",
  "%",
  "\u0000",
  "null",
  "-1",
  "1e999",
  "'",
  '"',
  "<script>",
  "{x}",
  "💣",
  "a".repeat(300),
);

test("every operation, with parameters, headers and bodies that fit, nearly fit, or do not", async () => {
  const operations = Object.entries(api.document.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
  );
  for (const { path, method, operation } of operations) {
    const part = (where: string) =>
      fc.record(
        Object.fromEntries(
          operation.parameters
            .filter((it) => it.in === where)
            .map((it) => [
              it.name,
              fc.oneof(arbitraryFor(it.schema, api.document).map(String), odd, fc.string({ maxLength: 20 })),
            ]),
        ),
        { requiredKeys: [] },
      );
    const bodies = Object.entries(operation.requestBody?.content ?? {}).map(([type, { schema }]) => ({ type, schema }));
    const body =
      method === "GET" || method === "HEAD" || bodies.length === 0
        ? fc.constant(undefined)
        : fc.oneof(
            ...bodies.map(({ type, schema }) =>
              fc.record({
                type: fc.oneof(
                  { weight: 5, arbitrary: fc.constant(type) },
                  fc.constantFrom("text/plain", "application/json"),
                ),
                text: fc.oneof(
                  { weight: 3, arbitrary: arbitraryFor(schema, api.document).map((value) => JSON.stringify(value)) },
                  fc.json(),
                  fc.string({ maxLength: 200 }),
                ),
              }),
            ),
          );
    const ids = fc.oneof(fc.constantFrom(modelId, "mdl_x", "job_x"), odd, fc.string({ maxLength: 20 }));
    await fc.assert(
      fc.asyncProperty(part("query"), part("header"), body, ids, async (query, headers, sent, id) => {
        // URLs have no segments that are empty, or dots.
        const segment = /^\.{0,2}$/.test(id) ? "x" : encodeURIComponent(id);
        const url = path.replaceAll(/\{\w+\}/g, () => segment);
        const search = new URLSearchParams(query as Record<string, string>).toString();
        const init: RequestInit = { headers: cleaned({ ...headers, ...(sent && { "content-type": sent.type }) }) };
        if (sent !== undefined) init.body = sent.text;
        if (path.endsWith("/{model_id}") && method === "DELETE") return; // The model is needed.
        const { status } = await api.call(method, `${url}${search === "" ? "" : `?${search}`}`, init);
        assert.ok(status < 500, `${method} ${url} -> ${status}`);
      }),
      { numRuns: 40 },
    );
  }
});

/** Targets that take every method. */
const ONNXRUNTIME_ON_CPU = /^(auto|portable|arm64|x64-[a-z0-9]+|undefined)$/;

test("valid job requests are accepted as they are, and their effective params are all that the document has", async () => {
  const labelled = formOf({ "d.npz": Buffer.from("labels") });
  const datasetId = (await api.call("POST", "/v1/datasets", { body: labelled })).json.id;
  const params = arbitraryFor({ $ref: "#/components/schemas/QuantizeParams" }, api.document);
  const acceptance = arbitraryFor({ $ref: "#/components/schemas/AcceptanceLimits" }, api.document);
  const { oneOf } = at(api.document, "/components/schemas/QuantizeParams") as { oneOf: { $ref: string }[] };
  const methods = oneOf.map(({ $ref }) => at(api.document, $ref.slice(1))) as {
    readonly properties: Readonly<Record<string, { readonly const?: string }>> & {
      readonly method: { readonly const: string };
    };
  }[];
  await fc.assert(
    fc.asyncProperty(params, acceptance, fc.integer({ min: 1, max: 10 }), async (drawn, acceptance, priority) => {
      const params = { ...(drawn as Record<string, unknown>) };
      if ("dataset_id" in params) params.dataset_id = datasetId;
      obeyRules(params, datasetId);
      const { max_metric_drop: _needsLabels, ...limits } = acceptance as Record<string, number>;
      const body = JSON.stringify({ type: "quantize", model_id: modelId, params, acceptance: limits, priority });
      const { status, json } = await api.call("POST", "/v1/jobs", {
        body,
        headers: { "content-type": "application/json" },
      });
      // What another runtime cannot take is a matter of records of that runtime, not of the document.
      if (status === 422 && !ONNXRUNTIME_ON_CPU.test(String(params.target))) {
        const codes = (json.errors as { code: string }[]).map(({ code }) => code);
        assert.deepEqual([...new Set(codes)], ["target_mismatch"], JSON.stringify(json));
        return;
      }
      assert.equal(status, 202, JSON.stringify(json));
      // JSON has no negative zero.
      const sent = JSON.parse(JSON.stringify(params)) as Record<string, unknown>;
      for (const [name, value] of Object.entries(sent)) assert.deepEqual(json.effective_params[name], value);
      const { properties } = methods.find((method) => method.properties.method.const === params.method)!;
      const missing = Object.keys(properties).filter((name) => !(name in json.effective_params));
      // Candidates belong to one way of rounding; without a loss the teacher's outputs are learned.
      assert.deepEqual(
        missing.filter((name) => name !== "candidates" && name !== "loss"),
        [],
      );
      await api.call("POST", `/v1/jobs/${json.id}/cancel`);
      assert.equal((await api.call("DELETE", `/v1/jobs/${json.id}`)).status, 204);
    }),
    { numRuns: 150 },
  );
  await api.call("DELETE", `/v1/datasets/${datasetId}`);
});

test("any bytes as multipart are refused with 4xx, and nothing is left", async () => {
  const before = await api.files();
  const piece = fc.oneof(
    fc.constantFrom(
      "--b\r\n",
      "--b--",
      "\r\n\r\n",
      "\r\n",
      'content-disposition: form-data; name="file"; filename="m.onnx"',
      "--b",
    ),
    fc.constantFrom(
      'content-disposition: form-data; name="metadata"',
      "content-type: application/json",
      "memory model\n",
    ),
    fc.string({ maxLength: 30 }),
    fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes).toString("latin1")),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 12 }), async (pieces) => {
      const headers = { "content-type": "multipart/form-data; boundary=b" };
      const { status, json } = await api.call("POST", "/v1/models", {
        body: Buffer.from(pieces.join(""), "latin1"),
        headers,
      });
      if (status === 201) await api.call("DELETE", `/v1/models/${json.id}`);
      else assert.ok(status >= 400 && status < 500, `${status}`);
    }),
    { numRuns: 400 },
  );
  assert.deepEqual((await api.files()).toSorted(), before.toSorted());
});

/** Makes params keep the rules between fields, and between fields and the model, that the document has in words only. */
function obeyRules(params: Record<string, unknown>, datasetId: string): void {
  // They name what the model has.
  delete params.exclude_nodes;
  delete params.exclude_ops;
  delete params.layers;
  if (typeof params.max_metric_drop === "number" && typeof params.min_sqnr_db === "number") delete params.min_sqnr_db;
  if (params.method === "weight_only") {
    if (params.algorithm === "gptq" || params.rounding === "gptq") params.algorithm = params.rounding = "gptq";
    if (params.bits === 2) params.format = "matmulnbits";
    if ((params.rounding ?? "nearest") === "nearest") delete params.dataset_id;
    else params.dataset_id = datasetId;
  }
  // Without `bits` weights have 8, which are rounded to nearest.
  if (params.method === "qat")
    for (const field of ["teacher", "loss", "training", "epochs", "bits", "rounding"]) delete params[field];
  if (params.rounding !== "stochastic") delete params.candidates;
  // Parameters that would have no effect are refused.
  if (params.calibration !== "percentile") delete params.percentile;
  if (params.min_sqnr_db === null && typeof params.max_metric_drop !== "number") delete params.max_trials;
  if (params.format === "qdq") delete params.accuracy_level;
  if (params.method === "weight_only" && (params.rounding ?? "nearest") === "nearest") delete params.samples;
}

/** Header values that fetch would refuse to send. */
function cleaned(headers: Readonly<Record<string, unknown>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [
      name,
      String(value)
        .replace(/[^\x20-\x7e]/g, "?")
        .trim(),
    ]),
  );
}
