import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Distillation } from "../../../src/core/distill/distillation.ts";
import { DISTILLATION_LOSS } from "../../../src/core/distill/objective.ts";
import { checkOnline, distillOnline, type OnlineDistillation } from "../../../src/core/distill/online.ts";
import { CoreError } from "../../../src/core/errors.ts";
import { METRICS } from "../../../src/core/evaluate/metrics.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { arrayOf, floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { train } from "../../../src/core/train/loop.ts";
import { crossEntropy } from "../../../src/core/train/losses.ts";
import type { PhaseHooks } from "../../../src/core/train/phases.ts";
import { samplesOf, splitSamples } from "../../../src/core/train/samples.ts";
import { createTrainable, exportTrained } from "../../../src/core/train/trainable.ts";
import { NetworkBuilder } from "../../support/networks.ts";
import { assertRecorded } from "../../support/recorded.ts";
import { fresh, SHORT, samples } from "../../support/short-training.ts";
import { top1Of } from "../../support/top1.ts";

const SETTINGS = { ...SHORT, gradientClip: 1 };

/** One convolution, pooled, and a dense layer; the output of another name than other networks'. */
function network(channels: number, seed: number, output = "logits"): Model {
  const net = new NetworkBuilder(seed);
  const features = net.relu(net.batchNorm(net.conv(net.input(["n", 1, 8, 8]), 1, channels), channels));
  return net.output(net.linear(net.g.op("Flatten", [net.maxPool(features, 4)]), channels * 4, 4), ["n", 4], output);
}

const LOSS = { ...DISTILLATION_LOSS, temperature: 1, klWeight: 1, labelWeight: 1, teacherKlWeight: 0 };
const peers = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ name: `peer_${i + 1}`, model: network(2, 1), reinitializeSeed: 10 + i }));

const distill = (spec: Partial<OnlineDistillation> = {}, hooks: Partial<PhaseHooks> = {}): Promise<Distillation> =>
  distillOnline(specOf(spec), { openSession, ...hooks });

const specOf = (spec: Partial<OnlineDistillation>): OnlineDistillation => ({
  networks: peers(2),
  update: "simultaneous",
  loss: LOSS,
  training: SETTINGS,
  samples,
  validationSplit: 0.2,
  evaluation: fresh,
  baseline: false,
  metricOf: top1Of,
  ...spec,
});

const bytesOf = ({ networks }: Distillation) => networks.map(({ model }) => Buffer.from(modelToBytes(model)));

describe("online distillation", () => {
  test("peers learn together from different starts; the best by the held-out samples is the result", async () => {
    const epochs: string[] = [];
    const result = await distill(
      { networks: peers(3), training: { ...SETTINGS, epochs: 8 }, baseline: true },
      { onEpoch: (phase, { epoch }, prefix) => epochs.push(`${phase} ${prefix}${epoch}`) },
    );
    const { networks, chosen, metrics } = result;
    assert.deepEqual(epochs.slice(0, 4), ["online peer_1/1", "online peer_2/1", "online peer_3/1", "online peer_1/2"]);
    assert.equal(epochs.at(-1), "baseline 8");
    assert.deepEqual(
      networks.map(({ name }) => name),
      ["peer_1", "peer_2", "peer_3"],
    );
    assert.equal(new Set(networks.map(({ before }) => before)).size, 3, "they start differently");
    for (const { run, metric, before } of networks) {
      assert.deepEqual(Object.keys(run.history[0]!.losses), ["label", "kl"]);
      assert.equal(run.history.length, 8);
      assert.ok(before! < 0.5, `${before}`);
      assertRecorded(metric, 0.9825, 0.02);
    }
    const best = Math.max(...networks.map(({ run }) => run.bestMetric!));
    const own = networks.find(({ name }) => name === chosen)!;
    assert.equal(own.run.bestMetric, best);
    assert.equal(metrics!.studentAfter, own.metric);
    assert.deepEqual(modelToBytes(result.student), modelToBytes(own.model));
    assert.equal(metrics!.teacher, null);
    assertRecorded(metrics!.baseline, 0.985, 0.02);
    assert.deepEqual(Object.keys(result.baseline!.run.history[0]!.losses), ["label"]);
  });

  test("the ensemble is the mean of the peers' probabilities", async () => {
    const { networks, ensemble } = await distill();
    const { feeds, targets } = fresh.gather([...Array(fresh.count).keys()]);
    const mean = new Float64Array(fresh.count * 4);
    for (const { model } of networks) {
      const session = await openSession({ bytes: modelToBytes(model) });
      const logits = floatsOf((await session.run(feeds)).logits!);
      await session.close();
      for (let row = 0; row < fresh.count; row++) {
        const e = [...logits.subarray(4 * row, 4 * row + 4)].map(Math.exp);
        const sum = e.reduce((a, b) => a + b, 0);
        for (const [k, value] of e.entries()) mean[4 * row + k]! += value / sum / networks.length;
      }
    }
    const scored = METRICS.top1.start(null);
    scored.add(tensorOf("float32", [fresh.count, 4], [...mean]), targets.labels!);
    assert.ok(Math.abs(ensemble! - scored.value) < 1e-9);
  });

  test("the first to be updated in turn learns what it learns at once, the second from what the first has become", async () => {
    const once = { training: { ...SETTINGS, epochs: 1, batchSize: 384 } };
    const together = bytesOf(await distill(once));
    const inTurn = bytesOf(await distill({ ...once, update: "alternating" }));
    assert.deepEqual(inTurn[0], together[0]);
    assert.notDeepEqual(inTurn[1], together[1]);
    const again = bytesOf(await distill({ update: "alternating" }));
    assert.deepEqual(bytesOf(await distill({ update: "alternating" })), again);
  });

  test("a teacher that does not listen learns what it would learn alone, and is reported beside the student", async () => {
    const networks = [
      { name: "student", model: network(2, 9, "scores") },
      { name: "teacher", model: network(8, 1) },
    ];
    const result = await distill({ networks, teacher: "teacher" });
    const alone = createTrainable(network(8, 1));
    const run = await train(
      {
        trainable: alone,
        ...splitSamples(samples, 0.2, SETTINGS.seed),
        metric: specOf({}).metricOf("logits"),
        objective: ({ g, value, target }) => [
          { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")) },
        ],
      },
      SETTINGS,
      { openSession },
    );
    const [student, teacher] = result.networks;
    assert.deepEqual(modelToBytes(teacher!.model), modelToBytes(exportTrained(alone, run.values)));
    assert.deepEqual(Object.keys(teacher!.run.history[0]!.losses), ["label"]);
    assert.deepEqual(Object.keys(student!.run.history[0]!.losses), ["label", "kl"]);
    assert.equal(result.chosen, "student", "however good the teacher is");
    assert.equal(result.metrics!.teacher, teacher!.metric);
    const listening = await distill({ networks, teacher: "teacher", loss: { ...LOSS, teacherKlWeight: 1 } });
    assert.notDeepEqual(bytesOf(listening)[1], bytesOf(result)[1]);
    assert.deepEqual(Object.keys(listening.networks[1]!.run.history[0]!.losses), ["label", "kl"]);
  });

  for (const update of ["simultaneous", "alternating"] as const) {
    test(`a run that was interrupted within an epoch ends in the same bytes, ${update}`, async () => {
      const whole = await distill({ update, baseline: true });
      const saved: Record<string, Uint8Array> = {};
      const stop = new AbortController();
      let count = 0;
      await assert.rejects(
        distill(
          { update, baseline: true },
          {
            signal: stop.signal,
            checkpointEveryMs: 0,
            saveCheckpoint: async (phase, bytes) => {
              saved[phase] = bytes.slice();
              if (++count === 17) stop.abort();
            },
          },
        ),
      );
      assert.deepEqual(Object.keys(saved), ["online"]);
      const resumed = await distill({ update, baseline: true }, { resumeFrom: saved });
      assert.deepEqual(bytesOf(resumed), bytesOf(whole));
      assert.deepEqual(resumed.metrics, whole.metrics);
    });
  }

  test("outputs that do not mean the same are found without training", async () => {
    const net = new NetworkBuilder(4);
    const five = net.output(net.linear(net.g.op("Flatten", [net.input(["n", 1, 8, 8])]), 64, 5), ["n", 5]);
    const networks = [...peers(1), { name: "peer_2", model: five }];
    await checkOnline(specOf({}), { openSession, batchSize: 32 });
    await assert.rejects(
      checkOnline(specOf({ networks }), { openSession, batchSize: 32 }),
      (error) =>
        error instanceof CoreError &&
        error.code === "invalid_params" &&
        /peer 1 has \[4\] for each sample, .* peer 2 has \[5\]/.test(error.message) &&
        `${error.path}` === "networks,peer_2",
    );
  });
});

test("labels are classes in whatever integers they come", async () => {
  const few = { training: { ...SETTINGS, epochs: 1 }, evaluation: undefined };
  const { feeds, targets } = samples.gather([...Array(samples.count).keys()]);
  const classes = Uint8Array.from(arrayOf(targets.labels!, "int64"), Number);
  const narrow = samplesOf(feeds, { labels: tensorOf("uint8", [classes.length], classes) });
  assert.deepEqual(bytesOf(await distill({ ...few, samples: narrow })), bytesOf(await distill(few)));
});

test("networks that learn together are at least two, and need labels", async () => {
  const refused = (spec: Partial<OnlineDistillation>, message: RegExp) =>
    assert.rejects(distill(spec), (error) => {
      assert.ok(error instanceof CoreError && error.code === "invalid_params");
      assert.match(error.message, message);
      return true;
    });
  await refused({ networks: peers(1) }, /Two networks at least/);
  const { feeds } = samples.gather([...Array(40).keys()]);
  await refused({ samples: samplesOf(feeds) }, /The dataset has no labels/);
});
