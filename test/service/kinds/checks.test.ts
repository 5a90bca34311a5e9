import assert from "node:assert/strict";
import { test } from "node:test";
import type { DatasetFacts, NonFiniteWeight, ValueFacts } from "../../../src/core/index.ts";
import { JobRequest } from "../../../src/service/api/job-schemas.ts";
import type { DatasetRecord, ModelRecord } from "../../../src/service/catalog.ts";
import { checkJob } from "../../../src/service/kinds/checks.ts";
import { DATASET_FACTS, MODEL_FACTS } from "../../support/memory-workers.ts";

const modelWith = (inputs: readonly ValueFacts[]) => ({ facts: { ...MODEL_FACTS, inputs } }) as ModelRecord;
const datasetWith = (facts: Partial<DatasetFacts>) =>
  ({ id: "dst_1", facts: { ...DATASET_FACTS, ...facts } }) as DatasetRecord;
const specWith = (parts: object) =>
  JobRequest.parse({ type: "quantize", model_id: "mdl_1", params: { method: "float16" }, ...parts });
/** What is wrong when these are what `mdl_1` and `dst_1` are. */
const found = (
  spec: Parameters<typeof checkJob>[0],
  model: ModelRecord | undefined,
  dataset: DatasetRecord | undefined,
) => {
  const models = new Map(model && [["mdl_1", model]]);
  const datasets = new Map(dataset && [["dst_1", dataset]]);
  return checkJob(spec, { models, datasets }).map(({ pointer, code }) => `${pointer} ${code}`);
};

const input = (shape: ValueFacts["shape"], name = "x"): ValueFacts => ({ name, dtype: "float32", shape });
const evaluated = specWith({ evaluation: { dataset_id: "dst_1" } });

test("what is not there", () => {
  assert.deepEqual(found(specWith({}), undefined, undefined), ["/model_id unknown_model"]);
  assert.deepEqual(found(evaluated, modelWith([]), undefined), ["/evaluation/dataset_id unknown_dataset"]);
  assert.deepEqual(found(specWith({}), modelWith([input(["n", 4])]), undefined), []);
});

test("a dataset must be able to feed every input", () => {
  const model = modelWith([input(["n", 4])]);
  const field = (shape: readonly number[], dtype: "float32" | "uint8" = "float32") =>
    datasetWith({ fields: [{ name: "x", dtype, shape }] });
  assert.deepEqual(found(evaluated, model, field([4])), []);
  for (const dataset of [field([5]), field([3, 4, 4]), field([4], "uint8"), datasetWith({ fields: [] })]) {
    assert.deepEqual(found(evaluated, model, dataset), ["/evaluation/dataset_id dataset_mismatch"]);
  }
  const two = modelWith([input(["n", 4]), input(["n"], "length")]);
  assert.deepEqual(found(evaluated, two, field([4])), ["/evaluation/dataset_id dataset_mismatch"]);
});

test("metrics and their limits need labels", () => {
  const model = modelWith([input(["n", 4])]);
  const spec = specWith({ evaluation: { dataset_id: "dst_1", metric: "top1" }, acceptance: { max_metric_drop: 0.01 } });
  const both = ["/evaluation/metric no_labels", "/acceptance/max_metric_drop no_labels"];
  assert.deepEqual(found(spec, model, datasetWith({})), both);
  assert.deepEqual(found(spec, model, datasetWith({ has_labels: true })), []);
  assert.deepEqual(found(specWith({ evaluation: { metric: "mse" } }), model, undefined), [
    "/evaluation/metric no_labels",
  ]);
});

test("sizes can be given to symbolic dimensions of the model only, and all wrong ones are named", () => {
  const spec = specWith({ evaluation: { dims: { n: 1, "a/b": 2, h: 3 } } });
  assert.deepEqual(found(spec, modelWith([input(["n", 3])]), undefined), [
    "/evaluation/dims/a~1b unknown_dimension",
    "/evaluation/dims/h unknown_dimension",
  ]);
});

test("a runtime that takes fixed sizes only is made nothing of a model with others", () => {
  const asked = (target: string, shape: ValueFacts["shape"]) =>
    found(specWith({ params: { method: "float16", target } }), modelWith([input(shape)]), undefined);
  assert.deepEqual(asked("qnn", ["n", 4]), ["/model_id target_mismatch"]);
  assert.deepEqual(asked("qnn", [1, 4]), []);
  assert.deepEqual(asked("openvino", ["n", 4]), []);
});

test("a layer whose weight is not finite is quantized by nobody, and learned from by nobody", () => {
  const place = { index: [0, 1], value: "nan" } as const;
  const weight = { name: "w", layers: [{ name: "head", op: "MatMul" }], shape: [2, 2], count: 3, first: place };
  const bias = { ...weight, name: "b", layers: [] };
  const withWeights = (...non_finite_weights: NonFiniteWeight[]) =>
    ({ facts: { ...MODEL_FACTS, inputs: [input(["n", 4])], non_finite_weights } }) as unknown as ModelRecord;
  const broken = withWeights(weight, bias);
  const data = datasetWith({ has_labels: true });
  const wrong = ["/model_id non_finite_weights"];
  const asked = (params: object) => found(specWith({ params }), broken, data);
  assert.deepEqual(asked({ method: "dynamic" }), wrong);
  assert.deepEqual(asked({ method: "weight_only" }), wrong);
  assert.deepEqual(asked({ method: "static", dataset_id: "dst_1" }), wrong);
  assert.deepEqual(asked({ method: "qat", dataset_id: "dst_1" })[0], "/model_id non_finite_weights");
  const search = JobRequest.parse({ type: "auto", model_id: "mdl_1", params: { dataset_id: "dst_1" } });
  assert.deepEqual(found(search, broken, data), wrong);
  const distill = (student: object) =>
    JobRequest.parse({
      type: "distill",
      params: {
        mode: "offline",
        teacher_model_id: null,
        dataset_id: "dst_1",
        student,
        loss: { label_weight: 1, kl_weight: 0 },
      },
    });
  assert.deepEqual(found(distill({ model_id: "mdl_1" }), broken, data), [
    "/params/student/model_id non_finite_weights",
  ]);
  const codes = found(distill({ model_id: "mdl_1", init: "reinitialize" }), broken, data).join();
  assert.doesNotMatch(codes, /non_finite_weights/, "they are drawn anew");
  // What keeps them as they are can be right, and so can what leaves the layer alone.
  assert.deepEqual(asked({ method: "float16" }), []);
  assert.deepEqual(asked({ method: "simplify" }), []);
  assert.deepEqual(asked({ method: "dynamic", exclude_nodes: ["head"] }), []);
  assert.deepEqual(asked({ method: "dynamic", exclude_ops: ["MatMul"] }), []);
  assert.deepEqual(found(specWith({ params: { method: "dynamic" } }), withWeights(bias), data), []);
});
