import { AttributeProto_AttributeType as AttributeType, TensorProto_DataType as DataType } from "onnx-buf";
import { constant, float, type GraphInit, model, type NodeInit, type TensorInit } from "./protos.ts";

/**
 * A small model that takes as long as one asks for, in one native call: y = Σx · w + the result of a loop of as many turns as x has elements.
 * A turn takes some microseconds, so `dims: { t: 1000, u: 1000 }` is a matter of seconds, and the guesses of an inspection are one of milliseconds.
 * x float32 [b, t, u], w float32 [1, 64], y float32 [b, 1, 64].
 */
export function slowModel(): Uint8Array<ArrayBuffer> {
  const weight: TensorInit = {
    name: "w",
    dataType: DataType.FLOAT,
    dims: [1n, 64n],
    rawData: new Uint8Array(Float32Array.from({ length: 64 }, (_, i) => Math.sin(i)).buffer),
  };
  const turn: GraphInit = {
    name: "turn",
    input: [scalar("i", DataType.INT64), scalar("going", DataType.BOOL), scalar("state", DataType.FLOAT)],
    output: [scalar("goes_on", DataType.BOOL), scalar("next", DataType.FLOAT)],
    node: [
      { name: "keep", opType: "Identity", input: ["going"], output: ["goes_on"] },
      { name: "move", opType: "Sin", input: ["state"], output: ["next"] },
    ],
  };
  const nodes: NodeInit[] = [
    constant("axes", [1, 2]),
    { name: "sum", opType: "ReduceSum", input: ["x", "axes"], output: ["s"] },
    { name: "product", opType: "MatMul", input: ["s", "w"], output: ["p"] },
    { name: "turns", opType: "Size", input: ["x"], output: ["n"] },
    {
      name: "start",
      opType: "Constant",
      output: ["zero"],
      attribute: [{ name: "value_float", type: AttributeType.FLOAT, f: 0 }],
    },
    {
      name: "loop",
      opType: "Loop",
      input: ["n", "", "zero"],
      output: ["z"],
      attribute: [{ name: "body", type: AttributeType.GRAPH, g: turn }],
    },
    { name: "add", opType: "Add", input: ["p", "z"], output: ["y"] },
  ];
  const bytes = model({
    initializer: [weight],
    node: nodes,
    input: [float("x", "b", "t", "u")],
    output: [float("y", "b", 1, 64)],
  });
  return new Uint8Array(bytes);
}

function scalar(name: string, elemType: number) {
  return { name, type: { value: { case: "tensorType" as const, value: { elemType, shape: { dim: [] } } } } };
}
