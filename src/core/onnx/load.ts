import { fromBinary } from "@bufbuild/protobuf";
import {
  type AttributeProto,
  AttributeProto_AttributeType as AttributeType,
  type GraphProto,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  type TensorProto,
  TensorProto_DataLocation,
  type TypeProto,
  type ValueInfoProto,
} from "onnx-buf";
import { CoreError } from "../errors.ts";
import { checkModelProto } from "./checks.ts";
import { byteLengthOf, type DType, dtypeOfOnnx } from "./dtype.ts";
import { type ExternalData, externalRangeOf, NO_EXTERNAL_DATA } from "./external-data.ts";
import { inlineFunctions } from "./functions.ts";
import { type Attr, type Dim, Graph, Model, type Node, Value } from "./ir.ts";
import { labelNodes } from "./labels.ts";
import { sortNodes } from "./node-order.ts";
import { elementCount, lazyTensor, type Tensor, tensor } from "./tensor.ts";
import { scanModelBytes } from "./wire-scan.ts";

/**
 * Reads an ONNX model. Tensor bytes are views over `bytes`, not copies; external data is read when it is used.
 * Nodes are put in order, and calls of model-local functions are expanded where that is possible. Throws `invalid_model` (with the node, tensor or file at fault) or `limit_exceeded`.
 */
export function loadModel(bytes: Uint8Array, external: ExternalData = NO_EXTERNAL_DATA): Model {
  const written = parseModelProto(bytes);
  sortNodes(written);
  checkModelProto(written, external);
  const proto = inlineFunctions(written);
  const opsets = new Map<string, number>();
  for (const { domain, version } of proto.opsetImport) {
    opsets.set(domain === "ai.onnx" ? "" : domain, Number(version));
  }
  const model = new Model({
    irVersion: Number(proto.irVersion),
    opsets,
    graphName: proto.graph?.name ?? "",
    functions: proto.functions,
    source: proto,
  });
  readGraph(proto.graph!, model.graph, new Scope(), external);
  labelNodes(model);
  return model;
}

/** Bytes to the protobuf message; throws `invalid_model` when they are not one. */
function parseModelProto(bytes: Uint8Array): ModelProto {
  scanModelBytes(bytes);
  try {
    return fromBinary(ModelProtoSchema, bytes);
  } catch (error) {
    throw new CoreError("invalid_model", `This is not an ONNX model: ${(error as Error).message}.`, undefined, {
      cause: error,
    });
  }
}

/** Names visible in a graph: its own, then those of the graphs around it. */
class Scope {
  readonly #names = new Map<string, Value>();
  readonly #outer: Scope | undefined;

  constructor(outer?: Scope) {
    this.#outer = outer;
  }

  define(value: Value): void {
    if (this.#names.has(value.name)) {
      throw new CoreError("invalid_model", `The value "${value.name}" is defined twice.`, value.name);
    }
    this.#names.set(value.name, value);
    value.graph.model.claimName(value.name);
  }

  own(name: string): Value | undefined {
    return this.#names.get(name);
  }

  find(name: string): Value | undefined {
    return this.#names.get(name) ?? this.#outer?.find(name);
  }
}

function readGraph(proto: GraphProto, graph: Graph, scope: Scope, external: ExternalData): void {
  const declarations = new Map(proto.valueInfo.map((info) => [info.name, info]));
  for (const initializer of proto.initializer) {
    const constant = readTensor(initializer, external);
    const value = new Value(graph, initializer.name, { constant });
    graph.adoptInitializer(value);
    scope.define(value);
    value.source = declarations.get(value.name);
  }
  for (const info of proto.input) {
    const initializer = scope.own(info.name);
    if (initializer) graph.setOverridable(initializer, true);
    const value = initializer ?? graph.addInput(info.name);
    if (!initializer) scope.define(value);
    declare(value, info);
  }
  for (const sparse of proto.sparseInitializer) {
    // An initializer without a constant: its name is known, its values stay in the message. No pass rewrites sparse tensors.
    if (!sparse.values) continue;
    const value = new Value(graph, sparse.values.name);
    graph.adoptInitializer(value);
    scope.define(value);
  }
  for (const node of proto.node) {
    const inputs = node.input.map((name) => {
      if (name === "") return undefined;
      const value = scope.find(name);
      if (!value) {
        throw new CoreError(
          "invalid_model",
          `Node "${node.name || node.output[0]}" (${node.opType}) reads "${name}", which ${madeHere(proto, name) ? "is made from its own output" : "nothing defines"}.`,
          node.name || node.output[0],
        );
      }
      return value;
    });
    for (const value of readNode(node, inputs, graph, scope, external).outputs) {
      if (value.name === "") continue;
      scope.define(value);
      const info = declarations.get(value.name);
      if (info) declare(value, info);
    }
  }
  for (const info of proto.output) {
    const value = scope.find(info.name);
    if (!value) throw new CoreError("invalid_model", `Nothing makes the graph output "${info.name}".`, info.name);
    // A body may give out a value of the graph around it, which has its own declaration.
    if (value.graph === graph) declare(value, info);
    graph.addOutput(value);
  }
}

function madeHere(graph: GraphProto, name: string): boolean {
  return graph.node.some(({ output }) => output.includes(name));
}

function readNode(
  proto: NodeProto,
  inputs: readonly (Value | undefined)[],
  graph: Graph,
  scope: Scope,
  external: ExternalData,
): Node {
  // fromEntries, because assigning to a name such as "__proto__" would not make a property.
  const attrs = Object.fromEntries(proto.attribute.map((a) => [a.name, readAttr(a, graph, scope, external)]));
  return graph.append({
    opType: proto.opType,
    domain: proto.domain === "ai.onnx" ? "" : proto.domain,
    name: proto.name,
    inputs,
    outputs: proto.output,
    attrs,
    source: proto,
  });
}

const utf8 = new TextDecoder();

function readAttr(source: AttributeProto, graph: Graph, scope: Scope, external: ExternalData): Attr {
  const body = (proto: GraphProto): Graph => {
    const inner = new Graph(graph.model, proto.name, proto);
    readGraph(proto, inner, new Scope(scope), external);
    return inner;
  };
  switch (source.type) {
    case AttributeType.FLOAT:
      return { type: "float", value: source.f, source };
    case AttributeType.INT:
      return { type: "int", value: Number(source.i), source };
    case AttributeType.STRING:
      return { type: "string", value: utf8.decode(source.s), source };
    case AttributeType.TENSOR:
      return { type: "tensor", value: readTensor(source.t!, external), source };
    case AttributeType.GRAPH:
      return { type: "graph", value: body(source.g!), source };
    case AttributeType.FLOATS:
      return { type: "floats", value: source.floats, source };
    case AttributeType.INTS:
      return listAttr("ints", source, source.ints.length, () => source.ints.map(Number));
    case AttributeType.STRINGS:
      return listAttr("strings", source, source.strings.length, () => source.strings.map((s) => utf8.decode(s)));
    case AttributeType.TENSORS:
      return { type: "tensors", value: source.tensors.map((t) => readTensor(t, external)), source };
    case AttributeType.GRAPHS:
      return { type: "graphs", value: source.graphs.map(body), source };
    default:
      return { type: "opaque", value: null, source };
  }
}

/** Longer lists are converted when they are asked for: the trees of an ensemble are millions of numbers and words that nobody reads. */
const MAX_READY_LENGTH = 1000;

function listAttr<Type extends string, T>(
  type: Type,
  source: AttributeProto,
  length: number,
  convert: () => readonly T[],
): { readonly type: Type; readonly value: readonly T[]; readonly source: AttributeProto } {
  if (length <= MAX_READY_LENGTH) return { type, value: convert(), source };
  let converted: readonly T[] | undefined;
  return {
    type,
    get value() {
      converted ??= convert();
      return converted;
    },
    source,
  };
}

function declare(value: Value, info: ValueInfoProto): void {
  value.source = info;
  const declared = typeOf(info.type);
  value.dtype ??= declared.dtype;
  value.shape ??= declared.shape;
}

function typeOf(type: TypeProto | undefined): { dtype: DType | undefined; shape: readonly Dim[] | undefined } {
  if (type?.value.case !== "tensorType") return { dtype: undefined, shape: undefined };
  const { elemType, shape } = type.value.value;
  return {
    dtype: dtypeOfOnnx(elemType),
    shape: shape?.dim.map(({ value }) => {
      // Some exporters write -1 for a size they do not know.
      if (value.case === "dimValue") return value.value < 0n ? null : Number(value.value);
      return value.case === "dimParam" && value.value !== "" ? value.value : null;
    }),
  };
}

/** Below what the writer streams, so that a kept message is always written whole. */
const MAX_KEPT_TYPED_BYTES = 1023;

/** The messages tensors were read from, so that an untouched one is written back as it was. */
const SOURCES = new WeakMap<Tensor, TensorProto>();

/** The message a tensor was read from, where writing that again is the same thing. */
export function sourceOf(value: Tensor): TensorProto | undefined {
  return SOURCES.get(value);
}

/** `checkModelProto` has made sure that dtype, dims, lengths and locations are sound. */
function readTensor(proto: TensorProto, external: ExternalData): Tensor {
  const dtype = dtypeOfOnnx(proto.dataType)!;
  const dims = proto.dims.map(Number);
  if (proto.dataLocation === TensorProto_DataLocation.EXTERNAL) {
    const { location, offset } = externalRangeOf(proto);
    const length = byteLengthOf(dtype, elementCount(dims));
    return lazyTensor(dtype, dims, () => external.read(location, offset, length));
  }
  const typed = dtype === "string" ? undefined : typedData(proto, dtype);
  const result = tensor(dtype, dims, typed ?? proto.rawData);
  // Typed fields (`float_data`, …) hold a JavaScript number for each element: large ones are not kept, and are written as raw_data.
  if (!typed || typed.byteLength <= MAX_KEPT_TYPED_BYTES) SOURCES.set(result, proto);
  return result;
}

/** Elements that were stored in one of the typed fields instead of `raw_data`; undefined when they were not. */
function typedData(proto: TensorProto, dtype: DType): Uint8Array | undefined {
  const bytes = (array: { buffer: ArrayBufferLike; byteLength: number }) => new Uint8Array(array.buffer);
  if (proto.floatData.length > 0) return bytes(Float32Array.from(proto.floatData));
  if (proto.doubleData.length > 0) return bytes(Float64Array.from(proto.doubleData));
  if (proto.int64Data.length > 0) return bytes(BigInt64Array.from(proto.int64Data));
  if (proto.uint64Data.length > 0) {
    return bytes(
      dtype === "uint32" ? Uint32Array.from(proto.uint64Data, Number) : BigUint64Array.from(proto.uint64Data),
    );
  }
  if (proto.int32Data.length > 0) {
    if (dtype === "int32") return bytes(Int32Array.from(proto.int32Data));
    // 16-bit types hold their bits, narrower ones one byte (of packed elements, below 8 bits) in each int32.
    return byteLengthOf(dtype, 1) === 2 ? bytes(Uint16Array.from(proto.int32Data)) : Uint8Array.from(proto.int32Data);
  }
  return undefined;
}
