import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { DISTILLATION_LOSS, type DistillationLoss, type HintSpec } from "../../../src/core/distill/objective.ts";
import { checkObjective, distillOffline, type OfflineDistillation } from "../../../src/core/distill/offline.ts";
import { openTeacher, teacherOutputs } from "../../../src/core/distill/teacher.ts";
import { CoreError } from "../../../src/core/errors.ts";
import { GraphBuilder, int } from "../../../src/core/onnx/graph-builder.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { train } from "../../../src/core/train/loop.ts";
import { crossEntropy } from "../../../src/core/train/losses.ts";
import type { PhaseHooks } from "../../../src/core/train/phases.ts";
import type { Samples } from "../../../src/core/train/samples.ts";
import { createTrainable, exportTrained } from "../../../src/core/train/trainable.ts";
import { halves, NetworkBuilder } from "../../support/networks.ts";
import { assertRecorded } from "../../support/recorded.ts";
import { fresh, SHORT, samples } from "../../support/short-training.ts";
import { top1Of } from "../../support/top1.ts";

const withoutLabels = (of: Samples): Samples => ({
  count: of.count,
  gather: (indices) => ({ feeds: of.gather(indices).feeds, targets: {} }),
});

/** One convolution, pooled, and a dense layer. */
function network(channels: number, seed: number): Model {
  const net = new NetworkBuilder(seed);
  const features = net.relu(net.batchNorm(net.conv(net.input(["n", 1, 8, 8]), 1, channels), channels));
  const pooled = net.maxPool(features, 4);
  return net.output(net.linear(net.g.op("Flatten", [pooled]), channels * 4, 4), ["n", 4]);
}

const top1 = top1Of("logits");

let teacher: Model;

before(async () => {
  const trainable = createTrainable(network(8, 1));
  const result = await train(
    {
      trainable,
      training: samples,
      objective: ({ g, value, target }) => [
        { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")) },
      ],
    },
    { ...SHORT, epochs: 8 },
    { openSession },
  );
  teacher = exportTrained(trainable, result.values);
});

const distill = (
  spec: Partial<Omit<OfflineDistillation, "loss">> & { loss?: Partial<DistillationLoss> },
  hooks: Partial<PhaseHooks> = {},
) =>
  distillOffline(
    {
      teacher,
      student: network(2, 9),
      reinitialize: false,
      training: SHORT,
      samples,
      validationSplit: 0.2,
      evaluation: fresh,
      metric: top1,
      baseline: false,
      ...spec,
      loss: { ...DISTILLATION_LOSS, ...spec.loss },
    },
    { openSession, ...hooks },
  );

const refused = (message: RegExp) => (error: unknown) =>
  error instanceof CoreError && error.code === "invalid_params" && message.test(error.message);

describe("outputs that are maps", () => {
  const SIDE = 8;
  /** Three classes for each pixel: two thresholds of what a convolution sees. */
  const maps = (count: number, seed: number): Samples => {
    const of = halves(count, seed);
    return {
      count,
      gather(indices) {
        const { x } = of.gather(indices).feeds;
        const labels = Array.from(floatsOf(x!), (value) => (value > 0.7 ? 2 : value > 0 ? 1 : 0));
        const dims = [indices.length, SIDE, SIDE];
        return { feeds: { x: x! }, targets: { labels: tensorOf("int64", dims, labels) } };
      },
    };
  };
  const end = (channels: number, seed: number, last: "Softmax" | "Sigmoid" | undefined, values = 3): Model => {
    const net = new NetworkBuilder(seed);
    const inner = net.relu(net.conv(net.input(["n", 1, SIDE, SIDE]), 1, channels, { bias: true }));
    const scores = net.conv(inner, channels, values, { kernel: 1, bias: true });
    const y = last ? net.g.op(last, [scores], last === "Softmax" ? { axis: int(1) } : {}) : scores;
    return net.output(y, ["n", values, SIDE, SIDE], "y");
  };
  const onMaps = { training: { ...SHORT, epochs: 30 }, samples: maps(320, 4), evaluation: maps(100, 9) };

  test("a segmenter learns the classes of pixels along its channels, from labels and from a teacher", async () => {
    const labelled = await distill({
      ...onMaps,
      ...{ teacher: null, student: end(8, 1, "Softmax"), metric: top1Of("y") },
      loss: { klWeight: 0, labelWeight: 1 },
    });
    assertRecorded(labelled.metrics!.studentAfter, 0.991, 0.01);
    for (const [last, recorded] of [
      ["Softmax", 0.9728],
      [undefined, 0.97],
    ] as const) {
      const taught = await distill({
        ...{ ...onMaps, samples: withoutLabels(onMaps.samples), evaluation: withoutLabels(onMaps.evaluation) },
        ...{ teacher: labelled.student, student: end(4, 2, last), metric: undefined },
        loss: { klWeight: 1, labelWeight: 0 },
      });
      assert.deepEqual(Object.keys(taught.run.history[0]!.losses), ["kl"]);
      assert.equal(taught.metrics!.name, "teacher_agreement");
      assert.equal(taught.metrics!.teacher, 1);
      assertRecorded(taught.metrics!.studentAfter, recorded, 0.01);
    }
  });

  test("shares are compared one by one, and with what is none as numbers", async () => {
    const teacher = end(8, 1, "Sigmoid");
    const unlabelled = { samples: withoutLabels(onMaps.samples), evaluation: withoutLabels(onMaps.evaluation) };
    const taughtBy = (last: "Sigmoid" | undefined) =>
      distill({
        ...{ ...onMaps, ...unlabelled, teacher, student: end(8, 2, last), metric: undefined },
        loss: { klWeight: 1, labelWeight: 0 },
      });
    const shares = await taughtBy("Sigmoid");
    assert.deepEqual(Object.keys(shares.run.history[0]!.losses), ["kl"]);
    assert.equal(shares.metrics!.name, "teacher_agreement");
    assert.equal(shares.metrics!.teacher, 1);
    assertRecorded(shares.metrics!.studentBefore, 0.3822, 0.02);
    assertRecorded(shares.metrics!.studentAfter, 0.8967, 0.02);
    const numbers = await taughtBy(undefined);
    assert.deepEqual(Object.keys(numbers.run.history[0]!.losses), ["mse"]);
    assert.equal(numbers.metrics!.name, "teacher_mse");
    assert.ok(numbers.metrics!.studentAfter < 0.1 * numbers.metrics!.studentBefore, JSON.stringify(numbers.metrics));
  });

  test("a teacher's shares are read as log-odds, before its Sigmoid or from what it answers", async () => {
    const teacher = end(8, 1, "Sigmoid");
    const answering = teacher.clone();
    const [output] = answering.graph.outputs;
    answering.graph.removeOutput(output!);
    const rounded = new GraphBuilder(answering.graph).op("Identity", [output!]);
    rounded.name = "answer";
    rounded.retype("float32", output!.shape);
    answering.graph.addOutput(rounded);
    const feeds = onMaps.samples.gather([0, 1, 2]).feeds;
    const read = async (model: Model, value: string) => {
      const opened = await openTeacher(model, [{ value, target: "t", reading: { kind: "log_odds" } }], {
        openSession,
        threads: 1,
      });
      const { t } = await opened.run(feeds);
      await opened.close();
      return floatsOf(t!);
    };
    const [inner, outer] = [await read(teacher, "y"), await read(answering, "answer")];
    assert.ok(Math.max(...inner) > 0.5, "log-odds, and not shares");
    for (const [i, odds] of inner.entries()) assert.ok(Math.abs(odds - outer[i]!) < 1e-3, `${odds} and ${outer[i]}`);
  });
});

describe("offline distillation", () => {
  test("a student without labels learns to agree with its teacher", async () => {
    const { metrics, run } = await distill({
      samples: withoutLabels(samples),
      evaluation: withoutLabels(fresh),
      metric: undefined,
      training: { ...SHORT, epochs: 10 },
      loss: { labelWeight: 0, klWeight: 1 },
    });
    assert.equal(metrics!.name, "teacher_agreement");
    assert.equal(metrics!.teacher, 1);
    assertRecorded(metrics!.studentBefore, 0.325, 0.02);
    assertRecorded(metrics!.studentAfter, 0.9675, 0.02);
    assert.deepEqual(Object.keys(run.history[0]!.losses), ["kl"]);
  });

  test("teacher, student before and after, and a baseline from the same start are judged on the same samples", async () => {
    const told: { phase: string; fraction: number; message: string }[] = [];
    const result = await distill({ baseline: true }, { onProgress: (progress) => told.push(progress) });
    assert.deepEqual([...new Set(told.map(({ phase }) => phase))], ["distill", "baseline"]);
    assert.match(told[0]!.message, /^the teacher's outputs, \d+ of 480 samples$/);
    assert.ok(told.every(({ fraction }, i) => fraction <= 1 && fraction >= (told[i - 1]?.fraction ?? 0)));
    const { metrics, baseline, student } = result;
    assertRecorded(metrics!.teacher, 0.995, 0.01);
    assertRecorded(metrics!.studentBefore, 0.325, 0.02);
    assertRecorded(metrics!.studentAfter, 0.8125, 0.02);
    assertRecorded(metrics!.baseline, 0.8575, 0.02);
    assert.deepEqual(Object.keys(baseline!.run.history[0]!.losses), ["label"]);
    const session = await openSession({ bytes: modelToBytes(student) });
    const { feeds, targets } = fresh.gather([...Array(fresh.count).keys()]);
    const outputs = await session.run(feeds);
    await session.close();
    const meter = top1.start();
    meter.add(outputs, targets);
    assert.equal(meter.value, metrics!.studentAfter);
  });

  test("without a teacher the labels alone train", async () => {
    const spec = { teacher: null, loss: { klWeight: 0, labelWeight: 1 } } as const;
    const { metrics, run, baseline } = await distill({ ...spec, training: { ...SHORT, epochs: 8 } });
    assert.equal(metrics!.teacher, null);
    assert.equal(baseline, null);
    assertRecorded(metrics!.studentAfter, 0.97, 0.02);
    assert.deepEqual(Object.keys(run.history[0]!.losses), ["label"]);
    await assert.rejects(distill({ ...spec, loss: {} }), refused(/no teacher: `kl_weight` must be 0/));
    await assert.rejects(distill({ ...spec, baseline: true }), refused(/no `baseline`/));
    await assert.rejects(distill({ ...spec, metric: undefined }), refused(/metric of the labels/));
  });

  test("keeping the teacher's outputs, computing them anew and getting them in parts of one give the same student", async () => {
    const bytes = async (spec: Parameters<typeof distill>[0]) =>
      Buffer.from(modelToBytes((await distill(spec)).student));
    const kept = await bytes({});
    assert.deepEqual(await bytes({ maxCacheBytes: 0 }), kept);
    const one = fixedBatch(teacher);
    const logits = async (model: Model) => {
      const opened = await openTeacher(
        model,
        [{ value: "logits", target: "t", reading: { kind: "scores", classAxis: null } }],
        {
          openSession,
          threads: 1,
        },
      );
      const { t } = await teacherOutputs(opened, samples, { batchSize: 33 });
      await opened.close();
      return floatsOf(t!);
    };
    const [whole, parts] = [await logits(teacher), await logits(one)];
    assert.ok(whole.every((x, i) => Math.abs(x - parts[i]!) < 1e-5));
  });

  test("what a teacher has said is kept for other runs, which ask it for one sample; what does not serve them is not used", async () => {
    let runs = 0;
    const counting: PhaseHooks["openSession"] = async (...options) => {
      const session = await openSession(...options);
      const isTeacher = session.inputs.length === 1;
      return {
        ...session,
        run: (...feeds) => session.run(...feeds).finally(() => (runs += isTeacher ? 1 : 0)),
        close: () => session.close(),
      };
    };
    const kept: Uint8Array[] = [];
    const run = async (known: Uint8Array | undefined, more: Parameters<typeof distill>[0] = {}) => {
      runs = 0;
      const keep = async (bytes: Uint8Array) => void kept.push(bytes);
      const { student } = await distill({ ...more, kept: { known, keep } }, { openSession: counting });
      return { bytes: Buffer.from(modelToBytes(student)), runs };
    };
    const first = await run(undefined);
    assert.equal(kept.length, 1);
    const again = await run(kept[0]);
    assert.deepEqual(again.bytes, first.bytes);
    assert.equal(first.runs - again.runs, Math.ceil(samples.count / SHORT.batchSize));
    assert.equal(kept.length, 1);
    const fewer = { count: 320, gather: samples.gather };
    for (const [known, more] of [
      [kept[0]!.slice(0, 1000), {}],
      [kept[0]!, { samples: fewer }],
      // The same output, read as it is and not as scores.
      [kept[0]!, { loss: { outputLoss: "mse" } }],
    ] as const) {
      const plain = await run(undefined, more);
      const taught = await run(known, more);
      assert.deepEqual(taught, plain);
    }
    assert.equal(kept.length, 7);
  });

  test("a teacher with a Softmax at its end teaches the same as its logits", async () => {
    const opened = await openTeacher(
      softmaxed(teacher),
      [{ value: "probabilities", target: "t", reading: { kind: "scores", classAxis: null } }],
      {
        openSession,
        threads: 1,
      },
    );
    const plain = await openTeacher(
      teacher,
      [{ value: "logits", target: "t", reading: { kind: "scores", classAxis: null } }],
      {
        openSession,
        threads: 1,
      },
    );
    const { feeds } = samples.gather([0, 1, 2]);
    assert.deepEqual((await opened.run(feeds)).t, (await plain.run(feeds)).t);
    await opened.close();
    await plain.close();
  });

  test("hints of other widths are learned through an adaptor that the student is exported without", async () => {
    const student = network(2, 9);
    const inner = (model: Model) => model.graph.nodes.find(({ opType }) => opType === "Relu")!.outputs[0]!.name;
    const hint = (kind: "mse" | "attention" | "rkd_distance", weight: number) => ({
      teacher: inner(teacher),
      student: inner(student),
      kind,
      weight,
    });
    const { student: trained, run } = await distill({
      student,
      loss: { hints: [hint("mse", 1), hint("attention", 100), hint("rkd_distance", 5)] },
    });
    const losses = run.history.map(
      (record) => Object.entries(record.losses).find(([name]) => name.startsWith("mse"))![1],
    );
    assertRecorded(losses.at(-1)! / losses[0]!, 0.638, 0.01, String(losses));
    const structure = (model: Model) => [
      model.graph.nodes.map(({ opType, name }) => `${opType} ${name}`),
      [...model.graph.initializers].map(({ name, constant }) => `${name} ${constant!.dims}`).sort(),
      model.graph.outputs.map(({ name }) => name),
    ];
    assert.deepEqual(structure(trained), structure(student));
  });

  test("hints are checked without training: names, and shapes that can be compared", async () => {
    const student = network(2, 9);
    const first = (model: Model, opType: string) =>
      model.graph.nodes.find((node) => node.opType === opType)!.outputs[0]!.name;
    const check = (...pairs: { teacher: string; student: string }[]) => {
      const hints = pairs.map((pair): HintSpec => ({ ...pair, kind: "mse", weight: 1 }));
      const loss = { ...DISTILLATION_LOSS, hints };
      return checkObjective({ teacher, student, samples, loss, batchSize: 32 }, { openSession, threads: 1 });
    };
    const fits = { teacher: first(teacher, "Relu"), student: first(student, "Relu") };
    await check(fits);
    for (const [hint, message, at] of [
      [{ ...fits, teacher: "nothing" }, /teacher has no value "nothing"/, ["hints", 1, "teacher"]],
      [{ ...fits, student: "nothing" }, /student has no value "nothing"/, ["hints", 1, "student"]],
      [{ ...fits, teacher: "logits" }, /cannot compare/, ["hints", 1]],
    ] as const) {
      const error = await check(fits, hint).catch((thrown) => thrown);
      assert.ok(refused(message)(error), String(error));
      assert.deepEqual(error.path, at);
    }
  });

  test("a run that was interrupted in the baseline ends in the same bytes", async () => {
    const whole = await distill({ baseline: true });
    const saved: Record<string, Uint8Array> = {};
    const stop = new AbortController();
    await assert.rejects(
      distill(
        { baseline: true },
        {
          signal: stop.signal,
          saveCheckpoint: async (phase, bytes) => {
            saved[phase] = bytes.slice();
            if (phase === "baseline") stop.abort();
          },
        },
      ),
    );
    assert.deepEqual(Object.keys(saved), ["distill", "baseline"]);
    const resumed = await distill({ baseline: true }, { resumeFrom: saved });
    assert.deepEqual(modelToBytes(resumed.student), modelToBytes(whole.student));
    assert.deepEqual(modelToBytes(resumed.baseline!.model), modelToBytes(whole.baseline!.model));
    assert.deepEqual(resumed.metrics, whole.metrics);
  });

  test("what does not fit together is refused before anything runs", async () => {
    const bare = { samples: withoutLabels(samples), metric: undefined, evaluation: undefined };
    await assert.rejects(distill({ ...bare }), refused(/no labels: `label_weight` must be 0/));
    await assert.rejects(distill({ ...bare, baseline: true, loss: { labelWeight: 0 } }), refused(/no `baseline`/));
    await assert.rejects(distill({ ...bare, loss: { labelWeight: 0, outputLoss: "dkd" } }), refused(/decoupled/));
    await assert.rejects(
      distill({ loss: { outputs: [{ teacher: "nothing", student: "logits" }] } }),
      refused(/teacher has no output "nothing"/),
    );
    await assert.rejects(
      distill({ loss: { hints: [{ teacher: "nothing", student: "logits", kind: "mse", weight: 1 }] } }),
      refused(/teacher has no value "nothing"/),
    );
  });
});

/** The same model for one sample at a time. */
test("of several outputs each is learned by its share of the weight", async () => {
  const two = (seed: number): Model => {
    const net = new NetworkBuilder(seed);
    const features = net.g.op("Flatten", [net.maxPool(net.input(["n", 1, 8, 8]), 4)]);
    net.output(net.linear(features, 4, 3), ["n", 3], "first");
    return net.output(net.linear(features, 4, 5), ["n", 5], "second");
  };
  const { run } = await distill({
    ...{ teacher: two(1), student: two(2), metric: undefined, samples: withoutLabels(samples), evaluation: undefined },
    loss: { ...DISTILLATION_LOSS, outputLoss: "mse", klWeight: 3, labelWeight: 0 },
    training: { ...SHORT, epochs: 1 },
  });
  const [{ loss, losses }] = run.history as [(typeof run.history)[number]];
  const [first, second] = Object.values(losses);
  assert.equal(Object.keys(losses).length, 2);
  assert.ok(first !== second && Math.abs(loss / (1.5 * (first! + second!)) - 1) < 1e-5, `${loss} ${first} ${second}`);
});

function fixedBatch(model: Model): Model {
  const copy = model.clone();
  for (const value of [...copy.graph.inputs, ...copy.graph.outputs])
    value.retype("float32", [1, ...value.shape!.slice(1)]);
  return copy;
}

/** The same model with probabilities for an output. */
function softmaxed(model: Model): Model {
  const copy = model.clone();
  const logits = copy.graph.outputs[0]!;
  copy.graph.removeOutput(logits);
  copy.claimName("probabilities");
  const node = copy.graph.append({ opType: "Softmax", inputs: [logits], outputs: ["probabilities"] });
  node.outputs[0]!.retype("float32", ["n", 4]);
  copy.graph.addOutput(node.outputs[0]!);
  return copy;
}
