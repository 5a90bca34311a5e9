import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { arrayOf, type Tensor } from "../../../../src/core/onnx/tensor.ts";
import { type Feeds, observe, TappedModel } from "../../../../src/core/quantize/calibration/calibrate.ts";
import { inferredDims } from "../../../../src/core/quantize/calibration/inferred-dims.ts";
import {
  ActivationObserver,
  activationRange,
  ChannelObserver,
} from "../../../../src/core/quantize/calibration/observers.ts";
import { GraphMaker, randomFeeds } from "../../../support/graphs.ts";
import { openModel } from "../../../support/open-model.ts";

/** Two convolutions and a product along the last axis, for pictures of any size. */
function network(opset: number): Model {
  const make = new GraphMaker({ opset });
  const conv = (x: Parameters<typeof make.op>[1][0], from: number, to: number) =>
    make.op("Conv", [x!, make.weight("w", [to, from, 3, 3], 0.3)], { pads: [1, 1, 1, 1] });
  const inner = make.op("Relu", [conv(make.input("x", ["n", 3, "h", 96]), 3, 8)]);
  make.output(make.op("MatMul", [conv(inner, 8, 8), make.weight("m", [96, 96], 0.3)]), "y");
  return make.model;
}

/** What is seen of every value of `model`, by summaries where they are large enough, or always whole. */
async function seen(model: Model, feeds: readonly Feeds[], summarized: boolean) {
  const values = model.graph.nodes.map(({ outputs }) => outputs[0]!.name);
  const observers = values.map((name, i) => {
    const [activation, channels] = [new ActivationObserver(), new ChannelObserver(i === 2 ? -1 : 1)];
    const observer = {
      summaries: 0,
      ...{ activation, channels },
      observe: (elements: Float32Array, dims: readonly number[]) => {
        activation.observe(elements);
        channels.observe(elements, dims);
      },
      observeSummary: (summary: Parameters<typeof activation.observeSummary>[0]) => {
        observer.summaries++;
        activation.observeSummary(summary);
        channels.observeSummary(summary);
      },
    };
    return [name, observer] as const;
  });
  const batches = (async function* () {
    yield* feeds;
  })();
  if (!summarized) await observe(model, new Map(observers), batches, { openModel });
  else {
    const axes = new Map(observers.map(([name, { channels }]) => [name, channels.axis]));
    await using tapped = new TappedModel(model, values, { openModel }, { summarized: axes });
    await tapped.observe(new Map(observers), batches);
  }
  return observers;
}

for (const opset of [13, 18]) {
  test(`summaries tell what whole values do, of samples of any size, in operator set ${opset}`, async () => {
    const model = network(opset);
    const feeds = [96, 128, 8].map((h, i) => randomFeeds(model, { seed: i + 1, dims: { n: 1, h } }));
    const [told, whole] = [await seen(model, feeds, true), await seen(model, feeds, false)];
    for (const [i, [name, { activation, channels, summaries }]] of told.entries()) {
      const [, expected] = whole[i]!;
      assert.equal(summaries, feeds.length, name);
      const { histogram } = expected.activation;
      assert.deepEqual([activation.elements, activation.histogram.nonFinite], [expected.activation.elements, 0]);
      const width = histogram.max - histogram.min;
      for (const end of ["min", "max"] as const) {
        assert.ok(Math.abs(activation.histogram[end] - histogram[end]) <= 1e-6 * width, name);
        assert.ok(Math.abs(activation.averageRange[end] - expected.activation.averageRange[end]) <= 1e-6 * width, name);
      }
      assert.equal(channels.channels, expected.channels.channels);
      assert.equal(channels.count, expected.channels.count);
      for (const [c, square] of expected.channels.meanSquares().entries()) {
        // Of 840 elements of each channel and picture.
        assert.ok(Math.abs(channels.meanSquares()[c]! - square) <= 0.25 * square, name);
        assert.ok(Math.abs(channels.min[c]! - expected.channels.min[c]!) <= 1e-6 * width, name);
        assert.ok(Math.abs(channels.max[c]! - expected.channels.max[c]!) <= 1e-6 * width, name);
      }
      // A tenth of the values finds nearly the same range.
      const options = { steps: 255, percentile: 99.9 };
      for (const method of ["mse", "percentile"] as const) {
        const [a, b] = [activation, expected.activation].map((it) => activationRange(it, method, options));
        assert.ok(Math.abs(a!.max - b!.max) <= 0.1 * width, `${name}, ${method}: ${a!.max} and ${b!.max}`);
        assert.ok(Math.abs(a!.min - b!.min) <= 0.1 * width, `${name}, ${method}: ${a!.min} and ${b!.min}`);
      }
    }
  });
}

test("a model whose file declares an output with too few axes is observed as it is", async () => {
  const make = new GraphMaker({ opset: 13 });
  const pictures = make.input("x", ["n", 3, "h", 96]);
  const weight = make.weight("w", [8, 3, 3, 3], 0.3);
  const conv = make.op("Conv", [pictures, weight], { pads: [1, 1, 1, 1] });
  const [n, h] = [0, 2].map((axis) => make.op("Gather", [make.op("Shape", [conv]), make.ints(`axis_${axis}`, [axis])]));
  const rows = make.op("Reshape", [conv, make.op("Concat", [n!, h!, make.ints("rest", [8 * 96])], { axis: 0 })]);
  make.output(rows, "y", ["n", 8 * 96]);
  const model = make.model;
  const feeds = [randomFeeds(model, { dims: { n: 1, h: 96 } })];
  const told = new Map(await seen(model, feeds, true));
  const { activation, summaries } = told.get(rows.name)!;
  const { activation: expected } = new Map(await seen(model, feeds, false)).get(rows.name)!;
  assert.deepEqual([summaries, activation.elements], [1, expected.elements]);
  assert.ok(Math.abs(activation.histogram.max - expected.histogram.max) <= 1e-6 * expected.histogram.max);
});

test("values that are not finite are seen whole", async () => {
  const model = network(13);
  const feeds = [1, 2].map((seed) => randomFeeds(model, { seed, dims: { n: 1, h: 96 } }));
  arrayOf(feeds[1]!.x as Tensor, "float32")[5] = Number.POSITIVE_INFINITY;
  const [told, whole] = [await seen(model, feeds, true), await seen(model, feeds, false)];
  for (const [i, [name, { activation, summaries }]] of told.entries()) {
    const { activation: expected } = whole[i]![1];
    assert.equal(summaries, 1, name);
    assert.ok(expected.histogram.nonFinite > 0);
    assert.equal(activation.histogram.nonFinite, expected.histogram.nonFinite);
    assert.equal(activation.elements, expected.elements);
  }
});

test("dims follow from those of the inputs, without the weights", async () => {
  const model = network(13);
  const names = new Set(model.graph.nodes.map(({ outputs }) => outputs[0]!.name));
  const dims = await inferredDims(
    model,
    names,
    randomFeeds(model, { dims: { n: 2, h: 40 } }),
    async (copy, options) => {
      assert.ok([...copy.graph.initializers].every(({ constant }) => constant!.byteLength < 1024));
      return openModel(copy, options);
    },
  );
  assert.deepEqual(
    [...names].map((name) => dims.get(name)),
    Array(4).fill([2, 8, 40, 96]),
  );
});
