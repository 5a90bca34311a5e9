import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { floatsOf, type Tensor } from "../../../src/core/onnx/tensor.ts";
import {
  attentionKl,
  attentionTransfer,
  hint,
  relationalAngle,
  relationalDistance,
  relationKl,
} from "../../../src/core/train/distillation-losses.ts";
import {
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

describe("losses of inner values against the formula in double precision", () => {
  test("a hint between equal widths, of vectors and of maps of other sizes, in one axis or in both", async () => {
    const none = () => assert.fail("no adaptor is needed");
    const plain = await lossValue({ s, t }, (g, v) => hint(g, v.s!, v.t!, none));
    near(plain.loss, mean([...floatsOf(s)].map((x, i) => (x - floatsOf(t)[i]!) ** 2)));
    const map = wave([1, 2, 4, 2], 0.1);
    const small = wave([1, 2, 2, 1], 0.7);
    const pooled = await lossValue({ s: map, t: small }, (g, v) => hint(g, v.s!, v.t!, none));
    const cells = rowsOf(map, 4).map(mean);
    near(pooled.loss, mean(cells.map((x, i) => (x - floatsOf(small)[i]!) ** 2)));
    const tall = wave([1, 2, 2, 2], 0.7);
    const columns = await lossValue({ s: map, t: tall }, (g, v) => hint(g, v.s!, v.t!, none));
    const halved = rowsOf(map, 4).flatMap(([a, b, c, d]) => [(a! + c!) / 2, (b! + d!) / 2]);
    near(columns.loss, mean(halved.map((x, i) => (x - floatsOf(tall)[i]!) ** 2)));
  });

  test("a hint learns a map where the widths differ", async () => {
    const teacher = wave([3, 2], 0.4);
    const weights = wave([4, 2], 1.1);
    const { loss } = await lossValue({ s, t: teacher, w: weights }, (g, v) =>
      hint(g, v.s!, v.t!, (_name, dims, fanIn) => {
        assert.deepEqual([dims, fanIn], [[4, 2], 4]);
        return v.w!;
      }),
    );
    const w = rowsOf(weights);
    const mapped = rowsOf(s).map((row) => [0, 1].map((k) => sum(row.map((x, i) => x * w[i]![k]!))));
    near(loss, mean(mapped.flat().map((x, i) => (x - floatsOf(teacher)[i]!) ** 2)));
    const maps = await lossValue(
      { s: wave([1, 3, 2, 2], 0), t: wave([1, 2, 2, 2], 1), w: wave([2, 3, 1, 1], 2) },
      (g, v) =>
        hint(g, v.s!, v.t!, (_name, dims) => {
          assert.deepEqual(dims, [2, 3, 1, 1]);
          return v.w!;
        }),
    );
    const [fs, ft, fw] = [rowsOf(wave([3, 4], 0)), rowsOf(wave([2, 4], 1)), rowsOf(wave([2, 3], 2))];
    const expected = ft.flatMap((row, m) =>
      row.map((x, i) => (sum(fs.map((channel, c) => channel[i]! * fw[m]![c]!)) - x) ** 2),
    );
    near(maps.loss, mean(expected));
  });

  test("attention transfer", async () => {
    const [fs, ft] = [wave([2, 3, 2, 2], 0.2), wave([2, 2, 2, 2], 1.4)];
    const { loss } = await lossValue({ s: fs, t: ft }, (g, v) => attentionTransfer(g, v.s!, v.t!));
    const maps = (features: Tensor, channels: number) =>
      rowsOf(features, channels * 4).map((sample) => {
        const a = [0, 1, 2, 3].map((i) => mean(Array.from({ length: channels }, (_, c) => sample[c * 4 + i]! ** 2)));
        return a.map((x) => x / Math.sqrt(dot(a, a)));
      });
    const [a, b] = [maps(fs, 3).flat(), maps(ft, 2).flat()];
    near(loss, mean(a.map((x, i) => (x - b[i]!) ** 2)));
  });

  test("relational distillation: distances and angles, for widths that differ", async () => {
    const [es, et] = [wave([4, 3], 0.5), wave([4, 5], 1.9)];
    const distances = (value: Tensor) => {
      const rows = rowsOf(value);
      const all = rows.map((a) => rows.map((b) => Math.sqrt(sum(a.map((x, i) => (x - b[i]!) ** 2)))));
      const average = sum(all.flat()) / 12;
      return all.flat().map((d) => d / average);
    };
    const angles = (value: Tensor) => {
      const rows = rowsOf(value);
      const unit = (i: number, j: number) => {
        const d = rows[j]!.map((x, k) => x - rows[i]![k]!);
        const norm = Math.sqrt(dot(d, d));
        return d.map((x) => (norm === 0 ? 0 : x / norm));
      };
      return [0, 1, 2, 3].flatMap((i) =>
        [0, 1, 2, 3].flatMap((j) => [0, 1, 2, 3].map((k) => dot(unit(i, j), unit(i, k)))),
      );
    };
    for (const [build, reference] of [
      [relationalDistance, distances],
      [relationalAngle, angles],
    ] as const) {
      const { loss, gradient } = await lossValue({ s: es, t: et }, (g, v) => build(g, v.s!, v.t!));
      const [a, b] = [reference(es), reference(et)];
      near(loss, mean(a.map((x, i) => smoothL1(x - b[i]!))), 1e-4);
      assert.ok(gradient.every(Number.isFinite));
      const same = await lossValue({ s: es, t: es }, (g, v) => build(g, v.s!, v.t!));
      assert.ok(same.gradient.every((x) => Math.abs(x) < 1e-6));
    }
  });

  test("relational distillation compares the first 64 samples of a batch, and no others", async () => {
    const [es, et] = [wave([70, 2], 0.5), wave([70, 3], 1.9)];
    const first = (value: Tensor) => floats([64, value.dims[1]!], [...floatsOf(value)].slice(0, 64 * value.dims[1]!));
    for (const build of [relationalDistance, relationalAngle]) {
      const whole = await lossValue({ s: es, t: et }, (g, v) => build(g, v.s!, v.t!));
      const part = await lossValue({ s: first(es), t: first(et) }, (g, v) => build(g, v.s!, v.t!));
      near(whole.loss, part.loss, 1e-6);
      assert.ok(whole.gradient.slice(0, 128).some((x) => x !== 0));
      assert.ok(whole.gradient.slice(128).every((x) => x === 0));
    }
  });

  test("MiniLM relations between states of other widths", async () => {
    const [hs, ht] = [wave([1, 3, 4], 0.8), wave([1, 3, 6], 1.3)];
    const { loss } = await lossValue({ s: hs, t: ht }, (g, v) => relationKl(g, v.s!, v.t!, 2));
    const relations = (value: Tensor) => {
      const rows = rowsOf(value);
      const size = rows[0]!.length / 2;
      return [0, 1].flatMap((head) => {
        const part = rows.map((row) => row.slice(head * size, (head + 1) * size));
        return part.map((a) => softmax(part.map((b) => dot(a, b) / Math.sqrt(size))));
      });
    };
    const [p, q] = [relations(ht), relations(hs)];
    near(loss, mean(p.map((row, i) => kl(row, q[i]!))));
  });

  test("attention distributions", async () => {
    const distribution = (phase: number) => {
      const rows = rowsOf(wave([6, 3], phase)).map((z) => softmax(z));
      return floats([1, 2, 3, 3], rows.flat());
    };
    const [a, b] = [distribution(0.2), distribution(1)];
    const { loss } = await lossValue({ s: a, t: b }, (g, v) => attentionKl(g, v.s!, v.t!));
    near(loss, mean(rowsOf(b).map((row, i) => kl(row, rowsOf(a)[i]!))));
  });
});
