import type { NodeProto } from "onnx-buf";
import { type Attr, type AttrType, bodiesOf } from "./attribute.ts";
import type { DType } from "./dtype.ts";
import type { Graph } from "./graph.ts";
import { type Tensor, tensorOf } from "./tensor.ts";
import { type Use, Value } from "./value.ts";

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
    for (const body of bodiesOf(this.#attrs.get(name))) if (!kept.has(body)) body.release();
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
