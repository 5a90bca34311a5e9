import assert from "node:assert/strict";
import { test } from "node:test";
import type { Tensor } from "../../../../src/core/onnx/tensor.ts";
import { calibrate } from "../../../../src/core/quantize/static/calibration.ts";
import { layersAsked } from "../../../../src/core/quantize/static/layers-asked.ts";
import {
  chooseOptions,
  type LayerOption,
  layersOf,
  measureLayers,
} from "../../../../src/core/quantize/static/mixed-precision.ts";
import { OutputReference } from "../../../../src/core/quantize/static/output-error.ts";
import { quantizeStatic, type StaticOptions } from "../../../../src/core/quantize/static/quantize-static.ts";
import { Random } from "../../../../src/core/random.ts";
import { mlp, randomFeeds } from "../../../support/graphs.ts";
import { openModel, runModel } from "../../../support/open-model.ts";

const noiseOf = ({ noise }: LayerOption) => noise;
const bytesOf = ({ bytes }: LayerOption) => bytes;
const sum = (chosen: readonly LayerOption[], of: (option: LayerOption) => number) =>
  chosen.reduce((total, option) => total + of(option), 0);

/** Groups whose options cost the less the noisier they are. */
function drawn(seed: number, count: number): LayerOption[][] {
  const random = new Random(seed, "options");
  return Array.from({ length: count }, () => {
    const size = 1000 + random.integer(10_000);
    const noise = 10 ** (-6 + 4 * random.uniform());
    return [
      { precision: "float32", noise: 0, bytes: 0, us: 10 },
      { precision: "int8_weights", noise: noise * (0.1 + 0.3 * random.uniform()), bytes: -0.75 * size, us: 10 },
      { precision: "int8", noise: noise * (0.5 + random.uniform()), bytes: -0.75 * size, us: 5 },
      { precision: "int4_weights", noise: noise * (1 + 9 * random.uniform()), bytes: -0.84 * size, us: 10 },
    ];
  });
}

test("a choice keeps to the limit, and costs at most 2 % of what there is to save more than the best of all", () => {
  for (let seed = 0; seed < 30; seed++) {
    const groups = drawn(seed, 7);
    const loudest = sum(
      groups.map((options) => options.reduce((a, b) => (b.noise > a.noise ? b : a))),
      noiseOf,
    );
    const limit = loudest * new Random(seed, "limits").uniform();
    const chosen = chooseOptions(groups, bytesOf, noiseOf, limit)!;
    assert.ok(sum(chosen, noiseOf) <= limit * (1 + 1e-12));
    let best = 0;
    for (let code = 0; code < 4 ** groups.length; code++) {
      const all = groups.map((options, i) => options[Math.floor(code / 4 ** i) % 4]!);
      if (sum(all, noiseOf) <= limit) best = Math.min(best, sum(all, bytesOf));
    }
    const most = sum(
      groups.map((options) => options.at(-1)!),
      bytesOf,
    );
    assert.ok(sum(chosen, bytesOf) - best <= -0.02 * most, `seed ${seed}: ${sum(chosen, bytesOf)} instead of ${best}`);
  }
});

test("where the limit binds nothing the cheapest are chosen, and where nothing fits there is no choice", () => {
  const groups = drawn(1, 5);
  const all = chooseOptions(groups, bytesOf, noiseOf, Number.POSITIVE_INFINITY)!;
  assert.ok(all.every(({ precision }) => precision === "int4_weights"));
  assert.equal(chooseOptions(groups, noiseOf, bytesOf, -1e9), undefined);
});

const OPTIONS: StaticOptions = {
  method: "minmax",
  percentile: 99.999,
  activationDType: "uint8",
  perChannel: true,
  reduceRange: true,
};

test("what layers lose in each precision is measured, and adds up to nearly what a mixed model loses", async () => {
  const model = mlp({ sizes: [64, 256, 256, 16] });
  const samples = [1, 2, 3].map((seed) => randomFeeds(model, { seed, dims: { n: 4 } }));
  const seen = async function* (): AsyncGenerator<Record<string, Tensor>> {
    yield* samples;
  };
  const calibration = await calibrate(model, seen(), { openModel });
  const choices = await measureLayers(model, calibration, OPTIONS, samples, {
    openModel,
    usOf: (label) => ({ floatUs: label.length, int8Us: 1 }),
  });
  assert.ok(choices.length >= 3);
  for (const { nodes, options } of choices) {
    const of = (precision: LayerOption["precision"]) => options.find((option) => option.precision === precision)!;
    assert.deepEqual([of("float32").noise, of("float32").bytes], [0, 0]);
    assert.ok(of("int8_weights").noise > 0 && of("int8").noise > of("int8_weights").noise);
    assert.ok(of("int8_weights").bytes < 0);
    assert.deepEqual([of("int8").us, of("float32").us], [1, nodes[0]!.length]);
  }
  const wanted = ["int8", "int4_weights", "int8_weights"] as const;
  const chosen = choices.map(({ options }, i) => options.find(({ precision }) => precision === wanted[i % 3])!);
  const excludeNodes = layersAsked(model, layersOf(choices, chosen));
  const mixed = quantizeStatic(model, calibration, { ...OPTIONS, excludeNodes }).model;
  const expected = -10 * Math.log10(sum(chosen, noiseOf));
  const outputs = [];
  for (const feeds of samples) outputs.push(await runModel(model, feeds));
  const reached = await OutputReference.of(samples, outputs, { openModel }).sqnrDb(mixed);
  assert.ok(Math.abs(reached - expected) < 0.1, `${reached} dB, expected ${expected} dB`);
});
