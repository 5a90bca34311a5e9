import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import {
  conversionCosts,
  type KernelTimes,
  measuredCosts,
  readProfiles,
} from "../../../../src/core/quantize/static/measured-costs.ts";
import { placeQuantizers } from "../../../../src/core/quantize/static/placement.ts";
import { costTableOf } from "../../../../src/core/targets/cost-tables.ts";
import { GraphMaker } from "../../../support/graphs.ts";

const TABLE = costTableOf("x64-avx2")!;
const ELEMENTS = 2000;
const elementsOf = () => ELEMENTS;

/** Conv, Relu, MaxPool, Conv: three units that compute in 8 bits. */
function network(): Model {
  const make = new GraphMaker();
  const x = make.op("Relu", [make.conv(make.input("x", [1, 8, 16, 16]), [8, 8], 3)]);
  const pooled = make.op("MaxPool", [x], { kernel_shape: [2, 2], strides: [2, 2] });
  make.output(make.conv(pooled, [8, 8], 3), "y");
  return make.model;
}

const kernel = (name: string, us: number, op = "Conv", elements = ELEMENTS) => ({ name, op, elements, us });

/** Profiles that take as long with the profiler as without it. */
const profiles = (
  float: readonly ReturnType<typeof kernel>[],
  int8: readonly ReturnType<typeof kernel>[],
): KernelTimes => ({ float: { kernels: float, wallUs: 1e9 }, int8: { kernels: int8, wallUs: 1e9 } });

function setUp() {
  const model = network();
  const placement = placeQuantizers(model);
  const [first, pool, second] = placement.units;
  assert.deepEqual(
    placement.units.map(({ rule, quantized }) => [rule.kind === "compute", quantized]),
    [
      [true, true],
      [false, true],
      [true, true],
    ],
  );
  return { placement, first: first!, pool: pool!, second: second! };
}

test("a unit costs what its kernels take together, whichever of its nodes and values they are named after", () => {
  const { placement, first, pool, second } = setUp();
  const [relu] = first.tail;
  const float = [kernel(first.node.name, 10), kernel(relu!.name, 3, "Relu"), kernel(second.node.name, 7)];
  const int8 = [kernel(first.outputs[0]!.name, 4), kernel(pool.node.name, 1, "MaxPool"), kernel(second.node.name, 2)];
  const read = readProfiles(placement, profiles(float, int8), elementsOf, TABLE)!;
  assert.deepEqual(read.units.get(first), { floatUs: 13, int8Us: 4 });
  assert.deepEqual(read.units.get(pool), { floatUs: 0, int8Us: 1 }, "in float it was taken into another kernel");
  assert.deepEqual(read.units.get(second), { floatUs: 7, int8Us: 2 });
  assert.deepEqual([read.guessed.size, read.conversions], [0, []]);
});

test("a kernel that took in what stands behind it has that one's name", () => {
  const { placement, first, pool, second } = setUp();
  const named = [kernel(pool.node.name, 9), kernel(second.node.name, 5)];
  const read = readProfiles(placement, profiles(named, named), elementsOf, TABLE)!;
  assert.deepEqual(read.units.get(first), { floatUs: 9, int8Us: 9 });
  assert.deepEqual(read.units.get(pool), { floatUs: 0, int8Us: 0 });
  // A layer keeps what is its own: the pool behind it does, too.
  const both = [kernel(first.node.name, 4), kernel(pool.node.name, 9), kernel(second.node.name, 5)];
  const kept = readProfiles(placement, profiles(both, both), elementsOf, TABLE)!;
  assert.deepEqual([kept.units.get(first)!.floatUs, kept.units.get(pool)!.floatUs], [4, 9]);
  // What a layer reads is no kernel of the layer before it.
  const make = new GraphMaker();
  make.output(make.conv(make.conv(make.input("x", [1, 8, 16, 16]), [8, 8], 3), [8, 8], 3), "y");
  const chain = placeQuantizers(make.model);
  const [one, two] = chain.units;
  const last = [kernel(two!.node.name, 6)];
  const half = readProfiles(chain, profiles(last, last), elementsOf, TABLE)!;
  assert.equal(half.units.get(two!)!.floatUs, 6);
  assert.deepEqual([...half.guessed], [one], "half of the layers are enough to go by");
});

test("a layer that is not found costs what the table says, in the measure in which the table is right about the others", () => {
  const { placement, first, second } = setUp();
  const found = readProfiles(
    placement,
    profiles([kernel(first.node.name, 30)], [kernel(first.node.name, 10)]),
    elementsOf,
    TABLE,
  )!;
  // The two are alike but for the Relu, which costs nothing behind a convolution.
  const { floatUs, int8Us } = found.units.get(second)!;
  assert.ok(Math.abs(floatUs - 30) < 1e-9 && Math.abs(int8Us - 10) < 1e-9, `${floatUs} ${int8Us}`);
  assert.deepEqual([...found.guessed], [second]);
  assert.equal(readProfiles(placement, profiles([], []), elementsOf, TABLE), undefined);
});

test("what the profiler takes for every kernel is taken off, and no more than there is", () => {
  const { placement, first, pool, second } = setUp();
  const kernels = [kernel(first.node.name, 20), kernel(pool.node.name, 4, "MaxPool"), kernel(second.node.name, 0.9)];
  const costs = (wallUs: number) => {
    const times = { float: { kernels, wallUs }, int8: { kernels, wallUs } };
    const { units } = readProfiles(placement, times, elementsOf, TABLE)!;
    return [first, pool, second].map((unit) => Number(units.get(unit)!.int8Us.toFixed(9)));
  };
  assert.deepEqual(costs(24.9), [20, 4, 0.9]);
  // Three microseconds more than without it: one for each; a kernel keeps a tenth at least.
  assert.deepEqual(costs(21.9), [19, 3, 0.09]);
  assert.deepEqual(costs(0), [15, 0.4, 0.09], "no more than 5 each");
  assert.deepEqual(costs(100), [20, 4, 0.9]);
});

test("what moves values between layouts is of the layer that it is done for", () => {
  const { placement, first, second } = setUp();
  const kernels = [
    kernel("ReorderInput", 2, "ReorderInput"),
    kernel(first.node.name, 10),
    kernel(second.node.name, 5),
    kernel("ReorderOutput_token_3", 1, "ReorderOutput"),
    kernel("q", 7, "QuantizeLinear"),
    kernel("d", 8, "DequantizeLinear", 0),
  ];
  const read = readProfiles(placement, profiles(kernels, kernels), elementsOf, TABLE)!;
  assert.deepEqual(read.units.get(first), { floatUs: 12, int8Us: 12 });
  assert.deepEqual(
    read.conversions.map(({ kind, us }) => `${kind} ${us}`),
    ["reorder 2", "reorder 1", "quantize 7", "reorder 2", "reorder 1"],
    "one of no elements tells nothing; in float only layouts do",
  );
});

test("conversions cost what the table says, times as much as those took longer that were seen", () => {
  const [call, , element] = TABLE.quantize;
  const predicted = 2 * call + (element * 5000) / 1000;
  const seen = [
    { kind: "quantize" as const, elements: 2000, us: 3 * predicted - 5 },
    { kind: "quantize" as const, elements: 3000, us: 5 },
    { kind: "reorder" as const, elements: 1000, us: (TABLE.reorder[0] + TABLE.reorder[2]) * 2 },
  ];
  const times = (factor: number, cost: readonly number[]) => cost.map((it) => factor * it);
  const near = (actual: readonly number[], expected: readonly number[]) =>
    actual.forEach((it, i) => {
      assert.ok(Math.abs(it - expected[i]!) <= 1e-9 * Math.abs(expected[i]!), `${actual} and ${expected}`);
    });
  const costs = conversionCosts(seen, TABLE, 1.5);
  near(costs.quantize, times(3, TABLE.quantize));
  near(costs.dequantize, times(1.5, TABLE.dequantize));
  near(costs.reorder, times(2, TABLE.reorder));
  near(conversionCosts([], TABLE, 1.5).reorder, [0, 0, 0]);
});

test("beside a convolution a conversion reorders, too", () => {
  const make = new GraphMaker();
  const x = make.input("x", [1, 8, 4, 4]);
  const inner = make.conv(x, [8, 8], 3);
  const pooled = make.op("Flatten", [make.op("GlobalAveragePool", [inner])]);
  const y = make.linear(pooled, 8, 4);
  make.output(y, "y");
  const costs = measuredCosts(
    { units: { known: { floatUs: 2, int8Us: 1 } }, quantize: [1, 0, 2], dequantize: [3, 0, 4], reorder: [10, 0, 20] },
    elementsOf,
  );
  assert.equal(costs.basis, "measured");
  for (const value of [x, inner]) {
    assert.deepEqual([costs.quantizeUs(value), costs.dequantizeUs(value)], [5 + 50, 11 + 50]);
  }
  for (const value of [pooled, y]) assert.deepEqual([costs.quantizeUs(value), costs.dequantizeUs(value)], [5, 11]);
  const [unit] = placeQuantizers(make.model).units;
  assert.deepEqual(costs.unit(unit!), { floatUs: 0, int8Us: 0 }, "what was not measured costs nothing");
});
