import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Value } from "../../../src/core/onnx/ir.ts";
import { printModel } from "../../../src/core/onnx/print.ts";
import { arrayOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { fuseAffine } from "../../../src/core/passes/fuse-affine.ts";
import { runPasses } from "../../../src/core/passes/pass.ts";
import { cnn, GraphMaker, mobilenet, randomFeeds, resnet } from "../../support/graphs.ts";
import { runModel } from "../../support/open-model.ts";
import { assertSameFunction } from "../../support/same-function.ts";

type Layer = (make: GraphMaker, x: Value) => Value;

/** Linear layers with 6 output channels over x [2, 4, 5, 5], or over [2, 4] for Gemm. */
const LAYERS: Record<string, { dims: number[]; channels: string; layer: Layer }> = {
  Conv: { dims: [2, 4, 5, 5], channels: "[6, 1, 1]", layer: (make, x) => make.conv(x, [4, 6], 3, { bias: false }) },
  "Conv with bias": { dims: [2, 4, 5, 5], channels: "[6, 1, 1]", layer: (make, x) => make.conv(x, [4, 6], 3) },
  "Conv with groups": {
    dims: [2, 4, 5, 5],
    channels: "[6, 1, 1]",
    layer: (make, x) => make.conv(x, [4, 6], 3, { group: 2 }),
  },
  "Conv over one axis": {
    dims: [2, 4, 5],
    channels: "[6, 1]",
    layer: (make, x) => make.op("Conv", [x, make.weight("w", [6, 4, 3], 0.3)]),
  },
  ConvTranspose: {
    dims: [2, 4, 5, 5],
    channels: "[6, 1, 1]",
    layer: (make, x) => make.op("ConvTranspose", [x, make.weight("w", [4, 6, 3, 3], 0.3)]),
  },
  "ConvTranspose with groups": {
    dims: [2, 4, 5, 5],
    channels: "[6, 1, 1]",
    layer: (make, x) =>
      make.op("ConvTranspose", [x, make.weight("w", [4, 3, 3, 3], 0.3), make.weight("b", [6], 1)], {
        group: 2,
        strides: [2, 2],
      }),
  },
  Gemm: {
    dims: [2, 4],
    channels: "[6]",
    layer: (make, x) => make.op("Gemm", [x, make.weight("w", [4, 6], 0.5), make.weight("b", [6], 1)]),
  },
  "Gemm with everything": {
    dims: [2, 4],
    channels: "[6]",
    layer: (make, x) =>
      make.op("Gemm", [x, make.weight("w", [6, 4], 0.5), make.weight("b", [1, 1], 1)], {
        transB: 1,
        alpha: { type: "float", value: 0.5 },
        beta: { type: "float", value: 2 },
      }),
  },
};

/** What may follow, given the dims of a value for each channel. */
const FOLLOWERS: Record<string, (make: GraphMaker, y: Value, perChannel: number[]) => Value> = {
  BatchNormalization: (make, y) => make.batchNorm(y, 6, 1e-3),
  Mul: (make, y, dims) => make.op("Mul", [y, make.weight("c", dims, 1)]),
  "Mul from the left": (make, y, dims) => make.op("Mul", [make.weight("c", [1, ...dims], 1), y]),
  "Mul by a scalar": (make, y) => make.op("Mul", [y, make.weight("c", [], 1)]),
  Div: (make, y, dims) => make.op("Div", [y, make.constant("c", make.random(dims, 0.1, 2))]),
  Add: (make, y, dims) => make.op("Add", [y, make.weight("c", dims, 1)]),
  Sub: (make, y, dims) => make.op("Sub", [y, make.weight("c", dims, 1)]),
  "Sub from a constant": (make, y, dims) => make.op("Sub", [make.weight("c", dims, 1), y]),
  "all of them": (make, y, dims) => {
    const normalized = make.batchNorm(y, 6);
    const shifted = make.op("Sub", [
      make.weight("c", dims, 1),
      make.op("Mul", [normalized, make.weight("c", dims, 1)]),
    ]);
    return make.op("Add", [shifted, make.weight("c", [], 1)]);
  },
};

for (const storage of ["initializer", "constant"] as const) {
  for (const [layerName, { dims, channels, layer }] of Object.entries(LAYERS)) {
    for (const [name, follow] of Object.entries(FOLLOWERS)) {
      test(`${layerName}, ${name} (in ${storage}s): one node that computes the same`, async () => {
        const make = new GraphMaker({ storage });
        const x = make.input("x", dims);
        make.output(follow(make, layer(make, x), JSON.parse(channels)), "y");
        const { model, notes } = runPasses(make.model, [fuseAffine]);
        const compute = model.graph.nodes.filter(({ opType }) => opType !== "Constant");
        assert.equal(compute.length, 1, printModel(model));
        assert.deepEqual(model.graph.outputs[0]!.name, "y");
        assert.ok(notes.every(({ outcome, code }) => outcome === "changed" && code === "fused"));
        await assertSameFunction(make.model, model, randomFeeds(make.model), 2e-6);
      });
    }
  }
}

test("the new weights are what the formula says, rounded once", () => {
  const make = new GraphMaker();
  const x = make.input("x", [1, 1, 1, 1]);
  const w = make.floats("w", [2, 1, 1, 1], [3, 5]);
  const parameters = [
    [2, -1],
    [0.5, 0.25],
    [0.1, 7],
    [0.3, 4],
  ].map((values, i) => make.floats(`p${i}`, [2], values));
  const epsilon = Math.fround(1e-3);
  const conv = make.op("Conv", [x, w, make.floats("b", [2], [10, 20])]);
  make.output(
    make.op("BatchNormalization", [conv, ...parameters], { epsilon: { type: "float", value: epsilon } }),
    "y",
  );
  const { model } = runPasses(make.model, [fuseAffine]);
  const [, weight, bias] = model.graph.nodes[0]!.inputs.map((value) => value?.constant);
  const [gamma, beta, mean, variance] = parameters.map((value) => arrayOf(value.constant!, "float32"));
  for (const c of [0, 1]) {
    const s = gamma![c]! / Math.sqrt(variance![c]! + epsilon);
    assert.equal(arrayOf(weight!, "float32")[c], Math.fround(s * [3, 5][c]!));
    assert.equal(arrayOf(bias!, "float32")[c], Math.fround(s * [10, 20][c]! + (beta![c]! - s * mean![c]!)));
  }
});

test("golden: a small network", () => {
  const make = new GraphMaker();
  const x = make.input("x", ["n", 3, 8, 8]);
  const normalized = make.batchNorm(make.conv(x, [3, 4], 3), 4);
  make.output(make.op("Relu", [normalized]), "y");
  const { model } = runPasses(make.model, [fuseAffine]);
  assert.equal(
    printModel(model),
    `model ir_version 8, ai.onnx 17
graph main(x: float32[n, 3, 8, 8]) -> (y: float32[…])
  conv_w: float32[4, 3, 3, 3]
  conv_b: float32[4]
  bn_scale: float32[4]
  bn_bias: float32[4]
  bn_mean: float32[4]
  bn_var: float32[4]
  conv_w_fused: float32[4, 3, 3, 3]
  conv_b_fused: float32[4]
  conv_node_output_0 = Conv(x, conv_w_fused, conv_b_fused) group=1 kernel_shape=[3, 3] pads=[1, 1, 1, 1] strides=[1, 1]
  y = Relu(conv_node_output_0)
`,
  );
});

// ---- what must stay ---------------------------------------------------------------------------------------------------

type Case = readonly [name: string, build: (make: GraphMaker, x: Value) => Value, code?: string];

const UNTOUCHED: Case[] = [
  [
    "a weight that two convolutions share",
    (make, x) => {
      const w = make.weight("w", [4, 4, 1, 1], 0.5);
      return make.op("Add", [make.batchNorm(make.op("Conv", [x, w]), 4), make.op("Conv", [x, w])]);
    },
    "weight_is_shared",
  ],
  [
    "a normalization in training mode",
    (make, x) => {
      const y = make.batchNorm(make.conv(x, [4, 4], 1), 4);
      y.producer!.setAttr("training_mode", { type: "int", value: 1 });
      return y;
    },
    "not_affine",
  ],
  [
    "a normalization whose statistics are computed",
    (make, x) => {
      const mean = make.op("Identity", [make.weight("m", [4], 1)]);
      const y = make.batchNorm(make.conv(x, [4, 4], 1), 4);
      y.producer!.setInput(3, mean);
      return y;
    },
    "not_affine",
  ],
  [
    "parameters that would leave float32",
    (make, x) => {
      const y = make.batchNorm(make.conv(x, [4, 4], 1), 4, 0);
      y.producer!.setInput(4, make.floats("v", [4], [0, 1, 1, 1]));
      return y;
    },
    "not_finite",
  ],
  [
    "a bias that is computed",
    (make, x) =>
      make.batchNorm(
        make.op("Conv", [x, make.weight("w", [4, 4, 1, 1], 1), make.op("Identity", [make.weight("b", [4], 1)])]),
        4,
      ),
    "bias_not_constant",
  ],
  [
    "a convolution that something else reads",
    (make, x) => {
      const y = make.conv(x, [4, 4], 1);
      return make.op("Add", [make.batchNorm(y, 4), make.op("Relu", [y])]);
    },
  ],
  [
    "a convolution that is multiplied with itself",
    (make, x) => {
      const y = make.conv(x, [4, 4], 1);
      return make.op("Mul", [y, y]);
    },
  ],
  [
    "a constant that varies along another axis",
    (make, x) => make.op("Mul", [make.conv(x, [4, 4], 1), make.weight("c", [8], 1)]),
  ],
  [
    "a constant that adds an axis",
    (make, x) => make.op("Add", [make.conv(x, [4, 4], 1), make.weight("c", [1, 1, 4, 1, 1], 1)]),
  ],
  [
    "a constant that widens the output",
    (make, x) => make.op("Add", [make.conv(x, [4, 1], 1), make.weight("c", [4, 1, 1], 1)]),
  ],
  ["a value that is no constant", (make, x) => make.op("Add", [make.conv(x, [4, 4], 1), x])],
  [
    "a weight that callers may replace",
    (make, x) => {
      const y = make.conv(x, [4, 4], 1);
      make.graph.setOverridable(y.producer!.inputs[1]!, true);
      return make.batchNorm(y, 4);
    },
  ],
  ["a division of a constant", (make, x) => make.op("Div", [make.weight("c", [4, 1, 1], 1), make.conv(x, [4, 4], 1)])],
];

for (const [name, build, code] of UNTOUCHED) {
  test(`untouched: ${name}`, () => {
    const make = new GraphMaker();
    make.output(build(make, make.input("x", [1, 4, 8, 8])), "y");
    const text = printModel(make.model, { digests: true });
    const { model, notes } = runPasses(make.model, [fuseAffine]);
    assert.equal(printModel(model, { digests: true }), text);
    assert.deepEqual(
      notes.map((note) => [note.outcome, note.op, note.code]),
      code ? [["skipped", "BatchNormalization", code]] : [],
    );
  });
}

test("a shared weight does not keep a bias from being added to", async () => {
  const make = new GraphMaker();
  const x = make.input("x", [1, 4, 8, 8]);
  const w = make.weight("w", [4, 4, 1, 1], 0.5);
  const shifted = make.op("Add", [make.op("Conv", [x, w]), make.weight("c", [4, 1, 1], 1)]);
  make.output(make.op("Mul", [make.op("Relu", [shifted]), make.op("Conv", [x, w])]), "y");
  const { model } = runPasses(make.model, [fuseAffine]);
  assert.deepEqual(
    model.graph.nodes.map(({ opType }) => opType),
    ["Conv", "Relu", "Conv", "Mul"],
  );
  assert.equal(model.graph.nodes[0]!.inputs[1], model.graph.nodes[2]!.inputs[1]);
  await assertSameFunction(make.model, model, randomFeeds(make.model), 2e-6);
});

test("in a body the new weights belong to the body", async () => {
  const make = new GraphMaker();
  const condition = make.input("condition", [], "bool");
  const x = make.input("x", [1, 4, 8, 8]);
  const body = (stride: number) => {
    const inner = make.body();
    inner.output(inner.batchNorm(inner.conv(x, [4, 4], 3, { stride }), 4), "inner");
    return inner.graph;
  };
  make.output(make.op("If", [condition], { then_branch: body(1), else_branch: body(2) }), "y");
  const { model } = runPasses(make.model, [fuseAffine]);
  for (const graph of model.graph.nodes[0]!.bodies()) {
    assert.deepEqual(
      graph.nodes.map(({ opType }) => opType),
      ["Conv"],
    );
    assert.equal(graph.nodes[0]!.inputs[1]!.graph, graph);
  }
  for (const value of [0, 1]) {
    const feeds = { ...randomFeeds(make.model), condition: tensorOf("bool", [], [value]) };
    await assertSameFunction(make.model, model, feeds, 2e-6);
  }
});

test("whole networks compute the same without their normalizations", async () => {
  const networks = [
    cnn(),
    mobilenet({ storage: "constant" }),
    resnet({ width: 8, size: 32, classes: 10 }),
    resnet({ depth: 50, width: 8, size: 32, classes: 10, opset: 13 }),
  ];
  for (const network of networks) {
    const { model } = runPasses(network, [fuseAffine]);
    assert.ok([...model.nodes()].every(({ opType }) => opType !== "BatchNormalization"));
    await assertSameFunction(network, model, randomFeeds(network), 1e-5);
  }
});

test("whatever shape a constant has, the result has the values and the shape that it had", async () => {
  const sizes = fc.array(fc.constantFrom(1, 1, 6, 5, 3, 2), { maxLength: 5 });
  const ops = fc.constantFrom("Mul", "Div", "Add", "Sub");
  let fused = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...Object.values(LAYERS)),
      ops,
      sizes,
      fc.boolean(),
      async (entry, op, dims, swap) => {
        const make = new GraphMaker();
        const y = entry.layer(make, make.input("x", entry.dims));
        const operands = [y, make.constant("c", make.random(dims, 0.2, 2))];
        make.output(make.op(op, swap ? operands.reverse() : operands), "y");
        const feeds = randomFeeds(make.model);
        const runs = await runModel(make.model, feeds, { optimization: "disabled" }).catch(() => undefined);
        if (!runs) return; // The shapes do not go together.
        const { model } = runPasses(make.model, [fuseAffine]);
        if (model.graph.nodes.length === 1) fused++;
        await assertSameFunction(make.model, model, feeds, 2e-6);
      },
    ),
    { numRuns: 400 },
  );
  assert.ok(fused > 20, `${fused} of them were fused`);
});
