import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { floatsOf, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import type { JobEnvironment } from "../../../../src/service/kinds/run/job-environment.ts";
import { ENVIRONMENT } from "../../../../workers/tasks.ts";
import { NO_PEAK } from "../../../support/job-run.ts";
import { runModel } from "../../../support/open-model.ts";
import {
  bytesOf,
  CLASSES,
  deeper,
  epochsOf,
  heldOut,
  JUDGING,
  network,
  parametersOf,
  plan,
  type Ran,
  run,
  SPLIT,
  scoreOf,
  trainingOf,
  upTo,
  WIDTH,
} from "../../../support/points.ts";
import { top1 } from "../../../support/top1.ts";

/** Networks that learn together or teach themselves, in this process: what jobs say is computed once more from the models that they make. */

/** Four hidden layers. */
const FOUR = [6, 5, 7, 5];
const PARAMETERS_OF_FOUR = 9 * 6 + 7 * 5 + 6 * 7 + 8 * 5 + 6 * CLASSES;
/** Two of four. */
const PARAMETERS_OF_TWO = 9 * 4 + 5 * 4 + 5 * CLASSES;

/** The accuracy of the mean of the probabilities of several models. */
async function meanScore(models: readonly Model[], output = "logits"): Promise<number> {
  const sum = new Float32Array(JUDGING.labels.dims[0]! * CLASSES);
  for (const model of models) {
    const logits = floatsOf((await runModel(model, { x: JUDGING.x }))[output]!);
    for (let row = 0; row < sum.length; row += CLASSES) {
      const powers = Array.from({ length: CLASSES }, (_, i) => Math.exp(logits[row + i]!));
      const total = powers.reduce((a, b) => a + b);
      for (const [i, power] of powers.entries()) sum[row + i]! += power / total;
    }
  }
  return top1(tensorOf("float32", [sum.length / CLASSES, CLASSES], sum), JUDGING.labels);
}

const artifactsOf = ({ files }: Ran) => [...files.keys()].filter((name) => name.endsWith(".onnx")).sort();

/** Every network that was trained, held against the model that it became. */
async function checkNetworks(ran: Ran): Promise<void> {
  const held = heldOut();
  for (const { name, artifact, metric, validation_metric, history, best_epoch } of trainingOf(ran).networks) {
    const model = ran.model(artifact);
    assert.equal(metric, await scoreOf(model), name);
    assert.equal(validation_metric, await scoreOf(model, held), name);
    assert.equal(validation_metric, history[best_epoch - 1]!.validation_metric, name);
  }
}

describe("online", () => {
  const models = { one: network(6, 1), two: deeper([4, 4], 2) };
  const peers = {
    ...{ mode: "online", student: { model_id: "one" }, peer_students: [{ model_id: "two" }], peers: 4 },
    baseline: true,
  };

  test("peers: the best on the held-out samples is the result, all are artifacts, and what is told of each is what it scores", async () => {
    const ran = await run(peers, models);
    await checkNetworks(ran);
    const { networks, chosen, ensemble_metric, student_metric, baseline_history } = trainingOf(ran);
    const sizes = [parametersOf(6), PARAMETERS_OF_TWO, parametersOf(6), parametersOf(6)];
    assert.deepEqual(
      networks.map(({ name, parameters }) => [name, parameters]),
      sizes.map((size, i) => [`peer_${i + 1}`, size]),
    );
    const best = networks.toSorted((a, b) => b.validation_metric! - a.validation_metric!)[0]!;
    assert.equal(chosen, best.name);
    assert.equal(student_metric, best.metric);
    assert.deepEqual(
      networks.map(({ name, artifact }) => artifact === (name === chosen ? "model.onnx" : `${name}.onnx`)),
      [true, true, true, true],
    );
    assert.deepEqual(artifactsOf(ran), networks.map(({ artifact }) => artifact).sort());
    assert.equal(ensemble_metric, await meanScore(networks.map(({ artifact }) => ran.model(artifact))));
    assert.equal(baseline_history!.length, 3);
    // The two that are named start from their files, the others from weights of their own.
    const before = networks.map(({ before_metric }) => before_metric);
    assert.deepEqual(before.slice(0, 2), [await scoreOf(models.one), await scoreOf(models.two)]);
    assert.ok(new Set(before).size > 2, `${before}`);
    assert.equal(ran.metrics.accuracy!.before, await scoreOf(models.one));
    assert.deepEqual(
      epochsOf(ran),
      [1, 2, 3]
        .flatMap((epoch) => [1, 2, 3, 4].map((peer) => `online peer_${peer} ${epoch} of 3`))
        .concat(upTo(3, "baseline")),
    );
  });

  test("a plan counts what would be trained", async () => {
    const planned = await plan({ ...peers, baseline: false }, models);
    assert.deepEqual(
      planned.networks.map(({ parameters }) => parameters),
      [parametersOf(6), PARAMETERS_OF_TWO, parametersOf(6), parametersOf(6)],
    );
    const { teacher_parameters, student_parameters, optimizer_steps, training_samples, validation_samples } = planned;
    assert.deepEqual([teacher_parameters, student_parameters], [null, parametersOf(6)]);
    assert.deepEqual([optimizer_steps, training_samples, validation_samples], [15, 150, 50]);
    assert.deepEqual(planned.exits, []);
    assert.deepEqual(planned.outputs, [{ teacher: "logits", student: "logits" }]);
  });

  test("peers that are drawn anew have a seed of their own each, whatever the others do", async () => {
    const drawn = { ...peers, student: { model_id: "one", init: "reinitialize" }, peer_students: [], baseline: false };
    const few = trainingOf(await run({ ...drawn, peers: 2 }, { one: models.one })).networks;
    const more = trainingOf(await run({ ...drawn, peers: 3 }, { one: models.one })).networks;
    const before = (networks: typeof few) => networks.map(({ before_metric }) => before_metric);
    assert.deepEqual(before(more).slice(0, 2), before(few));
    const next = trainingOf(await run({ ...drawn, peers: 2, seed: 1 }, { one: models.one })).networks;
    assert.equal(next[0]!.before_metric, few[1]!.before_metric, "seed + 1");
    const last = await run({ ...drawn, peers: 2, seed: 2 ** 32 - 1 }, { one: models.one });
    const first = await run({ ...drawn, peers: 2, seed: 0 }, { one: models.one });
    assert.equal(trainingOf(last).networks[1]!.before_metric, trainingOf(first).networks[0]!.before_metric);
  });

  test("a teacher that learns while it teaches is an artifact, and what the student is held against", async () => {
    const params = {
      ...{ mode: "online", teacher_model_id: "two", student: { model_id: "one", init: "reinitialize" } },
      loss: { kl_weight: 0.5, label_weight: 1, teacher_kl_weight: 0.5 },
      update: "alternating",
    };
    const ran = await run(params, models);
    await checkNetworks(ran);
    const { networks, chosen, teacher_metric, student_before_metric } = trainingOf(ran);
    assert.deepEqual(
      [networks.map(({ name, artifact }) => [name, artifact]), chosen],
      [
        [
          ["student", "model.onnx"],
          ["teacher", "teacher.onnx"],
        ],
        "student",
      ],
    );
    assert.equal(teacher_metric, await scoreOf(ran.model("teacher.onnx")));
    assert.equal(ran.metrics.accuracy!.before, teacher_metric);
    assert.notEqual(teacher_metric, await scoreOf(models.two));
    assert.notEqual(student_before_metric, await scoreOf(models.one), "it was drawn anew");
    assert.deepEqual(Object.keys(networks[1]!.history[0]!.losses), ["label", "kl"], "the teacher learns from it, too");
    const { size } = ran.metrics;
    assert.equal(size.before_bytes, ran.files.get("teacher.onnx")!.length);
    const alone = await run({ ...params, loss: { ...params.loss, teacher_kl_weight: 0 } }, models);
    assert.deepEqual(Object.keys(trainingOf(alone).networks[1]!.history[0]!.losses), ["label"]);
    const planned = await plan(params, models);
    assert.deepEqual(
      planned.networks.map(({ name, parameters }) => [name, parameters]),
      [
        ["student", parametersOf(6)],
        ["teacher", PARAMETERS_OF_TWO],
      ],
    );
    assert.equal(planned.teacher_parameters, PARAMETERS_OF_TWO);
  });
});

describe("self", () => {
  const model = network(6, 1);
  const own = (self_kind: string, params: object = {}) => ({
    ...{ mode: "self", self_kind, student: { model_id: "own" } },
    ...params,
  });

  test("generations whose average is the result: as many times as large, with the mean of their answers", async () => {
    const params = own("born_again", { generations: 2, average: true });
    const ran = await run(params, { own: model });
    const { networks, chosen, student_metric, ensemble_metric, history } = trainingOf(ran);
    assert.deepEqual([networks.map(({ name }) => name), chosen], [["generation_1", "generation_2"], "average"]);
    assert.deepEqual(artifactsOf(ran), ["generation_1.onnx", "generation_2.onnx", "model.onnx"]);
    await checkNetworks(ran);
    const mean = await meanScore([ran.model("generation_1.onnx"), ran.model("generation_2.onnx")]);
    assert.deepEqual([student_metric, ensemble_metric, await scoreOf(ran.model())], [mean, mean, mean]);
    assert.equal(ran.outcome.facts.parameters, 2 * parametersOf(6));
    assert.equal(networks[0]!.before_metric, await scoreOf(model), "the first starts from the file");
    assert.deepEqual(epochsOf(ran), [...upTo(3, "generation_1"), ...upTo(3, "generation_2")]);
    assert.equal(history.length, 3);
    const planned = await plan(params, { own: model });
    assert.deepEqual(planned.networks, [{ name: "generation_1", parameters: parametersOf(6) }]);
  });

  test("generations: the best is the result, and goes on from the generations that are done", async () => {
    const params = own("born_again", { generations: 2 });
    const ran = await run(params, { own: model });
    await checkNetworks(ran);
    const { networks, chosen, baseline_metric } = trainingOf(ran);
    const [first, second] = networks;
    const best = second!.validation_metric! > first!.validation_metric! ? second! : first!;
    assert.deepEqual([chosen, best.artifact], [best.name, "model.onnx"]);
    assert.equal(baseline_metric, first!.metric, "the first has no teacher");
    const last = ran.checkpoints.findLast(({ name }) => name === "generation_1")!;
    const resumed = await run(params, { own: model }, { checkpoints: { generation_1: last.bytes } });
    assert.deepEqual(epochsOf(resumed), upTo(3, "generation_2"));
    assert.equal(bytesOf(resumed), bytesOf(ran));
  });

  test("exits that are kept: outputs and artifacts, with what each is worth and costs", async () => {
    const params = own("be_your_own_teacher", { exits: 2, keep_exits: true });
    const opened: string[][] = [];
    const openTemporary: JobEnvironment["openTemporary"] = (model, options) => {
      opened.push(model.graph.outputs.map(({ name }) => name));
      return ENVIRONMENT.openTemporary(model, options);
    };
    const ran = await run(params, { own: deeper(FOUR, 1) }, { environment: { ...NO_PEAK, openTemporary } });
    assert.deepEqual(opened, [["logits"], ["exit_1"], ["exit_2"]], "each is timed against the whole network");
    const { exits } = ran.metrics;
    const outputs = ran.model().graph.outputs.map(({ name }) => name);
    assert.deepEqual(outputs, ["logits", "exit_1", "exit_2"]);
    assert.deepEqual(
      exits!.map(({ name, artifact }) => [name, artifact]),
      [
        ["exit_1", "exit_1.onnx"],
        ["exit_2", "exit_2.onnx"],
        ["logits", "model.onnx"],
      ],
    );
    const [early, later, whole] = exits!;
    assert.deepEqual(artifactsOf(ran), ["exit_1.onnx", "exit_2.onnx", "model.onnx"]);
    assert.equal(later!.metric, await scoreOf(ran.model("exit_2.onnx"), JUDGING, "exit_2"));
    assert.equal(early!.metric, await scoreOf(ran.model(), JUDGING, "exit_1"));
    assert.equal(early!.metric, await scoreOf(ran.model("exit_1.onnx"), JUDGING, "exit_1"));
    assert.equal(whole!.metric, await scoreOf(ran.model()));
    assert.deepEqual([whole!.macs_share, whole!.latency_share, whole!.metric], [1, 1, trainingOf(ran).student_metric]);
    // They read the first and the third hidden layer, and each has a hidden layer of its own, as wide as that.
    const all = WIDTH * 6 + 6 * 5 + 5 * 7 + 7 * 5 + 5 * CLASSES;
    assert.equal(early!.macs_share, (WIDTH * 6 + 6 * 6 + 6 * CLASSES) / all);
    assert.equal(later!.macs_share, (WIDTH * 6 + 6 * 5 + 5 * 7 + 7 * 7 + 7 * CLASSES) / all);
    assert.ok(early!.latency_share > 0.1 && early!.latency_share < 10, "a ratio of two medians that were measured");
    assert.deepEqual(
      ran.metrics.fidelity.outputs.map(({ name }) => name),
      ["logits"],
      "exits are compared with nothing",
    );
    const planned = await plan(params, { own: deeper(FOUR, 1) });
    assert.deepEqual(
      planned.exits,
      [early!, later!].map(({ name, value, macs_share }) => ({ name, value, macs_share })),
    );
  });

  test("exits that are dropped are told of, and no artifacts", async () => {
    const params = own("be_your_own_teacher", { exits: 1, baseline: true });
    const ran = await run(params, { own: deeper(FOUR, 1) });
    assert.deepEqual(artifactsOf(ran), ["model.onnx"]);
    assert.deepEqual(
      ran.model().graph.outputs.map(({ name }) => name),
      ["logits"],
    );
    assert.deepEqual(
      ran.metrics.exits!.map(({ name, artifact }) => [name, artifact]),
      [
        ["exit_1", null],
        ["logits", "model.onnx"],
      ],
    );
    assert.equal(ran.outcome.facts.parameters, PARAMETERS_OF_FOUR);
    assert.deepEqual(epochsOf(ran), [...upTo(3, "distill"), ...upTo(3, "baseline")]);
  });

  test("an exit where it was asked for", async () => {
    const wide = deeper(FOUR, 1);
    const value = wide.graph.nodes.filter(({ opType }) => opType === "Relu")[1]!.outputs[0]!.name;
    const params = own("be_your_own_teacher", { exit_values: [value] });
    const ran = await run(params, { own: wide });
    assert.deepEqual(
      ran.metrics.exits!.map((exit) => exit.value),
      [value, "logits"],
    );
  });

  test("the average of a network's own weights is the result, and by its decay", async () => {
    const params = (decay: number) =>
      own("mean_teacher", { training: { ...SPLIT, average_decay: decay }, baseline: true });
    const ran = await run(params(0.9), { own: model });
    await checkNetworks(ran);
    const { networks, chosen, baseline_history, history } = trainingOf(ran);
    assert.deepEqual([networks.length, chosen, networks[0]!.artifact], [1, "student", "model.onnx"]);
    assert.deepEqual([baseline_history!.length, Object.keys(history[0]!.losses)], [3, ["label", "kl"]]);
    assert.notEqual(bytesOf(await run(params(0.1), { own: model })), bytesOf(ran));
    const planned = await plan(params(0.9), { own: model });
    assert.deepEqual(planned.networks, [{ name: "student", parameters: parametersOf(6) }]);
  });
});
