import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { CoreError } from "../../../src/core/errors.ts";
import { METRICS } from "../../../src/core/evaluate/metrics.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { train } from "../../../src/core/train/loop.ts";
import { crossEntropy } from "../../../src/core/train/losses.ts";
import { OPTIMIZERS } from "../../../src/core/train/optimizer.ts";
import type { EpochRecord } from "../../../src/core/train/run-state.ts";
import { type Samples, samplesOf, splitSamples } from "../../../src/core/train/samples.ts";
import { learningRateAt, SCHEDULES } from "../../../src/core/train/schedule.ts";
import { createTrainable, exportTrained, type TrainedValues } from "../../../src/core/train/trainable.ts";
import type {
  TrainingHooks,
  TrainingProgress,
  TrainingSettings,
  TrainingTask,
} from "../../../src/core/train/training-task.ts";
import { halves, NetworkBuilder } from "../../support/networks.ts";
import { top1Of } from "../../support/top1.ts";

/** Convolution, BatchNormalization, pooling, Dropout and a dense layer. */
function network(seed = 1): Model {
  const net = new NetworkBuilder(seed);
  const pooled = net.maxPool(net.relu(net.batchNorm(net.conv(net.input(["n", 1, 8, 8]), 1, 4), 4)));
  const dropped = net.g.op("Dropout", [pooled, net.g.constant("float32", [], [0.25])]);
  return net.output(net.linear(net.g.op("Flatten", [dropped]), 64, 4), ["n", 4]);
}

const SETTINGS: TrainingSettings = {
  epochs: 3,
  batchSize: 32,
  optimizer: OPTIMIZERS.adamw,
  learningRate: 0.01,
  schedule: SCHEDULES.onecycle,
  warmupSteps: 0,
  weightDecay: 0.01,
  gradientClip: 1,
  averageDecay: null,
  augmentation: null,
  patience: null,
  seed: 7,
  threads: 1,
};

function task(model: Model, samples = halves(320, 5)): TrainingTask {
  const { training, validation } = splitSamples(samples, 0.2, 1);
  return {
    trainable: createTrainable(model),
    training,
    validation,
    metric: top1Of("logits"),
    objective: ({ g, value, target }) => [
      { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")) },
    ],
  };
}

async function run(settings: Partial<TrainingSettings> = {}, hooks: Partial<TrainingHooks> = {}, model = network()) {
  const own = task(model);
  const result = await train(own, { ...SETTINGS, ...settings }, { openSession, ...hooks });
  return { ...result, bytes: Buffer.from(modelToBytes(exportTrained(own.trainable, result.values))) };
}

async function accuracy(bytes: Uint8Array, samples: Samples): Promise<number> {
  const session = await openSession({ bytes });
  const { feeds, targets } = samples.gather([...Array(samples.count).keys()]);
  const outputs = await session.run(feeds);
  await session.close();
  const meter = METRICS.top1.start(null);
  meter.add(outputs.logits!, targets.labels!);
  return meter.value;
}

describe("training", () => {
  test("learns, and the exported inference graph is as good as validation said", async () => {
    const fresh = halves(400, 99);
    const before = await accuracy(modelToBytes(network()), fresh);
    const { history, bytes } = await run({ epochs: 6 });
    const after = await accuracy(bytes, fresh);
    // Of four classes a quarter is right by chance; what the images show can be told nearly always.
    assert.ok(before < 0.5 && after > 0.9, `${before} before, ${after} after`);
    assert.equal(history.length, 6);
    assert.ok(history[5]!.loss < history[0]!.loss);
    // Shares of two sets of samples: of 400, and of the few that validation holds back.
    assert.ok(Math.abs(after - history[5]!.validation_metric!) < 0.08);
  });

  test("the same arguments give the same bytes, another seed gives others", async () => {
    const [first, second, other] = [await run(), await run(), await run({ seed: 8 })];
    assert.deepEqual(first.bytes, second.bytes);
    assert.deepEqual(first.history.map(withoutTime), second.history.map(withoutTime));
    assert.notDeepEqual(first.bytes, other.bytes);
  });

  const augmentation = { input: "x", flip: false, shiftPixels: 1, cutoutPixels: 2, fill: 0 };
  for (const settings of [
    {},
    { averageDecay: 0.9, augmentation },
    { optimizer: { kind: "sgd", momentum: 0.9, nesterov: true }, schedule: SCHEDULES.cosine, warmupSteps: 3 },
    { updateRounding: "stochastic" },
  ] as const satisfies Partial<TrainingSettings>[]) {
    test(`a run resumed in the middle of an epoch ends in the same bytes (${Object.keys(settings)})`, async () => {
      const whole = await run(settings);
      let saved: Uint8Array | undefined;
      const stop = new AbortController();
      let steps = 0;
      await assert.rejects(
        run(settings, {
          signal: stop.signal,
          checkpointEveryMs: 0,
          saveCheckpoint: async (bytes) => {
            saved = bytes.slice();
            if (++steps === 12) stop.abort();
          },
        }),
        (error) => error instanceof CoreError && error.code === "cancelled",
      );
      const resumed = await run(settings, { resumeFrom: saved! });
      assert.deepEqual(resumed.bytes, whole.bytes);
      assert.deepEqual(resumed.history.map(withoutTime), whole.history.map(withoutTime));
    });
  }

  test("a checkpoint of another network is refused", async () => {
    let saved: Uint8Array | undefined;
    await run(
      { epochs: 1 },
      {
        saveCheckpoint: async (bytes) => {
          saved = bytes;
        },
      },
    );
    const net = new NetworkBuilder();
    const other = net.output(net.linear(net.g.op("Flatten", [net.input(["n", 1, 8, 8])]), 64, 4), ["n", 4]);
    await assert.rejects(
      run({}, { resumeFrom: saved! }, other),
      (error) => error instanceof CoreError && error.code === "invalid_params",
    );
  });

  test("the best epoch's values are kept, and training stops when it gets no better", async () => {
    // So large a rate in the constant schedule makes things worse at some point.
    const values: string[] = [];
    const own = task(network());
    const result = await train(
      own,
      { ...SETTINGS, epochs: 30, learningRate: 0.3, schedule: SCHEDULES.constant, patience: 2, weightDecay: 0 },
      {
        openSession,
        onEpoch: () => {
          values.push(String(own.trainable.parameters[0]!.data));
        },
      },
    );
    assert.ok(result.history.length < 30);
    assert.equal(result.history.length, result.bestEpoch + 2);
    const best = result.history.reduce((a, b) => (b.validation_metric! > a.validation_metric! ? b : a));
    assert.equal(result.bestEpoch, best.epoch);
    assert.equal(result.bestMetric, best.validation_metric);
    assert.equal(String(result.values.parameters[0]!.data), values[best.epoch - 1]);
  });

  test("what no loss reaches stays as it is, weight decay or not", async () => {
    const net = new NetworkBuilder();
    const flat = net.g.op("Flatten", [net.input(["n", 1, 8, 8])]);
    net.output(net.linear(flat, 64, 4), ["n", 4]);
    const model = net.output(net.linear(flat, 64, 2), ["n", 2], "unread");
    const valuesOf = ({ parameters }: Pick<TrainedValues, "parameters">) =>
      parameters.map(({ name, data }) => [name, [...data]] as const);
    const before = new Map(valuesOf(createTrainable(model)));
    const { values } = await run({ epochs: 1, weightDecay: 0.5 }, {}, model);
    for (const [name, now] of valuesOf(values)) {
      const isReached = name.startsWith("fc0");
      assert.equal(isDeepStrictEqual(now, before.get(name)), !isReached, name);
    }
  });

  test("a loss that is not finite stops the run and says where", async () => {
    const samples = halves(64, 5);
    const broken = samplesOf(
      {
        x: tensorOf(
          "float32",
          [64, 1, 8, 8],
          floatsOf(samples.gather([...Array(64).keys()]).feeds.x!).map((x, i) => (i === 700 ? Infinity : x)),
        ),
      },
      { labels: samples.gather([...Array(64).keys()]).targets.labels! },
    );
    const own = { ...task(network(), broken), training: broken, validation: undefined };
    await assert.rejects(
      train(own, SETTINGS, { openSession }),
      (error) =>
        error instanceof CoreError &&
        error.code === "non_finite" &&
        error.subject === "label" &&
        /step [12]\b/.test(error.message),
    );
  });

  test("progress tells the epoch, the step and the time that is left", async () => {
    const seen: TrainingProgress[] = [];
    const records: EpochRecord[] = [];
    await run({ epochs: 2 }, { onProgress: (p) => seen.push(p), onEpoch: (r) => records.push(r) });
    assert.ok(seen.length > 0);
    for (const { epoch, epochs, step, steps, learningRate, fraction, remainingSeconds } of seen) {
      assert.ok(epoch === 1 || epoch === 2, `epoch ${epoch}`);
      assert.equal(epochs, 2);
      const done = (epoch - 1) * steps + step;
      assert.equal(fraction, done / (2 * steps));
      const rate = { learningRate: SETTINGS.learningRate, step: done - 1, steps: 2 * steps, warmupSteps: 0 };
      assert.equal(learningRate, learningRateAt(SETTINGS.schedule, rate));
      assert.ok(remainingSeconds >= 0);
    }
    assert.deepEqual(
      records.map(({ epoch }) => epoch),
      [1, 2],
    );
  });
});

test("samples are at least one, and as many in every array", () => {
  const rows = (count: number) => tensorOf("float32", [count, 2], new Float32Array(2 * count));
  assert.equal(samplesOf({ x: rows(3) }, { labels: rows(3) }).count, 3);
  for (const [feeds, targets] of [[{}], [{ x: rows(0) }], [{ x: rows(3) }, { labels: rows(2) }]] as const) {
    assert.throws(() => samplesOf(feeds, targets), { code: "invalid_dataset" });
  }
});

function withoutTime({ samples_per_second: _, ...record }: EpochRecord) {
  return record;
}
