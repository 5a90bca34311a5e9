import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { tensorOf } from "../../../../src/core/onnx/tensor.ts";
import {
  compress,
  computedValue,
  floatArray,
  matMulNBitsWeight,
  only,
  operatorsOf,
} from "../../../support/compressed.ts";
import { GraphMaker, type MakerOptions, randomFeeds, transformer, uniformSource } from "../../../support/graphs.ts";
import { runModel } from "../../../support/open-model.ts";
import { assertDequantized, weightOnly } from "../../../support/weight-only.ts";

describe("embeddings", () => {
  const uniform = uniformSource(3);
  const indices = Array.from({ length: 12 }, () => Math.floor(uniform() * 100) - 50);

  const lookup = (options: MakerOptions & { dims?: number; dtype?: "int32" | "int64" }) => {
    const { dims = 48, dtype = "int64" } = options;
    const make = new GraphMaker(options);
    const tensor = make.random([50, dims], 1, 0.3);
    make.output(make.op("Gather", [make.constant("table", tensor), make.input("i", [3, 4], dtype)]), "y", [3, 4, dims]);
    // Negative indices count from the end.
    return { model: make.model, feeds: { i: tensorOf(dtype, [3, 4], indices) }, table: floatArray(tensor) };
  };

  const check = async (
    built: ReturnType<typeof lookup>,
    model: Model,
    scheme: { bits: number; blockSize: number; symmetric: boolean },
  ) => {
    const width = built.table.length / 50;
    for (const optimization of ["disabled", "all"] as const) {
      const y = floatArray((await runModel(model, built.feeds, { optimization })).y!);
      const row = (i: number) => (indices[i]! + 50) % 50;
      assertDequantized(
        (i, d) => built.table[row(i) * width + d]!,
        (i, d) => y[i * width + d]!,
        [12, width],
        scheme,
      );
    }
  };

  it("are looked up by GatherBlockQuantized", async () => {
    for (const bits of [2, 4, 8] as const) {
      for (const symmetric of [false, true]) {
        for (const dims of [48, 100]) {
          for (const dtype of ["int32", "int64"] as const) {
            const built = lookup({ dims, dtype, storage: "constant" });
            const { model } = compress(built.model, weightOnly({ bits, symmetric, blockSize: 32 }));
            assert.deepEqual(operatorsOf(model), ["GatherBlockQuantized"]);
            await check(built, model, { bits, blockSize: 32, symmetric });
          }
        }
      }
    }
  });

  it("are looked up in plain ONNX by Gather of codes and scales", async () => {
    for (const opset of [9, 21]) {
      const built = lookup({ opset, irVersion: opset >= 21 ? 10 : 8 });
      const { model } = compress(built.model, weightOnly({ bits: 4, format: "qdq" }));
      assert.deepEqual(operatorsOf(model), ["Gather", "Gather", "Cast", "Mul"]);
      await check(built, model, { bits: 8, blockSize: 48, symmetric: true });
    }
  });

  it("that are the output projection too are stored once", async () => {
    for (const symmetric of [false, true]) {
      const original = transformer({ tied: true, hidden: 48, vocabulary: 300 });
      const { model, notes } = compress(original, weightOnly({ bits: 4, symmetric, blockSize: 64 }));
      const [gather] = [only(model, "GatherBlockQuantized")];
      const projection = [...model.nodes()].filter(({ opType }) => opType === "MatMulNBits").at(-1)!;
      assert.equal(gather.inputs[0]!.producer!.inputs[0], projection.inputs[1], "the same codes");
      assert.equal(gather.inputs[2], projection.inputs[2], "the same scales");
      assert.equal(gather.int("block_size"), 16, "the largest power of two that divides 48");
      assert.match(notes.find(({ op }) => op === "Gather")!.message, /shared with a MatMulNBits/);
      const weight = matMulNBitsWeight(projection);
      const table = floatArray(original.graph.nodes[0]!.inputs[0]!.constant!);
      const scheme = { bits: 4, blockSize: 16, symmetric };
      assertDequantized(
        (row, d) => table[row * 48 + d]!,
        (row, d) => weight[row * 48 + d]!,
        [300, 48],
        scheme,
      );
      const feeds = randomFeeds(original);
      const [looked, run] = [await computedValue(model, gather.outputs[0]!, feeds), await runModel(model, feeds)];
      const rows = floatArray(looked);
      const ids = [...new BigInt64Array(feeds.ids!.bytes.slice().buffer)].map(Number);
      ids.forEach((id, i) => {
        assert.deepEqual(rows.slice(i * 48, (i + 1) * 48), weight.slice(id * 48, (id + 1) * 48));
      });
      assert.equal(run.logits!.dims.at(-1), 300);
    }
  });
});
