import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import { scalingSites } from "../../../src/core/quantize/static/channel-scaling.ts";
import { JobRequest } from "../../../src/service/api/job-schemas.ts";
import { QUANTIZATIONS } from "../../../src/service/kinds/quantize/readings.ts";
import { ALWAYS } from "../../../src/service/kinds/unread-params.ts";
import { writeNpz } from "../../support/dataset-writers.ts";
import { GraphMaker, uniformSource } from "../../support/graphs.ts";
import { quantizeJob } from "../../support/quantize-job.ts";

/**
 * Parameters that are said to be read in every job are: two values of each make two different results. They are tried on one network that has
 * something for each of them.
 */

const SAMPLES = 32;

/** x [n, 8, 6, 6] through convolutions whose channels differ in size, t [n, 6] through a table, a normalization with outliers and matrices. */
function network() {
  const make = new GraphMaker({ seed: 7 });
  let x = make.op("Relu", [make.conv(make.input("x", ["n", 8, 6, 6]), [8, 16], 3)]);
  x = make.op("Relu", [make.batchNorm(make.conv(x, [16, 16], 1), 16)]);
  x = make.op("Flatten", [make.op("GlobalAveragePool", [x])], { axis: 1 });
  const rows = make.op("Gather", [make.weight("table", [50, 64], 1), make.input("t", ["n", 6], "int64")]);
  const words = make.layerNorm(make.linear(rows, 64, 64), 64);
  const pooled = make.op("ReduceMean", [make.op("Relu", [make.linear(words, 64, 16, 2)])], { axes: [1], keepdims: 0 });
  make.output(make.linear(make.op("Concat", [x, pooled], { axis: 1 }), 32, 4), "y", ["n", 4]);
  const uniform = uniformSource(5);
  for (const site of scalingSites(make.model)) {
    site.apply(Float64Array.from({ length: site.channels }, () => 2 ** (8 * (uniform() - 0.5))));
  }
  return make.model;
}

function dataset() {
  const make = new GraphMaker({ seed: 8 });
  const { data } = { data: Array.from({ length: SAMPLES * 6 }, (_, i) => BigInt((i * 31) % 50)) };
  const x = make.random([SAMPLES, 8, 6, 6], 1);
  return writeNpz({
    x,
    t: tensorOf("int64", [SAMPLES, 6], BigInt64Array.from(data)),
    labels: tensorOf(
      "int64",
      [SAMPLES],
      BigInt64Array.from({ length: SAMPLES }, (_, i) => BigInt(i % 4)),
    ),
  });
}

type Params = Readonly<Record<string, unknown>>;
/** Two values of a parameter, and with what others they are tried. */
type Trial = readonly [unknown, unknown, Params?];

/** The layers are so small that 8 bits would be slower. */
const QUICK: Params = { samples: 16, min_sqnr_db: null, calibration: "minmax", float_where_slower: false };

/**
 * Those whose effect shows elsewhere: who is asked and what is random; draws that are kept only where they gain, which on so small layers they seldom
 * do; a limit that needs a network which has learned something; what a machine measures.
 */
const NOT_TRIED: ReadonlySet<string> = new Set([
  ...["method", "dataset_id", "seed", "candidates", "max_metric_drop", "float_where_slower"],
]);
/** Enumerations of one value. */
const SINGLE: ReadonlySet<string> = new Set(["float16 target", "weight_only target", "dynamic weight_dtype"]);

const EXCLUDED: Readonly<Record<string, Trial>> = {
  exclude_nodes: [[], ["matmul_node"]],
  exclude_ops: [[], ["Conv"]],
};

const TRIALS: Readonly<Record<string, Readonly<Record<string, Trial>>>> = {
  simplify: {
    exclude_nodes: [[], ["batchnormalization_node"]],
    exclude_ops: [[], ["BatchNormalization"]],
  },
  float16: { ...EXCLUDED, keep_io: [true, false] },
  dynamic: { ...EXCLUDED, per_channel: [true, false], target: ["x64-vnni", "x64-avx2"] },
  static: {
    ...EXCLUDED,
    samples: [8, 16, { ...QUICK, samples: undefined }],
    calibration: ["minmax", "entropy"],
    percentile: [90, 99.9, { calibration: "percentile" }],
    activation_dtype: ["uint8", "int8"],
    per_channel: [true, false],
    weight_bits: [8, 4],
    rounding: ["nearest", "gptq"],
    equalize: [false, true],
    smooth_quant_alpha: [null, 0.5],
    bias_correction: [false, true],
    layers: [{}, { matmul_node: "int8_weights" }],
    min_sqnr_db: [null, 60],
    max_trials: [1, 24, { min_sqnr_db: 60 }],
    target: ["x64-vnni", "x64-avx2"],
  },
  weight_only: {
    ...EXCLUDED,
    bits: [4, 8],
    block_size: [16, 32],
    symmetric: [false, true],
    algorithm: ["rtn", "gptq"],
    rounding: ["nearest", "gptq"],
    samples: [4, 16, { rounding: "gptq", dataset_id: "dst_1" }],
    format: ["matmulnbits", "qdq"],
    embeddings: [true, false],
    accuracy_level: [4, 1],
  },
};

const results = new Map<string, Promise<string>>();

/** The digest of the model that a job makes; the same job makes the same, and is run once. */
function resultOf(given: Params): Promise<string> {
  const params = Object.fromEntries(Object.entries(given).filter(([, it]) => it !== undefined));
  const { params: effective } = JobRequest.parse({ type: "quantize", model_id: "mdl_1", params }) as { params: Params };
  const key = JSON.stringify(Object.entries(effective).sort());
  const result = results.get(key) ?? digestOf(params);
  results.set(key, result);
  return result;
}

async function digestOf(params: Params): Promise<string> {
  const { model } = await quantizeJob(network(), {
    params,
    dataset: dataset(),
    evaluation: { samples: 4, layer_errors: false },
    environment: { measurePeak: async () => ({ baselineBytes: 1, peakBytes: 1 }) },
  });
  return createHash("sha256").update(modelToBytes(model)).digest("hex");
}

for (const [method, trials] of Object.entries(TRIALS)) {
  test(`every parameter of ${method} that is read in every job is tried here`, () => {
    const readings = Object.entries(QUANTIZATIONS[method as keyof typeof QUANTIZATIONS]);
    const always = readings.filter(([, reading]) => reading === ALWAYS).map(([name]) => name);
    const missing = always.filter(
      (name) => !NOT_TRIED.has(name) && !SINGLE.has(`${method} ${name}`) && !(name in trials),
    );
    assert.deepEqual(missing, []);
  });
  for (const [name, [one, other, beside = {}]] of Object.entries(trials)) {
    test(`${method}: ${name} ${JSON.stringify(one)} and ${JSON.stringify(other)} make different results`, async () => {
      const jobOf = (value: unknown) => {
        const needsData = method === "static" || (method === "weight_only" && value === "gptq");
        return {
          ...(method === "static" && QUICK),
          ...(needsData && { dataset_id: "dst_1" }),
          ...beside,
          ...{ method, [name]: value },
        };
      };
      assert.notEqual(await resultOf(jobOf(one)), await resultOf(jobOf(other)));
    });
  }
}
