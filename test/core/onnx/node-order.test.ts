import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { AttributeProto_AttributeType as AttributeType, TensorProto_DataType as DataType } from "onnx-buf";
import { CoreError } from "../../../src/core/errors.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { checkInvariants } from "../../../src/core/passes/pass.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { constant, float, localFunction, model, type NodeInit, withFunctions } from "../../support/protos.ts";

const X = tensorOf("float32", [2, 3], new Float32Array([1, -2, 3, 4, -5, 6]));

async function run(bytes: Uint8Array): Promise<number[]> {
  const session = await openSession({ bytes });
  try {
    return [...floatsOf((await session.run({ x: X })).y!)];
  } finally {
    await session.close();
  }
}

const labels = (bytes: Uint8Array) => loadModel(bytes).graph.nodes.map(({ label }) => label);

/** Nodes v1 … vn, each the sum or the larger one of two values before it; y is the last. */
const chain: fc.Arbitrary<NodeInit[]> = fc
  .array(fc.tuple(fc.nat(), fc.nat(), fc.constantFrom("Add", "Max", "Sub")), { minLength: 1, maxLength: 12 })
  .map((picks) =>
    picks.map(([a, b, opType], i) => {
      const value = (pick: number) => (pick % (i + 1) === 0 ? "x" : `v${pick % (i + 1)}`);
      return {
        name: `n${i + 1}`,
        opType,
        input: [value(a), value(b)],
        output: [i === picks.length - 1 ? "y" : `v${i + 1}`],
      };
    }),
  );
const shuffled = chain.chain((nodes) =>
  fc.tuple(fc.constant(nodes), fc.shuffledSubarray(nodes, { minLength: nodes.length, maxLength: nodes.length })),
);

test("nodes in any order: the model that is written is sorted, and computes what the file does", async () => {
  await fc.assert(
    fc.asyncProperty(shuffled, async ([sorted, node]) => {
      const file = model({ node });
      const loaded = loadModel(file);
      checkInvariants(loaded, "load");
      const written = modelToBytes(loaded);
      assert.deepEqual(await run(written), await run(model({ node: sorted })));
      assert.deepEqual(await run(written), await run(file));
      assert.ok(Buffer.from(written).equals(modelToBytes(loadModel(written))), "sorted nodes stay as they are");
    }),
    { numRuns: 60 },
  );
});

test("what is in order keeps it; what is read too early moves to right before its first reader", () => {
  const relu = (name: string, input: string, output: string): NodeInit => ({
    name,
    opType: "Relu",
    input: [input],
    output: [output],
  });
  const node = [
    relu("a", "x", "p"),
    relu("b", "q", "y"),
    relu("c", "p", "r"),
    relu("d", "s", "q"),
    relu("e", "x", "s"),
  ];
  assert.deepEqual(labels(model({ node })), ["a", "e", "d", "b", "c"]);
});

test("a body may read what stands behind its node, and has an order of its own", async () => {
  const body = (...nodes: NodeInit[]) => ({ name: "branch", node: nodes, output: [float("inner")] });
  const branch = (name: string, ...nodes: NodeInit[]) => ({ name, type: AttributeType.GRAPH, g: body(...nodes) });
  const choose: NodeInit = {
    name: "choose",
    opType: "If",
    input: ["yes"],
    output: ["y"],
    attribute: [
      branch(
        "then_branch",
        { name: "second", opType: "Add", input: ["doubled", "first"], output: ["inner"] },
        { name: "first", opType: "Neg", input: ["x"], output: ["first"] },
      ),
      branch("else_branch", { opType: "Neg", input: ["x"], output: ["inner"] }),
    ],
  };
  const double: NodeInit = { name: "double", opType: "Add", input: ["x", "x"], output: ["doubled"] };
  const yes: NodeInit = {
    name: "yes",
    opType: "Constant",
    output: ["yes"],
    attribute: [
      { name: "value", type: AttributeType.TENSOR, t: { dataType: DataType.BOOL, rawData: new Uint8Array([1]) } },
    ],
  };
  const file = model({ node: [choose, double, yes] });
  assert.deepEqual(labels(file).slice(-1), ["choose"]);
  // 2x - x.
  assert.deepEqual(await run(modelToBytes(loadModel(file))), [...floatsOf(X)]);
});

test("the nodes of a function are sorted too", async () => {
  const late: NodeInit[] = [
    { opType: "Neg", input: ["m"], output: ["b"] },
    { opType: "Neg", input: ["a"], output: ["m"] },
  ];
  const file = withFunctions(localFunction("f", ...late));
  assert.deepEqual(await run(modelToBytes(loadModel(file))), [...floatsOf(X)]);
});

test("a shape that stands behind what it is for is found all the same", () => {
  const bomb: NodeInit = { name: "bomb", opType: "ConstantOfShape", input: ["shape"], output: ["y"] };
  assert.throws(
    () => loadModel(model({ node: [bomb, constant("shape", [1_000_000, 1_000_000])] })),
    (error) => error instanceof CoreError && error.code === "limit_exceeded" && error.subject === "bomb",
  );
});

test("a chain that no recursion could follow, backwards", () => {
  const length = 30_000;
  const node = Array.from({ length }, (_, i): NodeInit => {
    const step = length - i;
    return { opType: "Neg", input: [step === 1 ? "x" : `v${step - 1}`], output: [step === length ? "y" : `v${step}`] };
  });
  const [first, second] = loadModel(model({ node })).graph.nodes;
  assert.equal(first!.inputs[0]!.name, "x");
  assert.equal(second!.inputs[0], first!.outputs[0]);
});
