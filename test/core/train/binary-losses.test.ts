import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { CoreError } from "../../../src/core/errors.ts";
import { elementCount, floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { binaryCrossEntropy, distillationBinaryKl, logOddsOf, oneVersusRest } from "../../../src/core/train/losses.ts";
import { lossValue } from "../../support/loss-value.ts";

const floats = (dims: readonly number[], data: readonly number[]) => tensorOf("float32", dims, data);
const integers = (dims: readonly number[], data: readonly number[]) => tensorOf("int64", dims, data);
/** Log-odds without a pattern, a few of them so large that a share in float32 is 0 or 1. */
const odds = (dims: readonly number[], phase: number) =>
  floats(
    dims,
    Array.from({ length: elementCount(dims) }, (_, i) => Math.sin(1.7 * i + phase) * (i % 5 === 0 ? 40 : 3)),
  );

/** Within 1e-5 of the larger of 1 and what is expected: float32 against float64. */
function near(actual: number, expected: number): void {
  const tolerance = 1e-5 * Math.max(1, Math.abs(expected));
  assert.ok(Math.abs(actual - expected) <= tolerance, `${actual}, expected ${expected}`);
}

// ---- float64 references ----------------------------------------------------------------------------------------------

const sigmoid = (z: number) => 1 / (1 + Math.exp(-z));
/** −log σ(z) */
const softplus = (z: number) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z)));
const entropy = (z: number, y: number) => y * softplus(-z) + (1 - y) * softplus(z);
const mean = (values: readonly number[]) => values.reduce((sum, x) => sum + x, 0) / values.length;

describe("losses of shares against the formula in double precision", () => {
  const s = odds([4, 5], 0.3);
  const z = [...floatsOf(s)];
  const y = z.map((_, i) => ((i * 7) % 3 === 0 ? 1 : 0));

  for (const smoothing of [0, 0.2]) {
    test(`binary cross-entropy, value and gradient, with smoothing ${smoothing}`, async () => {
      const q = y.map((label) => label * (1 - smoothing) + smoothing / 2);
      const { loss, gradient } = await lossValue({ s, y: integers([4, 5], y) }, (g, v) =>
        binaryCrossEntropy(g, v.s!, v.y!, smoothing),
      );
      near(loss, mean(z.map((x, i) => entropy(x, q[i]!))));
      for (const [i, slope] of gradient.entries()) near(slope * z.length, sigmoid(z[i]!) - q[i]!);
    });
  }

  test("labels that are ignored count in neither", async () => {
    const labels = y.map((label, i) => (i % 4 === 1 ? -1 : label));
    const { loss, gradient } = await lossValue({ s, y: integers([4, 5], labels) }, (g, v) =>
      binaryCrossEntropy(g, v.s!, v.y!, 0, -1),
    );
    const counted = labels.flatMap((label, i) => (label === -1 ? [] : [i]));
    near(loss, mean(counted.map((i) => entropy(z[i]!, labels[i]!))));
    for (const [i, slope] of gradient.entries()) {
      near(slope * counted.length, labels[i] === -1 ? 0 : sigmoid(z[i]!) - labels[i]!);
    }
  });

  test("labels of [n] are held against shares of [n, 1], and others of another shape are refused", async () => {
    const one = odds([3, 1], 1.1);
    const { loss } = await lossValue({ s: one, y: integers([3], [1, 0, 1]) }, (g, v) =>
      binaryCrossEntropy(g, v.s!, v.y!),
    );
    near(loss, mean([...floatsOf(one)].map((x, i) => entropy(x, [1, 0, 1][i]!))));
    await assert.rejects(
      lossValue({ s, y: integers([4], [1, 0, 1, 1]) }, (g, v) => binaryCrossEntropy(g, v.s!, v.y!)),
      (error) => error instanceof CoreError && error.code === "invalid_params" && /\[4, 5\]/.test(error.message),
    );
  });

  test("a class is a yes for its own share and a no for the others, along any axis", async () => {
    const labels = [2, 0, -1, 4];
    const rows = labels.flatMap((label) => Array.from({ length: 5 }, (_, k) => (k === label ? 1 : 0)));
    const counted = z.flatMap((_, i) => (labels[Math.floor(i / 5)] === -1 ? [] : [i]));
    const expected = mean(counted.map((i) => entropy(z[i]!, rows[i]!)));
    const options = { smoothing: 0, ignoreLabel: -1 };
    const last = await lossValue({ s, y: integers([4], labels) }, (g, v) =>
      oneVersusRest(g, v.s!, v.y!, { ...options, axis: null }),
    );
    near(last.loss, expected);
    for (const [i, slope] of last.gradient.entries()) {
      near(slope * counted.length, counted.includes(i) ? sigmoid(z[i]!) - rows[i]! : 0);
    }
    // The same numbers as one map of four pixels, [1, 5, 2, 2].
    const map = floats(
      [1, 5, 2, 2],
      Array.from({ length: 20 }, (_, i) => z[(i % 4) * 5 + Math.floor(i / 4)]!),
    );
    const along = await lossValue({ s: map, y: integers([1, 2, 2], labels) }, (g, v) =>
      oneVersusRest(g, v.s!, v.y!, { ...options, axis: 1 }),
    );
    near(along.loss, expected);
  });

  for (const T of [1, 4]) {
    test(`the divergence from a teacher's shares at temperature ${T}, value and gradient`, async () => {
      const t = odds([4, 5], 2.1);
      const taught = [...floatsOf(t)];
      const { loss, gradient } = await lossValue({ s, t }, (g, v) => distillationBinaryKl(g, v.s!, v.t!, T));
      const divergence = z.map((x, i) => {
        const p = sigmoid(taught[i]! / T);
        return T * T * (entropy(x / T, p) - entropy(taught[i]! / T, p));
      });
      near(loss, mean(divergence));
      for (const [i, slope] of gradient.entries()) {
        near(slope * z.length, T * (sigmoid(z[i]! / T) - sigmoid(taught[i]! / T)));
      }
      near((await lossValue({ s, t: s }, (g, v) => distillationBinaryKl(g, v.s!, v.t!, T))).loss, 0);
    });
  }

  test("log-odds are what the Sigmoid reads, or come from the shares", async () => {
    const inner = floats([2, 3], [-6, -1, 0, 0.5, 2, 7]);
    const { loss } = await lossValue({ s: inner }, (g, v) => {
      const share = g.op("Sigmoid", [v.s!]);
      share.shape = [2, 3];
      assert.equal(logOddsOf(g, share), v.s);
      const copied = g.op("Identity", [share]);
      copied.shape = [2, 3];
      return g.meanAll(g.square(g.sub(logOddsOf(g, copied), v.s!)));
    });
    assert.ok(loss < 1e-6, String(loss));
  });
});
