import assert from "node:assert/strict";
import { test } from "node:test";
import { EXPANSIONS, expandOperators } from "../../../src/core/autodiff/expand.ts";
import {
  buildGradients,
  checkDifferentiable,
  findUndifferentiable,
  TRAINING_OPSET,
} from "../../../src/core/autodiff/gradient.ts";
import { GRADIENT_RULES } from "../../../src/core/autodiff/rules.ts";
import { TRAINABLE_OPERATORS } from "../../../src/core/autodiff/trainable-operators.ts";
import { CoreError } from "../../../src/core/errors.ts";
import { GraphBuilder, ints } from "../../../src/core/onnx/graph-builder.ts";
import { type Attr, Model, type Value } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { arrayOf, elementCount, floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { resolveStatics } from "../../../src/core/train/statics.ts";

const empty = () => new Model({ irVersion: 10, opsets: [["", TRAINING_OPSET]], graphName: "test" });

test("gradients of a value that is used in several places are summed", async () => {
  const model = empty();
  const g = new GraphBuilder(model.graph);
  const x = model.graph.addInput("x", "float32", [3]);
  // L = Σ (x² · x + 2x), dL/dx = 3x² + 2
  const loss = g.sumAll(g.add(g.mul(g.square(x), x), g.mul(x, 2)));
  model.graph.addOutput(loss);
  const feeds = { x: tensorOf("float32", [3], [1, -2, 0.5]) };
  await resolveStatics(model, feeds, openSession);
  const gradient = buildGradients(g, loss, [x]).get(x)!;
  model.graph.addOutput(gradient);
  const session = await openSession({ bytes: modelToBytes(model) });
  const results = await session.run(feeds);
  assert.deepEqual([...floatsOf(results[gradient.name]!)], [5, 14, 2.75]);
  await session.close();
});

for (const columns of [2, 9]) {
  test(`the gradient of shares that go into a product of ${columns} columns agrees with central differences`, async () => {
    const model = empty();
    const g = new GraphBuilder(model.graph);
    const numbers = (dims: readonly number[], factor: number) =>
      tensorOf(
        "float64",
        dims,
        Array.from({ length: elementCount(dims) }, (_, i) => Math.sin(factor * i + 1)),
      );
    const feeds = { s: numbers([2, 4, 5], 2), v: numbers([2, 5, columns], 3), w: numbers([2, 4, columns], 5) };
    const [s, v, w] = Object.entries(feeds).map(([name, { dims }]) => model.graph.addInput(name, "float64", dims));
    const loss = g.sumAll(g.mul(g.matMul(g.op("Softmax", [s!]), v!), w!));
    model.graph.addOutput(loss);
    await resolveStatics(model, feeds, openSession);
    const gradient = buildGradients(g, loss, [s!]).get(s!)!;
    model.graph.addOutput(gradient);
    // The sum over the shares is one over the columns, where those are fewer.
    const sum = model.graph.nodes.findLast(({ opType }) => opType === "ReduceSum")!;
    assert.equal(sum.inputs[0]!.producer!.inputs[1]!.shape!.at(-1), Math.min(5, columns));
    const session = await openSession({ bytes: modelToBytes(model) });
    const at = arrayOf(feeds.s, "float64");
    const actual = arrayOf((await session.run(feeds))[gradient.name]!, "float64");
    for (const i of at.keys()) {
      const lossAt = async (by: number) => {
        const moved = tensorOf(
          "float64",
          feeds.s.dims,
          at.map((x, j) => (i === j ? x + by : x)),
        );
        return arrayOf((await session.run({ ...feeds, s: moved }))[loss.name]!, "float64")[0]!;
      };
      const expected = ((await lossAt(1e-5)) - (await lossAt(-1e-5))) / 2e-5;
      assert.ok(Math.abs(actual[i]! - expected) < 1e-9, `${actual[i]} and ${expected}`);
    }
    await session.close();
  });
}

for (const stacked of [true, false]) {
  test(`matrices that are transposed before a product with ${stacked ? "as many" : "one for all"} have the gradients of what they were`, async () => {
    const [stack, m, n, k] = [2, 3, 4, 5];
    const model = empty();
    const g = new GraphBuilder(model.graph);
    const numbers = (dims: readonly number[], factor: number) =>
      tensorOf(
        "float32",
        dims,
        Array.from({ length: elementCount(dims) }, (_, i) => ((i * factor) % 7) - 3),
      );
    const feeds = {
      a: numbers(stacked ? [stack, m, k] : [m, k], 5),
      b: numbers([stack, n, k], 3),
      w: numbers([stack, m, n], 2),
    };
    const [a, b, w] = Object.entries(feeds).map(([name, { dims }]) => model.graph.addInput(name, "float32", dims));
    // L = Σ w ⊙ (a · bᵀ), dL/db = wᵀ · a
    const loss = g.sumAll(g.mul(g.matMul(a!, g.transpose(b!, [0, 2, 1])), w!));
    model.graph.addOutput(loss);
    await resolveStatics(model, feeds, openSession);
    const gradient = buildGradients(g, loss, [b!]).get(b!)!;
    model.graph.addOutput(gradient);
    const session = await openSession({ bytes: modelToBytes(model) });
    const actual = floatsOf((await session.run(feeds))[gradient.name]!);
    await session.close();
    const [left, weights] = [floatsOf(feeds.a), floatsOf(feeds.w)];
    const expected = Array.from({ length: stack * n * k }, (_, i) => {
      const [column, row, at] = [i % k, Math.floor(i / k) % n, Math.floor(i / (n * k))];
      return Array.from({ length: m }, (__, j) => {
        const other = left[((stacked ? at * m : 0) + j) * k + column]!;
        return weights[(at * m + j) * n + row]! * other;
      }).reduce((sum, product) => sum + product, 0);
    });
    assert.deepEqual([...actual], expected);
  });
}

for (const opType of ["Gather", "GatherND"]) {
  test(`rows that ${opType} reads many times get all of their gradients, with several threads too`, async () => {
    const [rows, size, width] = [4096, 50, 256];
    const model = empty();
    const g = new GraphBuilder(model.graph);
    const table = model.graph.addInput("table", "float32", [size, width]);
    const indices = model.graph.addInput("indices", "int64", [rows, 1]);
    const loss = g.sumAll(g.op(opType, [table, indices]));
    model.graph.addOutput(loss);
    // Both halves of the rows read the same places in the same order: threads that share them would meet.
    const read = BigInt64Array.from({ length: rows }, (_, i) =>
      BigInt(Math.floor((i % (rows / 2)) / (rows / 2 / size))),
    );
    const feeds = {
      table: tensorOf("float32", [size, width], new Float32Array(size * width)),
      indices: tensorOf("int64", [rows, 1], read),
    };
    await resolveStatics(model, feeds, openSession);
    const gradient = buildGradients(g, loss, [table]).get(table)!;
    model.graph.addOutput(gradient);
    // It loses sums where threads meet, which they do in some runs only.
    assert.ok(model.graph.nodes.every((node) => node.opType !== "ScatterND"));
    const session = await openSession({ bytes: modelToBytes(model) }, { threads: 2 });
    try {
      // dL/d(row) is how often it was read, a whole number and so exact.
      const counts = Array.from({ length: size }, (_, row) => read.filter((index) => index === BigInt(row)).length);
      for (let run = 0; run < 40; run++) {
        const values = floatsOf((await session.run(feeds))[gradient.name]!);
        assert.ok(
          values.every((value, i) => value === counts[Math.floor(i / width)]),
          `run ${run}`,
        );
      }
    } finally {
      await session.close();
    }
  });
}

/** Operators of the gradient of y = `build`(x), behind those of the loss Σ w·y. */
async function formOf(dims: readonly number[], build: (g: GraphBuilder, x: Value) => Value): Promise<string[]> {
  const model = empty();
  const g = new GraphBuilder(model.graph);
  const x = model.graph.addInput("x", "float32", dims);
  const y = build(g, x);
  model.graph.addOutput(y);
  const feeds = { x: tensorOf("float32", dims, new Float32Array(elementCount(dims))) };
  await resolveStatics(model, feeds, openSession);
  const loss = g.sumAll(
    g.mul(y, g.constant("float32", y.shape as number[], Array(elementCount(y.shape as number[])).fill(0))),
  );
  model.graph.addOutput(loss);
  await resolveStatics(model, feeds, openSession);
  const before = new Set(model.graph.nodes);
  buildGradients(g, loss, [x]);
  const made = model.graph.nodes.filter((node) => !before.has(node)).map(({ opType }) => opType);
  return made.slice(made.indexOf("Mul") + 1);
}

test("where a plain form gives the gradient, no dearer one is taken", async () => {
  const weight = (g: GraphBuilder, ...dims: number[]) => g.constant("float32", dims, Array(elementCount(dims)).fill(0));
  const pads = { pads: ints([1, 1, 1, 1]) };
  const conv = await formOf([1, 3, 5, 5], (g, x) => g.op("Conv", [x, weight(g, 2, 3, 3, 3)], pads));
  assert.deepEqual(conv, ["Slice", "Transpose", "Conv"]);
  const whole = (g: GraphBuilder, ...values: number[]) => g.constant("int64", [values.length], values);
  const slice = await formOf([4, 5], (g, x) => g.op("Slice", [x, whole(g, 1), whole(g, 3), whole(g, 0)]));
  assert.deepEqual(slice, ["Pad"]);
  const tile = await formOf([2, 3], (g, x) => g.op("Tile", [x, whole(g, 1, 1)]));
  assert.deepEqual(tile, []);
  const twice = await formOf([1, 2, 3, 4], (g, x) =>
    g.op("Resize", [x, undefined, g.constant("float32", [4], [1, 1, 2, 2])], {
      mode: { type: "string", value: "nearest" },
      coordinate_transformation_mode: { type: "string", value: "asymmetric" },
      nearest_mode: { type: "string", value: "floor" },
    }),
  );
  assert.ok(!twice.includes("MatMul") && !twice.includes("Resize"), `${twice}`);
});

test("elements that are the maximum of a window together share its gradient", async () => {
  const model = empty();
  const g = new GraphBuilder(model.graph);
  const x = model.graph.addInput("x", "float32", [1, 1, 2, 4]);
  const kernel: Attr = { type: "ints", value: [2, 2] };
  const loss = g.sumAll(g.op("MaxPool", [x], { kernel_shape: kernel, strides: kernel }));
  model.graph.addOutput(loss);
  const feeds = { x: tensorOf("float32", [1, 1, 2, 4], [3, 3, 0, 0, 1, 2, 0, 0]) };
  await resolveStatics(model, feeds, openSession);
  const gradient = buildGradients(g, loss, [x]).get(x)!;
  model.graph.addOutput(gradient);
  const session = await openSession({ bytes: modelToBytes(model) });
  const results = await session.run(feeds);
  assert.deepEqual([...floatsOf(results[gradient.name]!)], [0.5, 0.5, 0.25, 0.25, 0, 0, 0.25, 0.25]);
  await session.close();
});

test("only the paths between the wanted values and the loss are differentiated", async () => {
  const model = empty();
  const g = new GraphBuilder(model.graph);
  const x = model.graph.addInput("x", "float32", [2, 2]);
  const w = model.graph.addInput("w", "float32", [2, 2]);
  const unused = model.graph.addInput("unused", "float32", [2]);
  // The left branch has no rule, but depends on no parameter; the right one ends beside the loss.
  const constant = g.op("Det", [g.unsqueeze(x, [0])]);
  const loss = g.add(g.sumAll(g.matMul(x, w)), g.sumAll(constant));
  const aside = g.op("Det", [g.unsqueeze(w, [0])]);
  model.graph.addOutput(loss);
  model.graph.addOutput(aside);
  const feeds = {
    x: tensorOf("float32", [2, 2], [1, 2, 3, 4]),
    w: tensorOf("float32", [2, 2], [1, 1, 1, 1]),
    unused: tensorOf("float32", [2], [0, 0]),
  };
  await resolveStatics(model, feeds, openSession);
  const gradients = buildGradients(g, loss, [w, unused]);
  assert.deepEqual([...gradients.keys()], [w]);
  assert.deepEqual(findUndifferentiable(model, [w], [loss]), []);
  assert.equal(findUndifferentiable(model, [w])[0]!.node, aside.producer);
});

test("sequences of different lengths are refused when the layer is unrolled", async () => {
  const run = async (lengths: readonly number[]) => {
    const model = empty();
    const x = model.graph.addInput("x", "float32", [3, 2, 1]);
    const weights = [1, 1].map((size, i) => model.graph.addInput(`w${i}`, "float32", [1, 1, size]));
    const sizes = model.graph.addInitializer("lengths", tensorOf("int32", [2], lengths));
    const node = model.graph.append({
      opType: "RNN",
      name: "layer",
      inputs: [x, ...weights, undefined, sizes],
      outputs: 1,
      attrs: { hidden_size: { type: "int", value: 1 } },
    });
    model.graph.addOutput(node.outputs[0]!);
    const one = tensorOf("float32", [1, 1, 1], [1]);
    await resolveStatics(
      model,
      { x: tensorOf("float32", [3, 2, 1], [1, 2, 3, 4, 5, 6]), w0: one, w1: one },
      openSession,
    );
    return expandOperators(model.graph);
  };
  assert.equal(await run([3, 3]), true);
  await assert.rejects(run([2, 2]), (error) => error instanceof CoreError && error.subject === "layer");
});

test("a node without a rule is named", () => {
  const model = empty();
  const x = model.graph.addInput("x", "float32", [1, 2, 2]);
  const node = model.graph.append({ opType: "Det", name: "my_node", inputs: [x], outputs: 1 });
  model.graph.addOutput(node.outputs[0]!);
  assert.throws(
    () => checkDifferentiable(model, [x]),
    (error) => error instanceof CoreError && error.code === "unsupported" && error.subject === "my_node",
  );
});

test("operators of other domains, and uses that a rule does not cover, are refused", () => {
  const refusal = (opType: string, domain: string, attrs: Parameters<typeof model.graph.append>[0]["attrs"]) => {
    const model = empty();
    const x = model.graph.addInput("x", "float32", [2, 2]);
    const node = model.graph.append({ opType, domain, name: "n", inputs: [x], outputs: 1, attrs: attrs ?? {} });
    model.graph.addOutput(node.outputs[0]!);
    return findUndifferentiable(model, [x])[0]?.reason;
  };
  const model = empty();
  assert.match(refusal("Relu", "my.domain", {})!, /my\.domain\.Relu/);
  assert.match(refusal("Einsum", "", { equation: { type: "string", value: "ii->i" } })!, /twice/);
  assert.match(refusal("LSTM", "", { clip: { type: "float", value: 1 } })!, /clipped/);
  assert.match(refusal("LSTM", "", { input_forget: { type: "int", value: 1 } })!, /coupled/);
  const activations = (...value: string[]) => ({ activations: { type: "strings", value } }) as const;
  assert.match(refusal("GRU", "", activations("Sigmoid", "Relu"))!, /activations/);
  assert.match(refusal("RNN", "", activations("Tanh", "Relu"))!, /activations/);
  assert.equal(refusal("GRU", "", activations("sigmoid", "Tanh", "Sigmoid", "tanh")), undefined);
  assert.equal(refusal("Relu", "", {}), undefined);
  // Without an attribute momentum is 0.9: the second output is then no mean of this batch.
  const training = { training_mode: { type: "int", value: 1 } } as const;
  assert.match(refusal("BatchNormalization", "", training)!, /running averages/);
  assert.equal(refusal("BatchNormalization", "", { ...training, momentum: { type: "float", value: 0 } }), undefined);
  assert.equal(refusal("BatchNormalization", "", {}), undefined);
});

test("whole numbers, comparisons and shapes end a path", () => {
  const model = empty();
  const g = new GraphBuilder(model.graph);
  const x = model.graph.addInput("x", "float32", [2, 2]);
  const picked = g.op("ArgMax", [x], { axis: { type: "int", value: 1 } });
  model.graph.addOutput(g.cast(picked, "float32"));
  // Rounded down to whole numbers, the values of x are as constant as indices.
  const whole = g.cast(x, "int64");
  whole.dtype = undefined;
  model.graph.addOutput(g.op("BitShift", [whole, whole], {}));
  // The places of the largest values are whole numbers, though the values themselves have a gradient.
  const k = g.constant("int64", [1], [1]);
  const places = g.ops("TopK", [x, k], 2)[1]!;
  places.dtype = "int64";
  model.graph.addOutput(g.op("BitShift", [places, places], {}));
  assert.deepEqual(findUndifferentiable(model, [x]), []);
});

test("sequences of different lengths are named before a layer is unrolled", () => {
  const reason = (lengths: readonly number[]) => {
    const model = empty();
    const [x, w, r] = [3, 2, 1].map((size) => model.graph.addInput(`x${size}`, "float32", [size, size, size]));
    const sizes = model.graph.addInitializer("lengths", tensorOf("int32", [lengths.length], lengths));
    const node = model.graph.append({ opType: "GRU", name: "n", inputs: [x, w, r, undefined, sizes], outputs: 1 });
    model.graph.addOutput(node.outputs[0]!);
    return findUndifferentiable(model, [x!])[0]?.reason;
  };
  assert.match(reason([3, 3, 2])!, /different lengths/);
  assert.equal(reason([3, 3, 3]), undefined);
});

test("the list of trainable operators is the operators that have a gradient or an expansion", () => {
  assert.deepEqual([...TRAINABLE_OPERATORS], Object.keys({ ...GRADIENT_RULES, ...EXPANSIONS }).sort());
});
