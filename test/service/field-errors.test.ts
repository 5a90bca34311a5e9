import assert from "node:assert/strict";
import { test } from "node:test";
import { JobRequest } from "../../src/service/api/job-schemas.ts";
import { fieldErrorsOf, whatItMustBe } from "../../src/service/field-errors.ts";

/** What a request for a quantization is told, as `pointer code: sentence`. */
function told(body: unknown): readonly string[] {
  const parsed = JobRequest.safeParse(body, { error: whatItMustBe });
  assert.ok(!parsed.success);
  return fieldErrorsOf(parsed.error, "").map(({ code, message }) => `${code} ${message}`);
}

const weightOnly = (params: object) => ({
  type: "quantize",
  model_id: "mdl_1",
  params: { method: "weight_only", ...params },
});

test("a field is told what it must be", () => {
  const cases: readonly [object, string][] = [
    [{ bits: 5 }, "not_allowed /params/bits: must be 2, 4 or 8."],
    [{ bits: "4" }, "not_allowed /params/bits: must be 2, 4 or 8."],
    [{ format: "gguf" }, 'not_allowed /params/format: must be "matmulnbits" or "qdq".'],
    [{ symmetric: 1 }, "wrong_type /params/symmetric: must be true or false."],
    [{ samples: 1.5 }, "wrong_type /params/samples: must be a whole number."],
    [{ samples: 0 }, "too_small /params/samples: must be at least 1."],
    [{ samples: 1e6 }, "too_large /params/samples: must be at most 100000."],
    [{ exclude_nodes: "Conv" }, "wrong_type /params/exclude_nodes: must be a list."],
    [{ exclude_nodes: [""] }, "too_small /params/exclude_nodes/0: must not be empty."],
    [{ bitz: 4 }, "unrecognized_key /params/bitz: there is no such field."],
  ];
  for (const [params, expected] of cases) assert.deepEqual(told(weightOnly(params)), [expected]);
});

test("what is missing is required, and a choice names its choices", () => {
  assert.deepEqual(told({ type: "quantize", params: { method: "float16" } }), ["required /model_id: is required."]);
  assert.deepEqual(told({ ...weightOnly({}), params: undefined }), ["required /params: is required."]);
  assert.deepEqual(told({ ...weightOnly({}), params: {} }), ["required /params/method: is required."]);
  assert.match(told({ type: "prune" })[0]!, /^not_allowed \/type: must be "quantize", .* or ".*"\.$/);
  assert.deepEqual(told(undefined), ["required The body: is required."]);
  assert.deepEqual(told([]), ["wrong_type The body: must be an object."]);
});

test("a union of a word and a number names both", () => {
  const request = { type: "quantize", model_id: "mdl_1", params: { method: "static", dataset_id: "dst_1" } };
  const equalize = told({ ...request, params: { ...request.params, equalize: "never" } });
  assert.deepEqual(equalize, ['not_allowed /params/equalize: must be "auto" or true or false.']);
  const alpha = told({ ...request, params: { ...request.params, smooth_quant_alpha: "no" } });
  assert.deepEqual(alpha, ['not_allowed /params/smooth_quant_alpha: must be "auto" or a number.']);
});
