import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import type { Tensor } from "../../../../src/core/onnx/tensor.ts";
import { calibrate } from "../../../../src/core/quantize/static/calibration.ts";
import { placedRegions } from "../../../../src/core/quantize/static/kernel-cost.ts";
import { placeQuantizers } from "../../../../src/core/quantize/static/placement.ts";
import { quantizeStatic, type StaticOptions } from "../../../../src/core/quantize/static/quantize-static.ts";
import { GraphMaker, randomFeeds } from "../../../support/graphs.ts";
import { fusedOperators, openModel, runModel, sqnrDb } from "../../../support/open-model.ts";

const OPTIONS: StaticOptions = {
  method: "minmax",
  percentile: 99.999,
  activationDType: "uint8",
  perChannel: true,
  reduceRange: true,
};

/** Two chains of convolutions, dense and wide, or depthwise and small, with a Tanh between them, which has no integer kernel. */
function chains(): Model {
  const make = new GraphMaker();
  const x = make.input("x", ["n", 64, 32, 32]);
  const wide = make.op("Relu", [make.conv(make.op("Relu", [make.conv(x, [64, 64], 3)]), [64, 8], 3)]);
  const small = make.op("Conv", [make.op("Tanh", [wide]), make.weight("depthwise", [8, 1, 5, 5], 0.2)], {
    group: 8,
    pads: [2, 2, 2, 2],
  });
  make.output(small, "y");
  return make.model;
}

function feedsFor(model: Model, count: number): Record<string, Tensor>[] {
  return Array.from({ length: count }, (_, i) => randomFeeds(model, { seed: i + 1, dims: { n: 1 } }));
}

async function* streamOf<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}

test("a region ends where a float stands between, and costs what its kernels and conversions do", () => {
  const placement = placeQuantizers(chains());
  const elements = 8 * 32 * 32;
  const regions = placedRegions(placement, () => elements);
  assert.deepEqual(
    regions.map(({ units }) => units.length),
    [2, 1],
  );
  const [dense, depthwise] = regions;
  const k = elements / 1000;
  const near = (actual: number, expected: number) => assert.ok(Math.abs(actual / expected - 1) < 1e-9);
  // Two calls with 64·9 products for each element. Behind a convolution Relu costs nothing. The way to integers and back is taken once.
  near(dense!.floatUs, 2 * (7.9 + 0.0281 * 576 * k + 0.036 * k));
  near(dense!.int8Us, 2 * (12.6 + 0.0109 * 576 * k + 0.198 * k) + (3.2 + 0.869 * k) + (5 + 0.3 * k));
  near(depthwise!.floatUs, 6.7 + 0.0224 * 25 * k + 0.32 * k);
  near(depthwise!.int8Us, 21.7 + 0.0488 * 25 * k + 0.364 * k + (3.2 + 0.869 * k) + (5 + 0.3 * k));
});

test("a convolution of one axis computes whole tiles of positions in float", () => {
  const make = new GraphMaker();
  const x = make.input("x", ["n", 128, 4]);
  const weight = make.weight("conv_w", [64, 128, 3], 0.1);
  make.output(make.op("Relu", [make.op("Conv", [x, weight], { pads: [1, 1] })]), "y");
  const placement = placeQuantizers(make.model);
  // 64 channels at 4 positions: 16 are computed.
  const [region] = placedRegions(placement, () => 64 * 4);
  const k = 0.064;
  assert.ok(Math.abs(region!.floatUs / (7.9 + 0.0281 * 384 * 16 * k + 0.036 * 4 * k) - 1) < 1e-9, `${region!.floatUs}`);
});

test("what is predicted to be slower in 8 bits stays in float, stored in 8 bits, and says so", async () => {
  const model = chains();
  const feeds = feedsFor(model, 2);
  const calibration = await calibrate(model, streamOf(feeds), { openModel });
  const everywhere = quantizeStatic(model, calibration, OPTIONS);
  assert.equal((await fusedOperators(everywhere.model)).QLinearConv, 3);
  const { model: mixed, notes } = quantizeStatic(model, calibration, { ...OPTIONS, floatWhereSlower: true });
  const operators = await fusedOperators(mixed);
  assert.deepEqual([operators.QLinearConv, operators.Conv], [2, 1]);
  const slower = notes.filter(({ message }) => /predicted to take \d\.\d times as long/.test(message));
  assert.deepEqual(
    slower.map(({ op, code }) => [op, code]),
    [["Conv", "stored_codes"]],
  );
  assert.ok(sqnrDb(await runModel(model, feeds[0]!), await runModel(mixed, feeds[0]!)) > 28);
  // A plan knows as much from one sample.
  const seen = await calibrate(model, streamOf(feeds.slice(0, 1)), { openModel });
  assert.deepEqual(quantizeStatic(model, seen, { ...OPTIONS, floatWhereSlower: true }).notes, notes);
});
