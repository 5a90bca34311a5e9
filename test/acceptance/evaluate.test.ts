import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Job } from "../../scripts/demo/client.ts";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { NETWORKS } from "../support/mnist.ts";
import { until } from "../support/until.ts";

/**
 * Evaluations over HTTP: a network that was trained on a part of MNIST, the same in 4 bits, and one that was not trained.
 *
 * Bounds of accuracy ask whether a job trained, and not how well: they lie between what a network knows that was not trained, a tenth of ten
 * classes, and what it knows after a few epochs. How well each method trains is recorded in `test/core`.
 */

interface Model {
  readonly model_id: string;
  readonly size: { readonly ratio: number; readonly after_bytes: number };
  readonly fidelity: { readonly samples: number; readonly outputs: { readonly sqnr_db: number | null }[] };
  readonly accuracy: Record<"before" | "after" | "drop", number> &
    Record<"interval" | "after_interval", readonly [number, number]>;
  readonly latency: { readonly speedup: number; readonly batch_size: number; readonly threads: number };
  readonly latencies: readonly Model["latency"][];
  readonly memory: { readonly after_peak_bytes: number };
  readonly acceptance: readonly { readonly name: string; readonly ok: boolean }[];
}

const ids = { training: "", test: "", untrained: "", trained: "", small: "" };
let stack: Stack;
let jobs: LiveJobs;

before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  jobs = await openLiveJobs(stack);
  ids.training = await jobs.uploadDigits("training", 2000);
  ids.test = await jobs.uploadDigits("test", 500);
  ids.untrained = (await jobs.client.uploadModel(NETWORKS.mlp(32), "mlp")).id;
  const learned = await jobs.client.createJob({
    type: "distill",
    params: {
      ...{ mode: "offline", teacher_model_id: null, dataset_id: ids.training, student: { model_id: ids.untrained } },
      ...{ loss: { kl_weight: 0, label_weight: 1 }, training: { epochs: 3, batch_size: 32 } },
    },
    evaluation: { latency: { runs: 1, batch_size: 50 } },
  });
  ids.trained = (await jobs.succeeded(learned)).result!.model_id;
  const small = await jobs.client.createJob({
    type: "quantize",
    model_id: ids.trained,
    params: { method: "weight_only", bits: 4 },
    evaluation: { latency: { runs: 1, batch_size: 50 } },
  });
  ids.small = (await jobs.succeeded(small)).result!.model_id;
});
after(() => stack?.close());

const body = (change: object = {}) => ({
  type: "evaluate",
  params: { model_ids: [ids.trained, ids.small, ids.untrained], batch_sizes: [1, 16], threads: [1, 2] },
  evaluation: { dataset_id: ids.test, latency: { runs: 5 } },
  ...change,
});

const acceptedOf = (job: Job) => (job.result as unknown as { accepted: boolean }).accepted;
const modelsOf = (job: Job) => (job.result!.metrics as unknown as { models: Model[] }).models;

async function post(request: object, path = "/v1/jobs") {
  const headers = { "content-type": "application/json" };
  const response = await fetch(stack.url + path, { method: "POST", headers, body: JSON.stringify(request) });
  return { status: response.status, answer: (await response.json()) as Record<string, unknown> };
}

async function refusalOf(request: object): Promise<readonly string[]> {
  const { status, answer } = await post(request);
  assert.equal(status, 422, JSON.stringify(answer));
  return (answer.errors as { pointer: string; code: string }[]).map(({ pointer, code }) => `${pointer} ${code}`);
}

describe("evaluation", () => {
  let job: Job;

  test("says what it would measure", async () => {
    const { status, answer } = await post(body(), "/v1/jobs?validate_only=true");
    assert.equal(status, 200, JSON.stringify(answer));
    const { type, models, loads } = answer as { type: string; models: { model_id: string }[]; loads: object[] };
    assert.equal(type, "evaluate");
    assert.deepEqual(
      models.map(({ model_id }) => model_id),
      [ids.trained, ids.small, ids.untrained],
    );
    assert.deepEqual(loads, [
      { batch_size: 1, threads: 1 },
      { batch_size: 1, threads: 2 },
      { batch_size: 16, threads: 1 },
      { batch_size: 16, threads: 2 },
    ]);
  });

  test("measures every model against the first, on all samples", async () => {
    const before = await jobs.client.request("/v1/models");
    job = await jobs.succeeded(await jobs.client.createJob(body({ acceptance: { max_size_ratio: 0.5 } })));
    const [reference, small, untrained] = modelsOf(job) as [Model, Model, Model];
    assert.deepEqual(
      modelsOf(job).map(({ model_id }) => model_id),
      [ids.trained, ids.small, ids.untrained],
    );
    assert.equal(reference.fidelity.samples, 500);
    assert.deepEqual(reference.fidelity.outputs, []);
    assert.equal(reference.size.ratio, 1);
    assert.ok(reference.accuracy.after > 0.75 && reference.accuracy.drop === 0, JSON.stringify(reference.accuracy));
    assert.ok(small.accuracy.before === reference.accuracy.after && small.size.ratio < 0.5);
    assert.ok(small.fidelity.outputs[0]!.sqnr_db! > 5);
    const { coverage } = job.result!.metrics as unknown as { coverage: { quantized_nodes: number } };
    assert.ok(coverage.quantized_nodes > 0, "what is in few bits already is told");
    // Far worse than the reference, and the interval says so.
    assert.ok(untrained.accuracy.interval[0] > 0.4, JSON.stringify(untrained.accuracy));
    for (const { accuracy, latencies, memory } of modelsOf(job)) {
      const [low, high] = accuracy.after_interval;
      assert.ok(low <= accuracy.after && accuracy.after <= high && high - low < 0.1);
      assert.deepEqual(
        latencies.map(({ batch_size, threads }) => [batch_size, threads]),
        [
          [1, 1],
          [1, 2],
          [16, 1],
          [16, 2],
        ],
      );
      assert.ok(memory.after_peak_bytes > 2 ** 20);
    }
    assert.deepEqual(
      modelsOf(job).map(({ acceptance }) => acceptance.map(({ ok }) => ok)),
      [[], [true], [false]],
    );
    assert.equal(acceptedOf(job), false);
    assert.equal(job.result!.model_id, ids.trained);
    // Nothing was made, and nothing was changed.
    const listed = async (response: Response) =>
      ((await response.json()) as { data: { id: string }[] }).data.map(({ id }) => id);
    assert.deepEqual(await listed(await jobs.client.request("/v1/models")), await listed(before));
  });

  test("has a report of all models", async () => {
    const page = await (await jobs.client.request(`/v1/jobs/${job.id}/report`)).text();
    for (const id of [ids.trained, ids.small, ids.untrained]) assert.ok(page.includes(id));
    assert.ok(page.includes("top1 over size, coloured by speed"));
    assert.ok(page.includes("batch 16, 2 thr."));
  });

  test("measures a single model on synthetic input", async () => {
    const request = { type: "evaluate", params: { model_ids: [ids.small] }, evaluation: { latency: { runs: 2 } } };
    const alone = await jobs.succeeded(await jobs.client.createJob(request));
    const [model] = modelsOf(alone);
    assert.equal(modelsOf(alone).length, 1);
    assert.equal(model!.accuracy, null);
    assert.deepEqual([model!.latency.speedup, acceptedOf(alone)], [1, true]);
  });

  test("refuses what cannot be compared, with the field at fault", async () => {
    const other = (await jobs.client.uploadModel(NETWORKS.relu("pixels"), "other")).id;
    const params = (change: object) => body({ params: { model_ids: [ids.trained, ids.small], ...change } });
    assert.deepEqual(await refusalOf(params({ model_ids: [ids.trained, "mdl_none"] })), [
      "/params/model_ids/1 unknown_model",
    ]);
    assert.deepEqual(await refusalOf(params({ batch_sizes: [1, 501] })), ["/params/batch_sizes/1 too_few_samples"]);
    assert.deepEqual(await refusalOf(params({ model_ids: [ids.trained, other] })), [
      "/params/model_ids/1 inputs_differ",
    ]);
    const alone = body({ params: { model_ids: [ids.trained] }, acceptance: { min_speedup: 1 } });
    assert.deepEqual(await refusalOf(alone), ["/acceptance/min_speedup nothing_to_compare"]);
    assert.match((await refusalOf(params({ model_ids: [ids.trained, ids.trained] }))).join(), /\/params\/model_ids/);
  });

  test("is cancelled within seconds", async () => {
    const { id } = await jobs.client.createJob({
      type: "evaluate",
      params: { model_ids: [jobs.modelId] },
      evaluation: { samples: 1, dims: { t: 10_000, u: 1_000 }, latency: { runs: 1 } },
    });
    await until("it measures", async () => (await jobs.client.job(id)).progress?.step === "evaluate");
    const start = performance.now();
    await jobs.cancel(id);
    assert.equal((await jobs.ended(id)).status, "cancelled");
    assert.ok(performance.now() - start < 10_000);
  });
});
