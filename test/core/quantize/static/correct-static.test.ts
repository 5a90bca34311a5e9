import assert from "node:assert/strict";
import { test } from "node:test";
import { floatsOf, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { ActivationObserver } from "../../../../src/core/quantize/calibration/observers.ts";
import { gptq } from "../../../../src/core/quantize/rounding/gptq.ts";
import { calibrationToBytes } from "../../../../src/core/quantize/static/calibration-file.ts";
import { compressStatic, correctStatic, type PipelineOptions } from "../../../../src/core/quantize/static/pipeline.ts";
import { quantizeStatic } from "../../../../src/core/quantize/static/quantize-static.ts";
import { profileTemporary } from "../../../../workers/model-files.ts";
import { GraphMaker } from "../../../support/graphs.ts";
import { openModel, runModel } from "../../../support/open-model.ts";

const OPTIONS: PipelineOptions = {
  ...{ samples: 8, method: "minmax", percentile: 99.999, activationDType: "uint8", perChannel: true },
  ...{ reduceRange: true, equalize: false, smoothQuantAlpha: null, biasCorrection: false },
};

function network() {
  const make = new GraphMaker();
  const hidden = make.op("Relu", [make.linear(make.input("x", ["n", 8]), 8, 16)]);
  make.output(make.linear(hidden, 16, 4), "y", ["n", 4]);
  return make.model;
}

/** Samples that differ much in how well 8 bits hold them. */
function dataOf(count: number) {
  const make = new GraphMaker({ seed: 4 });
  const samples = Array.from({ length: count }, (_, i) => ({ x: make.random([1, 8], 2 ** (i % 7)) }));
  const batches = async function* (wanted: number) {
    yield* samples.slice(0, wanted);
  };
  return { samples, data: { batches } };
}

test("what is chosen is judged by samples that nothing is made from, where there are more than trials take; else by the last", async () => {
  const model = network();
  for (const [count, first] of [
    [30, 16],
    [24, 16],
    [18, 16],
    [16, 8],
    [5, 0],
  ] as const) {
    const { samples, data } = dataOf(count);
    const { reference, float, calibration, options } = await correctStatic(model, data, OPTIONS, { openModel });
    const { model: quantized } = quantizeStatic(float, calibration, options);
    let [signal, noise] = [0, 0];
    for (const feeds of samples.slice(first, Math.min(count, 24))) {
      const [x, y] = [floatsOf((await runModel(float, feeds)).y!), floatsOf((await runModel(quantized, feeds)).y!)];
      for (const [i, value] of x.entries()) {
        signal += value ** 2;
        noise += (value - y[i]!) ** 2;
      }
    }
    const expected = 10 * Math.log10(signal / noise);
    const reached = await reference.sqnrDb(quantized);
    assert.ok(Math.abs(reached - expected) < 1e-3, `of ${count}: ${reached} dB, and not ${expected}`);
  }
});

test("a limit is kept by the model's own outputs, and kernels are measured whether or not anybody listens", async () => {
  const { data } = dataOf(20);
  const model = network();
  const score = async () => 0;
  const runtime = { openModel, profile: profileTemporary, threads: 1 };
  const control = { score, speedup: async () => 1, target: 1, maxTrials: 3 };
  const { sensitivity, control: found } = await compressStatic(model, data, { ...OPTIONS, control }, { openModel });
  assert.equal(found!.reached, false);
  // The layers are ranked by the signal to error of the outputs with each of them in float.
  assert.equal(sensitivity.length, 2);
  for (const { sqnrDb, gainDb } of sensitivity)
    assert.ok(sqnrDb > 10 && sqnrDb < 80 && gainDb > 0, `${sqnrDb} ${gainDb}`);
  const measured = await compressStatic(model, data, { ...OPTIONS, floatWhereSlower: "measured" }, runtime);
  assert.ok(measured.kernels !== undefined);
});

test("bins without a value take no room in a file", () => {
  const far = new ActivationObserver();
  far.observe(Float32Array.from([0, 1e-3, 1]));
  const { counts } = far.histogram.state;
  assert.ok(counts.length > 100, "there are many between the two");
  const bytes = calibrationToBytes({
    ...{ activations: new Map([["x", far]]), derived: new Map(), channels: new Map(), batches: 1 },
  });
  assert.ok(bytes.length < 150, `${bytes.length} bytes for ${counts.length} bins`);
});

/** Images of so many channels and so many pixels a side. */
function imagesOf(channels: number, side: number) {
  const make = new GraphMaker({ seed: 6 });
  const samples = Array.from({ length: 12 }, () => ({ x: make.random([1, channels, side, side], 1) }));
  return {
    async *batches(wanted: number) {
      yield* samples.slice(0, wanted);
    },
  };
}

test("layers that a rounding by samples does not take are rounded to nearest, and say so; the others do not", async () => {
  const make = new GraphMaker();
  const x = make.conv(make.input("x", ["n", 8, 6, 6]), [8, 8], 3, { group: 2 });
  make.output(make.conv(make.op("Relu", [x]), [8, 4], 1), "y");
  const model = make.model;
  const { prepared } = await compressStatic(model, imagesOf(8, 6), { ...OPTIONS, rounding: gptq() }, { openModel });
  const [grouped, plain] = model.graph.nodes.filter(({ opType }) => opType === "Conv");
  const codesOf = (label: string) =>
    prepared.filter(({ name, code }) => name === label && code.startsWith("gptq")).map(({ code }) => code);
  assert.deepEqual([codesOf(grouped!.label), codesOf(plain!.label)], [["gptq_unsupported"], ["gptq"]]);
});

test("channels that are scaled against each other are told of, with what that was worth", async () => {
  const make = new GraphMaker({ seed: 2 });
  const uneven = make.random([8, 3, 1, 1], 1);
  const spread = Float32Array.from(floatsOf(uneven), (w, i) => w * 4 ** (Math.floor(i / 3) - 4));
  const x = make.input("x", ["n", 3, 6, 6]);
  const hidden = make.op("Relu", [make.op("Conv", [x, make.constant("w", tensorOf("float32", [8, 3, 1, 1], spread))])]);
  make.output(make.conv(hidden, [8, 4], 1), "y");
  const options = { ...OPTIONS, equalize: "auto" as const };
  const { prepared, corrections } = await compressStatic(make.model, imagesOf(3, 6), options, { openModel });
  const told = prepared.filter(({ code }) => code === "channels_scaled");
  assert.ok(told.length > 0, JSON.stringify(prepared));
  assert.ok(corrections.some(({ applied }) => applied));
  const without = await compressStatic(make.model, imagesOf(3, 6), OPTIONS, { openModel });
  assert.deepEqual(
    without.prepared.filter(({ code }) => code === "channels_scaled"),
    [],
  );
});

test("every sample that is asked for is looked at, once, however many trials have seen it before", async () => {
  const make = new GraphMaker();
  make.output(make.linear(make.op("Relu", [make.linear(make.input("x", ["n", 4]), 4, 4)]), 4, 2), "y", ["n", 2]);
  const { model } = make;
  // Sample i reaches i + 1.
  const data = {
    async *batches(count: number) {
      for (let i = 0; i < Math.min(count, 40); i++) {
        yield {
          x: tensorOf(
            "float32",
            [1, 4],
            Float32Array.from([0, 0.25, 0.5, 1], (x) => x * (i + 1)),
          ),
        };
      }
    },
  };
  for (const samples of [3, 16, 24, 25, 30, 40, 50]) {
    const { calibration } = await compressStatic(model, data, { ...OPTIONS, samples }, { openModel });
    const seen = Math.min(samples, 40);
    assert.equal(calibration.batches, seen, `of ${samples}`);
    const { max, zeros } = calibration.activations.get("x")!.histogram.state;
    assert.deepEqual([max, zeros], [seen, seen], "each has one zero");
  }
});
