import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Job } from "../../scripts/demo/client.ts";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { NETWORKS } from "../support/mnist.ts";

/** Static int8 for other runtimes, over HTTP: one that is measured there, and one that only is checked. */

let stack: Stack;
let jobs: LiveJobs;
const ids = { cnn: "", digits: "" };

before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  jobs = await openLiveJobs(stack);
  ids.cnn = (await jobs.client.uploadModel(NETWORKS.cnn([8, 16], 32), "cnn")).id;
  ids.digits = await jobs.uploadDigits("training", 200);
});
after(() => stack?.close());

const submission = (params: object) => ({
  type: "quantize",
  model_id: ids.cnn,
  params: { method: "static", dataset_id: ids.digits, ...params },
  evaluation: { latency: { runs: 5 } },
});

interface Deployment {
  readonly target: string;
  readonly rules: readonly { readonly rule: string; readonly holds: boolean; readonly source: string }[];
  readonly measured: { readonly runtime: string; readonly speedup: number; readonly sqnr_db: number | null } | null;
  readonly failure: string | null;
  readonly download: { readonly before_bytes: number; readonly after_bytes: number } | null;
}

const deploymentOf = ({ result }: Job) => (result!.metrics as unknown as { deployment: Deployment }).deployment;

async function page({ id }: Job): Promise<string> {
  return (await jobs.client.request(`/v1/jobs/${id}/report`)).text();
}

test("web: the result runs in onnxruntime-web beside the original, and the report says so", async () => {
  const job = await jobs.succeeded(await jobs.client.createJob(submission({ target: "web" })));
  const { target, rules, measured, failure, download } = deploymentOf(job);
  assert.equal(target, "web");
  assert.ok(rules.every(({ holds, source }) => holds && source.startsWith("https://")));
  assert.equal(failure, null);
  assert.match(measured!.runtime, /^onnxruntime-web /);
  assert.ok(measured!.speedup > 0);
  assert.ok(measured!.sqnr_db === null || measured!.sqnr_db > 25, `${measured!.sqnr_db} dB`);
  assert.ok(download!.after_bytes < download!.before_bytes);
  assert.ok((job.result as unknown as { accepted: boolean }).accepted);
  assert.match(await page(job), /Made for web.*Measured in onnxruntime-web/s);
});

test("tensorrt: the result holds the rules, and nothing is said to be measured there", async () => {
  const job = await jobs.succeeded(await jobs.client.createJob(submission({ target: "tensorrt" })));
  const { rules, measured, download } = deploymentOf(job);
  assert.deepEqual(
    rules.filter(({ holds }) => !holds),
    [],
  );
  assert.deepEqual([measured, download], [null, null]);
  assert.ok((job.result as unknown as { accepted: boolean }).accepted);
  assert.match(await page(job), /Made for tensorrt.*Nothing was measured in the runtime itself/s);
});

test("a pipeline whose last step is for a runtime says itself what its model is like there", async () => {
  const { evaluation, params } = submission({ target: "web" });
  const steps = [
    { type: "quantize", params: { method: "simplify" } },
    { type: "quantize", name: "int8", params },
  ];
  const job = await jobs.succeeded(
    await jobs.client.createJob({ type: "pipeline", model_id: ids.cnn, params: { steps }, evaluation }),
  );
  const { target, rules, measured, download } = deploymentOf(job);
  assert.equal(target, "web");
  assert.ok(rules.length > 0 && rules.every(({ holds }) => holds));
  assert.match(measured!.runtime, /^onnxruntime-web /);
  // Beside the model that the pipeline began with.
  const uploaded = await jobs.client.request(`/v1/models/${ids.cnn}`);
  const { size_bytes } = (await uploaded.json()) as { size_bytes: number };
  assert.ok(download!.before_bytes > 0.5 * size_bytes && download!.after_bytes < 0.5 * download!.before_bytes);
  assert.match(await page(job), /Made for web.*Measured in onnxruntime-web/s);
});

test("what a target cannot take is refused with the field, a sentence and what to do", async () => {
  const refused = async (body: object) => {
    const headers = { "content-type": "application/json" };
    const answer = await fetch(`${stack.url}/v1/jobs`, { method: "POST", headers, body: JSON.stringify(body) });
    assert.equal(answer.status, 422);
    return ((await answer.json()) as { errors: { pointer: string; code: string; message: string }[] }).errors;
  };
  for (const [params, pointer, words] of [
    [{ method: "dynamic", target: "qnn" }, "/params/method", "Use static"],
    [{ method: "weight_only", target: "tensorrt" }, "/params/format", "Set format to qdq"],
    [{ method: "float16", target: "qnn" }, "/model_id", "fixed sizes"],
  ] as const) {
    const errors = await refused({ type: "quantize", model_id: ids.cnn, params });
    const [error] = errors.filter(({ code }) => code === "target_mismatch");
    assert.equal(error!.pointer, pointer);
    assert.match(error!.message, new RegExp(words));
  }
});
