import assert from "node:assert/strict";
import { test } from "node:test";
import { verdictOf } from "../../../src/core/evaluate/verdict.ts";
import type { JobMetrics, OutputFidelity } from "../../../src/core/facts.ts";
import { outputFixture } from "../../support/metrics.ts";

const on = (data: JobMetrics["fidelity"]["data"], ...outputs: Partial<OutputFidelity>[]) => ({
  samples: 100,
  data,
  outputs: outputs.map(outputFixture),
});
const grade = (fidelity: JobMetrics["fidelity"], accuracy: JobMetrics["accuracy"] = null) =>
  verdictOf({ fidelity, accuracy }).grade;
const NO_INTERVALS = { interval: null, before_interval: null, after_interval: null };
const top1 = (drop: number) => ({
  metric: "top1" as const,
  before: 0.9,
  after: 0.9 - drop,
  drop,
  samples: 100,
  ...NO_INTERVALS,
});

test("labels decide first, then equal answers, then the error of outputs", () => {
  const outputs = on("evaluation", { sqnr_db: 6, top1_agreement: 0.97 });
  assert.equal(grade(outputs), "close");
  assert.equal(grade(outputs, top1(0.001)), "very_close");
  assert.equal(grade(outputs, top1(0.02)), "close");
  assert.equal(grade(outputs, top1(0.05)), "check_accuracy");
  assert.equal(grade(outputs, top1(0.5)), "broken");
  assert.equal(grade(on("calibration", { sqnr_db: 25, top1_agreement: null })), "close");
  assert.equal(grade(on("evaluation", { sqnr_db: null, top1_agreement: null })), "very_close");
  assert.match(
    verdictOf({ fidelity: outputs, accuracy: top1(0.05) }).reason,
    /top1 went from 90 % to 85 % on 100 samples/,
  );
});

test("outputs that are next to 0 in both models tell nothing", () => {
  const blank = { sqnr_db: 0.5, top1_agreement: null, max_value: 1e-7, max_abs_error: 1e-7 };
  const { grade: alone, reason } = verdictOf({ fidelity: on("evaluation", blank), accuracy: null });
  assert.deepEqual(
    [alone, reason],
    ["not_judged", "The original answers nothing, or next to 0, on all of 100 samples."],
  );
  assert.equal(grade(on("synthetic", blank)), "not_judged");
  const same = { ...blank, sqnr_db: null, max_abs_error: 0 };
  assert.equal(grade(on("evaluation", same)), "not_judged", "the same nothing");
  assert.equal(grade(on("evaluation", { ...same, min_value: null, max_value: null })), "not_judged", "NaN everywhere");
  assert.equal(grade(on("evaluation", blank), top1(0.05)), "check_accuracy");
  assert.equal(grade(on("evaluation", blank, { sqnr_db: 25, top1_agreement: null })), "close");
  assert.equal(grade(on("evaluation", { ...blank, max_abs_error: 0.9 })), "broken", "one of them finds something");
  assert.equal(grade(on("evaluation", { ...blank, min_value: -1e-7 })), "broken", "its numbers are small");
});

test("the worst output decides", () => {
  assert.equal(grade(on("evaluation", { top1_agreement: 1 }, { top1_agreement: 0.6 })), "check_accuracy");
  assert.equal(
    grade(on("evaluation", { top1_agreement: null, sqnr_db: 60 }, { top1_agreement: null, sqnr_db: 1 })),
    "broken",
  );
});

test("errors are better when they are smaller", () => {
  const mse = (before: number, after: number) => ({
    metric: "mse" as const,
    before,
    after,
    drop: after - before,
    samples: 9,
    ...NO_INTERVALS,
  });
  const outputs = on("evaluation", {});
  assert.equal(grade(outputs, mse(1, 0.5)), "very_close");
  assert.equal(grade(outputs, mse(1, 1.05)), "close");
  assert.equal(grade(outputs, mse(1, 1.5)), "check_accuracy");
  assert.equal(grade(outputs, mse(1, 4)), "broken");
});

test("synthetic inputs tell nothing but breakage", () => {
  assert.equal(grade(on("synthetic", { sqnr_db: 60, top1_agreement: 1 })), "not_judged");
  assert.equal(grade(on("synthetic", { sqnr_db: 1 })), "broken");
  assert.equal(grade(on("synthetic", { non_finite: 2 })), "broken");
  assert.equal(grade({ samples: 1, data: "evaluation", outputs: [] }), "not_judged");
});

test("a search that recommends the original has changed nothing", () => {
  const named = (name: string, spec: object | null) => ({ name, spec });
  const auto = (candidate: string) =>
    ({
      candidates: [named("original", null), named("static", {})],
      recommendation: { candidate },
    }) as unknown as JobMetrics["auto"];
  const fidelity = { samples: 64, data: "evaluation" as const, outputs: [] };
  assert.deepEqual(verdictOf({ fidelity, accuracy: null, auto: auto("original") }), {
    grade: "very_close",
    reason: "It is the original.",
  });
  const noisy = on("evaluation", { sqnr_db: 6, top1_agreement: 0.97 });
  assert.equal(verdictOf({ fidelity: noisy, accuracy: null, auto: auto("static") }).grade, "close");
});
