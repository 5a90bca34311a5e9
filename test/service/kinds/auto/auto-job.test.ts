import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, test } from "node:test";
import type { AutoCandidate } from "../../../../src/core/index.ts";
import { bundleSha256 } from "../../../../src/service/identity.ts";
import { AUTO_RUN } from "../../../../src/service/kinds/auto/run/auto-job.ts";
import { DISTILL_RUN } from "../../../../src/service/kinds/distill/run/distill-job.ts";
import { QUANTIZE_RUN } from "../../../../src/service/kinds/quantize/run/quantize-job.ts";
import { writeNpz } from "../../../support/dataset-writers.ts";
import { type JobOptions, NO_PEAK, planJob, type Ran, runJob } from "../../../support/job-run.ts";
import { DATASETS, deeper, points } from "../../../support/points.ts";

/** Whole searches in this process, on a perceptron: what is tried, on what, and what is told of it. */

const TRAINING = 400;
const MODELS = { own: deeper([32, 32], 1) };
const GIVEN = { ...DATASETS, train: writeNpz({ ...points(TRAINING, 1) }) };

const optionsOf = (params: object, evaluation: object = {}, more: Partial<JobOptions> = {}): JobOptions => ({
  body: {
    ...{ type: "auto", model_id: "own", params: { dataset_id: "train", ...params } },
    evaluation: { latency: { runs: 3 }, ...evaluation },
  },
  ...{ models: MODELS, datasets: GIVEN, environment: NO_PEAK, ...more },
});

const search = (...given: Parameters<typeof optionsOf>) => runJob(AUTO_RUN, optionsOf(...given));
const candidatesOf = ({ metrics }: Ran) => metrics.auto!.candidates;
const named = (ran: Ran, name: string): AutoCandidate => candidatesOf(ran).find((it) => it.name === name)!;
const progressOf = ({ news }: Ran) => news.flatMap((it) => (it.kind === "progress" ? [it.progress] : []));
const triedOf = ({ news }: Ran) =>
  news.flatMap((it) => (it.kind === "metric" && it.data.candidate !== undefined ? [it.data] : []));
const sha256Of = (bytes: Uint8Array) =>
  bundleSha256([{ name: "model.onnx", sha256: createHash("sha256").update(bytes).digest("hex") }]);

const budget = (candidates: number) => ({ budget: { seconds: 200, candidates } });
/** Methods that measure nothing while they make a model. */
const STEADY = { methods: ["dynamic", "weight_only", "float16", "simplify"] };

describe("a search", () => {
  test("has models whose jobs make the same bytes, with the numbers of their files", async () => {
    const ran = await search({ ...STEADY, ...budget(5) });
    assert.deepEqual(
      candidatesOf(ran).map(({ name }) => name),
      ["original", "dynamic", "weights-8-bit", "weights-4-bit", "simplify", "float16"],
    );
    assert.ok(ran.outcome.front!.length > 0);
    for (const { name, files, facts, renamed } of ran.outcome.front!) {
      const candidate = named(ran, name);
      const bytes = ran.files.get(`${name}/model.onnx`)!;
      assert.equal(sha256Of(bytes), candidate.sha256);
      assert.equal(candidate.measured!.size.after_bytes, bytes.length);
      assert.deepEqual([files.length, renamed, candidate.on_front], [1, null, true]);
      assert.ok(facts.nodes > 0);
      const again = await runJob(QUANTIZE_RUN, {
        ...optionsOf({}),
        body: { ...candidate.spec, evaluation: { latency: { runs: 1 }, samples: 2 } },
      });
      assert.equal(sha256Of(again.files.get("model.onnx")!), candidate.sha256, name);
    }
    assert.deepEqual(ran.outcome.model, []);
    const recommended = candidatesOf(ran).filter((it) => it.recommended);
    assert.deepEqual(
      recommended.map(({ name }) => name),
      [ran.metrics.auto!.recommendation.candidate],
    );
    const { size, fidelity } = ran.metrics;
    const best = recommended[0]!.measured!;
    assert.deepEqual([size, fidelity], [best.size, best.fidelity]);
    assert.deepEqual(Object.keys(ran.report.timings_ms), ["load", "try", "measure"]);
    assert.equal(ran.outcome.accepted, true);
    // What is not on the front says why it is not.
    for (const { name, on_front, dropped } of candidatesOf(ran)) assert.equal(dropped === null, on_front, name);
  });

  test("tells of each candidate as it was tried, and of the front so far, in steps that go forward", async () => {
    const ran = await search({ ...STEADY, ...budget(3) });
    assert.deepEqual(
      triedOf(ran).map(({ candidate, stage, dropped }) => [candidate, stage, dropped]),
      ["dynamic", "weights-8-bit", "weights-4-bit"].map((name) => [name, "tried", null]),
    );
    for (const { candidate, predicted } of triedOf(ran)) {
      assert.deepEqual(predicted, named(ran, candidate as string).predicted);
    }
    const [first] = triedOf(ran);
    assert.deepEqual(first!.front, ["dynamic"]);
    const told = progressOf(ran);
    for (const [i, { fraction }] of told.entries()) assert.ok(i === 0 || fraction >= told[i - 1]!.fraction);
    const trials = told.filter(({ message }) => /\(\d\)$/.test(message));
    assert.deepEqual(
      trials.map(({ message, fraction }) => [message, Number(fraction.toFixed(4))]),
      ["dynamic (1)", "weights-8-bit (2)", "weights-4-bit (3)"].map((message, i) => [
        message,
        Number((0.02 + (i / 3) * 0.58).toFixed(4)),
      ]),
    );
    const steps = [...new Map(told.toReversed().map(({ step, fraction }) => [step, fraction]))].reverse();
    assert.deepEqual(steps, [
      ["load", 0],
      ["try", 0.02],
      ["measure", 0.6],
      ["report", 0.96],
    ]);
    assert.deepEqual(
      ran.checkpoints.map(({ name, bytes }) => {
        const { tried, measured } = JSON.parse(new TextDecoder().decode(bytes));
        return [name, tried.length, measured !== null];
      }),
      [
        ["search-auto", 1, false],
        ["search-auto", 2, false],
        ["search-auto", 3, false],
        ["search-auto", 3, true],
      ],
    );
  });

  test("is judged on samples that no trial has seen, where there are enough", async () => {
    const one = { methods: ["dynamic"], ...budget(1) };
    const judged = ({ metrics, ...ran }: Ran) => {
      const { predicted, measured } = candidatesOf({ metrics, ...ran } as Ran)[1]!;
      return [predicted!.samples, measured!.fidelity.samples, measured!.fidelity.data];
    };
    // Calibration takes a third of 400; of what it leaves, 64 are for trials.
    const calibrating = 128;
    assert.deepEqual(judged(await search(one)), [24, TRAINING - calibrating - 64, "calibration"]);
    const few = { datasets: { ...GIVEN, train: writeNpz({ ...points(60, 1) }) } };
    const small = judged(await search(one, {}, few));
    assert.deepEqual(small, [24, 60, "calibration"], "too few to divide");
    assert.deepEqual(judged(await search(one, { dataset_id: "judge" })), [24, 90, "evaluation"]);
    assert.deepEqual(judged(await search(one, { dataset_id: "judge", samples: 50 })), [24, 50, "evaluation"]);
  });

  test("tries no more than its budget has, and says what the time did not reach", async (t) => {
    const started = performance.now.bind(performance);
    let later = 0;
    t.mock.method(performance, "now", () => started() + later);
    const ran = await search(
      { ...STEADY, budget: { seconds: 20, candidates: 4 } },
      {},
      {
        onNews(it) {
          if (it.kind === "metric" && it.data.candidate === "weights-8-bit") later = 30_000;
        },
      },
    );
    t.mock.restoreAll();
    assert.deepEqual(
      candidatesOf(ran).map(({ name, stage, dropped }) => [name, stage === "planned", dropped?.code === "budget"]),
      [
        ["original", false, false],
        ["dynamic", false, false],
        ["weights-8-bit", false, false],
        ["weights-4-bit", true, true],
        ["simplify", true, true],
      ],
    );
    const { dropped, predicted, measured, sha256 } = named(ran, "simplify");
    assert.deepEqual(
      [dropped!.stage, dropped!.message, predicted, measured, sha256],
      ["planned", "The time for trials was over before its turn.", null, null, null],
    );
    assert.ok(ran.metrics.auto!.seconds > 30);
    assert.deepEqual(ran.report.next[0]!.title, "Search longer");
  });

  test("goes through two targets one after the other, each with its half of the progress", async () => {
    const ran = await search({ methods: ["dynamic"], targets: ["x64-avx2", "arm64"], ...budget(1) });
    assert.deepEqual(
      candidatesOf(ran).map(({ name, target }) => [name, target]),
      ["x64-avx2", "arm64"].flatMap((target) => ["original", "dynamic"].map((name) => [`${target}-${name}`, target])),
    );
    const told = progressOf(ran);
    const second = told.findIndex(({ message }) => message.startsWith("arm64-dynamic"));
    assert.ok(told.slice(0, second - 1).every(({ fraction }) => fraction <= 0.5));
    assert.equal(told[second]!.fraction, (1 + 0.02) / 2);
    assert.equal(told.filter(({ step }) => step === "load").length, 1, "data are read once");
    const names = ran.checkpoints.map(({ name }) => name);
    assert.deepEqual([...new Set(names)], ["search-x64-avx2", "search-arm64"]);
    const { targets } = ran.metrics.auto!;
    assert.deepEqual(
      targets.map(({ target }) => target),
      ["x64-avx2", "arm64"],
    );
    assert.ok(targets.every(({ recommendation }) => recommendation.model_id === "own"));
  });

  test("stops when it is told to", async () => {
    const stop = new AbortController();
    const stopped = search(
      { ...STEADY, ...budget(9) },
      {},
      {
        signal: stop.signal,
        onNews(it) {
          if (it.kind === "metric" && it.data.candidate === "weights-8-bit") stop.abort();
        },
      },
    );
    await assert.rejects(stopped, { code: "cancelled" });
  });

  test("what is the same model, or the original, is not tried, and what loses everything is not measured", async () => {
    // Of quality nothing is foretold: all are tried.
    const all = { objective: "metric", ...budget(40) };
    const ran = await search({ methods: ["static"], ...all });
    const everywhere = named(ran, "static-everywhere");
    if (everywhere.dropped?.code === "same_as") {
      assert.deepEqual(
        [everywhere.stage, everywhere.dropped.message, everywhere.predicted],
        ["made", "It is the same model as static.", null],
      );
    }
    const hopeless = await search({ methods: ["weight_only"], constraints: { min_sqnr_db: 10 }, ...all });
    const two = named(hopeless, "weights-2-bit-gptq");
    assert.ok(two.predicted!.sqnr_db! < 15, "2 bits lose nearly everything");
  });
});

describe("what one candidate finds others have use for", () => {
  test("ranges are found once, told of once, and not looked for where they are known", async () => {
    const params = { methods: ["static"], objective: "metric", ...budget(3) };
    const whole = await search(params);
    const ranges = whole.caches.filter(({ name }) => name === "calibration");
    assert.equal(ranges.length, 1);
    const again = await search(params, {}, { cached: { calibration: ranges[0]!.bytes } });
    assert.deepEqual(
      again.caches.filter(({ name }) => name === "calibration"),
      [],
    );
    const shaOf = (ran: Ran) => named(ran, "static-everywhere").sha256;
    assert.equal(shaOf(again), shaOf(whole));
  });

  test("a student is trained once for all candidates that begin with it, and their jobs make the same bytes", async () => {
    const params = { training: true, methods: ["distill"], ...budget(2) };
    const evaluation = { dataset_id: "judge" };
    const ran = await search(params, evaluation);
    const logs = ran.news.flatMap((it) => (it.kind === "log" && it.message.startsWith("The student has") ? [it] : []));
    assert.equal(logs.length, 1);
    const [student, int8] = ["student-half", "student-half-int8"].map((name) => named(ran, name));
    const again = await runJob(DISTILL_RUN, {
      ...optionsOf({}),
      body: { ...student!.spec, evaluation: { dataset_id: "judge", latency: { runs: 1 }, layer_errors: false } },
    });
    assert.equal(sha256Of(again.files.get("model.onnx")!), student!.sha256);
    const { steps } = int8!.spec!.params as { steps: readonly { params: Record<string, unknown> }[] };
    const quantized = await runJob(QUANTIZE_RUN, {
      ...optionsOf({}),
      models: { previous: again.model() },
      body: {
        ...{ type: "quantize", model_id: "previous", params: steps[1]!.params },
        evaluation: { dataset_id: "judge", latency: { runs: 1 }, layer_errors: false },
      },
    });
    assert.equal(int8!.predicted!.size_bytes, quantized.metrics.size.after_bytes);
  });
});

test("a plan names every candidate that would be tried with its job, in order", async () => {
  const { candidates } = await planJob(AUTO_RUN, optionsOf({ ...STEADY, ...budget(3) }));
  assert.deepEqual(
    candidates.map(({ name, spec }) => [name, (spec.params as { method: string }).method]),
    [
      ["dynamic", "dynamic"],
      ["weights-8-bit", "weight_only"],
      ["weights-4-bit", "weight_only"],
    ],
  );
  const several = await planJob(AUTO_RUN, optionsOf({ methods: ["dynamic"], targets: ["auto", "arm64"] }));
  assert.deepEqual(
    several.candidates.map(({ name }) => name),
    ["auto-dynamic", "auto-dynamic-per-tensor", "arm64-dynamic", "arm64-dynamic-per-tensor"],
  );
});
