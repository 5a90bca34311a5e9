import { CoreError } from "../errors.ts";
import { DTYPES, type DType, dtypeOfOnnx } from "../onnx/dtype.ts";
import { type Graph, Model, type Node, type Value } from "../onnx/ir.ts";
import { elementCount, type Tensor } from "../onnx/tensor.ts";
import type { FoldedSize } from "../operators/operator-record.ts";
import { operatorOf } from "../operators/operators.ts";

/** Runs a model that has no inputs and answers its outputs by name. */
export type Evaluate = (model: Model) => Promise<Readonly<Record<string, Tensor>>>;

/** No intermediate result of folding is larger: a bound on the memory it takes. */
const MAX_ELEMENTS = 2 ** 24;
/** A result up to this size is kept whatever was there before it. */
const MAX_FREE_BYTES = 1024;

/**
 * Replaces what is computed from constants alone by its value, in place. The values come from `evaluate`, which runs all of it as one
 * model, so they are what the runtime would compute.
 *
 * A file must not grow: a result is kept when it is small, or no larger than the constants that become unused by it. Operators that
 * make much out of little (Expand, Tile, ConstantOfShape, DequantizeLinear) and random ones are not in the table and never folded. Nodes
 * that have become useless are left to dead code removal. Answers whether anything changed.
 */
export async function foldConstants(model: Model, evaluate: Evaluate): Promise<boolean> {
  const foldable = findFoldable(model);
  const results = [...foldable.values()].filter((value) => isReadOutside(value, foldable));
  if (results.length === 0) return false;
  const { extract, names } = extractModel(model, foldable, results);
  let tensors: Readonly<Record<string, Tensor>>;
  try {
    tensors = await evaluate(extract);
  } catch (error) {
    // What cannot be run by itself (an operator without a kernel in a branch that is never taken) stays as it is.
    if (error instanceof CoreError && error.code !== "cancelled" && error.code !== "internal") return false;
    throw error;
  }
  let changed = false;
  for (const value of results) {
    const constant = tensors[names.get(value)!];
    if (!constant || constant.byteLength > Math.max(MAX_FREE_BYTES, freedBytes(value, foldable))) continue;
    value.graph.replaceUses(value, value.graph.addInitializer(`${value.name}_folded`, constant));
    changed = true;
  }
  return changed;
}

/** At most how many elements a value has, and its dims where they are known. */
interface Bound {
  readonly elements: number;
  readonly dims?: readonly number[] | undefined;
}

type BoundOf = (inputs: readonly Bound[]) => Bound;

const BOUNDS: Readonly<Record<FoldedSize, BoundOf>> = {
  unchanged: ([x]) => x!,
  reordered: ([x]) => ({ elements: x!.elements }),
  joined: (inputs) => ({ elements: inputs.reduce((sum, { elements }) => sum + elements, 0) }),
  selected: ([data, indices]) => ({ elements: data!.elements * indices!.elements }),
  broadcast: (inputs) =>
    inputs.reduce((a, b) => {
      if (!a.dims || !b.dims) return { elements: a.elements * b.elements };
      const rank = Math.max(a.dims.length, b.dims.length);
      const at = ({ dims }: Bound, axis: number) => dims![dims!.length - rank + axis] ?? 1;
      const dims = Array.from({ length: rank }, (_, axis) => Math.max(at(a, axis), at(b, axis)));
      return { elements: elementCount(dims), dims };
    }),
};

/** Types that can leave the runtime. */
function isPlain(dtype: DType | undefined): boolean {
  if (!dtype) return false;
  const { bits, kind } = DTYPES[dtype];
  return (
    bits >= 8 &&
    (kind === "int" || kind === "uint" || kind === "bool" || dtype.startsWith("float")) &&
    !dtype.startsWith("float8")
  );
}

/** The outputs of every node that can be folded, in the order in which they are computed. */
function findFoldable(model: Model): ReadonlySet<Value> {
  const bounds = new Map<Value, Bound>();
  const foldable = new Set<Value>();
  const boundOf = (value: Value): Bound | undefined => {
    const { constant } = value;
    if (!constant || value.graph.isOverridable(value) || !isPlain(constant.dtype)) return bounds.get(value);
    return { elements: elementCount(constant.dims), dims: constant.dims };
  };
  const visit = (graph: Graph): void => {
    for (const node of graph.nodes) {
      for (const body of node.bodies()) visit(body);
      const inputs = node.inputs.filter((value) => value !== undefined).map(boundOf);
      const size = operatorOf(node)?.folds;
      const rule = size && BOUNDS[size];
      if (!rule || inputs.length === 0 || inputs.some((bound) => !bound) || !castsToPlain(node)) continue;
      const bound = rule(inputs as Bound[]);
      // The outputs of models and bodies are an interface: they stay made by nodes.
      if (bound.elements > MAX_ELEMENTS || node.outputs.some((value) => value.isGraphOutput)) continue;
      for (const value of node.outputs) {
        bounds.set(value, bound);
        foldable.add(value);
      }
    }
  };
  visit(model.graph);
  return foldable;
}

function castsToPlain(node: Node): boolean {
  return node.opType !== "Cast" || isPlain(dtypeOfOnnx(node.int("to", 0)));
}

function isReadOutside(value: Value, foldable: ReadonlySet<Value>): boolean {
  return value.uses.some(({ node }) => !node.outputs.some((output) => foldable.has(output)));
}

/** Bytes of the constants that only lead to `value`. */
function freedBytes(value: Value, foldable: ReadonlySet<Value>): number {
  const leadsHere = new Set<Node>();
  let bytes = 0;
  const visit = (node: Node): void => {
    leadsHere.add(node);
    for (const input of new Set(node.inputs)) {
      if (!input || input.uses.some((use) => !leadsHere.has(use.node)) || input.isGraphOutput) continue;
      if (foldable.has(input)) visit(input.producer!);
      else bytes += input.constant!.byteLength;
    }
  };
  if (value.producer) visit(value.producer);
  return bytes;
}

/** A model that computes `results` and nothing else. */
function extractModel(
  model: Model,
  foldable: ReadonlySet<Value>,
  results: readonly Value[],
): { extract: Model; names: ReadonlyMap<Value, string> } {
  const extract = new Model({ irVersion: Math.max(model.irVersion, 4), opsets: model.opsets, graphName: "constants" });
  const copies = new Map<Value, Value>();
  const copyOf = (value: Value): Value => {
    let copy = copies.get(value);
    if (!copy) {
      copy = extract.graph.addInitializer("constant", value.constant!);
      copies.set(value, copy);
    }
    return copy;
  };
  const done = new Set<Node>();
  for (const { producer } of foldable) {
    if (!producer || done.has(producer)) continue;
    done.add(producer);
    const copy = extract.graph.append({
      opType: producer.opType,
      inputs: producer.inputs.map((value) => value && copyOf(value)),
      outputs: producer.outputs.map(({ name }) => (name === "" ? "" : extract.freshName("folded"))),
      attrs: Object.fromEntries(producer.attrs),
    });
    producer.outputs.forEach((value, i) => {
      copies.set(value, copy.outputs[i]!);
    });
  }
  for (const value of results) extract.graph.addOutput(copies.get(value)!);
  return { extract, names: new Map(results.map((value) => [value, copies.get(value)!.name])) };
}
