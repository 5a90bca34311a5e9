import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { BrokenModel, CoreError } from "../../../../src/core/index.ts";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../../src/core/onnx/save.ts";
import { floatsOf } from "../../../../src/core/onnx/tensor.ts";
import { EVALUATE_RUN } from "../../../../src/service/kinds/evaluate/run/evaluate-job.ts";
import { QUANTIZE_RUN } from "../../../../src/service/kinds/quantize/run/quantize-job.ts";
import type { JobEnvironment } from "../../../../src/service/kinds/run/job-environment.ts";
import { type JobOptions, NO_PEAK, planJob, runJob } from "../../../support/job-run.ts";
import { runModel, sqnrDb } from "../../../support/open-model.ts";
import { DATASETS, JUDGING, network, parametersOf, scoreOf } from "../../../support/points.ts";

/** Evaluations in this process: what they say of each model is computed once more. */

const MODELS = { one: network(16, 1), two: network(6, 2), three: network(4, 3) };

const optionsOf = (params: object, more: Partial<JobOptions> & { readonly body?: object } = {}): JobOptions => {
  const { body, ...rest } = more;
  return {
    body: {
      ...{ type: "evaluate", params: { model_ids: ["one", "two", "three"], ...params } },
      evaluation: { dataset_id: "judge", latency: { runs: 2 } },
      ...body,
    },
    ...{ models: MODELS, datasets: DATASETS, environment: NO_PEAK, ...rest },
  };
};
const run = (...given: Parameters<typeof optionsOf>) => runJob(EVALUATE_RUN, optionsOf(...given));

test("each model is held against the first, with its own numbers", async () => {
  const { metrics, outcome, report, news } = await run({});
  const models = metrics.models!;
  assert.deepEqual(
    models.map(({ model_id, parameters }) => [model_id, parameters]),
    [
      ["one", parametersOf(16)],
      ["two", parametersOf(6)],
      ["three", parametersOf(4)],
    ],
  );
  const reference = await scoreOf(MODELS.one);
  const { logits } = await runModel(MODELS.one, { x: JUDGING.x });
  for (const { model_id, accuracy, size, fidelity, memory } of models) {
    const model = MODELS[model_id as keyof typeof MODELS];
    assert.deepEqual([accuracy!.before, accuracy!.after], [reference, await scoreOf(model)], model_id);
    assert.deepEqual(
      [size.before_bytes, size.after_bytes],
      [modelToBytes(MODELS.one).length, modelToBytes(model).length],
    );
    assert.deepEqual([fidelity.samples, fidelity.data, memory.after_peak_bytes], [90, "evaluation", 3_000_000]);
    const [output] = fidelity.outputs;
    if (model_id === "one") assert.equal(output, undefined, "it is compared with nothing");
    else {
      const expected = sqnrDb({ logits: logits! }, { logits: (await runModel(model, { x: JUDGING.x })).logits! });
      assert.ok(Math.abs(output!.sqnr_db! - expected) < 1e-3, `${output!.sqnr_db} ${expected}`);
    }
  }
  assert.deepEqual(
    [metrics.size, metrics.accuracy],
    [models[1]!.size, models[1]!.accuracy],
    "of the first that is held against it",
  );
  assert.deepEqual([outcome.model, outcome.accepted, outcome.facts.parameters], [[], true, parametersOf(16)]);
  assert.deepEqual(
    [report.models.before.parameters, report.models.after.parameters],
    [parametersOf(16), parametersOf(6)],
  );
  assert.deepEqual([report.origins.before.id, report.origins.after], ["one", null]);
  const steps = news.flatMap((it) => (it.kind === "progress" ? [it.progress] : []));
  const first = [...new Map(steps.toReversed().map(({ step, fraction }) => [step, fraction]))].reverse();
  assert.deepEqual(first, Object.entries({ load: 0, evaluate: 0.02, report: 0.98 }));
});

test("one model alone is measured by itself", async () => {
  const { metrics, report } = await run({ model_ids: ["two"] });
  assert.deepEqual(
    metrics.models!.map(({ model_id }) => model_id),
    ["two"],
  );
  assert.equal(metrics.accuracy!.after, await scoreOf(MODELS.two));
  assert.equal(report.models.after.parameters, parametersOf(6));
  assert.deepEqual([report.title, metrics.acceptance], ["measured by itself", []]);
});

test("latency is measured with every batch size and every number of threads", async () => {
  const { metrics } = await run({ model_ids: ["one", "two"], batch_sizes: [1, 8], threads: [1, 2] });
  for (const { latencies, latency } of metrics.models!) {
    assert.deepEqual(
      latencies.map(({ batch_size, threads, runs }) => [batch_size, threads, runs]),
      [
        [1, 1, 2],
        [1, 2, 2],
        [8, 1, 2],
        [8, 2, 2],
      ],
    );
    assert.deepEqual(latency, latencies[0]);
  }
  const planned = await planJob(EVALUATE_RUN, optionsOf({ model_ids: ["one"], batch_sizes: [4] }));
  assert.deepEqual(planned.loads, [{ batch_size: 4, threads: 1 }]);
  assert.deepEqual(planned.models, [
    { model_id: "one", size_bytes: modelToBytes(MODELS.one).length, parameters: parametersOf(16) },
  ]);
});

test("limits are for what is held against the reference, and not for the reference", async () => {
  const { metrics, outcome } = await run({}, { body: { acceptance: { max_size_ratio: 0.55 } } });
  const held = metrics.models!.map(({ acceptance }) => acceptance.map(({ ok }) => ok));
  const ratio = (model: Model) => modelToBytes(model).length / modelToBytes(MODELS.one).length;
  assert.deepEqual(held, [[], [ratio(MODELS.two) <= 0.55], [ratio(MODELS.three) <= 0.55]]);
  assert.equal(outcome.accepted, held.flat().every(Boolean));
  const { outcome: refused } = await run({}, { body: { acceptance: { max_size_ratio: 0.01 } } });
  assert.equal(refused.accepted, false);
});

test("of float16 it shows what rounding really loses, and of 8 bits what computes in them", async () => {
  const made = async (params: object) =>
    (
      await runJob(QUANTIZE_RUN, {
        body: { type: "quantize", model_id: "one", params, evaluation: { latency: { runs: 1 } } },
        ...{ models: MODELS, environment: NO_PEAK },
      })
    ).model();
  const models = { one: MODELS.one, half: await made({ method: "float16" }), eight: await made({ method: "dynamic" }) };
  const { metrics } = await run({ model_ids: ["one", "half"] }, { models });
  const [output] = metrics.models![1]!.fidelity.outputs;
  // Each number keeps 2^-12 of itself, a few times over.
  assert.ok(output!.sqnr_db! > 55 && output!.sqnr_db! < 75, `${output!.sqnr_db} dB`);
  const quantized = await run({ model_ids: ["one", "eight"] }, { models });
  assert.ok(quantized.metrics.coverage.quantized_nodes > 0);
  assert.equal(metrics.coverage.quantized_nodes, 0);
  assert.ok(floatsOf((await runModel(models.eight, { x: JUDGING.x })).logits!).every(Number.isFinite));
});

describe("a model that fails is named", () => {
  const failing = (fails: (path: string) => unknown): Partial<JobEnvironment> => ({
    measurePeak: async (request) => {
      const error = fails(request.modelPath);
      if (error) throw error;
      return { peakBytes: 1, baselineBytes: 0 };
    },
  });
  const ofTwo = (error: unknown) => failing((path) => (path.includes("two") ? error : undefined));

  test("with what went wrong, as a fault of the model", async () => {
    for (const [error, code] of [
      [new BrokenModel("It crashed (SIGSEGV)."), "invalid_model"],
      [new CoreError("internal", "No reason."), "invalid_model"],
      [new CoreError("limit_exceeded", "Too large."), "limit_exceeded"],
    ] as const) {
      await assert.rejects(run({}, { environment: ofTwo(error) }), (thrown) => {
        assert.ok(thrown instanceof CoreError);
        assert.equal(thrown.code, code);
        assert.match(thrown.message, /^two: /);
        return true;
      });
    }
  });

  test("when it is planned, too; and what is cancelled is cancelled", async () => {
    const openSession: JobEnvironment["openSession"] = async () => {
      throw new CoreError("invalid_model", "It does not load.");
    };
    const planned = planJob(EVALUATE_RUN, optionsOf({}, { environment: { ...NO_PEAK, openSession } }));
    await assert.rejects(planned, { code: "invalid_model", message: /^one: It does not load/ });
    await assert.rejects(run({}, { environment: ofTwo(new CoreError("cancelled", "Stopped.")) }), {
      code: "cancelled",
    });
  });
});
