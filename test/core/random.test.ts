import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { philox, Random } from "../../src/core/random.ts";

describe("philox", () => {
  // Known answers of the paper's reference implementation (Random123, kat_vectors, philox4x32 with 10 rounds).
  const cases = [
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ] as const;
  for (const [counter, key, expected] of cases) {
    it(`gives the reference words for counter ${counter}`, () => {
      const words = new Uint32Array(4);
      philox(counter, key, words);
      assert.deepEqual([...words], expected);
    });
  }
});

describe("Random", () => {
  const draw = (random: Random, count = 20) => Array.from({ length: count }, () => random.uint32());

  it("depends on the seed and the stream alone", () => {
    assert.deepEqual(draw(new Random(7, "a")), draw(new Random(7, "a")));
    assert.notDeepEqual(draw(new Random(7, "a")), draw(new Random(8, "a")));
    assert.notDeepEqual(draw(new Random(7, "a")), draw(new Random(7, "b")));
  });

  it("resumes from a position, past 2^32 blocks too", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 52 }), fc.nat(9), (start, skip) => {
        const whole = draw(new Random(3, "s", start), skip + 5);
        assert.deepEqual(draw(new Random(3, "s", start + skip), 5), whole.slice(skip));
      }),
    );
    assert.notDeepEqual(draw(new Random(3, "s", 2 ** 34)), draw(new Random(3, "s", 0)));
  });

  it("draws uniform numbers in [0, 1)", () => {
    const random = new Random(1);
    let sum = 0;
    let squares = 0;
    const count = 100_000;
    for (let i = 0; i < count; i++) {
      const x = random.uniform();
      assert.ok(x >= 0 && x < 1);
      sum += x;
      squares += x * x;
    }
    // Five standard errors: sqrt(1/12/n) for the mean, sqrt(4/45/n) for the mean square.
    assert.ok(Math.abs(sum / count - 1 / 2) < 5 * Math.sqrt(1 / 12 / count));
    assert.ok(Math.abs(squares / count - 1 / 3) < 5 * Math.sqrt(4 / 45 / count));
  });

  it("draws normal numbers of mean 0, variance 1 and kurtosis 3", () => {
    const random = new Random(2);
    const count = 100_000;
    const moments = [0, 0, 0, 0];
    const values = new Float64Array(count);
    random.fillNormal(values);
    for (const x of values) {
      for (let p = 0; p < 4; p++) moments[p]! += x ** (p + 1) / count;
    }
    // Five standard errors, from the moments of the normal distribution: Var x^p = E x^2p - (E x^p)^2 = 1, 2, 15, 96.
    [0, 1, 0, 3].forEach((expected, p) => {
      const tolerance = 5 * Math.sqrt([1, 2, 15, 96][p]! / count);
      assert.ok(Math.abs(moments[p]! - expected) < tolerance, `moment ${p + 1}: ${moments[p]}`);
    });
  });

  it("draws every integer below the bound about as often", () => {
    const random = new Random(5);
    const counts = new Array<number>(7).fill(0);
    for (let i = 0; i < 70_000; i++) counts[random.integer(7)]!++;
    // Chi-square with 6 degrees of freedom: 27.9 is the 99.99 % point.
    const chiSquare = counts.reduce((sum, count) => sum + (count - 10_000) ** 2 / 10_000, 0);
    assert.ok(chiSquare < 27.9, `${chiSquare}`);
    assert.equal(new Random(5).integer(1), 0);
  });

  it("permutes", () => {
    fc.assert(
      fc.property(fc.nat(200), fc.nat(), (count, seed) => {
        const order = new Random(seed).permutation(count);
        assert.deepEqual(
          [...order].sort((a, b) => a - b),
          Array.from({ length: count }, (_, i) => i),
        );
      }),
    );
    assert.notDeepEqual([...new Random(1).permutation(50)], [...new Random(2).permutation(50)]);
  });
});
