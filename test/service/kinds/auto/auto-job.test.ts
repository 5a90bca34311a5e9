import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { AUTO_RUN } from "../../../../src/service/kinds/auto/run/auto-job.ts";
import { QUANTIZE_RUN } from "../../../../src/service/kinds/quantize/run/quantize-job.ts";
import { writeNpz } from "../../../support/dataset-writers.ts";
import { planJob, type Ran, runJob } from "../../../support/job-run.ts";
import { points } from "../../../support/points.ts";
import {
  ALL,
  budget,
  candidatesOf,
  GIVEN,
  named,
  optionsOf,
  progressOf,
  STEADY,
  search,
  sha256Of,
  TRAINING,
  triedOf,
} from "../../../support/searches.ts";

/** Whole searches in this process: what is tried, on what, and what is told of it. */

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
    const one = { ...ALL, methods: ["dynamic"], ...budget(1) };
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
    const ran = await search({ ...ALL, methods: ["dynamic"], targets: ["x64-avx2", "arm64"], ...budget(1) });
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
