import assert from "node:assert/strict";
import { test } from "node:test";
import { JobRequest } from "../../../src/service/api/job-schemas.ts";
import { unreadOf } from "../../../src/service/kinds/checks.ts";

const QUANTIZE = { type: "quantize", model_id: "mdl_1" };
const STATIC = { method: "static", dataset_id: "dst_1" };
const WEIGHTS = { method: "weight_only" };
const QAT = { method: "qat", dataset_id: "dst_1" };
const OFFLINE = { mode: "offline", dataset_id: "dst_1", teacher_model_id: "mdl_2", student: { model_id: "mdl_1" } };
const ONLINE = { mode: "online", dataset_id: "dst_1", student: { model_id: "mdl_1" } };
const SELF = { mode: "self", dataset_id: "dst_1", student: { model_id: "mdl_1" } };

type Params = Readonly<Record<string, unknown>>;

function requestOf(params: Params): Params {
  return "mode" in params ? { type: "distill", params } : { ...QUANTIZE, params };
}

/** What is refused of parameters that parse. */
function refused(params: Params) {
  const { type, params: parsed, ...rest } = JobRequest.parse(requestOf(params));
  return unreadOf({ type, params: parsed, ...rest } as never, params);
}

/** Parameters that have no effect, what they are named by, and the same where they have one. */
const CASES: readonly (readonly [Params, string, Params])[] = [
  [{ ...STATIC, calibration: "minmax", percentile: 99 }, "percentile", { calibration: "percentile" }],
  [{ ...STATIC, percentile: 99 }, "percentile", { calibration: "percentile" }],
  [{ ...STATIC, min_sqnr_db: null, max_trials: 5 }, "max_trials", { min_sqnr_db: "auto" }],
  [{ ...STATIC, min_sqnr_db: null, max_trials: 5 }, "max_trials", { max_metric_drop: 0.1 }],
  [{ ...WEIGHTS, samples: 5 }, "samples", { rounding: "gptq", dataset_id: "dst_1" }],
  [{ ...WEIGHTS, format: "qdq", accuracy_level: 1 }, "accuracy_level", { format: "matmulnbits" }],
  [{ ...QAT, percentile: 99 }, "percentile", { calibration: "percentile" }],
  [{ ...QAT, bits: { activations: null }, calibration: "minmax" }, "calibration", { bits: {} }],
  [{ ...QAT, bits: { activations: null }, samples: 5 }, "samples", { bits: { activations: 4 } }],
  [{ ...QAT, bits: { activations: null }, target: "arm64" }, "target", { bits: {} }],
  [{ ...QAT, epochs: 4, training: { epochs: 5 } }, "training.epochs", { epochs: 5 }],
  [{ ...QAT, epochs: 4, training: { epochs: 5 } }, "training.epochs", { epochs: null }],
  [{ ...QAT, teacher: "mdl_2", loss: { kl_weight: 0, label_weight: 1 } }, "teacher", { teacher: null }],
  [{ ...QAT, teacher: "mdl_2", loss: { kl_weight: 0, label_weight: 1 } }, "teacher", { loss: { kl_weight: 0.1 } }],
  [{ ...QAT, loss: { output_loss: "mse", temperature: 2 } }, "loss.temperature", { loss: { temperature: 2 } }],
  [{ ...OFFLINE, loss: { output_loss: "huber", temperature: 2 } }, "loss.temperature", { loss: { temperature: 2 } }],
  [{ ...OFFLINE, loss: { alpha: 2 } }, "loss.alpha", { loss: { output_loss: "dkd", alpha: 2 } }],
  [{ ...OFFLINE, loss: { beta: 2 } }, "loss.beta", { loss: { output_loss: "dkd", beta: 2 } }],
  [{ ...OFFLINE, loss: { kl_weight: 0, output_loss: "mse" } }, "loss.output_loss", { loss: { output_loss: "mse" } }],
  [
    { ...OFFLINE, loss: { label_weight: 0, label_smoothing: 0.1 } },
    "loss.label_smoothing",
    { loss: { label_smoothing: 0.1 } },
  ],
  [
    { ...OFFLINE, training: { validation_split: 0, patience: 3 } },
    "training.patience",
    { training: { validation_split: 0.1, patience: 3 } },
  ],
  [
    { ...ONLINE, loss: { output_loss: "cosine", temperature: 2 } },
    "loss.temperature",
    { loss: { output_loss: "kl", temperature: 2 } },
  ],
  [
    { ...SELF, self_kind: "born_again", loss: { output_loss: "mse", temperature: 2 } },
    "loss.temperature",
    { loss: { temperature: 2 } },
  ],
  [
    { ...SELF, self_kind: "mean_teacher", loss: { output_loss: "mse", temperature: 2 } },
    "loss.temperature",
    { loss: { temperature: 2 } },
  ],
  [
    { ...SELF, self_kind: "be_your_own_teacher", exits: 1, loss: { feature_weight: 1 } },
    "loss.feature_weight",
    { exit_values: ["a", "b"], exits: 3 },
  ],
  [{ ...SELF, self_kind: "be_your_own_teacher", exits: 2, exit_values: ["a"] }, "exits", { exit_values: null }],
];

for (const [params, path, change] of CASES) {
  test(`${path} in ${JSON.stringify(params)} is refused, and not with ${JSON.stringify(change)}`, () => {
    const [field, ...others] = refused(params);
    assert.deepEqual(others, []);
    assert.deepEqual([field?.pointer, field?.code], [`/params/${path.replaceAll(".", "/")}`, "no_effect"]);
    assert.match(field!.message, new RegExp(`^${path} would have no effect: it is for .+\\.$`));
    assert.deepEqual(refused({ ...params, ...change }), []);
  });
}

test("defaults may be sent where they have no effect: they ask for nothing", () => {
  const { params } = JobRequest.parse(requestOf({ ...STATIC, calibration: "minmax" }));
  assert.deepEqual(refused(params as Params), []);
  const qat = JobRequest.parse(requestOf({ ...QAT, bits: { activations: null } }));
  assert.deepEqual(refused(qat.params as unknown as Params), []);
  const distilled = JobRequest.parse(requestOf({ ...OFFLINE, loss: { output_loss: "mse" } }));
  assert.deepEqual(refused(distilled.params as unknown as Params), []);
});

test("in a pipeline the step at fault is named, and all that is wrong", () => {
  const steps = [
    { type: "quantize", params: { ...WEIGHTS, samples: 5, format: "qdq", accuracy_level: 0 } },
    { type: "quantize", params: { ...STATIC, calibration: "mse", percentile: 90 } },
  ];
  const spec = JobRequest.parse({ type: "pipeline", model_id: "mdl_1", params: { steps } });
  assert.deepEqual(
    unreadOf(spec as never, { steps }).map(({ pointer }) => pointer),
    ["/params/steps/0/params/samples", "/params/steps/0/params/accuracy_level", "/params/steps/1/params/percentile"],
  );
});

test("methods that do the same for every machine take no other target than auto", () => {
  for (const method of ["float16", "weight_only"]) {
    assert.deepEqual(refused({ method, target: "auto" }), []);
    const parsed = JobRequest.safeParse(requestOf({ method, target: "arm64" }));
    assert.deepEqual(
      parsed.error?.issues.map(({ path, message }) => [path.join("/"), message]),
      [
        [
          "params/target",
          "must be auto or a runtime (web, openvino, tensorrt, qnn): this method does the same for every machine",
        ],
      ],
    );
  }
});

test("heads of a hint are for relations", () => {
  const withHint = (kind: string) =>
    JobRequest.safeParse(
      requestOf({ ...OFFLINE, loss: { hints: [{ teacher: "a", student: "b", kind, weight: 1, heads: 2 }] } }),
    );
  assert.ok(withHint("relation").success);
  assert.deepEqual(withHint("mse").error?.issues[0]?.path, ["params", "loss", "hints", 0, "heads"]);
});

test("samples are for roundings that look at them, and these need some", () => {
  const dataOf = (params: object) => {
    const parsed = JobRequest.safeParse(requestOf({ ...WEIGHTS, ...params }));
    return parsed.error?.issues.map(({ path, message }) => `${String(path.at(-1))} ${message}`);
  };
  assert.match(dataOf({ dataset_id: "dst_1" })![0]!, /^dataset_id is for roundings that look at samples/);
  assert.match(dataOf({ rounding: "gptq" })![0]!, /^dataset_id is needed for every rounding but nearest/);
  assert.deepEqual([dataOf({}), dataOf({ rounding: "gptq", dataset_id: "dst_1" })], [undefined, undefined]);
});
