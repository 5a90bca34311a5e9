import assert from "node:assert/strict";
import { test } from "node:test";
import { listLayers } from "../../../src/core/evaluate/layer-facts.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { lazyTensor, tensor } from "../../../src/core/onnx/tensor.ts";
import { branches, cnn, GraphMaker, lstm, transformer } from "../../support/graphs.ts";
import { readRealModel } from "../../support/real-models.ts";

test("a row holds the layer's name, weight, size and ranges", () => {
  const make = new GraphMaker();
  const x = make.input("x", [1, 2, 4, 4]);
  const w = make.floats("w", [2, 2, 1, 1], [1, -4, 0.5, 0.25]);
  make.output(make.op("Conv", [x, w]), "y");
  assert.deepEqual(listLayers(make.model), [
    {
      name: "conv_node",
      op: "Conv",
      weight: "w",
      shape: [2, 2, 1, 1],
      parameters: 4,
      bytes: 16,
      dtype: "float32",
      weight_min: -4,
      weight_max: 1,
      channel_range_spread: 8,
      dead_channels: 0,
    },
  ]);
});

/** The spread of one layer over a 2 x 3 weight whose rows are 8 times, and whose columns 100 times apart. */
const VALUES = [1, 10, 100, 8, 80, 800];

test("channels are on the axis of the operator", () => {
  const spreads: Record<string, (make: GraphMaker) => void> = {
    Conv: (make) => make.op("Conv", [make.input("x", [1, 3, 4]), make.floats("w", [2, 3, 1], VALUES)]),
    ConvTranspose: (make) =>
      make.op("ConvTranspose", [make.input("x", [1, 2, 4]), make.floats("w", [2, 3, 1], VALUES)]),
    MatMul: (make) => make.op("MatMul", [make.input("x", [1, 2]), make.floats("w", [2, 3], VALUES)]),
    "MatMul from the left": (make) => make.op("MatMul", [make.floats("w", [2, 3], VALUES), make.input("x", [3, 1])]),
    Gemm: (make) => make.op("Gemm", [make.input("x", [1, 2]), make.floats("w", [2, 3], VALUES)]),
    "Gemm transposed": (make) =>
      make.op("Gemm", [make.input("x", [1, 3]), make.floats("w", [2, 3], VALUES)], { transB: 1 }),
    "MatMul of a transposed weight": (make) => {
      const w = make.op("Transpose", [make.floats("w", [2, 3], VALUES)], { perm: [1, 0] });
      make.op("MatMul", [make.input("x", [1, 3]), w]);
    },
    Gather: (make) => make.op("Gather", [make.floats("w", [2, 3], VALUES), make.input("x", [1], "int64")]),
  };
  const expected: Record<string, number> = {
    Conv: 8,
    ConvTranspose: 100,
    MatMul: 100,
    "MatMul from the left": 8,
    Gemm: 100,
    "Gemm transposed": 8,
    "MatMul of a transposed weight": 8,
    Gather: 8,
  };
  for (const [name, build] of Object.entries(spreads)) {
    const make = new GraphMaker();
    build(make);
    const layers = listLayers(make.model);
    assert.deepEqual(
      layers.map((layer) => layer.channel_range_spread),
      [expected[name]],
      name,
    );
  }
});

test("dead channels are left out of the spread and counted; values that are not finite are left out", () => {
  const spreadOf = (values: number[]) => {
    const make = new GraphMaker();
    make.op("Conv", [make.input("x", [1, 1, 4]), make.floats("w", [values.length, 1, 1], values)]);
    const [layer] = listLayers(make.model);
    return [layer!.weight_min, layer!.weight_max, layer!.channel_range_spread, layer!.dead_channels];
  };
  assert.deepEqual(spreadOf([0, 2, -6]), [-6, 2, 3, 1]);
  assert.deepEqual(spreadOf([1.4e-45, 2, -6, 2e-39]), [-6, 2, 3, 2]);
  assert.deepEqual(spreadOf([2 ** -24, 1]), [2 ** -24, 1, 1, 1]);
  assert.deepEqual(spreadOf([2 ** -23, 1]), [2 ** -23, 1, 2 ** 23, 0]);
  assert.deepEqual(spreadOf([Number.NaN, 2, Number.POSITIVE_INFINITY]), [2, 2, 1, 0]);
  assert.deepEqual(spreadOf([0, 0]), [0, 0, null, 2]);
  assert.deepEqual(spreadOf([Number.NaN, Number.NaN]), [null, null, null, null]);
});

test("recurrent layers have a row for each of their matrices, embeddings one, biases none", () => {
  const rows = (layers: ReturnType<typeof listLayers>) => layers.map(({ op, weight }) => `${op} ${weight}`);
  assert.deepEqual(rows(listLayers(lstm())), ["LSTM lstm_w", "LSTM lstm_r"]);
  assert.deepEqual(rows(listLayers(cnn())), ["Conv conv_w", "Conv conv_w_1", "MatMul linear_w", "MatMul linear_w_1"]);
  const tied = listLayers(transformer({ tied: true, layers: 1 }));
  assert.deepEqual(
    [tied[0]!, tied.at(-1)!].map(({ op, weight }) => [op, weight]),
    [
      ["Gather", "embedding"],
      ["MatMul", "embedding"],
    ],
  );
});

test("bodies have layers too", () => {
  assert.equal(listLayers(branches()).length, 6);
});

test("quantized weights: their type, the original's parameters, the bytes of all their parts, no ranges", () => {
  const [k, n, block] = [64, 8, 32];
  const make = new GraphMaker();
  const x = make.input("x", [1, k]);
  const part = (name: string, dtype: "uint8" | "int8" | "float32", dims: number[], count: number) =>
    make.constant(name, tensor(dtype, dims, new Uint8Array(count)));
  const packed = [
    part("b", "uint8", [n, 2, 16], n * 32),
    part("b_scales", "float32", [n, 2], 8 * n),
    part("b_zero_points", "uint8", [n, 1], n),
  ];
  make.node("MatMulNBits", [x, ...packed], { K: k, N: n, bits: 4, block_size: block }, 1, "com.microsoft");
  const weight = make.op(
    "DequantizeLinear",
    [part("codes", "int8", [n, k], n * k), part("scale", "float32", [n], 4 * n)],
    { axis: 0 },
  );
  make.op("Gemm", [x, weight], { transB: 1 });
  const rows = listLayers(make.model).map(
    ({ op, weight: name, dtype, parameters, bytes, weight_min, channel_range_spread }) => ({
      row: `${op} ${name} ${dtype}`,
      parameters,
      bytes,
      ranges: [weight_min, channel_range_spread],
    }),
  );
  assert.deepEqual(rows, [
    { row: "MatMulNBits b uint8", parameters: k * n, bytes: n * 32 + 8 * n + n, ranges: [null, null] },
    { row: "Gemm codes int8", parameters: k * n, bytes: n * k + 4 * n, ranges: [null, null] },
  ]);
});

test("indices and shapes that layers read are no weights", () => {
  const make = new GraphMaker();
  const table = make.op("Gather", [make.ints("lengths", [1, 2, 3]), make.input("x", [1], "int64")]);
  make.output(table, "y", [1], "int64");
  assert.deepEqual(listLayers(make.model), []);
});

test("a weight that several layers share is read once", () => {
  let reads = 0;
  const make = new GraphMaker();
  const weight = lazyTensor("float32", [4, 4], () => {
    reads++;
    return new Uint8Array(64).fill(63);
  });
  const w = make.graph.addInitializer("w", weight);
  const x = make.input("x", [1, 4]);
  make.op("MatMul", [make.op("MatMul", [x, w]), w]);
  assert.equal(listLayers(make.model).length, 2);
  assert.equal(reads, 1);
});

test("PP-OCR's recognizer has 47 layers, the last with a column for each character", () => {
  const layers = listLayers(loadModel(readRealModel("ppocr-rec")));
  assert.equal(layers.length, 47);
  assert.deepEqual(layers.at(-1)!.shape, [120, 6625]);
  assert.ok(layers.every(({ channel_range_spread }) => channel_range_spread !== null && channel_range_spread >= 1));
});
