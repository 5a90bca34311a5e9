import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { floatsOf, type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { correctBiases } from "../../../../src/core/quantize/static/bias-correction.ts";
import { calibrate } from "../../../../src/core/quantize/static/calibration.ts";
import { scalingSites } from "../../../../src/core/quantize/static/channel-scaling.ts";
import { equalizeWeights } from "../../../../src/core/quantize/static/equalize.ts";
import {
  prepareStatic,
  quantizeStatic,
  type StaticOptions,
} from "../../../../src/core/quantize/static/quantize-static.ts";
import { GraphMaker, uniformSource } from "../../../support/graphs.ts";
import { openModel } from "../../../support/open-model.ts";
import { assertRecorded } from "../../../support/recorded.ts";

const SIZE = 16;
const CLASSES = 10;

/** Separable convolutions with Relu, as MobileNet has them: x [n, 3, 16, 16] → logits [n, 10]. */
function separableNetwork(blocks: number, width: number): Model {
  const make = new GraphMaker({ seed: 3 });
  let x = make.op("Relu", [make.conv(make.input("x", ["n", 3, SIZE, SIZE]), [3, width], 3)]);
  for (let block = 0; block < blocks; block++) {
    x = make.op("Relu", [make.batchNorm(make.conv(x, [width, width], 3, { group: width, bias: false }), width)]);
    x = make.op("Relu", [make.batchNorm(make.conv(x, [width, width], 1, { bias: false }), width)]);
  }
  x = make.op("Flatten", [make.op("GlobalAveragePool", [x])], { axis: 1 });
  make.output(make.linear(x, width, CLASSES), "logits", ["n", CLASSES]);
  return make.model;
}

/** What training does to such networks, and normalization hides: channels of very different size, the function the same. */
function spreadChannels(model: Model): void {
  const uniform = uniformSource(11);
  for (const site of scalingSites(model)) {
    site.apply(Float64Array.from({ length: site.channels }, () => 2 ** (8 * (uniform() - 0.5))));
  }
}

function images(count: number, seed: number): Record<string, Tensor>[] {
  const uniform = uniformSource(seed);
  return Array.from({ length: count }, () => {
    // Blobs of different strength and place: noise alone would average to the same class everywhere.
    const [cx, cy, strength] = [SIZE * uniform(), SIZE * uniform(), 1 + 3 * uniform()];
    const data = Float32Array.from({ length: 3 * SIZE * SIZE }, (_, i) => {
      const [x, y] = [i % SIZE, Math.floor(i / SIZE) % SIZE];
      return (
        strength * Math.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 20) * (uniform() > 0.5 ? 1 : -1) +
        0.3 * (uniform() - 0.5)
      );
    });
    return { x: tensorOf("float32", [1, 3, SIZE, SIZE], data) };
  });
}

async function* streamOf(feeds: readonly Record<string, Tensor>[]): AsyncGenerator<Record<string, Tensor>> {
  yield* feeds;
}

async function logitsOf(model: Model, feeds: readonly Record<string, Tensor>[]): Promise<Float32Array[]> {
  const session = await openModel(model);
  const results: Float32Array[] = [];
  for (const sample of feeds) results.push(floatsOf((await session.run(sample)).logits!));
  await session.close();
  return results;
}

test("a depthwise network with spread channels: naive int8 collapses, equalisation brings it back, bias correction the rest", async () => {
  const raw = separableNetwork(5, 24);
  const calibrationData = images(32, 1);
  const testData = images(200, 2);
  const { model } = await prepareStatic(raw, calibrationData[0]!, { openModel });
  spreadChannels(model);
  const expected = await logitsOf(model, testData);
  // What distinguishes images is what is left of the logits when their mean is taken off.
  const mean = Array.from({ length: CLASSES }, (_, c) => expected.reduce((sum, logits) => sum + logits[c]!, 0) / 200);
  /** The class of an image, among those that images differ in. */
  const winner = (logits: Float32Array) =>
    logits.reduce((best, value, c) => (value - mean[c]! > logits[best]! - mean[best]! ? c : best), 0);
  const score = async (quantized: Model) => {
    let signal = 0;
    let noise = 0;
    let agreeing = 0;
    (await logitsOf(quantized, testData)).forEach((logits, i) => {
      if (winner(logits) === winner(expected[i]!)) agreeing++;
      logits.forEach((value, c) => {
        signal += (expected[i]![c]! - mean[c]!) ** 2;
        noise += (expected[i]![c]! - value) ** 2;
      });
    });
    return { db: 10 * Math.log10(signal / noise), agreement: agreeing / testData.length };
  };

  const options: StaticOptions = {
    method: "minmax",
    percentile: 99.999,
    activationDType: "uint8",
    perChannel: false,
    reduceRange: true,
  };
  const quantize = async (float: Model) => {
    const calibration = await calibrate(float, streamOf(calibrationData), { openModel });
    const plain = quantizeStatic(float, calibration, options);
    const biasShifts = await correctBiases(float, plain.model, plain.layers, calibrationData.slice(0, 16), {
      openModel,
    });
    const corrected = quantizeStatic(float, calibration, { ...options, biasShifts });
    return { plain: await score(plain.model), corrected: await score(corrected.model) };
  };
  const naive = await quantize(model);
  const equalized = model.clone();
  equalizeWeights(equalized);
  const rescued = await quantize(equalized);
  const report = JSON.stringify({ naive, rescued });
  assert.ok(naive.plain.agreement < 0.1, `naive int8 still works: ${report}`);
  assertRecorded(naive.plain.db, -20.6, 1.5, report);
  assertRecorded(rescued.plain.agreement, 0.935, 0.03, report);
  assertRecorded(rescued.plain.db, 22.2, 1.5, report);
  assertRecorded(rescued.corrected.agreement, 0.965, 0.03, report);
  assertRecorded(rescued.corrected.db - rescued.plain.db, 2.4, 0.8, report);
});
