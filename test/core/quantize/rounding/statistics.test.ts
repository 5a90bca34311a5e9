import assert from "node:assert/strict";
import { test } from "node:test";
import { arrayOf, type Tensor } from "../../../../src/core/onnx/tensor.ts";
import { floatStatistics } from "../../../../src/core/quantize/rounding/statistics.ts";
import { GraphMaker, randomFeeds } from "../../../support/graphs.ts";
import { openModel } from "../../../support/open-model.ts";

const SIZE = 5;
const CHANNELS = 3;

/** Σ over what a filter of 1x1 looks at: every `stride`-th pixel, and nothing where it looks at padding. */
function sumOfProducts(x: Tensor, stride: number, pad: number): number[] {
  const values = arrayOf(x, "float32");
  const sums = new Array<number>(CHANNELS ** 2).fill(0);
  for (let row = -pad; row < SIZE + pad; row += stride) {
    for (let column = -pad; column < SIZE + pad; column += stride) {
      if (row < 0 || row >= SIZE || column < 0 || column >= SIZE) continue;
      const at = (channel: number) => values[(channel * SIZE + row) * SIZE + column]!;
      for (let a = 0; a < CHANNELS; a++) for (let b = 0; b < CHANNELS; b++) sums[a * CHANNELS + b]! += at(a) * at(b);
    }
  }
  return sums;
}

for (const [stride, pad] of [
  [1, 0],
  [2, 0],
  [1, 1],
] as const) {
  test(`sums of products are those of the pixels that a filter of 1x1 looks at, stride ${stride}, padding ${pad}`, async () => {
    const make = new GraphMaker();
    const x = make.input("x", [1, CHANNELS, SIZE, SIZE]);
    const filters = [4, CHANNELS, 1, 1];
    const attrs = { strides: [stride, stride], pads: [pad, pad, pad, pad] };
    make.output(make.op("Conv", [x, make.weight("w", filters, 1)], attrs), "y");
    const feeds = randomFeeds(make.model, { seed: 3 });
    const batches = async function* () {
      yield feeds;
    };
    const site = { index: 0, depth: CHANNELS, filters };
    const statistics = (await floatStatistics(make.model, [site], batches, { openModel })).get(0)!;
    for (const [i, expected] of sumOfProducts(feeds.x!, stride, pad).entries()) {
      assert.ok(Math.abs(statistics.fit.gram[i]! - expected) <= 1e-5 * (1 + Math.abs(expected)), `element ${i}`);
    }
  });
}
