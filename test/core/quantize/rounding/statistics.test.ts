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

/** Σ of products of each patch under filters [M, C, height, width] with itself. */
function patchProducts(
  x: Tensor,
  filters: readonly [number, number, number, number],
  window: { readonly strides: number[]; readonly dilations: number[]; readonly pads: number[] },
): Float64Array {
  const values = arrayOf(x, "float32");
  const [, channels, ...sizes] = filters as readonly [number, number, number, number];
  const [height, width] = [x.dims[2]!, x.dims[3]!];
  const { strides, dilations, pads } = window;
  const depth = channels * sizes[0]! * sizes[1]!;
  const reach = [0, 1].map((i) => (sizes[i]! - 1) * dilations[i]!);
  const sums = new Float64Array(depth * depth);
  for (let n = 0; n < x.dims[0]!; n++) {
    for (let top = -pads[0]!; top + reach[0]! < height + pads[2]!; top += strides[0]!) {
      for (let left = -pads[1]!; left + reach[1]! < width + pads[3]!; left += strides[1]!) {
        const patch: number[] = [];
        for (let c = 0; c < channels; c++) {
          for (let i = 0; i < sizes[0]!; i++) {
            for (let j = 0; j < sizes[1]!; j++) {
              const [row, column] = [top + i * dilations[0]!, left + j * dilations[1]!];
              const isInside = row >= 0 && row < height && column >= 0 && column < width;
              patch.push(isInside ? values[((n * channels + c) * height + row) * width + column]! : 0);
            }
          }
        }
        for (let a = 0; a < depth; a++) for (let b = 0; b < depth; b++) sums[a * depth + b]! += patch[a]! * patch[b]!;
      }
    }
  }
  return sums;
}

for (const opset of [9, 11, 13, 21]) {
  test(`sums of products are those of the patches under filters, opset ${opset}`, async () => {
    for (const [sizes, strides, dilations, pads] of [
      [
        [3, 3],
        [1, 1],
        [1, 1],
        [1, 1, 1, 1],
      ],
      [
        [3, 2],
        [2, 1],
        [1, 2],
        [0, 1, 2, 3],
      ],
      [
        [2, 3],
        [3, 2],
        [2, 1],
        [0, 0, 0, 0],
      ],
      [
        [1, 5],
        [1, 1],
        [1, 1],
        [0, 2, 0, 2],
      ],
    ] as const) {
      const make = new GraphMaker({ opset, irVersion: opset >= 21 ? 10 : 8 });
      const x = make.input("x", [2, 2, 7, 8]);
      const filters = [3, 2, ...sizes] as const;
      const window = { strides: [...strides], dilations: [...dilations], pads: [...pads] };
      make.output(make.op("Conv", [x, make.weight("w", filters, 1)], window), "y");
      const feeds = randomFeeds(make.model, { seed: 4 });
      const batches = async function* () {
        yield feeds;
      };
      const site = { index: 0, depth: 2 * sizes[0] * sizes[1], filters };
      const statistics = (await floatStatistics(make.model, [site], batches, { openModel })).get(0)!;
      const expected = patchProducts(feeds.x!, filters, window);
      assert.equal(statistics.fit.gram.length, expected.length);
      for (const [i, value] of expected.entries()) {
        assert.ok(Math.abs(statistics.fit.gram[i]! - value) <= 1e-5 * (1 + Math.abs(value)), `${sizes}: element ${i}`);
      }
    }
  });
}

test("a layer that leaves its padding to the runtime has that", async () => {
  const filters = [3, 2, 3, 3] as const;
  const paddings = [{ auto_pad: { type: "string", value: "SAME_UPPER" } }, { pads: [0, 0, 1, 1] }] as const;
  const sums = [];
  for (const padding of paddings) {
    const make = new GraphMaker({ opset: 13 });
    const x = make.input("x", [1, 2, 6, 6]);
    make.output(make.op("Conv", [x, make.weight("w", filters, 1)], { ...padding, strides: [2, 2] }), "y");
    const feeds = randomFeeds(make.model, { seed: 5 });
    const batches = async function* () {
      yield feeds;
    };
    sums.push((await floatStatistics(make.model, [{ index: 0, depth: 18, filters }], batches, { openModel })).get(0)!);
  }
  const [same, given] = sums.map(({ fit }) => fit.gram) as [Float32Array, Float32Array];
  same.forEach((value, i) => {
    assert.ok(Math.abs(value - given[i]!) <= 1e-5 * (1 + Math.abs(value)), `element ${i}`);
  });
});
