import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { predictedBytes } from "../../../../src/core/onnx/save.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { compressStatic } from "../../../../src/core/quantize/static/pipeline.ts";
import type { FloatNode } from "../../../../src/core/quantize/static/storage.ts";
import { GraphMaker, lstm, randomFeeds } from "../../../support/graphs.ts";
import { fusedOperators, openModel, runModel, sqnrDb } from "../../../support/open-model.ts";

type Feeds = Record<string, Tensor>;

async function quantize(
  model: Model,
  feeds: readonly Feeds[],
  excludeNodes = new Map<string, FloatNode>(),
  weightBits?: 4 | 2,
) {
  const data = {
    async *batches(count: number) {
      yield* feeds.slice(0, count);
    },
  };
  return compressStatic(
    model,
    data,
    {
      method: "minmax",
      percentile: 99.999,
      activationDType: "uint8",
      perChannel: true,
      reduceRange: true,
      samples: feeds.length,
      equalize: false,
      smoothQuantAlpha: null,
      biasCorrection: false,
      excludeNodes,
      weightBits,
    },
    { openModel },
  );
}

async function assertClose(original: Model, quantized: Model, feeds: Feeds, minDb: number): Promise<void> {
  const reached = sqnrDb(await runModel(original, feeds), await runModel(quantized, feeds));
  assert.ok(reached >= minDb, `${reached} dB`);
}

test("a table of embeddings is looked up in codes, with a scale for each row", async () => {
  const make = new GraphMaker();
  const ids = make.input("ids", ["n", 6], "int64");
  const rows = make.random([500, 32]);
  // Rows of very different sizes: one scale for all would leave nothing of the small ones.
  const uneven = tensorOf(
    "float32",
    rows.dims,
    floatsOf(rows).map((x, i) => x * (Math.floor(i / 32) % 2 ? 1 : 0.01)),
  );
  const words = make.op("Gather", [make.constant("words", uneven), ids], { axis: 0 });
  make.output(words, "words_out", ["n", 6, 32]);
  make.output(make.linear(words, 32, 16), "y", ["n", 6, 16]);
  const feeds = Array.from({ length: 4 }, (_, i) => ({
    ids: tensorOf(
      "int64",
      [1, 6],
      [0, 2, 4, 6, 8, 10].map((id) => id + 50 * i),
    ),
  }));
  const { model, notes } = await quantize(make.model, feeds);
  const operators = await fusedOperators(model);
  assert.equal(operators.Gather, 2);
  assert.equal(operators.MatMulIntegerToFloat, 1);
  assert.equal(notes.find(({ op }) => op === "Gather")!.code, "gather_codes");
  assert.ok(predictedBytes(model) < 0.295 * predictedBytes(make.model));
  // Codes of 8 bits for each row: 10·log10(3) + 20·log10(127) = 46.8 dB for values that are spread evenly up to the largest.
  const [before, after] = [await runModel(make.model, feeds[0]!), await runModel(model, feeds[0]!)];
  const only = (outputs: Record<string, Tensor>) => ({ words: outputs.words_out! });
  assert.ok(sqnrDb(only(before), only(after)) >= 47);
});

test("an LSTM has int8 weights and finds the ranges of its activations itself", async () => {
  const original = lstm({ inputs: 20, hidden: 24 });
  const feeds = [1, 2].map((seed) => randomFeeds(original, { seed, dims: { time: 5, n: 1 } }));
  const { model, notes } = await quantize(original, feeds);
  assert.deepEqual(await fusedOperators(model), { DynamicQuantizeLSTM: 1 });
  assert.deepEqual(
    notes.map(({ op, outcome, code }) => [op, outcome, code]),
    [["LSTM", "changed", "dynamic_lstm"]],
  );
  await assertClose(original, model, feeds[0]!, 37);
});

test("a convolution that has no integer kernel keeps its speed and a quarter of its bytes; one that is excluded is left alone", async () => {
  const make = new GraphMaker();
  const x = make.conv(make.input("x", ["n", 16, 8, 8]), [16, 16], 3);
  const wide = make.op("ConvTranspose", [x, make.weight("up", [16, 16, 2, 2], 0.2)], { strides: [2, 2] });
  make.output(make.conv(wide, [16, 16], 3), "y");
  const last = make.graph.nodes.at(-1)!.name;
  const feeds = [1, 2].map((seed) => randomFeeds(make.model, { seed, dims: { n: 1 } }));
  const { model, notes } = await quantize(
    make.model,
    feeds,
    new Map([[last, { code: "excluded", message: "By name." }]]),
  );
  const operators = await fusedOperators(model);
  // No operator is left that would turn the codes into floats in every run.
  assert.deepEqual(operators, { QuantizeLinear: 1, QLinearConv: 1, DequantizeLinear: 1, ConvTranspose: 1, Conv: 1 });
  assert.equal(notes.find(({ op }) => op === "ConvTranspose")!.code, "stored_codes");
  const excluded = notes.find(({ name }) => name === last)!;
  assert.deepEqual([excluded.outcome, excluded.code], ["skipped", "excluded"]);
  const floats = [...model.graph.initializers].filter(({ constant }) => constant!.dtype === "float32");
  assert.equal(floats.filter(({ constant }) => elementCount(constant!.dims) >= 16 * 16).length, 1);
  await assertClose(make.model, model, feeds[0]!, 37);
});

/** The layer's weight as onnxruntime sees it, and the name of the operator it went through last. */
async function restored(model: Model, node: string): Promise<Float32Array> {
  const shown = model.clone();
  const layer = shown.graph.nodes.find(({ name }) => name === node)!;
  const weight = layer.inputs[1]!;
  weight.retype("float32", undefined);
  shown.graph.addOutput(weight);
  const outputs = await runModel(shown, randomFeeds(shown, { seed: 1, dims: { n: 1 } }));
  return floatsOf(outputs[weight.name]!);
}

for (const opset of [17, 21]) {
  for (const bits of [4, 2] as const) {
    test(`weights of layers that stay in float are stored in ${bits} bits, in blocks of 32 inputs: opset ${opset}`, async () => {
      const make = new GraphMaker({ opset, irVersion: opset >= 21 ? 10 : 8 });
      const x = make.conv(make.input("x", ["n", 64, 6, 6]), [64, 64], 3);
      make.output(make.linear(make.op("Flatten", [x]), 64 * 36, 10), "y");
      const feeds = [1, 2].map((seed) => randomFeeds(make.model, { seed, dims: { n: 1 } }));
      const names = make.graph.nodes.filter(({ inputs }) => inputs[1]?.constant?.dims.length !== undefined);
      const layers = names.filter(({ opType }) => opType !== "Add").map(({ name }) => name);
      const inFloat = new Map(
        layers.map((name) => [name, { code: "slower", message: "Here.", storesWeights: true } as const]),
      );
      const { model, notes, plan, float } = await quantize(make.model, feeds, inFloat, bits);
      assert.deepEqual(
        new Set(notes.map(({ code }) => code)),
        new Set(["stored_codes", ...notes.map(({ code }) => code)]),
      );
      assert.ok(
        Object.values(plan.weights)
          .flat()
          .every(({ scheme }) => scheme.bits === bits),
        JSON.stringify(plan),
      );
      // Nothing is left of the operators that unpack them once the model is loaded.
      const operators = await fusedOperators(model);
      assert.equal(operators.Cast ?? operators.Floor ?? operators.Concat, undefined, JSON.stringify(operators));
      for (const name of layers) {
        const layer = float.graph.nodes.find((node) => node.name === name)!;
        const weight = layer.inputs[1]!.constant!;
        const [before, after] = [floatsOf(weight), await restored(model, name)];
        // Rows of inputs: a filter, or a column of a product.
        const stride = layer.opType === "Conv" ? 1 : weight.dims[1]!;
        const depth = layer.opType === "Conv" ? elementCount(weight.dims.slice(1)) : weight.dims[0]!;
        for (let block = 0; block < before.length / 32; block++) {
          const row = Math.floor((block * 32) / depth);
          const start = layer.opType === "Conv" ? row * depth : row;
          const at = Array.from({ length: 32 }, (_, i) => start + (((block * 32) % depth) + i) * stride);
          const values = at.map((i) => before[i]!);
          const step = (Math.max(0, ...values) - Math.min(0, ...values)) / (2 ** bits - 1);
          // Half a step, and half of another for the zero point, which is a code too.
          for (const i of at) assert.ok(Math.abs(before[i]! - after[i]!) <= 1.001 * step, `${name} ${i}`);
          assert.ok(new Set(at.map((i) => after[i]!)).size <= 2 ** bits);
        }
      }
    });
  }
}

test("biases are floats in the file and int32 in the kernel, in bodies too", async () => {
  const make = new GraphMaker();
  const condition = make.input("condition", [], "bool");
  const x = make.input("x", [1, 8, 6, 6]);
  const bias = make.weight("bias", [8], 1);
  const branch = () => {
    const body = make.body();
    const conv = body.op("Conv", [x, body.weight("w", [8, 8, 3, 3], 0.1), bias], { pads: [1, 1, 1, 1] });
    const next = body.op("Conv", [body.op("Relu", [conv]), body.weight("v", [8, 8, 1, 1], 0.3), bias]);
    body.output(next, "branch_y");
    return body.graph;
  };
  make.output(make.op("If", [condition], { then_branch: branch(), else_branch: branch() }), "y", [1, 8, 6, 6]);
  const feeds = [1, 0].map((value, seed) => ({
    ...randomFeeds(make.model, { seed: seed + 1 }),
    condition: tensorOf("bool", [], [value]),
  }));
  const { model } = await quantize(make.model, feeds);
  assert.ok(
    [...model.graph.initializers].some(({ name, constant }) => name === "bias" && constant!.dtype === "float32"),
  );
  const operators = await fusedOperators(model);
  assert.deepEqual([operators.QLinearConv, operators.Conv], [4, undefined]);
  const [exact, kernel] = [
    await runModel(model, feeds[0]!, { optimization: "disabled" }),
    await runModel(model, feeds[0]!),
  ];
  // The same but for roundings at the border between two codes.
  assert.ok(sqnrDb(exact, kernel) > 45, `${sqnrDb(exact, kernel)} dB`);
  await assertClose(make.model, model, feeds[0]!, 37);
});
