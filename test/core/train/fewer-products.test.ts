import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { buildGradients } from "../../../src/core/autodiff/gradient.ts";
import { GraphBuilder, int, ints, string } from "../../../src/core/onnx/graph-builder.ts";
import { Model, type Value } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { Random } from "../../../src/core/random.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { useFewerProducts } from "../../../src/core/train/fewer-products.ts";
import { crossEntropy } from "../../../src/core/train/losses.ts";
import { buildStepGraph, type StepGraph, soloNetwork } from "../../../src/core/train/step-graph.ts";
import { createTrainable } from "../../../src/core/train/trainable.ts";
import { NetworkBuilder } from "../../support/networks.ts";

interface Convolution {
  readonly x: readonly [number, number, number, number];
  readonly w: readonly [number, number, number, number];
  readonly y: readonly [number, number, number, number];
  readonly attrs?: Readonly<Record<string, string | number | readonly number[]>>;
  readonly bias?: boolean;
  /** The weight is in the model. */
  readonly constant?: boolean;
}

function drawn(dims: readonly number[], name: string): Tensor {
  const data = new Float32Array(elementCount(dims));
  new Random(3, name).fillNormal(data);
  return tensorOf("float32", dims, data);
}

function attrOf(value: string | number | readonly number[]) {
  if (typeof value === "string") return string(value);
  return typeof value === "number" ? int(value) : ints(value);
}

/** The convolution with its output `y`, and its inputs by name. */
function graphOf({ x, w, y, attrs = {}, bias = false, constant = false }: Convolution) {
  const model = new Model({ irVersion: 10, opsets: [["", 21]], graphName: "convolution" });
  const { graph } = model;
  const g = new GraphBuilder(graph);
  const weight = drawn(w, "w");
  const inputs: Record<string, Value> = { x: graph.addInput("x", "float32", x) };
  if (!constant) inputs.w = graph.addInput("w", "float32", w);
  if (bias) inputs.b = graph.addInput("b", "float32", [w[0]]);
  const all = Object.entries({ kernel_shape: w.slice(2), ...attrs });
  const made = g.op(
    "Conv",
    [inputs.x!, inputs.w ?? graph.addInitializer("w", weight), ...(inputs.b ? [inputs.b] : [])],
    Object.fromEntries(all.map(([name, value]) => [name, attrOf(value)])),
  );
  made.retype("float32", y);
  made.name = "y";
  graph.addOutput(made);
  return { model, inputs };
}

/** y and the gradients of Σ y ⊙ dy, in double precision and by their definition. A padding that is named has one more after than before, or as many. */
function expectedOf({ x, w, y, attrs = {}, bias = false }: Convolution, feeds: Readonly<Record<string, Tensor>>) {
  const named = [2, 3].map((axis) => Math.floor((w[axis]! - 1) / 2));
  const strides = (attrs.strides ?? [1, 1]) as readonly number[];
  const pads = (attrs.pads ?? (attrs.auto_pad ? named : [0, 0])) as readonly number[];
  const [xs, ws, ds] = ["x", "w", "dy"].map((name) => floatsOf(feeds[name]!)) as [
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const b = bias ? floatsOf(feeds.b!) : new Float32Array(w[0]);
  const results = {
    y: Float64Array.from({ length: elementCount(y) }, (_, i) => b[Math.floor(i / (y[2] * y[3])) % y[1]]!),
    dx: new Float64Array(elementCount(x)),
    dw: new Float64Array(elementCount(w)),
    db: new Float64Array(w[0]),
  };
  for (const [at, d] of ds.entries()) {
    const [column, row] = [at % y[3], Math.floor(at / y[3]) % y[2]];
    const m = Math.floor(at / (y[2] * y[3])) % y[1];
    const n = Math.floor(at / (y[1] * y[2] * y[3]));
    results.db[m]! += d;
    for (let tap = 0; tap < w[1] * w[2] * w[3]; tap++) {
      const h = row * strides[0]! - pads[0]! + (Math.floor(tap / w[3]) % w[2]);
      const v = column * strides[1]! - pads[1]! + (tap % w[3]);
      if (h < 0 || v < 0 || h >= x[2] || v >= x[3]) continue;
      const from = ((n * x[1] + Math.floor(tap / (w[2] * w[3]))) * x[2] + h) * x[3] + v;
      const weight = m * w[1] * w[2] * w[3] + tap;
      results.y[at]! += ws[weight]! * xs[from]!;
      results.dx[from]! += ws[weight]! * d;
      results.dw[weight]! += xs[from]! * d;
    }
  }
  return results;
}

const same = { pads: [1, 1, 1, 1] };

const REWRITTEN: Readonly<Record<string, Convolution>> = {
  "maps brought into tiles whole": { x: [3, 20, 8, 8], w: [24, 20, 3, 3], y: [3, 24, 8, 8], attrs: same },
  "maps by their axes": { x: [3, 20, 12, 16], w: [24, 20, 3, 3], y: [3, 24, 12, 16], attrs: same },
  "tiles that reach beyond a map": { x: [3, 9, 7, 6], w: [5, 9, 3, 3], y: [3, 5, 7, 6], attrs: same, bias: true },
  "no padding": { x: [2, 9, 15, 14], w: [5, 9, 3, 3], y: [2, 5, 13, 12], bias: true },
  "padding on one side": { x: [2, 9, 14, 13], w: [5, 9, 3, 3], y: [2, 5, 14, 12], attrs: { pads: [2, 0, 0, 1] } },
  "padding that is named": { x: [2, 9, 11, 9], w: [5, 9, 3, 2], y: [2, 5, 11, 9], attrs: { auto_pad: "SAME_UPPER" } },
  "a window of one row": { x: [3, 9, 12, 14], w: [5, 9, 1, 3], y: [3, 5, 12, 14], attrs: { pads: [0, 1, 0, 1] } },
  strides: { x: [3, 9, 16, 16], w: [5, 9, 3, 3], y: [3, 5, 8, 8], attrs: { ...same, strides: [2, 2] } },
  "strides on maps of odd sizes": {
    ...{ x: [2, 9, 15, 13], w: [5, 9, 3, 3], y: [2, 5, 8, 7], bias: true },
    attrs: { ...same, strides: [2, 2] },
  },
  "strides along one axis": { x: [2, 9, 16, 9], w: [5, 9, 3, 3], y: [2, 5, 8, 9], attrs: { ...same, strides: [2, 1] } },
  "strides longer than the window": { x: [2, 9, 16, 9], w: [5, 9, 2, 3], y: [2, 5, 6, 3], attrs: { strides: [3, 3] } },
};

/** Of the largest value: what sums of float32 lose in tiles. */
const TOLERANCE = 1e-5;

describe("values and gradients of what is rewritten are those of the definition", () => {
  for (const [name, convolution] of Object.entries(REWRITTEN)) {
    test(name, async () => {
      const { model, inputs } = graphOf(convolution);
      const { graph } = model;
      assert.equal(
        useFewerProducts(graph, () => true),
        1,
      );
      assert.ok(!graph.nodes.some(({ opType }) => opType === "Conv"));
      const g = new GraphBuilder(graph);
      const [y] = graph.outputs as [Value];
      assert.deepEqual([y.name, y.shape], ["y", convolution.y]);
      const product = g.mul(y, graph.addInput("dy", "float32", convolution.y));
      product.retype("float32", convolution.y);
      const loss = g.sumAll(product);
      loss.retype("float32", []);
      const gradients = buildGradients(g, loss, Object.values(inputs));
      for (const [input, value] of Object.entries(inputs)) {
        gradients.get(value)!.name = `d${input}`;
        graph.addOutput(gradients.get(value)!);
      }
      const feeds = Object.fromEntries(
        graph.inputs.map((value) => [value.name, drawn(value.shape as number[], value.name)]),
      );
      const session = await openSession({ bytes: modelToBytes(model) });
      const results = await session.run(feeds);
      await session.close();
      const expected: Readonly<Record<string, Float64Array>> = expectedOf(convolution, feeds);
      assert.equal(Object.keys(results).length, 1 + Object.keys(inputs).length);
      for (const [output, { dims: _, ...value }] of Object.entries(results)) {
        const actual = floatsOf({ ...value, dims: [expected[output]!.length] });
        const largest = expected[output]!.reduce((most, each) => Math.max(most, Math.abs(each)), 0);
        const apart = actual.reduce((most, each, i) => Math.max(most, Math.abs(each - expected[output]![i]!)), 0);
        assert.ok(apart <= TOLERANCE * largest, `${output}: ${apart} of ${largest}`);
      }
    });
  }
});

const FASTER: Readonly<Record<string, Convolution>> = {
  "many channels": { x: [32, 512, 8, 8], w: [512, 512, 3, 3], y: [32, 512, 8, 8], attrs: same },
  "long rows of many channels": { x: [32, 128, 32, 32], w: [128, 128, 3, 3], y: [32, 128, 32, 32], attrs: same },
  strides: { x: [32, 256, 16, 16], w: [512, 256, 3, 3], y: [32, 512, 8, 8], attrs: { ...same, strides: [2, 2] } },
};

const SLOWER: Readonly<Record<string, Convolution>> = {
  "few channels": { x: [64, 16, 28, 28], w: [16, 16, 3, 3], y: [64, 16, 28, 28], attrs: same },
  "long rows": { x: [32, 64, 64, 64], w: [64, 64, 3, 3], y: [32, 64, 64, 64], attrs: same },
  "windows of one tap": { x: [32, 256, 14, 14], w: [256, 256, 1, 1], y: [32, 256, 14, 14] },
  "little work": { x: [1, 64, 8, 8], w: [64, 64, 3, 3], y: [1, 64, 8, 8], attrs: same },
};

const OTHERS: Readonly<Record<string, Convolution>> = {
  "large windows": { x: [8, 64, 14, 14], w: [64, 64, 5, 5], y: [8, 64, 10, 10] },
  dilations: { x: [8, 128, 14, 14], w: [128, 128, 3, 3], y: [8, 128, 10, 10], attrs: { dilations: [2, 2] } },
  groups: { x: [8, 128, 14, 14], w: [128, 64, 3, 3], y: [8, 128, 12, 12], attrs: { group: 2 } },
  "weights that do not change": { x: [8, 64, 8, 8], w: [64, 64, 3, 3], y: [8, 64, 8, 8], attrs: same, constant: true },
};

for (const [name, convolution] of Object.entries(FASTER)) {
  test(`rewritten because it is faster: ${name}`, () => {
    assert.equal(useFewerProducts(graphOf(convolution).model.graph), 1);
  });
}

for (const [name, convolution] of Object.entries({ ...SLOWER, ...OTHERS })) {
  test(`left as it is: ${name}`, () => {
    const { graph } = graphOf(convolution).model;
    assert.equal(name in OTHERS ? useFewerProducts(graph, () => true) : useFewerProducts(graph), 0);
    assert.deepEqual(
      graph.nodes.map(({ opType }) => opType),
      ["Conv"],
    );
  });
}

test("a step computes with fewer products, and what is detached stays so under its name", async () => {
  const net = new NetworkBuilder(1);
  const first = net.conv(net.input(["n", 64, 8, 8]), 64, 64);
  const second = net.conv(net.relu(first), 64, 64);
  const model = net.output(net.linear(net.g.op("Flatten", [net.globalAverage(second)]), 64, 4), ["n", 4]);
  const trainable = createTrainable(model);
  const labels = tensorOf(
    "int64",
    [8],
    BigInt64Array.from({ length: 8 }, (_, i) => BigInt(i % 4)),
  );
  const batch = { feeds: { [model.graph.inputs[0]!.name]: drawn([8, 64, 8, 8], "x") }, targets: { labels } };
  const build = (detached: readonly string[]) =>
    buildStepGraph([soloNetwork({ ...trainable, detached })], {
      batch,
      objective: ({ g, value, target }) => [
        { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")) },
      ],
      seed: 1,
      openSession,
    });
  const ofFirst = ({ parameters }: StepGraph) => parameters.find(({ name }) => name.startsWith("conv0"));
  const all = await build([]);
  assert.ok(!Buffer.from(all.model).includes("nchwc"), "a convolution is left");
  assert.ok(ofFirst(all)?.gradient);
  assert.equal(ofFirst(await build([first.name]))?.gradient, undefined);
});
