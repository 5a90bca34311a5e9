import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import fc from "fast-check";
import { trueTypeOfWoff, useDemoFont } from "../../scripts/demo/font.ts";
import {
  characterAccuracy,
  decodeLine,
  detectionInput,
  editDistance,
  recognitionInput,
} from "../../scripts/demo/ocr.ts";
import { SAMPLE_RATE_HZ, speak } from "../../scripts/demo/speech.ts";
import { drawTextLines, LINE_HEIGHT, pageOf } from "../../scripts/demo/text-lines.ts";
import { Random } from "../../src/core/random.ts";

describe("text lines", () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "demo-data-"));
    await useDemoFont(folder);
  });
  after(() => rm(folder, { recursive: true }));

  test("a WOFF font becomes TrueType tables with the checksums that its directory names", async () => {
    const path = createRequire(import.meta.url).resolve(
      "@fontsource/noto-sans-sc/files/noto-sans-sc-latin-400-normal.woff",
    );
    const font = trueTypeOfWoff(await readFile(path));
    const tables = font.readUInt16BE(4);
    assert.ok(tables > 10);
    for (let i = 0; i < tables; i++) {
      const entry = 12 + 16 * i;
      const tag = font.toString("latin1", entry, entry + 4);
      const [checksum, offset, length] = [4, 8, 12].map((at) => font.readUInt32BE(entry + at)) as [
        number,
        number,
        number,
      ];
      assert.equal(offset % 4, 0, tag);
      let sum = 0;
      // "head" holds a checksum of the whole file in bytes 8 to 12, which count as zero.
      for (let at = offset; at < offset + length; at += 4) {
        if (tag !== "head" || at !== offset + 8) sum = (sum + font.readUInt32BE(at)) >>> 0;
      }
      assert.equal(sum, checksum, tag);
    }
    assert.throws(() => trueTypeOfWoff(Buffer.from("wOF2 and more bytes")), /WOFF 1.0/);
  });

  test("are the same for the same seed, and fit", async () => {
    const [first, again, other] = await Promise.all([1, 1, 2].map((seed) => drawTextLines(6, new Random(seed), 320)));
    assert.deepEqual(first, again);
    assert.notDeepEqual(first, other);
    for (const { text, picture } of first!) {
      assert.ok(text.length > 0 && picture.width <= 320 && picture.height === LINE_HEIGHT, text);
      // Ink is at most 90 of 255, paper at least 200.
      assert.ok(picture.rgb.some((value) => value < 100) && picture.rgb.some((value) => value > 190), text);
    }
    const page = pageOf(first!.slice(0, 5), 320, new Random(1));
    assert.equal(page.rgb.length, 320 * 320 * 3);
    assert.throws(() => pageOf(first!, 200, new Random(1)), /does not fit/);
  });

  test("go into the models as normalized blue, green and red planes", () => {
    const picture = { width: 2, height: 1, rgb: Uint8Array.of(255, 0, 51, 0, 255, 102) };
    const { dims, data } = recognitionInput([picture], 3);
    assert.deepEqual(dims, [1, 3, 1, 3]);
    const expected = [51 / 127.5 - 1, 102 / 127.5 - 1, 0, -1, 1, 0, 1, -1, 0];
    for (const [i, value] of expected.entries()) assert.ok(Math.abs(data[i]! - value) < 1e-6, `${i}`);
    assert.ok(Math.abs(detectionInput([picture]).data[0]! - (0.2 - 0.485) / 0.229) < 1e-6);
  });
});

describe("reading", () => {
  test("merges repeats, drops blanks, keeps letters that a blank divides", () => {
    const alphabet = ["", "a", "b"];
    const steps = [1, 1, 0, 1, 2, 2, 0, 0, 2];
    const scores = Float32Array.from(steps.flatMap((best) => alphabet.map((_, i) => (i === best ? 0.9 : 0.05))));
    assert.equal(decodeLine(scores, alphabet), "aabb");
  });

  test("the edit distance is a metric, and counts code points", () => {
    const word = fc.string({ unit: "grapheme", maxLength: 8 });
    fc.assert(
      fc.property(word, word, word, (a, b, c) => {
        const distance = editDistance(a, b);
        assert.equal(distance === 0, a === b);
        assert.equal(distance, editDistance(b, a));
        assert.ok(distance <= editDistance(a, c) + editDistance(c, b));
        assert.ok(distance <= Math.max([...a].length, [...b].length));
      }),
    );
    assert.equal(editDistance("kitten", "sitting"), 3);
    assert.equal(editDistance("\u{20000}", ""), 1);
  });

  test("the accuracy counts characters over all lines", () => {
    const lines = [
      { expected: "abcd", read: "abxd" },
      { expected: "文字识别", read: "文字识别" },
      { expected: "ab", read: "" },
    ];
    assert.equal(characterAccuracy(lines), 1 - 3 / 10);
  });
});

describe("speech", () => {
  test("is loud where it is marked as speech and faint between", () => {
    const { samples, voiced } = speak(5, new Random(3));
    assert.equal(samples.length, 5 * SAMPLE_RATE_HZ);
    const power = (kind: number) => {
      const chosen = samples.filter((_, i) => voiced[i] === kind);
      return chosen.reduce((sum, value) => sum + value * value, 0) / chosen.length;
    };
    assert.ok(power(1) > 1e3 * power(0), `${power(1)} ${power(0)}`);
    assert.deepEqual(speak(5, new Random(3)).samples, samples);
  });
});
