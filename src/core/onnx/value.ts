import type { ValueInfoProto } from "onnx-buf";
import type { DType } from "./dtype.ts";
import type { Graph } from "./graph.ts";
import type { Node } from "./node.ts";
import type { Tensor } from "./tensor.ts";

/** A dimension is a number, the name of a symbolic size, or null when nothing is known. */
export type Dim = number | string | null;

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
