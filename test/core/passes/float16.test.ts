import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { Model, Value } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import { compress, operatorsOf } from "../../support/compressed.ts";
import { assertConverted, float16, modelOf, weightBytes } from "../../support/float16.ts";
import {
  branches,
  cnn,
  GraphMaker,
  loop,
  lstm,
  type MakerOptions,
  mlp,
  mobilenet,
  randomFeeds,
  resnet,
  transformer,
} from "../../support/graphs.ts";
import { fusedOperators, runModel } from "../../support/open-model.ts";

const NETWORKS: Readonly<Record<string, (options: MakerOptions) => Model>> = {
  mlp: (options) => mlp(options),
  cnn: (options) => cnn(options),
  resnet: (options) => resnet({ ...options, width: 8, size: 32, classes: 10 }),
  mobilenet: (options) => mobilenet(options),
  transformer: (options) => transformer(options),
  "tied transformer": (options) => transformer({ ...options, tied: true }),
  lstm: (options) => lstm({ ...options, bidirectional: true }),
  branches: (options) => branches(options),
  loop: (options) => loop(options),
};

describe("whole networks", () => {
  for (const [name, build] of Object.entries(NETWORKS)) {
    it(`${name}: everything is converted, inside and at the border`, async () => {
      for (const storage of ["initializer", "constant"] as const) {
        const original = build({ storage });
        for (const keepIo of [true, false]) {
          const model = await assertConverted(original, { keepIo }, 1e-2);
          const { float32 } = weightBytes(original);
          assert.deepEqual(weightBytes(model), { float32: 0, float16: float32 / 2 });
          const casts = operatorsOf(model).filter((op) => op === "Cast").length;
          const io =
            original.graph.inputs.filter(({ dtype }) => dtype === "float32").length + original.graph.outputs.length;
          assert.ok(casts <= (keepIo ? io : 0), `${casts} casts`);
          assert.deepEqual(
            [...model.graph.inputs, ...model.graph.outputs].map((value) => value.name),
            [...original.graph.inputs, ...original.graph.outputs].map((value) => value.name),
          );
        }
      }
    });
  }

  it("the same model gives the same bytes, and names of weights stay", () => {
    const original = cnn();
    const [first, second] = [compress(original, float16()).model, compress(original, float16()).model];
    assert.deepEqual(Buffer.from(modelToBytes(first)), Buffer.from(modelToBytes(second)));
    const names = (model: Model) =>
      [...model.graph.initializers]
        .filter(({ constant }) => constant?.dtype !== "int64")
        .map((value) => value.name)
        .sort();
    assert.deepEqual(names(first), names(original));
  });
});

describe("bodies", () => {
  it("a branch that gives out a constant, an outer value or its own", async () => {
    for (const excluded of [[], ["if_node"], ["relu_node"], ["if_node", "tail"]]) {
      const make = new GraphMaker();
      const x = make.input("x", [2, 8]);
      const outer = make.op("Relu", [x]);
      const constants = make.body();
      const weight = constants.weight("w", [2, 8], 1);
      const [a, b] = [constants.op("Add", [outer, weight]), constants.op("Identity", [outer])];
      constants.graph.addOutput(a);
      constants.graph.addOutput(weight);
      constants.graph.addOutput(b);
      const computed = make.body();
      const c = computed.op("MatMul", [outer, computed.weight("v", [8, 8], 0.3)]);
      const [d, e] = [computed.op("Tanh", [c]), computed.op("Sigmoid", [c])];
      for (const value of [c, d, e]) computed.graph.addOutput(value);
      const attrs = { then_branch: constants.graph, else_branch: computed.graph };
      const results = make.node("If", [make.input("condition", [], "bool")], attrs, 3).outputs;
      make.output(results[0]!, "first", [2, 8]);
      make.output(results[1]!, "second", [2, 8]);
      const tail = make.node("Mul", [results[2]!, results[0]!]);
      tail.name = "tail";
      make.output(tail.outputs[0]!, "third", [2, 8]);
      for (const condition of [0, 1]) {
        const feeds = { ...randomFeeds(make.model), condition: tensorOf("bool", [], [condition]) };
        for (const keepIo of [true, false]) {
          await assertConverted(make.model, { keepIo, exclude: { nodes: excluded, ops: [] } }, 4e-3, feeds);
        }
      }
    }
  });

  it("a Loop that is excluded stays float32 inside", async () => {
    const original = loop();
    const model = await assertConverted(original, { exclude: { nodes: [], ops: ["Loop"] } }, 1e-6);
    assert.equal(weightBytes(model).float16, 0);
    const { notes } = compress(original, float16({ exclude: { nodes: [], ops: ["Loop"] } }));
    // Of what is inside, nothing is said: nobody excluded it by itself.
    assert.deepEqual(
      notes.filter(({ code }) => code === "excluded").map(({ op }) => op),
      ["Loop"],
    );
  });

  it("a Scan carries states and slices in one type", async () => {
    const make = new GraphMaker();
    const body = make.body();
    const [state, slice] = [body.input("state", [4]), body.input("slice", [4])];
    const next = body.op("Add", [body.op("Mul", [state, body.weight("decay", [4], 0.5)]), slice]);
    body.output(next, "next");
    body.output(body.op("Tanh", [next]), "emitted");
    const [last, all] = make.node(
      "Scan",
      [make.weight("start", [4], 1), make.input("x", [6, 4])],
      { body: body.graph, num_scan_inputs: 1 },
      2,
    ).outputs;
    make.output(last!, "last", [4]);
    make.output(all!, "all", [6, 4]);
    for (const keepIo of [true, false]) await assertConverted(make.model, { keepIo });
  });
});

describe("what float16 cannot hold", () => {
  it("a weight beyond its range keeps the node in float32, with the number", async () => {
    const original = modelOf([2, 8], (make, x) => {
      const large = make.constant(
        "large",
        tensorOf(
          "float32",
          [8, 8],
          Array.from({ length: 64 }, (_, i) => 2000 * i),
        ),
      );
      return make.linear(make.op("MatMul", [make.op("MatMul", [x, large]), make.weight("small", [8, 8], 1e-5)]), 8, 4);
    });
    const { notes } = compress(original, float16());
    const [note, ...others] = notes.filter(({ outcome }) => outcome === "skipped");
    assert.deepEqual([note!.code, note!.op], ["weight_overflow", "MatMul"]);
    assert.deepEqual(
      others.map(({ code, op }) => [code, op]),
      [["weight_underflow", "MatMul"]],
    );
    assert.match(note!.message, /"large" holds 126000/);
    const kept = await assertConverted(original, { exclude: { nodes: ["matmul_node_1"], ops: [] } }, 4e-3);
    assert.equal(weightBytes(kept).float32, 2 * 64 * 4);
  });

  it("a mask of huge numbers stays a mask", async () => {
    for (const infinity of [-3.4e38, -1e9, Number.NEGATIVE_INFINITY]) {
      const original = modelOf([2, 4], (make, x) => {
        const mask = make.op("Greater", [x, make.floats("zero", [], [0])]);
        const masked = make.op("Where", [mask, x, make.floats("masked", [], [infinity])]);
        return make.op("Softmax", [make.op("Concat", [masked, make.op("Abs", [x])], { axis: 1 })], { axis: 1 });
      });
      const { notes } = compress(original, float16());
      const skipped = notes.filter(({ outcome, code }) => outcome === "skipped" && code === "mask");
      // Infinity is infinity in float16 as well.
      assert.deepEqual(
        skipped.map(({ op }) => op),
        Number.isFinite(infinity) ? ["Where", "Concat", "Softmax"] : [],
      );
      await assertConverted(original);
    }
  });

  it("squares whose mean is taken stay in float32 up to the division by their root; other squares do not", async () => {
    const normalized = (square: (make: GraphMaker, x: Value) => Value) =>
      modelOf([2, 8], (make, x) => {
        const mean = make.op("ReduceMean", [square(make, x)], { axes: [-1] });
        const root = make.op("Sqrt", [make.op("Add", [mean, make.floats("eps", [], [1e-5])])]);
        return make.op("Div", [x, root]);
      });
    const skipped = (model: Model) =>
      compress(model, float16())
        .notes.filter(({ outcome, op }) => outcome === "skipped" && op !== "")
        .map(({ code, op }) => [code, op]);
    const feeds = {
      x: tensorOf(
        "float32",
        [2, 8],
        Float32Array.from({ length: 16 }, (_, i) => 300 * (i - 7.5)),
      ),
    };
    for (const [op, square] of [
      ["Mul", (make: GraphMaker, x: Value) => make.op("Mul", [x, x])],
      ["Pow", (make: GraphMaker, x: Value) => make.op("Pow", [x, make.floats("two", [], [2])])],
    ] as const) {
      const model = normalized(square);
      assert.deepEqual(skipped(model), [["squares", op]]);
      await assertConverted(model, {}, 4e-3, feeds);
    }
    const others: ((make: GraphMaker, x: Value) => Value)[] = [
      (make, x) => make.op("ReduceMean", [make.op("Mul", [x, make.weight("w", [8], 1)])], { axes: [-1] }),
      (make, x) => make.op("Mul", [x, x]),
      (make, x) => {
        const square = make.op("Mul", [x, x]);
        return make.op("Add", [make.op("ReduceMean", [square], { axes: [-1] }), make.op("Tanh", [square])]);
      },
    ];
    for (const build of others) assert.deepEqual(skipped(modelOf([2, 8], build)), []);
  });

  it("an epsilon does not become zero", async () => {
    const original = modelOf([2, 4], (make, x) => {
      const zero = make.op("Mul", [x, make.floats("nothing", [], [0])]);
      return make.op("Div", [zero, make.op("Add", [make.op("Abs", [zero]), make.floats("eps", [], [1e-12])])]);
    });
    await assertConverted(original, {}, 0);
  });

  it("arithmetic on sizes stays exact past 2048", async () => {
    const original = modelOf([1, 3001], (make, x) => {
      const size = make.op("Cast", [make.op("Shape", [make.op("Relu", [x])])], { to: 1 });
      const half = make.op("Floor", [make.op("Mul", [size, make.floats("half", [2], [1, 0.5])])]);
      const target = make.op("Cast", [half], { to: 7 });
      const mean = make.op("Div", [
        make.op("ReduceSum", [x], { keepdims: 1 }),
        make.op("ReduceProd", [size], { keepdims: 0 }),
      ]);
      return make.op("Add", [make.op("Expand", [mean, target]), make.floats("one", [], [1])]);
    });
    const { y } = await runModel(compress(original, float16()).model, randomFeeds(original));
    assert.deepEqual(y!.dims, [1, 1500]);
    await assertConverted(original);
  });

  it("positions stay exact up to the sine that encodes them", async () => {
    const make = new GraphMaker();
    const ids = make.input("ids", [4], "int64");
    const angle = make.op("Mul", [make.op("Cast", [ids], { to: 1 }), make.floats("frequency", [], [1.7])]);
    make.output(
      make.linear(make.op("Unsqueeze", [make.op("Sin", [angle]), make.ints("axes", [0])]), 4, 4),
      "y",
      [1, 4],
    );
    await assertConverted(make.model, {}, 4e-3, { ids: tensorOf("int64", [4], [2049, 4097, 9001, 60_001]) });
  });
});

describe("choices of the job", () => {
  const original = () =>
    modelOf([2, 8], (make, x) => make.linear(make.op("Tanh", [make.linear(make.op("Relu", [x]), 8, 8)]), 8, 8));

  it("excluded nodes and operators keep their weights and say so", async () => {
    for (const exclude of [
      { nodes: ["matmul_node"], ops: [] },
      { nodes: [], ops: ["MatMul"] },
      { nodes: [], ops: ["MatMul", "Add", "Tanh", "Relu"] },
    ]) {
      const { notes } = compress(original(), float16({ exclude }));
      assert.ok(notes.filter(({ code }) => code === "excluded").length >= 1);
      const model = await assertConverted(original(), { exclude });
      assert.ok(weightBytes(model).float32 >= 64 * 4);
    }
  });

  it("what float16 cannot hold stays float32, with the nodes on both sides", () => {
    const names = [...original().nodes()].map(({ outputs }) => outputs[0]!.name);
    const ranges = new Map([[names[1]!, { largest: 70_000, smallest: 1, elements: 16 }]]);
    const { notes } = compress(original(), float16({ ranges }));
    const message = `"${names[1]}" reaches 70000.0 on the samples, and float16 ends at 65504.`;
    assert.deepEqual(
      notes.filter(({ outcome }) => outcome === "skipped"),
      ["matmul_node", "add_node"].map((name) => ({
        ...{ outcome: "skipped", name, op: name === "add_node" ? "Add" : "MatMul", code: "range", message },
      })),
    );
  });

  it("a float16 model stays as it is", () => {
    const { model: once } = compress(original(), float16({ keepIo: false }));
    const { model: twice, notes } = compress(once, float16());
    assert.deepEqual(
      notes.map(({ outcome, code }) => [outcome, code]),
      [["skipped", "no_float32"]],
    );
    assert.deepEqual(Buffer.from(modelToBytes(twice)), Buffer.from(modelToBytes(once)));
  });

  it("weights that are listed as inputs are converted, options are not", async () => {
    for (const irVersion of [3, 8]) {
      const make = new GraphMaker({ opset: 9, irVersion });
      const [w, gain] = [make.weight("w", [8, 4], 0.5), make.floats("gain", [], [2])];
      make.output(make.op("Mul", [make.op("MatMul", [make.input("x", [2, 8]), w]), gain]), "y", [2, 4]);
      for (const value of [w, gain]) make.graph.setOverridable(value, true);
      const model = await assertConverted(make.model);
      assert.deepEqual(
        model.graph.inputs.map((value) => value.name),
        irVersion < 4 ? ["x"] : ["x", "gain"],
      );
      assert.equal(weightBytes(model).float32, irVersion < 4 ? 0 : 4);
    }
  });
});

describe("mixed precision", () => {
  it("any choice of excluded nodes gives a model that loads and computes the same", async () => {
    const models = [transformer({ layers: 1 }), branches(), loop(), lstm(), cnn()];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...models),
        fc.infiniteStream(fc.boolean()),
        fc.boolean(),
        async (model, picks, keepIo) => {
          const nodes = [...model.nodes()].map(({ label }) => label).filter(() => picks.next().value);
          await assertConverted(model, { keepIo, exclude: { nodes, ops: [] } }, 1e-2);
        },
      ),
      { numRuns: 60 },
    );
  });
});

it("Dropout whose ratio and mode are inputs keeps the ratio in float32, and its result", async () => {
  const make = new GraphMaker({ opset: 13 });
  const [ratio, mode] = [make.input("ratio", []), make.input("mode", [], "bool")];
  make.output(make.op("Dropout", [make.weight("table", [3, 40], 1), ratio, mode]), "y", [3, 40]);
  await assertConverted(make.model, {}, 4e-3, {
    ratio: tensorOf("float32", [], [0.75]),
    mode: tensorOf("bool", [], [0]),
  });
});

describe("models that are quantized already", () => {
  it("layers between QuantizeLinear and DequantizeLinear stay integer kernels, layers behind them become float16", async () => {
    const make = new GraphMaker({ opset: 17 });
    const scale = make.floats("scale", [], [0.05]);
    const [middle, zero] = [128, 0].map((point, i) =>
      make.constant("zero", tensorOf(i === 0 ? "uint8" : "int8", [], [point])),
    );
    const pair = (value: Value) =>
      make.op("DequantizeLinear", [make.op("QuantizeLinear", [value, scale, middle]), scale, middle]);
    const codes = make.constant(
      "codes",
      tensorOf(
        "int8",
        [32, 32],
        Int8Array.from({ length: 1024 }, (_, i) => ((i * 37) % 31) - 15),
      ),
    );
    const layer = make.op("MatMul", [
      pair(make.input("x", [4, 32])),
      make.op("DequantizeLinear", [codes, scale, zero]),
    ]);
    const paired = pair(layer);
    make.output(make.op("MatMul", [paired, make.weight("w", [32, 32], 0.2)]), "early", [4, 32]);
    make.output(
      make.op("MatMul", [make.op("Relu", [make.op("Relu", [paired])]), make.weight("v", [32, 32], 0.2)]),
      "y",
      [4, 32],
    );
    const { model, notes } = compress(make.model, float16());
    assert.equal((await fusedOperators(make.model)).QLinearMatMul ?? 0, 1);
    assert.equal((await fusedOperators(model)).QLinearMatMul ?? 0, 1);
    assert.deepEqual(
      notes.filter(({ op }) => op === "MatMul").map(({ outcome, code }) => [outcome, code]),
      [
        ["skipped", "quantized"],
        ["skipped", "quantized"],
        ["changed", "float16"],
      ],
    );
    await assertConverted(make.model);
  });
});

for (const keepIo of [true, false]) {
  it(`leaves a model in float16 as it is, ${keepIo ? "with" : "without"} Casts on its border`, () => {
    for (const network of [mlp(), cnn(), transformer()]) {
      const half = loadModel(modelToBytes(compress(network, float16({ keepIo })).model));
      assert.deepEqual(operatorsOf(compress(half, float16({ keepIo })).model), operatorsOf(half));
    }
  });
}
