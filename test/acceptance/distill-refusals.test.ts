import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Job } from "../../scripts/demo/client.ts";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { COUNT, ODD_DATASETS, ODD_MODELS, oddOutputs } from "../support/odd-shapes.ts";

/**
 * Jobs whose models, labels and data do not go together: refused when they are posted, or understood. Over HTTP.
 *
 * Bounds of accuracy ask whether a job trained, and not how well: they lie between what a network knows that was not trained, a quarter of four
 * classes, and what it knows after a few epochs. How well each method trains is recorded in `test/core`.
 */

let stack: Stack;
let jobs: LiveJobs;
const models = new Map<string, string>();
const datasets = new Map<string, string>();

before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  jobs = await openLiveJobs(stack);
  for (const [name, bytes] of Object.entries(ODD_MODELS)) {
    models.set(name, (await jobs.client.uploadModel(bytes, name)).id);
  }
  for (const [name, bytes] of Object.entries(ODD_DATASETS)) {
    datasets.set(name, (await jobs.client.uploadDataset(bytes, `${name}.npz`, name)).id);
  }
});
after(() => stack?.close());

interface Refusal {
  readonly pointer: string;
  readonly code: string;
  readonly message: string;
}

async function refusals(body: object): Promise<readonly string[]> {
  const answers = await Promise.all(
    ["", "?validate_only=true"].map(async (query) => {
      const response = await fetch(`${stack.url}/v1/jobs${query}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
      const answer = (await response.json()) as { errors: Refusal[] };
      assert.equal(response.status, 422, JSON.stringify(answer));
      return answer.errors.map(({ pointer, code, message }) => `${pointer} ${code}: ${message}`);
    }),
  );
  assert.deepEqual(answers[0], answers[1], "a plan is refused as the job is");
  return answers[0]!;
}

const distillation = (data: string, student: string, params: object, teacher?: string, rest: object = {}) => ({
  type: "distill",
  params: {
    ...{ mode: "offline", dataset_id: datasets.get(data) },
    ...{ teacher_model_id: teacher === undefined ? null : models.get(teacher) },
    student: { model_id: models.get(student), init: "reinitialize" },
    ...params,
    seed: 1,
  },
  ...{ evaluation: { latency: { runs: 1, batch_size: 16 } }, ...rest },
});
const onLabels = {
  loss: { kl_weight: 0, label_weight: 1 },
  training: { epochs: 25, batch_size: 32, learning_rate: 0.02 },
};
const onTeacher = (output_loss: string) => ({ ...onLabels, loss: { kl_weight: 1, label_weight: 0, output_loss } });

const done = async (body: object): Promise<Job> => jobs.succeeded(await jobs.client.createJob(body));
const metricsOf = (job: Job) =>
  job.result!.metrics as unknown as {
    accuracy: { metric: string; before: number; after: number } | null;
    training: { metric: string; student_metric: number; history: { losses: Record<string, number> }[] };
    warnings: { code: string; message: string }[];
  };
const warningsOf = (job: Job) => metricsOf(job).warnings.filter(({ code }) => code.startsWith("labels"));

async function outputsOf(id: string): Promise<Float32Array> {
  return oddOutputs(new Uint8Array(await (await jobs.client.request(`/v1/models/${id}/content`)).arrayBuffer()));
}

function correlation(a: Float32Array, b: Float32Array): number {
  const mean = (values: Float32Array) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [ma, mb] = [mean(a), mean(b)];
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += (a[i]! - ma) * (b[i]! - mb);
    aa += (a[i]! - ma) ** 2;
    bb += (b[i]! - mb) ** 2;
  }
  return ab / Math.sqrt(aa * bb);
}

describe("outputs of teacher and student", () => {
  test("a teacher of [n, 1] teaches a student of [n] the numbers, not their mean", async () => {
    const job = await done(
      distillation(
        "bare",
        "student of n",
        { ...onTeacher("mse"), training: { ...onLabels.training, epochs: 40 } },
        "teacher of n1",
      ),
    );
    const [student, teacher] = [await outputsOf(job.result!.model_id), await outputsOf(models.get("teacher of n1")!)];
    const found = correlation(student, teacher);
    assert.ok(found > 0.98, `correlation ${found}`);
    const { outputs } = job.result!.metrics.fidelity as unknown as { outputs: { shape_mismatches: number }[] };
    assert.deepEqual(
      outputs.map((it) => it.shape_mismatches),
      [0],
      "compared as it was learned",
    );
  });

  test("maps of one pixel are class scores like vectors", async () => {
    const params = { ...onTeacher("kl"), training: { ...onLabels.training, epochs: 40 } };
    const job = await done(distillation("bare", "four as maps", params, "four"));
    assert.equal(metricsOf(job).training.metric, "teacher_agreement");
    assert.ok(metricsOf(job).training.student_metric >= 0.75, String(metricsOf(job).training.student_metric));
  });

  test("classes of pixels lie along the channels: labels and teachers are read so", async () => {
    const answer = await jobs.client.request(`/v1/models/${models.get("pixels")}`);
    const { outputs } = (await answer.json()) as { outputs: { meaning: object }[] };
    assert.deepEqual(outputs[0]!.meaning, { kind: "class_scores", class_axis: 1, evident: true });
    const labelled = await done(distillation("pixels", "pixels", onLabels));
    assert.equal(metricsOf(labelled).training.metric, "top1");
    assert.ok(metricsOf(labelled).training.student_metric > 0.75);
    assert.ok(metricsOf(labelled).accuracy!.after > 0.75);
    models.set("trained pixels", labelled.result!.model_id);
    const params = { ...onLabels, loss: { kl_weight: 1, label_weight: 0 } };
    const taught = await done(distillation("bare", "pixels", params, "trained pixels"));
    const { metric, student_metric, history } = metricsOf(taught).training;
    assert.deepEqual([metric, Object.keys(history[0]!.losses)], ["teacher_agreement", ["kl"]]);
    assert.ok(student_metric > 0.75, String(student_metric));
  });

  test("shares are learned from shares one by one, and not as scores of classes", async () => {
    for (const [loss, teacher, reason] of [
      ["dkd", "shares", /"y" is a share by itself.*take kl, mse or huber/],
      ["kl", "four", /compares like with like: .*"y" is a share by itself.* and those of "y" are not/],
    ] as const) {
      const [only, ...others] = await refusals(
        distillation(loss === "dkd" ? "classes" : "bare", "shares", onTeacher(loss), teacher),
      );
      assert.match(only!, /^\/params\/loss\/output_loss shape_mismatch: /);
      assert.match(only!, reason);
      assert.deepEqual(others, []);
    }
  });

  test("other numbers of classes, single numbers as classes, and other layouts are refused, with both shapes", async () => {
    for (const [student, loss, teacher, expected] of [
      ["five", "kl", "four", /^\/params\/loss\/outputs shape_mismatch: .*\[n, 4\].*\[n, 5\]/],
      ["four", "kl", "teacher of n1", /^\/params\/loss\/outputs shape_mismatch: .*\[n, 1\].*\[n, 4\]/],
      ["teacher of n1", "mse", "four", /^\/params\/loss\/outputs shape_mismatch/],
      ["student of n", "kl", "teacher of n1", /^\/params\/loss\/output_loss shape_mismatch: .*one number/],
      ["student of n", "cosine", "teacher of n1", /^\/params\/loss\/output_loss shape_mismatch: .*one number/],
    ] as const) {
      const [only, ...others] = await refusals(distillation("bare", student, onTeacher(loss), teacher));
      assert.match(only!, expected);
      assert.deepEqual(others, []);
    }
  });

  test("sizes that only a run tells are checked by one before the job is accepted", async () => {
    const [only] = await refusals(
      distillation(
        "tokens",
        "open tokens",
        { ...onTeacher("kl"), loss: { ...onTeacher("kl").loss, ignore_label: -100 } },
        "open tokens of five",
      ),
    );
    assert.match(
      only!,
      /^\/params\/loss\/outputs shape_mismatch|^\/params\/loss\/output_loss shape_mismatch: .*\[2, 3, 4\].*\[2, 3, 5\]/,
    );
    const hints = [{ teacher: "y", student: "y", kind: "cosine", weight: 1 }];
    const body = distillation(
      "bare",
      "four",
      { ...onTeacher("kl"), loss: { ...onTeacher("kl").loss, hints } },
      "four as maps",
    );
    await done(body);
  });
});

describe("statistics of a batch", () => {
  test("a BatchNormalization that would see one value for each channel is refused, in batches of one or of what is left", async () => {
    const params = (training: object) => ({ ...onLabels, training: { ...onLabels.training, epochs: 4, ...training } });
    for (const [data, training] of [
      ["classes", { batch_size: 1 }],
      ["two", { batch_size: 32, validation_split: 0.5 }],
    ] as const) {
      const [only, ...others] = await refusals(distillation(data, "normal", params(training)));
      assert.match(
        only!,
        /^\/params\/training\/batch_size batch_too_small: BatchNormalization ".*" would.*\[1, 16\].*2 samples/,
      );
      assert.deepEqual(others, []);
    }
    await done(distillation("classes", "four", params({ batch_size: 1, epochs: 1 })));
  });

  test("samples that are left over from whole batches give no statistics", async () => {
    // 288 samples are learned from: seven batches of 41 and one sample.
    const params = { ...onLabels, training: { ...onLabels.training, batch_size: 41, epochs: 15 } };
    const job = await done(distillation("classes", "normal", params));
    const { student_metric } = metricsOf(job).training;
    assert.ok(student_metric > 0.7, String(student_metric));
  });
});

describe("labels that are learned", () => {
  test("labels as a column, as floats and as one-hot rows train like integers, and it is said", async () => {
    for (const [data, code] of [
      ["classes", undefined],
      ["column", undefined],
      ["floats", "labels_converted"],
      ["one-hot", "labels_converted"],
    ] as const) {
      const job = await done(distillation(data, "four", onLabels));
      const { training, accuracy } = metricsOf(job);
      assert.equal(training.metric, "top1", data);
      assert.ok(training.student_metric > 0.75, `${data}: ${training.student_metric}`);
      assert.equal(accuracy!.metric, "top1", data);
      assert.deepEqual(
        warningsOf(job).map((warning) => warning.code),
        code ? [code] : [],
        data,
      );
    }
  });

  test("labels that are no classes are refused with the first of them, or ignored where that is asked for", async () => {
    assert.match(
      (await refusals(distillation("unknown", "four", onLabels)))[0]!,
      /^\/params\/dataset_id invalid_labels: .*label -1 of sample 1, like at least 159 more,.*0 to 3.*ignore_label/,
    );
    assert.match(
      (await refusals(distillation("too many", "four", onLabels)))[0]!,
      /^\/params\/dataset_id invalid_labels: .*label 6 of sample 17 is not a class/,
    );
    assert.match(
      (await refusals(distillation("halves", "four", onLabels)))[0]!,
      /^\/params\/dataset_id invalid_labels: .*whole numbers/,
    );
    assert.match(
      (await refusals(distillation("classes", "student of n", onLabels)))[0]!,
      /^\/params\/dataset_id invalid_labels: .*no scores of classes/,
    );
    assert.match((await refusals(distillation("classes", "three tokens", onLabels)))[0]!, /^\/params\/dataset_id/);
    const job = await done(
      distillation("unknown", "four", { ...onLabels, loss: { ...onLabels.loss, ignore_label: -1 } }),
    );
    assert.ok(metricsOf(job).training.student_metric > 0.7, String(metricsOf(job).training.student_metric));
    assert.match(warningsOf(job)[0]!.message, /Of the dataset's 320 labels 160 are ignore_label \(-1\)/);
    const scores = await outputsOf(job.result!.model_id);
    let last = 0;
    for (let i = 0; i < COUNT; i++) {
      const row = [...scores.subarray(4 * i, 4 * i + 4)];
      if (row.indexOf(Math.max(...row)) === 3) last++;
    }
    assert.ok(last < COUNT * 0.4, `the last class is predicted for ${last} of ${COUNT}`);
  });

  test("labels may be learned and not judge", async () => {
    const params = {
      ...onLabels,
      loss: { kl_weight: 0.5, label_weight: 0.5 },
      training: { ...onLabels.training, epochs: 2 },
    };
    const job = await done(
      distillation("classes", "four", params, "four as maps", { evaluation: { metric: "none", latency: { runs: 1 } } }),
    );
    assert.equal(metricsOf(job).training.metric, "teacher_agreement");
    assert.equal(metricsOf(job).accuracy, null);
  });

  test("positions without a label count neither in the loss nor in the metric", async () => {
    assert.match((await refusals(distillation("tokens", "three tokens", onLabels)))[0]!, /label -100 of sample 0/);
    for (const student of ["three tokens", "open tokens"]) {
      const job = await done(
        distillation("tokens", student, { ...onLabels, loss: { ...onLabels.loss, ignore_label: -100 } }),
      );
      assert.ok(metricsOf(job).training.student_metric > 0.75, `${student}: ${metricsOf(job).training.student_metric}`);
      assert.ok(metricsOf(job).accuracy!.after > 0.75);
    }
  });
});

describe("labels that judge a quantized model", () => {
  const quantization = (data: string, model: string, evaluation: object = {}) => ({
    ...{ type: "quantize", model_id: models.get(model), params: { method: "dynamic" } },
    evaluation: { dataset_id: datasets.get(data), samples: COUNT, latency: { runs: 1, batch_size: 16 }, ...evaluation },
  });

  test("are refused, converted or ignored, and never left out without a word", async () => {
    assert.match(
      (await refusals(quantization("unknown", "four")))[0]!,
      /^\/evaluation\/dataset_id invalid_labels: .*label -1 of sample 1/,
    );
    assert.match((await refusals(quantization("too many", "four", { metric: "top1" })))[0]!, /label 6 of sample 17/);
    assert.match(
      (await refusals(quantization("halves", "four", { metric: "top1" })))[0]!,
      /^\/evaluation\/metric metric_mismatch: .*whole numbers/,
    );
    assert.match(
      (await refusals(quantization("classes", "teacher of n1", { metric: "top5" })))[0]!,
      /^\/evaluation\/metric metric_mismatch/,
    );

    const ignored = await done(quantization("unknown", "four", { ignore_label: -1 }));
    const full = await done(quantization("classes", "four"));
    assert.equal(metricsOf(ignored).accuracy!.metric, "top1");
    assert.deepEqual(
      warningsOf(ignored).map(({ code }) => code),
      ["labels_ignored"],
    );
    assert.deepEqual(warningsOf(full), []);
    for (const data of ["column", "floats", "one-hot"]) {
      const job = await done(quantization(data, "four", { metric: "top1" }));
      assert.equal(metricsOf(job).accuracy!.before, metricsOf(full).accuracy!.before, data);
    }
    const unused = await done(quantization("halves", "four"));
    assert.equal(metricsOf(unused).accuracy, null);
    assert.deepEqual(
      warningsOf(unused).map(({ code }) => code),
      ["labels_not_used"],
    );
    const none = await done(quantization("unknown", "four", { metric: "none" }));
    assert.deepEqual([metricsOf(none).accuracy, warningsOf(none)], [null, []]);
    const numbers = await done(quantization("halves", "teacher of n1"));
    assert.equal(metricsOf(numbers).accuracy!.metric, "mse");
  });
});

describe("values that are not finite", () => {
  const params = (extra: object) => ({ ...extra, dataset_id: datasets.get("broken") });
  const quantization = (own: object, evaluation: object = {}) => ({
    ...{ type: "quantize", model_id: models.get("four"), params: own },
    evaluation: { samples: 64, latency: { runs: 1 }, ...evaluation },
  });

  test("are told of when the dataset arrives", async () => {
    const answer = await jobs.client.request(`/v1/datasets/${datasets.get("broken")}`);
    const { fields, warnings } = (await answer.json()) as {
      fields: { content: object }[];
      warnings: { code: string }[];
    };
    const { non_finite, first_non_finite } = fields[0]!.content as Record<string, unknown>;
    assert.deepEqual([non_finite, first_non_finite], [2, { sample: 9, value: "nan" }]);
    assert.deepEqual(
      warnings.map(({ code }) => code),
      ["non_finite"],
    );
  });

  test("are not calibrated with or trained on; where they judge, it is said", async () => {
    const expected =
      /^\/params\/dataset_id non_finite: .*"x" has 2 of its values NaN or infinite, the first in sample 9 \(nan\)/;
    for (const body of [
      quantization(params({ method: "static" })),
      quantization(params({ method: "weight_only", algorithm: "gptq" })),
      distillation("broken", "four", onLabels),
    ]) {
      const [only, ...others] = await refusals(body);
      assert.match(only!, expected);
      assert.deepEqual(others, []);
    }
    const judged = await done(
      quantization({ method: "dynamic" }, { dataset_id: datasets.get("broken"), metric: "none" }),
    );
    assert.ok(metricsOf(judged).warnings.some(({ code }) => code === "non_finite_data"));
  });
});
