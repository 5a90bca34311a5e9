import { create } from "@bufbuild/protobuf";
import {
  type AttributeProto,
  AttributeProtoSchema,
  AttributeProto_AttributeType as AttributeType,
  type GraphProto,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  StringStringEntryProtoSchema,
  type TensorProto,
  TensorProto_DataLocation,
  TensorProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from "onnx-buf";
import { CoreError } from "../errors.ts";
import { onnxOfDtype } from "./dtype.ts";
import type { Attr, Graph, Model, Node, Value } from "./ir.ts";
import { sourceOf } from "./load.ts";
import { tellOrigin } from "./origin.ts";
import { shallow } from "./proto.ts";
import { type Chunk, type EncodedFile, StreamedMessages } from "./streamed-encoding.ts";
import type { Tensor } from "./tensor.ts";

export interface EncodedModel {
  readonly model: EncodedFile;
  /** The one external data file and the location that the model calls it; undefined when the weights are inside. */
  readonly data?: EncodedFile & { readonly location: string };
}

export interface SaveOptions {
  /** What the data file is called, should there be one. */
  readonly location: string;
  /**
   * Models larger than this keep their weights in the data file. The default leaves room below the 2^31 - 1 bytes that protobuf can hold;
   * 0 forces external data.
   */
  readonly maxInlineBytes?: number;
}

const MAX_INLINE_BYTES = 2 ** 31 - 1 - 2 ** 20;
/** Smaller tensors stay in the model: shapes and scalars are needed before data files are opened. */
const MIN_EXTERNAL_BYTES = 1024;
/** onnxruntime maps tensors from pages of the file; this is the page size on Linux. */
const EXTERNAL_ALIGNMENT = 4096;
/** Tensors at least this large are streamed; smaller ones that a file held go through the protobuf writer with the rest. */
const MIN_STREAMED_BYTES = 1024;

/**
 * Encodes a model as a list of chunks to be written in order. Nothing large is copied: the protobuf writer, which moves about 55 MB/s,
 * sees the small parts, and tensor bytes are put between them. What no pass has touched comes out byte for byte as it was read.
 */
export function encodeModel(model: Model, options: SaveOptions): EncodedModel {
  const writer = new ModelWriter();
  const proto = writer.model(model);
  const inline = writer.messages.encode(ModelProtoSchema, proto);
  const limit = Math.min(options.maxInlineBytes ?? MAX_INLINE_BYTES, MAX_INLINE_BYTES);
  if (inline.byteLength <= limit) return { model: inline };

  const external = new ModelWriter(options.location);
  const outside = external.messages.encode(ModelProtoSchema, external.model(model));
  if (outside.byteLength > MAX_INLINE_BYTES) {
    throw new CoreError("limit_exceeded", "The model is larger than 2 GiB even without its initializers.");
  }
  return external.data
    ? { model: outside, data: { ...external.data, location: options.location } }
    : { model: outside };
}

/** Bytes that the model will take when it is written, data file included. No tensor is computed. */
export function predictedBytes(model: Model): number {
  const { model: file, data } = encodeModel(model, { location: "data" });
  return file.byteLength + (data?.byteLength ?? 0);
}

/** The whole file in one array: for tests and small models. Throws `limit_exceeded` past the size of one file. */
export function modelToBytes(model: Model): Uint8Array {
  const { model: file, data } = encodeModel(model, { location: "data" });
  if (data) throw new CoreError("limit_exceeded", "The model is too large for one array.");
  const bytes = new Uint8Array(file.byteLength);
  let at = 0;
  for (const chunk of file.chunks) {
    const part = chunk instanceof Uint8Array ? chunk : chunk.bytes;
    bytes.set(part, at);
    at += part.byteLength;
  }
  return bytes;
}

class ModelWriter {
  readonly messages = new StreamedMessages();
  readonly #location: string | undefined;
  readonly #dataChunks: Chunk[] = [];
  readonly #dataOffsets = new Map<Tensor, number>();
  #dataBytes = 0;

  constructor(location?: string) {
    this.#location = location;
  }

  get data(): EncodedFile | undefined {
    return this.#dataBytes > 0 ? { byteLength: this.#dataBytes, chunks: this.#dataChunks } : undefined;
  }

  // ---- from the IR to messages -------------------------------------------------------------------------------------

  model(model: Model): ModelProto {
    const proto = shallow<ModelProto>(ModelProtoSchema, model.source);
    proto.irVersion = BigInt(model.irVersion);
    proto.graph = this.graph(model.graph);
    proto.functions = [...model.functions];
    const kept = new Map(proto.opsetImport.map((entry) => [entry.domain === "ai.onnx" ? "" : entry.domain, entry]));
    proto.opsetImport = [...model.opsets].map(([domain, version]) => {
      const entry = kept.get(domain);
      if (entry && Number(entry.version) === version) return entry;
      return create(OperatorSetIdProtoSchema, { domain: entry?.domain ?? domain, version: BigInt(version) });
    });
    if (model.origin) tellOrigin(proto, model.origin);
    this.messages.mark(proto, [proto.graph]);
    return proto;
  }

  graph(graph: Graph): GraphProto {
    const proto = shallow<GraphProto>(GraphProtoSchema, graph.source);
    if (proto.name !== graph.name) proto.name = graph.name;
    proto.node = graph.nodes.map((node) => this.#node(node));
    proto.initializer = [];
    const sparse = new Set<string>();
    for (const value of graph.initializers) {
      if (value.constant) proto.initializer.push(this.#tensor(value.constant, value.name, true));
      else sparse.add(value.name);
    }
    proto.sparseInitializer = proto.sparseInitializer.filter(({ values }) => values && sparse.has(values.name));
    proto.input = graph.inputs.map(declaration);
    proto.output = graph.outputs.map(declaration);
    const interfaces = new Set([...graph.inputs, ...graph.outputs]);
    const own = new Map<string, Value>([...graph.initializers].map((value) => [value.name, value]));
    for (const node of graph.nodes) for (const value of node.outputs) own.set(value.name, value);
    proto.valueInfo = proto.valueInfo.filter((info) => {
      const value = own.get(info.name);
      return value?.source === info && !interfaces.has(value);
    });
    this.messages.mark(proto, [...proto.node, ...proto.initializer]);
    return proto;
  }

  #node(node: Node): NodeProto {
    const attribute = [...node.attrs].map(([name, attr]) =>
      // The value of a Constant node is an initializer in all but name, also to onnxruntime.
      this.#attr(name, attr, node.isConstant && name === "value"),
    );
    const proto = shallow<NodeProto>(NodeProtoSchema, node.source);
    proto.input = trimmed(
      node.inputs.map((value) => value?.name ?? ""),
      node.source?.input.length ?? 0,
    );
    proto.output = node.outputs.map((value) => value.name);
    if (node.name !== proto.name) proto.name = node.name;
    if (node.graph.model.withoutTraces) {
      if (proto.docString !== "") proto.docString = "";
      proto.metadataProps = proto.metadataProps.filter(({ key }) => !key.startsWith(TRACE_PREFIX));
    }
    proto.attribute = attribute;
    if (!node.source) {
      proto.opType = node.opType;
      if (node.domain !== "") proto.domain = node.domain;
    }
    this.messages.mark(proto, attribute);
    return proto;
  }

  #attr(name: string, attr: Attr, mayMoveOut: boolean): AttributeProto {
    if (
      attr.source &&
      attr.type !== "tensor" &&
      attr.type !== "graph" &&
      attr.type !== "tensors" &&
      attr.type !== "graphs"
    ) {
      return attr.source;
    }
    const proto = shallow<AttributeProto>(AttributeProtoSchema, attr.source);
    proto.name = name;
    switch (attr.type) {
      case "float":
        proto.type = AttributeType.FLOAT;
        proto.f = attr.value;
        break;
      case "int":
        proto.type = AttributeType.INT;
        proto.i = int64(attr.value);
        break;
      case "string":
        proto.type = AttributeType.STRING;
        proto.s = encodeUtf8(attr.value);
        break;
      case "floats":
        proto.type = AttributeType.FLOATS;
        proto.floats = [...attr.value];
        break;
      case "ints":
        proto.type = AttributeType.INTS;
        proto.ints = attr.value.map(int64);
        break;
      case "strings":
        proto.type = AttributeType.STRINGS;
        proto.strings = attr.value.map(encodeUtf8);
        break;
      case "tensor":
        proto.type = AttributeType.TENSOR;
        proto.t = this.#tensor(attr.value, undefined, mayMoveOut);
        this.messages.mark(proto, [proto.t]);
        break;
      case "tensors":
        proto.type = AttributeType.TENSORS;
        proto.tensors = attr.value.map((value) => this.#tensor(value, undefined, false));
        this.messages.mark(proto, proto.tensors);
        break;
      case "graph":
        proto.type = AttributeType.GRAPH;
        proto.g = this.graph(attr.value);
        this.messages.mark(proto, [proto.g]);
        break;
      case "graphs":
        proto.type = AttributeType.GRAPHS;
        proto.graphs = attr.value.map((body) => this.graph(body));
        this.messages.mark(proto, proto.graphs);
        break;
      case "opaque":
        throw new CoreError("internal", "An opaque attribute has lost its message.", name);
    }
    return proto;
  }

  /** `name` undefined keeps the name the tensor was read with. */
  #tensor(value: Tensor, name: string | undefined, mayMoveOut: boolean): TensorProto {
    const source = sourceOf(value);
    const proto = shallow<TensorProto>(TensorProtoSchema, source);
    if (name !== undefined && name !== proto.name) proto.name = name;
    if (!source) {
      proto.dims = value.dims.map((dim) => BigInt(dim));
      proto.dataType = onnxOfDtype(value.dtype);
    }
    if (value.dtype === "string") return proto;
    if (this.#location && mayMoveOut && isExternalizable(value)) {
      this.#moveOut(proto, value, this.#location);
    } else if (!source || value.byteLength >= MIN_STREAMED_BYTES) {
      // A tensor without a message may have to be computed: even a small one is not asked for its bytes before its turn.
      delete (proto as { rawData?: Uint8Array }).rawData;
      this.messages.stream(proto, value);
    }
    return proto;
  }

  #moveOut(proto: TensorProto, value: Tensor, location: string): void {
    let offset = this.#dataOffsets.get(value);
    if (offset === undefined) {
      const padding = (EXTERNAL_ALIGNMENT - (this.#dataBytes % EXTERNAL_ALIGNMENT)) % EXTERNAL_ALIGNMENT;
      if (padding > 0) this.#dataChunks.push(new Uint8Array(padding));
      offset = this.#dataBytes + padding;
      this.#dataChunks.push(value);
      this.#dataBytes = offset + value.byteLength;
      this.#dataOffsets.set(value, offset);
    }
    delete (proto as { rawData?: Uint8Array }).rawData;
    proto.dataLocation = TensorProto_DataLocation.EXTERNAL;
    proto.externalData = Object.entries({ location, offset: `${offset}`, length: `${value.byteLength}` }).map(
      ([key, text]) => create(StringStringEntryProtoSchema, { key, value: text }),
    );
  }
}

/** Integer tensors steer shapes and must be readable without the data file. */
function isExternalizable(value: Tensor): boolean {
  return value.byteLength >= MIN_EXTERNAL_BYTES && value.dtype !== "int64" && value.dtype !== "string";
}

/** Node metadata of PyTorch's exporter: stack traces and the like, a fifth of the file for a model of 3 MB. */
const TRACE_PREFIX = "pkg.torch.";

/** Absent optional inputs at the end are not written, unless the file had them written. */
function trimmed(names: string[], sourceLength: number): string[] {
  while (names.length > sourceLength && names.at(-1) === "") names.pop();
  return names;
}

function declaration(value: Value): ValueInfoProto {
  const { source } = value;
  if (source?.name === value.name) return source;
  if (source) return Object.assign(create(ValueInfoProtoSchema), source, { name: value.name });
  const proto = create(ValueInfoProtoSchema, { name: value.name });
  if (value.dtype === undefined) return proto;
  return create(ValueInfoProtoSchema, {
    name: value.name,
    type: {
      value: {
        case: "tensorType",
        value: {
          elemType: onnxOfDtype(value.dtype),
          ...(value.shape && {
            shape: {
              dim: value.shape.map((dim) => {
                if (typeof dim === "number") return { value: { case: "dimValue" as const, value: BigInt(dim) } };
                return dim === null ? {} : { value: { case: "dimParam" as const, value: dim } };
              }),
            },
          }),
        },
      },
    },
  });
}

const INT64_MAX = 2n ** 63n - 1n;
const INT64_MIN = -(2n ** 63n);

/** A double to int64; "to the end" sentinels such as 2^63 - 1 do not fit a double exactly and are clamped back. */
function int64(value: number): bigint {
  const exact = BigInt(value);
  return exact > INT64_MAX ? INT64_MAX : exact < INT64_MIN ? INT64_MIN : exact;
}

function encodeUtf8(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text) as Uint8Array<ArrayBuffer>;
}
