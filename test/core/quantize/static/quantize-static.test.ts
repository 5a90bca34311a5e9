import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model, Value } from "../../../../src/core/onnx/ir.ts";
import { floatsOf, type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { calibrate } from "../../../../src/core/quantize/static/calibration.ts";
import { placeQuantizers } from "../../../../src/core/quantize/static/placement.ts";
import { quantizeStatic, type StaticOptions } from "../../../../src/core/quantize/static/quantize-static.ts";
import {
  branches,
  GraphMaker,
  loop,
  mlp,
  mobilenet,
  randomFeeds,
  resnet,
  transformer,
} from "../../../support/graphs.ts";
import { fusedOperators, openModel, runModel, sqnrDb } from "../../../support/open-model.ts";
import { assertRecorded } from "../../../support/recorded.ts";

type Feeds = Record<string, Tensor>;

const OPTIONS: StaticOptions = {
  method: "minmax",
  percentile: 99.999,
  activationDType: "uint8",
  perChannel: true,
  reduceRange: true,
};

async function quantize(model: Model, feeds: readonly Feeds[], options: Partial<StaticOptions> = {}): Promise<Model> {
  const calibration = await calibrate(model, streamOf(feeds), { openModel });
  return quantizeStatic(model, calibration, { ...OPTIONS, ...options }).model;
}

async function* streamOf(feeds: readonly Feeds[]): AsyncGenerator<Feeds> {
  yield* feeds;
}

function feedsFor(model: Model, count: number, dims: Record<string, number> = {}): Feeds[] {
  return Array.from({ length: count }, (_, i) => randomFeeds(model, { seed: i + 1, dims }));
}

const NETWORKS: Readonly<Record<string, { model: Model; minSqnrDb: number; fused: Record<string, number> }>> = {
  mlp: { model: mlp(), minSqnrDb: 46, fused: { QuantizeLinear: 1, QGemm: 2 } },
  "residual network": {
    model: resnet({ width: 8, size: 64, classes: 10, batchNorm: false }),
    minSqnrDb: 30,
    // One kernel for each node of the float graph; no Relu, no float in between.
    fused: {
      QuantizeLinear: 1,
      QLinearConv: 20,
      MaxPool: 1,
      QLinearAdd: 8,
      QLinearGlobalAveragePool: 1,
      Flatten: 1,
      QGemm: 1,
    },
  },
  "mobile network": {
    model: mobilenet({ batchNorm: false }),
    minSqnrDb: 36,
    fused: {
      QuantizeLinear: 1,
      QLinearConv: 10,
      QLinearAdd: 2,
      QLinearGlobalAveragePool: 1,
      Flatten: 1,
      MatMulIntegerToFloat: 1,
      Sub: 1,
    },
  },
};

for (const [name, { model, minSqnrDb, fused }] of Object.entries(NETWORKS)) {
  test(`${name}: every kernel is an integer one, and the output is close`, async () => {
    const feeds = feedsFor(model, 4);
    const quantized = await quantize(model, feeds);
    assert.deepEqual(await fusedOperators(quantized), fused);
    const reached = sqnrDb(await runModel(model, feeds[0]!), await runModel(quantized, feeds[0]!));
    assert.ok(reached >= minSqnrDb, `${reached} dB`);
  });
}

test("transformer: products with weights are integer; those of attention, and what stands between, are float", async () => {
  const model = transformer();
  const feeds = feedsFor(model, 4, { n: 2 });
  const placement = placeQuantizers(model.clone());
  const products = placement.units.filter(({ node }) => node.opType === "MatMul");
  assert.deepEqual(
    products
      .filter(({ quantized }) => !quantized)
      .map(({ node, reason }) => [!!node.inputs[1]!.constant, reason!.code]),
    new Array(4).fill([false, "float_operands"]),
  );
  const quantized = await quantize(model, feeds);
  const operators = await fusedOperators(quantized);
  for (const float of ["Gemm", "DequantizeLinear", "QLinearMatMul"]) assert.equal(operators[float], undefined);
  // In each layer: query, key, value, and three dense layers; scores and context.
  assert.equal((operators.MatMulIntegerToFloat ?? 0) + (operators.QGemm ?? 0), 2 * 6);
  assert.equal((operators.MatMul ?? 0) + (operators.FusedMatMul ?? 0), 2 * 2);
  // Query, key and value read the same codes.
  assert.equal(operators.QuantizeLinear, 2 * 4);
  assert.equal(operators.Softmax, 2);
  const reached = sqnrDb(await runModel(model, feeds[0]!), await runModel(quantized, feeds[0]!));
  assertRecorded(reached, 37.7, 1.5);
});

test("a product of two chains of convolutions is integer", async () => {
  const make = new GraphMaker();
  const x = make.input("x", [2, 8, 6, 6]);
  const [a, b] = [make.conv(x, [8, 8], 3), make.conv(x, [8, 8], 3)];
  make.output(make.op("MatMul", [a, b]), "y");
  const feeds = feedsFor(make.model, 4);
  const operators = await fusedOperators(await quantize(make.model, feeds));
  assert.deepEqual([operators.QLinearConv, operators.MatMulIntegerToFloat, operators.MatMul], [2, 1, undefined]);
});

for (const opType of ["ReduceMax", "ReduceMin"] as const) {
  /** Convolution, reduction over `axes`, dense layer. */
  const network = (opset: number, axes: readonly number[]) => {
    const make = new GraphMaker({ opset });
    const pixels = make.conv(make.input("x", [2, 3, 8, 8]), [3, 16], 3);
    pixels.retype("float32", [2, 16, 8, 8]);
    const attrs = opset < 18 ? { axes } : {};
    const reduced = make.node(opType, opset < 18 ? [pixels] : [pixels, make.ints("axes", axes)], attrs);
    const rows = make.op("Flatten", [reduced.outputs[0]!]);
    const size = (axes.includes(1) ? 1 : 16) * (axes.includes(2) ? 1 : 8) * (axes.includes(3) ? 1 : 8);
    make.output(make.op("Gemm", [rows, make.weight("v", [size, 8], 0.3)]), "y", [2, 8]);
    return { model: make.model, reduction: reduced.name };
  };

  for (const opset of [13, 18]) {
    test(`${opType} of operator set ${opset} runs on quantized values, and costs no accuracy`, async () => {
      for (const axes of [[1], [2, 3]]) {
        const { model, reduction } = network(opset, axes);
        const feeds = feedsFor(model, 4);
        const quantized = await quantize(model, feeds);
        const fused = { QuantizeLinear: 1, QLinearConv: 1, [opType]: 1, Flatten: 1, QGemm: 1 };
        assert.deepEqual(await fusedOperators(quantized), fused);
        const excluded = { code: "excluded", message: "The test excludes it." } as const;
        const inFloat = await quantize(model, feeds, { excludeNodes: new Map([[reduction, excluded]]) });
        assert.equal((await fusedOperators(inFloat)).DequantizeLinear, 1);
        const before = await runModel(model, feeds[0]!);
        const db = sqnrDb(before, await runModel(quantized, feeds[0]!));
        const floatDb = sqnrDb(before, await runModel(inFloat, feeds[0]!));
        assert.ok(db >= 40 && db > floatDb - 3, `${db} dB, and ${floatDb} dB with ${opType} in float`);
      }
    });
  }

  test(`${opType} over the last axis alone stays in float, where it is faster`, () => {
    for (const axes of [[3], [-1]]) {
      const { units } = placeQuantizers(network(13, axes).model);
      assert.equal(units.find(({ node }) => node.opType === opType)?.reason?.code, "slower");
    }
  });
}

/** A linear layer, `length` times what `build` adds, and another linear layer. */
function longChain(length: number, build: (make: GraphMaker, x: Value) => Value): Model {
  const make = new GraphMaker();
  const typed = (value: Value) => {
    value.retype("float32", [4, 4]);
    return value;
  };
  let x = typed(make.op("Conv", [make.input("x", [4, 4, 1]), make.weight("k", [4, 4, 1], 0.4)]));
  for (let i = 0; i < length; i++) x = typed(build(make, x));
  make.output(make.op("MatMul", [x, make.weight("w", [4, 4], 0.4)]), "y");
  return make.model;
}

test("chains of thousands of nodes are placed: nothing recurses along them, and what is float is found in a few sweeps", () => {
  const chains: Readonly<Record<string, (make: GraphMaker, x: Value) => Value>> = {
    moved: (make, x) => make.op("Transpose", [x], { perm: [1, 0] }),
    scaled: (make, x) => make.op("Mul", [x, make.floats("factor", [], [1.01])]),
    pointwise: (make, x) => make.op("Sigmoid", [x]),
    float: (make, x) => make.op("Sigmoid", [make.op("Tanh", [x])]),
  };
  for (const [name, build] of Object.entries(chains)) {
    const { units, aliases } = placeQuantizers(longChain(5000, build));
    const quantized = units.filter((unit) => unit.quantized).length;
    const expected = { moved: 5002, scaled: 2, pointwise: 5002, float: 2 }[name];
    assert.equal(quantized, expected, name);
    assert.equal(aliases.size, name === "scaled" ? 5000 : 0, name);
  }
});

test("kernels compute what the Q/DQ graph says, even where products are largest", async () => {
  // All activations at the top code and all weights of one sign: what saturates on processors without VNNI unless it is avoided.
  const make = new GraphMaker();
  const x = make.input("x", ["n", 64]);
  const ones = tensorOf(
    "float32",
    [64, 8],
    Float32Array.from({ length: 512 }, (_, i) => 0.5 + (i % 7) / 14),
  );
  make.output(make.op("MatMul", [make.op("Relu", [x]), make.constant("w", ones)]), "y");
  const feeds = [{ x: tensorOf("float32", [1, 64], new Float32Array(64).fill(3)) }];
  const quantized = await quantize(make.model, feeds);
  const expected = await runModel(quantized, feeds[0]!, { optimization: "disabled" });
  const actual = await runModel(quantized, feeds[0]!);
  floatsOf(expected.y!).forEach((value, i) => {
    assert.ok(Math.abs(value / floatsOf(actual.y!)[i]! - 1) < 1e-5, `${value} and ${floatsOf(actual.y!)[i]}`);
  });
});

test("bodies of If and Loop are quantized, weights of the graph around them included", async () => {
  const branched = branches();
  const feeds = [1, 0, 1, 0].map((condition, i) => ({
    ...randomFeeds(branched, { seed: i + 1, dims: { n: 4 } }),
    condition: tensorOf("bool", [], [condition]),
  }));
  const looped = loop();
  for (const [model, data] of [
    [branched, feeds],
    [looped, feedsFor(looped, 4)],
  ] as const) {
    const quantized = await quantize(model, data);
    const operators = await fusedOperators(quantized);
    assert.equal(operators.MatMul ?? operators.Gemm ?? operators.FusedGemm, undefined, JSON.stringify(operators));
    const reached = sqnrDb(await runModel(model, data[0]!), await runModel(quantized, data[0]!));
    assert.ok(reached >= 34, `${reached} dB`);
  }
});

/** Without codes for what bodies read, loading such a model aborts this process. */
test("what moves the output of a layer for bodies alone leaves a model that onnxruntime loads", async () => {
  const axes = (make: GraphMaker, ...of: number[]) => make.ints("axes", of);
  const MOVES: Readonly<Record<string, (make: GraphMaker, x: Value) => Value>> = {
    Transpose: (make, x) => make.op("Transpose", [x], { perm: [0, 2, 3, 1] }),
    Reshape: (make, x) => make.op("Reshape", [x, make.ints("shape", [0, -1])]),
    Unsqueeze: (make, x) => make.op("Unsqueeze", [x, axes(make, 1)]),
    Squeeze: (make, x) => make.op("Squeeze", [make.op("Unsqueeze", [x, axes(make, 1)]), axes(make, 1)]),
    MaxPool: (make, x) => make.op("MaxPool", [x], { kernel_shape: [2, 2], strides: [2, 2] }),
    Slice: (make, x) => make.op("Slice", [x, make.ints("from", [1]), make.ints("to", [5]), axes(make, 2)]),
    "Resize that interpolates": (make, x) =>
      make.op("Resize", [x, undefined, make.floats("scales", [4], [1, 1, 2, 2])], { mode: "linear" }),
    chain: (make, x) =>
      make.op("Reshape", [make.op("Transpose", [x], { perm: [0, 2, 3, 1] }), make.ints("shape", [0, -1])]),
  };
  for (const [name, move] of Object.entries(MOVES)) {
    const make = new GraphMaker();
    const condition = make.input("condition", [], "bool");
    const moved = move(make, make.op("Relu", [make.conv(make.input("x", ["n", 8, 6, 6]), [8, 8], 3)]));
    const branch = (activation: string) => {
      const body = make.body();
      body.output(body.op(activation, [moved]), "branch_y");
      return body.graph;
    };
    make.output(make.op("If", [condition], { then_branch: branch("Relu"), else_branch: branch("Tanh") }), "y");
    const feeds = [1, 0].map((value, i) => ({
      ...randomFeeds(make.model, { seed: i + 1, dims: { n: 4 } }),
      condition: tensorOf("bool", [], [value]),
    }));
    const quantized = await quantize(make.model, feeds);
    assert.ok((await fusedOperators(quantized)).QLinearConv, name);
    for (const fed of feeds) {
      const reached = sqnrDb(await runModel(make.model, fed), await runModel(quantized, fed));
      assert.ok(reached >= 34, `${name}: ${reached} dB`);
    }
  }
});

/** x [n, 8, 6, 6] → Conv → what `middle` makes → Conv → y. */
function between(middle: (make: GraphMaker, x: ReturnType<GraphMaker["op"]>) => ReturnType<GraphMaker["op"]>): Model {
  const make = new GraphMaker();
  const x = make.input("x", ["n", 8, 6, 6]);
  const y = make.conv(middle(make, make.conv(x, [8, 8], 3)), [8, 4], 1);
  make.output(y, "y");
  return make.model;
}

const float = (value: number) => ({ type: "float", value }) as const;

/** What onnxruntime has left between two convolutions. */
const MIDDLES: Readonly<Record<string, { model: Model; fused: Record<string, number> }>> = {
  "a multiplication by a number changes a scale only": {
    model: between((make, x) =>
      make.op("Div", [make.op("Mul", [x, make.floats("two", [1], [2])]), make.floats("six", [], [6])]),
    ),
    fused: {},
  },
  "HardSigmoid is a sum that saturates": {
    model: between((make, x) => make.op("HardSigmoid", [x], { alpha: float(1 / 6), beta: float(0.5) })),
    fused: { QLinearAdd: 1 },
  },
  "a hard swish in four operators is two kernels": {
    model: between((make, x) => {
      const sum = make.op("Add", [x, make.floats("three", [], [3])]);
      const clipped = make.op("Clip", [sum, make.floats("low", [], [0]), make.floats("high", [], [6])]);
      return make.op("Div", [make.op("Mul", [x, clipped]), make.floats("six", [], [6])]);
    }),
    fused: { QLinearAdd: 1, QLinearMul: 1 },
  },
  "squeeze and excite": {
    model: between((make, x) => {
      const gate = make.op("HardSigmoid", [make.conv(make.op("GlobalAveragePool", [x]), [8, 8], 1)], {
        alpha: float(0.2),
      });
      return make.op("Mul", [x, gate]);
    }),
    fused: { QLinearGlobalAveragePool: 1, QLinearConv: 1, QLinearAdd: 1, QLinearMul: 1 },
  },
  "a swish": {
    model: between((make, x) => make.op("Mul", [x, make.op("Sigmoid", [x])])),
    fused: { QLinearSigmoid: 1, QLinearMul: 1 },
  },
  "parts of a tensor, put together again": {
    model: between((make, x) => {
      const [a, b] = make.node("Split", [x, make.ints("parts", [3, 5])], { axis: 1 }, 2).outputs;
      return make.op("Concat", [make.op("LeakyRelu", [b!], { alpha: float(0.1) }), a!], { axis: 1 });
    }),
    fused: { Split: 1, QLinearLeakyRelu: 1, QLinearConcat: 1 },
  },
  "pooling, and Relu behind it": {
    model: between((make, x) => make.op("Relu", [make.op("MaxPool", [x], { kernel_shape: [2, 2] })])),
    fused: { MaxPool: 1 },
  },
  "a scaled tensor that is moved": {
    model: between((make, x) =>
      make.op("Transpose", [make.op("Mul", [x, make.floats("half", [], [0.5])])], { perm: [0, 1, 3, 2] }),
    ),
    fused: { Transpose: 1 },
  },
  "an operator without an integer kernel": {
    model: between((make, x) => make.op("Tanh", [x])),
    fused: { DequantizeLinear: 1, Tanh: 1, QuantizeLinear: 1 },
  },
};

for (const [name, { model, fused }] of Object.entries(MIDDLES)) {
  test(`between convolutions: ${name}`, async () => {
    const feeds = feedsFor(model, 6);
    const quantized = await quantize(model, feeds);
    const operators = await fusedOperators(quantized);
    const expected: Record<string, number> = { QuantizeLinear: 1, DequantizeLinear: 1, QLinearConv: 2 };
    for (const [operator, count] of Object.entries(fused)) expected[operator] = (expected[operator] ?? 0) + count;
    assert.deepEqual(operators, expected);
    const reached = sqnrDb(await runModel(model, feeds[0]!), await runModel(quantized, feeds[0]!));
    assert.ok(reached >= 33, `${reached} dB`);
  });
}

test("a value that leaves the graph keeps its name and is given out in float", async () => {
  const make = new GraphMaker();
  const x = make.conv(make.input("x", ["n", 8, 6, 6]), [8, 8], 3);
  make.output(make.op("Relu", [x]), "features");
  make.output(make.conv(make.graph.outputs[0]!, [8, 4], 1), "y");
  const feeds = feedsFor(make.model, 4);
  const quantized = await quantize(make.model, feeds);
  assert.deepEqual(
    quantized.graph.outputs.map((value) => value.name),
    ["features", "y"],
  );
  const operators = await fusedOperators(quantized);
  assert.equal(operators.QLinearConv, 2);
  assertRecorded(sqnrDb(await runModel(make.model, feeds[0]!), await runModel(quantized, feeds[0]!)), 39, 1.5);
});

test("excluded nodes and operators stay float and say so; what only made sense between them follows", () => {
  const model = resnet({ width: 8, size: 64, batchNorm: false });
  const first = model.graph.nodes.find((node) => node.opType === "Conv")!;
  const excluded = { code: "excluded", message: "By name." } as const;
  const placement = placeQuantizers(model, { excludeNodes: new Map([[first.name, excluded]]) });
  const float = placement.units.filter(({ quantized }) => !quantized);
  assert.deepEqual(
    float.map(({ node, reason }) => [node.opType, reason!.code]),
    [["Conv", "excluded"]],
  );
  const without = placeQuantizers(model, { isExcluded: (node) => node.opType === "Conv" });
  assert.deepEqual(
    without.units.filter(({ quantized }) => quantized).map(({ node }) => node.opType),
    ["Flatten", "Gemm"],
  );
});

test("int8 activations, one scale for each weight", async () => {
  const model = mlp();
  const feeds = feedsFor(model, 4);
  const quantized = await quantize(model, feeds, {
    activationDType: "int8",
    perChannel: false,
  });
  const dtypes = new Set([...quantized.graph.initializers].map(({ constant }) => constant!.dtype));
  assert.deepEqual(dtypes, new Set(["int8", "float32", "int32"]));
  const reached = sqnrDb(await runModel(model, feeds[0]!), await runModel(quantized, feeds[0]!));
  assertRecorded(reached, 46.6, 1.5);
});

test("weights that cannot stay as they were rounded for samples are told of: the channels, or all where they share a scale", async () => {
  const model = mlp({ sizes: [16, 24, 8] });
  const feeds = feedsFor(model, 4);
  const calibration = await calibrate(model, streamOf(feeds), { openModel });
  const [layer] = model.graph.nodes;
  const [, weight, bias] = layer!.inputs;
  // Two biases that need a larger scale than an int32 of these steps holds.
  const values = new Float32Array(24);
  values[3] = values[11] = 3e6;
  layer!.setInput(2, model.graph.addInitializer(bias!.name, tensorOf("float32", [24], values)));
  const scales = new Float32Array(24).fill(1e-4);
  const kernels = new Map([[weight!.name, { q: new Uint8Array(16 * 24), scales, zeroPoints: new Uint8Array(24) }]]);
  const rounded = { kernels, stored: new Map() };
  const said = (options: Partial<StaticOptions>) =>
    quantizeStatic(model, calibration, { ...OPTIONS, ...options }).notes.filter(({ code }) => code === "rounding_lost");
  assert.deepEqual(said({}), []);
  const [some] = said({ rounded });
  assert.deepEqual([some!.name, some!.outcome], [layer!.label, "simplified"]);
  assert.match(some!.message, /^In 2 of 24 channels its weights are rounded to the nearest/);
  assert.match(said({ rounded, perChannel: false })[0]!.message, /^In all channels, which share one scale, /);
});
