/**
 * The graph that passes work on: mutable structure over immutable tensors, with use-def edges that are always true.
 *
 * - A `Value` is made by a node, is a graph input, or holds a constant (an initializer, or the output of a `Constant` node).
 * - Bodies of If, Loop and Scan are graphs too; their nodes may read values of the graphs around them, and count among those values' uses.
 * - `source` fields keep the protobuf message a part was read from, so that what no pass touched is written back unchanged,
 *   fields unknown to us included. They are opaque to passes.
 */
import type { FunctionProto, ModelProto } from "onnx-buf";
import { Graph } from "./graph.ts";
import type { Node } from "./node.ts";
import type { Origin } from "./origin.ts";

export type { Attr } from "./attribute.ts";
export { Graph } from "./graph.ts";
export { Node, type NodeInit } from "./node.ts";
export { type Dim, type Use, Value } from "./value.ts";

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
    this.graph.copyInto(copy.graph, new Map());
    return copy;
  }
}
