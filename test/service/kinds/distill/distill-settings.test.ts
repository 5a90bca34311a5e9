import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { CoreError, OPTIMIZERS, SCHEDULES } from "../../../../src/core/index.ts";
import { JobRequest } from "../../../../src/service/api/job-schemas.ts";
import { refuse, trainingMetrics } from "../../../../src/service/kinds/distill/run/distill-job.ts";
import {
  lossOf,
  otherModels,
  settingsOf,
  type Trained,
} from "../../../../src/service/kinds/distill/run/distill-modes.ts";
import type { DistillSpec } from "../../../../src/service/kinds/distill/spec.ts";
import { TaskError } from "../../../../src/tasks/protocol.ts";
import { network } from "../../../support/points.ts";

/** What of a request becomes what of a training, field by field, and back: which field a refusal is about. */

const specOf = (params: object, evaluation: object = {}) =>
  JobRequest.parse({
    type: "distill",
    params: { dataset_id: "train", ...params },
    evaluation,
  }) as unknown as DistillSpec;

const OFFLINE = { mode: "offline", teacher_model_id: "teacher", student: { model_id: "student" } };
const ONLINE = { mode: "online", student: { model_id: "one" } };

test("every setting of a training is handed on", () => {
  const training = {
    ...{ epochs: 7, batch_size: 11, optimizer: "adam", learning_rate: 0.3, schedule: "step", warmup_steps: 13 },
    ...{ weight_decay: 0.5, gradient_clip: 2, average_decay: 0.7, update_rounding: "stochastic", patience: 4 },
    augmentation: { input: "x", flip: true, shift_pixels: 3, cutout_pixels: 5, fill: 0.25 },
  };
  const { params } = specOf({ ...OFFLINE, training, seed: 17 });
  assert.deepEqual(settingsOf(params, 6), {
    ...{ epochs: 7, batchSize: 11, optimizer: OPTIMIZERS.adam, learningRate: 0.3, schedule: SCHEDULES.step },
    ...{ warmupSteps: 13, weightDecay: 0.5, gradientClip: 2, averageDecay: 0.7, updateRounding: "stochastic" },
    ...{ augmentation: { input: "x", flip: true, shiftPixels: 3, cutoutPixels: 5, fill: 0.25 }, patience: 4 },
    ...{ seed: 17, threads: 6 },
  });
  const plain = settingsOf(specOf(OFFLINE).params, 1);
  assert.deepEqual(
    [plain.augmentation, plain.patience, plain.averageDecay, plain.gradientClip, "updateRounding" in plain],
    [null, null, null, null, false],
  );
});

test("every part of a loss is handed on, and a hint has heads where it was given some", () => {
  const loss = {
    ...{ temperature: 3, kl_weight: 0.25, label_weight: 0.5, output_loss: "huber", label_smoothing: 0.125 },
    ...{ ignore_label: -5, alpha: 2, beta: 9, outputs: [{ teacher: "a", student: "b" }] },
    hints: [
      { teacher: "t", student: "s", kind: "mse", weight: 1 },
      { teacher: "u", student: "v", kind: "relation", weight: 2, heads: 4 },
    ],
  };
  assert.deepEqual(lossOf(specOf({ ...OFFLINE, loss })), {
    ...{ temperature: 3, klWeight: 0.25, labelWeight: 0.5, outputLoss: "huber", labelSmoothing: 0.125 },
    ...{ ignoreLabel: -5, alpha: 2, beta: 9, outputs: [{ teacher: "a", student: "b" }], hints: loss.hints },
  });
  const usual = lossOf(specOf(OFFLINE, { ignore_label: -1 }));
  assert.deepEqual([usual.ignoreLabel, "outputs" in usual, usual.hints], [-1, false, []]);
});

test("other models are the peers that are named, of networks that learn together", () => {
  const peers = { ...ONLINE, peer_students: [{ model_id: "two" }, { model_id: "three" }] };
  assert.deepEqual(otherModels(specOf(peers).params), ["two", "three"]);
  assert.deepEqual(otherModels(specOf(OFFLINE).params), []);
});

describe("a refusal", () => {
  const fieldOf = (path: readonly (string | number)[], params: object = OFFLINE) => {
    const error = new CoreError("invalid_params", "It does not fit.", "value", { path });
    try {
      refuse(error, specOf(params).params);
    } catch (thrown) {
      assert.ok(thrown instanceof TaskError);
      assert.deepEqual([thrown.code, thrown.message, thrown.subject], ["invalid_params", "It does not fit.", "value"]);
      assert.equal(thrown.cause, error);
      const [field, ...others] = thrown.fields!;
      assert.deepEqual([others, field!.message], [[], "It does not fit."]);
      return [field!.pointer, field!.code];
    }
    return [];
  };

  test("of a part of the loss names the field there, with what is wrong with it", () => {
    assert.deepEqual(fieldOf(["hints", 2, "teacher"]), ["/params/loss/hints/2/teacher", "invalid_hint"]);
    assert.deepEqual(fieldOf(["outputs", 0]), ["/params/loss/outputs/0", "shape_mismatch"]);
    assert.deepEqual(fieldOf(["label_weight"]), ["/params/loss/label_weight", "shape_mismatch"]);
  });

  test("of a batch or an exit names the field beside the loss", () => {
    assert.deepEqual(fieldOf(["training", "batch_size"]), ["/params/training/batch_size", "batch_too_small"]);
    assert.deepEqual(fieldOf(["exits"]), ["/params/exits", "invalid_exit"]);
    assert.deepEqual(fieldOf(["exits", 1]), ["/params/exit_values/1", "invalid_exit"]);
  });

  test("of a network names what brings it in", () => {
    const peers = { ...ONLINE, peer_students: [{ model_id: "two" }, { model_id: "three" }], peers: 4 };
    const at = (name: string, params: object = peers) => fieldOf(["networks", name], params)[0];
    assert.equal(at("teacher"), "/params/teacher_model_id");
    assert.equal(at("student"), "/params/student");
    assert.equal(at("peer_1"), "/params/student");
    assert.equal(at("peer_2"), "/params/peer_students/0");
    assert.equal(at("peer_3"), "/params/peer_students/1");
    assert.equal(at("peer_4"), "/params/student", "a copy of the student");
    assert.equal(at("peer_2", OFFLINE), "/params/student");
    assert.equal(fieldOf(["networks", "peer_2"], peers)[1], "shape_mismatch");
  });

  test("without a path, or of another kind, is passed on as it is", () => {
    const { params } = specOf(OFFLINE);
    for (const error of [new CoreError("invalid_params", "Somewhere."), new Error("Broken.")]) {
      assert.throws(
        () => refuse(error, params),
        (thrown) => thrown === error,
      );
    }
  });
});

test("what is told of a training is what it was", () => {
  const run = (loss: number, bestEpoch: number, bestMetric: number) => {
    const history = [{ epoch: 1, loss, losses: {}, learning_rate: 1, samples_per_second: 5, validation_metric: 0.5 }];
    return { history, bestEpoch, bestMetric, values: {}, samplesPerSecond: 123 };
  };
  const [one, two] = [run(1, 3, 0.5), run(2, 4, 0.25)];
  const trained = {
    run: two,
    baseline: { model: network(2, 1), run: one },
    metrics: { name: "top1", samples: 9, teacher: 0.9, studentBefore: 0.1, studentAfter: 0.8, baseline: 0.7 },
    networks: [
      { name: "peer_1", model: network(2, 1), run: one, before: 0.2, metric: 0.3 },
      { name: "peer_2", model: network(3, 1), run: two, before: 0.4, metric: 0.6 },
    ],
    ...{ chosen: "peer_2", ensemble: 0.65, student: network(3, 1) },
  } as unknown as Trained;
  assert.deepEqual(trainingMetrics(trained), {
    ...{ history: two.history, best_epoch: 4, metric: "top1", metric_samples: 9, teacher_metric: 0.9 },
    ...{ student_before_metric: 0.1, student_metric: 0.8, baseline_metric: 0.7, baseline_history: one.history },
    ...{ samples_per_second: 123, chosen: "peer_2", ensemble_metric: 0.65 },
    networks: [
      {
        ...{ name: "peer_1", parameters: 8 * 2 + 2 + 2 * 4 + 4, history: one.history, best_epoch: 3 },
        ...{ validation_metric: 0.5, before_metric: 0.2, metric: 0.3, artifact: "peer_1.onnx" },
      },
      {
        ...{ name: "peer_2", parameters: 8 * 3 + 3 + 3 * 4 + 4, history: two.history, best_epoch: 4 },
        ...{ validation_metric: 0.25, before_metric: 0.4, metric: 0.6, artifact: "model.onnx" },
      },
    ],
  });
  const untold = trainingMetrics({ ...trained, metrics: null, baseline: null });
  assert.deepEqual(
    [untold.metric, untold.metric_samples, untold.teacher_metric, untold.student_metric, untold.baseline_history],
    [null, 0, null, null, null],
  );
});
