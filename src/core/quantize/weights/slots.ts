import type { Model, Node, Use, Value } from "../../onnx/ir.ts";
import { elementCount } from "../../onnx/tensor.ts";
import { operatorOf } from "../../operators/operators.ts";
import { EXCLUDED, type NodeTest, type NoteSink, noteOn } from "../../passes/pass.ts";
import type { WeightView, WeightViews } from "../../passes/weight-views.ts";
import type { WeightMatrix } from "../rounding/blocks.ts";

/** An input of a node that takes a weight, and the weight it has there. */
export interface WeightSlot {
  readonly node: Node;
  readonly index: number;
  readonly view: WeightView;
  /** The axes of the view that the operator sums over, as [first, past the last): scales run along the others. */
  readonly depthAxes: readonly [number, number];
}

/** Constants of other operators with at least this many elements, vectors aside, are worth a word in the report. */
const MIN_REPORTED_ELEMENTS = 4096;

/**
 * Every weight that a method may compress, node by node in topological order, outermost graph first. The others get a note that says why:
 * excluded, held by an operator that is not in the table, or shared with one that is left alone (the file would then hold both).
 */
export function findWeights(
  model: Model,
  views: WeightViews,
  isExcluded: NodeTest,
  note: NoteSink,
): Map<Node, WeightSlot[]> {
  const found = new Map<Node, WeightSlot[]>();
  for (const node of model.nodes()) {
    const slots = slotsOf(node, views);
    if (slots.length === 0) {
      if (holdsLargeConstant(node, views)) {
        note(noteOn(node, "skipped", "unsupported_op", `Constants of ${node.opType} are left as they are.`));
      }
    } else if (isExcluded(node)) {
      note(noteOn(node, "skipped", EXCLUDED.code, EXCLUDED.message));
    } else found.set(node, slots);
  }
  const outside = new OutsideReaders(views, found);
  for (let changed = true; changed; ) {
    changed = false;
    for (const [node, slots] of found) {
      const sources = slots.flatMap(({ view }) => view.sources);
      const blocking = sources.map((source) => outside.of(source)).find((reader) => reader !== undefined);
      if (!blocking) continue;
      const who = blocking.node ? `"${blocking.node.label}" (${blocking.node.opType})` : "an output of the model";
      note(noteOn(node, "skipped", "shared_weight", `Its weight is also read by ${who}, which keeps it as it is.`));
      found.delete(node);
      outside.recheck(sources);
      changed = true;
    }
  }
  return found;
}

function slotsOf(node: Node, views: WeightViews): WeightSlot[] {
  const record = node.domain === "" ? operatorOf(node) : undefined;
  return (record?.weights ?? []).flatMap((operand) => {
    const view = views.of(node.inputs[operand.input]);
    const depthAxes = view && view.dims.length >= 2 ? operand.reducedAxes?.(node, view.dims) : undefined;
    return view && depthAxes ? [{ node, index: operand.input, view, depthAxes }] : [];
  });
}

function holdsLargeConstant(node: Node, views: WeightViews): boolean {
  // Constants that are only moved are reported with the node that uses them.
  if (node.isConstant || (node.outputs[0] && views.of(node.outputs[0]))) return false;
  return node.inputs.some((value) => {
    const dims = views.of(value)?.dims ?? [];
    return elementCount(dims) >= MIN_REPORTED_ELEMENTS && dims.filter((dim) => dim > 1).length > 1;
  });
}

/** Readers of weights that are not among those `found`. A weight may have thousands of readers: they are gone through once, not by each. */
class OutsideReaders {
  readonly #views: WeightViews;
  readonly #found: ReadonlyMap<Node, readonly WeightSlot[]>;
  readonly #readers = new Map<Value, readonly (Use | undefined)[]>();
  /** Weights without one. */
  readonly #closed = new Set<Value>();

  constructor(views: WeightViews, found: ReadonlyMap<Node, readonly WeightSlot[]>) {
    this.#views = views;
    this.#found = found;
  }

  /** The first reader of a weight that keeps it as it is, an output of the model as `{}`; undefined when there is none. */
  of(source: Value): Partial<Use> | undefined {
    if (this.#closed.has(source)) return undefined;
    const readers = this.#readers.get(source) ?? this.#views.readers(source);
    this.#readers.set(source, readers);
    for (const reader of readers) {
      if (!reader) return {};
      if (!this.#found.get(reader.node)?.some(({ index }) => index === reader.index)) return reader;
    }
    this.#closed.add(source);
    return undefined;
  }

  /** To be called when a node that reads these weights is found no more. */
  recheck(sources: readonly Value[]): void {
    for (const source of sources) this.#closed.delete(source);
  }
}

/** Whether each filter of a Conv reads one channel. */
export function isDepthwise({ node, view }: WeightSlot): boolean {
  return operatorOf(node)?.channels === "convolution" && view.dims[1] === 1;
}

/** The weight as a stack of matrices in the layout it is stored in, without reading it. */
export function matrixOf({ view, depthAxes }: WeightSlot): Omit<WeightMatrix, "values"> {
  const [first, end] = depthAxes;
  const before = elementCount(view.dims.slice(0, first));
  const depth = elementCount(view.dims.slice(first, end));
  const after = elementCount(view.dims.slice(end));
  return end === view.dims.length
    ? { batches: 1, rows: before, depth, layout: "row-major" }
    : { batches: before, rows: after, depth, layout: "column-major" };
}
