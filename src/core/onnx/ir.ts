/**
 * The graph that passes work on: mutable structure over immutable tensors, with use-def edges that are always true.
 *
 * - A `Value` is made by a node, is a graph input, or holds a constant (an initializer, or the output of a `Constant` node).
 * - Bodies of If, Loop and Scan are graphs too; their nodes may read values of the graphs around them, and count among those values' uses.
 * - `source` fields keep the protobuf message a part was read from, so that what no pass touched is written back unchanged,
 *   fields unknown to us included. They are opaque to passes.
 */
import type { AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto } from "onnx-buf";
import { CoreError } from "../errors.ts";
import type { DType } from "./dtype.ts";
import type { Origin } from "./origin.ts";
import { type Tensor, tensorOf } from "./tensor.ts";

/** A dimension is a number, the name of a symbolic size, or null when nothing is known. */
export type Dim = number | string | null;

export type Attr = (
  | { readonly type: "float"; readonly value: number }
  | { readonly type: "int"; readonly value: number }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "tensor"; readonly value: Tensor }
  | { readonly type: "graph"; readonly value: Graph }
  | { readonly type: "floats"; readonly value: readonly number[] }
  | { readonly type: "ints"; readonly value: readonly number[] }
  | { readonly type: "strings"; readonly value: readonly string[] }
  | { readonly type: "tensors"; readonly value: readonly Tensor[] }
  | { readonly type: "graphs"; readonly value: readonly Graph[] }
  /** Sparse tensors, types and references to function attributes: carried along, not looked into. */
  | { readonly type: "opaque"; readonly value: null }
) & { readonly source?: AttributeProto };

export type AttrType = Attr["type"];

/** One place where a value is read: input `index` of `node`. */
export interface Use {
  readonly node: Node;
  readonly index: number;
}

export class Value {
  name: string;
  dtype: DType | undefined;
  /** Undefined: not known, not even the rank. */
  shape: readonly Dim[] | undefined;
  /** Set for initializers and for outputs of `Constant` nodes. */
  readonly constant: Tensor | undefined;
  readonly producer: Node | undefined;
  /** The graph whose scope the value belongs to. */
  readonly graph: Graph;
  /** The declaration it was read with; forgotten by `retype`. */
  source: ValueInfoProto | undefined;
  /** In the order in which they came about. Taking one away must not cost a search: constants of large models have thousands. */
  readonly #uses = new Set<Use>();
  #useList: readonly Use[] | undefined = [];

  constructor(graph: Graph, name: string, origin: { constant?: Tensor | undefined; producer?: Node } = {}) {
    this.graph = graph;
    this.name = name;
    this.constant = origin.constant;
    this.producer = origin.producer;
    if (origin.constant) {
      this.dtype = origin.constant.dtype;
      this.shape = origin.constant.dims;
    }
  }

  /**
   * Every node input that reads this value, in this graph and in the bodies below it. Graph outputs are not among them. The list is of
   * the moment: it does not change when the graph does.
   */
  get uses(): readonly Use[] {
    this.#useList ??= [...this.#uses];
    return this.#useList;
  }

  /** How many node inputs read this value: `uses.length` without making the list, for whoever asks between two changes. */
  get useCount(): number {
    return this.#uses.size;
  }

  /** Whether `use` is on record. */
  isReadBy(use: Use): boolean {
    return this.#uses.has(use);
  }

  /** Whether some graph (its own, or the body of an If that passes it through) gives this value out. */
  get isGraphOutput(): boolean {
    return this.#outputOf.size > 0;
  }

  /** Declares another type; the declaration the file had is dropped. */
  retype(dtype: DType | undefined, shape: readonly Dim[] | undefined = this.shape): void {
    this.dtype = dtype;
    this.shape = shape;
    this.source = undefined;
  }

  readonly #outputOf = new Set<Graph>();

  /** @internal kept by Node and Graph */
  static link(value: Value, use: Use): void {
    value.#uses.add(use);
    value.#useList = undefined;
  }

  /** @internal */
  static unlink(value: Value, use: Use): void {
    if (value.#uses.delete(use)) value.#useList = undefined;
  }

  /** @internal */
  static markOutput(value: Value, graph: Graph, isOutput: boolean): void {
    if (isOutput) value.#outputOf.add(graph);
    else value.#outputOf.delete(graph);
  }

  /** @internal */
  static outputGraphs(value: Value): Graph[] {
    return [...value.#outputOf];
  }
}

export interface NodeInit {
  readonly opType: string;
  readonly domain?: string;
  readonly name?: string;
  readonly inputs: readonly (Value | undefined)[];
  /** Names of the outputs, or how many outputs with fresh names. */
  readonly outputs: readonly string[] | number;
  readonly attrs?: Readonly<Record<string, Attr>>;
  readonly source?: NodeProto;
  /** The node whose place this one takes: it is reported, and excluded, under that node's labels. */
  readonly standsFor?: Node;
}

export class Node {
  name: string;
  /** "" is ai.onnx. */
  readonly domain: string;
  readonly opType: string;
  readonly graph: Graph;
  readonly source: NodeProto | undefined;
  readonly #outputs: Value[];
  readonly #inputs: (Value | undefined)[];
  /** The use that reading input `i` is; undefined where the input is absent. */
  readonly #reads: (Use | undefined)[] = [];
  readonly #attrs: Map<string, Attr>;
  /** The neighbours in the graph's order; both undefined for the only node, and for one that has been removed. */
  #previous: Node | undefined;
  #next: Node | undefined;
  #origins: readonly string[];
  #originalOp: string | undefined;

  /** @internal use `Graph.insertBefore` or `Graph.append` */
  constructor(graph: Graph, init: NodeInit & { readonly outputs: readonly string[] }) {
    this.graph = graph;
    this.name = init.name ?? "";
    this.domain = init.domain ?? "";
    this.opType = init.opType;
    this.source = init.source;
    this.#origins = init.standsFor ? init.standsFor.#origins : [];
    this.#originalOp = init.standsFor?.originalOp;
    this.#attrs = new Map(Object.entries(init.attrs ?? {}));
    this.#inputs = [];
    init.inputs.forEach((value, index) => {
      this.setInput(index, value);
    });
    const constant = this.isConstant ? constantOf(this) : undefined;
    this.#outputs = init.outputs.map((name) => new Value(graph, name, { constant, producer: this }));
    for (const body of this.bodies()) body.owner = this;
  }

  /** Whether it is a Constant: the value that it gives out is what its attribute says. */
  get isConstant(): boolean {
    return this.opType === "Constant" && this.domain === "";
  }

  get inputs(): readonly (Value | undefined)[] {
    return this.#inputs;
  }

  get outputs(): readonly Value[] {
    return this.#outputs;
  }

  /** One more output, of an operator whose trailing outputs are optional (the Indices of a MaxPool). `base` is made unique. */
  addOutput(base: string, dtype?: DType): Value {
    const value = new Value(this.graph, this.graph.model.freshName(base), { producer: this });
    value.dtype = dtype;
    this.#outputs.push(value);
    return value;
  }

  get attrs(): ReadonlyMap<string, Attr> {
    return this.#attrs;
  }

  /** A body that is replaced must not be used any more: what it read of the graphs around it is let go. */
  setAttr(name: string, attr: Attr | undefined): void {
    const kept = new Set(attr ? bodiesOf(attr) : []);
    for (const body of bodiesOf(this.#attrs.get(name))) if (!kept.has(body)) Graph.release(body);
    if (attr) this.#attrs.set(name, attr);
    else this.#attrs.delete(name);
    for (const body of kept) body.owner = this;
  }

  setInput(index: number, value: Value | undefined): void {
    while (this.#inputs.length <= index) this.#inputs.push(undefined);
    Node.unlinkInput(this, index);
    this.#inputs[index] = value;
    if (!value) return;
    const use = { node: this, index };
    this.#reads[index] = use;
    Value.link(value, use);
  }

  /** @internal input `index` no longer counts among the uses of the value it reads */
  static unlinkInput(node: Node, index: number): void {
    const use = node.#reads[index];
    if (!use) return;
    Value.unlink(node.#inputs[index]!, use);
    node.#reads[index] = undefined;
  }

  /** Whether the use that reading input `index` is, is on the record of the value that is read there. */
  isLinked(index: number): boolean {
    const use = this.#reads[index];
    return use === undefined ? this.#inputs[index] === undefined : this.#inputs[index]!.isReadBy(use);
  }

  /** @internal joins two neighbours; either may be the end of the list */
  static join(previous: Node | undefined, next: Node | undefined): void {
    if (previous) previous.#next = next;
    if (next) next.#previous = previous;
  }

  /** @internal */
  static previousOf(node: Node): Node | undefined {
    return node.#previous;
  }

  /** @internal */
  static nextOf(node: Node): Node | undefined {
    return node.#next;
  }

  /** The value of an int attribute, or `fallback` (the operator's default) when it is absent. */
  int(name: string, fallback: number): number;
  int(name: string): number | undefined;
  int(name: string, fallback?: number): number | undefined {
    return this.#get(name, "int")?.value ?? fallback;
  }
  float(name: string, fallback: number): number;
  float(name: string): number | undefined;
  float(name: string, fallback?: number): number | undefined {
    return this.#get(name, "float")?.value ?? fallback;
  }
  string(name: string, fallback: string): string;
  string(name: string): string | undefined;
  string(name: string, fallback?: string): string | undefined {
    return this.#get(name, "string")?.value ?? fallback;
  }
  ints(name: string, fallback: readonly number[]): readonly number[];
  ints(name: string): readonly number[] | undefined;
  ints(name: string, fallback?: readonly number[]): readonly number[] | undefined {
    return this.#get(name, "ints")?.value ?? fallback;
  }
  tensor(name: string): Tensor | undefined {
    return this.#get(name, "tensor")?.value;
  }

  /** The graphs this node runs: branches of an If, the body of a Loop or Scan. */
  bodies(): Graph[] {
    return [...this.#attrs.values()].flatMap(bodiesOf);
  }

  /**
   * How the user knows the node: by its label in the model that was uploaded (`labelNodes`), whatever passes have made of it. A node that no
   * uploaded node stands behind has its name, or that of its first output.
   */
  get label(): string {
    return this.#origins[0] ?? this.ownLabel;
  }

  /** The labels of every uploaded node that this one computes: its own first, then those that were fused into it. */
  get origins(): readonly string[] {
    return this.#origins.length > 0 ? this.#origins : [this.ownLabel];
  }

  /** The operator of the uploaded node that `label` names. */
  get originalOp(): string {
    return this.#originalOp ?? this.opType;
  }

  /** What the node is called in the graph as it is now: its name, or its first output where it has none. */
  get ownLabel(): string {
    return this.name || this.outputs.find((value) => value.name)?.name || this.opType;
  }

  /** @internal kept by `labelNodes` */
  setOrigin(label: string): void {
    this.#origins = [label];
    this.#originalOp = this.opType;
  }

  /** From now on this node also computes what `other` did. */
  absorb(other: Node): void {
    this.#origins = [...new Set([...this.origins, ...other.origins])];
  }

  #get<T extends AttrType>(name: string, type: T): Extract<Attr, { type: T }> | undefined {
    const attr = this.#attrs.get(name);
    return attr?.type === type ? (attr as Extract<Attr, { type: T }>) : undefined;
  }
}

function bodiesOf(attr: Attr | undefined): readonly Graph[] {
  if (attr?.type === "graph") return [attr.value];
  return attr?.type === "graphs" ? attr.value : [];
}

/** The value of a Constant node, whichever of its attributes holds it; undefined for sparse tensors. */
function constantOf(node: Node): Tensor | undefined {
  for (const [name, attr] of node.attrs) {
    if (name === "value" && attr.type === "tensor") return attr.value;
    if (name === "value_float" && attr.type === "float") return tensorOf("float32", [], [attr.value]);
    if (name === "value_floats" && attr.type === "floats") return tensorOf("float32", [attr.value.length], attr.value);
    // Integers past 2^53 have lost their last bits as attributes, so they are not constants to us.
    if (name === "value_int" && attr.type === "int" && Number.isSafeInteger(attr.value)) {
      return tensorOf("int64", [], [attr.value]);
    }
    if (name === "value_ints" && attr.type === "ints" && attr.value.every(Number.isSafeInteger)) {
      return tensorOf("int64", [attr.value.length], attr.value);
    }
  }
  return undefined;
}

export class Graph {
  readonly model: Model;
  name: string;
  /** The node whose body this is; undefined for the main graph. */
  owner: Node | undefined;
  readonly source: GraphProto | undefined;
  readonly #inputs = new Set<Value>();
  #inputList: readonly Value[] | undefined;
  readonly #outputs: Value[] = [];
  readonly #initializers = new Set<Value>();
  /** The nodes are a linked list, so that inserting and removing do not get slower as the graph gets larger. */
  #first: Node | undefined;
  #last: Node | undefined;
  readonly #members = new Set<Node>();
  #nodeList: readonly Node[] | undefined;

  constructor(model: Model, name: string, source?: GraphProto) {
    this.model = model;
    this.name = name;
    this.source = source;
  }

  /** Graph inputs; before IR version 4 initializers with a default value are among them. */
  get inputs(): readonly Value[] {
    this.#inputList ??= [...this.#inputs];
    return this.#inputList;
  }
  get outputs(): readonly Value[] {
    return this.#outputs;
  }
  get initializers(): ReadonlySet<Value> {
    return this.#initializers;
  }
  /** In topological order. The list is of the moment: it does not change when the graph does, so a pass may go through it and rewrite. */
  get nodes(): readonly Node[] {
    if (!this.#nodeList) {
      const list: Node[] = [];
      for (let node = this.#first; node; node = Node.nextOf(node)) list.push(node);
      this.#nodeList = list;
    }
    return this.#nodeList;
  }

  addInput(name: string, dtype?: DType, shape?: readonly Dim[]): Value {
    const value = new Value(this, this.model.claimName(name));
    value.retype(dtype, shape);
    this.#inputs.add(value);
    this.#inputList = undefined;
    return value;
  }

  /** Lists an initializer as an input as well (models before IR version 4 must), or no longer. */
  setOverridable(initializer: Value, overridable: boolean): void {
    if (overridable) this.#inputs.add(initializer);
    else this.#inputs.delete(initializer);
    this.#inputList = undefined;
  }

  /**
   * Whether callers may give another value for an initializer, because it is among the inputs. Before IR version 4 all had to be there, and
   * runtimes take them for constants all the same.
   */
  isOverridable(value: Value): boolean {
    return this.model.irVersion >= 4 && value.producer === undefined && this.#inputs.has(value);
  }

  addOutput(value: Value): void {
    this.#outputs.push(value);
    Value.markOutput(value, this, true);
  }

  removeOutput(value: Value): void {
    const at = this.#outputs.indexOf(value);
    if (at >= 0) this.#outputs.splice(at, 1);
    if (!this.#outputs.includes(value)) Value.markOutput(value, this, false);
  }

  /** A new initializer. `name` is made unique. */
  addInitializer(name: string, constant: Tensor): Value {
    const value = new Value(this, this.model.freshName(name), { constant });
    this.#initializers.add(value);
    return value;
  }

  /** @internal an initializer under the exact name it was read with */
  adoptInitializer(value: Value): void {
    this.#initializers.add(value);
  }

  /** Removes an initializer that nothing reads. */
  removeInitializer(value: Value): void {
    if (value.useCount > 0 || value.isGraphOutput) {
      throw new CoreError("internal", "An initializer that is still read cannot be removed.", value.name);
    }
    this.#initializers.delete(value);
    this.setOverridable(value, false);
  }

  /** A new node at the end. */
  append(init: NodeInit): Node {
    return this.#insert(this.#last, undefined, init);
  }

  /** A new node in front of all others: one that reads nothing, or only inputs and initializers. */
  prepend(init: NodeInit): Node {
    return this.#insert(undefined, this.#first, init);
  }

  /** A new node right before `anchor`, so that topological order holds when it reads what `anchor` could read. */
  insertBefore(anchor: Node, init: NodeInit): Node {
    this.#checkMember(anchor);
    return this.#insert(Node.previousOf(anchor), anchor, init);
  }

  insertAfter(anchor: Node, init: NodeInit): Node {
    this.#checkMember(anchor);
    return this.#insert(anchor, Node.nextOf(anchor), init);
  }

  /** Removes a node whose outputs nothing reads any more. */
  remove(node: Node): void {
    const read = node.outputs.find((value) => value.useCount > 0 || value.isGraphOutput);
    if (read) throw new CoreError("internal", "A node whose output is still read cannot be removed.", read.name);
    this.#checkMember(node);
    const [previous, next] = [Node.previousOf(node), Node.nextOf(node)];
    Node.join(previous, next);
    if (!previous) this.#first = next;
    if (!next) this.#last = previous;
    Node.join(undefined, node);
    Node.join(node, undefined);
    this.#members.delete(node);
    this.#nodeList = undefined;
    for (const index of node.inputs.keys()) Node.unlinkInput(node, index);
    for (const body of node.bodies()) Graph.release(body);
  }

  /**
   * Everything that read `from` reads `to`, graph outputs included; only the node that makes `to` goes on reading `from`. Where `from`
   * is an output of the model, `to` takes over its name (and `from` gets another one): the names of a model's outputs are its interface.
   * Throws `unsupported` where an output would become an input, another output, or a value of an outer graph; `canReplace` asks first.
   */
  replaceUses(from: Value, to: Value): void {
    if (!this.canReplace(from, to)) {
      throw new CoreError("unsupported", "Two outputs, or an input and an output, cannot become one value.", from.name);
    }
    if (from === to) return;
    const makesTo = (node: Node | undefined): boolean =>
      node !== undefined && (node === to.producer || makesTo(node.graph.owner));
    for (const use of [...from.uses]) if (!makesTo(use.node)) use.node.setInput(use.index, to);
    for (const graph of Value.outputGraphs(from)) {
      graph.#outputs.splice(0, graph.#outputs.length, ...graph.#outputs.map((value) => (value === from ? to : value)));
      Value.markOutput(from, graph, false);
      Value.markOutput(to, graph, true);
      if (to.dtype === undefined || to.dtype === from.dtype) {
        // The declaration of an output is what callers were promised.
        to.dtype = from.dtype;
        if (!to.constant) to.shape = from.shape ?? to.shape;
        to.source = from.source ?? to.source;
      }
      if (graph === this.model.graph) {
        const { name } = from;
        from.name = this.model.freshName(`${name}_replaced`);
        to.name = name;
      }
    }
  }

  /** Whether `replaceUses(from, to)` is possible. */
  canReplace(from: Value, to: Value): boolean {
    return Value.outputGraphs(from).every((graph) => to.graph === graph && !to.isGraphOutput && !graph.#inputs.has(to));
  }

  /**
   * Copies everything in this graph into `target`, an empty one of this or another model. `values` says what stands there for values of the
   * graphs around this one, and is extended by the copies.
   */
  copyInto(target: Graph, values: Map<Value, Value>): void {
    copyGraph(this, target, values);
  }

  /** This graph and every body below it, outermost first. */
  *walk(): Generator<Graph> {
    yield this;
    for (const node of this.nodes) for (const body of node.bodies()) yield* body.walk();
  }

  #checkMember(node: Node): void {
    if (!this.#members.has(node)) throw new CoreError("internal", "The node is not in this graph.", node.label);
  }

  #insert(previous: Node | undefined, next: Node | undefined, init: NodeInit): Node {
    const base = init.name || init.opType;
    const outputs =
      typeof init.outputs === "number"
        ? Array.from({ length: init.outputs }, (_, i) => this.model.freshName(`${base}_output_${i}`))
        : init.outputs.map((name) => this.model.claimName(name));
    const node = new Node(this, { ...init, outputs });
    Node.join(previous, node);
    Node.join(node, next);
    if (!previous) this.#first = node;
    if (!next) this.#last = node;
    this.#members.add(node);
    this.#nodeList = undefined;
    return node;
  }

  /** @internal a body that is thrown away no longer counts among the uses of what it read of the graphs around it */
  static release(body: Graph): void {
    for (const node of body.nodes) {
      node.inputs.forEach((value, index) => {
        if (value?.graph !== body) Node.unlinkInput(node, index);
      });
      for (const inner of node.bodies()) Graph.release(inner);
    }
    for (const value of body.#outputs) Value.markOutput(value, body, false);
  }
}

export class Model {
  irVersion: number;
  /** Operator set version by domain; "" is ai.onnx. */
  readonly opsets: Map<string, number>;
  readonly graph: Graph;
  /** Model-local functions that could not be expanded (`functions.ts`) are carried along, never rewritten. */
  readonly functions: readonly FunctionProto[];
  readonly source: ModelProto | undefined;
  /** Whether nodes are written without what the exporter noted about its own source code; see `dropTraces`. */
  withoutTraces = false;
  /** What the file is to say of where it comes from; undefined leaves what `source` says. */
  origin: Origin | undefined;
  readonly #names = new Set<string>();
  /** For each base of which numbered names were made: the number to try next. Names are never given back, so those before it are taken. */
  readonly #nextNumber = new Map<string, number>();

  constructor(init: {
    irVersion: number;
    opsets: Iterable<readonly [string, number]>;
    graphName: string;
    functions?: readonly FunctionProto[];
    source?: ModelProto;
  }) {
    this.irVersion = init.irVersion;
    this.opsets = new Map(init.opsets);
    this.functions = init.functions ?? [];
    this.source = init.source;
    this.graph = new Graph(this, init.graphName, init.source?.graph);
  }

  /** The version of ai.onnx the model is written in. */
  get opset(): number {
    return this.opsets.get("") ?? 1;
  }

  /** The main graph and every body, outermost first. */
  graphs(): Generator<Graph> {
    return this.graph.walk();
  }

  /** Every node of every graph, in topological order within each. */
  *nodes(): Generator<Node> {
    for (const graph of this.graphs()) yield* graph.nodes;
  }

  /** Declares that operators of `domain` up to `version` are used; never lowers a version. */
  requireOpset(domain: string, version: number): void {
    this.opsets.set(domain, Math.max(version, this.opsets.get(domain) ?? 0));
  }

  /** A name no value of the model has: `base`, or `base_1`, `base_2`, … The same calls give the same names. */
  freshName(base: string): string {
    let name = base;
    if (this.#names.has(base)) {
      let number = this.#nextNumber.get(base) ?? 1;
      do name = `${base}_${number++}`;
      while (this.#names.has(name));
      this.#nextNumber.set(base, number);
    }
    this.#names.add(name);
    return name;
  }

  /** @internal marks a name that was read from a file as taken */
  claimName(name: string): string {
    this.#names.add(name);
    return name;
  }

  /** A copy of the whole structure that shares the tensors. */
  clone(): Model {
    const copy = new Model({
      irVersion: this.irVersion,
      opsets: this.opsets,
      graphName: this.graph.name,
      functions: this.functions,
      ...(this.source && { source: this.source }),
    });
    copy.withoutTraces = this.withoutTraces;
    copy.origin = this.origin;
    for (const name of this.#names) copy.#names.add(name);
    for (const [base, number] of this.#nextNumber) copy.#nextNumber.set(base, number);
    copyGraph(this.graph, copy.graph, new Map());
    return copy;
  }
}

function copyGraph(from: Graph, to: Graph, values: Map<Value, Value>): void {
  const typed = (original: Value, copy: Value): Value => {
    copy.dtype = original.dtype;
    copy.shape = original.shape;
    copy.source = original.source;
    values.set(original, copy);
    return copy;
  };
  const copyOf = (original: Value): Value => {
    const copy = values.get(original);
    if (!copy) throw new CoreError("internal", `"${original.name}" is read before it is defined.`, original.name);
    return copy;
  };
  for (const value of from.initializers) {
    to.adoptInitializer(typed(value, new Value(to, value.name, { constant: value.constant })));
  }
  for (const value of from.inputs) {
    const initializer = values.get(value);
    if (initializer) to.setOverridable(initializer, true);
    else typed(value, to.addInput(value.name));
  }
  for (const node of from.nodes) {
    const attrs = Object.fromEntries([...node.attrs].map(([name, attr]) => [name, copyAttr(attr, to.model, values)]));
    const copy = to.append({
      opType: node.opType,
      domain: node.domain,
      name: node.name,
      inputs: node.inputs.map((value) => value && copyOf(value)),
      outputs: node.outputs.map((value) => value.name),
      attrs,
      standsFor: node,
      ...(node.source && { source: node.source }),
    });
    node.outputs.forEach((value, i) => {
      typed(value, copy.outputs[i]!);
    });
  }
  for (const value of from.outputs) to.addOutput(copyOf(value));
}

function copyAttr(attr: Attr, model: Model, values: Map<Value, Value>): Attr {
  const copy = (body: Graph): Graph => {
    const graph = new Graph(model, body.name, body.source);
    copyGraph(body, graph, values);
    return graph;
  };
  if (attr.type === "graph") return { ...attr, value: copy(attr.value) };
  if (attr.type === "graphs") return { ...attr, value: attr.value.map(copy) };
  return attr;
}
