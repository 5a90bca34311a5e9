import { AttributeProto_AttributeType as AttributeType, TensorProto_DataType as DataType } from "onnx-buf";
import { constant, float, type GraphInit, model, type NodeInit, type TensorInit } from "./protos.ts";

/**
 * Small models that take as much time or memory as `dims` asks for, in one native call. Both end in a product with w float32 [1, 64],
 * which is what jobs compress: s float32 [b, 1, 1] → y float32 [b, 1, 64].
 */

const W: TensorInit = {
  name: "w",
  dataType: DataType.FLOAT,
  dims: [1n, 64n],
  rawData: new Uint8Array(Float32Array.from({ length: 64 }, (_, i) => Math.sin(i)).buffer),
};

/**
 * A loop of t · u turns of some microseconds: `{ t: 1000, u: 1000 }` is a matter of seconds, the guesses of an inspection one of
 * milliseconds. x float32 [b, t, u].
 */
export function slowModel(): Uint8Array<ArrayBuffer> {
  const turn: GraphInit = {
    name: "turn",
    input: [scalar("i", DataType.INT64), scalar("going", DataType.BOOL), scalar("state", DataType.FLOAT)],
    output: [scalar("goes_on", DataType.BOOL), scalar("next", DataType.FLOAT)],
    node: [
      { name: "keep", opType: "Identity", input: ["going"], output: ["goes_on"] },
      { name: "move", opType: "Sin", input: ["state"], output: ["next"] },
    ],
  };
  return withProduct(
    [
      constant("axes", [1, 2]),
      { name: "sum", opType: "ReduceSum", input: ["x", "axes"], output: ["plain"] },
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
        output: ["turned"],
        attribute: [{ name: "body", type: AttributeType.GRAPH, g: turn }],
      },
      { name: "add", opType: "Add", input: ["plain", "turned"], output: ["s"] },
    ],
    "t",
    "u",
  );
}

/** Makes a [b, t, t] of a [b, t, 1]: `{ t: 20_000 }` takes 1.6 GB. x float32 [b, t, 1]. */
export function hungryModel(): Uint8Array<ArrayBuffer> {
  return withProduct(
    [
      constant("axes", [1, 2]),
      {
        name: "turn",
        opType: "Transpose",
        input: ["x"],
        output: ["row"],
        attribute: [{ name: "perm", type: AttributeType.INTS, ints: [0n, 2n, 1n] }],
      },
      { name: "square", opType: "Add", input: ["x", "row"], output: ["table"] },
      { name: "bend", opType: "Sin", input: ["table"], output: ["bent"] },
      { name: "sum", opType: "ReduceSum", input: ["bent", "axes"], output: ["s"] },
    ],
    "t",
    1,
  );
}

function withProduct(nodes: NodeInit[], rows: string | number, columns: string | number): Uint8Array<ArrayBuffer> {
  const product = { name: "product", opType: "MatMul", input: ["s", "w"], output: ["y"] };
  const input = [float("x", "b", rows, columns)];
  return new Uint8Array(
    model({ initializer: [W], node: [...nodes, product], input, output: [float("y", "b", 1, 64)] }),
  );
}

function scalar(name: string, elemType: number) {
  return { name, type: { value: { case: "tensorType" as const, value: { elemType, shape: { dim: [] } } } } };
}
