import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, test } from "node:test";
import { memorySource } from "../../../../src/core/data/byte-source.ts";
import { drawnSamples, openDataset } from "../../../../src/core/data/dataset.ts";
import { toldBefore } from "../../../../src/core/onnx/origin.ts";
import { modelToBytes } from "../../../../src/core/onnx/save.ts";
import { floatsOf, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { bundleSha256 } from "../../../../src/service/identity.ts";
import { writeNpz } from "../../../support/dataset-writers.ts";
import { runModel } from "../../../support/open-model.ts";
import {
  bytesOf,
  CLASSES,
  DATASETS,
  epochsOf,
  heldOut,
  JUDGING,
  network,
  parametersOf,
  plan,
  run,
  SPLIT,
  scoreOf,
  TRAINING,
  trainingOf,
  untimed,
  upTo,
} from "../../../support/points.ts";
import { top1 } from "../../../support/top1.ts";

/** Distillation jobs in this process, on points around four centres: what they say is computed once more from the models that they make. */

describe("offline", () => {
  const models = { teacher: network(12, 1), student: network(5, 2) };
  const params = {
    mode: "offline",
    teacher_model_id: "teacher",
    student: { model_id: "student" },
    loss: { kl_weight: 0.1, label_weight: 0.9 },
    baseline: true,
  };

  test("what is told of student, teacher and baseline is what the models score", async () => {
    const ran = await run(params, models);
    const training = trainingOf(ran);
    const student = await scoreOf(ran.model());
    const teacher = await scoreOf(models.teacher);
    assert.deepEqual([training.metric, training.metric_samples, training.chosen], ["top1", 90, "student"]);
    assert.equal(training.teacher_metric, teacher);
    assert.equal(training.student_metric, student);
    assert.equal(training.student_before_metric, await scoreOf(models.student));
    assert.ok(student > training.student_before_metric! + 0.1, "it has learned");
    const { accuracy } = ran.metrics;
    assert.deepEqual([accuracy!.before, accuracy!.after, accuracy!.samples], [teacher, student, 90]);
    assert.equal(ran.report.timings_ms.train! > 0, true);
    // The baseline has learned from labels alone: another network, of as many epochs.
    assert.equal(training.baseline_history!.length, 3);
    assert.notDeepEqual(training.baseline_history, training.history);
    const [own, ...others] = training.networks;
    assert.deepEqual(others, []);
    const best = training.history[training.best_epoch - 1]!;
    assert.deepEqual(
      [own!.name, own!.parameters, own!.best_epoch, own!.artifact, own!.metric, own!.before_metric],
      ["student", parametersOf(5), training.best_epoch, "model.onnx", student, training.student_before_metric],
    );
    assert.equal(own!.validation_metric, best.validation_metric);
    assert.equal(await scoreOf(ran.model(), heldOut()), best.validation_metric);
    assert.deepEqual(own!.history, training.history);
  });

  test("tells the sizes of both, every epoch of each phase, and how far it is", async () => {
    const { news } = await run(params, models).then((ran) => {
      assert.deepEqual(epochsOf(ran), [...upTo(3, "distill"), ...upTo(3, "baseline")]);
      return ran;
    });
    const logs = news.flatMap((it) => (it.kind === "log" ? [it.message] : []));
    assert.deepEqual(logs, [`The student has ${parametersOf(5)} parameters, the teacher ${parametersOf(12)}.`]);
    const progress = news.flatMap((it) => (it.kind === "progress" ? [it.progress] : []));
    const starts = new Map(progress.toReversed().map(({ step, fraction }) => [step, fraction]));
    assert.deepEqual(
      [...starts].reverse(),
      Object.entries({ load: 0, train: 0.02, write: 0.88, evaluate: 0.89, report: 0.99 }),
    );
    for (const [i, { fraction }] of progress.entries()) assert.ok(i === 0 || fraction >= progress[i - 1]!.fraction);
    const during = progress.filter(({ step }) => step === "train");
    assert.ok(during.some(({ message }) => /^distill: epoch 1 of 3, loss .* s left$/.test(message)));
    assert.ok(during.some(({ message }) => /^baseline: /.test(message)));
    const judging = progress.find(({ step }) => step === "evaluate");
    assert.equal(judging!.message, "Comparing with the teacher");
  });

  test("the original of the comparison is the teacher", async () => {
    const { report } = await run({ ...params, baseline: false }, models);
    assert.deepEqual([report.origins.before.id, report.held_against], ["teacher", "teacher"]);
    const { before, after } = report.models;
    assert.deepEqual([before.parameters, after!.parameters], [parametersOf(12), parametersOf(5)]);
  });

  test("goes on from its checkpoints, to the same bytes", async () => {
    const whole = await run(params, models);
    const names = new Set(whole.checkpoints.map(({ name }) => name));
    assert.deepEqual([...names], ["distill", "baseline"]);
    const last = whole.checkpoints.findLast(({ name }) => name === "distill")!;
    const resumed = await run(params, models, { checkpoints: { distill: last.bytes } });
    assert.deepEqual(epochsOf(resumed), upTo(3, "baseline"));
    assert.equal(bytesOf(resumed), bytesOf(whole));
    assert.deepEqual(untimed(trainingOf(resumed)), untimed(trainingOf(whole)));
    const [first] = whole.checkpoints;
    const early = await run(params, models, { checkpoints: { distill: first!.bytes } });
    assert.deepEqual(epochsOf(early), [...upTo(3, "distill").slice(1), ...upTo(3, "baseline")]);
    assert.equal(bytesOf(early), bytesOf(whole));
  });

  test("hands over what the teacher says, and does not ask it again where that is known", async () => {
    const whole = await run({ ...params, baseline: false }, models);
    assert.deepEqual(
      whole.caches.map(({ name }) => name),
      ["teacher_outputs"],
    );
    const cached = { teacher_outputs: whole.caches[0]!.bytes };
    const again = await run({ ...params, baseline: false }, models, { cached });
    assert.deepEqual(again.caches, []);
    assert.equal(bytesOf(again), bytesOf(whole));
    // It is what is learned from: other outputs make another student.
    const other = await run({ ...params, baseline: false }, { ...models, teacher: network(12, 3) });
    const misled = await run({ ...params, baseline: false }, models, {
      cached: { teacher_outputs: other.caches[0]!.bytes },
    });
    assert.equal(bytesOf(misled), bytesOf(other));
  });

  test("without labels to judge by, a student is judged by its teacher", async () => {
    const { labels: _, ...unlabelled } = JUDGING;
    const datasets = { ...DATASETS, judge: writeNpz(unlabelled) };
    const ran = await run({ ...params, baseline: false }, models, { datasets });
    const training = trainingOf(ran);
    const [teacher, student] = [models.teacher, ran.model()].map((model) => runModel(model, { x: JUDGING.x }));
    const said = (await teacher)!.logits!;
    const classes = BigInt64Array.from({ length: 90 }, (_, i) => {
      const row = floatsOf(said).slice(i * CLASSES, (i + 1) * CLASSES);
      return BigInt(row.indexOf(Math.max(...row)));
    });
    const agreement = top1((await student)!.logits!, tensorOf("int64", [90], classes));
    assert.deepEqual([training.metric, training.student_metric], ["teacher_agreement", agreement]);
    assert.deepEqual([training.teacher_metric, ran.metrics.accuracy], [1, null]);
  });

  test("without a dataset to judge by it is judged by what was held out, and without labels by none of them", async () => {
    const held = { evaluation: { dataset_id: null } };
    const ran = await run({ ...params, baseline: false }, models, held);
    assert.equal(trainingOf(ran).metric_samples, 50);
    assert.equal(trainingOf(ran).student_metric, await scoreOf(ran.model(), heldOut()));
    assert.deepEqual([ran.metrics.fidelity.data, ran.metrics.fidelity.samples], ["validation", 50]);
    assert.equal(ran.metrics.accuracy!.after, trainingOf(ran).student_metric);
    const none = await run({ ...params, baseline: false }, models, {
      evaluation: { dataset_id: null, metric: "none" },
    });
    assert.deepEqual([trainingOf(none).metric, none.metrics.accuracy], ["teacher_agreement", null]);
    const nothing = await run(
      { ...params, baseline: false, training: { ...SPLIT, validation_split: 0 } },
      models,
      held,
    );
    assert.deepEqual([trainingOf(nothing).metric, trainingOf(nothing).metric_samples], [null, 0]);
    assert.equal(nothing.metrics.fidelity.data, "synthetic");
  });

  test("as many samples judge as were asked for", async () => {
    const ran = await run({ ...params, baseline: false }, models, { evaluation: { samples: 40 } });
    assert.equal(trainingOf(ran).metric_samples, 40);
    const { feeds, labels } = drawnSamples(await openDataset(memorySource(writeNpz({ ...JUDGING }))), 40).gather([
      ...Array(40).keys(),
    ]);
    const few = { x: feeds.x!, labels: labels! };
    assert.equal(trainingOf(ran).student_metric, await scoreOf(ran.model(), few));
    assert.equal(ran.metrics.accuracy!.samples, 40);
  });

  test("a student of half the width is made from its teacher, with its weights", async () => {
    const derived = { ...params, student: { derive: { width: 0.5 } }, baseline: false };
    const { teacher } = models;
    const planned = await plan(derived, { teacher });
    assert.deepEqual([planned.student_parameters, planned.teacher_parameters], [parametersOf(6), parametersOf(12)]);
    const ran = await run(derived, { teacher });
    assert.equal(trainingOf(ran).networks[0]!.parameters, parametersOf(6));
    assert.equal(ran.outcome.facts.parameters, parametersOf(6));
  });

  test("a student that is drawn anew starts from other weights than its file has, by the seed", async () => {
    const drawn = { ...params, student: { model_id: "student", init: "reinitialize" }, baseline: false };
    const [one, two] = [await run(drawn, models), await run({ ...drawn, seed: 1 }, models)];
    const before = trainingOf(one).student_before_metric;
    assert.notEqual(before, await scoreOf(models.student));
    assert.notEqual(trainingOf(two).student_before_metric, before);
  });

  test("plain training is held against the student as it was, and its phase is called what it is", async () => {
    const plain = {
      ...{ mode: "offline", student: { model_id: "student" } },
      loss: { kl_weight: 0, label_weight: 1 },
    };
    const ran = await run(plain, models);
    assert.deepEqual(epochsOf(ran), upTo(3, "train"));
    assert.equal(ran.metrics.accuracy!.before, await scoreOf(models.student));
    assert.equal(trainingOf(ran).teacher_metric, null);
    const logs = ran.news.flatMap((it) => (it.kind === "log" ? [it.message] : []));
    assert.deepEqual(logs, [`The student has ${parametersOf(5)} parameters.`]);
    const progress = ran.news.flatMap((it) => (it.kind === "progress" ? [it.progress] : []));
    assert.ok(progress.some(({ message }) => message.startsWith("train: epoch 1 of 3, ")));
    assert.ok(progress.some(({ step, message }) => step === "evaluate" && message === "Comparing with before"));
    assert.equal((await plan(plain, models)).teacher_parameters, null);
  });

  test("a model says which training made it, of which file", async () => {
    const ran = await run({ ...params, baseline: false }, models);
    const told = (key: string) => toldBefore(ran.model().source, key);
    assert.equal(told("method"), "distill offline");
    const student = Buffer.from(modelToBytes(models.student));
    const hash = createHash("sha256").update(student).digest("hex");
    assert.equal(told("source_sha256"), bundleSha256([{ name: "student.onnx", sha256: hash }]));
  });

  test("outputs that are called otherwise are paired as the job says", async () => {
    const student = network(5, 2);
    student.graph.outputs[0]!.name = "scores";
    const pairs = [{ teacher: "logits", student: "scores" }];
    const paired = { ...params, loss: { ...params.loss, outputs: pairs }, baseline: false };
    const ran = await run(paired, { ...models, student });
    assert.deepEqual((await plan(paired, { ...models, student })).outputs, pairs);
    assert.deepEqual(
      ran.metrics.fidelity.outputs.map(({ name }) => name),
      ["logits"],
    );
    assert.equal(trainingOf(ran).student_metric, await scoreOf(ran.model(), JUDGING, "scores"));
  });

  test("of several outputs those are paired that the job names", async () => {
    const two = (hidden: number, seed: number, first: string, second: string) => {
      const model = network(hidden, seed);
      const [answer] = model.graph.outputs;
      answer!.name = first;
      const copy = model.graph.append({ opType: "Neg", inputs: [answer!], outputs: [second] }).outputs[0]!;
      copy.retype("float32", ["n", CLASSES]);
      model.graph.addOutput(copy);
      return model;
    };
    const own = { teacher: two(12, 1, "logits", "against"), student: two(5, 2, "scores", "other") };
    const pairs = [{ teacher: "logits", student: "scores" }];
    const paired = { ...params, loss: { ...params.loss, outputs: pairs }, baseline: false };
    assert.deepEqual((await plan(paired, own)).outputs, pairs);
    const ran = await run(paired, own);
    assert.deepEqual(
      ran.metrics.fidelity.outputs.map(({ name }) => name),
      ["logits"],
    );
    await assert.rejects(run({ ...params, baseline: false }, own), { code: "invalid_params" });
  });

  test("labels of the data to judge by alone judge no epoch, and the result", async () => {
    const datasets = { ...DATASETS, train: writeNpz({ x: TRAINING.x }) };
    const ran = await run({ ...params, loss: { kl_weight: 1, label_weight: 0 }, baseline: false }, models, {
      datasets,
    });
    assert.equal(trainingOf(ran).metric, "teacher_agreement");
    assert.equal(ran.metrics.accuracy!.after, await scoreOf(ran.model()));
  });

  test("data without any labels are learned from the teacher alone", async () => {
    const datasets = { train: writeNpz({ x: TRAINING.x }), judge: writeNpz({ x: JUDGING.x }) };
    const loss = { kl_weight: 1, label_weight: 0 };
    const ran = await run({ ...params, loss, baseline: false }, models, { datasets });
    assert.deepEqual(Object.keys(trainingOf(ran).history[0]!.losses), ["kl"]);
    assert.deepEqual([trainingOf(ran).metric, ran.metrics.accuracy], ["teacher_agreement", null]);
    const onLabels = run({ ...params, baseline: false }, models, { datasets });
    await assert.rejects(onLabels, { code: "invalid_params", message: /`label_weight` must be 0/ });
  });

  test("without a teacher there is nothing to make a student from", async () => {
    const derived = run({ mode: "offline", student: { derive: { width: 0.5 } } }, {});
    await assert.rejects(derived, { code: "invalid_params", subject: "student" });
  });
});
