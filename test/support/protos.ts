/**
 * Hand-made protobuf messages: models that no exporter would write, one fault at a time. All start from y = x + w.
 */
import { create, type DescMessage, type Message, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  type AttributeProtoSchema,
  AttributeProto_AttributeType as AttributeType,
  TensorProto_DataType as DataType,
  type FunctionProtoSchema,
  type GraphProtoSchema,
  ModelProtoSchema,
  type NodeProtoSchema,
  TensorProto_DataLocation,
  type TensorProtoSchema,
  type ValueInfoProtoSchema,
} from "onnx-buf";

/** The plain-object form of a message. */
type InitOf<S extends DescMessage> = Exclude<MessageInitShape<S>, Message>;

export type ModelInit = InitOf<typeof ModelProtoSchema>;
export type GraphInit = InitOf<typeof GraphProtoSchema>;
export type NodeInit = InitOf<typeof NodeProtoSchema>;
export type TensorInit = InitOf<typeof TensorProtoSchema>;
export type AttributeInit = InitOf<typeof AttributeProtoSchema>;
export type ValueInfoInit = InitOf<typeof ValueInfoProtoSchema>;
export type FunctionInit = InitOf<typeof FunctionProtoSchema>;

export const zeros = (count: number) => new Uint8Array(count);

/** w float32 [2, 3], all zero. */
export const W: TensorInit = { name: "w", dataType: DataType.FLOAT, dims: [2n, 3n], rawData: zeros(24) };
export const ADD: NodeInit = { name: "add", opType: "Add", input: ["x", "w"], output: ["y"] };

export function float(name: string, ...dims: (number | string)[]): ValueInfoInit {
  return {
    name,
    type: {
      value: {
        case: "tensorType",
        value: {
          elemType: DataType.FLOAT,
          shape: {
            dim: dims.map((dim) =>
              typeof dim === "number"
                ? { value: { case: "dimValue", value: BigInt(dim) } }
                : { value: { case: "dimParam", value: dim } },
            ),
          },
        },
      },
    },
  };
}

/** y = x + w, with parts of the graph or the model replaced. */
export function model(graph: GraphInit = {}, rest: ModelInit = {}): Uint8Array {
  const init: ModelInit = {
    irVersion: 8n,
    opsetImport: [{ domain: "", version: 17n }],
    graph: {
      name: "g",
      initializer: [W],
      node: [ADD],
      input: [float("x", "n", 3)],
      output: [{ name: "y" }],
      ...graph,
    },
    ...rest,
  };
  return toBinary(ModelProtoSchema, create(ModelProtoSchema, init));
}

export function withTensor(change: TensorInit): Uint8Array {
  return model({ initializer: [{ ...W, ...change }] });
}

export function withNodes(...node: NodeInit[]): Uint8Array {
  return model({ node: [...node, ADD] });
}

export function constant(name: string, values: readonly number[]): NodeInit {
  return {
    opType: "Constant",
    output: [name],
    attribute: [{ name: "value_ints", type: AttributeType.INTS, ints: values.map(BigInt) }],
  };
}

export function withFunctions(...functions: FunctionInit[]): Uint8Array {
  const calls: NodeInit[] = [{ name: "call", opType: "f", domain: "local", input: ["x"], output: ["z"] }];
  return model(
    { node: [...calls, ADD] },
    {
      functions,
      opsetImport: [
        { domain: "", version: 17n },
        { domain: "local", version: 1n },
      ],
    },
  );
}

export const IDENTITY: NodeInit = { opType: "Identity", input: ["a"], output: ["b"] };

export function localFunction(name: string, ...node: NodeInit[]): FunctionInit {
  return {
    name,
    domain: "local",
    input: ["a"],
    output: ["b"],
    node,
    opsetImport: [
      { domain: "", version: 17n },
      { domain: "local", version: 1n },
    ],
  };
}

export const call = (name: string): NodeInit => ({ opType: name, domain: "local", input: ["a"], output: ["b"] });

/** A branch of an If whose body is `graph`. */
export function ifNode(body: GraphInit): NodeInit {
  return {
    name: "if",
    opType: "If",
    input: ["x"],
    output: ["z"],
    attribute: [{ name: "then_branch", type: AttributeType.GRAPH, g: body }],
  };
}

export function external(location: string, more: Record<string, string> = {}): TensorInit {
  return {
    ...W,
    rawData: undefined as never,
    dataLocation: TensorProto_DataLocation.EXTERNAL,
    externalData: Object.entries({ location, ...more }).map(([key, value]) => ({ key, value })),
  };
}

/** An If in an If in an If …, `depth` graphs in all. */
export function nested(depth: number): Uint8Array {
  let body: GraphInit = { name: "innermost", node: [] };
  for (let i = 2; i < depth; i++) body = { name: `g${i}`, node: [ifNode(body)] };
  return withNodes(ifNode(body));
}

/** A shape operand and a node that reads it. */
export function made(opType: string, shape: readonly number[], ...before: NodeInit[]): Uint8Array {
  const inputs: Record<string, string[]> = {
    ConstantOfShape: ["shape"],
    Range: ["zero", "shape", "one"],
    Resize: ["x", "", "", "shape"],
    OneHot: ["x", "shape", "x"],
    Pad: ["x", "shape"],
  };
  return withNodes(constant("shape", shape), constant("zero", [0]), constant("one", [1]), ...before, {
    name: "bomb",
    opType,
    input: inputs[opType] ?? ["x", "shape"],
    output: ["z"],
  });
}
