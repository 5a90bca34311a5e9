/**
 * Which channels of a network must be cut together (the dependency graph of Fang et al. 2023, "DepGraph", index by index).
 *
 * Every index of every axis of every value has a label. An operator ties labels: output channel i of a convolution is row i of its weight
 * and element i of its bias; the channel of a flattened image is all of its pixels; both operands of an addition have the same channels.
 * What is tied forms one unit: cutting it means cutting all its members. Operators that are not in the table, and uses that an operator's
 * row does not cover, pin the labels they touch, so that nothing they see is ever cut.
 */
import type { Node, Value } from "../onnx/ir.ts";
import { elementCount, integersOf } from "../onnx/tensor.ts";
import type { ChannelRelation } from "../operators/operator-record.ts";
import { operatorOf } from "../operators/operators.ts";

/** The label of everything that must stay. */
const PINNED = 0;

export class ChannelLabels {
  readonly #parents: number[] = [PINNED];
  /** First label of each axis; its labels are numbered on from there. */
  readonly #axes = new Map<Value, readonly number[]>();
  readonly #dims: (value: Value) => readonly number[];

  /** `dims` gives the shape that a value has when the model runs. */
  constructor(dims: (value: Value) => readonly number[]) {
    this.#dims = dims;
  }

  dims(value: Value): readonly number[] {
    return this.#dims(value);
  }

  /** Every value that has labels. */
  get values(): Iterable<Value> {
    return this.#axes.keys();
  }

  /** The unit that an index belongs to; undefined where it is pinned. */
  unit(value: Value, axis: number, index: number): number | undefined {
    const root = this.#find(this.#label(value, axis, index));
    return root === this.#find(PINNED) ? undefined : root;
  }

  tie(a: Value, aAxis: number, aIndex: number, b: Value, bAxis: number, bIndex: number): void {
    this.#union(this.#label(a, aAxis, aIndex), this.#label(b, bAxis, bIndex));
  }

  /** Ties two axes of one size index by index. */
  tieAxes(a: Value, aAxis: number, b: Value, bAxis: number): void {
    const size = this.#dims(a)[aAxis]!;
    for (let i = 0; i < size; i++) this.tie(a, aAxis, i, b, bAxis, i);
  }

  pinAxis(value: Value, axis: number): void {
    const size = this.#dims(value)[axis]!;
    for (let i = 0; i < size; i++) this.#union(this.#label(value, axis, i), PINNED);
  }

  pin(value: Value): void {
    for (let axis = 0; axis < this.#dims(value).length; axis++) this.pinAxis(value, axis);
  }

  #label(value: Value, axis: number, index: number): number {
    let starts = this.#axes.get(value);
    if (!starts) {
      starts = this.#dims(value).map((size) => {
        const start = this.#parents.length;
        for (let i = 0; i < size; i++) this.#parents.push(start + i);
        return start;
      });
      this.#axes.set(value, starts);
    }
    return starts[axis]! + index;
  }

  #find(label: number): number {
    let root = label;
    while (this.#parents[root] !== root) root = this.#parents[root]!;
    for (let at = label; at !== root; ) {
      const next = this.#parents[at]!;
      this.#parents[at] = root;
      at = next;
    }
    return root;
  }

  #union(a: number, b: number): void {
    const [x, y] = [this.#find(a), this.#find(b)];
    // The smaller label stays the root, so that pinned units have the label of what must stay.
    this.#parents[Math.max(x, y)] = Math.min(x, y);
  }
}

/** Ties the labels that a node relates. Answers false where it does not know how; the caller then pins everything the node touches. */
type Relation = (labels: ChannelLabels, node: Node) => boolean;

/** All operands have the channels of the result, aligned at the last axis; axes of size 1 are stretched. */
const elementwise: Relation = (labels, node) => {
  const y = node.outputs[0]!;
  const yDims = labels.dims(y);
  for (const x of node.inputs) {
    if (!x) continue;
    const dims = labels.dims(x);
    const offset = yDims.length - dims.length;
    dims.forEach((size, axis) => {
      if (size === yDims[axis + offset] && size > 1) labels.tieAxes(x, axis, y, axis + offset);
    });
  }
  return true;
};

/** As elementwise, for operators whose further inputs are settings. */
const unary: Relation = (labels, node) => {
  tieSame(labels, node.inputs[0]!, node.outputs[0]!);
  return true;
};

function tieSame(labels: ChannelLabels, x: Value, y: Value, except: readonly number[] = []): void {
  const [a, b] = [labels.dims(x), labels.dims(y)];
  a.forEach((size, axis) => {
    if (except.includes(axis)) return;
    if (size === b[axis]) labels.tieAxes(x, axis, y, axis);
  });
}

function tieVectors(labels: ChannelLabels, y: Value, axis: number, vectors: readonly (Value | undefined)[]): void {
  for (const vector of vectors) if (vector) labels.tieAxes(vector, 0, y, axis);
}

const conv: Relation = (labels, node) => {
  const [x, w, bias] = [node.inputs[0]!, node.inputs[1]!, node.inputs[2]];
  const y = node.outputs[0]!;
  const group = node.int("group", 1);
  const [m, c] = labels.dims(w);
  if (group === 1) labels.tieAxes(w, 1, x, 1);
  else if (group === m && c === 1 && labels.dims(x)[1] === m) labels.tieAxes(x, 1, y, 1);
  else return false;
  labels.tieAxes(w, 0, y, 1);
  tieVectors(labels, y, 1, [bias]);
  pinTaps(labels, w);
  return true;
};

/** The axes of a kernel that are positions. */
function pinTaps(labels: ChannelLabels, w: Value): void {
  for (let axis = 2; axis < labels.dims(w).length; axis++) labels.pinAxis(w, axis);
}

const convTranspose: Relation = (labels, node) => {
  const [x, w, bias] = [node.inputs[0]!, node.inputs[1]!, node.inputs[2]];
  if (node.int("group", 1) !== 1) return false;
  labels.tieAxes(w, 0, x, 1);
  labels.tieAxes(w, 1, node.outputs[0]!, 1);
  tieVectors(labels, node.outputs[0]!, 1, [bias]);
  pinTaps(labels, w);
  return true;
};

const gemm: Relation = (labels, node) => {
  const [a, b, c] = [node.inputs[0]!, node.inputs[1]!, node.inputs[2]];
  const y = node.outputs[0]!;
  const [transA, transB] = [node.int("transA", 0), node.int("transB", 0)];
  labels.tieAxes(a, 1 - transA, b, transB);
  labels.tieAxes(a, transA, y, 0);
  labels.tieAxes(b, 1 - transB, y, 1);
  if (c) {
    const dims = labels.dims(c);
    dims.forEach((size, axis) => {
      const yAxis = axis + 2 - dims.length;
      if (size === labels.dims(y)[yAxis] && size > 1) labels.tieAxes(c, axis, y, yAxis);
    });
  }
  return true;
};

const matMul: Relation = (labels, node) => {
  const [a, b] = [node.inputs[0]!, node.inputs[1]!];
  const y = node.outputs[0]!;
  const [aDims, bDims, yDims] = [labels.dims(a), labels.dims(b), labels.dims(y)];
  if (aDims.length < 2 || bDims.length < 2) return false;
  labels.tieAxes(a, aDims.length - 1, b, bDims.length - 2);
  labels.tieAxes(a, aDims.length - 2, y, yDims.length - 2);
  labels.tieAxes(b, bDims.length - 1, y, yDims.length - 1);
  for (const [x, dims] of [[a, aDims] as const, [b, bDims] as const]) {
    for (let axis = 0; axis < dims.length - 2; axis++) {
      const yAxis = axis + yDims.length - dims.length;
      if (dims[axis] === yDims[yAxis] && dims[axis]! > 1) labels.tieAxes(x, axis, y, yAxis);
    }
  }
  return true;
};

/** Channels on axis 1, with a vector for each of the other inputs. */
const channelNormalization: Relation = (labels, node) => {
  tieSame(labels, node.inputs[0]!, node.outputs[0]!);
  tieVectors(labels, node.outputs[0]!, 1, node.inputs.slice(1));
  return true;
};

/** Over the last axis, which has a scale and a bias for each element. */
const lastAxisNormalization: Relation = (labels, node) => {
  const y = node.outputs[0]!;
  const last = labels.dims(y).length - 1;
  const axis = node.int("axis", -1);
  if (axis !== -1 && axis !== last) return false;
  tieSame(labels, node.inputs[0]!, y);
  tieVectors(labels, y, last, node.inputs.slice(1));
  return true;
};

/** Samples and channels stay, positions are pooled. */
const pooled: Relation = (labels, node) => {
  for (const axis of [0, 1]) labels.tieAxes(node.inputs[0]!, axis, node.outputs[0]!, axis);
  return true;
};

const softmax: Relation = (labels, node) => {
  const x = node.inputs[0]!;
  const rank = labels.dims(x).length;
  tieSame(labels, x, node.outputs[0]!);
  const axis = node.int("axis", node.graph.model.opset < 13 ? 1 : -1);
  labels.pinAxis(x, axis < 0 ? axis + rank : axis);
  return true;
};

/** Axes that are summed over may shrink; the others are those of the result. */
const reduction: Relation = (labels, node) => {
  const [x, y] = [node.inputs[0]!, node.outputs[0]!];
  const rank = labels.dims(x).length;
  const given = node.ints("axes") ?? (node.inputs[1]?.constant && integersOf(node.inputs[1].constant));
  if (!given && node.inputs[1]) return false;
  const reduced = new Set((given ?? Array.from({ length: rank }, (_, i) => i)).map((axis) => (axis + rank) % rank));
  const kept = node.int("keepdims", 1) === 1;
  let at = 0;
  for (let axis = 0; axis < rank; axis++) {
    if (reduced.has(axis)) at += kept ? 1 : 0;
    else labels.tieAxes(x, axis, y, at++);
  }
  return true;
};

const transpose: Relation = (labels, node) => {
  const [x, y] = [node.inputs[0]!, node.outputs[0]!];
  const rank = labels.dims(x).length;
  const perm = node.ints(
    "perm",
    Array.from({ length: rank }, (_, i) => rank - 1 - i),
  );
  perm.forEach((from, to) => {
    labels.tieAxes(x, from, y, to);
  });
  return true;
};

/**
 * Axes are merged and split: where a run of input axes and a run of output axes have the same number of elements, the outermost axis of the
 * longer run is made of whole stretches of the other's only axis. Inner axes cannot lose single indices.
 */
const reshape: Relation = (labels, node) => {
  const [x, y] = [node.inputs[0]!, node.outputs[0]!];
  // A target that is computed may hold sizes that nobody would correct.
  if (node.opType === "Reshape" && node.inputs[1] && !node.inputs[1].constant) return false;
  for (const { from, to } of runsOfAxes(labels.dims(x), labels.dims(y))) {
    if (from.length === 0 || to.length === 0) continue;
    const [single, several, one, many] = from.length === 1 ? [from[0]!, to, x, y] : [to[0]!, from, y, x];
    if (from.length > 1 && to.length > 1) {
      for (const axis of from) labels.pinAxis(x, axis);
      for (const axis of to) labels.pinAxis(y, axis);
      continue;
    }
    const [outer, ...inner] = several as [number, ...number[]];
    const stretch = elementCount(inner.map((axis) => labels.dims(many)[axis]!));
    const size = labels.dims(one)[single]!;
    for (let i = 0; i < size; i++) labels.tie(one, single, i, many, outer, Math.floor(i / stretch));
    for (const axis of inner) labels.pinAxis(many, axis);
  }
  return true;
};

/** Cuts two shapes of one size into the shortest runs of axes with equal numbers of elements; axes of size 1 are left out. */
export function runsOfAxes(
  from: readonly number[],
  to: readonly number[],
): readonly { readonly from: readonly number[]; readonly to: readonly number[] }[] {
  const runs: { from: number[]; to: number[] }[] = [];
  const real = (dims: readonly number[]) => dims.flatMap((dim, axis) => (dim === 1 ? [] : [axis]));
  const [a, b] = [real(from), real(to)];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    const run = { from: [] as number[], to: [] as number[] };
    let [x, y] = [1, 1];
    do {
      if (x <= y && i < a.length) {
        x *= from[a[i]!]!;
        run.from.push(a[i++]!);
      } else {
        y *= to[b[j]!]!;
        run.to.push(b[j++]!);
      }
    } while (x !== y);
    runs.push(run);
  }
  return runs;
}

const concat: Relation = (labels, node) => {
  const y = node.outputs[0]!;
  const rank = labels.dims(y).length;
  const axis = (node.int("axis", 0) + rank) % rank;
  let start = 0;
  for (const x of node.inputs) {
    if (!x) return false;
    tieSame(labels, x, y, [axis]);
    const size = labels.dims(x)[axis]!;
    for (let i = 0; i < size; i++) labels.tie(x, axis, i, y, axis, start + i);
    start += size;
  }
  return true;
};

/** Concatenation backwards: the outputs have stretches of the input's axis, one after the other. */
const split: Relation = (labels, node) => {
  const x = node.inputs[0]!;
  // Sizes that are computed cannot be corrected.
  if (node.inputs[1] && !node.inputs[1].constant) return false;
  const axis = splitAxis(node, labels.dims(x).length);
  let start = 0;
  for (const y of node.outputs) {
    tieSame(labels, x, y, [axis]);
    const size = labels.dims(y)[axis]!;
    for (let i = 0; i < size; i++) labels.tie(x, axis, start + i, y, axis, i);
    start += size;
  }
  return true;
};

export const splitAxis = (node: Node, rank: number) => (node.int("axis", 0) + rank) % rank;

/** Elements along one axis are picked by numbers: that axis stays as it is, and so do the axes of the numbers. */
const picked: Relation = (labels, node) => {
  const [x, y] = [node.inputs[0]!, node.outputs[0]!];
  const rank = labels.dims(x).length;
  const axis = (node.int("axis", 0) + rank) % rank;
  const added = labels.dims(y).length - rank;
  labels.pinAxis(x, axis);
  for (let a = axis; a <= axis + added; a++) labels.pinAxis(y, a);
  for (let a = 0; a < rank; a++) if (a !== axis) labels.tieAxes(x, a, y, a < axis ? a : a + added);
  return true;
};

/** Only axes that keep their size are related; Resize by sizes names the number of channels, which pins it. */
const resized: Relation = (labels, node) => {
  if (node.inputs[3]) return false;
  tieSame(labels, node.inputs[0]!, node.outputs[0]!);
  return true;
};

const nothing: Relation = () => true;

const RELATIONS: Readonly<Record<ChannelRelation, Relation>> = {
  elementwise,
  unary,
  reduction,
  pooling: pooled,
  reshape,
  convolution: conv,
  "transposed convolution": convTranspose,
  gemm,
  "matrix product": matMul,
  "channel normalization": channelNormalization,
  "last axis normalization": lastAxisNormalization,
  softmax,
  transpose,
  concatenation: concat,
  split,
  "selection along an axis": picked,
  resize: resized,
  none: nothing,
};

/** Ties what the nodes of a graph relate, and pins inputs, outputs and everything that an unknown operator touches. */
export function relateChannels(labels: ChannelLabels, nodes: readonly Node[], fixed: readonly Value[]): void {
  for (const value of fixed) labels.pin(value);
  for (const node of nodes) {
    const relation = operatorOf(node)?.channels;
    if (relation && RELATIONS[relation](labels, node)) continue;
    const inner = node
      .bodies()
      .flatMap((body) => [...body.walk()].flatMap((graph) => graph.nodes.flatMap(({ inputs }) => inputs)));
    for (const value of [...node.inputs, ...node.outputs, ...inner]) if (value && value.name !== "") labels.pin(value);
  }
}
