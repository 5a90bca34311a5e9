import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { floatsOf } from "../../../../src/core/onnx/tensor.ts";
import type { CalibrateOptions, Feeds } from "../../../../src/core/quantize/calibration/calibrate.ts";
import { Calibrator, calibrate } from "../../../../src/core/quantize/static/calibration.ts";
import { scalingSites } from "../../../../src/core/quantize/static/channel-scaling.ts";
import { balanceChannels } from "../../../../src/core/quantize/static/equalize.ts";
import { prepareStatic } from "../../../../src/core/quantize/static/quantize-static.ts";
import { mobilenet, randomFeeds, transformer, uniformSource } from "../../../support/graphs.ts";
import { openModel, runModel } from "../../../support/open-model.ts";

async function* streamOf(feeds: readonly Feeds[]): AsyncGenerator<Feeds> {
  yield* feeds;
}

function feedsFor(model: Model, count: number): Feeds[] {
  return Array.from({ length: count }, (_, i) => randomFeeds(model, { seed: 1 + i, dims: { n: 2 } }));
}

async function prepare(model: Model): Promise<Model> {
  return (await prepareStatic(model, randomFeeds(model), { openModel })).model;
}

/** Options, and how often a model was loaded with them: sizes of values are inferred from one without its weights. */
function counting(): CalibrateOptions & { readonly loads: () => number } {
  let loads = 0;
  return {
    openModel: (model, options) => {
      if (options?.optimization !== "basic") loads++;
      return openModel(model, options);
    },
    loads: () => loads,
  };
}

test("a fork knows of scaled channels what a look at the scaled model shows, and runs nothing for it", async () => {
  for (const network of [mobilenet({ blocks: 2 }), transformer()]) {
    const model = await prepare(network);
    const uniform = uniformSource(5);
    for (const site of scalingSites(model)) {
      if (!site.isClipped) site.apply(Float64Array.from({ length: site.channels }, () => 2 ** (6 * uniform() - 3)));
    }
    const feeds = feedsFor(model, 6);
    const options = counting();
    await using original = Calibrator.of(model, options);
    const { channels } = await original.observe(streamOf(feeds.slice(0, 3)), { keep: true });
    const beside = original.beside();
    await beside.observe(streamOf(feeds.slice(3, 5)), { keep: true });
    const scaled = model.clone();
    const balance = { perChannel: true, layers: true, normalizations: "auto" } as const;
    const changed = balanceChannels(
      scaled,
      (name) => channels.get(name),
      balance,
      () => {},
    );
    assert.ok(changed.size > 0);
    const fork = original.forked(scaled, changed)!;
    fork.merge(beside.forked(scaled, changed)!);
    const calibration = await fork.observe(streamOf(feeds.slice(5)));
    assert.equal(options.loads(), 1);

    const anew = await calibrate(scaled, streamOf(feeds), { openModel });
    assert.equal(calibration.batches, 6);
    assert.deepEqual([...calibration.activations.keys()], [...anew.activations.keys()]);
    for (const [name, { histogram, elements, averageRange }] of anew.activations) {
      const { histogram: seen, averageRange: average } = calibration.activations.get(name)!;
      assert.equal(calibration.activations.get(name)!.elements, elements, name);
      const width = histogram.max - histogram.min;
      assert.ok(Math.abs(seen.min - histogram.min) <= 1e-4 * width, `${name}: ${seen.min}, not ${histogram.min}`);
      assert.ok(Math.abs(seen.max - histogram.max) <= 1e-4 * width, `${name}: ${seen.max}, not ${histogram.max}`);
      for (const end of ["min", "max"] as const) {
        assert.ok(Math.abs(average[end] - averageRange[end]) <= 1e-4 * width, `${name}: ${end} on average`);
      }
    }
    for (const [name, observer] of anew.channels) {
      const { max, count } = observer;
      const seen = calibration.channels.get(name)!;
      assert.equal(seen.count, count);
      const largest = max.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
      for (const [c, value] of max.entries()) assert.ok(Math.abs(seen.max[c]! - value) <= 1e-4 * largest, name);
      for (const [c, square] of observer.meanSquares().entries()) {
        assert.ok(Math.abs(seen.meanSquares()[c]! - square) <= 1e-3 * square, name);
      }
    }
  }
});

test("without what it has kept of every sample a calibrator cannot be forked", async () => {
  const model = await prepare(transformer());
  await using original = Calibrator.of(model, { openModel });
  await original.observe(streamOf(feedsFor(model, 1)));
  const scaled = model.clone();
  const [site] = scalingSites(scaled, { inserting: true });
  const changed = site!.apply(new Float64Array(site!.channels).fill(2));
  assert.equal(original.forked(scaled, changed), undefined);
});

test("a calibrator runs the model itself too, loads it once, and once more after it was closed", async () => {
  const model = await prepare(mobilenet({ blocks: 2 }));
  const [first, second] = feedsFor(model, 2) as [Feeds, Feeds];
  const options = counting();
  const calibrator = Calibrator.of(model, options);
  assert.equal(options.loads(), 0);
  await calibrator.observe(streamOf([first]));
  const outputs = await calibrator.run(second);
  assert.equal(options.loads(), 1);
  await calibrator.close();
  assert.equal((await calibrator.observe(streamOf([second]))).batches, 2);
  assert.equal(options.loads(), 2);
  await calibrator.close();
  const expected = await runModel(model, second);
  assert.deepEqual(Object.keys(outputs), Object.keys(expected));
  for (const [name, tensor] of Object.entries(expected)) {
    floatsOf(tensor).forEach((value, i) => {
      assert.ok(Math.abs(floatsOf(outputs[name]!)[i]! - value) <= 1e-5 * Math.max(1, Math.abs(value)));
    });
  }
});
