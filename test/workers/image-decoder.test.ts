import assert from "node:assert/strict";
import { describe, it } from "node:test";
import sharp from "sharp";
import { imageDecoder } from "../../workers/image-decoder.ts";
import { type Png, writePng } from "../support/png.ts";

const MAX_PIXELS = 1_000_000;
const decode = (file: Uint8Array, maxPixels = MAX_PIXELS) => imageDecoder.decode(file, maxPixels);
const png = (
  width: number,
  colorType: Png["colorType"],
  depth: Png["depth"],
  data: readonly number[],
  palette?: readonly number[],
) =>
  writePng({
    width,
    height: 1,
    colorType,
    depth,
    data: Uint8Array.from(data),
    ...(palette && { palette: Uint8Array.from(palette) }),
  });
/** Two pixels of 16 bits, big-endian. */
const words = (...values: number[]) => values.flatMap((value) => [value >> 8, value & 255]);

/** Left to right: red, green, blue and white, each 16 pixels wide. */
const BLOCKS = {
  width: 64,
  height: 16,
  data: Buffer.from(
    Array.from(
      { length: 64 * 16 },
      (_, i) =>
        [
          [255, 0, 0],
          [0, 255, 0],
          [0, 0, 255],
          [255, 255, 255],
        ][(i % 64) >> 4]!,
    ).flat(),
  ),
};
const blocks = () => sharp(BLOCKS.data, { raw: { width: 64, height: 16, channels: 3 } });

function assertNear(actual: Uint8Array, expected: Uint8Array, tolerance: number): void {
  assert.equal(actual.length, expected.length);
  for (const [i, value] of actual.entries()) {
    assert.ok(Math.abs(value - expected[i]!) <= tolerance, `byte ${i}: ${value} and ${expected[i]}`);
  }
}

describe("pixels of a PNG", () => {
  const cases: [string, Buffer, number[]][] = [
    ["RGB", png(2, 2, 8, [1, 2, 3, 250, 251, 252]), [1, 2, 3, 250, 251, 252]],
    ["gray", png(3, 0, 8, [0, 100, 255]), [0, 0, 0, 100, 100, 100, 255, 255, 255]],
    ["black and white", png(3, 0, 1, [0b10100000]), [255, 255, 255, 0, 0, 0, 255, 255, 255]],
    ["a palette", png(3, 3, 8, [2, 0, 1], [1, 2, 3, 4, 5, 6, 7, 8, 9]), [7, 8, 9, 1, 2, 3, 4, 5, 6]],
    [
      "transparency, over white",
      png(3, 6, 8, [10, 20, 30, 255, 10, 20, 30, 0, 0, 0, 0, 102]),
      [10, 20, 30, 255, 255, 255, 153, 153, 153],
    ],
    ["gray with transparency", png(2, 4, 8, [7, 255, 7, 0]), [7, 7, 7, 255, 255, 255]],
    [
      "16 bits, of which the upper 8 are taken",
      png(3, 2, 16, words(0, 0x1234, 0xffff, 0x00ff, 0x0100, 0x8000, 0xfe80, 0xfeff, 0xff00)),
      [0, 0x12, 0xff, 0, 1, 0x80, 0xfe, 0xfe, 0xff],
    ],
    ["gray of 16 bits", png(2, 0, 16, words(0x1234, 0xff00)), [0x12, 0x12, 0x12, 0xff, 0xff, 0xff]],
  ];
  for (const [name, file, expected] of cases) {
    it(name, async () => {
      const { data, ...size } = await decode(file);
      assert.deepEqual([...data], expected);
      assert.deepEqual(size, { height: 1, width: expected.length / 3 });
      await imageDecoder.check(file, MAX_PIXELS);
    });
  }
});

describe("other formats", () => {
  const lossless = {
    webp: () => blocks().webp({ lossless: true }),
    tiff: () => blocks().tiff({ compression: "lzw" }),
    gif: () => blocks().gif(),
  };
  for (const [name, make] of Object.entries(lossless)) {
    it(`${name}, exactly`, async () => {
      assert.deepEqual(Buffer.from((await decode(await make().toBuffer())).data), BLOCKS.data);
    });
  }

  it("JPEG and AVIF, nearly", async () => {
    const options = { quality: 100, chromaSubsampling: "4:4:4" };
    // Of 255: what the formats lose on blocks of one colour. A channel or a pixel in the wrong place is off by 60 and more.
    assertNear((await decode(await blocks().jpeg(options).toBuffer())).data, BLOCKS.data, 4);
    assertNear((await decode(await blocks().avif(options).toBuffer())).data, BLOCKS.data, 24);
  });

  it("JPEG of four inks", async () => {
    const file = await blocks().toColourspace("cmyk").jpeg({ quality: 100, chromaSubsampling: "4:4:4" }).toBuffer();
    assert.equal((await sharp(file).metadata()).space, "cmyk");
    const { data } = await decode(file);
    // Inks do not have every color of a screen; which block is which is plain all the same.
    for (const [block, channel] of [
      [0, 0],
      [1, 1],
      [2, 2],
    ] as const) {
      const at = (block * 16 + 8) * 3;
      const pixel = [...data.subarray(at, at + 3)];
      assert.equal(pixel.indexOf(Math.max(...pixel)), channel, `${pixel}`);
    }
    assertNear(data.subarray(56 * 3, 57 * 3), new Uint8Array([255, 255, 255]), 4);
  });

  it("a gray JPEG", async () => {
    const file = await blocks().toColourspace("b-w").jpeg().toBuffer();
    const { data, width, height } = await decode(file);
    assert.equal(data.length, width * height * 3);
  });

  it("upright, as the camera has noted it", async () => {
    // 6: what is stored has to be turned by 90 degrees clockwise.
    const file = await blocks().png().withMetadata({ orientation: 6 }).toBuffer();
    const { data, width, height } = await decode(file);
    assert.deepEqual([width, height], [16, 64]);
    assert.deepEqual([...data.subarray(0, 3)], [255, 0, 0]);
    assert.deepEqual([...data.subarray(-3)], [255, 255, 255]);
  });

  it("the first frame of an animation", async () => {
    const frames = Buffer.concat([Buffer.alloc(48, 10), Buffer.alloc(48, 200)]);
    const file = await sharp(frames, { raw: { width: 4, height: 8, channels: 3, pageHeight: 4 } })
      .gif({ delay: [1, 1] })
      .toBuffer();
    assert.equal((await sharp(file).metadata()).pages, 2);
    const { data, width, height } = await decode(file);
    assert.deepEqual([width, height], [4, 4]);
    assert.ok(data.every((value) => value === data[0] && value < 50));
  });
});

describe("refusals", () => {
  const noise = Buffer.from(Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7919) % 251));
  const raw = () => sharp(noise, { raw: { width: 64, height: 64, channels: 3 } });

  it("of files cut short, whatever the format", async () => {
    for (const file of [
      await raw().jpeg().toBuffer(),
      await raw().png().toBuffer(),
      await raw().webp().toBuffer(),
      await raw().tiff().toBuffer(),
    ]) {
      await decode(file);
      await assert.rejects(decode(file.subarray(0, file.length * 0.6)), Error);
    }
  });

  it("of more pixels than allowed, before they are decoded", async () => {
    const bomb = writePng({ width: 20_000, height: 20_000, colorType: 0, depth: 1, data: Buffer.alloc(2500 * 20_000) });
    assert.ok(bomb.length < 100_000);
    const before = process.memoryUsage.rss();
    await assert.rejects(decode(bomb), /pixel limit/);
    await assert.rejects(imageDecoder.check(bomb, MAX_PIXELS), /20000 × 20000 pixels|pixel limit/);
    assert.ok(process.memoryUsage.rss() - before < 200 * 2 ** 20);
  });

  it("of drawings, documents and everything else", async () => {
    const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>';
    for (const text of [svg, "%PDF-1.4\n", "P6 1 1 255 abc", "BM", "", "text"]) {
      await assert.rejects(decode(Buffer.from(text)), Error, text);
      await assert.rejects(imageDecoder.check(Buffer.from(text), MAX_PIXELS), Error, text);
    }
  });
});
