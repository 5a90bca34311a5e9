import assert from "node:assert/strict";
import { before, test } from "node:test";
import { DISTILLATION_LOSS, type HintSpec } from "../../../src/core/distill/objective.ts";
import { distillOffline } from "../../../src/core/distill/offline.ts";
import { deriveStudent } from "../../../src/core/distill/student.ts";
import { CoreError } from "../../../src/core/errors.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import { runPasses } from "../../../src/core/passes/pass.ts";
import { dynamicPass } from "../../../src/core/quantize/weights/dynamic.ts";
import { Random } from "../../../src/core/random.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { train } from "../../../src/core/train/loop.ts";
import { crossEntropy } from "../../../src/core/train/losses.ts";
import { OPTIMIZERS } from "../../../src/core/train/optimizer.ts";
import { type Samples, samplesOf } from "../../../src/core/train/samples.ts";
import { SCHEDULES } from "../../../src/core/train/schedule.ts";
import { checkTrainable, createTrainable, exportTrained } from "../../../src/core/train/trainable.ts";
import type { TrainingSettings } from "../../../src/core/train/training-task.ts";
import { transformer } from "../../support/networks.ts";
import { assertRecorded } from "../../support/recorded.ts";

const LENGTH = 8;
const VOCABULARY = 10;

/** Sequences of tokens; the class is which of the tokens 1, 2 and 3 comes first (0 for none of them). */
function sequences(count: number, seed: number): Samples {
  const random = new Random(seed, "sequences");
  const tokens = BigInt64Array.from({ length: count * LENGTH }, () => BigInt(random.integer(VOCABULARY)));
  const labels = BigInt64Array.from({ length: count }, (_, i) => {
    const first = tokens.subarray(i * LENGTH, (i + 1) * LENGTH).find((token) => token >= 1n && token <= 3n);
    return first ?? 0n;
  });
  return samplesOf(
    { tokens: tensorOf("int64", [count, LENGTH], tokens) },
    { labels: tensorOf("int64", [count], labels) },
  );
}

const encoder = (layers: number, width: number, heads: number, seed: number) =>
  transformer({ layers, width, heads, length: LENGTH, vocabulary: VOCABULARY, classes: 4, seed });

const SETTINGS: TrainingSettings = {
  epochs: 6,
  batchSize: 32,
  optimizer: OPTIMIZERS.adamw,
  learningRate: 0.005,
  schedule: SCHEDULES.onecycle,
  warmupSteps: 0,
  weightDecay: 0.01,
  gradientClip: 1,
  averageDecay: null,
  augmentation: null,
  patience: null,
  seed: 2,
  threads: 1,
};

const samples = sequences(960, 1);
const fresh = sequences(400, 9);
let teacher: Model;

before(async () => {
  const trainable = createTrainable(encoder(4, 32, 4, 1));
  const result = await train(
    {
      trainable,
      training: samples,
      objective: ({ g, value, target }) => [
        { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")) },
      ],
    },
    { ...SETTINGS, epochs: 10 },
    { openSession },
  );
  teacher = exportTrained(trainable, result.values);
});

/** The outputs of all nodes of a kind, in order. */
const outputsOf = (model: Model, opType: string) =>
  model.graph.nodes.filter((node) => node.opType === opType).map((node) => node.outputs[0]!.name);

const distill = (student: Model, hints: readonly HintSpec[], from = teacher) =>
  distillOffline(
    {
      teacher: from,
      student,
      reinitialize: false,
      loss: { ...DISTILLATION_LOSS, temperature: 2, klWeight: 1, labelWeight: 0, hints },
      training: SETTINGS,
      samples,
      validationSplit: 0.1,
      evaluation: fresh,
      baseline: false,
    },
    { openSession },
  );

test("a narrow transformer learns attention relations, attention maps and hidden states from a wide one", async () => {
  const student = encoder(2, 16, 4, 5);
  const last = (model: Model, opType: string) => outputsOf(model, opType).at(-1)!;
  const { metrics, run } = await distill(student, [
    // States of other widths: relations need no adaptor, the hidden-state loss learns one.
    {
      teacher: last(teacher, "LayerNormalization"),
      student: last(student, "LayerNormalization"),
      kind: "relation",
      heads: 4,
      weight: 1,
    },
    {
      teacher: last(teacher, "LayerNormalization"),
      student: last(student, "LayerNormalization"),
      kind: "mse",
      weight: 0.5,
    },
    { teacher: last(teacher, "Softmax"), student: last(student, "Softmax"), kind: "attention_map", weight: 0.5 },
  ]);
  const [first, final] = [run.history[0]!.losses, run.history.at(-1)!.losses];
  assert.equal(Object.keys(final).length, 4);
  for (const [name, loss] of Object.entries(final)) {
    assert.ok(loss < 0.9 * first[name]!, `${name}: ${first[name]} at first, ${loss} at last`);
  }
  assertRecorded(metrics!.studentBefore, 0.2925, 0.02);
  assertRecorded(metrics!.studentAfter, 1, 0.01);
});

test("a student of half the layers starts better than chance and ends near its teacher", async () => {
  const derived = await deriveStudent(teacher, { keepLayers: 0.5 }, { openSession, threads: 1, samples });
  const { metrics } = await distill(derived.model, []);
  assert.equal(derived.parameters.student, 26_180);
  assertRecorded(metrics!.studentBefore, 0.9875, 0.02);
  assertRecorded(metrics!.studentAfter, 1, 0.01);
});

test("a quantized teacher cannot be trained, but teaches", async () => {
  const { model } = runPasses(teacher, [
    dynamicPass({ perChannel: true, reduceRange: true, exclude: { nodes: [], ops: [] } }),
  ]);
  const quantized = loadModel(modelToBytes(model));
  assert.ok(outputsOf(quantized, "MatMulInteger").length + outputsOf(quantized, "DynamicQuantizeMatMul").length > 0);
  assert.throws(
    () => checkTrainable(quantized),
    (error) => error instanceof CoreError && error.code === "unsupported",
  );
  const { metrics } = await distill(encoder(1, 16, 2, 3), [], quantized);
  assertRecorded(metrics!.studentBefore, 0.26, 0.02);
  assertRecorded(metrics!.studentAfter, 1, 0.01);
});
