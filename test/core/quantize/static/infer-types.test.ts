import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { tensorOf } from "../../../../src/core/onnx/tensor.ts";
import type { OpenModel } from "../../../../src/core/quantize/calibration/calibrate.ts";
import { inferTypes } from "../../../../src/core/quantize/static/infer-types.ts";
import { GraphMaker, randomFeeds } from "../../../support/graphs.ts";
import { openModel } from "../../../support/open-model.ts";

/** Opens models as the job does, and tells what each gives out. */
function watched(): { readonly open: OpenModel; readonly opened: string[][]; readonly runs: string[][] } {
  const opened: string[][] = [];
  const runs: string[][] = [];
  const open: OpenModel = async (model, options) => {
    opened.push(model.graph.outputs.map(({ name }) => name));
    const session = await openModel(model, options);
    const run = session.run.bind(session);
    session.run = (feeds, names, signal) => {
      runs.push([...(names ?? [])]);
      return run(feeds, names, signal);
    };
    return session;
  };
  return { open, opened, runs };
}

const feeds = (model: Model) => randomFeeds(model, { dims: { n: 2 } });

/** x [n, 4, 6] → Tanh → Relu → Reshape to as many axes as k says → Tanh → y. */
function network() {
  const make = new GraphMaker();
  const x = make.input("x", ["n", 4, 6]);
  const tanh = make.op("Tanh", [x]);
  const relu = make.op("Relu", [tanh]);
  const shape = make.op("Concat", [make.op("Shape", [x]), make.ints("one", [1])], { axis: 0 });
  const some = make.op("Slice", [shape, make.ints("first", [0]), make.input("k", [1], "int64")]);
  const reshaped = make.op("Reshape", [relu, some]);
  make.output(make.op("Tanh", [reshaped]), "y");
  return { model: make.model, tanh, relu, shape, reshaped };
}

test("what onnxruntime infers is taken, and only ranks that it does not know are found by a run", async () => {
  const { model, tanh, relu, shape, reshaped } = network();
  tanh.retype("float32", ["n", 4, 6]);
  const { open, opened, runs } = watched();
  await inferTypes(model, { ...feeds(model), k: tensorOf("int64", [1], [4]) }, open);
  assert.deepEqual([relu.dtype, relu.shape], ["float32", ["n", 4, 6]]);
  assert.deepEqual([shape.dtype, shape.shape], ["int64", [4]]);
  assert.deepEqual([reshaped.dtype, reshaped.shape], ["float32", [null, null, null, null]]);
  assert.ok(!opened[0]!.includes(tanh.name), "what is known is not asked for");
  assert.deepEqual(runs, [[reshaped.name, "y"]], "one run, for what onnxruntime does not know");
});

test("where everything is known nothing is loaded", async () => {
  const make = new GraphMaker({ storage: "constant" });
  const x = make.input("x", ["n", 4]);
  const sum = make.op("Add", [x, make.floats("k", [4], [1, 2, 3, 4])]);
  sum.retype("float32", ["n", 4]);
  const split = make.node("Dropout", [sum], {}, 2);
  split.outputs[0]!.retype("float32", ["n", 4]);
  split.outputs[1]!.name = "";
  make.output(split.outputs[0]!, "y", ["n", 4]);
  await inferTypes(make.model, feeds(make.model), () => assert.fail("it was loaded"));
});

test("texts are not run for", async () => {
  const make = new GraphMaker();
  const { outputs } = make.node(
    "LabelEncoder",
    [make.input("x", ["n"], "int64")],
    { keys_int64s: [0], values_strings: { type: "strings", value: ["a"] }, default_string: "b" },
    1,
    "ai.onnx.ml",
  );
  make.model.opsets.set("ai.onnx.ml", 2);
  const shape = make.op("Shape", [make.op("Shape", [outputs[0]!])]);
  const words = make.op("Reshape", [outputs[0]!, make.op("Expand", [make.ints("all", [-1]), shape])]);
  make.output(make.op("Shape", [words]), "y", undefined, "int64");
  const { open, runs } = watched();
  await inferTypes(make.model, feeds(make.model), open);
  assert.ok(runs.flat().every((name) => name !== words.name));
});

test("values that a session cannot give out have the type that operators give them", async () => {
  const make = new GraphMaker({ opset: 21, irVersion: 10 });
  const x = make.input("x", ["n", 4]);
  const narrow = make.op("Cast", [x], { to: 16 });
  make.output(make.op("Cast", [narrow], { to: 1 }), "y", ["n", 4]);
  await inferTypes(make.model, feeds(make.model), openModel);
  assert.equal(narrow.dtype, "bfloat16");
});
