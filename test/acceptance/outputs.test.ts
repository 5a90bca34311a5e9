import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Job } from "../../scripts/demo/client.ts";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { sequenceAndTensor, sequenceInput, zipMapClassifier } from "../support/classifiers.ts";
import { uniformSource } from "../support/graphs.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { fileOf, npzOf } from "../support/model-file.ts";
import { assertRecorded } from "../support/recorded.ts";

/** Models that give or take something other than tensors of numbers, and what is said of results that are not what was hoped for, over HTTP. */

let stack: Stack;
let jobs: LiveJobs;
let data: string;
before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  jobs = await openLiveJobs(stack);
  const random = uniformSource(3);
  const x = Float32Array.from({ length: 12 * 64 }, () => 2 * random() - 1);
  const extra = new Float32Array(12);
  const file = npzOf({ x: { dims: [12, 64], values: x }, other: { dims: [12, 1], values: extra } });
  data = (await jobs.client.uploadDataset(file, "d.npz", "d")).id;
});
after(() => stack?.close());

interface Warning {
  readonly code: string;
  readonly message: string;
  readonly value: number;
}
const metricsOf = (job: Job) =>
  job.result!.metrics as unknown as {
    warnings: readonly Warning[];
    fidelity: { outputs: readonly { name: string; sqnr_db: number | null; top1_agreement: number | null }[] };
  };
const warned = (job: Job, code: string) => metricsOf(job).warnings.filter((warning) => warning.code === code);

async function run(model_id: string, params: object, evaluation: object = {}): Promise<Job> {
  const body = { type: "quantize", model_id, params, evaluation: { latency: { runs: 2 }, ...evaluation } };
  return jobs.succeeded(await jobs.client.createJob(body));
}

async function refusal(body: object) {
  const answer = await fetch(`${stack.url}/v1/jobs`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return { status: answer.status, json: (await answer.json()) as { errors: { pointer: string; code: string }[] } };
}

test("a classifier with a ZipMap is compressed by every method; its tensors are compared and the map is listed", async () => {
  const model = await jobs.client.uploadModel(fileOf(zipMapClassifier("integers")), "zipmap");
  assert.deepEqual((model as unknown as { outputs: unknown }).outputs, [
    { name: "label", dtype: "int64", shape: ["n"] },
    { name: "probabilities", dtype: null, shape: null, type: "sequence(map(int64, float32))" },
  ]);
  const methods = [
    { method: "float16" },
    { method: "dynamic" },
    { method: "weight_only", bits: 8 },
    { method: "static", dataset_id: data },
  ];
  for (const params of methods) {
    for (const evaluation of [{}, { dataset_id: data }]) {
      const job = await run(model.id, params, evaluation);
      assert.deepEqual(
        metricsOf(job).fidelity.outputs.map(({ name }) => name),
        ["label"],
      );
      const [warning, ...more] = warned(job, "outputs_not_compared");
      assert.deepEqual(more, []);
      assert.equal(warning!.value, 1);
      assert.match(warning!.message, /"probabilities"/);
    }
  }
});

test("string labels beside a map run, and nothing is claimed to have been compared", async () => {
  const { id } = await jobs.client.uploadModel(fileOf(zipMapClassifier("strings")), "strings");
  const job = await run(id, { method: "dynamic" });
  assert.deepEqual(metricsOf(job).fidelity.outputs, []);
  assert.match(warned(job, "outputs_not_compared")[0]!.message, /"label" \(string\).*fidelity is not known/);
});

test("a sequence beside a tensor is left out", async () => {
  const { id } = await jobs.client.uploadModel(fileOf(sequenceAndTensor()), "sequence");
  const job = await run(id, { method: "weight_only", bits: 8 });
  const [output] = metricsOf(job).fidelity.outputs;
  assert.equal(output!.name, "y");
  assertRecorded(output!.sqnr_db, 43, 1.5);
  assert.equal(warned(job, "outputs_not_compared").length, 1);
});

test("inputs that are no tensors, and outputs of which none is, are refused when the job is posted", async () => {
  const input = await jobs.client.uploadModel(fileOf(sequenceInput()), "input");
  const output = await jobs.client.uploadModel(fileOf(zipMapClassifier("none")), "output");
  for (const [id, code] of [
    [input.id, "unsupported_input"],
    [output.id, "unsupported_output"],
  ]) {
    const { status, json } = await refusal({ type: "quantize", model_id: id, params: { method: "dynamic" } });
    assert.equal(status, 422);
    assert.deepEqual(
      json.errors.map((error) => [error.pointer, error.code]),
      [["/model_id", code]],
    );
  }
});

test("what is known before is in the plan, and all of it in the result and its report", async () => {
  const { id } = await jobs.client.uploadModel(fileOf(sequenceAndTensor()), "again");
  const params = { method: "static", dataset_id: data, samples: 4 };
  const answer = await fetch(`${stack.url}/v1/jobs?validate_only=true`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ type: "quantize", model_id: id, params }),
  });
  const plan = (await answer.json()) as { warnings: Warning[] };
  assert.deepEqual(
    plan.warnings.map(({ code, value }) => [code, value]),
    [["few_samples", 4]],
  );
  const job = await run(id, params, { dataset_id: data, dims: { n: 2 } });
  assert.deepEqual(
    metricsOf(job)
      .warnings.filter(({ code }) => code !== "slower_than_original" && code !== "larger_than_original")
      .map(({ code, value }) => [code, value]),
    [
      ["few_samples", 4],
      ["outputs_not_compared", 1],
      ["few_samples", 12],
      ["unused_fields", 1],
      ["unused_dims", 1],
    ],
  );
  const page = await (await jobs.client.request(`/v1/jobs/${job.id}/report`)).text();
  assert.match(
    page,
    /Fields of the dataset that are no input of the model were not used: &quot;other&quot;|&#34;other&#34;|"other"/,
  );
  // What is quantized is quantized: of the result of a job there is nothing left to do.
  const twice = await run(job.result!.model_id, { method: "dynamic" });
  assert.equal(warned(twice, "already_quantized").length, 1);
  assert.equal(warned(twice, "nothing_quantized").length, 1);
});
