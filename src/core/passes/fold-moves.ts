import { byteLengthOf } from "../onnx/dtype.ts";
import type { Model, Node, Value } from "../onnx/ir.ts";
import { deriveTensors, elementCount } from "../onnx/tensor.ts";
import type { Pass } from "./pass.ts";
import { type WeightView, WeightViews } from "./weight-views.ts";

/** What is kept besides the weights it is made of is no larger than this. */
const MAX_EXTRA_BYTES = 1024;

/**
 * Replaces weights that are moved about before they are used (cut, joined, transposed, reshaped) by weights as they are used, where the file
 * does not grow: what several nodes use is stored once, and the weights it was made of become unused. PyTorch's exporter cuts and
 * joins the weights of every LSTM so. Elements are moved when the file is written; dead code removal takes the operators.
 */
export const foldMoves: Pass = {
  name: "fold moved weights",
  run(model) {
    let changed = false;
    for (const group of groupReaders(model)) changed = foldGroup(group) || changed;
    return changed;
  },
};

/** A node input that reads a constant, directly or moved. */
interface Reader {
  readonly node: Node;
  readonly index: number;
  readonly view: WeightView;
  readonly moved: boolean;
}

/** Constants that are joined somewhere, and all that reads them. */
interface Group {
  readonly sources: Set<Value>;
  readonly readers: Reader[];
  /** Those of the constants that an output gives out, directly or moved. */
  readonly given: Set<Value>;
}

function groupReaders(model: Model): Set<Group> {
  const views = new WeightViews();
  const groupOf = new Map<Value, Group>();
  const add = (view: WeightView, reader: Reader | undefined) => {
    const others = new Set(view.sources.flatMap((source) => groupOf.get(source) ?? []));
    // A weight may have many thousands of readers: they join its group rather than make another of all of them.
    const group = others.size === 1 ? [...others][0]! : merged([...others]);
    for (const source of others.size === 1 ? view.sources : [...view.sources, ...group.sources]) {
      group.sources.add(source);
      groupOf.set(source, group);
    }
    if (reader) group.readers.push(reader);
    else for (const source of view.sources) group.given.add(source);
  };
  for (const graph of model.graphs()) {
    for (const node of graph.nodes) {
      if (node.outputs[0] && views.of(node.outputs[0])) continue;
      for (const [index, value] of node.inputs.entries()) {
        const view = views.of(value);
        if (view) add(view, { node, index, view, moved: !value!.constant });
      }
    }
    for (const value of graph.outputs) {
      const view = views.of(value);
      if (view) add(view, undefined);
    }
  }
  return new Set(groupOf.values());
}

function merged(groups: readonly Group[]): Group {
  return {
    sources: new Set(groups.flatMap(({ sources }) => [...sources])),
    readers: groups.toReversed().flatMap(({ readers }) => readers),
    given: new Set(groups.flatMap(({ given }) => [...given])),
  };
}

function foldGroup({ sources, readers, given }: Group): boolean {
  // The last reader first: what it reads gives the folded weight its name.
  const moved = readers.filter((reader) => reader.moved).reverse();
  const direct = new Set([...given, ...readers.filter((reader) => !reader.moved).flatMap(({ view }) => view.sources)]);
  const freed = [...sources].filter((source) => !direct.has(source) && !source.graph.isOverridable(source));
  const made = new Map(moved.map(({ view }) => [view.key, view]));
  if (moved.length === 0 || bytesOf(made.values()) > bytesOf(freed.map(({ constant }) => constant!)) + MAX_EXTRA_BYTES)
    return false;
  if (moved.some(({ view }) => view.dtype !== "float32" && view.dtype !== "float16")) return false;
  const folded = new Map<string, Value>();
  for (const { node, index, view } of moved) {
    const value = folded.get(view.key) ?? materialize(view);
    folded.set(view.key, value);
    node.setInput(index, value);
  }
  return true;
}

function bytesOf(parts: Iterable<{ readonly dtype: WeightView["dtype"]; readonly dims: readonly number[] }>): number {
  let sum = 0;
  for (const { dtype, dims } of parts) sum += byteLengthOf(dtype, elementCount(dims));
  return sum;
}

function materialize(view: WeightView): Value {
  const { dtype, dims } = view;
  const { elements } = deriveTensors({ elements: { dtype, dims } }, () => {
    const values = view.read();
    const { buffer, byteOffset, byteLength } = dtype === "float16" ? Float16Array.from(values) : values;
    return { elements: new Uint8Array(buffer, byteOffset, byteLength) };
  });
  return view.graph.addInitializer(`${view.sources[0]!.name}_moved`, elements);
}
