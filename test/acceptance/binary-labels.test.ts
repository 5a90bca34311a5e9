import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Job } from "../../scripts/demo/client.ts";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { ODD_DATASETS, ODD_MODELS } from "../support/odd-shapes.ts";

/**
 * Models that answer yes or no, once or for each of several labels (multi-label), whose outputs a Sigmoid makes: trained, taught, quantized and
 * judged over HTTP. A network that was not trained tells about half of the answers right.
 */

let stack: Stack;
let jobs: LiveJobs;
const models = new Map<string, string>();
const datasets = new Map<string, string>();

before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  jobs = await openLiveJobs(stack);
  for (const name of ["shares", "small shares", "one share", "four"] as const) {
    models.set(name, (await jobs.client.uploadModel(ODD_MODELS[name], name)).id);
  }
  for (const name of ["bare", "classes", "signs", "signs as floats", "signs with gaps", "first signs"] as const) {
    datasets.set(name, (await jobs.client.uploadDataset(ODD_DATASETS[name], `${name}.npz`, name)).id);
  }
});
after(() => stack?.close());

const training = { epochs: 25, batch_size: 32, learning_rate: 0.02 };
const distillation = (data: string, student: string, loss: object, teacher?: string, rest: object = {}) => ({
  type: "distill",
  params: {
    ...{ mode: "offline", dataset_id: datasets.get(data), teacher_model_id: teacher ?? null },
    student: { model_id: models.get(student), init: "reinitialize" },
    ...{ loss, training, seed: 1 },
  },
  evaluation: { latency: { runs: 1, batch_size: 16 }, ...rest },
});
const ON_LABELS = { kl_weight: 0, label_weight: 1 };
const ON_TEACHER = { kl_weight: 1, label_weight: 0 };

const done = async (body: object): Promise<Job> => jobs.succeeded(await jobs.client.createJob(body));
const metricsOf = (job: Job) =>
  job.result!.metrics as unknown as {
    accuracy: { metric: string; before: number; after: number; interval: object | null } | null;
    training: { metric: string; student_metric: number; history: { losses: Record<string, number> }[] };
    warnings: { code: string; message: string }[];
  };

async function refusal(body: object): Promise<string> {
  const headers = { "content-type": "application/json" };
  const response = await fetch(`${stack.url}/v1/jobs`, { method: "POST", headers, body: JSON.stringify(body) });
  const { errors } = (await response.json()) as { errors: { pointer: string; message: string }[] };
  assert.equal(response.status, 422);
  return errors.map(({ pointer, message }) => `${pointer}: ${message}`).join("\n");
}

describe("labels of 0 or 1 for each share of an output", () => {
  test("are learned and judged one by one, as integers, floats or bool, and are ignored where that is asked for", async () => {
    for (const [data, student, rest, codes] of [
      ["signs", "shares", {}, []],
      ["signs as floats", "shares", {}, ["labels_converted"]],
      ["signs with gaps", "shares", { ignore_label: 255 }, ["labels_ignored"]],
      ["first signs", "one share", {}, ["labels_converted"]],
    ] as const) {
      const { training, accuracy, warnings } = metricsOf(
        await done(distillation(data, student, ON_LABELS, undefined, rest)),
      );
      assert.deepEqual([training.metric, accuracy!.metric], ["binary_accuracy", "binary_accuracy"], data);
      assert.ok(training.student_metric > 0.85, `${data}: ${training.student_metric}`);
      const said = warnings.filter(({ code }) => code.startsWith("labels_"));
      assert.deepEqual(
        said.map(({ code }) => code),
        codes,
      );
      if (codes[0] === "labels_converted") assert.match(said[0]!.message, /were read as binary labels, 0 or 1/);
    }
  });

  test("a trained network teaches another by the divergence of each share, and is quantized and judged by F1", async () => {
    const teacher = (await done(distillation("signs", "shares", ON_LABELS))).result!.model_id;
    const taught = metricsOf(await done(distillation("bare", "small shares", ON_TEACHER, teacher)));
    assert.deepEqual(
      [taught.training.metric, Object.keys(taught.training.history[0]!.losses)],
      ["teacher_agreement", ["kl"]],
    );
    assert.ok(taught.training.student_metric > 0.85, String(taught.training.student_metric));
    const judged = { dataset_id: datasets.get("signs"), metric: "binary_f1", latency: { runs: 1, batch_size: 16 } };
    for (const params of [
      { method: "dynamic" },
      { method: "static", dataset_id: datasets.get("bare") },
      { method: "qat", dataset_id: datasets.get("signs"), training: { ...training, epochs: 2 } },
    ]) {
      const body = { type: "quantize", model_id: teacher, params, evaluation: judged };
      const { accuracy } = metricsOf(await done(body));
      assert.equal(accuracy!.metric, "binary_f1", params.method);
      assert.ok(accuracy!.before > 0.85 && accuracy!.after > 0.85, `${params.method}: ${JSON.stringify(accuracy)}`);
      assert.ok(accuracy!.interval, params.method);
    }
  });

  test("a class label is a yes for its own share: it is learned so, and judged by the largest", async () => {
    const { training, accuracy } = metricsOf(await done(distillation("classes", "shares", ON_LABELS)));
    assert.deepEqual([training.metric, accuracy!.metric], ["top1", "top1"]);
    assert.ok(training.student_metric > 0.75, String(training.student_metric));
  });

  test("are refused where they are others, or the output has no shares, and what to do is said", async () => {
    assert.match(
      await refusal(distillation("signs", "four", ON_LABELS)),
      /^\/params\/dataset_id: .*0 or 1 for each of its numbers, these must be shares: put a Sigmoid behind them/,
    );
    assert.match(
      await refusal(distillation("signs with gaps", "shares", ON_LABELS)),
      /^\/params\/dataset_id: .*If they are binary labels, all must be 0 or 1/,
    );
    assert.match(
      await refusal(distillation("classes", "four", ON_LABELS, undefined, { metric: "binary_accuracy" })),
      /cannot be binary labels of the output "y".* put a Sigmoid behind them/,
    );
  });
});
