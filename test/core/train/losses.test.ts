import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { TRAINING_OPSET } from "../../../src/core/autodiff/gradient.ts";
import { CoreError } from "../../../src/core/errors.ts";
import { GraphBuilder } from "../../../src/core/onnx/graph-builder.ts";
import { Model, type Value } from "../../../src/core/onnx/ir.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import {
  attentionKl,
  attentionTransfer,
  decoupledKl,
  hint,
  relationalAngle,
  relationalDistance,
  relationKl,
} from "../../../src/core/train/distillation-losses.ts";
import {
  cosineDistance,
  crossEntropy,
  distillationKl,
  huber,
  logitsOf,
  meanSquaredError,
  scoresOf,
} from "../../../src/core/train/losses.ts";
import {
  classes,
  dot,
  floats,
  kl,
  lossValue,
  mean,
  near,
  rowsOf,
  smoothL1,
  softmax,
  sum,
  wave,
} from "../../support/loss-value.ts";

const s = wave([3, 4], 0.3);
const t = wave([3, 4], 2.1);
const labels = classes(2, 0, 3);

describe("losses against the formula in double precision", () => {
  test("cross-entropy, by hand: two equal logits cost ln 2", async () => {
    const { loss, gradient } = await lossValue({ s: floats([1, 2], [5, 5]), y: classes(1) }, (g, v) =>
      crossEntropy(g, v.s!, v.y!),
    );
    near(loss, Math.LN2);
    assert.deepEqual(
      gradient.map((x) => Math.round(x * 1e6) / 1e6),
      [0.5, -0.5],
    );
  });

  for (const smoothing of [0, 0.1]) {
    test(`cross-entropy with smoothing ${smoothing}`, async () => {
      const { loss, gradient } = await lossValue({ s, y: labels }, (g, v) => crossEntropy(g, v.s!, v.y!, smoothing));
      const q = [2, 0, 3].map((y) => [0, 1, 2, 3].map((k) => (k === y ? 1 - smoothing : 0) + smoothing / 4));
      const p = rowsOf(s).map((z) => softmax(z));
      near(loss, mean(p.map((row, i) => -sum(row.map((x, k) => q[i]![k]! * Math.log(x))))));
      // dL/dz = (p − q) / N
      for (const [i, x] of gradient.entries()) near(x, (p.flat()[i]! - q.flat()[i]!) / 3, 1e-6);
    });
  }

  test("cross-entropy over positions of sequences", async () => {
    const logits = wave([2, 3, 4], 0.9);
    const y = tensorOf("int64", [2, 3], [0, 1, 2, 3, 3, 1]);
    const { loss } = await lossValue({ s: logits, y }, (g, v) => crossEntropy(g, v.s!, v.y!));
    near(loss, mean(rowsOf(logits).map((z, i) => -Math.log(softmax(z)[[0, 1, 2, 3, 3, 1][i]!]!))));
  });

  test("mean squared error and Huber", async () => {
    const difference = [...floatsOf(s)].map((x, i) => x - floatsOf(t)[i]!);
    near(
      (await lossValue({ s, t }, (g, v) => meanSquaredError(g, v.s!, v.t!))).loss,
      mean(difference.map((d) => d * d)),
    );
    near((await lossValue({ s, t }, (g, v) => huber(g, v.s!, v.t!))).loss, mean(difference.map(smoothL1)));
    const delta = 0.4;
    const expected = difference.map((d) => (Math.abs(d) <= delta ? (d * d) / 2 : delta * (Math.abs(d) - delta / 2)));
    near((await lossValue({ s, t }, (g, v) => huber(g, v.s!, v.t!, delta))).loss, mean(expected));
  });

  test("numbers of another shape are compared one by one, and not broadcast", async () => {
    const inputs = { s: floats([3, 1], [1, 2, 4]), t: floats([3], [0, 2, 1]) };
    const { loss, gradient } = await lossValue(inputs, (g, v) => meanSquaredError(g, v.s!, v.t!));
    near(loss, 10 / 3);
    assert.deepEqual(gradient, [2 / 3, 0, 2].map(Math.fround));
    const swapped = { s: inputs.t, t: inputs.s };
    near((await lossValue(swapped, (g, v) => meanSquaredError(g, v.s!, v.t!))).loss, 10 / 3);
  });

  const elementwise = [meanSquaredError, huber, cosineDistance, distillationKl] as const;
  test("no loss broadcasts: axes of one may differ and nothing else", async () => {
    for (const loss of elementwise) {
      const compare = async (a: readonly number[], b: readonly number[]) => {
        const inputs = { s: wave(a, 0.3), t: wave(b, 2.1) };
        return (await lossValue(inputs, (g, v) => loss(g, v.s!, v.t!))).loss;
      };
      const expected = await compare([3, 4], [3, 4]);
      for (const [a, b] of [
        [
          [3, 4],
          [3, 1, 4],
        ],
        [
          [3, 4, 1, 1],
          [3, 4],
        ],
        [
          [3, 1, 4],
          [3, 4, 1],
        ],
      ] as const) {
        near(await compare(a, b), expected);
      }
      for (const [a, b] of [
        [
          [3, 4],
          [3, 1],
        ],
        [
          [3, 1],
          [3, 4],
        ],
        [
          [3, 4],
          [3, 5],
        ],
        [
          [3, 4],
          [1, 4],
        ],
        [
          [3, 4],
          [4, 3],
        ],
        [
          [3, 2, 4],
          [3, 4, 2],
        ],
        [
          [3, 2, 4],
          [3, 4],
        ],
        [[3, 4], [4]],
      ] as const) {
        await assert.rejects(
          compare(a, b),
          (error) =>
            error instanceof CoreError &&
            error.code === "invalid_params" &&
            error.message.includes(`[${a.join(", ")}]`) &&
            error.message.includes(`[${b.join(", ")}]`),
          `${loss.name} [${a}] [${b}]`,
        );
      }
    }
  });

  test("what compares classes or directions refuses one number for each sample", async () => {
    for (const loss of [cosineDistance, distillationKl]) {
      for (const dims of [[3], [3, 1], [3, 1, 1]]) {
        const inputs = { s: wave(dims, 0.3), t: wave(dims, 2.1) };
        await assert.rejects(
          lossValue(inputs, (g, v) => loss(g, v.s!, v.t!)),
          /one number for each sample: use mse or huber/,
        );
      }
    }
    await assert.rejects(
      lossValue({ s: wave([3, 1], 0), y: classes(0, 0, 0) }, (g, v) => crossEntropy(g, v.s!, v.y!)),
      { code: "invalid_params" },
    );
  });

  test("labels and scores pair over axes of one, and in no other way", async () => {
    const expected = (await lossValue({ s, y: labels }, (g, v) => crossEntropy(g, v.s!, v.y!))).loss;
    for (const [scores, given] of [
      [
        [3, 4],
        [3, 1],
      ],
      [[3, 4, 1, 1], [3]],
      [
        [3, 1, 4],
        [3, 1],
      ],
    ] as const) {
      const inputs = { s: floats(scores, [...floatsOf(s)]), y: tensorOf("int64", given, [2, 0, 3]) };
      near((await lossValue(inputs, (g, v) => crossEntropy(g, v.s!, v.y!))).loss, expected);
    }
    for (const dims of [[4], [3, 4], [1, 3]] as const) {
      const y = tensorOf("int64", dims, new BigInt64Array(elementCount(dims)));
      await assert.rejects(
        lossValue({ s, y }, (g, v) => crossEntropy(g, v.s!, v.y!)),
        /one integer for each row of scores/,
      );
    }
  });

  for (const smoothing of [0, 0.1]) {
    test(`ignored labels count for nothing in cross-entropy with smoothing ${smoothing}`, async () => {
      const y = tensorOf("int64", [2, 3], [1, -100, 3, -100, -100, 0]);
      const scores = wave([2, 3, 4], 0.9);
      const masked = await lossValue({ s: scores, y }, (g, v) => crossEntropy(g, v.s!, v.y!, smoothing, -100));
      const kept = [0, 2, 5];
      const rows = floats(
        [3, 4],
        kept.flatMap((row) => rowsOf(scores)[row]!),
      );
      const plain = await lossValue({ s: rows, y: classes(1, 3, 0) }, (g, v) => crossEntropy(g, v.s!, v.y!, smoothing));
      near(masked.loss, plain.loss);
      for (let row = 0; row < 6; row++) {
        const at = kept.indexOf(row);
        for (let k = 0; k < 4; k++) near(masked.gradient[4 * row + k]!, at < 0 ? 0 : plain.gradient[4 * at + k]!, 1e-6);
      }
      const none = tensorOf("int64", [2, 3], new Array(6).fill(-100));
      const empty = await lossValue({ s: scores, y: none }, (g, v) => crossEntropy(g, v.s!, v.y!, smoothing, -100));
      near(empty.loss, 0);
      assert.ok(empty.gradient.every((x) => Math.abs(x) === 0));
    });
  }

  test("ignored labels count for nothing in the squared error and in decoupled distillation", async () => {
    const target = floats([3, 2], [0.5, -1, 2, -1, -1, 1]);
    const value = wave([3, 2], 0.4);
    const { loss } = await lossValue({ s: value, t: target }, (g, v) => meanSquaredError(g, v.s!, v.t!, -1));
    const [x, y] = [floatsOf(value), floatsOf(target)];
    near(loss, mean([0, 2, 5].map((i) => (x[i]! - y[i]!) ** 2)));

    const options = { temperature: 4, alpha: 1, beta: 8 };
    const dkd = (a: Tensor, b: Tensor, l: Tensor, ignoreLabel: number | null) =>
      lossValue({ s: a, t: b, y: l }, (g, v) => decoupledKl(g, v.s!, v.t!, v.y!, { ...options, ignoreLabel }));
    const two = (tensor: Tensor) => floats([2, 4], [...rowsOf(tensor)[0]!, ...rowsOf(tensor)[2]!]);
    near((await dkd(s, t, classes(2, -1, 3), -1)).loss, (await dkd(two(s), two(t), classes(2, 3), null)).loss, 1e-4);
    near((await dkd(s, t, classes(-1, -1, -1), -1)).loss, 0);
    const sequence = (value: Tensor) => floats([1, 3, 4], [...floatsOf(value)]);
    const y3 = tensorOf("int64", [1, 3], [2, 0, 3]);
    near((await dkd(sequence(s), sequence(t), y3, null)).loss, (await dkd(s, t, labels, null)).loss, 1e-5);
  });

  test("cosine distance", async () => {
    const expected = rowsOf(s).map((a, i) => {
      const b = rowsOf(t)[i]!;
      return 1 - dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
    });
    near((await lossValue({ s, t }, (g, v) => cosineDistance(g, v.s!, v.t!))).loss, mean(expected));
    // The last axis is that of the directions, however many are before it.
    const stacked = (tensor: Tensor) => floats([3, 2, 2], [...floatsOf(tensor)]);
    const pairs = rowsOf(floats([6, 2], [...floatsOf(s)])).map((a, i) => {
      const b = rowsOf(floats([6, 2], [...floatsOf(t)]))[i]!;
      return 1 - dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
    });
    const inputs = { s: stacked(s), t: stacked(t) };
    near((await lossValue(inputs, (g, v) => cosineDistance(g, v.s!, v.t!))).loss, mean(pairs));
  });

  for (const temperature of [1, 4]) {
    test(`distillation at temperature ${temperature}`, async () => {
      const { loss, gradient } = await lossValue({ s, t }, (g, v) => distillationKl(g, v.s!, v.t!, temperature));
      const [p, q] = [t, s].map((value) => rowsOf(value).map((z) => softmax(z, temperature)));
      near(loss, temperature ** 2 * mean(p!.map((row, i) => kl(row, q![i]!))));
      // dL/dz = T (q − p) / N
      for (const [i, x] of gradient.entries()) near(x, (temperature * (q!.flat()[i]! - p!.flat()[i]!)) / 3, 1e-6);
      near((await lossValue({ s, t: s }, (g, v) => distillationKl(g, v.s!, v.t!, temperature))).loss, 0);
    });
  }

  test("decoupled distillation", async () => {
    const options = { temperature: 4, alpha: 1, beta: 8 };
    const { loss } = await lossValue({ s, t, y: labels }, (g, v) => decoupledKl(g, v.s!, v.t!, v.y!, options));
    const expected = [2, 0, 3].map((y, i) => {
      const [q, p] = [s, t].map((value) => softmax(rowsOf(value)[i]!, 4));
      const others = (row: readonly number[]) => row.filter((_, k) => k !== y).map((x) => x / (1 - row[y]!));
      return 1 * kl([p![y]!, 1 - p![y]!], [q![y]!, 1 - q![y]!]) + 8 * kl(others(p!), others(q!));
    });
    near(loss, 16 * mean(expected), 1e-4);
  });
});

test("what cannot be paired is refused, naming both sides", async () => {
  const refused = async (build: Parameters<typeof lossValue>[1], inputs: Readonly<Record<string, Tensor>>) => {
    await assert.rejects(
      lossValue(inputs, build),
      (error) => error instanceof CoreError && error.code === "invalid_params" && error.subject === "s",
    );
  };
  const none = () => assert.fail("no adaptor is needed");
  await refused((g, v) => hint(g, v.s!, v.t!, none), { s: wave([2, 3], 0), t: wave([3, 3], 0) });
  await refused((g, v) => hint(g, v.s!, v.t!, none), { s: wave([1, 2, 3, 3], 0), t: wave([1, 2, 2, 2], 0) });
  await refused((g, v) => hint(g, v.s!, v.t!, none), { s: wave([2, 3], 0), t: wave([2, 2, 3], 0) });
  for (const dims of [[2, 4, 5] as const, [1, 3, 5] as const]) {
    await refused((g, v) => hint(g, v.s!, v.t!, none), { s: wave([2, 3, 5], 0), t: wave(dims, 0) });
  }
  await refused((g, v) => hint(g, v.s!, v.t!, none), { s: wave([2, 3, 4, 4], 0), t: wave([1, 3, 4, 4], 0) });
  await refused((g, v) => attentionTransfer(g, v.s!, v.t!), { s: wave([2, 3], 0), t: wave([2, 3], 0) });
  await refused((g, v) => attentionTransfer(g, v.s!, v.t!), { s: wave([2, 3, 4], 0), t: wave([1, 3, 4], 0) });
  await refused((g, v) => relationalDistance(g, v.s!, v.t!), { s: wave([1, 3], 0), t: wave([1, 3], 0) });
  await refused((g, v) => relationalDistance(g, v.s!, v.t!), { s: wave([2, 3], 0), t: wave([1, 3], 0) });
  await refused((g, v) => relationalAngle(g, v.s!, v.t!), { s: wave([3, 3], 0), t: wave([2, 3], 0) });
  await refused((g, v) => relationKl(g, v.s!, v.t!, 2), { s: wave([2, 2, 4], 0), t: wave([1, 2, 4], 0) });
  await refused((g, v) => relationKl(g, v.s!, v.t!, 4), { s: wave([1, 2, 6], 0), t: wave([1, 2, 8], 0) });
  await refused((g, v) => attentionKl(g, v.s!, v.t!), { s: wave([1, 2, 2, 2], 0), t: wave([1, 1, 2, 2], 0) });
});

test("classes along another axis than the last are compared as they would be along the last", async () => {
  const [n, k, h, w] = [2, 4, 3, 5];
  const [student, teacher] = [wave([n, k, h, w], 0), wave([n, k, h, w], 1)];
  const moved = (map: Tensor) => {
    const from = floatsOf(map);
    const at = (i: number, c: number, p: number) => from[(i * k + c) * h * w + p]!;
    const rows = [...Array(n * h * w).keys()].flatMap((row) =>
      [...Array(k).keys()].map((c) => at(Math.floor(row / (h * w)), c, row % (h * w))),
    );
    return floats([n, h, w, k], rows);
  };
  const labels = tensorOf("int64", [n, h, w], [...Array(n * h * w).keys()].map((i) => BigInt((i * 7) % k)) as never);
  for (const [along, last] of [
    [
      (g: GraphBuilder, v: Record<string, Value>) => distillationKl(g, scoresOf(g, v.s!, 1), scoresOf(g, v.t!, -3), 2),
      (g: GraphBuilder, v: Record<string, Value>) => distillationKl(g, v.s!, v.t!, 2),
    ],
    [
      (g: GraphBuilder, v: Record<string, Value>) => crossEntropy(g, scoresOf(g, v.s!, 1), v.l!, 0.1),
      (g: GraphBuilder, v: Record<string, Value>) => crossEntropy(g, v.s!, v.l!, 0.1),
    ],
  ] as const) {
    const found = await lossValue({ s: student, t: teacher, l: labels }, along);
    const expected = await lossValue({ s: moved(student), t: moved(teacher), l: labels }, last);
    near(found.loss, expected.loss, 1e-6);
    const gradient = floatsOf(moved(floats([n, k, h, w], found.gradient)));
    for (const [i, own] of expected.gradient.entries()) near(gradient[i]!, own, 1e-7);
  }
});

test("logits are found behind a final Softmax over the last axis", () => {
  const model = new Model({ irVersion: 10, opsets: [["", TRAINING_OPSET]], graphName: "test" });
  const g = new GraphBuilder(model.graph);
  const x = model.graph.addInput("x", "float32", [2, 3]);
  const soft = (axis: number) => {
    const y = g.op("Softmax", [x], { axis: { type: "int", value: axis } });
    y.shape = [2, 3];
    return y;
  };
  assert.equal(logitsOf(soft(-1)), x);
  const standard = g.op("Softmax", [x]);
  for (const shape of [undefined, [2, 3, 4]]) {
    standard.shape = shape;
    assert.equal(logitsOf(standard), x, "the last axis is the standard");
  }
  assert.equal(logitsOf(soft(1)), x);
  const other = soft(0);
  assert.equal(logitsOf(other), other);
  const map = g.op("Softmax", [x], { axis: { type: "int", value: 1 } });
  map.shape = ["n", 3, 1, 1];
  assert.equal(logitsOf(map), x, "classes are along the last axis that is not of one");
  map.shape = ["n", 3, 4];
  assert.equal(logitsOf(map), map);
  assert.equal(logitsOf(map, 1), x);
  assert.equal(logitsOf(map, -2), x);
  assert.equal(logitsOf(map, 2), map);
  assert.equal(logitsOf(x), x);
});
