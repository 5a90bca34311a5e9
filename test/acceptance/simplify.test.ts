import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { readRealModel } from "../support/real-models.ts";

/** The method `simplify` over HTTP, on PP-OCR's text direction classifier. */

let stack: Stack;
let jobs: LiveJobs;
let modelId: string;

before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  jobs = await openLiveJobs(stack);
  modelId = (await jobs.client.uploadModel(new Uint8Array(readRealModel("ppocr-cls")), "cls")).id;
});
after(() => stack?.close());

const EVALUATION = { dims: { "x.0": 1, "x.2": 48, "x.3": 96 }, samples: 4, latency: { runs: 2 } };
/** How many nodes of each operator a stored model has. */
async function operatorsOf(id: string): Promise<Record<string, number>> {
  const { operators } = (await (await jobs.client.request(`/v1/models/${id}`)).json()) as {
    operators: Record<string, number>;
  };
  return operators;
}

function layers({ Constant: _, ...operators }: Record<string, number>): number {
  return Object.values(operators).reduce((sum, count) => sum + count, 0);
}

function submission(params: object) {
  return { type: "quantize", model_id: modelId, params: { method: "simplify", ...params }, evaluation: EVALUATION };
}

test("a model is simplified without loss, and the plan tells what is gone", async () => {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify(submission({}));
  const answer = await jobs.client.request("/v1/jobs?validate_only=true", { method: "POST", headers, body });
  const plan = (await answer.json()) as { quantized_nodes: { op: string; code: string }[] };
  assert.ok(plan.quantized_nodes.length >= 35, `${plan.quantized_nodes.length} nodes`);
  assert.ok(plan.quantized_nodes.some(({ code }) => code === "fused"));

  const job = await jobs.succeeded(await jobs.client.createJob(submission({})));
  const [was, is] = [await operatorsOf(modelId), await operatorsOf(job.result!.model_id)];
  // Each of the 35 BatchNormalizations goes into its Conv.
  assert.ok(layers(is) <= layers(was) - 35, `${layers(was)} and ${layers(is)} nodes`);
  // Weights that have taken up what followed them are rounded once more, to 24 bits, in each of 35 layers.
  for (const { sqnr_db } of job.result!.metrics.fidelity.outputs) assert.ok(sqnr_db! > 115, `${sqnr_db} dB`);
});

test("excluded operators stay, unknown ones are refused", async () => {
  const job = await jobs.succeeded(await jobs.client.createJob(submission({ exclude_ops: ["BatchNormalization"] })));
  const [was, is] = [await operatorsOf(modelId), await operatorsOf(job.result!.model_id)];
  assert.equal(is.BatchNormalization, was.BatchNormalization);
  await assert.rejects(
    jobs.client.createJob(submission({ exclude_ops: ["BatchNormalisation"] })),
    /BatchNormalization/,
  );
});
