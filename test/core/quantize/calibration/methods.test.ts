/** The calibration methods against each other, by what they do to the outputs of a network. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import {
  CALIBRATION_METHODS,
  type CalibrationMethod,
} from "../../../../src/core/quantize/calibration/calibration-methods.ts";
import { type Calibration, calibrate } from "../../../../src/core/quantize/static/calibration.ts";
import { prepareStatic, quantizeStatic } from "../../../../src/core/quantize/static/quantize-static.ts";
import { mobilenet, randomFeeds, uniformSource } from "../../../support/graphs.ts";
import { openModel, runModel, sqnrDb } from "../../../support/open-model.ts";
import { assertRecorded } from "../../../support/recorded.ts";

type Feeds = Record<string, Tensor>;

async function* streamOf(feeds: readonly Feeds[]): AsyncGenerator<Feeds> {
  yield* feeds;
}

function quantize(model: Model, calibration: Calibration, method: CalibrationMethod): Model {
  return quantizeStatic(model, calibration, {
    method,
    percentile: 99.99,
    activationDType: "uint8",
    perChannel: true,
    reduceRange: true,
  }).model;
}

/** Images of noise with heavy tails: t-distributed with three degrees of freedom, one value in a thousand is beyond ten deviations. */
function images(model: Model, count: number, seed: number): Feeds[] {
  const uniform = uniformSource(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return Array.from({ length: count }, () => {
    const { dims } = randomFeeds(model, { dims: { n: 1 } }).x!;
    const values = Float32Array.from(
      { length: elementCount(dims) },
      () => normal() / Math.sqrt((normal() ** 2 + normal() ** 2 + normal() ** 2) / 3),
    );
    return { x: tensorOf("float32", dims, values) };
  });
}

/** 10·log10 of signal over noise, over all inputs together. */
async function heldOutSqnrDb(float: Model, quantized: Model, inputs: readonly Feeds[]): Promise<number> {
  const [a, b] = [await openModel(float), await openModel(quantized)];
  let [signal, noise] = [0, 0];
  for (const feeds of inputs) {
    const [expected, actual] = [await a.run(feeds), await b.run(feeds)].map((outputs) => {
      return floatsOf(Object.values(outputs)[0]!);
    });
    expected!.forEach((x, i) => {
      signal += x * x;
      noise += (x - actual![i]!) ** 2;
    });
  }
  await Promise.all([a.close(), b.close()]);
  return 10 * Math.log10(signal / noise);
}

/** What each method gains over minmax at least, in dB. */
const GAINS = { percentile: 3.8, entropy: 4, mse: 1.3 } as const;

for (const [name, network] of Object.entries({
  mobilenet: mobilenet(),
  "wider mobilenet": mobilenet({ seed: 5, width: 24 }),
})) {
  test(`${name}: on data with outliers, percentile, entropy and MSE beat minmax, for samples that were not seen`, async (t) => {
    const seen = images(network, 64, 1);
    const { model } = await prepareStatic(network, seen[0]!, { openModel });
    const calibration = await calibrate(model, streamOf(seen), { openModel });
    const unseen = images(network, 64, 2);
    const minmax = await heldOutSqnrDb(model, quantize(model, calibration, "minmax"), unseen);
    t.diagnostic(`${name}: minmax ${minmax.toFixed(1)} dB`);
    for (const [method, gain] of Object.entries(GAINS) as [keyof typeof GAINS, number][]) {
      const reached = await heldOutSqnrDb(model, quantize(model, calibration, method), unseen);
      t.diagnostic(`${name}: ${method} ${reached.toFixed(1)} dB`);
      assert.ok(reached > minmax + gain, `${method} ${reached} dB, minmax ${minmax} dB`);
    }
  });
}

test("samples of any size and in any number to a batch calibrate one network, by every method", async () => {
  const network = mobilenet({ size: "size" });
  const seen = [
    [1, 32],
    [3, 48],
    [2, 40],
    [1, 64],
  ].map(([n, size], i) => randomFeeds(network, { seed: i + 1, dims: { n: n!, size: size! } }));
  const { model } = await prepareStatic(network, seen[0]!, { openModel });
  const calibration = await calibrate(model, streamOf(seen), { openModel });
  const unseen = randomFeeds(network, { seed: 100, dims: { n: 2, size: 56 } });
  const expected = await runModel(model, unseen);
  for (const method of CALIBRATION_METHODS) {
    const reached = sqnrDb(expected, await runModel(quantize(model, calibration, method), unseen));
    assertRecorded(reached, 38, 1.5, method);
  }
});
