import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { JobMetrics, OpenModel } from "../../../../src/core/index.ts";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { floatsOf, type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { calibrate } from "../../../../src/core/quantize/static/calibration.ts";
import { rangeProvisions, stretchedProvisions } from "../../../../src/service/kinds/quantize/run/provisions.ts";
import { QUANTIZE_RUN } from "../../../../src/service/kinds/quantize/run/quantize-job.ts";
import { TaskError } from "../../../../src/tasks/protocol.ts";
import { ENVIRONMENT } from "../../../../workers/tasks.ts";
import { writeNpz } from "../../../support/dataset-writers.ts";
import { GraphMaker } from "../../../support/graphs.ts";
import { type JobOptions, NO_PEAK, planJob, type Ran, runJob } from "../../../support/job-run.ts";
import { openModel, runModel } from "../../../support/open-model.ts";
import { CLASSES, DATASETS, deeper, heldOut, JUDGING, points, scoreOf, WIDTH } from "../../../support/points.ts";
import { assertRecorded } from "../../../support/recorded.ts";

/** Jobs of the methods of quantization in this process, on a perceptron. */

const MODELS = { own: deeper([32, 24], 1) };
const DATA = { ...DATASETS, train: writeNpz({ ...points(200, 1) }) };

const optionsOf = (params: object, more: Partial<JobOptions> & { readonly evaluation?: object } = {}): JobOptions => {
  const { evaluation, ...rest } = more;
  return {
    body: {
      ...{ type: "quantize", model_id: "own", params },
      evaluation: { dataset_id: "judge", layer_errors: false, latency: { runs: 2 }, ...evaluation },
    },
    ...{ models: MODELS, datasets: DATA, environment: NO_PEAK, ...rest },
  };
};
const run = (...given: Parameters<typeof optionsOf>) => runJob(QUANTIZE_RUN, optionsOf(...given));
const plan = (...given: Parameters<typeof optionsOf>) => planJob(QUANTIZE_RUN, optionsOf(...given));
const codesOf = ({ warnings }: Pick<JobMetrics, "warnings">) => warnings.map(({ code }) => code);
const bytesOf = ({ files }: Ran) => Buffer.from(files.get("model.onnx")!).toString("base64");
const progressOf = ({ news }: Ran, step: string) =>
  news.flatMap((it) => (it.kind === "progress" && it.progress.step === step ? [it.progress] : []));

const STATIC = { method: "static", dataset_id: "train", samples: 40, float_where_slower: false, min_sqnr_db: null };

describe("static", () => {
  test("ranges are handed over, and used again where they are known, to the same bytes", async () => {
    const first = await run(STATIC);
    const { calibration } = first.report.quantization!;
    assert.deepEqual([calibration.cached, calibration.samples, calibration.method], [false, 40, "mse"]);
    assert.deepEqual(
      first.caches.map(({ name }) => name),
      ["calibration"],
    );
    const again = await run(STATIC, { cached: { calibration: first.caches[0]!.bytes } });
    assert.deepEqual([again.report.quantization!.calibration.cached, again.caches], [true, []]);
    assert.equal(bytesOf(again), bytesOf(first));
    const damaged = await run(STATIC, { cached: { calibration: first.caches[0]!.bytes.subarray(0, 100) } });
    assert.deepEqual([damaged.report.quantization!.calibration.cached, damaged.caches.length], [false, 1]);
    const warned = damaged.news.flatMap((it) => (it.kind === "log" ? [`${it.level} ${it.message}`] : []));
    assert.match(warned[0]!, /^warn Ranges of an earlier job are not used\. /);
    assert.equal(bytesOf(damaged), bytesOf(first));
  });

  test("activations have the type that was asked for, or else that of the target", async () => {
    const zeroPoints = (model: Model) =>
      new Set(
        [...model.nodes()]
          .filter(({ opType }) => opType === "QuantizeLinear")
          .map(({ inputs }) => inputs[2]!.constant!.dtype),
      );
    assert.deepEqual([...zeroPoints((await run({ ...STATIC, activation_dtype: "int8" })).model())], ["int8"]);
    assert.deepEqual([...zeroPoints((await run({ ...STATIC, activation_dtype: "uint8" })).model())], ["uint8"]);
    assert.deepEqual([...zeroPoints((await run({ ...STATIC, target: "x64-avx2" })).model())], ["uint8"]);
  });

  test("a limit of noise: the score is the worst output's, the target what was asked for, and the chosen trial reaches it", async () => {
    const ran = await run({ ...STATIC, min_sqnr_db: 45 });
    const { control } = ran.report.quantization!;
    assert.deepEqual([control!.score, control!.target, control!.original_score], ["sqnr_db", 45, null]);
    const chosen = control!.trials.filter((trial) => trial.chosen);
    assert.equal(chosen.length, 1);
    assert.ok(control!.reached && chosen[0]!.score >= 45 && chosen[0]!.score <= 200);
    assert.ok(control!.trials[0]!.float_nodes.length === 0 && control!.trials[0]!.score < 45);
    const floats = new Set(chosen[0]!.float_nodes);
    const labels = new Set([...MODELS.own.nodes()].map(({ label }) => label));
    assert.ok(floats.size > 0 && [...floats].every((label) => labels.has(label)));
    assert.ok(!codesOf(ran.metrics).includes("target_not_reached"));
  });

  test("a limit of the metric: the original's score, and what it may drop to", async () => {
    const ran = await run({ ...STATIC, max_metric_drop: 0.5, min_sqnr_db: null });
    const { control } = ran.report.quantization!;
    assert.equal(control!.score, "top1");
    assert.ok(Math.abs(control!.target - (control!.original_score! - 0.5)) < 1e-12);
    assert.ok(control!.original_score! > 0 && control!.original_score! < 1);
    assert.deepEqual([control!.reached, control!.trials.length], [true, 1]);
  });

  test("a limit that no model keeps is a warning, with the best that there was", async () => {
    const ran = await run({ ...STATIC, min_sqnr_db: 200, max_trials: 2 });
    assert.equal(codesOf(ran.metrics)[0], "target_not_reached");
    const { control } = ran.report.quantization!;
    const best = Math.max(...control!.trials.map(({ score }) => score));
    const [{ message, value }] = ran.metrics.warnings as unknown as [{ message: string; value: number }];
    assert.match(message, /^The best of \d models has sqnr_db .* dB on the samples .*, and 200\.0 dB was asked for\.$/);
    assert.ok(control!.reached === false && (value === best || value > 200));
  });

  test("where nothing is asked for, a result that is good as it is needs no control", async () => {
    const ran = await run({ ...STATIC, min_sqnr_db: "auto" });
    assert.equal(ran.report.quantization!.control, null);
  });
});

/** The sizes of the first axis of everything that a model which was opened for the moment is fed. */
function watchedBatches(): { readonly openTemporary: OpenModel; readonly sizes: number[] } {
  const sizes: number[] = [];
  const openTemporary: OpenModel = async (model, options) => {
    const session = await ENVIRONMENT.openTemporary(model, options);
    const own = session.run.bind(session);
    session.run = (feeds, names, signal) => {
      sizes.push(...Object.values(feeds).map(({ dims }) => dims[0]!));
      return own(feeds, names, signal);
    };
    return session;
  };
  return { openTemporary, sizes };
}

describe("qat", () => {
  const training = { epochs: 2, batch_size: 50, validation_split: 0.25, learning_rate: 0.001 };
  const QAT = { method: "qat", dataset_id: "train", training, samples: 64 };
  /** Learns more than to be what it was. */
  const LABELLED = { ...QAT, training: { ...training, learning_rate: 0.01 }, loss: { label_weight: 1, kl_weight: 0 } };

  test("trains with the rounding in the model, and says how that went", async () => {
    const ran = await run(LABELLED);
    const { history, metric, student_metric, networks, best_epoch } = ran.metrics.training!;
    assert.deepEqual([history.length, metric, networks.length], [2, "top1", 1]);
    assert.equal(student_metric, await scoreOf(ran.model()));
    assert.equal(ran.metrics.accuracy!.before, await scoreOf(MODELS.own));
    assert.equal(ran.metrics.accuracy!.after, student_metric);
    assert.ok([...ran.model().nodes()].some(({ opType }) => opType === "QuantizeLinear"));
    const phases = ran.news.flatMap((it) => (it.kind === "metric" ? [`${it.data.phase} ${it.data.epoch}`] : []));
    assert.deepEqual(phases, ["train 1", "train 2"]);
    assert.ok(progressOf(ran, "train").some(({ message }) => message.startsWith("train: ")));
    const last = ran.checkpoints.at(-1)!;
    const resumed = await run(LABELLED, { checkpoints: { [last.name]: last.bytes } });
    assert.equal(bytesOf(resumed), bytesOf(ran));
    const held = heldOut();
    assert.ok(best_epoch > 0);
    assert.equal(await scoreOf(ran.model(), held), history[best_epoch - 1]!.validation_metric);
  });

  test("training that gains nothing leaves the model as it started, with a warning", async () => {
    // Of so small steps no weight leaves its code.
    const ran = await run({ ...QAT, training: { ...training, learning_rate: 1e-12 } });
    const { best_epoch, student_metric, student_before_metric, networks } = ran.metrics.training!;
    assert.deepEqual([best_epoch, student_metric], [0, student_before_metric]);
    const [own] = networks;
    assert.deepEqual([own!.best_epoch, own!.validation_metric, own!.metric], [0, null, own!.before_metric]);
    const warning = ran.metrics.warnings.find(({ code }) => code === "training_gained_nothing")!;
    assert.equal(warning.value, 2);
    assert.equal(await scoreOf(ran.model()), student_before_metric);
  });

  test("calibrates in as many runs as there are enough samples for, of 16 at the most", async () => {
    const firstSize = async (samples: number, count: number) => {
      const { openTemporary, sizes } = watchedBatches();
      const environment = { ...NO_PEAK, openTemporary };
      const datasets = { ...DATA, train: writeNpz({ ...points(count, 1) }) };
      await run({ ...QAT, samples, training: { ...training, epochs: 1 } }, { environment, datasets });
      return sizes[0];
    };
    assert.deepEqual([await firstSize(20, 200), await firstSize(100, 200), await firstSize(600, 600)], [1, 3, 16]);
  });

  test("a plan corrects nothing and looks at few samples", async () => {
    const { openTemporary, sizes } = watchedBatches();
    const planned = await plan(QAT, { environment: { ...NO_PEAK, openTemporary } });
    assert.ok(sizes.length > 0 && sizes.every((size) => size === 1));
    assert.deepEqual(
      planned.provisional.map(({ code }) => code),
      ["ranges_from_few"],
    );
    assert.match(planned.provisional[0]!.message, /from 8 of 64 samples/);
    assert.ok(planned.quantized_nodes.length > 0);
  });
});

describe("float16", () => {
  test("tells how many of the samples it has looked at", async () => {
    const ran = await run({ method: "float16" }, { evaluation: { latency: { runs: 1, batch_size: 1 } } });
    const told = progressOf(ran, "observe").map(({ fraction }) => fraction);
    const [first, second] = told;
    assert.equal(first, 0.02);
    // One of 64 samples; the step is 0.18 of the job.
    assert.ok(Math.abs(second! - first! - 0.18 / 64) < 1e-9, `${told.slice(0, 3)}`);
    assert.ok(told.length === 64 && told.every((it) => it < 0.2));
    const few = await run({ method: "float16" }, { evaluation: { samples: 10 } });
    const [, next] = progressOf(few, "observe").map(({ fraction }) => fraction);
    assert.ok(Math.abs(next! - 0.02 - 0.18 / 10) < 1e-9, `${next}`);
  });

  test("stops looking when it is told to", async () => {
    const stop = new AbortController();
    let told = 0;
    const stopped = run(
      { method: "float16" },
      {
        signal: stop.signal,
        onNews(it) {
          if (it.kind !== "progress" || it.progress.step !== "observe") return;
          if (++told === 3) stop.abort();
        },
      },
    );
    await assert.rejects(stopped, { code: "cancelled" });
    assert.equal(told, 3);
  });
});

test("simplify computes the same with fewer nodes", async () => {
  const make = new GraphMaker();
  const x = make.input("x", ["n", WIDTH]);
  const same = make.op("Identity", [make.op("Dropout", [x])]);
  const sum = make.op("Add", [make.floats("a", [1], [2]), make.floats("b", [1], [3])]);
  make.output(make.linear(make.op("Mul", [same, sum]), WIDTH, CLASSES), "logits", ["n", CLASSES]);
  const ran = await run({ method: "simplify" }, { models: { own: make.model } });
  assert.ok(ran.outcome.facts.nodes < [...make.model.nodes()].length);
  const [before, after] = [make.model, ran.model()].map((model) => runModel(model, { x: JUDGING.x }));
  assert.deepEqual(floatsOf((await after)!.logits!), floatsOf((await before)!.logits!));
  assert.ok(progressOf(ran, "compress").some(({ message }) => message === "Applying simplify"));
});

test("what is left alone of a float16 model is no larger than it was", async () => {
  const wide = { own: deeper([128, 64], 1) };
  const own = (await run({ method: "float16" }, { models: wide, evaluation: { samples: 4 } })).model();
  const second = [...own.nodes()].filter(({ opType }) => opType === "Gemm")[1]!;
  const ran = await run({ method: "weight_only", bits: 8, exclude_nodes: [second.label] }, { models: { own } });
  const halves = [...ran.model().graph.initializers].filter(({ constant }) => constant!.dtype === "float16");
  assert.deepEqual(
    halves.map(({ constant }) => constant!.dims),
    [[64, 128]],
  );
  assertRecorded(ran.metrics.fidelity.outputs[0]!.sqnr_db, 40.2, 1.5);
});

describe("names that nothing in the model has", () => {
  const pointersOf = async (job: Promise<unknown>) => {
    const error = await job.then(
      () => assert.fail("it was not refused"),
      (thrown: unknown) => thrown,
    );
    assert.ok(error instanceof TaskError);
    assert.equal(error.code, "validation_failed");
    for (const { message } of error.fields!) assert.ok(error.message.includes(message));
    return error.fields!.map(({ pointer, code }) => `${pointer} ${code}`);
  };
  const wrong = { exclude_nodes: ["nowhere"], exclude_ops: ["NoSuch"], layers: { "no/where": "float32" } };
  const expected = [
    "/params/exclude_nodes/0 unknown_node",
    "/params/exclude_ops/0 unknown_operator",
    "/params/layers/no~1where unknown_node",
  ];

  test("are refused, all of them, by the job and by its plan", async () => {
    assert.deepEqual(await pointersOf(run({ ...STATIC, ...wrong })), expected);
    assert.deepEqual(await pointersOf(plan({ ...STATIC, ...wrong })), expected);
    assert.deepEqual(await pointersOf(run({ method: "dynamic", exclude_nodes: ["nowhere"] })), [expected[0]]);
  });
});

describe("what may come out otherwise", () => {
  test("nodes in front of an operator that stretches are told by their labels", async () => {
    const make = new GraphMaker();
    const mel = make.linear(make.input("x", ["n", 16]), 16, 16);
    const energy = make.op("Add", [make.op("Mul", [mel, mel]), make.floats("e", [], [1e-6])]);
    make.output(make.op("Log", [energy]), "y", ["n", 16]);
    for (const [i, node] of make.graph.nodes.entries()) node.name = `made ${i} of ${node.opType}`;
    const feeds = async function* (): AsyncGenerator<Record<string, Tensor>> {
      const x = Float32Array.from({ length: 16 * 64 }, (_, i) => Math.sin(i) * 10 ** -(i % 5));
      yield { x: tensorOf("float32", [64, 16], x) };
    };
    const seen = await calibrate(make.model, feeds(), { openModel });
    const [provision, ...others] = stretchedProvisions(make.model, seen);
    assert.deepEqual([provision!.code, others], ["measured_choice", []]);
    const labels = new Set([...make.model.nodes()].flatMap(({ origins }) => [...origins]));
    assert.ok(provision!.nodes.length > 0 && provision!.nodes.every((label) => labels.has(label)));
    assert.ok(!provision!.nodes.some((label) => label.includes("Log")));
    const none = new GraphMaker();
    none.output(none.linear(none.input("x", ["n", 16]), 16, 4), "y", ["n", 4]);
    assert.deepEqual(stretchedProvisions(none.model, await calibrate(none.model, feeds(), { openModel })), []);
  });

  test("ranges of all runs are not provisional", () => {
    assert.deepEqual([rangeProvisions(4, 4), rangeProvisions(5, 4)], [[], []]);
    assert.match(rangeProvisions(3, 4)[0]!.message, /from 3 of 4 runs/);
  });
});
