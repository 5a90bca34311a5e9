import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { DISTILL_RUN } from "../../../../src/service/kinds/distill/run/distill-job.ts";
import { QUANTIZE_RUN } from "../../../../src/service/kinds/quantize/run/quantize-job.ts";
import type { JobEnvironment } from "../../../../src/service/kinds/run/job-environment.ts";
import { ENVIRONMENT } from "../../../../workers/tasks.ts";
import { NO_PEAK, type Ran, runJob } from "../../../support/job-run.ts";
import { ALL, budget, candidatesOf, named, optionsOf, search, sha256Of, triedOf } from "../../../support/searches.ts";

/** The order in which a search tries its candidates, and what one of them finds that others have use for. */

/** Of a search without training, in the order of its catalogue: what is likely to be good first, then what only varies it. */
const MAINS = [
  ...["static", "dynamic", "weights-8-bit", "weights-4-bit", "simplify"],
  ...["float16", "static-everywhere", "weights-8-bit-qdq", "weights-4-bit-gptq", "weights-4-bit-qdq"],
];
const VARIATIONS = [
  ...["static-minmax", "static-percentile", "static-entropy", "static-gptq", "static-per-tensor"],
  ...["weights-4-bit-blocks-of-128", "weights-4-bit-gptq-qdq", "weights-2-bit-gptq", "dynamic-per-tensor"],
  ...["static-adaround", "weights-4-bit-adaround"],
];

/** For another machine than the one at hand: which layers are faster in float is not measured, so that nothing depends on how fast anything is. */
const ELSEWHERE = { targets: ["x64-vnni"] };
const FEW = { samples: 24, latency: { runs: 1 } };
const environment = { ...NO_PEAK, host: { ...ENVIRONMENT.host, target: "arm64" as const } };

describe("the order of trials", () => {
  /** What was tried, with one entry for all of mixed precision that follow each other. */
  const orderOf = (ran: Ran) =>
    triedOf(ran)
      .map(({ candidate }) => (candidate as string).replace(/^mixed-.*/, "mixed"))
      .filter((name, i, all) => name !== "mixed" || all[i - 1] !== "mixed");

  test("without a limit of quality: what is likely to be good, then mixed precision, then what only varies the rest", async () => {
    const ran = await search({ ...ALL, ...ELSEWHERE, ...budget(40) }, FEW, { environment });
    assert.deepEqual(orderOf(ran), [...MAINS, "mixed", ...VARIATIONS]);
    const everywhere = named(ran, "static-everywhere");
    assert.deepEqual(
      [everywhere.stage, everywhere.dropped!.code, everywhere.dropped!.message, everywhere.predicted],
      ["made", "same_as", "It is the same model as static.", null],
    );
    // No more than eight are measured; each of the others says why not.
    const measured = candidatesOf(ran).filter(({ stage, name }) => stage === "measured" && name !== "original");
    assert.ok(measured.length >= 2 && measured.length <= 8, `${measured.length}`);
    for (const { name, stage, dropped } of candidatesOf(ran)) {
      if (stage === "tried") assert.ok(["outranked", "hopeless"].includes(dropped!.code), name);
    }
  });

  test("where plain static misses a limit: rounding with more care, if that may do, mixed precision, then what keeps to the limit", async () => {
    // Static has 34.5 dB on this model, and with exact weights it would have the limit.
    const ran = await search({ ...ALL, ...ELSEWHERE, ...budget(15), constraints: { min_sqnr_db: 34.5 } }, FEW, {
      environment,
    });
    const [early, late] = [MAINS.slice(0, 5), MAINS.slice(5)];
    const order = orderOf(ran);
    const expected = [...early, "static-gptq", "mixed", "static-held-sqnr", ...late, ...VARIATIONS];
    assert.deepEqual(order, expected.slice(0, order.length));
    assert.ok(order.length > 9, "up to what comes behind");
    const { recommendation } = ran.metrics.auto!;
    assert.ok(
      named(ran, recommendation.candidate).measured!.fidelity.outputs.every(({ sqnr_db }) => (sqnr_db ?? 200) >= 34.5),
    );
  });

  test("where no care can do, mixed precision is next, and a search of one method has no others", async () => {
    const ran = await search(
      { ...ALL, ...ELSEWHERE, methods: ["static"], ...budget(6), constraints: { min_sqnr_db: 60 } },
      FEW,
      { environment },
    );
    assert.deepEqual(orderOf(ran).slice(0, 3), ["static", "mixed", "static-held-sqnr"]);
    assert.equal(triedOf(ran).length, 6);
    // The job of the one that keeps to the limit names the layers that were found to stay in float, and asks for nothing more.
    const held = named(ran, "static-held-sqnr");
    const { min_sqnr_db, layers } = held.spec!.params as {
      readonly min_sqnr_db: unknown;
      readonly layers: Readonly<Record<string, string>>;
    };
    assert.equal(min_sqnr_db, null);
    assert.ok(Object.keys(layers).length > 0);
    const again = await runJob(QUANTIZE_RUN, {
      ...optionsOf({}, {}, { environment }),
      body: { ...held.spec, evaluation: { latency: { runs: 1 }, samples: 2 } },
    });
    assert.equal(sha256Of(again.files.get("model.onnx")!), held.sha256);
  });
});

test("what runs in its trial and fails when it is measured in full is dropped then, with the reason", async () => {
  const measuredRuns = 3;
  const elsewhere: JobEnvironment["elsewhere"] = {
    "onnxruntime-web": async ({ runs }) =>
      runs === measuredRuns
        ? { failure: "no memory" }
        : {
            ...{ runtime: "onnxruntime-web", threads: 1, loadMs: 1, outputs: {} },
            ...{ beforeMs: [8, 8, 8], afterMs: [2, 2, 2] },
          },
  };
  const params = { ...ALL, methods: ["weight_only"], targets: ["web"], ...budget(2) };
  const ran = await search(params, { latency: { runs: measuredRuns } }, { environment: { ...NO_PEAK, elsewhere } });
  const [original, ...others] = candidatesOf(ran);
  assert.ok(others.length === 2);
  for (const { name, dropped, predicted, measured, on_front } of others) {
    assert.equal(predicted!.speedup, 4, name);
    assert.ok(measured !== null && !on_front, name);
    assert.deepEqual(
      [dropped!.stage, dropped!.code, dropped!.message],
      ["measured", "target_does_not_run", "onnxruntime-web does not run the result: no memory"],
      name,
    );
  }
  assert.deepEqual([original!.name, original!.on_front, original!.dropped], ["original", true, null]);
  assert.equal(ran.metrics.auto!.recommendation.candidate, "original");
});

describe("what one candidate finds others have use for", () => {
  test("ranges are found once, told of once, and not looked for where they are known", async () => {
    const params = { ...ALL, methods: ["static"], ...budget(3) };
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
