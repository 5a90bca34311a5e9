/** What the modes teach, against the same training computed in float64: linear classifiers, whose gradients can be written down. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { distillBornAgain } from "../../../src/core/distill/born-again.ts";
import type { Distillation } from "../../../src/core/distill/distillation.ts";
import { distillMeanTeacher } from "../../../src/core/distill/mean-teacher.ts";
import { DISTILLATION_LOSS } from "../../../src/core/distill/objective.ts";
import { distillOnline, type OnlineDistillation } from "../../../src/core/distill/online.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { Random } from "../../../src/core/random.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { samplesOf } from "../../../src/core/train/samples.ts";
import { SCHEDULES } from "../../../src/core/train/schedule.ts";
import type { TrainingSettings } from "../../../src/core/train/training-task.ts";
import { NetworkBuilder } from "../../support/networks.ts";
import { top1Of } from "../../support/top1.ts";

const [COUNT, WIDTH, CLASSES] = [12, 5, 4];
const RATE = 0.3;
const DECAY = 0.05;
const MOMENTUM = 0.9;
const STEPS = 6;
/** Of weights of size 1 after a few steps in float32. */
const TOLERANCE = 2e-6;

/** All samples are one batch, so that an epoch is a step. */
const SETTINGS: TrainingSettings = {
  epochs: STEPS,
  batchSize: COUNT,
  optimizer: { kind: "sgd", momentum: MOMENTUM, nesterov: false },
  learningRate: RATE,
  schedule: SCHEDULES.constant,
  warmupSteps: 0,
  weightDecay: DECAY,
  gradientClip: null,
  averageDecay: null,
  augmentation: null,
  patience: null,
  seed: 5,
  threads: 1,
};

const random = new Random(2, "samples");
const x = new Float32Array(COUNT * WIDTH);
random.fillNormal(x);
const labels = Array.from({ length: COUNT }, () => random.integer(CLASSES));
const data = {
  samples: samplesOf(
    { x: tensorOf("float32", [COUNT, WIDTH], x) },
    { labels: tensorOf("int64", [COUNT], BigInt64Array.from(labels, BigInt)) },
  ),
  validationSplit: 0,
  metricOf: top1Of,
};

function linear(seed: number): Model {
  const net = new NetworkBuilder(seed);
  return net.output(net.linear(net.input(["n", WIDTH]), WIDTH, CLASSES), ["n", CLASSES]);
}

/** Weights [CLASSES, WIDTH] and biases, in float64. */
interface Weights {
  readonly w: Float64Array;
  readonly b: Float64Array;
}

function weightsOf(model: Model): Weights {
  const named = (name: string) => floatsOf([...model.graph.initializers].find((it) => it.name === name)!.constant!);
  return { w: Float64Array.from(named("fc0.weight")), b: Float64Array.from(named("fc0.bias")) };
}

const copied = ({ w, b }: Weights): Weights => ({ w: w.slice(), b: b.slice() });

/** softmax(z / T) of every sample. */
function answers({ w, b }: Weights, temperature: number): number[][] {
  return labels.map((_, n) => {
    const z = Array.from(b, (bias, k) => {
      let sum = bias;
      for (let i = 0; i < WIDTH; i++) sum += w[k * WIDTH + i]! * x[n * WIDTH + i]!;
      return Math.exp(sum / temperature);
    });
    const total = z.reduce((sum, e) => sum + e, 0);
    return z.map((e) => e / total);
  });
}

/**
 * ∂L/∂z of every sample for L = labelWeight · CE + klWeight · T² · mean over teachers of KL(teacher ‖ own): p − y for the labels, T·(p − q)
 * for what a teacher says, both over the number of samples.
 */
function slopes(
  own: Weights,
  teachers: readonly Weights[],
  loss: { readonly temperature: number; readonly klWeight: number; readonly labelWeight: number },
): number[][] {
  const { temperature, klWeight, labelWeight } = loss;
  const plain = answers(own, 1);
  const soft = answers(own, temperature);
  const taught = teachers.map((teacher) => answers(teacher, temperature));
  return plain.map((row, n) =>
    row.map((p, k) => {
      const ofLabels = p - (labels[n] === k ? 1 : 0);
      const ofTeachers = taught.reduce((sum, q) => sum + soft[n]![k]! - q[n]![k]!, 0) / Math.max(1, taught.length);
      return (labelWeight * ofLabels + klWeight * temperature * ofTeachers) / COUNT;
    }),
  );
}

/** A network that is trained by gradient descent with momentum; biases do not decay. */
class Learner {
  readonly weights: Weights;
  readonly #speed: Weights = { w: new Float64Array(CLASSES * WIDTH), b: new Float64Array(CLASSES) };

  constructor(start: Model) {
    this.weights = weightsOf(start);
  }

  update(slope: readonly (readonly number[])[]): void {
    const { w, b } = this.weights;
    for (let k = 0; k < CLASSES; k++) {
      for (let i = 0; i < WIDTH; i++) {
        const at = k * WIDTH + i;
        const gradient = slope.reduce((sum, row, n) => sum + row[k]! * x[n * WIDTH + i]!, DECAY * w[at]!);
        this.#speed.w[at] = MOMENTUM * this.#speed.w[at]! + gradient;
        w[at]! -= RATE * this.#speed.w[at]!;
      }
      const gradient = slope.reduce((sum, row) => sum + row[k]!, 0);
      this.#speed.b[k] = MOMENTUM * this.#speed.b[k]! + gradient;
      b[k]! -= RATE * this.#speed.b[k]!;
    }
  }
}

function assertClose(model: Model, expected: Weights, what: string): void {
  const made = weightsOf(model);
  for (const part of ["w", "b"] as const) {
    const worst = expected[part].reduce((most, value, i) => Math.max(most, Math.abs(value - made[part][i]!)), 0);
    assert.ok(worst < TOLERANCE, `${what}, ${part}: ${worst}`);
  }
}

const modelOf = ({ networks }: Distillation, name: string) => networks.find((it) => it.name === name)!.model;

describe("what networks teach each other, against float64", () => {
  const loss = { ...DISTILLATION_LOSS, temperature: 2, klWeight: 0.7, labelWeight: 0.9, teacherKlWeight: 0 };
  const online = (spec: Partial<OnlineDistillation>) =>
    distillOnline(
      { ...data, networks: [], update: "simultaneous", loss, training: SETTINGS, baseline: false, ...spec },
      { openSession },
    );
  const starts = [linear(1), linear(2), linear(3)];
  const peers = starts.map((model, i) => ({ name: `peer_${i + 1}`, model }));

  test("peers that are updated at once", async () => {
    const made = await online({ networks: peers });
    const learners = starts.map((start) => new Learner(start));
    for (let step = 0; step < STEPS; step++) {
      const all = learners.map(({ weights }) => copied(weights));
      for (const [i, learner] of learners.entries()) learner.update(slopes(all[i]!, all.toSpliced(i, 1), loss));
    }
    for (const [i, { weights }] of learners.entries())
      assertClose(modelOf(made, `peer_${i + 1}`), weights, `peer ${i}`);
  });

  test("peers that are updated in turn", async () => {
    const made = await online({ networks: peers, update: "alternating" });
    const learners = starts.map((start) => new Learner(start));
    for (let step = 0; step < STEPS; step++) {
      for (const [i, learner] of learners.entries()) {
        const others = learners.toSpliced(i, 1).map(({ weights }) => weights);
        learner.update(slopes(learner.weights, others, loss));
      }
    }
    for (const [i, { weights }] of learners.entries())
      assertClose(modelOf(made, `peer_${i + 1}`), weights, `peer ${i}`);
  });

  test("a teacher that learns from its student", async () => {
    const networks = [
      { name: "student", model: starts[0]! },
      { name: "teacher", model: starts[1]! },
    ];
    const made = await online({ networks, teacher: "teacher", loss: { ...loss, teacherKlWeight: 0.2 } });
    const [student, teacher] = [new Learner(starts[0]!), new Learner(starts[1]!)];
    for (let step = 0; step < STEPS; step++) {
      const [s, t] = [copied(student.weights), copied(teacher.weights)];
      student.update(slopes(s, [t], loss));
      teacher.update(slopes(t, [s], { ...loss, klWeight: 0.2 }));
    }
    assertClose(modelOf(made, "student"), student.weights, "student");
    assertClose(modelOf(made, "teacher"), teacher.weights, "teacher");
  });

  test("generations: each learns from the last values of the one before", async () => {
    const made = await distillBornAgain(
      { ...data, model: linear(4), reinitialize: false, generations: 3, average: false, loss, training: SETTINGS },
      { openSession },
    );
    assert.equal(made.networks.length, 3);
    const first = new Learner(linear(4));
    for (let step = 0; step < STEPS; step++) {
      first.update(slopes(first.weights, [], { temperature: 1, klWeight: 0, labelWeight: 1 }));
    }
    assertClose(modelOf(made, "generation_1"), first.weights, "generation 1");
    // Where a later one starts is drawn from its seed: a run without any step tells.
    const untrained = await distillBornAgain(
      {
        ...{ ...data, model: linear(4), reinitialize: false, generations: 3, average: false, loss },
        training: { ...SETTINGS, learningRate: 1e-30 },
      },
      { openSession },
    );
    let taughtBy = first;
    for (const name of ["generation_2", "generation_3"]) {
      const learner = new Learner(modelOf(untrained, name));
      for (let step = 0; step < STEPS; step++) {
        learner.update(slopes(learner.weights, [taughtBy.weights], loss));
      }
      assertClose(modelOf(made, name), learner.weights, name);
      taughtBy = learner;
    }
  });

  test("the average of a network's own weights teaches it", async () => {
    const averageDecay = 0.3;
    const made = await distillMeanTeacher(
      {
        ...data,
        model: linear(6),
        reinitialize: false,
        loss,
        baseline: false,
        training: { ...SETTINGS, averageDecay },
      },
      { openSession },
    );
    const learner = new Learner(linear(6));
    const average = copied(learner.weights);
    for (let step = 1; step <= STEPS; step++) {
      learner.update(slopes(learner.weights, [average], loss));
      // Early steps weigh more.
      const decay = Math.min(averageDecay, (1 + step) / (10 + step));
      for (const part of ["w", "b"] as const) {
        for (const [i, value] of learner.weights[part].entries()) {
          average[part][i] = decay * average[part][i]! + (1 - decay) * value;
        }
      }
    }
    assertClose(made.student, average, "average");
  });
});
