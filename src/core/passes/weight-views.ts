/**
 * Weights as nodes see them: a constant, or a constant behind operators that only move elements (PyTorch's exporter writes the weights of an
 * LSTM as Unsqueeze(Concat(Slice(w), Slice(w), Slice(w)))). A view knows its shape at once and its elements when they are asked for, so
 * that nothing is read while a graph is being rewritten.
 */
import { type DType, dtypeOfOnnx } from "../onnx/dtype.ts";
import type { Graph, Node, Use, Value } from "../onnx/ir.ts";
import { elementCount, floatsOf, integersOf, isFloat } from "../onnx/tensor.ts";
import type { OpType } from "../operators/operators.ts";

export interface WeightView {
  readonly dtype: DType;
  readonly dims: readonly number[];
  /** Views with the same key hold the same elements in the same order. It ends in the dims. */
  readonly key: string;
  /** The constants behind it, each once. */
  readonly sources: readonly Value[];
  /** The innermost graph in which all sources are visible: where what is derived from the view belongs. */
  readonly graph: Graph;
  /** Whether it is all of one constant, in its order and dtype; the dims may differ. */
  readonly whole: boolean;
  /** Set when the view is a transposed matrix: the matrix itself. */
  readonly transposed?: WeightView;
  /** The elements, freshly read. Callers may not write to them. */
  read(): Float32Array;
}

/** What a moving operator does to the views it reads, or undefined when that cannot be told from constants alone. */
type Move = (node: Node, views: WeightViews) => WeightView | undefined;

/** The views of one model. Keys are comparable within one instance, and only as long as no constant is added. */
export class WeightViews {
  readonly #views = new Map<Value, WeightView | undefined>();

  /** What `value` is a view of; undefined when it is not a float constant or depends on anything that is not constant, or is an option. */
  of(value: Value | undefined): WeightView | undefined {
    if (!value) return undefined;
    if (!this.#views.has(value)) this.#views.set(value, this.#resolve(value));
    return this.#views.get(value);
  }

  #resolve(value: Value): WeightView | undefined {
    const { constant, producer } = value;
    if (constant) {
      // A scalar among the inputs can be an option; larger ones are weights (`sealWeights`).
      const isOption = elementCount(constant.dims) <= 1 && value.graph.isOverridable(value);
      if (!isFloat(constant.dtype) || isOption) return undefined;
      const { dtype, dims } = constant;
      return {
        dtype,
        dims,
        key: `#${this.#views.size}[${dims}]`,
        sources: [value],
        whole: true,
        graph: value.graph,
        read: () => floatsOf(constant),
      };
    }
    if (producer?.domain !== "" || producer.outputs.length !== 1) return undefined;
    return MOVES.get(producer.opType)?.(producer, this);
  }

  /** The places that read a constant, behind the moving operators; a graph output counts as undefined. */
  readers(constant: Value): (Use | undefined)[] {
    const readers: (Use | undefined)[] = constant.isGraphOutput ? [undefined] : [];
    for (const use of constant.uses) {
      const [output] = use.node.outputs;
      if (output && this.of(output)) {
        readers.push(...this.readers(output));
      } else readers.push(use);
    }
    return readers;
  }
}

/** Same elements, other dims. */
export function reshaped(view: WeightView, dims: readonly number[]): WeightView {
  if (sameDims(view.dims, dims)) return view;
  const { transposed: _, ...rest } = view;
  return { ...rest, dims, key: view.key.replace(/\[[\d,]*\]$/, `[${dims}]`) };
}

function permuted(view: WeightView, perm: readonly number[]): WeightView {
  if (perm.every((axis, i) => axis === i)) return view;
  const swap = perm.length === 2;
  if (swap && view.transposed) return view.transposed;
  const dims = perm.map((axis) => view.dims[axis]!);
  return {
    ...view,
    dims,
    key: `T(${view.key};${perm})[${dims}]`,
    whole: false,
    ...(swap && { transposed: view }),
    read: () =>
      strided(
        view.read(),
        dims,
        perm.map((axis) => stridesOf(view.dims)[axis]!),
      ),
  };
}

const MOVES = new Map<string, Move>(
  Object.entries({
    Identity: (node, views) => views.of(node.inputs[0]),
    Reshape: reshapeBy((node, dims) => {
      const shape = integers(node.inputs[1])?.values;
      if (!shape) return undefined;
      const copied = shape.map((dim, i) => (dim === 0 && node.int("allowzero", 0) === 0 ? dims[i]! : dim));
      const known = elementCount(copied.filter((dim) => dim !== -1));
      return copied.map((dim) => (dim === -1 ? elementCount(dims) / known : dim));
    }),
    Flatten: reshapeBy((node, dims) => {
      // From 0 up to the rank itself: an axis below zero counts from the rank, as everywhere.
      const axis = axisOf(node.int("axis", 1), dims.length);
      return [elementCount(dims.slice(0, axis)), elementCount(dims.slice(axis))];
    }),
    Squeeze: reshapeBy(squeezedDims),
    Unsqueeze: reshapeBy(unsqueezedDims),
    Transpose: (node, views) => {
      const view = views.of(node.inputs[0]);
      return view && permuted(view, node.ints("perm") ?? view.dims.map((_, i) => view.dims.length - 1 - i));
    },
    Slice: (node, views) => {
      const view = views.of(node.inputs[0]);
      const argument = (name: string, index: number) => node.ints(name) ?? integers(node.inputs[index])?.values;
      const starts = argument("starts", 1);
      const ends = argument("ends", 2);
      if (!view || !starts || !ends) return undefined;
      if ((node.inputs[3] && !integers(node.inputs[3])) || (node.inputs[4] && !integers(node.inputs[4])))
        return undefined;
      const axes = argument("axes", 3) ?? starts.map((_, i) => i);
      const steps = argument("steps", 4) ?? starts.map(() => 1);
      const dims = [...view.dims];
      const offsets = view.dims.map(() => 0);
      for (const [i, given] of axes.entries()) {
        if (steps[i] !== 1) return undefined;
        const axis = axisOf(given, view.dims.length);
        const size = view.dims[axis]!;
        const clamp = (at: number) => Math.min(Math.max(at < 0 ? at + size : at, 0), size);
        offsets[axis] = clamp(starts[i]!);
        dims[axis] = Math.max(0, clamp(ends[i]!) - offsets[axis]!);
      }
      const strides = stridesOf(view.dims);
      const start = offsets.reduce((sum, offset, axis) => sum + offset * strides[axis]!, 0);
      const { transposed: _, ...rest } = view;
      return {
        ...rest,
        dims,
        key: `S(${view.key};${offsets})[${dims}]`,
        whole: false,
        read: () => strided(view.read().subarray(start), dims, strides),
      };
    },
    Concat: (node, views) => {
      const parts = node.inputs.map((value) => views.of(value));
      const [first] = parts;
      if (!first || !parts.every((part) => part !== undefined)) return undefined;
      const axis = axisOf(concatAxis(node), first.dims.length);
      const outer = elementCount(first.dims.slice(0, axis));
      const dims = first.dims.map((dim, i) =>
        i === axis ? parts.reduce((sum, part) => sum + part.dims[axis]!, 0) : dim,
      );
      return {
        dtype: first.dtype,
        dims,
        key: `C(${parts.map((part) => part.key)};${axis})[${dims}]`,
        sources: [...new Set(parts.flatMap((part) => part.sources))],
        whole: false,
        graph: parts.map((part) => part.graph).reduce(innermost),
        read: () =>
          concatenated(
            parts.map((part) => part.read()),
            outer,
          ),
      };
    },
    Cast: (node, views) => {
      const view = views.of(node.inputs[0]);
      const dtype = dtypeOfOnnx(node.int("to", 0));
      if (!view || !dtype || !(view.dtype === dtype || WIDER[view.dtype]?.includes(dtype))) return undefined;
      const { transposed: _, ...rest } = view;
      return { ...rest, dtype, whole: false, key: `F(${view.key};${dtype})[${view.dims}]` };
    },
  } satisfies Partial<Record<OpType, Move>>),
);

/** Float types that hold every value of a type. Between the two of 16 bits either way would round. */
const WIDER: Readonly<Partial<Record<DType, readonly DType[]>>> = {
  float16: ["float32", "float64"],
  bfloat16: ["float32", "float64"],
  float32: ["float64"],
};

/** A move that keeps the elements in their order. `dimsOf` answers the new dims, or undefined where they are not known. */
function reshapeBy(dimsOf: (node: Node, dims: readonly number[]) => readonly number[] | undefined): Move {
  return (node, views) => {
    const view = views.of(node.inputs[0]);
    const dims = view && dimsOf(node, view.dims);
    // What does not add up is a model that does not run.
    return dims && elementCount(dims) === elementCount(view.dims) ? reshaped(view, dims) : undefined;
  };
}

/** Axes from the attribute (before version 13) or the second input; undefined when that is not known. */
function axesOf(node: Node): readonly number[] | undefined {
  return node.ints("axes") ?? (node.inputs[1] ? integers(node.inputs[1])?.values : []);
}

/** Without axes every axis of size 1 goes. */
function squeezedDims(node: Node, dims: readonly number[]): readonly number[] | undefined {
  const given = axesOf(node);
  if (!given) return undefined;
  const axes = new Set(given.map((axis) => axisOf(axis, dims.length)));
  return dims.filter((dim, i) => (axes.size > 0 ? !axes.has(i) : dim !== 1));
}

/** Axes are those of the result, in any order. */
function unsqueezedDims(node: Node, dims: readonly number[]): readonly number[] | undefined {
  const given = axesOf(node);
  if (!given) return undefined;
  const rank = dims.length + given.length;
  const axes = new Set(given.map((axis) => axisOf(axis, rank)));
  const rest = [...dims];
  return Array.from({ length: rank }, (_, i) => (axes.has(i) ? 1 : rest.shift()!));
}

/** Before version 4 the axis could be left out. */
function concatAxis(node: Node): number {
  return node.int("axis", 1);
}

/** Of two graphs that are both visible from one node, the one inside the other. */
function innermost(a: Graph, b: Graph): Graph {
  for (let graph: Graph | undefined = a; graph; graph = graph.owner?.graph) if (graph === b) return a;
  return b;
}

/** Shapes, axes and bounds are short; anything longer is data. */
const MAX_INTEGER_BYTES = 4096;

/** Integers in row-major order, and their dims. */
interface Integers {
  readonly values: readonly number[];
  readonly dims: readonly number[];
}

/** Integers that are known before the model runs: shapes, axes, slice bounds. */
function integers(value: Value | undefined): Integers | undefined {
  if (!value) return undefined;
  const { constant, producer } = value;
  if (constant) {
    const isShort = constant.byteLength <= MAX_INTEGER_BYTES;
    if (!isShort || !isInteger(constant.dtype) || value.graph.isOverridable(value)) return undefined;
    return { values: integersOf(constant), dims: constant.dims };
  }
  if (producer?.domain !== "") return undefined;
  // Ends of slices can be too large to be exact, and need not be.
  const ends = producer.isConstant ? producer.ints("value_ints") : undefined;
  if (ends) return { values: ends, dims: [ends.length] };
  const inner = integers(producer.inputs[0]);
  if (!inner) return undefined;
  const withDims = (dims: readonly number[] | undefined) => dims && { values: inner.values, dims };
  switch (producer.opType) {
    case "Identity":
      return inner;
    case "Cast":
      return isInteger(dtypeOfOnnx(producer.int("to", 0))) ? inner : undefined;
    case "Unsqueeze":
      return withDims(unsqueezedDims(producer, inner.dims));
    case "Squeeze":
      return withDims(squeezedDims(producer, inner.dims));
    case "Concat": {
      const parts = producer.inputs.map(integers);
      if (!parts.every((part) => part?.dims.length === 1)) return undefined;
      const values = parts.flatMap((part) => part!.values);
      return { values, dims: [values.length] };
    }
    default:
      return undefined;
  }
}

/** The types that shapes and axes have: what is cast between them keeps its value. */
function isInteger(dtype: DType | undefined): boolean {
  return dtype === "int64" || dtype === "int32";
}

function axisOf(axis: number, rank: number): number {
  return axis < 0 ? axis + rank : axis;
}

function sameDims(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}

function stridesOf(dims: readonly number[]): number[] {
  const strides = new Array<number>(dims.length).fill(1);
  for (let i = dims.length - 2; i >= 0; i--) strides[i] = strides[i + 1]! * dims[i + 1]!;
  return strides;
}

/** A dense copy of the elements of `source` that lie `strides` apart. */
function strided(source: Float32Array, dims: readonly number[], strides: readonly number[]): Float32Array {
  const out = new Float32Array(elementCount(dims));
  let to = 0;
  const copy = (axis: number, from: number): void => {
    const size = dims[axis] ?? 1;
    const stride = strides[axis] ?? 1;
    if (axis >= dims.length - 1) {
      if (stride === 1) out.set(source.subarray(from, from + size), to);
      else for (let i = 0; i < size; i++) out[to + i] = source[from + i * stride]!;
      to += size;
      return;
    }
    for (let i = 0; i < size; i++) copy(axis + 1, from + i * stride);
  };
  copy(0, 0);
  return out;
}

function concatenated(parts: readonly Float32Array[], outer: number): Float32Array {
  const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let to = 0;
  for (let i = 0; i < outer; i++) {
    for (const part of parts) {
      const run = part.length / outer;
      out.set(part.subarray(i * run, (i + 1) * run), to);
      to += run;
    }
  }
  return out;
}
