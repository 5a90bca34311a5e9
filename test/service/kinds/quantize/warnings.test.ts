import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { JobMetrics, QuantizePlan, Warning } from "../../../../src/core/index.ts";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { writeNpz } from "../../../support/dataset-writers.ts";
import { GraphMaker, mlp } from "../../../support/graphs.ts";
import { type QuantizeJobOptions, quantizeJob, quantizePlan } from "../../../support/quantize-job.ts";
import { assertRecorded } from "../../../support/recorded.ts";

const SAMPLES = 32;

async function planAndResult(model: Model, options: QuantizeJobOptions) {
  const [plan, { metrics }] = [await quantizePlan(model, options), await quantizeJob(model, options)];
  return { plan, metrics };
}

const warned = ({ warnings }: JobMetrics | QuantizePlan, code: Warning["code"]) =>
  warnings.filter((warning) => warning.code === code);

/** 32 samples for `mlp()`, `value` throughout or random. */
const samples = (value?: number): Tensor => {
  const random = new GraphMaker({ seed: 5 }).random([SAMPLES, 16], 1);
  return value === undefined ? random : tensorOf("float32", [SAMPLES, 16], new Float32Array(SAMPLES * 16).fill(value));
};

describe("data that do not vary", () => {
  for (const value of [0, 1.5]) {
    it(`are told of in the plan and the result of a calibration: ${value}`, async () => {
      const { plan, metrics } = await planAndResult(mlp({ sizes: [16, 24, 8] }), {
        params: { method: "static", dataset_id: "dst_1", samples: 20 },
        dataset: writeNpz({ x: samples(value) }),
      });
      for (const said of [plan, metrics]) {
        const warnings = warned(said, "constant_data");
        assert.deepEqual(
          warnings.map((warning) => warning.value),
          [value],
          "once, though the data serve twice",
        );
        assert.match(warnings[0]!.message, new RegExp(`^All values of "x" in the dataset are ${value}: `));
      }
    });
  }

  it("are told of where a result is judged by them", async () => {
    const model = mlp({ sizes: [16, 24, 8] });
    const options = { params: { method: "dynamic" }, dataset: writeNpz({ x: samples(2) }) };
    assert.equal(warned((await quantizeJob(model, options)).metrics, "constant_data")[0]?.value, 2);
    // A field that the model does not take is warned of as that.
    const varied = await quantizeJob(model, { ...options, dataset: writeNpz({ x: samples(), other: samples(0) }) });
    assert.deepEqual(warned(varied.metrics, "constant_data"), []);
  });
});

describe("a result that differs much", () => {
  const params = { method: "weight_only", bits: 2 };

  it("is said to, with the layers that lose most and what to try", async () => {
    const { metrics } = await quantizeJob(mlp({ sizes: [16, 24, 24, 8] }), {
      params,
      dataset: writeNpz({ x: samples() }),
      evaluation: { samples: SAMPLES },
    });
    const [warning] = warned(metrics, "low_fidelity");
    const { sqnr_db } = metrics.fidelity.outputs[0]!;
    // The limit of the warning.
    assert.ok(sqnr_db! < 20, `${sqnr_db} dB`);
    assert.equal(warning!.value, sqnr_db);
    assert.match(
      warning!.message,
      /has an SQNR of -?[\d.]+ dB, below 20 dB\. The layers that lose most: "\w+" \((?:-?[\d.]+ dB in, )?-?[\d.]+ dB out\)/,
    );
    assert.match(warning!.message, / Try: algorithm gptq with samples of your data; 8 bits; /);
  });

  it("and one that does not is not", async () => {
    const { metrics } = await quantizeJob(mlp({ sizes: [16, 24, 24, 8] }), {
      params: { method: "weight_only", bits: 8 },
      dataset: writeNpz({ x: samples() }),
      evaluation: { samples: SAMPLES },
    });
    assertRecorded(metrics.fidelity.outputs[0]!.sqnr_db, 39.7, 1.5);
    assert.deepEqual(warned(metrics, "low_fidelity"), []);
  });
});

describe("a limit that was asked for", () => {
  const limited = (params: object) =>
    quantizeJob(mlp({ sizes: [16, 24, 8] }), {
      params: { method: "static", dataset_id: "dst_1", samples: 20, ...params },
      dataset: writeNpz({ x: samples() }),
    });

  it("takes back weights that are only stored in 8 bits, where layers in float are not enough", async () => {
    // Layers as small as these are faster in float, and stored in 8 bits.
    const { metrics, report } = await limited({ min_sqnr_db: 60, target: "x64-avx2" });
    assert.equal(report.quantization!.control!.reached, true);
    assert.ok(metrics.fidelity.outputs.every(({ sqnr_db }) => sqnr_db === null || sqnr_db > 60));
    assert.deepEqual(warned(metrics, "target_not_reached"), []);
  });

  it("and is not kept is told of, with what was reached", async () => {
    const layers = Object.fromEntries(
      [...mlp({ sizes: [16, 24, 8] }).nodes()]
        .filter(({ opType }) => opType === "Gemm")
        .map(({ label }) => [label, "int8_weights"]),
    );
    const { metrics, report } = await limited({ min_sqnr_db: 60, layers });
    assert.equal(report.quantization!.control!.reached, false);
    const [warning] = warned(metrics, "target_not_reached");
    assertRecorded(warning!.value, 48.4, 1.5);
    assert.match(warning!.message, /has sqnr_db [\d.]+ dB on the samples .*, and 60\.00 dB was asked for\.$/);
  });
});

describe("weights that are not finite", () => {
  /** Two layers; the result of the second, which is broken, is an output of its own. */
  function brokenHead(): Model {
    const make = new GraphMaker();
    const hidden = make.op("Relu", [make.linear(make.input("x", ["n", 16]), 16, 24)]);
    make.output(make.linear(hidden, 24, 8), "y", ["n", 8]);
    const values = Float32Array.from({ length: 24 * 4 }, (_, i) => (i === 5 ? Number.NaN : 0.1));
    const head = make.op("MatMul", [hidden, make.constant("broken", tensorOf("float32", [24, 4], values))]);
    make.output(head, "z", ["n", 4]);
    return make.model;
  }
  const broken = brokenHead();
  const label = [...broken.nodes()].at(-1)!.label;

  it("are in the warnings of a method that keeps them", async () => {
    const { plan, metrics } = await planAndResult(broken, { params: { method: "float16" } });
    for (const said of [plan, metrics]) assert.equal(warned(said, "non_finite_weights")[0]?.value, 1);
  });

  it("stay as they are where their layer is excluded, and the rest is quantized", async () => {
    for (const method of ["dynamic", "static"]) {
      const { metrics } = await quantizeJob(broken, {
        params: {
          // Seven bits of weights, as on processors that would saturate: the same numbers on all of them.
          ...{ method, exclude_nodes: [label], target: "x64-avx2" },
          ...(method === "static" && { dataset_id: "dst_1", samples: 20 }),
        },
        dataset: writeNpz({ x: samples() }),
        evaluation: { samples: 20 },
      });
      assert.equal(warned(metrics, "non_finite_weights")[0]?.value, 1);
      assert.ok(metrics.coverage.quantized_nodes > 0, method);
      const [y] = metrics.fidelity.outputs.filter(({ name }) => name === "y");
      // Eight bits keep some 40 dB; a layer that was filled with what is not a number keeps none.
      assertRecorded(y!.sqnr_db, { dynamic: 40.6, static: 45 }[method]!, 1.5, method);
    }
  });
});
