import assert from "node:assert/strict";
import { test } from "node:test";
import { CoreError } from "../../../src/core/errors.ts";
import { floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { type AugmentationSpec, augmentImages, checkAugmentable } from "../../../src/core/train/augment.ts";

const FILL = -9;
const NONE: AugmentationSpec = { flip: false, shiftPixels: 0, cutoutPixels: 0, fill: FILL };
/** Sample i holds 100 i + 10 row + column in every channel, so that every pixel says where it came from. */
const images = (n: number) =>
  tensorOf(
    "float32",
    [n, 2, 4, 5],
    Float32Array.from({ length: n * 40 }, (_, i) => 100 * Math.floor(i / 40) + 10 * (Math.floor(i / 5) % 4) + (i % 5)),
  );
const augment = (spec: Partial<AugmentationSpec>, samples: number[], epoch = 0, seed = 3) =>
  floatsOf(augmentImages(images(samples.length), { ...NONE, ...spec }, { seed, epoch, samples }));

test("without changes the images stay as they are", () => {
  assert.deepEqual(augment({}, [0, 1]), floatsOf(images(2)));
});

test("a flip mirrors whole images, about half of them", () => {
  const n = 200;
  const result = augment({ flip: true }, [...Array(n).keys()]);
  let flipped = 0;
  for (let i = 0; i < n; i++) {
    const row = [...result.subarray(i * 40, i * 40 + 5)].map((x) => x - 100 * i);
    const mirrored = row[0] === 4;
    if (mirrored) flipped++;
    assert.deepEqual(row, mirrored ? [4, 3, 2, 1, 0] : [0, 1, 2, 3, 4]);
  }
  assert.ok(flipped > 70 && flipped < 130, `${flipped} of ${n}`);
});

test("a shift moves all channels alike and fills what comes in", () => {
  const n = 100;
  const result = augment({ shiftPixels: 2 }, [...Array(n).keys()]);
  const seen = new Set<string>();
  for (let i = 0; i < n; i++) {
    const pixels = result.subarray(i * 40, (i + 1) * 40);
    assert.deepEqual(pixels.slice(0, 20), pixels.slice(20));
    const at = pixels.findIndex((x) => x !== FILL);
    const value = pixels[at]! - 100 * i;
    const [down, right] = [Math.floor(at / 5) - Math.floor(value / 10), (at % 5) - (value % 10)];
    seen.add(`${down},${right}`);
    for (let y = 0; y < 4; y++) {
      for (let x = 0; x < 5; x++) {
        const inside = y - down >= 0 && y - down < 4 && x - right >= 0 && x - right < 5;
        assert.equal(pixels[y * 5 + x], inside ? 100 * i + 10 * (y - down) + (x - right) : FILL);
      }
    }
  }
  assert.equal(seen.size, 25);
});

test("a cutout covers one square, cut off at the border", () => {
  const result = augment({ cutoutPixels: 2 }, [...Array(50).keys()]);
  for (let i = 0; i < 50; i++) {
    const cut = [...result.subarray(i * 40, i * 40 + 20)].flatMap((x, at) => (x === FILL ? [at] : []));
    const rows = new Set(cut.map((at) => Math.floor(at / 5)));
    const columns = new Set(cut.map((at) => at % 5));
    assert.ok(rows.size <= 2 && columns.size <= 2 && cut.length === rows.size * columns.size && cut.length > 0);
  }
});

test("what a sample becomes depends on seed, epoch and sample, not on its batch", () => {
  const spec = { flip: true, shiftPixels: 2, cutoutPixels: 2 };
  const of = (samples: number[], epoch: number, seed: number) => {
    const all = augmentImages(images(1), { ...NONE, ...spec }, { seed, epoch, samples });
    return [...floatsOf(all)];
  };
  const both = augmentImages(
    tensorOf("float32", [2, 2, 4, 5], [...floatsOf(images(1)), ...floatsOf(images(1))]),
    { ...NONE, ...spec },
    { seed: 1, epoch: 5, samples: [17, 4] },
  );
  assert.deepEqual([...floatsOf(both).subarray(40)], of([4], 5, 1));
  const variants = new Set([of([4], 5, 1), of([4], 6, 1), of([5], 5, 1), of([4], 5, 2)].map(String));
  assert.equal(variants.size, 4);
});

test("only float32 images can be augmented", () => {
  checkAugmentable("x", images(1));
  for (const tensor of [
    tensorOf("float32", [2, 3], [1, 2, 3, 4, 5, 6]),
    tensorOf("float64", [1, 1, 1, 2], [1, 2]),
    tensorOf("uint8", [1, 1, 1, 2], [1, 2]),
  ]) {
    assert.throws(
      () => checkAugmentable("x", tensor),
      (error) => error instanceof CoreError && error.code === "invalid_params" && error.subject === "x",
    );
  }
});
