import assert from "node:assert/strict";
import { test } from "node:test";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { printModel } from "../../../src/core/onnx/print.ts";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import { GraphMaker } from "../../support/graphs.ts";
import { IDENTITY, localFunction, withFunctions } from "../../support/protos.ts";

test("a model with everything in it", () => {
  const make = new GraphMaker();
  const condition = make.input("condition", [], "bool");
  const x = make.input("x y", ["n", null, 3]);
  const w = make.weight("w", [3, 2], 1);
  make.graph.setOverridable(w, true);
  make.ints("shape", [0, -1]);
  make.graph.addInitializer("codes", tensorOf("uint8", [9], new Uint8Array(9)));
  const body = (value: number) => {
    const inner = make.body();
    inner.output(inner.op("Mul", [x, inner.floats("k", [], [value])]), "inner");
    return inner.graph;
  };
  const [z] = make.node("If", [condition], { then_branch: body(0.1), else_branch: body(1 / 3) }, ["z"]).outputs;
  const attrs = {
    zeta: { type: "float", value: Math.fround(0.1) },
    alpha: "text",
    list: [1, -2],
    floats: { type: "floats", value: [Math.fround(0.2), Number.POSITIVE_INFINITY] },
    names: { type: "strings", value: ["a", "b"] },
  } as const;
  const node = make.node("FusedGemm", [z, undefined, w], attrs, ["y", ""], "com.microsoft");
  make.output(node.outputs[0]!, "out", ["n", 2]);
  assert.equal(
    printModel(make.model),
    `model ir_version 8, ai.onnx 17, com.microsoft 1
graph main(condition: bool[], "x y": float32[n, ?, 3], w: float32[3, 2] = default) -> (out: float32[n, 2])
  w: float32[3, 2]
  shape: int64[2] {0, -1}
  codes: uint8[9]
  z = If(condition)
    else_branch: body() -> (inner_1: float32[…])
      k_1: float32[] {0.3333333}
      inner_1 = Mul("x y", k_1)
    then_branch: body() -> (inner: float32[…])
      k: float32[] {0.1}
      inner = Mul("x y", k)
  out, _ = com.microsoft.FusedGemm(z, _, w) alpha="text" floats=[0.2, Infinity] list=[1, -2] names=["a","b"] zeta=0.1
`,
  );
});

test("functions that could not be expanded are listed, not printed", () => {
  const older = { ...localFunction("f", IDENTITY), opsetImport: [{ domain: "", version: 13n }] };
  const text = printModel(loadModel(withFunctions(older)));
  assert.match(text, /^function local\.f \(1 nodes\)$/m);
});

test("digests tell tensors apart that look the same", () => {
  const of = (value: number) => {
    const make = new GraphMaker();
    make.graph.addInitializer("w", tensorOf("float32", [2], [1, value]));
    return printModel(make.model, { digests: true });
  };
  assert.equal(of(2), of(2));
  assert.notEqual(of(2), of(3));
  assert.match(of(2), /w: float32\[2\] #[0-9a-f]{16}$/m);
});
