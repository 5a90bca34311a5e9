import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { bootstrap, type Interval, pairedDifference, wilson } from "../../src/core/intervals.ts";
import { Random } from "../../src/core/random.ts";

function near([low, high]: Interval, expected: Interval, tolerance: number): void {
  assert.ok(Math.abs(low - expected[0]) <= tolerance, `${low} is not ${expected[0]}`);
  assert.ok(Math.abs(high - expected[1]) <= tolerance, `${high} is not ${expected[1]}`);
}

/** ln(n!) as a sum: exact enough, and of no approximation's making. */
function logFactorial(n: number): number {
  let sum = 0;
  for (let i = 2; i <= n; i++) sum += Math.log(i);
  return sum;
}

const binomial = (n: number, k: number, p: number) =>
  Math.exp(logFactorial(n) - logFactorial(k) - logFactorial(n - k) + k * Math.log(p) + (n - k) * Math.log1p(-p));

describe("wilson", () => {
  it("gives the ends of published tables", () => {
    // Newcombe (1998a), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    near(wilson(81, 263), [0.2553, 0.3662], 5e-5);
    near(wilson(15, 148), [0.0624, 0.1605], 5e-5);
    near(wilson(0, 20), [0, 0.1611], 5e-5);
    near(wilson(1, 29), [0.0061, 0.1718], 5e-5);
    assert.deepEqual([wilson(0, 20)[0], wilson(20, 20)[1]], [0, 1]);
  });

  it("holds the true share as often as it says, by summing over all outcomes", () => {
    for (const p of [0.5, 0.9, 0.97]) {
      let held = 0;
      for (let k = 0; k <= 200; k++) {
        const [low, high] = wilson(k, 200);
        if (low <= p && p <= high) held += binomial(200, k, p);
      }
      assert.ok(held > 0.93 && held < 0.975, `${p}: ${held}`);
    }
  });
});

describe("pairedDifference", () => {
  it("is the adjusted Wald interval of Agresti and Min", () => {
    // Approval of a prime minister, asked twice (Agresti and Min 2005): 150 and 86 of 1600 changed their minds.
    const [b, c, n] = [150.5, 86.5, 1602];
    const difference = (b - c) / n;
    const half = (1.959963984540054 * Math.sqrt(b + c - (b - c) ** 2 / n)) / n;
    near(pairedDifference(150, 86, 1600), [difference - half, difference + half], 1e-12);
    near(pairedDifference(150, 86, 1600), [0.0212, 0.0587], 5e-4);
  });

  it("holds the true difference in about 95 % of draws, where models differ in few samples", () => {
    const [first, second, trials] = [0.02, 0.01, 500];
    const random = new Random(1, "pairs");
    let held = 0;
    const draws = 2000;
    for (let draw = 0; draw < draws; draw++) {
      let [b, c] = [0, 0];
      for (let i = 0; i < trials; i++) {
        const u = random.uniform();
        if (u < first) b++;
        else if (u < first + second) c++;
      }
      const [low, high] = pairedDifference(b, c, trials);
      if (low <= first - second && first - second <= high) held++;
    }
    assert.ok(held / draws > 0.935 && held / draws < 0.975, `${held / draws}`);
  });

  it("does not shrink to nothing when the models agree everywhere", () => {
    const [low, high] = pairedDifference(0, 0, 100);
    assert.ok(low < -0.01 && high > 0.01);
  });
});

describe("bootstrap", () => {
  it("of a mean is the normal interval, for many samples", () => {
    const values = new Float64Array(1000);
    new Random(2).fillNormal(values);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const error = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0)) / values.length;
    const interval = bootstrap(values.length, (weights) => {
      let sum = 0;
      for (const [i, weight] of weights.entries()) sum += weight * values[i]!;
      return sum / values.length;
    })!;
    near(interval, [mean - 1.96 * error, mean + 1.96 * error], 0.2 * error);
  });

  it("draws the same with the same seed, and says nothing of a single sample", () => {
    const share = (weights: Uint32Array) => weights[0]! / 10;
    assert.deepEqual(bootstrap(10, share, 5), bootstrap(10, share, 5));
    assert.equal(bootstrap(1, share), undefined);
  });
});
