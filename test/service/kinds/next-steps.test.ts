import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { JobMetrics } from "../../../src/core/facts.ts";
import { JobRequest } from "../../../src/service/api/job-schemas.ts";
import type { DatasetRecord, ModelRecord } from "../../../src/service/catalog.ts";
import { canonicalJson } from "../../../src/service/identity.ts";
import { afterSearch } from "../../../src/service/kinds/auto/run/next-steps.ts";
import { checkJob } from "../../../src/service/kinds/checks.ts";
import { afterTraining } from "../../../src/service/kinds/distill/run/next-steps.ts";
import { afterEvaluation } from "../../../src/service/kinds/evaluate/run/next-steps.ts";
import { type JobSpec, kindOf } from "../../../src/service/kinds/kinds.ts";
import { afterPipeline } from "../../../src/service/kinds/pipeline/run/next-steps.ts";
import type { METHODS } from "../../../src/service/kinds/quantize/run/methods.ts";
import { afterQuantization } from "../../../src/service/kinds/quantize/run/next-steps.ts";
import type { QuantizeSpec } from "../../../src/service/kinds/quantize/spec.ts";
import { requestOf } from "../../../src/service/kinds/requests.ts";
import { type Continuations, nextSteps } from "../../../src/service/kinds/run/next-steps.ts";
import { DATASET_FACTS, MODEL_FACTS } from "../../support/memory-workers.ts";
import { layerErrorFixture, metricsFixture, modelFactsFixture, outputFixture } from "../../support/metrics.ts";

const titleOf = (spec: JobSpec) => kindOf(spec).title(spec);
const specOf = (body: object) => JobRequest.parse(body) as unknown as JobSpec;

/** Jobs of every method, with more than the defaults in some of them. */
const PARAMS: Readonly<Record<keyof typeof METHODS, object>> = {
  simplify: { method: "simplify" },
  float16: { method: "float16", keep_io: false },
  dynamic: { method: "dynamic" },
  weight_only: { method: "weight_only", bits: 4, exclude_nodes: ["a"] },
  static: { method: "static", dataset_id: "dst_1", samples: 64 },
  qat: { method: "qat", dataset_id: "dst_1", bits: { weights: 2, activations: null }, training: { batch_size: 32 } },
};
const quantize = (params: object, more: object = {}) =>
  specOf({ type: "quantize", model_id: "mdl_1", params, ...more }) as QuantizeSpec;
const distill = (more: object = {}) =>
  specOf({
    type: "distill",
    params: {
      mode: "offline",
      teacher_model_id: "mdl_t",
      dataset_id: "dst_1",
      student: { derive: { width: 0.5 } },
      ...more,
    },
  });

const poor: Partial<JobMetrics> = {
  fidelity: { samples: 32, data: "evaluation", outputs: [outputFixture({ sqnr_db: 8, top1_agreement: 0.7 })] },
};
const good: Partial<JobMetrics> = { fidelity: { samples: 32, data: "evaluation", outputs: [outputFixture()] } };
const layerErrors = ["l1", "l2", "l3", "l4"].map((node, i) => layerErrorFixture(node, 40 - 9 * i));

/** Records of every model and dataset that steps name. */
function stored(isLabelled: boolean) {
  const facts = { ...DATASET_FACTS, samples: 100, has_labels: isLabelled };
  const datasets = ["dst_1", "dst_e", "dst_YOUR_DATASET"].map((id) => [id, { id, facts } as DatasetRecord] as const);
  const models = ["mdl_1", "mdl_t"].map((id) => [id, { id, facts: MODEL_FACTS } as ModelRecord] as const);
  return { models: new Map(models), datasets: new Map(datasets) };
}

function continuationsOf(spec: JobSpec, isLabelled: boolean): Continuations {
  if (spec.type === "quantize") return afterQuantization(spec);
  if (spec.type === "distill") return afterTraining(spec, isLabelled);
  if (spec.type === "pipeline") return afterPipeline(spec);
  return spec.type === "auto" ? afterSearch(spec) : afterEvaluation(spec);
}

function stepsAfter(
  spec: JobSpec,
  metrics: Partial<JobMetrics>,
  operators: Record<string, number> = { Conv: 3 },
  isLabelled = true,
) {
  const facts = modelFactsFixture({ operators });
  return nextSteps(spec, { metrics: metricsFixture(metrics), layerErrors, facts }, continuationsOf(spec, isLabelled));
}

/** The steps after a job, each of which the API takes when it is posted. */
function acceptedAfter(spec: JobSpec, metrics: Partial<JobMetrics>, isLabelled: boolean) {
  const steps = stepsAfter(spec, metrics, { Conv: 3 }, isLabelled);
  for (const { title, job } of steps) {
    assert.deepEqual(checkJob(specOf(job), stored(isLabelled)), [], title);
  }
  return steps.map(({ title }) => title);
}

describe("next steps", () => {
  for (const [method, params] of Object.entries(PARAMS)) {
    test(`${method}: every step is a job that can be posted, and another one than this`, () => {
      const spec = quantize(params, { evaluation: { dataset_id: "dst_e", latency: { runs: 7 } } });
      for (const metrics of [poor, good, {}]) {
        for (const { title, why, job } of stepsAfter(spec, metrics)) {
          assert.ok(title.length > 5 && why.length > 5);
          const parsed = JobRequest.safeParse(job);
          assert.ok(parsed.success, `${title}: ${parsed.error?.message}`);
          assert.notEqual(canonicalJson(parsed.data), canonicalJson(JobRequest.parse(requestOf(spec))), title);
        }
      }
    });
  }

  test("every step is a job that is accepted for such models and data, with labels and without", () => {
    const evaluation = { dataset_id: "dst_e" };
    const training = { history: [], best_epoch: 1, metric: "teacher_mse", teacher_metric: 0 } as never;
    for (const isLabelled of [true, false]) {
      for (const metrics of [poor, good, {}]) {
        for (const params of Object.values(PARAMS)) {
          acceptedAfter(quantize({ ...params, exclude_nodes: [] }, { evaluation }), metrics, isLabelled);
        }
        const loss = { label_weight: isLabelled ? 0.1 : 0 };
        const titles = acceptedAfter(distill({ loss }), { ...metrics, training }, isLabelled);
        assert.equal(titles.includes("Measure what the teacher adds"), isLabelled);
        acceptedAfter(specOf({ type: "evaluate", params: { model_ids: ["mdl_1"] }, evaluation }), metrics, isLabelled);
      }
    }
  });

  test("a poor result of 4 bits is answered by GPTQ, 8 bits and the worst layers", () => {
    const steps = stepsAfter(quantize(PARAMS.weight_only), poor);
    const jobs = steps.map(({ job }) => job.params as Record<string, unknown>);
    assert.equal(jobs[0]!.rounding ?? jobs[0]!.algorithm, "gptq");
    assert.equal(jobs[1]!.bits, 8);
    assert.deepEqual(jobs.find(({ exclude_nodes }) => (exclude_nodes as string[]).length > 1)!.exclude_nodes, [
      "a",
      "l4",
      "l3",
      "l2",
    ]);
  });

  test("a poor result of what looks at samples is answered by four times as many, as many as there may be", () => {
    for (const params of [{ method: "weight_only", bits: 4, rounding: "gptq", dataset_id: "dst_1" }, PARAMS.static]) {
      for (const [samples, more] of [
        [50, 200],
        [30_000, 100_000],
      ]) {
        const steps = stepsAfter(quantize({ ...params, samples }), poor);
        const step = steps.find(({ title }) => /more samples/i.test(title));
        assert.equal((step!.job.params as { samples: number }).samples, more);
      }
    }
  });

  test("a poor result of 8-bit activations is answered by weights alone, which stay in float otherwise", () => {
    for (const method of ["dynamic", "static"] as const) {
      const steps = stepsAfter(quantize(PARAMS[method]), poor);
      const step = steps.find(({ title }) => /weight_only/.test(title));
      assert.deepEqual(step!.job.params, { method: "weight_only", bits: 8 });
    }
  });

  test("what was compared on random inputs is to be judged on data", () => {
    const step = stepsAfter(quantize(PARAMS.float16), {}).find(({ title }) => /own data/.test(title));
    assert.deepEqual(step?.job.evaluation, { dataset_id: "dst_YOUR_DATASET" });
  });

  test("a result that is not faster is answered by integer kernels that suit the model", () => {
    const slow = { ...good, latency: { ...metricsFixture().latency, speedup: 0.9 } };
    const methods = (operators: Record<string, number>) =>
      stepsAfter(quantize(PARAMS.weight_only), slow, operators).map(
        ({ job }) => (job.params as { method: string }).method,
      );
    assert.deepEqual(methods({ Conv: 3 }).slice(0, 1), ["static"]);
    assert.ok(methods({ MatMul: 3 }).includes("dynamic"));
    const faster = (params: object, metrics: Partial<JobMetrics>) =>
      stepsAfter(quantize(params), metrics).filter(({ title }) => title.startsWith("Faster")).length;
    assert.equal(faster(PARAMS.weight_only, { ...slow, latency: { ...slow.latency, speedup: 2 } }), 0, "it is fast");
    assert.equal(faster(PARAMS.static, slow), 0, "it runs on integer kernels");
  });

  test("after a distillation: the baseline, more epochs, the student compressed; a weak student is trained first", () => {
    const training = {
      history: [{ epoch: 1, loss: 1, losses: {}, validation_metric: 0.5, learning_rate: 0.01, samples_per_second: 1 }],
      best_epoch: 1,
      metric: "top1",
      metric_samples: 100,
      teacher_metric: 0.9,
      student_before_metric: 0.1,
      student_metric: 0.89,
      ...{ baseline_metric: null, baseline_history: null, samples_per_second: 1 },
      ...{ networks: [], chosen: "student", ensemble_metric: null },
    };
    const steps = stepsAfter(distill(), { ...good, training });
    assert.deepEqual(
      steps.map(({ job }) => job.type),
      ["distill", "distill", "pipeline"],
    );
    assert.equal((steps[0]!.job.params as { baseline: boolean }).baseline, true);
    for (const { job } of steps) assert.ok(JobRequest.safeParse(job).success, JSON.stringify(job));
    const weak = stepsAfter(distill({ baseline: true }), { ...poor, training });
    assert.deepEqual(
      weak.map(({ title }) => title),
      ["Train longer: 30 epochs"],
    );
  });

  const missing = [{ name: "max_size_ratio", limit: 0.2, value: 0.27, ok: false }];
  const auto = (params: object) =>
    specOf({
      type: "auto",
      model_id: "mdl_1",
      params: { dataset_id: "dst_1", ...params },
      evaluation: { dataset_id: "dst_e" },
    });
  const isPostable = ({ job }: { readonly job: object }) => JobRequest.safeParse(job).success;

  test("after a search that found nothing: longer where time was short, all methods, training; nothing after one that did", () => {
    const spec = auto({ budget: { seconds: 60 } });
    const found = searchFixture([]);
    assert.deepEqual(stepsAfter(spec, { ...good, auto: found }), []);
    const cut = stepsAfter(spec, { ...good, auto: searchFixture(["budget", "budget"]), acceptance: missing });
    assert.deepEqual(
      cut.map(({ job }) => job.params),
      [
        { dataset_id: "dst_1", budget: { seconds: 180 } },
        { dataset_id: "dst_1", training: true, budget: { seconds: 3600 } },
      ],
    );
    assert.match(cut[0]!.why, /2 candidates were tried/);
    assert.ok(cut.every(isPostable));
    const narrow = stepsAfter(auto({ methods: ["float16"] }), { ...good, auto: found, acceptance: missing });
    assert.deepEqual(
      narrow.map(({ job }) => job.params),
      [{ dataset_id: "dst_1" }],
    );
    assert.deepEqual(stepsAfter(auto({ training: true }), { ...good, auto: found, acceptance: missing }), []);
  });

  test("after an evaluation: a search, by the same limits, where no model is good enough or there is one alone", () => {
    const evaluate = (model_ids: string[]) =>
      specOf({
        type: "evaluate",
        params: { model_ids },
        evaluation: { dataset_id: "dst_e" },
        acceptance: { max_size_ratio: 0.2 },
      });
    assert.deepEqual(stepsAfter(evaluate(["mdl_1", "mdl_2"]), good), []);
    const searches = [
      ...stepsAfter(evaluate(["mdl_1", "mdl_2"]), { ...good, acceptance: missing }),
      ...stepsAfter(evaluate(["mdl_1", "mdl_2"]), poor),
      ...stepsAfter(evaluate(["mdl_1"]), good),
    ];
    assert.equal(searches.length, 3);
    for (const { job } of searches) {
      assert.deepEqual(job, {
        type: "auto",
        model_id: "mdl_1",
        params: { dataset_id: "dst_YOUR_DATASET", constraints: { max_size_ratio: 0.2 } },
        evaluation: { dataset_id: "dst_e" },
      });
    }
    assert.ok(searches.every(isPostable));
    const coverage = { ...metricsFixture().coverage, quantized_nodes: 5 };
    assert.deepEqual(stepsAfter(evaluate(["mdl_1"]), { ...good, coverage }), [], "it is in 8 bits already");
  });
});

/** What a search says that dropped candidates for these reasons. */
function searchFixture(dropped: readonly "budget"[]): JobMetrics["auto"] {
  return {
    candidates: dropped.map((code, i) => ({
      ...{ name: `candidate ${i}`, spec: null, model_id: null, sha256: null, stage: "planned", predicted: null },
      ...{ target: "auto", deployment: null, measured: null, on_front: false, recommended: false },
      dropped: { stage: "planned", code, message: "The time for trials was over before its turn." },
    })),
    recommendation: { candidate: "original", model_id: "mdl_1", why: "Nothing is better.", next_better: null },
    ...{ constraints: [], targets: [] },
    seconds: 60,
  };
}

describe("requests", () => {
  for (const [name, body] of Object.entries({
    ...PARAMS,
    defaults: { method: "weight_only" },
    nested: { method: "qat", dataset_id: "dst_1", training: { epochs: 7 } },
  })) {
    test(`${name}: the short form asks for the same job`, () => {
      const spec = quantize(body, { evaluation: { samples: 3 }, acceptance: { min_speedup: 2 } });
      const short = requestOf(spec);
      assert.equal(canonicalJson(JobRequest.parse(short)), canonicalJson(JobRequest.parse(spec)));
      assert.ok(JSON.stringify(short).length < 0.7 * JSON.stringify(spec).length);
    });
  }

  test("nothing but what differs from the defaults is left", () => {
    assert.deepEqual(requestOf(quantize({ method: "weight_only", bits: 4, block_size: 32 })), {
      type: "quantize",
      model_id: "mdl_1",
      params: { method: "weight_only" },
    });
  });
});

test("titles say the method with its bits in words", () => {
  assert.equal(titleOf(quantize(PARAMS.weight_only)), "4-bit weights in blocks of 32");
  assert.match(titleOf(quantize({ ...PARAMS.weight_only, algorithm: "gptq", dataset_id: "d" })), /rounded by GPTQ/);
  assert.match(titleOf(quantize(PARAMS.qat)), /2-bit weights$/);
  assert.match(titleOf(distill()), /student with 50 % of its width/);
});
