import type { GraphProto } from "onnx-buf";
import { CoreError } from "../errors.ts";
import type { Attr } from "./attribute.ts";
import type { DType } from "./dtype.ts";
import type { Model } from "./ir.ts";
import { Node, type NodeInit } from "./node.ts";
import type { Tensor } from "./tensor.ts";
import { type Dim, Value } from "./value.ts";

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
    for (const body of node.bodies()) body.release();
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
   * Copies everything in this graph, tensors excepted, into `target`, an empty one of this or another model. `values` says what stands there for values of the
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
  release(): void {
    for (const node of this.nodes) {
      node.inputs.forEach((value, index) => {
        if (value?.graph !== this) Node.unlinkInput(node, index);
      });
      for (const inner of node.bodies()) inner.release();
    }
    for (const value of this.#outputs) Value.markOutput(value, this, false);
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
