import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Model, Value } from "../../../src/core/onnx/ir.ts";
import { floatsOf, type Tensor, tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { float16Pass } from "../../../src/core/passes/float16.ts";
import { runPasses } from "../../../src/core/passes/pass.ts";
import { simplifyPasses } from "../../../src/core/passes/simplify.ts";
import { inferDTypes } from "../../../src/core/passes/value-dtypes.ts";
import { narrowed, widened, widenFloats } from "../../../src/core/passes/widen.ts";
import { dynamicPass } from "../../../src/core/quantize/weights/dynamic.ts";
import { compress, operatorsOf } from "../../support/compressed.ts";
import { branches, cnn, GraphMaker, loop, lstm, mlp, randomFeeds, transformer } from "../../support/graphs.ts";
import { runModel } from "../../support/open-model.ts";
import { relativeError } from "../../support/same-function.ts";

const half = (keepIo: boolean, ops: readonly string[] = []) => float16Pass({ keepIo, exclude: { nodes: [], ops } });

/** In half precision each layer is off by 2⁻¹¹ of its result. */
const HALF_ROUNDING = 8e-3;

function halfFeeds(model: Model): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(randomFeeds(model)).map(([name, feed]) => [
      name,
      model.graph.inputs.find((input) => input.name === name)?.dtype === "float16" && feed.dtype === "float32"
        ? tensorOf("float16", feed.dims, Float16Array.from(floatsOf(feed)))
        : feed,
    ]),
  );
}

/** Outputs of both have the same names, types and shapes, and their values differ by no more than `tolerance` of the largest. */
async function assertClose(before: Model, after: Model, feeds: Record<string, Tensor>, tolerance: number) {
  for (const optimization of ["disabled", "all"] as const) {
    const [expected, actual] = [
      await runModel(before, feeds, { optimization }),
      await runModel(after, feeds, { optimization }),
    ];
    assert.deepEqual(Object.keys(actual), Object.keys(expected));
    for (const [name, x] of Object.entries(expected)) {
      const y = actual[name]!;
      assert.deepEqual([y.dtype, y.dims], [x.dtype, x.dims], name);
      const error = relativeError(floatsOf(x), floatsOf(y));
      assert.ok(error <= tolerance, `${name}: ${error}`);
    }
  }
}

/** Nodes other than Cast that have anything to do with a value of two bytes. */
function narrowNodes(model: Model): string[] {
  const types = inferDTypes(model);
  const isNarrow = (value: Value | undefined) => ["float16", "bfloat16"].includes((value && types.get(value)) ?? "");
  return [...model.nodes()]
    .filter((node) => node.opType !== "Cast" && [...node.inputs, ...node.outputs].some(isNarrow))
    .map(({ opType }) => opType);
}

const NETWORKS: Readonly<Record<string, Model>> = {
  mlp: mlp(),
  "mlp with weights in Constant nodes": mlp({ storage: "constant" }),
  cnn: cnn(),
  transformer: transformer(),
  lstm: lstm(),
  "branches of an If": branches(),
  "the body of a Loop": loop(),
};

describe("widening", () => {
  for (const [name, network] of Object.entries(NETWORKS)) {
    for (const keepIo of [false, true]) {
      for (const ops of [[], ["MatMul"], ["Relu", "Add", "Tanh"]]) {
        it(`${name}, ${keepIo ? "float32" : "float16"} outside, ${ops.join(", ") || "nothing"} in float32`, async () => {
          const model = compress(network, half(keepIo, ops)).model;
          const { model: wide, notes } = compress(model, widenFloats);
          assert.deepEqual(narrowNodes(wide), []);
          assert.deepEqual(
            notes.map(({ code }) => code),
            ["widened"],
          );
          await assertClose(model, wide, halfFeeds(model), HALF_ROUNDING);
        });
      }
    }
  }

  it("a model without such types stays as it is", () => {
    assert.equal(widened(mlp()), undefined);
  });

  it("weights are the same numbers, of both types", async () => {
    const make = new GraphMaker();
    const x = make.input("x", ["n", 64]);
    const numbers = Float32Array.from({ length: 64 * 32 }, (_, i) => Math.fround((i - 1000) * 2 ** -9));
    const asHalf = tensorOf("float16", [64, 32], Float16Array.from(numbers));
    const words = new Uint16Array(numbers.length);
    const bits = new Uint32Array(numbers.buffer);
    for (let i = 0; i < words.length; i++) words[i] = bits[i]! >>> 16;
    const asBfloat = tensor("bfloat16", [64, 32], new Uint8Array(words.buffer));
    const [a, b] = [asHalf, asBfloat].map((weight, i) =>
      make.op("Cast", [make.op("Identity", [make.constant(`w${i}`, weight)])], { to: 1 }),
    );
    make.output(make.op("Add", [make.op("MatMul", [x, a!]), make.op("MatMul", [x, b!])]), "y", ["n", 32]);
    const wide = runPasses(make.model, [widenFloats, ...simplifyPasses()]).model;
    assert.deepEqual(operatorsOf(wide).sort(), ["Add", "MatMul", "MatMul"]);
    const constants = wide.graph.nodes
      .filter(({ opType }) => opType === "MatMul")
      .map(({ inputs }) => [...floatsOf(inputs[1]!.constant!)]);
    assert.deepEqual(constants, [[...floatsOf(asHalf)], [...floatsOf(asBfloat)]]);
    await assertClose(make.model, wide, randomFeeds(make.model), 1e-6);
  });

  it("operators of other domains, and what runs on elements of sequences, keep working in the types they had", async () => {
    const make = new GraphMaker();
    const x = make.input("x", ["n", 8], "float16");
    const sequence = make.op("SequenceConstruct", [x, make.op("Relu", [x])]);
    const first = make.op("SequenceAt", [sequence, make.ints("first", [1], [])]);
    make.output(make.op("Mul", [make.op("Abs", [first]), make.op("Tanh", [x])]), "y", ["n", 8], "float16");
    const { model: wide } = compress(make.model, widenFloats);
    await assertClose(make.model, wide, halfFeeds(make.model), HALF_ROUNDING);
    assert.ok(!narrowNodes(wide).includes("Tanh"));
  });

  it("dynamic int8 of a float16 model computes in 8 bits, with the inputs and outputs of the model", async () => {
    const model = compress(mlp({ sizes: [64, 128, 64] }), half(false)).model;
    const { model: int8, notes } = runPasses(widened(model)!.model, [
      ...simplifyPasses(),
      dynamicPass({ perChannel: true, reduceRange: true, exclude: { nodes: [], ops: [] } }),
    ]);
    assert.equal(notes.filter(({ outcome }) => outcome === "changed").length, 2);
    assert.deepEqual(narrowNodes(int8), []);
    assert.deepEqual(
      [...int8.graph.inputs, ...int8.graph.outputs].filter(({ constant }) => !constant).map(({ dtype }) => dtype),
      ["float16", "float16"],
    );
    await assertClose(model, int8, halfFeeds(model), 0.05);
  });
});

describe("a model that computes in float32", () => {
  const made: Readonly<Record<string, () => Model>> = {
    "behind and before Casts of its own": () => {
      const make = new GraphMaker();
      const x = make.op("Cast", [make.input("x", [1, 4], "float16")], { to: 1 });
      make.output(make.op("Cast", [make.op("Relu", [x])], { to: 10 }), "y", [1, 4], "float16");
      return make.model;
    },
    "since it was widened": () => widened(compress(mlp({ sizes: [16, 16, 8] }), half(false)).model)!.model,
  };
  for (const [what, build] of Object.entries(made)) {
    it(`is not said to be widened: ${what}`, () => assert.equal(widened(build()), undefined));
  }

  it("is widened where a part of it is not: a Cast of its input that is read in float16, too", async () => {
    const make = new GraphMaker();
    const x = make.input("x", [1, 4], "float16");
    const wide = make.op("Cast", [x], { to: 1 });
    const narrow = make.op("Cast", [make.op("Relu", [x])], { to: 1 });
    make.output(make.op("Cast", [make.op("Add", [wide, narrow])], { to: 10 }), "y", [1, 4], "float16");
    const { model } = widened(make.model)!;
    assert.deepEqual(narrowNodes(model), []);
    await assertClose(make.model, model, halfFeeds(make.model), 1e-6);
  });
});

describe("storing what was left alone", () => {
  it("weights that are numbers of float16 are stored so, others are not", async () => {
    const model = compress(mlp({ sizes: [64, 64, 64] }), half(true)).model;
    const wide = widened(model)!.model;
    const stored = narrowed(wide);
    const types = [...stored.graph.initializers].filter(({ shape }) => shape?.length === 2).map(({ dtype }) => dtype);
    assert.deepEqual(types, ["float16", "float16"]);
    await assertClose(wide, stored, randomFeeds(model), 0);
    const other = mlp({ sizes: [64, 64, 64] });
    assert.ok([...narrowed(other).graph.initializers].every(({ dtype }) => dtype !== "float16"));
  });
});
