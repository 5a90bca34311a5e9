import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import fc from "fast-check";
import { type Framing, frameImage, normalization, sampleShape } from "../../../src/core/data/image-frame.ts";
import { type Pixels, resample } from "../../../src/core/data/resample.ts";

const WIDTH = 37;
const HEIGHT = 23;

/** An image that the reference program made, too. */
const IMAGE: Pixels = {
  height: HEIGHT,
  width: WIDTH,
  data: Uint8Array.from({ length: WIDTH * HEIGHT * 3 }, (_, at) => {
    const i = Math.floor(at / 3);
    return [i * 7 + 3, i * 13 + 5, i * 29 + 7][at % 3]! % 256;
  }),
};

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const whole = (height: number, width: number) => ({ top: 0, left: 0, height, width });
const framing = (size: Framing["size"], rest: Partial<Framing> = {}): Framing => ({
  ...{ size, layout: "NHWC", color: "rgb", resize: "stretch" },
  ...rest,
});

/** Of the bytes that Pillow 13.0 makes of the image with resize(…, BILINEAR), by width and height. */
const PILLOW: readonly [width: number, height: number, sha256: string][] = [
  [16, 16, "f09e59bd422899eb9dfab90691c8fd3bd6071084c23279de19f37886cdcb9dd4"],
  [50, 40, "96cb3bf566b36ab6860084b6a318c307d2a7cffd889bc8e2daf7b6f49861680c"],
  [9, 31, "7ce60eebcb0fdc2ae514add6d545188504f74dd65051a794e4adeeb685230068"],
  [37, 5, "2c7cf5b54df7110bb178617577976f8c329f8f0e71c26e25bd32bcae5a780599"],
  [1, 1, "01163322fb88bdb1dde8913e59fa0c1a1c76d9ba0702686dea583073d09e7f1d"],
];

describe("resample", () => {
  for (const [width, height, expected] of PILLOW) {
    it(`makes Pillow's bytes at ${width} × ${height}`, () => {
      assert.equal(sha256(resample(IMAGE, { height, width }, whole(height, width)).data), expected);
    });
  }

  it("weighs by the area of a triangle: a tiny image by hand", () => {
    // 4 pixels to 2: the triangle is 4 wide and reaches 3 of them, with weights 3 : 3 : 1.
    const data = new Uint8Array([0, 0, 0, 70, 70, 70, 140, 140, 140, 210, 210, 210]);
    const { data: halved } = resample({ height: 1, width: 4, data }, { height: 1, width: 2 }, whole(1, 2));
    assert.deepEqual([halved[0], halved[3]], [(3 * 0 + 3 * 70 + 140) / 7, (70 + 3 * 140 + 3 * 210) / 7]);
  });

  it("leaves an image of the same size alone, and an even one even; a region is that part of the whole", () => {
    const side = fc.integer({ min: 1, max: 12 });
    fc.assert(
      fc.property(side, side, side, side, fc.nat(255), (height, width, toHeight, toWidth, value) => {
        const noise = Uint8Array.from({ length: height * width * 3 }, (_, i) => (i * 97 + value) % 256);
        const image = { height, width, data: noise };
        assert.deepEqual(resample(image, image, whole(height, width)).data, noise);
        const even = { ...image, data: noise.map(() => value) };
        const to = { height: toHeight, width: toWidth };
        const all = whole(toHeight, toWidth);
        assert.ok(resample(even, to, all).data.every((pixel) => pixel === value));
        const corner = { top: toHeight >> 1, left: toWidth >> 1, height: 1, width: 1 };
        const at = (corner.top * toWidth + corner.left) * 3;
        assert.deepEqual(resample(image, to, corner).data, resample(image, to, all).data.slice(at, at + 3));
      }),
    );
  });
});

describe("frameImage", () => {
  it("crops as torchvision's Resize and CenterCrop of a PIL image do", () => {
    const crop = frameImage(IMAGE, framing([12, 12], { resize: "crop" }));
    assert.equal(sha256(crop), "6535856b638e14a926faf40855dddee967ed5008f997bdd83fa996352315544f");
    const inner = frameImage(IMAGE, framing([13, 13], { resize: "crop", shorter_side: 16 }));
    assert.equal(sha256(inner), "a9ae0ab69682e2a5f6ca87e98f629f00d0a80cf347e8f6d1d813b75883270314");
  });

  it("crops from the middle, where a half goes to the even side; the longer side may be either", () => {
    for (let rest = 0; rest < 9; rest++) {
      const [short, long] = [3, 3 + rest];
      // Half to even, as Python rounds.
      const start = rest % 2 === 0 ? rest / 2 : [0, 2, 2, 4][(rest - 1) / 2]!;
      const expected = [start, start + 1, start + 2];
      const crop = (height: number, width: number, value: (y: number, x: number) => number) => {
        const data = Uint8Array.from({ length: height * width * 3 }, (_, i) => {
          const pixel = Math.floor(i / 3);
          return value(Math.floor(pixel / width), pixel % width);
        });
        const sample = frameImage({ height, width, data }, framing([3, 3], { resize: "crop", color: "gray" }));
        return [...sample];
      };
      assert.deepEqual(
        crop(short, long, (_y, x) => x),
        [...expected, ...expected, ...expected],
      );
      assert.deepEqual(
        crop(long, short, (y) => y),
        expected.flatMap((y) => [y, y, y]),
      );
    }
  });

  it("pads to the middle of a frame", () => {
    const padded = frameImage(IMAGE, framing([20, 20], { resize: "pad", pad_value: 114 }));
    assert.equal(sha256(padded), "aaa030e9bf0bd8c2b37648ad62613b05522d09a1b1d8e3378f1062116e1c8791");
  });

  it("makes gray as Pillow's mode L does", () => {
    const gray = frameImage(IMAGE, framing([HEIGHT, WIDTH], { color: "gray" }));
    assert.equal(sha256(gray), "a20b8ae40ccea8c20121559d38fec237b3fc9edd6d32aed35b7ff431ca630813");
  });

  it("orders channels and lays them out", () => {
    const two: Pixels = { height: 1, width: 2, data: new Uint8Array([1, 2, 3, 4, 5, 6]) };
    const as = (rest: Partial<Framing>) => [...frameImage(two, framing([1, 2], rest))];
    assert.deepEqual(as({}), [1, 2, 3, 4, 5, 6]);
    assert.deepEqual(as({ color: "bgr" }), [3, 2, 1, 6, 5, 4]);
    assert.deepEqual(as({ layout: "NCHW" }), [1, 4, 2, 5, 3, 6]);
    assert.deepEqual(as({ layout: "NCHW", color: "bgr" }), [3, 6, 2, 5, 1, 4]);
    assert.deepEqual(sampleShape(framing([1, 2])), [1, 2, 3]);
    assert.deepEqual(sampleShape(framing([1, 2], { layout: "NCHW", color: "gray" })), [1, 1, 2]);
  });

  it("frames any image in any frame, and long thin ones in the same memory", () => {
    const side = fc.integer({ min: 1, max: 40 });
    const resize = fc.constantFrom("stretch", "crop", "pad");
    fc.assert(
      fc.property(side, side, side, side, resize, (height, width, toHeight, toWidth, how) => {
        const image = { height, width, data: new Uint8Array(height * width * 3).fill(200) };
        const sample = frameImage(image, framing([toHeight, toWidth], { resize: how }));
        assert.equal(sample.length, toHeight * toWidth * 3);
        const lit = sample.reduce((count, pixel) => count + Number(pixel === 200), 0);
        if (how === "pad") assert.ok(lit >= 3 * Math.min(toHeight, toWidth));
        else assert.equal(lit, sample.length);
      }),
    );
    const thread = { height: 1, width: 60_000, data: new Uint8Array(180_000).fill(9) };
    assert.ok(frameImage(thread, framing([512, 512], { resize: "crop" })).every((pixel) => pixel === 9));
  });
});

describe("normalization", () => {
  it("is (pixel · scale − mean) / std, channel by channel in both layouts", () => {
    const pixels = new Uint8Array([0, 255, 128, 7, 64, 200, 0, 255, 128, 7, 64, 200]); // Two samples.
    const [mean, std] = [
      [0.5, 0.25, 0.125],
      [0.5, 0.2, 0.3],
    ];
    for (const [layout, channelAt] of [
      ["NCHW", (i: number) => (i >> 1) % 3],
      ["NHWC", (i: number) => i % 3],
    ] as const) {
      const { decode } = normalization({ ...framing([1, 2], { layout }), mean, std });
      const floats = new Float32Array(decode(pixels).buffer);
      const expected = Float32Array.from(
        pixels,
        (pixel, i) => (pixel * (1 / 255) - mean[channelAt(i)]!) / std[channelAt(i)]!,
      );
      assert.deepEqual(floats, expected);
    }
    const plain = normalization({ ...framing([1, 1]), scale: 1 });
    assert.deepEqual([...new Float32Array(plain.decode(new Uint8Array([1, 2, 3])).buffer)], [1, 2, 3]);
  });
});
