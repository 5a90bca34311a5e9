import assert from "node:assert/strict";
import { test } from "node:test";
import { AttributeProto_AttributeType as AttributeType } from "onnx-buf";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import { checkInvariants, runPasses } from "../../../src/core/passes/pass.ts";
import { dynamicPass } from "../../../src/core/quantize/weights/dynamic.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { type FunctionInit, model, type NodeInit } from "../../support/protos.ts";

const OPSETS = [
  { domain: "", version: 17n },
  { domain: "local", version: 1n },
];

function fn(init: Omit<FunctionInit, "domain" | "opsetImport">, version = 17n): FunctionInit {
  return { domain: "local", opsetImport: [{ domain: "", version }, OPSETS[1]!], ...init };
}

const op = (opType: string, input: readonly string[], output: readonly string[], more: NodeInit = {}): NodeInit => ({
  opType,
  input: [...input],
  output: [...output],
  ...more,
});

const call = (name: string, input: readonly string[], output: readonly string[], more: NodeInit = {}): NodeInit =>
  op(name, input, output, { domain: "local", ...more });

const scalar = (name: string, value: number): NodeInit =>
  op("Constant", [], [name], { attribute: [{ name: "value_float", type: AttributeType.FLOAT, f: value }] });

/** x [2, 3] → y; `w` is a weight [3]. */
function written(functions: readonly FunctionInit[], ...node: NodeInit[]): Uint8Array {
  return model({ node }, { opsetImport: OPSETS, functions: [...functions] });
}

async function outputs(bytes: Uint8Array): Promise<unknown> {
  const session = await openSession({ bytes });
  const results = await session.run({ x: tensorOf("float32", [2, 3], [1, -2, 3, -4, 5, -6]) });
  await session.close();
  return Object.entries(results).map(([name, { dtype, dims, bytes }]) => [name, dtype, dims, [...bytes]]);
}

/** The operators that are left, once the model has been loaded and computes what it did. */
async function expanded(bytes: Uint8Array): Promise<string> {
  const loaded = loadModel(bytes);
  checkInvariants(loaded, "load");
  assert.deepEqual(await outputs(modelToBytes(loaded)), await outputs(bytes));
  return [...loaded.nodes()].map(({ opType }) => opType).join(" ");
}

const SCALE = fn({
  name: "scale",
  input: ["a", "b"],
  output: ["c"],
  node: [op("Mul", ["a", "b"], ["t"], { name: "inner" }), op("Relu", ["t"], ["c"])],
});

test("a function called twice stands there twice, under names of its own", async () => {
  const bytes = written(
    [SCALE],
    call("scale", ["x", "w"], ["t"]),
    call("scale", ["t", "w"], ["y"], { name: "second" }),
  );
  assert.equal(await expanded(bytes), "Mul Relu Mul Relu");
  const loaded = loadModel(bytes);
  assert.deepEqual(loaded.functions, []);
  assert.deepEqual(
    loaded.graph.nodes.map(({ name, outputs }) => `${name}: ${outputs[0]!.name}`),
    ["t/inner: t/t", "t/Relu: t", "second/inner: second/t", "second/Relu: y"],
  );
});

test("functions that call functions, in bodies too", async () => {
  const twice = fn({
    name: "twice",
    input: ["a"],
    output: ["b"],
    node: [scalar("k", -2), call("scale", ["a", "k"], ["s"]), call("scale", ["s", "k"], ["b"])],
  });
  assert.equal(await expanded(written([SCALE, twice], call("twice", ["x"], ["y"]))), "Constant Mul Relu Mul Relu");
  const branch = (name: string, node: NodeInit) => ({
    name,
    type: AttributeType.GRAPH,
    g: { name, node: [node], output: [{ name: node.output![0]! }] },
  });
  const chooses = fn({
    name: "chooses",
    input: ["a"],
    output: ["b"],
    node: [
      op("Constant", [], ["axes"], { attribute: [{ name: "value_ints", type: AttributeType.INTS, ints: [0n, 1n] }] }),
      op("ReduceSum", ["a", "axes"], ["sum"], { attribute: [{ name: "keepdims", type: AttributeType.INT, i: 0n }] }),
      scalar("zero", 0),
      op("Greater", ["sum", "zero"], ["c"]),
      op("If", ["c"], ["b"], {
        attribute: [
          branch("then_branch", call("scale", ["a", "sum"], ["t"])),
          branch("else_branch", op("Sub", ["a", "sum"], ["t"])),
        ],
      }),
    ],
  });
  const both = written([SCALE, chooses], call("chooses", ["x"], ["t"]), call("chooses", ["t"], ["y"]));
  assert.match(await expanded(both), /^Constant ReduceSum Constant Greater If/);
  assert.ok(![...loadModel(both).nodes()].some(({ domain }) => domain === "local"));
});

test("attributes: given, by default, and left out", async () => {
  const leaky = fn({
    name: "leaky",
    input: ["a"],
    output: ["b"],
    attribute: ["slope"],
    node: [
      op("LeakyRelu", ["a"], ["b"], {
        attribute: [{ name: "alpha", type: AttributeType.FLOAT, refAttrName: "slope" }],
      }),
    ],
  });
  const withDefault = { ...leaky, name: "usual", attribute: [], attributeProto: [slope(0.5)] };
  const bytes = written(
    [leaky, withDefault],
    call("leaky", ["x"], ["a"], { attribute: [slope(0.25)] }),
    call("leaky", ["a"], ["b"]),
    call("usual", ["b"], ["c"]),
    call("usual", ["c"], ["y"], { attribute: [slope(2)] }),
  );
  assert.equal(await expanded(bytes), "LeakyRelu LeakyRelu LeakyRelu LeakyRelu");
  assert.deepEqual(
    loadModel(bytes).graph.nodes.map((node) => node.float("alpha")),
    [0.25, undefined, 0.5, 2],
  );
});

function slope(f: number) {
  return { name: "slope", type: AttributeType.FLOAT, f };
}

test("inputs that are left out, outputs that nobody wants, and inputs that are passed through", async () => {
  const optional = fn({
    name: "clipped",
    input: ["a", "low", "high"],
    output: ["b", "same", "extra"],
    node: [op("Clip", ["a", "low", "high"], ["b"]), op("Neg", ["b"], ["extra"]), op("Identity", ["a"], ["unused"])],
  });
  const through = { ...optional, node: [...optional.node!, op("Identity", ["a"], ["same"])] };
  const bytes = written(
    [through],
    op("Constant", [], ["one"], { attribute: [{ name: "value_float", type: AttributeType.FLOAT, f: 1 }] }),
    call("clipped", ["x", "", "one"], ["t", "", "n"]),
    call("clipped", ["t"], ["u", "s", ""]),
    op("Sum", ["n", "u", "s"], ["y"]),
  );
  assert.match(await expanded(bytes), /Clip Neg/);
  const passing = fn({ name: "pass", input: ["a"], output: ["a"], node: [] });
  const passed = loadModel(written([passing], call("pass", ["x"], ["y"])));
  assert.deepEqual(
    passed.graph.nodes.map(({ opType }) => opType),
    ["Identity"],
  );
});

test("a function in another version of the operators stays a function, with what it calls", async () => {
  const old = fn({ name: "old", input: ["a"], output: ["b"], node: [call("plain", ["a"], ["b"])] }, 13n);
  const plain = fn({ name: "plain", input: ["a"], output: ["b"], node: [op("Relu", ["a"], ["b"])] }, 13n);
  const bytes = written([old, plain, SCALE], call("old", ["x"], ["t"]), call("scale", ["t", "w"], ["y"]));
  assert.equal(await expanded(bytes), "old Mul Relu");
  assert.deepEqual(
    loadModel(bytes).functions.map(({ name }) => name),
    ["old", "plain"],
  );
});

test("weights behind calls are compressed", () => {
  const size = 64;
  const dense = fn({
    name: "dense",
    input: ["a", "b"],
    output: ["c"],
    node: [op("MatMul", ["a", "b"], ["t"]), op("Relu", ["t"], ["c"])],
  });
  const floats = new Uint8Array(new Float32Array(size * size).fill(0.5).buffer);
  const bytes = model(
    {
      initializer: ["w1", "w2"].map((name) => ({
        name,
        dataType: 1,
        dims: [BigInt(size), BigInt(size)],
        rawData: name === "w1" ? floats : floats.map((byte, i) => (i % 4 === 2 ? byte ^ 0x40 : byte)),
      })),
      input: [{ name: "x", type: { value: { case: "tensorType", value: { elemType: 1 } } } }],
      node: [call("dense", ["x", "w1"], ["t"]), call("dense", ["t", "w2"], ["y"])],
    },
    { opsetImport: OPSETS, functions: [dense] },
  );
  const pass = dynamicPass({ perChannel: true, reduceRange: false, exclude: { nodes: [], ops: [] } });
  const { notes } = runPasses(loadModel(bytes), [pass]);
  assert.deepEqual(
    notes.map(({ name, outcome }) => `${name} ${outcome}`),
    ["t/MatMul changed", "y/MatMul changed"],
  );
});
