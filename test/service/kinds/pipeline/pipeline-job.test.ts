import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { DISTILL_RUN } from "../../../../src/service/kinds/distill/run/distill-job.ts";
import { PIPELINE_RUN } from "../../../../src/service/kinds/pipeline/run/pipeline-job.ts";
import { QUANTIZE_RUN } from "../../../../src/service/kinds/quantize/run/quantize-job.ts";
import { type JobOptions, NO_PEAK, planJob, runJob } from "../../../support/job-run.ts";
import { emptyMetrics } from "../../../support/jobs.ts";
import { DATASETS, network, parametersOf, scoreOf } from "../../../support/points.ts";

/** Pipelines in this process: their plans, and how the last model is held against the first. */

const TEACHER = network(12, 1);
const TRAINING = { epochs: 2, batch_size: 30, validation_split: 0.25, learning_rate: 0.1 };
const DISTILL = {
  ...{ mode: "offline", teacher_model_id: "teacher", dataset_id: "train", student: { model_id: "student" } },
  training: TRAINING,
};
const STATIC = { method: "static", dataset_id: "train", samples: 40, float_where_slower: false };
const STEPS = [
  { type: "distill", name: "smaller", params: DISTILL },
  { type: "quantize", name: "int8", params: STATIC },
];
const MODELS = { teacher: TEACHER, student: network(5, 2) };

const optionsOf = (
  steps: readonly object[],
  more: Partial<JobOptions> & { readonly body?: object } = {},
): JobOptions => {
  const { body, ...rest } = more;
  return {
    body: {
      ...{ type: "pipeline", params: { steps } },
      evaluation: { dataset_id: "judge", latency: { runs: 2 } },
      ...body,
    },
    ...{ models: MODELS, datasets: DATASETS, environment: NO_PEAK, ...rest },
  };
};

const finished = (name: string, type: string, model_id: string, model: Model) => ({
  ...{ name, type, model_id, created: true, parameters: model.graph.nodes.length, metrics: emptyMetrics() },
  ...{ model_artifacts: [], report_artifacts: [] },
});

test("a plan has those of its steps, each on a model of the structure that the one before makes", async () => {
  const { steps } = await planJob(PIPELINE_RUN, optionsOf(STEPS));
  assert.deepEqual(
    steps.map(({ name, plan }) => [name, plan.type]),
    [
      ["smaller", "distill"],
      ["int8", "quantize"],
    ],
  );
  const [first, second] = steps.map(({ plan }) => plan);
  assert.ok(first?.type === "distill" && second?.type === "quantize");
  assert.deepEqual([first.teacher_parameters, first.student_parameters], [parametersOf(12), parametersOf(5)]);
  assert.equal(second.quantized_nodes.length >= 2, true);
  const earlier = second.provisional.filter(({ code }) => code === "earlier_step");
  assert.deepEqual(
    earlier.map(({ message }) => message),
    ["The model of smaller is not made yet: what depends on its values may come out otherwise."],
  );
  const alone = await planJob(QUANTIZE_RUN, {
    ...optionsOf([]),
    body: { type: "quantize", model_id: "student", params: STATIC },
  });
  assert.ok(alone.provisional.every(({ code }) => code !== "earlier_step"));
});

test("what is wrong with a field of a step is wrong with that of the pipeline", async () => {
  const wrong = [STEPS[0]!, { type: "quantize", name: "int8", params: { ...STATIC, exclude_nodes: ["nowhere"] } }];
  await assert.rejects(planJob(PIPELINE_RUN, optionsOf(wrong)), (error: unknown) => {
    const { code, fields } = error as { code: string; fields: readonly { pointer: string; code: string }[] };
    assert.equal(code, "validation_failed");
    assert.deepEqual(
      fields.map((field) => `${field.pointer} ${field.code}`),
      ["/params/steps/1/params/exclude_nodes/0 unknown_node"],
    );
    return true;
  });
});

test("the last model is held against the first, by the labels and outputs of the step that trains, and all steps are told of", async () => {
  const trained = await runJob(DISTILL_RUN, {
    ...optionsOf([]),
    body: { type: "distill", params: DISTILL, evaluation: { dataset_id: "judge", latency: { runs: 1 } } },
  });
  const student = trained.model();
  const quantized = await runJob(QUANTIZE_RUN, {
    ...optionsOf([]),
    models: { student },
    body: { type: "quantize", model_id: "student", params: STATIC, evaluation: { latency: { runs: 1 } } },
  });
  const last = quantized.model();
  const steps = [
    finished("smaller", "distill", "trained", student),
    finished("int8", "quantize", "quantized", last),
  ] as unknown as JobOptions["steps"];
  const models = { ...MODELS, trained: student, quantized: last };
  const { metrics, outcome, report } = await runJob(PIPELINE_RUN, optionsOf(STEPS, { models, steps: steps! }));
  assert.deepEqual([metrics.accuracy!.before, metrics.accuracy!.after], [await scoreOf(TEACHER), await scoreOf(last)]);
  assert.deepEqual([outcome.model, metrics.fidelity.data, metrics.fidelity.samples], [[], "evaluation", 90]);
  assert.deepEqual([report.origins.before.id, report.held_against], ["teacher", "teacher"]);
  assert.deepEqual(
    report.steps.map(({ name, model_id }) => [name, model_id]),
    [
      ["smaller", "trained"],
      ["int8", "quantized"],
    ],
  );
  assert.deepEqual(Object.keys(report.timings_ms).slice(0, 1), ["evaluate"]);
  const missed = await runJob(
    PIPELINE_RUN,
    optionsOf(STEPS, { models, steps: steps!, body: { acceptance: { max_size_ratio: 0.01 } } }),
  );
  assert.equal(missed.outcome.accepted, false);
  const without = optionsOf(STEPS, { models, steps: steps!, body: { evaluation: { latency: { runs: 1 } } } });
  assert.equal((await runJob(PIPELINE_RUN, without)).metrics.fidelity.data, "synthetic");
});

/** The logits under another name. */
function renamed(hidden: number, seed: number, output: string): Model {
  const model = network(hidden, seed);
  model.graph.outputs[0]!.name = output;
  return model;
}

test("outputs that are called otherwise are compared as the step that trains pairs them, where its teacher is the first model", async () => {
  const last = renamed(5, 2, "scores");
  const loss = { outputs: [{ teacher: "logits", student: "scores" }] };
  const steps = [finished("a", "distill", "trained", last), finished("b", "quantize", "last", last)];
  const given = { steps: steps as unknown as NonNullable<JobOptions["steps"]> };
  const [distill, int8] = [
    { type: "distill", name: "a", params: { ...DISTILL, loss } },
    { ...STEPS[1]!, name: "b" },
  ];
  const models = { ...MODELS, student: last, trained: last, last };
  const { metrics } = await runJob(PIPELINE_RUN, optionsOf([distill, int8], { ...given, models }));
  assert.equal(metrics.accuracy!.before, await scoreOf(TEACHER));
  assert.equal(metrics.accuracy!.after, await scoreOf(last, undefined, "scores"));
  // A model that is made simpler and then trained by a teacher is held against itself.
  const own = renamed(5, 2, "scores");
  const behind = [
    { type: "quantize", name: "a", params: { method: "simplify" } },
    { type: "distill", name: "b", params: { ...DISTILL, loss, student: { model_id: "previous" } } },
  ];
  const held = await runJob(
    PIPELINE_RUN,
    optionsOf(behind, { ...given, models: { ...models, own }, body: { model_id: "own" } }),
  );
  assert.deepEqual(
    held.metrics.fidelity.outputs.map(({ name }) => name),
    ["scores"],
  );
  assert.equal(held.metrics.accuracy!.before, await scoreOf(own, undefined, "scores"));
});
