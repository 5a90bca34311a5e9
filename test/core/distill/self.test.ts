import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { averageModels, type BornAgainDistillation, distillBornAgain } from "../../../src/core/distill/born-again.ts";
import { type Choice, choiceWarnings } from "../../../src/core/distill/choice.ts";
import { comparedOutputs } from "../../../src/core/distill/compared-outputs.ts";
import { addExits, keepOutput } from "../../../src/core/distill/exits.ts";
import { distillMeanTeacher } from "../../../src/core/distill/mean-teacher.ts";
import { DISTILLATION_LOSS } from "../../../src/core/distill/objective.ts";
import { distillOwnTeacher } from "../../../src/core/distill/own-teacher.ts";
import { CoreError } from "../../../src/core/errors.ts";
import { pairedDifference } from "../../../src/core/intervals.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { arrayOf, floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import type { PhaseHooks } from "../../../src/core/train/phases.ts";
import { splitSamples } from "../../../src/core/train/samples.ts";
import type { ValidationMetric } from "../../../src/core/train/validate.ts";
import { imageTransformer, NetworkBuilder } from "../../support/networks.ts";
import { assertRecorded } from "../../support/recorded.ts";
import { fresh, SHORT, samples } from "../../support/short-training.ts";
import { top1, top1Of } from "../../support/top1.ts";

const SETTINGS = { ...SHORT, gradientClip: 1 };

const data = {
  samples,
  validationSplit: 0.2,
  evaluation: fresh,
  metricOf: top1Of,
};
const LOSS = { ...DISTILLATION_LOSS, temperature: 1, klWeight: 1, labelWeight: 1 };

/** Two stages of two convolutions, pooled, and a dense layer. */
function network(seed = 9): Model {
  const net = new NetworkBuilder(seed);
  let x = net.input(["n", 1, 8, 8]);
  let from = 1;
  for (const to of [2, 4]) {
    for (let i = 0; i < 2; i++) {
      x = net.relu(net.batchNorm(net.conv(x, from, to), to));
      from = to;
    }
    x = net.maxPool(x);
  }
  return net.output(net.linear(net.g.op("Flatten", [x]), 16, 4), ["n", 4]);
}

const bytes = (model: Model) => Buffer.from(modelToBytes(model));

async function answers(model: Model, output: string, count = fresh.count) {
  const { feeds, targets } = fresh.gather([...Array(count).keys()]);
  const session = await openSession({ bytes: modelToBytes(model) });
  const results = await session.run(feeds);
  await session.close();
  return { values: floatsOf(results[output]!), labels: targets.labels!, tensor: results[output]!, results };
}

describe("born-again networks", () => {
  const spec = (more: Partial<BornAgainDistillation> = {}): BornAgainDistillation => ({
    ...data,
    model: network(),
    reinitialize: true,
    generations: 3,
    average: false,
    loss: LOSS,
    training: SETTINGS,
    ...more,
  });
  const run = (more: Partial<BornAgainDistillation> = {}, hooks: Partial<PhaseHooks> = {}) =>
    distillBornAgain(spec(more), { openSession, ...hooks });

  test("each generation is taught by the one before, until one does not help; the best by the held-out samples is kept", async () => {
    const result = await run({ generations: 6 });
    const { networks, metrics, chosen } = result;
    const [first, ...later] = networks;
    assert.ok(networks.length >= 2 && networks.every(({ name }, i) => name === `generation_${i + 1}`));
    assert.deepEqual(Object.keys(first!.run.history[0]!.losses), ["label"]);
    for (const { run: own } of later) assert.deepEqual(Object.keys(own.history[0]!.losses), ["label", "kl"]);
    assert.equal(new Set(networks.map(({ before }) => before)).size, networks.length, "from fresh starts");
    const held = networks.map(({ run: own }) => own.bestMetric!);
    if (networks.length < 6) assert.ok(held.at(-1)! <= held.at(-2)!, String(held));
    assert.ok(
      held.slice(1, -1).every((metric, i) => metric > held[i]!),
      String(held),
    );
    assert.equal(networks.find(({ name }) => name === chosen)!.run.bestMetric, Math.max(...held));
    assert.equal(metrics!.baseline, first!.metric);
    assertRecorded(metrics!.studentBefore, 0.2625, 0.02);
    assertRecorded(metrics!.studentAfter, 0.9925, 0.02);
  });

  test("where none is held out, nobody can tell which is better: all generations are trained", async () => {
    const all = await run({ validationSplit: 0, training: { ...SETTINGS, epochs: 1 } });
    assert.deepEqual(
      all.networks.map(({ name, run: own }) => [name, own.bestMetric]),
      [1, 2, 3].map((i) => [`generation_${i}`, null]),
    );
    assert.equal(all.chosen, "generation_1");
  });

  test("a metric that cannot be drawn again says nothing of how sure the choice is", async () => {
    const first: ValidationMetric = {
      name: "plain",
      better: "higher",
      start: () => ({ add() {}, value: 0.5, positions: 1 }),
    };
    const result = await run({ generations: 2, training: { ...SETTINGS, epochs: 1 }, metricOf: () => first });
    assert.deepEqual([result.networks.length, result.choice], [2, null]);
  });

  test("the result says how sure the choice is: by which held-out samples one of the two best generations alone is right", async () => {
    const { choice, networks } = await run({ generations: 3 });
    const held = splitSamples(samples, data.validationSplit, SETTINGS.seed).validation!;
    const { feeds, targets } = held.gather([...Array(held.count).keys()]);
    const labels = arrayOf(targets.labels!, "int64");
    const hitsOf = async (model: Model) => {
      const session = await openSession({ bytes: modelToBytes(model) });
      const scores = floatsOf((await session.run(feeds)).logits!);
      await session.close();
      return Array.from({ length: held.count }, (_, i) => {
        const own = scores.subarray(4 * i, 4 * i + 4);
        return own.indexOf(own.reduce((a, b) => Math.max(a, b))) === Number(labels[i]);
      });
    };
    const ranked = networks.toSorted((a, b) => b.run.bestMetric! - a.run.bestMetric!);
    const [best, next] = await Promise.all(ranked.slice(0, 2).map(({ model }) => hitsOf(model)));
    const alone = (a: readonly boolean[], b: readonly boolean[]) => a.filter((hit, i) => hit && !b[i]).length;
    assert.deepEqual([choice!.chosen.name, choice!.next.name], [ranked[0]!.name, ranked[1]!.name]);
    assert.equal(choice!.chosen.value, ranked[0]!.run.bestMetric);
    assert.equal(choice!.samples, held.count);
    assert.deepEqual(choice!.interval, pairedDifference(alone(best!, next!), alone(next!, best!), held.count));
    assert.equal((await run({ generations: 2, average: true })).choice, null, "of an average nothing was chosen");
  });

  test("a choice that the samples do not support is a warning, with its difference; one that they do is none", () => {
    const choice = (interval: readonly [number, number]): Choice => ({
      ...{ metric: "top1", samples: 1000, interval },
      ...{ chosen: { name: "generation_2", value: 0.42 }, next: { name: "generation_1", value: 0.41 } },
    });
    const [warning, ...others] = choiceWarnings(choice([-0.012, 0.031]));
    assert.equal(others.length, 0);
    assert.equal(warning!.code, "choice_within_noise");
    assert.ok(Math.abs(warning!.value - 0.01) < 1e-12);
    assert.match(
      warning!.message,
      /generation_2 .* 0\.420 on 1000 held-out samples, and generation_1 has 0\.410: .* -0\.012 to 0\.031/,
    );
    assert.deepEqual([choiceWarnings(choice([0.001, 0.02])), choiceWarnings(null)], [[], []]);
  });

  test("a run that was interrupted in the second generation ends in the same bytes", async () => {
    const whole = await run();
    const saved: Record<string, Uint8Array> = {};
    const stop = new AbortController();
    await assert.rejects(
      run(
        {},
        {
          signal: stop.signal,
          checkpointEveryMs: 0,
          saveCheckpoint: async (phase, state) => {
            saved[phase] = state.slice();
            if (phase === "generation_2") stop.abort();
          },
        },
      ),
    );
    assert.deepEqual(Object.keys(saved), ["generation_1", "generation_2"]);
    const resumed = await run({}, { resumeFrom: saved });
    assert.deepEqual(
      resumed.networks.map(({ model }) => bytes(model)),
      whole.networks.map(({ model }) => bytes(model)),
    );
    assert.deepEqual(resumed.metrics, whole.metrics);
  });

  test("their average is one model: the mean of the probabilities, as logits under the same names", async () => {
    const models = [network(1), network(2), network(3)];
    const average = averageModels(models, comparedOutputs(models[0]!, models[0]!, { outputLoss: null }));
    assert.deepEqual(
      [average.graph.inputs, average.graph.outputs].map(([value]) => value!.name),
      ["x", "logits"],
    );
    const softmax = (logits: Float32Array) => {
      const rows = [];
      for (let at = 0; at < logits.length; at += 4) {
        const e = [...logits.subarray(at, at + 4)].map(Math.exp);
        const sum = e.reduce((a, b) => a + b, 0);
        rows.push(...e.map((value) => value / sum));
      }
      return rows;
    };
    const each = await Promise.all(models.map(async (model) => softmax((await answers(model, "logits", 9)).values)));
    const mean = each[0]!.map((_, i) => (each[0]![i]! + each[1]![i]! + each[2]![i]!) / 3);
    const actual = softmax((await answers(average, "logits", 9)).values);
    for (const [i, value] of mean.entries()) assert.ok(Math.abs(actual[i]! - value) < 1e-6, `${actual[i]} ${value}`);
    const { student, ensemble, metrics, chosen } = await run({ generations: 2, average: true });
    assert.equal(chosen, "average");
    assert.equal(metrics!.studentAfter, ensemble);
    const own = await answers(student, "logits");
    assert.ok(Math.abs(top1(own.tensor, own.labels) - ensemble!) < 1e-9);
  });
});

describe("a network that is its own teacher", () => {
  const { feeds } = samples.gather([0, 1]);
  const place = (exits: number | readonly string[], model = network()) =>
    addExits(model, { exits, feeds, seed: 1, openSession });

  test("exits stand at the ends of stages, and change nothing of the network's own answer", async () => {
    const source = network();
    const { model, exits, deepest } = await place(3, source);
    const relus = source.graph.nodes.filter(({ opType }) => opType === "Relu").map(({ outputs }) => outputs[0]!.name);
    assert.deepEqual(
      exits.map(({ name, value }) => [name, value]),
      [["exit_1", relus[1]]],
      "behind the first stage; the second is what the classifier reads",
    );
    assert.equal(deepest.value, relus[3]);
    assert.deepEqual(deepest.dims, [2, 4, 4, 4]);
    const [plain, more] = [await answers(source, "logits"), await answers(model, "logits")];
    assert.deepEqual(more.values, plain.values);
    assert.deepEqual(more.results.exit_1!.dims, [fresh.count, 4]);
    const macs = 64 * (2 * 9 + 4 * 9);
    const all = macs + 16 * (8 * 9 + 16 * 9) + 16 * 4;
    assert.ok(Math.abs(exits[0]!.macsShare - (macs + 16 * 2 * (9 + 4) + 16 * 4 * 4) / all) < 1e-9);
    assert.deepEqual(bytes(keepOutput(model, ["logits"])).length, bytes(source).length);
    assert.ok(keepOutput(model, ["exit_1"]).graph.nodes.length < source.graph.nodes.length);
  });

  test("values may be named; a transformer has exits of equal shares", async () => {
    const source = network();
    const [value] = source.graph.nodes.filter(({ opType }) => opType === "Relu").map(({ outputs }) => outputs[0]!.name);
    assert.equal((await place([value!])).exits[0]!.value, value);
    for (const [name, message] of [
      ["nothing", /no value "nothing"/],
      ["logits", /No exit can read "logits"/],
    ] as const) {
      const error = await place([name]).catch((thrown) => thrown);
      assert.ok(error instanceof CoreError && message.test(error.message), String(error));
      assert.deepEqual(error.path, ["exits", 0]);
    }
    const images = { x: tensorOf("float32", [2, 1, 28, 28], new Float32Array(1568)) };
    const encoder = imageTransformer({ layers: 4, width: 16, heads: 2, length: 4, classes: 10 });
    const { exits } = await addExits(encoder, { exits: 3, feeds: images, seed: 1, openSession });
    assert.equal(exits.length, 3);
    for (const [i, { macsShare }] of exits.entries()) {
      // Four layers alike; to each quarter comes the head of the exit, and the embedding of the bands is before all of them.
      assert.ok(Math.abs(macsShare - (i + 1) / 4) < 0.1, String(exits.map((exit) => exit.macsShare)));
    }
  });

  const own = network();
  const exits = own.graph.nodes.filter(({ opType }) => opType === "Relu").map(({ outputs }) => outputs[0]!.name);
  const spec = {
    ...data,
    model: own,
    reinitialize: true,
    exits: exits.slice(0, 2),
    training: SETTINGS,
    baseline: true,
  };
  const loss = { ...LOSS, featureWeight: 0.1 };

  test("exits learn beside the last layer; dropped, the network is as it was, kept, it has their outputs", async () => {
    const longer = { ...spec, training: { ...SETTINGS, epochs: 8 } };
    const [dropped, kept] = [false, true].map((keepExits) =>
      distillOwnTeacher({ ...longer, keepExits, loss }, { openSession }),
    );
    const [plain, withExits] = [await dropped!, await kept!];
    assert.deepEqual(Object.keys(plain.run.history[0]!.losses), [
      ...["label", "label exit_1", "kl exit_1"],
      ...["label exit_2", "kl exit_2", "features exit_2"],
    ]);
    assertRecorded(plain.metrics!.studentAfter, 0.99, 0.02);
    assertRecorded(plain.metrics!.baseline, 0.9875, 0.02);
    const structure = (model: Model) => model.graph.nodes.map(({ opType }) => opType);
    assert.deepEqual(structure(plain.student), structure(spec.model));
    assert.deepEqual(
      withExits.student.graph.outputs.map(({ name }) => name),
      ["logits", "exit_1", "exit_2"],
    );
    assert.deepEqual(
      withExits.exits.map(({ name }) => name),
      ["exit_1", "exit_2", "logits"],
    );
    const relus = spec.model.graph.nodes
      .filter(({ opType }) => opType === "Relu")
      .map(({ outputs }) => outputs[0]!.name);
    for (const { name, value } of withExits.exits.slice(0, -1))
      assert.ok(relus.includes(value), `${name} reads ${value}`);
    assert.equal(withExits.exits.at(-1)!.value, "logits");
    for (const { name, metric, model, macsShare } of withExits.exits) {
      const answer = await answers(withExits.student, name);
      assert.ok(Math.abs(top1(answer.tensor, answer.labels) - metric!) < 1e-9);
      assert.deepEqual((await answers(model, name)).values, answer.values);
      if (name === "logits") assert.equal(macsShare, 1);
      else assert.ok(macsShare < 1);
    }
    const learned = withExits.run.history.map(({ losses }) => losses["label exit_2"]!);
    assert.ok(learned.at(-1)! < 0.01 * learned[0]!, String(learned));
    assert.equal(withExits.exits.at(-1)!.metric, plain.metrics!.studentAfter, "keeping them changes nothing else");
  });
});

describe("mean teacher", () => {
  const augmentation = { input: "x", flip: false, shiftPixels: 1, cutoutPixels: 0, fill: 0 };
  const training = { ...SETTINGS, averageDecay: 0.95, augmentation };
  const run = (hooks: Partial<PhaseHooks> = {}, klWeight = 1) =>
    distillMeanTeacher(
      {
        ...data,
        model: network(),
        reinitialize: true,
        loss: { ...LOSS, klWeight },
        training,
        baseline: true,
      },
      { openSession, ...hooks },
    );

  test("the average of its weights teaches a network, and is the result", async () => {
    const result = await run();
    assert.deepEqual(Object.keys(result.run.history[0]!.losses), ["label", "kl"]);
    // The teacher sees the samples augmented otherwise, and has other weights.
    assert.ok(result.run.history.every(({ losses }) => losses.kl! > 1e-3));
    assertRecorded(result.metrics!.studentAfter, 0.9925, 0.02);
    assertRecorded(result.metrics!.baseline, 0.99, 0.02);
    const own = await answers(result.student, "logits");
    assert.ok(Math.abs(top1(own.tensor, own.labels) - result.metrics!.studentAfter) < 1e-9);
    assert.notDeepEqual(bytes((await run({}, 0.001)).student), bytes(result.student));
  });

  test("a run that was interrupted ends in the same bytes", async () => {
    const whole = await run();
    const saved: Record<string, Uint8Array> = {};
    const stop = new AbortController();
    let count = 0;
    await assert.rejects(
      run({
        signal: stop.signal,
        checkpointEveryMs: 0,
        saveCheckpoint: async (phase, state) => {
          saved[phase] = state.slice();
          if (++count === 18) stop.abort();
        },
      }),
    );
    const resumed = await run({ resumeFrom: saved });
    assert.deepEqual(bytes(resumed.student), bytes(whole.student));
  });
});
