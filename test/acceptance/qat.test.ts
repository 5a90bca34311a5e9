import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Job, JobEvent } from "../../scripts/demo/client.ts";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { NETWORKS } from "../support/mnist.ts";
import { until } from "../support/until.ts";

/**
 * Quantization-aware training on a part of MNIST, over HTTP.
 *
 * Bounds of accuracy ask whether a job trained, and not how well: they lie between what a network knows that was not trained, a tenth of ten
 * classes, and what it knows after a few epochs. How well each method trains is recorded in `test/core`.
 */

const TEST_SAMPLES = 500;
const MANY_SAMPLES = 5000;

let stack: Stack;
let jobs: LiveJobs;
const ids: Record<"training" | "test" | "unlabelled" | "float", string> = {
  ...{ training: "", test: "", unlabelled: "", float: "" },
};

before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  jobs = await openLiveJobs(stack);
  ids.training = await jobs.uploadDigits("training", 2000);
  ids.test = await jobs.uploadDigits("test", TEST_SAMPLES);
  ids.unlabelled = await jobs.uploadDigits("training", 500, { labels: false });
  const { id } = await jobs.client.uploadModel(NETWORKS.cnn([8, 16], 32), "cnn");
  const trained = await jobs.client.createJob({
    type: "distill",
    params: {
      mode: "offline",
      dataset_id: ids.training,
      student: { model_id: id, init: "reinitialize" },
      loss: { kl_weight: 0, label_weight: 1 },
      training: { epochs: 4, batch_size: 64 },
    },
    evaluation: { dataset_id: ids.test, samples: TEST_SAMPLES, latency: { runs: 1, batch_size: 50 } },
  });
  ids.float = (await jobs.succeeded(trained)).result!.model_id;
});
after(() => stack?.close());

const request = (params: object) => ({
  type: "quantize",
  model_id: ids.float,
  params: { method: "qat", dataset_id: ids.training, ...params },
  evaluation: { dataset_id: ids.test, samples: TEST_SAMPLES, latency: { runs: 5, batch_size: 50 } },
});

interface Metrics {
  readonly size: { readonly ratio: number; readonly after_bytes: number };
  readonly accuracy: { readonly before: number; readonly after: number };
  readonly coverage: { readonly fused_nodes: number; readonly quantized_nodes: number };
  readonly training: {
    readonly metric: string;
    readonly history: readonly { readonly epoch: number; readonly losses: Readonly<Record<string, number>> }[];
    readonly teacher_metric: number | null;
    readonly student_before_metric: number;
    readonly student_metric: number;
    readonly best_epoch: number;
  };
  readonly warnings: readonly { readonly code: string; readonly value: number }[];
}

const metricsOf = (job: Job) => job.result!.metrics as unknown as Metrics;
const sha = (job: Job) =>
  (job.result!.artifacts as unknown as { name: string; sha256: string }[]).find(({ name }) => name === "model.onnx")!
    .sha256;

async function post(body: object, query = "") {
  const response = await fetch(`${stack.url}/v1/jobs${query}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

async function refusalOf(params: object): Promise<readonly string[]> {
  const { status, body } = await post(request(params));
  assert.equal(status, 422, JSON.stringify(body));
  return (body.errors as { pointer: string; code: string }[]).map(({ pointer, code }) => `${pointer} ${code}`);
}

async function epochsOf(id: string): Promise<number> {
  const answer = await jobs.client.request(`/v1/jobs/${id}/events?limit=1000`);
  const { data } = (await answer.json()) as { data: JobEvent[] };
  return data.filter(({ type, data }) => type === "metric" && data.epoch !== undefined).length;
}

describe("quantization-aware training", () => {
  test("weights of 2 bits are as accurate as floats, nearly, and the artifact is as accurate as the simulation", async () => {
    const body = request({ bits: { weights: 2, activations: 8 }, training: { epochs: 8, learning_rate: 0.002 } });
    const plan = await post(body, "?validate_only=true");
    assert.equal(plan.status, 200, JSON.stringify(plan.body));
    const job = await jobs.succeeded(await jobs.client.createJob(body));
    const { size, accuracy, training, coverage } = metricsOf(job);
    assert.equal(training.metric, "top1");
    assert.equal(training.teacher_metric, accuracy.before, "the float model teaches itself");
    assert.ok(Math.abs(training.student_metric - accuracy.after) <= 0.0021, JSON.stringify({ training, accuracy }));
    const lost = accuracy.before - training.student_before_metric;
    assert.ok(lost >= 0.02, `rounding alone costs ${lost}`);
    assert.ok(accuracy.before - accuracy.after < lost / 2, JSON.stringify({ lost, accuracy }));
    assert.ok(size.ratio < 0.25, `${size.ratio}`);
    assert.ok(coverage.fused_nodes >= 5, `${coverage.fused_nodes}`);
    const planned = plan.body as unknown as { quantized_nodes: unknown[]; size: { predicted_bytes: number } };
    assert.equal(planned.quantized_nodes.length, coverage.quantized_nodes);
    assert.ok(Math.abs(planned.size.predicted_bytes / size.after_bytes - 1) < 0.01, JSON.stringify(planned.size));
    const report = await (await jobs.client.request(`/v1/jobs/${job.id}/report`)).text();
    assert.match(report, /Training loss of each epoch/);
  });

  test("no labels are needed, and 8 bits keep the answers", async () => {
    const job = await jobs.succeeded(
      await jobs.client.createJob(request({ dataset_id: ids.unlabelled, training: { epochs: 2 } })),
    );
    const { accuracy, training } = metricsOf(job);
    assert.equal(training.metric, "teacher_mse");
    assert.ok(training.student_metric <= training.student_before_metric, JSON.stringify(training));
    assert.ok(accuracy.before - accuracy.after <= 0.004, JSON.stringify(accuracy));
  });

  test("a rounding finds the codes that training starts from; where no epoch is better than the start, that goes out, and is said to", async () => {
    // At this rate nothing is learned.
    const still = { bits: { weights: 2, activations: 8 }, training: { epochs: 1, learning_rate: 1e-9 } };
    const made = async (rounding: string) =>
      metricsOf(await jobs.succeeded(await jobs.client.createJob(request({ ...still, rounding }))));
    const [nearest, learned] = [await made("nearest"), await made("adaround")];
    for (const { training, accuracy, warnings } of [nearest, learned]) {
      assert.equal(training.best_epoch, 0);
      assert.equal(training.student_metric, training.student_before_metric);
      assert.ok(Math.abs(training.student_metric - accuracy.after) <= 0.0021, JSON.stringify({ training, accuracy }));
      assert.deepEqual(
        warnings.filter(({ code }) => code === "training_gained_nothing").map(({ value }) => value),
        [1],
      );
    }
    assert.ok(
      learned.training.student_before_metric > nearest.training.student_before_metric,
      JSON.stringify([nearest.training, learned.training]),
    );
  });

  test("activations of 4 bits with ranges learned by PACT", async () => {
    const bits = { weights: 4, activations: 4 };
    const many = await jobs.uploadDigits("test", MANY_SAMPLES);
    const body = request({ algorithm: "pact", bits, training: { epochs: 5, learning_rate: 0.001 } });
    const job = await jobs.succeeded(
      await jobs.client.createJob({
        ...body,
        evaluation: { ...body.evaluation, dataset_id: many, samples: MANY_SAMPLES },
      }),
    );
    const { accuracy, training } = metricsOf(job);
    assert.ok(
      training.history.every(({ losses }) => losses.ranges! > 0),
      JSON.stringify(training.history),
    );
    // At 4 bits a value between two steps moves the outputs by much: the integer kernels give 18 of 500 other answers than the same file in float arithmetic,
    // right ones as often as wrong ones. So of 5,000 the shares may differ by three standard deviations of 180 answers, 0.8 points.
    assert.ok(Math.abs(training.student_metric - accuracy.after) <= 0.008, JSON.stringify({ training, accuracy }));
    assert.ok(accuracy.before - accuracy.after <= 0.02, JSON.stringify(accuracy));
  });

  test("its process killed: it goes on where it was, to the same bytes", async () => {
    const body = request({ bits: { weights: 4, activations: 8 }, training: { epochs: 6, batch_size: 64 } });
    const whole = await jobs.succeeded(await jobs.client.createJob(body));
    const { id } = await jobs.client.createJob(body);
    await until("it trains", async () => (await epochsOf(id)) >= 2, 60_000);
    process.kill(await jobs.child(id), "SIGKILL");
    const job = await jobs.succeeded({ id });
    assert.equal(sha(job), sha(whole));
    assert.equal((await jobs.statuses(id)).length, 5);
    assert.ok((await epochsOf(id)) <= 8, "it did not begin anew");
  });

  test("what cannot be trained is refused when the job is posted", async () => {
    assert.deepEqual(await refusalOf({ dataset_id: ids.unlabelled, teacher: null }), [
      "/params/loss/label_weight no_labels",
    ]);
    assert.deepEqual(await refusalOf({ teacher: "mdl_none" }), ["/params/teacher unknown_model"]);
    assert.equal((await refusalOf({ bits: { weights: 3 } })).length, 1);
    assert.equal((await refusalOf({ bits: { activations: 2 } })).length, 1);
    const [ranges] = await refusalOf({ algorithm: "pact", bits: { activations: null } });
    assert.match(ranges!, /^\/params\/algorithm /);
    assert.deepEqual(await refusalOf({ exclude_nodes: ["nothing"] }), ["/params/exclude_nodes/0 unknown_node"]);
    const dynamic = await jobs.succeeded(
      await jobs.client.createJob({
        ...request({}),
        params: { method: "dynamic" },
        evaluation: { samples: 1, latency: { runs: 1 } },
      }),
    );
    const { status, body } = await post({ ...request({}), model_id: dynamic.result!.model_id });
    assert.equal(status, 422);
    assert.deepEqual(
      (body.errors as { pointer: string; code: string }[]).map(({ pointer, code }) => `${pointer} ${code}`),
      ["/model_id not_trainable"],
    );
  });
});
