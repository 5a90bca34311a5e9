import assert from "node:assert/strict";
import { test } from "node:test";
import { CoreError } from "../../../src/core/errors.ts";
import { GraphBuilder, int, ints } from "../../../src/core/onnx/graph-builder.ts";
import { Model, type Node } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { Random } from "../../../src/core/random.ts";
import { type OpenSession, openSession } from "../../../src/core/runtime/session.ts";
import { blockConvolutions, blockOnThisMachine } from "../../../src/core/train/blocked-convolutions.ts";
import { crossEntropy } from "../../../src/core/train/losses.ts";
import { batchFeeds, buildStepGraph, soloNetwork } from "../../../src/core/train/step-graph.ts";
import { createTrainable } from "../../../src/core/train/trainable.ts";
import { cnn } from "../../support/networks.ts";

interface Convolution {
  readonly x: readonly number[];
  readonly w: readonly number[];
  readonly y: readonly number[];
  readonly attrs?: Readonly<Record<string, number | readonly number[]>>;
  readonly bias?: boolean;
  /** The weight is in the model. */
  readonly constant?: boolean;
}

function drawn(dims: readonly number[], name: string): Tensor {
  const data = new Float32Array(elementCount(dims));
  new Random(3, name).fillNormal(data);
  return tensorOf("float32", dims, data);
}

function graphOf({ x, w, y, attrs = {}, bias = false, constant = false }: Convolution) {
  const model = new Model({ irVersion: 10, opsets: [["", 21]], graphName: "convolution" });
  const { graph } = model;
  const g = new GraphBuilder(graph);
  const feeds: Record<string, Tensor> = { x: drawn(x, "x") };
  const weight = drawn(w, "w");
  if (!constant) feeds.w = weight;
  if (bias) feeds.b = drawn([w[0]!], "b");
  const inputs = [
    graph.addInput("x", "float32", x),
    constant ? graph.addInitializer("w", weight) : graph.addInput("w", "float32", w),
    ...(bias ? [graph.addInput("b", "float32", [w[0]!])] : []),
  ];
  const all = Object.entries({ kernel_shape: w.slice(2), ...attrs });
  const made = g.op(
    "Conv",
    inputs,
    Object.fromEntries(all.map(([name, value]) => [name, typeof value === "number" ? int(value) : ints(value)])),
  );
  made.retype("float32", y);
  made.name = "y";
  graph.addOutput(made);
  return { model, feeds };
}

async function run(model: Model, feeds: Record<string, Tensor>): Promise<Float32Array> {
  const session = await openSession({ bytes: modelToBytes(model) });
  try {
    return floatsOf((await session.run(feeds)).y!);
  } finally {
    await session.close();
  }
}

const isX64 = process.arch === "x64";
const skip = isX64 ? false : "there are no blocked kernels to be had";

const BLOCKED: Readonly<Record<string, Convolution>> = {
  "whole blocks": { x: [4, 32, 12, 12], w: [32, 32, 3, 3], y: [4, 32, 12, 12], attrs: { pads: [1, 1, 1, 1] } },
  "channels that fill none": { x: [8, 12, 14, 14], w: [20, 12, 3, 3], y: [8, 20, 12, 12], bias: true },
  "colours, strides and a large window": {
    ...{ x: [8, 3, 32, 32], w: [24, 3, 7, 7], y: [8, 24, 16, 16] },
    attrs: { pads: [3, 3, 3, 3], strides: [2, 2] },
  },
  "pads, strides and dilations of each axis": {
    ...{ x: [8, 16, 17, 15], w: [16, 16, 2, 3], y: [8, 16, 17, 7], bias: true },
    attrs: { pads: [1, 0, 1, 3], strides: [1, 2], dilations: [2, 2] },
  },
  "a product of matrices": { x: [8, 64, 14, 14], w: [40, 64, 1, 1], y: [8, 40, 14, 14] },
};

for (const [name, convolution] of Object.entries(BLOCKED)) {
  test(`blocked as it was written: ${name}`, { skip }, async () => {
    const { model, feeds } = graphOf(convolution);
    const expected = await run(model, feeds);
    const block = await blockOnThisMachine(openSession);
    assert.equal(blockConvolutions(model.graph, block!), 1);
    assert.ok(!model.graph.nodes.some(({ opType, domain }) => opType === "Conv" && domain === ""));
    const actual = await run(model, feeds);
    assert.equal(actual.length, expected.length);
    const terms = elementCount(convolution.w.slice(1));
    // Sums of so many products of normal numbers, in float32 and in another order.
    const tolerance = 4e-7 * terms ** 0.5 * Math.log2(terms + 1);
    for (const [i, value] of expected.entries()) {
      assert.ok(Math.abs(actual[i]! - value) <= tolerance, `${i}: ${actual[i]}, not ${value}`);
    }
  });
}

test("what several convolutions read is put into blocks once", { skip }, async () => {
  const { model } = graphOf(BLOCKED["whole blocks"]!);
  const [first] = model.graph.nodes as [Node];
  const g = new GraphBuilder(model.graph);
  const second = g.op("Conv", first.inputs, Object.fromEntries(first.attrs));
  second.retype("float32", first.outputs[0]!.shape);
  model.graph.addOutput(second);
  assert.equal(blockConvolutions(model.graph, 8), 2);
  assert.equal(model.graph.nodes.filter(({ opType }) => opType === "ReorderInput").length, 1);
});

const LEFT: Readonly<Record<string, Convolution>> = {
  "one channel": { x: [64, 1, 28, 28], w: [32, 1, 3, 3], y: [64, 32, 26, 26] },
  "channels that onnxruntime does not reorder": { x: [16, 18, 14, 14], w: [32, 18, 3, 3], y: [16, 32, 12, 12] },
  "small maps": { x: [32, 128, 4, 4], w: [128, 128, 3, 3], y: [32, 128, 4, 4], attrs: { pads: [1, 1, 1, 1] } },
  "little work": { x: [1, 16, 8, 8], w: [16, 16, 1, 1], y: [1, 16, 8, 8] },
  groups: { x: [16, 32, 14, 14], w: [32, 16, 3, 3], y: [16, 32, 12, 12], attrs: { group: 2 } },
  "weights that onnxruntime blocks itself": {
    ...{ x: [16, 32, 14, 14], w: [32, 32, 3, 3], y: [16, 32, 12, 12] },
    constant: true,
  },
};

for (const [name, convolution] of Object.entries(LEFT)) {
  test(`left as it is: ${name}`, () => {
    const { model } = graphOf(convolution);
    assert.equal(blockConvolutions(model.graph, 8), 0);
    assert.deepEqual(
      model.graph.nodes.map(({ opType, domain }) => `${domain}${opType}`),
      ["Conv"],
    );
  });
}

/** A runtime that knows nothing of blocked layouts. */
const withoutBlocks: OpenSession = (source, options) => {
  if ("bytes" in source && Buffer.from(source.bytes).includes("com.microsoft.nchwc")) {
    throw new CoreError("invalid_model", "There is no such operator.");
  }
  return openSession(source, options);
};

test("a step has the gradients that it has without blocks, and a runtime without them gets none", {
  skip,
}, async () => {
  const trainable = createTrainable(cnn([16, 32], 32));
  const labels = tensorOf(
    "int64",
    [8],
    BigInt64Array.from({ length: 8 }, (_, i) => BigInt(i)),
  );
  const batch = { feeds: { x: drawn([8, 1, 28, 28], "images") }, targets: { labels } };
  const gradientsOf = async (open: OpenSession) => {
    const graph = await buildStepGraph([soloNetwork(trainable)], {
      batch,
      objective: ({ g, value, target }) => [
        { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")) },
      ],
      seed: 1,
      openSession: open,
    });
    const blocked = Buffer.from(graph.model).toString("latin1").split("ReorderOutput").length - 1;
    const session = await openSession({ bytes: graph.model });
    const results = await session.run({ ...graph.feeds, ...batchFeeds(batch) });
    await session.close();
    return {
      blocked,
      gradients: graph.parameters.map(({ gradient }) => floatsOf(results[gradient!]!)),
    };
  };
  const [plain, fast] = [await gradientsOf(withoutBlocks), await gradientsOf(openSession)];
  assert.equal(plain.blocked, 0);
  // The second convolution and its input gradient, each with names of a node and its value.
  assert.ok(fast.blocked >= 2, `${fast.blocked}`);
  for (const [i, expected] of plain.gradients.entries()) {
    const apart = Math.hypot(...expected.map((value, k) => value - fast.gradients[i]![k]!));
    assert.ok(apart <= 1e-5 * Math.hypot(...expected), `${i}: ${apart}`);
  }
});
