/**
 * Calls of model-local functions, expanded: what a function is made of stands in the graph under names of its own, so that its weights
 * can be seen and compressed. It is what runtimes do at load (ONNX IR specification, "Functions").
 */
import { create } from "@bufbuild/protobuf";
import {
  type AttributeProto,
  AttributeProtoSchema,
  type FunctionProto,
  type GraphProto,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  TensorProtoSchema,
  ValueInfoProtoSchema,
} from "onnx-buf";
import { functionKey, normalized } from "./checks.ts";
import { shallow } from "./proto.ts";

/**
 * A copy of a checked model in which functions are expanded; tensors are shared. A function that is written in other versions of operator
 * sets than the model stays as it is, with all that it calls.
 */
export function inlineFunctions(proto: ModelProto): ModelProto {
  return proto.functions.length > 0 && proto.graph ? new Inliner(proto).run(proto, proto.graph) : proto;
}

/** What a function's names stand for where it is called. */
interface Call {
  /** The name of the node that calls; inner names start with it. */
  readonly scope: string;
  readonly names: ReadonlyMap<string, string>;
  readonly attributes: ReadonlyMap<string, AttributeProto>;
}

class Inliner {
  readonly #functions = new Map<string, FunctionProto>();
  /** Versions of operator sets that the result imports. */
  readonly #opsets: Map<string, bigint>;
  readonly #names = new Set<string>();
  /** Functions that are called still. */
  readonly #kept = new Set<FunctionProto>();

  constructor(proto: ModelProto) {
    for (const fn of proto.functions) this.#functions.set(functionKey(fn.domain, fn.name, fn.overload), fn);
    this.#opsets = new Map(proto.opsetImport.map(({ domain, version }) => [normalized(domain), version]));
  }

  run(proto: ModelProto, graph: GraphProto): ModelProto {
    for (const name of namesIn(graph)) this.#names.add(name);
    const imported = new Set(this.#opsets.keys());
    const result = shallow<ModelProto>(ModelProtoSchema, proto);
    result.graph = this.#graph(graph);
    result.functions = proto.functions.filter((fn) => this.#kept.has(fn));
    const added = [...this.#opsets].filter(([domain]) => !imported.has(domain));
    const imports = added.map(([domain, version]) => create(OperatorSetIdProtoSchema, { domain, version }));
    result.opsetImport = [...proto.opsetImport, ...imports];
    return result;
  }

  #calleeOf({ domain, opType, overload }: NodeProto): FunctionProto | undefined {
    return this.#functions.get(functionKey(domain, opType, overload));
  }

  #graph(graph: GraphProto): GraphProto {
    const copy = shallow<GraphProto>(GraphProtoSchema, graph);
    copy.node = graph.node.flatMap((node) => this.#expand(withBodies(node, (body) => this.#graph(body))));
    return copy;
  }

  /** The nodes that do what a call does; the node itself where it calls nothing. */
  #expand(node: NodeProto): NodeProto[] {
    const fn = this.#calleeOf(node);
    if (!fn) return [node];
    if (!this.#import(fn)) {
      this.#keep(fn);
      return [node];
    }
    const scope = node.name || node.output.find((name) => name !== "") || node.opType;
    const names = new Map(fn.input.map((name, i) => [name, node.input[i] ?? ""]));
    const passed: NodeProto[] = [];
    for (const [i, name] of fn.output.entries()) {
      const output = node.output[i] ?? "";
      if (output === "") continue;
      const known = names.get(name);
      if (known === undefined) names.set(name, output);
      // An input, or an earlier output: a node has to give it out under the other name.
      else passed.push(create(NodeProtoSchema, { ...identity(known, output), name: this.#fresh(scope, "Identity") }));
    }
    const attributes = new Map([...fn.attributeProto, ...node.attribute].map((attr) => [attr.name, attr]));
    const call: Call = { scope, names: this.#named(fn.node, names, scope), attributes };
    const inner = fn.node.map((node) => this.#instance(node, call));
    return [...inner.flatMap((node) => this.#expand(withBodies(node, (body) => this.#graph(body)))), ...passed];
  }

  /** Whether the model can import what the function imports; if so, it does. */
  #import(fn: FunctionProto): boolean {
    const imports = fn.opsetImport.map(({ domain, version }) => [normalized(domain), version] as const);
    if (imports.some(([domain, version]) => (this.#opsets.get(domain) ?? version) !== version)) return false;
    for (const [domain, version] of imports) this.#opsets.set(domain, version);
    return true;
  }

  #keep(fn: FunctionProto): void {
    if (this.#kept.has(fn)) return;
    this.#kept.add(fn);
    for (const node of allNodes(fn.node)) {
      const callee = this.#calleeOf(node);
      if (callee) this.#keep(callee);
    }
  }

  /** `names`, and a fresh name for every other value that the nodes make. */
  #named(nodes: readonly NodeProto[], names: ReadonlyMap<string, string>, scope: string): Map<string, string> {
    const all = new Map(names);
    for (const name of nodes.flatMap(({ output }) => output)) {
      if (name !== "" && !all.has(name)) all.set(name, this.#fresh(scope, name));
    }
    return all;
  }

  #fresh(scope: string, base: string): string {
    let name = `${scope}/${base}`;
    for (let i = 1; this.#names.has(name); i++) name = `${scope}/${base}_${i}`;
    this.#names.add(name);
    return name;
  }

  /** A node of a function as it stands in the graph of the call. */
  #instance(node: NodeProto, call: Call): NodeProto {
    const copy = shallow<NodeProto>(NodeProtoSchema, node);
    const nameOf = (name: string) => call.names.get(name) ?? name;
    copy.name = this.#fresh(call.scope, node.name || node.opType);
    copy.input = node.input.map(nameOf);
    copy.output = node.output.map(nameOf);
    copy.attribute = node.attribute.flatMap((attr) => {
      if (attr.refAttrName === "") return [attr];
      const given = call.attributes.get(attr.refAttrName);
      if (!given) return [];
      const named = shallow<AttributeProto>(AttributeProtoSchema, given);
      named.name = attr.name;
      return [named];
    });
    // Bodies that the caller has handed in are in its names already.
    const own = new Set(node.attribute.filter(({ refAttrName }) => refAttrName === "").map(({ name }) => name));
    return withBodies(copy, (body, { name }) => (own.has(name) ? this.#body(body, call) : body));
  }

  /** A body of a node of a function: it sees the function's values, and has its own. */
  #body(body: GraphProto, { scope, names, attributes }: Call): GraphProto {
    const inside = this.#named(body.node, names, scope);
    const own = (name: string): string => {
      const fresh = this.#fresh(scope, name);
      inside.set(name, fresh);
      return fresh;
    };
    // A body may hide a value of the function behind one of its own.
    for (const name of body.node.flatMap(({ output }) => output)) if (name !== "" && names.has(name)) own(name);
    const copy = shallow<GraphProto>(GraphProtoSchema, body);
    const renamed = <T extends { name: string }>(schema: Parameters<typeof shallow>[0], item: T): T => {
      const result = shallow(schema, item as never) as unknown as T;
      result.name = inside.get(item.name) ?? item.name;
      return result;
    };
    for (const { name } of [...body.input, ...body.initializer]) own(name);
    copy.initializer = body.initializer.map((tensor) => renamed(TensorProtoSchema, tensor));
    copy.input = body.input.map((info) => renamed(ValueInfoProtoSchema, info));
    copy.node = body.node.map((node) => this.#instance(node, { scope, names: inside, attributes }));
    copy.output = body.output.map((info) => renamed(ValueInfoProtoSchema, info));
    copy.valueInfo = body.valueInfo.map((info) => renamed(ValueInfoProtoSchema, info));
    return copy;
  }
}

function identity(input: string, output: string) {
  return { opType: "Identity", input: [input], output: [output] };
}

function bodiesOf({ attribute }: NodeProto): GraphProto[] {
  return attribute.flatMap(({ g, graphs }) => (g ? [g, ...graphs] : graphs));
}

/** Of these nodes and all bodies below them. */
function allNodes(nodes: readonly NodeProto[]): NodeProto[] {
  return nodes.flatMap((node) => [node, ...bodiesOf(node).flatMap((body) => allNodes(body.node))]);
}

function namesIn(graph: GraphProto): string[] {
  return [
    ...[...graph.input, ...graph.initializer].map(({ name }) => name),
    ...graph.sparseInitializer.flatMap(({ values }) => (values ? [values.name] : [])),
    ...graph.node.flatMap((node) => [node.name, ...node.output, ...bodiesOf(node).flatMap(namesIn)]),
  ];
}

/** A copy of a node with other bodies; the node itself where it has none. */
function withBodies(node: NodeProto, change: (body: GraphProto, attribute: AttributeProto) => GraphProto): NodeProto {
  if (bodiesOf(node).length === 0) return node;
  const copy = shallow<NodeProto>(NodeProtoSchema, node);
  copy.attribute = node.attribute.map((attr) => {
    const changed = shallow<AttributeProto>(AttributeProtoSchema, attr);
    if (attr.g) changed.g = change(attr.g, attr);
    changed.graphs = attr.graphs.map((body) => change(body, attr));
    return changed;
  });
  return copy;
}
