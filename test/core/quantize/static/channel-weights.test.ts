import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { arrayOf, elementCount, type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { roundHalfEven } from "../../../../src/core/quantize/params.ts";
import {
  quantizeWeight,
  type WeightLayout,
  type WeightOptions,
} from "../../../../src/core/quantize/static/channel-weights.ts";
import { uniformSource } from "../../../support/graphs.ts";

const EXACT: WeightOptions = { perChannel: true, reduceRange: false };
const SAFE: WeightOptions = { ...EXACT, reduceRange: true };

const CONV: WeightLayout = { axis: 0, inputAxis: 1, groups: 1 };
const GROUPED: WeightLayout = { axis: 0, inputAxis: 1, groups: 2 };
const MATMUL: WeightLayout = { axis: 1, inputAxis: 0, groups: 1 };

function randomWeight(dims: readonly number[], seed: number): Tensor {
  const uniform = uniformSource(seed);
  // Roughly normal, so that channels have few large weights.
  const next = () => uniform() + uniform() + uniform() + uniform() - 2;
  return tensorOf("float32", dims, Float32Array.from({ length: elementCount(dims) }, next));
}

/** Flat indices of the weights of one output channel, in the order in which kernels reduce: window positions, channels within. */
function reduction(dims: readonly number[], { axis, inputAxis }: WeightLayout, channel: number): number[] {
  const window = elementCount(dims.slice(2));
  const inputs = dims[inputAxis]!;
  return Array.from({ length: window * inputs }, (_, k) => {
    const at = [0, 0];
    at[axis] = channel;
    at[inputAxis] = k % inputs;
    return (at[0]! * dims[1]! + at[1]!) * window + Math.floor(k / inputs);
  });
}

test("codes, scales and biases are those of the formulas", () => {
  for (const [dims, layout] of [
    [[4, 3, 3, 3], CONV],
    [[4, 2, 5], GROUPED],
    [[6, 5], MATMUL],
  ] as const) {
    const weight = randomWeight(dims, 1);
    const channels = dims[layout.axis]!;
    const bias = randomWeight([channels], 2);
    const {
      q: codes,
      scale,
      biases,
    } = quantizeWeight(weight, { layout: layout, uses: [{ bias, inputScale: 0.02 }] }, EXACT);
    const values = arrayOf(weight, "float32");
    const scales = arrayOf(scale, "float32");
    for (let c = 0; c < channels; c++) {
      const mine = reduction(dims, layout, c);
      const largest = Math.max(...mine.map((i) => Math.abs(values[i]!)));
      assert.equal(scales[c], Math.fround(largest / 127));
      for (const i of mine) {
        assert.equal(arrayOf(codes, "int8")[i], roundHalfEven(Math.fround(values[i]! / scales[c]!)));
      }
      const biasScale = arrayOf(biases[0]!.scale, "float32")[c]!;
      assert.equal(biasScale, Math.fround(scales[c]! * 0.02));
      const error = arrayOf(biases[0]!.q, "int32")[c]! * biasScale - arrayOf(bias, "float32")[c]!;
      assert.ok(Math.abs(error) <= (biasScale / 2) * (1 + 1e-6));
    }
  }
});

test("one scale for all channels is that of the largest weight", () => {
  const weight = randomWeight([4, 3, 3, 3], 3);
  const { scale } = quantizeWeight(weight, { layout: CONV, uses: [] }, { ...EXACT, perChannel: false });
  assert.deepEqual(scale.dims, []);
  const largest = arrayOf(weight, "float32").reduce((max, w) => Math.max(max, Math.abs(w)), 0);
  assert.equal(arrayOf(scale, "float32")[0], Math.fround(largest / 127));
});

test("a bias that would not fit an int32 raises the scale of its channel, and of no other", () => {
  const weight = tensorOf("float32", [2, 1], [1e-6, 1e-6]);
  const bias = tensorOf("float32", [2], [300, 0.001]);
  const {
    q: codes,
    scale,
    biases,
  } = quantizeWeight(weight, { layout: CONV, uses: [{ bias, inputScale: 1e-4 }] }, EXACT);
  const biasCodes = arrayOf(biases[0]!.q, "int32");
  const scales = arrayOf(scale, "float32");
  assert.ok(scales[0]! > 1e-4 && scales[1] === Math.fround(1e-6 / 127));
  assert.ok(biasCodes[0]! > 2 ** 30, `${biasCodes[0]}`);
  assert.ok(Math.abs(biasCodes[0]! * scales[0]! * 1e-4 - 300) < 1e-4);
  assert.equal(arrayOf(codes, "int8")[1], 127);
});

test("a weight is rounded again when another bias needs another scale, and only then", () => {
  const weight = tensorOf("float32", [2, 1], [1e-6, 1e-6]);
  const scalesFor = (first: number) => {
    const bias = tensorOf("float32", [2], [first, 0.001]);
    return [
      ...arrayOf(quantizeWeight(weight, { layout: CONV, uses: [{ bias, inputScale: 1e-4 }] }, EXACT).scale, "float32"),
    ];
  };
  const plain = scalesFor(0.0001);
  assert.deepEqual(scalesFor(0.0002), plain);
  assert.ok(scalesFor(300)[0]! > 1000 * plain[0]!);
  assert.deepEqual(scalesFor(0.0001), plain);
});

test("a channel of zeros keeps its bias exact, and zeros without a bias have a harmless scale", () => {
  const weight = tensorOf("float32", [2, 2], [0, 0, 0, 0]);
  const bias = tensorOf("float32", [2], [0.7, 0]);
  const {
    q: codes,
    scale,
    biases,
  } = quantizeWeight(weight, { layout: CONV, uses: [{ bias, inputScale: 0.05 }] }, EXACT);
  assert.deepEqual([...arrayOf(codes, "int8")], [0, 0, 0, 0]);
  assert.equal(arrayOf(scale, "float32")[1], 1);
  const code = arrayOf(biases[0]!.q, "int32")[0]!;
  const restored = code * arrayOf(biases[0]!.scale, "float32")[0]!;
  assert.ok(Math.abs(restored - 0.7) < 1e-6);
  // Not the largest code that there is: what is computed with it must not run over.
  assert.ok(code > 2 ** 20 && code < 2 ** 30, `${code}`);
});

test("a weight that two nodes share has one set of codes, and a bias for each", () => {
  const weight = randomWeight([3, 4], 5);
  const bias = randomWeight([3], 6);
  const uses = [
    { bias, inputScale: 0.01 },
    { bias: undefined, inputScale: 0.5 },
    { bias, inputScale: 0.3 },
  ];
  const { biases } = quantizeWeight(weight, { layout: CONV, uses: uses }, EXACT);
  assert.equal(biases[1], undefined);
  for (const i of [0, 2]) {
    const restored = arrayOf(biases[i]!.q, "int32")[1]! * arrayOf(biases[i]!.scale, "float32")[1]!;
    assert.ok(Math.abs(restored - arrayOf(bias, "float32")[1]!) < 1e-3);
  }
});

test("pairs of products stay within 16 bits for every activation that was said to be possible", () => {
  fc.assert(
    fc.property(
      fc.constantFrom<readonly [readonly number[], WeightLayout]>(
        [[4, 3, 2, 2], CONV],
        [[4, 5], CONV],
        [[4, 2, 3], GROUPED],
        [[7, 4], MATMUL],
      ),
      fc.integer({ min: 1, max: 1000 }),
      fc.option(fc.array(fc.integer({ min: 1, max: 255 }), { minLength: 14, maxLength: 14 }), { nil: undefined }),
      ([dims, layout], seed, inputCodes) => {
        const weight = randomWeight(dims, seed);
        const codes = arrayOf(quantizeWeight(weight, { layout, uses: [], inputLimits: inputCodes }, SAFE).q, "int8");
        const inputs = dims[layout.inputAxis]!;
        const perGroup = dims[layout.axis]! / layout.groups;
        for (let c = 0; c < dims[layout.axis]!; c++) {
          const order = reduction(dims, layout, c);
          const limit = (k: number) => inputCodes?.[Math.floor(c / perGroup) * inputs + (k % inputs)] ?? 255;
          for (let k = 0; k + 1 < order.length; k += 2) {
            const [first, second] = [codes[order[k]!]!, codes[order[k + 1]!]!];
            const most = Math.max(0, first) * limit(k) + Math.max(0, second) * limit(k + 1);
            const least = Math.min(0, first) * limit(k) + Math.min(0, second) * limit(k + 1);
            assert.ok(most <= 32767 && least >= -32768, `${first}, ${second}: ${least} to ${most}`);
          }
        }
      },
    ),
  );
});

test("avoiding saturation costs less than giving up a bit, and nothing where activations are small or kernels depthwise", () => {
  const dims = [16, 32, 3, 3];
  const weight = randomWeight(dims, 9);
  const errorWith = (quantized: Int8Array, scales: Float32Array) => {
    return arrayOf(weight, "float32").reduce(
      (sum, w, i) => sum + (w - quantized[i]! * scales[Math.floor(i / 288)]!) ** 2,
      0,
    );
  };
  const errorOf = (options: WeightOptions, inputLimits?: number[]) => {
    const { q, scale } = quantizeWeight(weight, { layout: CONV, uses: [], inputLimits }, options);
    return errorWith(arrayOf(q, "int8"), arrayOf(scale, "float32"));
  };
  const exact = errorOf(EXACT);
  const values = arrayOf(weight, "float32");
  const halved = Float32Array.from({ length: 16 }, (_, c) => {
    return values.subarray(288 * c, 288 * (c + 1)).reduce((largest, w) => Math.max(largest, Math.abs(w)), 0) / 64;
  });
  const fewer = Int8Array.from(values, (w, i) => roundHalfEven(w / halved[Math.floor(i / 288)]!));
  const reduced = errorWith(fewer, halved);
  const safe = errorOf(SAFE);
  assert.ok(safe < 0.53 * reduced, `${safe} against ${reduced}`);
  assert.ok(errorOf(SAFE, new Array(32).fill(180)) < 0.28 * reduced);
  assert.equal(errorOf(SAFE, new Array(32).fill(120)), exact);
  const depthwise = randomWeight([8, 1, 3, 3], 4);
  const layout = { axis: 0, inputAxis: 1, groups: 8 };
  assert.deepEqual(
    [...quantizeWeight(depthwise, { layout, uses: [] }, SAFE).q.bytes],
    [...quantizeWeight(depthwise, { layout, uses: [] }, EXACT).q.bytes],
  );
});

test("of values that were found already, only channels whose bias does not fit at their scale are rounded to nearest", () => {
  for (const [dims, layout] of [
    [[4, 6], CONV],
    [[6, 4], MATMUL],
  ] as const) {
    const weight = randomWeight(dims, 5);
    const plain = quantizeWeight(weight, { layout, uses: [] }, EXACT);
    const scales = Float32Array.from(arrayOf(plain.scale, "float32"));
    // As a rounding by data gives them, channel by channel: other values than the nearest.
    const found = { q: new Uint8Array(24).fill(7), scales, zeroPoints: new Uint8Array(4) };
    const bias = tensorOf("float32", [4], [0, 1e9, 0.5, -0.25]);
    const context = { layout, uses: [{ bias, inputScale: 1e-3 }], rounded: found };
    const { q, scale, biases } = quantizeWeight(weight, context, EXACT);
    const nearest = quantizeWeight(weight, { layout, uses: context.uses }, EXACT);
    for (let c = 0; c < 4; c++) {
      const expected = c === 1 ? arrayOf(nearest.q, "int8") : new Int8Array(24).fill(7);
      for (const i of reduction(dims, layout, c)) assert.equal(arrayOf(q, "int8")[i], expected[i]);
      const kept = arrayOf(c === 1 ? nearest.scale : plain.scale, "float32")[c];
      assert.equal(arrayOf(scale, "float32")[c], kept);
      const restored = arrayOf(biases[0]!.q, "int32")[c]! * arrayOf(biases[0]!.scale, "float32")[c]!;
      assert.ok(Math.abs(restored - arrayOf(bias, "float32")[c]!) <= arrayOf(biases[0]!.scale, "float32")[c]!);
    }
    assert.ok(arrayOf(nearest.scale, "float32")[1]! > scales[1]!, "the bias needs a larger scale");
  }
});

test("weights of few bits use every value from the least to the largest, at the scale of the least squared error", () => {
  for (const [dims, layout] of [
    [[4, 3, 3, 3], CONV],
    [[6, 5], MATMUL],
  ] as const) {
    for (const weightBits of [4, 2] as const) {
      const [low, high] = weightBits === 4 ? [-8, 7] : [-2, 1];
      const weight = randomWeight(dims, 4);
      const values = arrayOf(weight, "float32");
      const bias = randomWeight([dims[layout.axis]!], 2);
      const context = { layout, uses: [{ bias, inputScale: 0.02 }] };
      const { q, scale } = quantizeWeight(weight, context, { ...SAFE, weightBits });
      const [codes, scales] = [arrayOf(q, "int8"), arrayOf(scale, "float32")];
      assert.deepEqual([Math.min(...codes), Math.max(...codes)], [low, high]);
      for (const [c, own] of scales.entries()) {
        const row = reduction(dims, layout, c);
        const errorAt = (s: number) =>
          row.reduce(
            (sum, i) => sum + (values[i]! - s * Math.min(Math.max(roundHalfEven(values[i]! / s), low), high)) ** 2,
            0,
          );
        const error = row.reduce((sum, i) => sum + (values[i]! - own * codes[i]!) ** 2, 0);
        const largest = Math.max(...row.map((i) => Math.abs(values[i]!)));
        assert.ok(error <= 1.000001 * errorAt(own), "every weight is at its nearest value");
        for (let part = 0.2; part <= 1; part += 0.01)
          assert.ok(error <= 1.0001 * errorAt((part * largest) / high), `${part}`);
      }
    }
  }
});

test("of few bits and one scale, all channels have the scale that is best for all of them together", () => {
  const weight = randomWeight([4, 3, 3, 3], 4);
  const { scale } = quantizeWeight(weight, { layout: CONV, uses: [] }, { ...EXACT, perChannel: false, weightBits: 4 });
  assert.deepEqual(scale.dims, []);
  const values = arrayOf(weight, "float32");
  const errorAt = (s: number) =>
    values.reduce((sum, w) => sum + (w - s * Math.min(Math.max(roundHalfEven(w / s), -8), 7)) ** 2, 0);
  const largest = values.reduce((a, w) => Math.max(a, Math.abs(w)), 0);
  const best = Array.from({ length: 81 }, (_, i) => errorAt(((1 - i / 100) * largest) / 7)).reduce((a, b) =>
    Math.min(a, b),
  );
  assert.ok(errorAt(arrayOf(scale, "float32")[0]!) <= 1.0001 * best);
});
