import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Job, JobEvent } from "../../scripts/demo/client.ts";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { NETWORKS } from "../support/mnist.ts";
import { descendants } from "../support/processes.ts";
import { until } from "../support/until.ts";

/**
 * Training and distillation on a part of MNIST, over HTTP, with the service as `npm start` runs it.
 *
 * Bounds of accuracy ask whether a job trained, and not how well: they lie between what a network knows that was not trained, a tenth of ten
 * classes, and what it knows after a few epochs. How well each method trains is recorded in `test/core`.
 */

interface Trained {
  readonly history: readonly { readonly epoch: number; readonly loss: number }[];
  readonly metric: string;
  readonly metric_samples: number;
  readonly teacher_metric: number | null;
  readonly student_before_metric: number;
  readonly student_metric: number;
  readonly baseline_metric: number | null;
  readonly samples_per_second: number;
}

const TEST_SAMPLES = 500;

let stack: Stack;
let jobs: LiveJobs;
const ids: Record<"training" | "test" | "unlabelled" | "cnn" | "mlp" | "teacher", string> = {
  ...{ training: "", test: "", unlabelled: "", cnn: "", mlp: "", teacher: "" },
};

before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  jobs = await openLiveJobs(stack);
  const { client } = jobs;
  ids.training = await jobs.uploadDigits("training", 2000);
  ids.test = await jobs.uploadDigits("test", TEST_SAMPLES);
  ids.unlabelled = await jobs.uploadDigits("training", 500, { labels: false });
  ids.cnn = (await client.uploadModel(NETWORKS.cnn([4, 8], 32), "cnn")).id;
  ids.mlp = (await client.uploadModel(NETWORKS.mlp(16), "mlp")).id;
});
after(() => stack?.close());

/** A job on the training images with the labels of the test images to be judged by. */
function submit(params: object): Promise<Job> {
  return jobs.client.createJob({
    type: "distill",
    params: { mode: "offline", dataset_id: ids.training, ...params },
    evaluation: { dataset_id: ids.test, samples: TEST_SAMPLES, latency: { runs: 5, batch_size: 50 } },
  });
}

const trainingOf = (job: Job) => (job.result!.metrics as unknown as { training: Trained }).training;

async function eventsOf(id: string): Promise<readonly JobEvent[]> {
  const answer = await jobs.client.request(`/v1/jobs/${id}/events?limit=1000`);
  return ((await answer.json()) as { data: JobEvent[] }).data;
}

/** The epochs that were told of, in that order. */
const epochsOf = async (id: string) =>
  (await eventsOf(id))
    .filter(({ type, data }) => type === "metric" && data.epoch !== undefined)
    .map(({ data }) => `${data.phase} ${data.epoch}`);

const artifactSha = (job: Job) =>
  (job.result!.artifacts as unknown as { name: string; sha256: string }[]).find(({ name }) => name === "model.onnx")!
    .sha256;

async function refusalOf(body: object): Promise<readonly string[]> {
  const response = await fetch(`${stack.url}/v1/jobs`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ type: "distill", ...body }),
  });
  assert.equal(response.status, 422);
  const { errors } = (await response.json()) as { errors: { pointer: string; code: string; message: string }[] };
  return errors.map(({ pointer, code }) => `${pointer} ${code}`);
}

describe("training and distillation", () => {
  test("plain training makes a classifier of a network without a teacher", async () => {
    const { id } = await submit({
      student: { model_id: ids.cnn, init: "reinitialize" },
      loss: { kl_weight: 0, label_weight: 1 },
      training: { epochs: 4, batch_size: 64 },
    });
    const told: JobEvent[] = [];
    const job = await jobs.client.follow(id, (event) => told.push(event));
    assert.equal(job.status, "succeeded", JSON.stringify(job.error));
    const training = trainingOf(job);
    assert.equal(training.metric, "top1");
    assert.equal(training.metric_samples, TEST_SAMPLES);
    assert.deepEqual([training.teacher_metric, training.baseline_metric], [null, null]);
    assert.ok(training.student_before_metric < 0.35 && training.student_metric > 0.85, JSON.stringify(training));
    const losses = training.history.map(({ loss }) => loss);
    assert.ok(losses.length === 4 && losses[3]! < losses[0]! / 2, String(losses));
    assert.deepEqual(
      told.filter(({ data }) => data.epoch !== undefined).map(({ data }) => [data.phase, data.epoch, data.epochs]),
      [1, 2, 3, 4].map((epoch) => ["train", epoch, 4]),
    );
    assert.ok(told.some(({ type, data }) => type === "progress" && /loss .* s left/.test(String(data.message))));
    ids.teacher = job.result!.model_id;
    const model = (await (await jobs.client.request(`/v1/models/${ids.teacher}`)).json()) as Record<string, unknown>;
    assert.deepEqual(model.derived_from, { job_id: id, model_id: ids.cnn });
  });

  test("a student is distilled, beside a baseline that had no teacher", async () => {
    const { id } = await submit({
      teacher_model_id: ids.teacher,
      student: { model_id: ids.mlp },
      training: { epochs: 5, batch_size: 64 },
      baseline: true,
    });
    for (const path of [`models/${ids.teacher}`, `models/${ids.mlp}`, `datasets/${ids.training}`]) {
      await assert.rejects(jobs.client.request(`/v1/${path}`, { method: "DELETE" }), { status: 409 });
    }
    const job = await jobs.succeeded({ id });
    const training = trainingOf(job);
    assert.ok(training.teacher_metric! > 0.85 && training.student_before_metric < 0.35, JSON.stringify(training));
    assert.ok(training.student_metric > 0.75 && training.baseline_metric! > 0.6, JSON.stringify(training));
    assert.deepEqual(await epochsOf(id), [
      ...[1, 2, 3, 4, 5].map((epoch) => `distill ${epoch}`),
      ...[1, 2, 3, 4, 5].map((epoch) => `baseline ${epoch}`),
    ]);
    const report = await (await jobs.client.request(`/v1/jobs/${id}/report`)).text();
    assert.match(report, /<th scope="col">Teacher<\/th><th scope="col">Student before<\/th>/);
    assert.equal(
      report.match(/class="line baseline"/g)?.length,
      2,
      "a dashed line beside the student's, in both charts",
    );
  });

  test("a student derived from its teacher, and a teacher that cannot be trained itself", async () => {
    const quantized = await jobs.client.createJob({
      type: "quantize",
      model_id: ids.teacher,
      params: { method: "dynamic" },
      evaluation: { samples: 1, latency: { runs: 1 } },
    });
    const teacher = (await jobs.succeeded(quantized)).result!.model_id;
    assert.deepEqual(
      await refusalOf({
        params: { mode: "offline", dataset_id: ids.training, student: { model_id: teacher }, loss: { kl_weight: 0 } },
      }),
      ["/params/student/model_id not_trainable"],
    );
    const taught = await submit({
      teacher_model_id: teacher,
      student: { model_id: ids.mlp },
      training: { epochs: 2, batch_size: 64 },
    });
    const derived = await submit({
      teacher_model_id: ids.teacher,
      student: { derive: { width: 0.5 } },
      training: { epochs: 2, batch_size: 64 },
    });
    assert.ok(trainingOf(await jobs.succeeded(taught)).student_metric > 0.5);
    const job = await jobs.succeeded(derived);
    assert.ok(job.result!.metrics.size.ratio < 0.5, JSON.stringify(job.result!.metrics.size));
    assert.ok(trainingOf(job).student_metric > 0.5);
  });

  test("what does not go together is refused when the job is posted", async () => {
    const params = { mode: "offline", dataset_id: ids.training, student: { model_id: ids.mlp } };
    assert.deepEqual(await refusalOf({ params: { ...params, teacher_model_id: "mdl_none", dataset_id: "dst_none" } }), [
      "/params/teacher_model_id unknown_model",
      "/params/dataset_id unknown_dataset",
    ]);
    assert.deepEqual(
      await refusalOf({ params: { ...params, dataset_id: ids.unlabelled, teacher_model_id: ids.teacher } }),
      ["/params/loss/label_weight no_labels"],
    );
    assert.deepEqual(await refusalOf({ params }), ["/params/loss/kl_weight no_teacher"]);
    assert.deepEqual(
      await refusalOf({
        params: {
          ...params,
          teacher_model_id: ids.teacher,
          loss: { outputs: [{ teacher: "scores", student: "logits" }] },
        },
      }),
      ["/params/loss/outputs output_mismatch"],
    );
    assert.deepEqual(
      await refusalOf({ params: { ...params, teacher_model_id: ids.teacher, student: { model_id: jobs.modelId } } }),
      ["/params/dataset_id dataset_mismatch", "/params/loss/outputs shape_mismatch"],
    );
  });

  test("a hint that names a value that is not there is refused when the job is posted", async () => {
    const hint = { teacher: "logits", student: "logits", kind: "mse", weight: 1 };
    const params = {
      mode: "offline",
      dataset_id: ids.training,
      teacher_model_id: ids.teacher,
      student: { model_id: ids.mlp },
      loss: { hints: [hint, { ...hint, teacher: "nothing" }] },
    };
    assert.deepEqual(await refusalOf({ params }), ["/params/loss/hints/1/teacher invalid_hint"]);
  });

  test("a plan says what would be trained on what, and stores nothing", async () => {
    const response = await jobs.client.request("/v1/jobs?validate_only=true", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        type: "distill",
        params: {
          ...{
            mode: "offline",
            dataset_id: ids.training,
            teacher_model_id: ids.teacher,
            student: { model_id: ids.mlp },
          },
          training: { epochs: 3, batch_size: 100 },
        },
      }),
    });
    assert.deepEqual(await response.json(), {
      type: "distill",
      teacher_parameters: 4 * 9 + 8 + 16 * 9 + 8 + 32 * 9 + 16 + 64 * 9 + 16 + 392 * 32 + 32 + 330,
      student_parameters: 784 * 16 + 16 + 170,
      outputs: [{ teacher: "logits", student: "logits" }],
      training_samples: 1800,
      validation_samples: 200,
      optimizer_steps: 54,
      networks: [{ name: "student", parameters: 784 * 16 + 16 + 170 }],
      exits: [],
    });
  });
});

describe("a training run that is interrupted", () => {
  const EPOCHS = 60;
  const run = () =>
    submit({
      teacher_model_id: ids.teacher,
      student: { model_id: ids.mlp },
      training: { epochs: EPOCHS, batch_size: 32 },
      seed: 7,
    });
  const blobs = async () =>
    (await readdir(join(stack.dataDir, "blobs"), { recursive: true, withFileTypes: true })).filter((it) => it.isFile());

  /** Waits for epochs, and for a checkpoint of them to be on its way. */
  const reaches = (id: string, epoch: number) =>
    until("it trains", async () => (await epochsOf(id)).includes(`distill ${epoch}`), 60_000);

  test("its process and its worker killed: it goes on where it was, to the same bytes", async () => {
    const storedBefore = await blobs();
    const whole = await jobs.succeeded(await run());
    // The student, two reports and the result, which is too long for its record, stay; checkpoints go a moment after the end.
    await until("checkpoints are gone", async () => (await blobs()).length === storedBefore.length + 4);

    const { id } = await run();
    await reaches(id, 5);
    process.kill(await jobs.child(id), "SIGKILL");
    await until("it runs again", async () => (await jobs.statuses(id)).length === 4);
    await reaches(id, 15);
    process.kill((await descendants(stack.pid, "workers/main.ts"))[0]!, "SIGKILL");
    const job = await jobs.succeeded({ id });

    assert.equal(artifactSha(job), artifactSha(whole));
    assert.equal(job.result!.model_id, whole.result!.model_id);
    assert.deepEqual(
      trainingOf(job).history.map(({ loss }) => loss),
      trainingOf(whole).history.map(({ loss }) => loss),
    );
    const statuses = await jobs.statuses(id);
    assert.deepEqual(statuses, ["queued", ...Array(3).fill(["running", "queued"]).flat().slice(0, 5), "succeeded"]);
    const epochs = await epochsOf(id);
    assert.equal(epochs.filter((epoch) => epoch === "distill 1").length, 1, "no attempt began anew");
    assert.ok(epochs.length <= EPOCHS + 8, `${epochs.length} epochs were trained`);
    // The two reports and the result are new. A worker that is killed while it puts a checkpoint in the place of the one before leaves one of the two: it is swept
    // a day later.
    await until("checkpoints are gone", async () => [7, 8].includes((await blobs()).length - storedBefore.length));
  });

  test("cancelled within 5 s, and its checkpoints go with it", async (t) => {
    const storedBefore = await blobs();
    const { id } = await run();
    await reaches(id, 2);
    const start = performance.now();
    await jobs.cancel(id);
    assert.equal((await jobs.ended(id, 10_000)).status, "cancelled");
    const milliseconds = performance.now() - start;
    t.diagnostic(`cancelled after ${milliseconds.toFixed(0)} ms`);
    assert.ok(milliseconds < 5_000);
    await until("checkpoints are gone", async () => (await blobs()).length === storedBefore.length);
  });
});
