import assert from "node:assert/strict";
import { test } from "node:test";
import type { DatasetFacts, ModelFacts, ValueFacts } from "../../../../src/core/index.ts";
import { JobRequest } from "../../../../src/service/api/job-schemas.ts";
import type { DatasetRecord, ModelRecord } from "../../../../src/service/catalog.ts";
import { fieldErrorsOf } from "../../../../src/service/field-errors.ts";
import { checkJob } from "../../../../src/service/kinds/checks.ts";
import { peersOf } from "../../../../src/service/kinds/distill/params.ts";
import { cacheKeysOf } from "../../../../src/service/kinds/kinds.ts";
import { DATASET_FACTS, MODEL_FACTS } from "../../../support/memory-workers.ts";

const value = (name: string, shape: ValueFacts["shape"], dtype: ValueFacts["dtype"] = "float32"): ValueFacts => ({
  ...{ name, dtype, shape },
});
const model = (facts: Partial<ModelFacts> = {}) =>
  ({
    facts: { ...MODEL_FACTS, inputs: [value("x", ["n", 4])], outputs: [value("y", ["n", 3])], ...facts },
  }) as ModelRecord;
const dataset = (id: string, facts: Partial<DatasetFacts> = {}) => {
  const fields = [{ name: "x", dtype: "float32", shape: [4] }] as const;
  return { id, facts: { ...DATASET_FACTS, fields, has_labels: true, ...facts } } as DatasetRecord;
};

const REFUSING = { ok: false, subject: "loop", message: 'The model cannot be trained through "loop".' };
const SHARES = { kind: "shares", class_axis: null, evident: true } as const;
const MODELS = new Map([
  ["mdl_teacher", model()],
  ["mdl_student", model({ outputs: [value("scores", ["n", 3])] })],
  ["mdl_stubborn", model({ trainable: REFUSING })],
  ["mdl_two", model({ outputs: [value("a", ["n", 3]), value("b", ["n", 3])] })],
  ["mdl_single", model({ inputs: [value("x", [4])] })],
  ["mdl_half", model({ inputs: [value("x", ["n", 4], "float16")] })],
  ["mdl_shares", model({ outputs: [{ ...value("y", ["n", 3]), meaning: SHARES }] })],
  ["mdl_wide", model({ inputs: [value("x", ["n", 5])] })],
]);
const DATASETS = new Map([
  ["dst_labelled", dataset("dst_labelled")],
  ["dst_bare", dataset("dst_bare", { has_labels: false })],
]);

const parse = (params: object, rest: object = {}) =>
  JobRequest.safeParse({
    type: "distill",
    params: {
      ...{ mode: "offline", teacher_model_id: "mdl_teacher", dataset_id: "dst_labelled" },
      ...{ student: { model_id: "mdl_student" } },
      ...params,
    },
    ...rest,
  });
const found = (params: object, rest: object = {}) =>
  checkJob(parse(params, rest).data!, { models: MODELS, datasets: DATASETS }).map(
    ({ pointer, code }) => `${pointer} ${code}`,
  );
const malformed = (params: object) =>
  fieldErrorsOf(parse(params).error!, "").map(({ pointer, code }) => `${pointer} ${code}`);

test("every default is filled in", () => {
  const { data } = parse({});
  assert.ok(data?.type === "distill");
  assert.deepEqual(data.params, {
    mode: "offline",
    teacher_model_id: "mdl_teacher",
    dataset_id: "dst_labelled",
    student: { model_id: "mdl_student", init: "keep" },
    loss: {
      ...{ temperature: 4, kl_weight: 0.9, label_weight: 0.1, output_loss: null, label_smoothing: 0 },
      ignore_label: null,
      ...{ alpha: 1, beta: 8, hints: [], outputs: null },
    },
    training: {
      ...{ epochs: 10, batch_size: 128, optimizer: "adamw", learning_rate: 0.005, schedule: "onecycle" },
      ...{ warmup_steps: 0, weight_decay: 0.0001, gradient_clip: null, validation_split: 0.1 },
      ...{ average_decay: null, update_rounding: null, patience: null, augmentation: null },
    },
    baseline: false,
    seed: 0,
  });
  assert.deepEqual(found({}), []);
  assert.deepEqual(found({ teacher_model_id: null, loss: { kl_weight: 0, label_weight: 1 } }), []);
});

test("what has no meaning is not even parsed", () => {
  assert.deepEqual(malformed({ mode: "offhand" }), ["/params/mode not_allowed"]);
  for (const student of [{}, { derive: {} }, { derive: { width: 1 } }, { derive: { width: 0.5, rank: 0.5 } }]) {
    const pointers = malformed({ student }).map((text) => text.split(" ")[0]!);
    assert.ok(pointers.length === 1 && pointers[0]!.startsWith("/params/student"), String(pointers));
  }
  assert.deepEqual(malformed({ training: { epochs: 0, steps: 3 }, loss: { temperature: 0 } }).sort(), [
    "/params/loss/temperature too_small",
    "/params/training/epochs too_small",
    "/params/training/steps unrecognized_key",
  ]);
});

test("every stored thing must be there", () => {
  const params = { teacher_model_id: "mdl_a", dataset_id: "dst_a", student: { model_id: "mdl_b" } };
  assert.deepEqual(found(params, { evaluation: { dataset_id: "dst_b" } }), [
    "/params/teacher_model_id unknown_model",
    "/params/dataset_id unknown_dataset",
    "/params/student/model_id unknown_model",
    "/evaluation/dataset_id unknown_dataset",
  ]);
});

test("without a teacher nothing can be asked of one", () => {
  const hints = [{ teacher: "a", student: "b", kind: "mse", weight: 1 }];
  assert.deepEqual(found({ teacher_model_id: null, loss: { hints }, baseline: true }), [
    "/params/loss/kl_weight no_teacher",
    "/params/loss/hints no_teacher",
    "/params/baseline no_teacher",
  ]);
  assert.deepEqual(found({ teacher_model_id: null, student: { derive: { rank: 0.5 } }, loss: { kl_weight: 0 } }), [
    "/params/student/derive no_teacher",
  ]);
});

test("labels must be there where they are read", () => {
  assert.deepEqual(found({ dataset_id: "dst_bare", loss: { output_loss: "dkd" }, baseline: true }), [
    "/params/loss/label_weight no_labels",
    "/params/loss/output_loss no_labels",
    "/params/baseline no_labels",
  ]);
  const bare = { dataset_id: "dst_bare", loss: { label_weight: 0 } };
  assert.deepEqual(found(bare), []);
  const judged = { evaluation: { metric: "top1" }, acceptance: { max_metric_drop: 0.1 } };
  const missing = ["/evaluation/metric no_labels", "/acceptance/max_metric_drop no_labels"];
  assert.deepEqual(found(bare, judged), missing);
  // Held-out samples have the labels of the training data, unless none are held out.
  assert.deepEqual(found({}, judged), []);
  assert.deepEqual(found({ training: { validation_split: 0 } }, judged), missing);
});

test("a loss of nothing teaches nothing", () => {
  assert.deepEqual(found({ loss: { kl_weight: 0, label_weight: 0 } }), ["/params/loss no_loss"]);
});

test("a student must be trainable, a teacher need not be", () => {
  assert.deepEqual(found({ student: { model_id: "mdl_stubborn" } }), ["/params/student/model_id not_trainable"]);
  assert.deepEqual(found({ teacher_model_id: "mdl_stubborn" }), []);
  assert.deepEqual(found({ teacher_model_id: "mdl_stubborn", student: { derive: { width: 0.5 } } }), [
    "/params/student/derive not_trainable",
  ]);
});

test("outputs must be paired, by name or as told", () => {
  assert.deepEqual(found({ student: { model_id: "mdl_two" } }), ["/params/loss/outputs output_mismatch"]);
  const outputs = [{ teacher: "y", student: "b" }];
  assert.deepEqual(found({ student: { model_id: "mdl_two" }, loss: { outputs } }), []);
  assert.deepEqual(found({ loss: { outputs } }), ["/params/loss/outputs output_mismatch"]);
});

test("the data must feed both models, in batches", () => {
  assert.deepEqual(found({ student: { model_id: "mdl_wide" } }), ["/params/dataset_id dataset_mismatch"]);
  assert.deepEqual(found({ student: { model_id: "mdl_single" } }), ["/params/dataset_id dataset_mismatch"]);
  assert.deepEqual(found({ student: { model_id: "mdl_half" } }), ["/params/student/model_id input_mismatch"]);
});

test("shares are compared with shares, and neither as scores of classes nor with what is none", () => {
  const own = { student: { model_id: "mdl_shares" } };
  const both = { ...own, teacher_model_id: "mdl_shares" };
  const refusal = ["/params/loss/output_loss shape_mismatch"];
  const ofModes = (params: object) => {
    const { data } = JobRequest.safeParse({
      ...{ type: "distill", params: { dataset_id: "dst_labelled", ...own, ...params } },
      evaluation: { metric: "top1" },
    });
    return checkJob(data!, { models: MODELS, datasets: DATASETS }).map(({ pointer, code }) => `${pointer} ${code}`);
  };
  for (const loss of ["kl", "dkd"]) {
    assert.deepEqual(found({ ...own, loss: { output_loss: loss } }), refusal);
    assert.deepEqual(found({ teacher_model_id: "mdl_shares", loss: { output_loss: loss } }), refusal);
    assert.deepEqual(found({ ...both, loss: { output_loss: loss } }), loss === "kl" ? [] : refusal);
  }
  for (const loss of [{}, { output_loss: null }, { output_loss: "mse" }]) {
    assert.deepEqual(found({ ...own, loss }), []);
    assert.deepEqual(found({ ...both, loss }), []);
  }
  for (const mode of [
    { mode: "online" },
    { mode: "self", self_kind: "mean_teacher" },
    { mode: "self", self_kind: "born_again" },
  ]) {
    assert.deepEqual(ofModes({ ...mode, loss: { output_loss: "kl" } }), [], JSON.stringify(mode));
    assert.deepEqual(ofModes(mode), [], JSON.stringify(mode));
  }
  const exits = { mode: "self", self_kind: "be_your_own_teacher" };
  assert.deepEqual(ofModes(exits), ["/params/student/model_id shape_mismatch"]);
});

test("what a teacher says is found out again only where it would be something else", () => {
  const host = { cpu: "one", isa: ["avx2"] };
  const keys = (params: object, on: object = host) => cacheKeysOf(parse(params).data!, { ...host, ...on });
  const first = keys({ loss: { output_loss: "kl" } }).teacher_outputs;
  assert.match(first!, /^[0-9a-f]{64}$/);
  const same = [
    { seed: 5 },
    { student: { derive: { width: 0.5 } } },
    { training: { epochs: 3 } },
    { loss: { output_loss: "dkd" } },
  ].map((params) => ({ loss: { output_loss: "kl" }, ...params }));
  for (const params of same) assert.equal(keys(params).teacher_outputs, first, JSON.stringify(params));
  const others = [
    { teacher_model_id: "mdl_two" },
    { dataset_id: "dst_bare" },
    { loss: { output_loss: "mse" } },
    {},
    { training: { batch_size: 7 } },
  ];
  assert.equal(new Set([first, ...others.map((params) => keys(params).teacher_outputs)]).size, 1 + others.length);
  assert.notEqual(keys({}, { cpu: "another" }).teacher_outputs, first);
  const alone = { teacher_model_id: null, loss: { kl_weight: 0, label_weight: 1 } };
  const augmented = { training: { augmentation: { input: "x" } } };
  for (const params of [alone, augmented]) assert.deepEqual(keys(params), {});
});

test("without a teacher a student is judged by labels, so there are a metric and labels", () => {
  const labels = { teacher_model_id: null, loss: { kl_weight: 0, label_weight: 1 } };
  assert.deepEqual(found(labels, { evaluation: { metric: "none" } }), ["/evaluation/metric no_teacher"]);
  assert.deepEqual(found(labels, { evaluation: { dataset_id: "dst_bare" } }), ["/evaluation/dataset_id no_labels"]);
  assert.deepEqual(found(labels, { evaluation: { dataset_id: "dst_labelled", metric: "top1" } }), []);
});

test("peers that are not named are copies of the student with weights of their own", () => {
  const peersFor = (rest: object) => {
    const params = { mode: "online", dataset_id: "d", student: { model_id: "a" }, ...rest };
    const { data } = JobRequest.safeParse({ type: "distill", params });
    assert.ok(data?.type === "distill" && data.params.mode === "online");
    return peersOf(data.params).map(({ student, reinitialize }) => [
      "model_id" in student ? student.model_id : null,
      reinitialize,
    ]);
  };
  assert.deepEqual(peersFor({}), [
    ["a", false],
    ["a", true],
  ]);
  assert.deepEqual(peersFor({ peers: 3 }), [
    ["a", false],
    ["a", true],
    ["a", true],
  ]);
  const named = [{ model_id: "b" }, { model_id: "c", init: "reinitialize" }];
  assert.deepEqual(peersFor({ peer_students: named }), [
    ["a", false],
    ["b", false],
    ["c", true],
  ]);
});

test("peers learn from labels, of shapes that go together, and weigh no teacher that there is not", () => {
  const online = (params: object, rest: object = {}) =>
    found({ mode: "online", teacher_model_id: null, ...params }, { evaluation: { metric: "top1" }, ...rest });
  assert.deepEqual(online({}), []);
  assert.deepEqual(online({ dataset_id: "dst_bare" }), ["/params/dataset_id no_labels"]);
  assert.deepEqual(online({ loss: { teacher_kl_weight: 0.5 } }), ["/params/loss/teacher_kl_weight unused_field"]);
  assert.deepEqual(online({ loss: { teacher_kl_weight: 0 } }), []);
  assert.deepEqual(online({}, { evaluation: { metric: "none" } }), ["/evaluation/metric no_metric"]);
  const four = [{ model_id: "mdl_student" }, { model_id: "mdl_student" }, { model_id: "mdl_student" }];
  assert.equal(online({ peers: 3, peer_students: four })[0]!.split(" ")[0], "/params/peers");
});
