import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import type { Tensor } from "../../../../src/core/onnx/tensor.ts";
import { calibrate } from "../../../../src/core/quantize/static/calibration.ts";
import {
  type KernelCosts,
  placementCost,
  predictedCosts,
  slowParts,
} from "../../../../src/core/quantize/static/kernel-cost.ts";
import { placeQuantizers } from "../../../../src/core/quantize/static/placement.ts";
import { quantizeStatic, type StaticOptions } from "../../../../src/core/quantize/static/quantize-static.ts";
import { Random } from "../../../../src/core/random.ts";
import { costTableOf } from "../../../../src/core/targets/cost-tables.ts";
import { GraphMaker, randomFeeds } from "../../../support/graphs.ts";
import { fusedOperators, openModel, runModel, sqnrDb } from "../../../support/open-model.ts";
import { assertRecorded } from "../../../support/recorded.ts";

const TABLE = costTableOf("x64-avx2")!;
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

/** What a placement costs by the table: all in 8 bits, and all in float. */
function predicted(model: Model, elements: number): { readonly int8Us: number; readonly floatUs: number } {
  const placement = placeQuantizers(model);
  const costs = predictedCosts(TABLE, () => elements);
  const units = new Set(placement.units.filter(({ quantized }) => quantized));
  return { int8Us: placementCost(placement, costs, new Set()), floatUs: placementCost(placement, costs, units) };
}

function near(actual: number, expected: number): void {
  assert.ok(Math.abs(actual / expected - 1) < 1e-9, `${actual} instead of ${expected}`);
}

test("a placement costs what its kernels do, and conversions where floats and integers meet", () => {
  const elements = 8 * 32 * 32;
  const { int8Us, floatUs } = predicted(chains(), elements);
  const k = elements / 1000;
  // Two calls with 64·9 products for each element. Behind a convolution Relu costs nothing.
  const dense = { float: 2 * (7.9 + 0.0281 * 576 * k + 0.036 * k), int8: 2 * (12.6 + 0.0109 * 576 * k + 0.198 * k) };
  const depthwise = { float: 6.7 + 0.0224 * 25 * k + 0.32 * k, int8: 21.7 + 0.0488 * 25 * k + 0.364 * k };
  near(floatUs, dense.float + depthwise.float);
  // Each chain goes to integers and back once: the Tanh between them has no integer kernel.
  near(int8Us, dense.int8 + depthwise.int8 + 2 * (3.2 + 0.869 * k + 5 + 0.3 * k));
});

test("a value that a layer and something in float read is dequantized for the latter, whatever else reads it", () => {
  const elements = 1000;
  const cost = (reads: "layer" | "both") => {
    const make = new GraphMaker();
    const x = make.op("Relu", [make.conv(make.input("x", ["n", 8, 8, 8]), [8, 8], 3)]);
    make.output(make.conv(x, [8, 8], 3), "y");
    if (reads === "both") make.output(make.op("Tanh", [x]), "z");
    return predicted(make.model, elements).int8Us;
  };
  const [call, , element] = TABLE.dequantize;
  near(cost("both") - cost("layer"), call + element);
});

test("a convolution of one axis computes whole tiles of positions in float", () => {
  const make = new GraphMaker();
  const x = make.input("x", ["n", 128, 4]);
  const weight = make.weight("conv_w", [64, 128, 3], 0.1);
  make.output(make.op("Relu", [make.op("Conv", [x, weight], { pads: [1, 1] })]), "y");
  // 64 channels at 4 positions: 16 are computed.
  const k = 0.064;
  near(predicted(make.model, 64 * 4).floatUs, 7.9 + 0.0281 * 384 * 16 * k + 0.036 * 4 * k);
});

/** A chain of convolutions with a branch back in, and costs drawn at random: the cheapest of all divisions is known. */
test("what is left in float is the cheapest division there is, tried for all of them", () => {
  const make = new GraphMaker();
  let x = make.input("x", [1, 4, 8, 8]);
  for (let i = 0; i < 4; i++) {
    const y = make.op("Relu", [make.conv(x, [4, 4], 3)]);
    x = make.op("Add", [make.conv(y, [4, 4], 3), y]);
  }
  make.output(make.op("Tanh", [x]), "y");
  const placement = placeQuantizers(make.model);
  const units = placement.units.filter(({ quantized }) => quantized);
  assert.equal(units.length, 11);
  for (let seed = 0; seed < 6; seed++) {
    const random = new Random(seed, "costs");
    const drawn = new Map(
      units.map((unit) => [unit, { floatUs: random.integer(20), int8Us: random.integer(20) }] as const),
    );
    const costs: KernelCosts = {
      basis: "measured",
      unit: (unit) => drawn.get(unit)!,
      quantizeUs: () => 3,
      dequantizeUs: () => 2,
    };
    const parts = slowParts(placement, costs);
    const found = placementCost(placement, costs, new Set(parts.flatMap((part) => part.units)));
    let least = Number.POSITIVE_INFINITY;
    for (let sides = 0; sides < 2 ** units.length; sides++) {
      const inFloat = new Set(units.filter((_, i) => (sides >> i) % 2 === 1));
      least = Math.min(least, placementCost(placement, costs, inFloat));
    }
    near(found + 1, least + 1);
    for (const { floatUs, int8Us } of parts) assert.ok(int8Us >= floatUs, `${int8Us} in 8 bits, ${floatUs} in float`);
  }
});

test("what is predicted to be slower in 8 bits stays in float, stored in 8 bits, and says so", async () => {
  const model = chains();
  const feeds = feedsFor(model, 2);
  const calibration = await calibrate(model, streamOf(feeds), { openModel });
  const everywhere = quantizeStatic(model, calibration, OPTIONS);
  assert.equal((await fusedOperators(everywhere.model)).QLinearConv, 3);
  const { model: mixed, notes } = quantizeStatic(model, calibration, {
    ...OPTIONS,
    floatWhereSlower: { table: TABLE },
  });
  const operators = await fusedOperators(mixed);
  assert.deepEqual([operators.QLinearConv, operators.Conv], [2, 1]);
  const slower = notes.filter(({ message }) => /predicted to take \d\.\d times as long/.test(message));
  assert.deepEqual(
    slower.map(({ op, code }) => [op, code]),
    [["Conv", "stored_codes"]],
  );
  assertRecorded(sqnrDb(await runModel(model, feeds[0]!), await runModel(mixed, feeds[0]!)), 36.5, 1.5);
  // A plan knows as much from one sample.
  const seen = await calibrate(model, streamOf(feeds.slice(0, 1)), { openModel });
  assert.deepEqual(quantizeStatic(model, seen, { ...OPTIONS, floatWhereSlower: { table: TABLE } }).notes, notes);
});
