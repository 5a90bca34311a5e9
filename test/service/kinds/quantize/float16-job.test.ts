import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Model, Value } from "../../../../src/core/onnx/ir.ts";
import { type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { roundedForm } from "../../../../src/core/passes/rounded.ts";
import { floatArray } from "../../../support/compressed.ts";
import { writeNpz } from "../../../support/dataset-writers.ts";
import { GraphMaker, mlp, transformer } from "../../../support/graphs.ts";
import { runModel, sqnrDb } from "../../../support/open-model.ts";
import { quantizeJob } from "../../../support/quantize-job.ts";
import { assertRecorded } from "../../../support/recorded.ts";

/** x [n, 16] → y [n, 4] with two layers, and between them what `middle` makes of 16 values. */
function layers(middle: (make: GraphMaker, x: Value) => Value): Model {
  const make = new GraphMaker();
  const hidden = make.op("Relu", [make.linear(make.input("x", ["n", 16]), 16, 16)]);
  make.output(make.linear(middle(make, hidden), 16, 4), "y", ["n", 4]);
  return make.model;
}

const number = (make: GraphMaker, value: number) => make.floats("number", [], [value]);
const codes = ({ warnings }: { readonly warnings: readonly { readonly code: string }[] }) =>
  warnings.map(({ code }) => code).filter((code) => code.startsWith("float16"));

/** What a float16 model answers where every value is rounded. */
const roundedRun = (model: Model, feeds: Readonly<Record<string, Tensor>>) =>
  runModel(roundedForm(model)!, feeds, { optimization: "basic" });

const samples = (count: number, seed = 3) => new GraphMaker({ seed }).random([count, 16], 1);

describe("activations that float16 cannot hold", () => {
  const middles: Readonly<Record<string, (make: GraphMaker, x: Value) => Value>> = {
    "large ones that are divided again": (make, x) => {
      const large = make.op("Mul", [x, number(make, 1e5)]);
      return make.op("Div", [large, make.op("ReduceMax", [large], { axes: [1], keepdims: 1 })]);
    },
    "squares of a normalization": (make, x) => {
      const large = make.op("Mul", [x, number(make, 900)]);
      const square = make.op("ReduceMean", [make.op("Mul", [large, large])], { axes: [1], keepdims: 1 });
      const root = make.op("Sqrt", [make.op("Add", [square, number(make, 1e-6)])]);
      return make.op("Div", [large, root]);
    },
    "cubes, as in an activation function": (make, x) => {
      const cube = make.op("Pow", [make.op("Mul", [x, number(make, 60)]), number(make, 3)]);
      return make.op("Tanh", [make.op("Mul", [cube, number(make, 1e-6)])]);
    },
    "an exponential": (make, x) => {
      const e = make.op("Exp", [make.op("Mul", [x, number(make, 8)])]);
      return make.op("Div", [e, make.op("ReduceSum", [e, make.ints("axes", [1])])]);
    },
  };
  // Half precision keeps 2^-11 of each value, 66 dB; what sums of squares lose of it is theirs. A layer beyond the range keeps nothing.
  const keptDb: Readonly<Record<string, number>> = {
    ...{ "large ones that are divided again": 62.7, "squares of a normalization": 64 },
    ...{ "cubes, as in an activation function": 63, "an exponential": 56.8 },
  };
  for (const [name, middle] of Object.entries(middles)) {
    it(`stay float32, and are told of: ${name}`, async () => {
      const original = layers(middle);
      const x = samples(8);
      const { model, metrics } = await quantizeJob(original, {
        params: { method: "float16" },
        dataset: writeNpz({ x }),
        evaluation: { samples: 8 },
      });
      const [before, after] = [await runModel(original, { x }), await roundedRun(model, { x })];
      assert.ok(floatArray(after.y!).every(Number.isFinite));
      const sqnr = sqnrDb(before, after);
      assertRecorded(sqnr, keptDb[name]!, 1.5);
      assert.ok(Math.abs(metrics.fidelity.outputs[0]!.sqnr_db! - sqnr) < 0.01, "the report is about what was rounded");
      assert.deepEqual(codes(metrics), ["float16_range"]);
      const [warning] = metrics.warnings.filter(({ code }) => code === "float16_range");
      assert.ok(warning!.value > 65_504 / 4);
      assert.match(warning!.message, /^"\w+", the result of "\w+" \(\w+\), reaches [\d.e+]+ on the samples/);
      assert.ok(metrics.coverage.skipped_nodes.some(({ code }) => code === "range" || code === "squares"));
    });
  }

  it("are looked for in all samples, when the first did not show them", async () => {
    const original = layers((make, x) => make.op("Sqrt", [make.op("Mul", [x, make.op("Mul", [x, x])])]));
    const x = samples(100);
    const values = Float32Array.from(floatArray(x));
    for (let i = 90 * 16; i < 91 * 16; i++) values[i] = 100 * values[i]!;
    const { model, metrics } = await quantizeJob(original, {
      params: { method: "float16" },
      dataset: writeNpz({ x: tensorOf("float32", [100, 16], values) }),
      evaluation: { samples: 100 },
    });
    const { y } = await roundedRun(model, { x: tensorOf("float32", [100, 16], values) });
    assert.ok(floatArray(y!).every(Number.isFinite));
    assert.deepEqual(codes(metrics), ["float16_range"]);
    assertRecorded(metrics.fidelity.outputs[0]!.sqnr_db, 60.7, 1.5);
  });

  it("and small ones that are divided by stay numbers", async () => {
    const original = layers((make, x) => {
      const small = make.op("Mul", [x, number(make, 1e-6)]);
      const mean = make.op("ReduceMean", [small], { axes: [1], keepdims: 1 });
      return make.op("Div", [small, make.op("Mul", [mean, number(make, 1e-3)])]);
    });
    const x = samples(4);
    const { model, metrics } = await quantizeJob(original, {
      params: { method: "float16" },
      dataset: writeNpz({ x }),
      evaluation: { samples: 4 },
    });
    const after = await roundedRun(model, { x });
    assert.ok(floatArray(after.y!).every(Number.isFinite));
    assertRecorded(metrics.fidelity.outputs[0]!.sqnr_db, 64.4, 1.5);
  });

  it("of an output that must be float16 are the largest number it has", async () => {
    const make = new GraphMaker();
    make.output(make.op("Mul", [make.linear(make.input("x", [2, 16]), 16, 4), number(make, 1e6)]), "y", [2, 4]);
    const { model, metrics } = await quantizeJob(make.model, { params: { method: "float16", keep_io: false } });
    const x = tensorOf("float16", [2, 16], Float16Array.from(floatArray(samples(2))));
    const y = floatArray((await runModel(model, { x })).y!);
    assert.ok(y.every((value) => Math.abs(value) <= 65_504) && y.some((value) => Math.abs(value) === 65_504));
    assert.deepEqual(codes(metrics), ["float16_range"]);
  });
});

describe("the evidence for float16", () => {
  it("is of rounded values, layer by layer too; latency is the result's own", async () => {
    const original = transformer({ layers: 2 });
    const { model, metrics } = await quantizeJob(original, { params: { method: "float16" } });
    assert.deepEqual(codes(metrics), []);
    assert.deepEqual(metrics.coverage.skipped_nodes, []);
    const [output] = metrics.fidelity.outputs;
    // Half a unit in the last of 11 digits is 72 dB below a number: many roundings in a row are more.
    assertRecorded(output!.sqnr_db, 59.9, 1.5);
    assert.ok(roundedForm(model));
  });

  it("of a model that was float16 before is exact", async () => {
    const { model: half } = await quantizeJob(mlp(), { params: { method: "float16", keep_io: false } });
    const { metrics } = await quantizeJob(half, { params: { method: "float16" } });
    assert.equal(metrics.fidelity.outputs[0]!.sqnr_db, null);
  });
});
