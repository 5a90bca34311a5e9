import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../../src/core/onnx/save.ts";
import { floatsOf, type Tensor } from "../../../../src/core/onnx/tensor.ts";
import { runPasses } from "../../../../src/core/passes/pass.ts";
import { WeightViews } from "../../../../src/core/passes/weight-views.ts";
import { gptq } from "../../../../src/core/quantize/rounding/gptq.ts";
import { nearestRound } from "../../../../src/core/quantize/rounding/nearest.ts";
import { floatStatistics, type LayerSite } from "../../../../src/core/quantize/rounding/statistics.ts";
import { blockSizeOf } from "../../../../src/core/quantize/scheme.ts";
import { QuantizedWeights } from "../../../../src/core/quantize/weights/codes.ts";
import { roundWeights } from "../../../../src/core/quantize/weights/round-weights.ts";
import {
  planWeightOnly,
  type WeightOnlyOptions,
  weightOnlyPass,
} from "../../../../src/core/quantize/weights/weight-only.ts";
import { cnn, GraphMaker, randomFeeds, transformer } from "../../../support/graphs.ts";
import { openModel, runModel, sqnrDb } from "../../../support/open-model.ts";

const DEFAULTS: WeightOnlyOptions = {
  bits: 4,
  blockSize: 32,
  symmetric: false,
  format: "matmulnbits",
  embeddings: true,
  accuracyLevel: 1,
  exclude: { nodes: [], ops: [] },
};

async function* each<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}

/** A model of one layer with the constant `w` and the input `x`. */
function layer(op: "MatMul" | "Gemm" | "Gemm transB" | "Conv", depth: number, rows: number, opset: number): Model {
  const make = new GraphMaker({ opset, irVersion: opset >= 21 ? 10 : 8 });
  if (op === "Conv") {
    const x = make.input("x", ["n", depth / 9, 12, 12]);
    const w = make.weight("w", [rows, depth / 9, 3, 3], 0.1);
    make.output(make.op("Conv", [x, w], { strides: [2, 1], pads: [1, 0, 1, 2], dilations: [1, 2] }), "y");
  } else {
    const x = make.input("x", ["n", depth]);
    const w = make.weight("w", op === "Gemm transB" ? [rows, depth] : [depth, rows], 0.1);
    const [type] = op.split(" ");
    make.output(make.op(type!, [x, w], op === "Gemm transB" ? { transB: 1 } : {}), "y");
  }
  return make.model;
}

describe("weights that are rounded already", () => {
  for (const op of ["MatMul", "Gemm", "Gemm transB", "Conv"] as const) {
    for (const format of ["matmulnbits", "qdq"] as const) {
      for (const opset of [13, 21]) {
        test(`${op} as ${format} in opset ${opset}: nearest codes give the same file, however they were found`, () => {
          // 135 is no whole number of blocks.
          for (const depth of op === "Conv" ? [288, 135] : [128, 135, 24]) {
            for (const symmetric of [true, false]) {
              for (const bits of [4, 8] as const) {
                const options = { ...DEFAULTS, format, bits, symmetric };
                const model = layer(op, depth, 40, opset);
                const values = floatsOf([...model.graph.initializers].find(({ name }) => name === "w")!.constant!);
                const plain = runPasses(model, [weightOnlyPass(options)]);
                const [planned, ...others] = planWeightOnly(model, new WeightViews(), options).decisions[0]!.weights;
                assert.ok(planned && others.length === 0);
                const { form } = planned;
                const rowMajor = op === "Conv" || op === "Gemm transB";
                const turned = Float32Array.from(
                  values,
                  (_, i) => values[rowMajor ? i : (i % depth) * 40 + Math.floor(i / depth)]!,
                );
                const block = Math.min(blockSizeOf(form.scheme, form.matrix.depth), form.matrix.depth);
                const scheme = { ...form.scheme, granularity: { block } };
                const rounded = new Map([["w", nearestRound({ values: turned, rows: 40, depth }, scheme)]]);
                const other = runPasses(model, [weightOnlyPass(options, new QuantizedWeights(rounded))]);
                assert.deepEqual(modelToBytes(other.model), modelToBytes(plain.model), JSON.stringify(options));
              }
            }
          }
        });
      }
    }
  }
});

describe("XᵀX of a layer's inputs", () => {
  /** Σ over rows of X, by its definition, in float64. */
  function assertGram(gram: Float32Array, rows: readonly Float64Array[], depth: number): void {
    for (let i = 0; i < depth; i++) {
      for (let j = 0; j < depth; j++) {
        const expected = rows.reduce((sum, row) => sum + row[i]! * row[j]!, 0);
        const size = rows.reduce((sum, row) => sum + Math.abs(row[i]! * row[j]!), 1);
        assert.ok(Math.abs(gram[i * depth + j]! - expected) < 1e-5 * size, `${i}, ${j}`);
      }
    }
  }

  async function gramsOf(model: Model, site: Omit<LayerSite, "index">, feeds: readonly Record<string, Tensor>[]) {
    return (await floatStatistics(model, [{ ...site, index: 0 }], () => each(feeds), { openModel })).get(0)!;
  }

  test("of a MatMul: one batch in four is held out", async () => {
    const [depth, model] = [20, layer("MatMul", 20, 8, 17)];
    const feeds = [1, 2, 3, 4, 5].map((seed) => randomFeeds(model, { seed, dims: { n: 3 } }));
    const { fit, heldOut } = await gramsOf(model, { depth, filters: undefined }, feeds);
    const rowsOf = (some: readonly Record<string, Tensor>[]) =>
      some.flatMap(({ x }) => {
        const values = floatsOf(x!);
        return [0, 1, 2].map((row) => Float64Array.from(values.subarray(row * depth, (row + 1) * depth)));
      });
    assertGram(fit.gram, rowsOf([...feeds.slice(0, 3), feeds[4]!]), depth);
    assertGram(heldOut.gram, rowsOf([feeds[3]!]), depth);
  });

  test("of a Conv with strides, dilations and uneven padding: the patches under its filters", async () => {
    const [channels, depth] = [3, 27];
    const model = layer("Conv", depth, 8, 17);
    const feeds = randomFeeds(model, { seed: 1, dims: { n: 2 } });
    const { fit, heldOut } = await gramsOf(model, { depth, filters: [8, channels, 3, 3] }, [feeds]);
    assert.equal(heldOut, fit, "a single batch is all there is");
    const x = floatsOf(feeds.x!);
    const rows: Float64Array[] = [];
    for (let n = 0; n < 2; n++) {
      for (let top = -1; top + 3 <= 13; top += 2) {
        for (let left = 0; left + 5 <= 14; left++) {
          const row = new Float64Array(depth);
          for (let i = 0; i < depth; i++) {
            const [c, h, w] = [Math.floor(i / 9), top + (Math.floor(i / 3) % 3), left + 2 * (i % 3)];
            if (h >= 0 && h < 12 && w < 12) row[i] = x[((n * channels + c) * 12 + h) * 12 + w]!;
          }
          rows.push(row);
        }
      }
    }
    assertGram(fit.gram, rows, depth);
  });
});

describe("GPTQ of a model", () => {
  /** Inputs whose elements correlate. */
  function samples(model: Model, count: number, seed: number): Record<string, Tensor>[] {
    return Array.from({ length: count }, (_, i) => {
      const feeds = randomFeeds(model, { seed: seed + i, dims: { n: 4 } });
      if (feeds.x) {
        const values = floatsOf(feeds.x);
        for (let j = 1; j < values.length; j++) values[j] = 0.9 * values[j - 1]! + 0.44 * values[j]!;
      }
      return feeds;
    });
  }

  for (const [name, model] of [
    ["a CNN", cnn({ width: 8, batchNorm: false })],
    ["a transformer", transformer()],
  ] as const) {
    for (const format of ["matmulnbits", "qdq"] as const) {
      test(`${name} as ${format}: outputs for other samples are nearer to those of the float model`, async () => {
        const options = { ...DEFAULTS, format };
        const { weights, notes } = await roundWeights(model, options, gptq(), () => each(samples(model, 24, 1)), {
          openModel,
        });
        assert.ok(weights.size >= 3 && notes.length >= weights.size);
        const rtn = runPasses(model, [weightOnlyPass(options)]).model;
        const rounded = runPasses(model, [weightOnlyPass(options, new QuantizedWeights(weights))]).model;
        assert.equal(modelToBytes(rounded).length, modelToBytes(rtn).length);
        const gains = await Promise.all(
          samples(model, 4, 100).map(async (feeds) => {
            const float = await runModel(model, feeds);
            return sqnrDb(float, await runModel(rounded, feeds)) - sqnrDb(float, await runModel(rtn, feeds));
          }),
        );
        const mean = gains.reduce((sum, gain) => sum + gain / gains.length, 0);
        assert.ok(mean > 1, `${mean.toFixed(2)} dB`);
      });
    }
  }

  test("a note says what a layer's roundings were compared on", async () => {
    const model = cnn();
    for (const [count, judged] of [
      [3, /on the same samples, for want of others\.$/],
      [4, /on samples that it has not used\.$/],
    ] as const) {
      const { notes } = await roundWeights(model, DEFAULTS, gptq(), () => each(samples(model, count, 1)), {
        openModel,
      });
      assert.ok(notes.length > 0);
      for (const { message } of notes) assert.match(message, judged);
    }
  });

  test("the same samples give the same codes", async () => {
    const model = cnn();
    const run = () => roundWeights(model, DEFAULTS, gptq(), () => each(samples(model, 8, 1)), { openModel });
    assert.deepEqual((await run()).weights, (await run()).weights);
  });

  test("a cancelled run stops", async () => {
    const signal = AbortSignal.abort();
    const model = cnn();
    await assert.rejects(
      roundWeights(model, DEFAULTS, gptq(), () => each(samples(model, 2, 1)), { openModel, signal }),
      { code: "cancelled" },
    );
  });
});
