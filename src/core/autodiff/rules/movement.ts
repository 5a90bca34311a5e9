/** Operators that only move elements: the gradient moves back, and what was read several times is summed. */

import {
  dimsOf,
  type GraphBuilder,
  int,
  integerInput,
  normalAxes,
  range,
  string,
  sumTo,
} from "../../onnx/graph-builder.ts";
import type { Node, Value } from "../../onnx/ir.ts";
import { elementCount } from "../../onnx/tensor.ts";
import type { OpType } from "../../operators/operators.ts";
import type { GradientRule } from "./gradient-rule.ts";

/** The elements stay in order: the gradient takes the input's shape. */
const reshaped: GradientRule = {
  backward: (g, node, [d]) => [g.reshape(d!, dimsOf(node.inputs[0]!))],
};

const transpose: GradientRule = {
  backward: (g, node, [d]) => {
    const rank = dimsOf(node.inputs[0]!).length;
    const perm = node.ints("perm", range(rank).reverse());
    return [
      g.transpose(
        d!,
        range(rank).map((axis) => perm.indexOf(axis)),
      ),
    ];
  },
};

function axisOf(node: Node, name: string, fallback: number, rank: number): number {
  return normalAxes([node.int(name, fallback)], rank)[0]!;
}

const concat: GradientRule = {
  backward: (g, node, [d], wanted) => {
    const shapes = node.inputs.map((input) => dimsOf(input!));
    const axis = axisOf(node, "axis", 0, shapes[0]!.length);
    const sizes = shapes.map((dims) => dims[axis]!);
    if (wanted.every(Boolean)) return g.split(d!, axis, sizes);
    let start = 0;
    return sizes.map((size, i) => {
      const from = start;
      start += size;
      return wanted[i] ? g.slice(d!, [axis], [from], [start]) : undefined;
    });
  },
};

const split: GradientRule = {
  backward: (g, node, dy) => {
    const axis = axisOf(node, "axis", 0, dimsOf(node.inputs[0]!).length);
    const like = dy.find((d) => d !== undefined)!;
    return [
      g.concat(
        node.outputs.map((y, i) => dy[i] ?? g.full(dimsOf(y), 0, like)),
        axis,
      ),
    ];
  },
};

/** Each axis on its own: reversed where it was read backwards, zeros between where it was read with a step, zeros around. */
const slice: GradientRule = {
  backward: (g, node, [dy]) => {
    const x = dimsOf(node.inputs[0]!);
    const y = dimsOf(node.outputs[0]!);
    const starts = integerInput(node, 1)!;
    const axes = normalAxes(integerInput(node, 3) ?? range(starts.length), x.length);
    const steps = integerInput(node, 4) ?? starts.map(() => 1);
    const backwards = axes.filter((_, i) => steps[i]! < 0);
    let d = g.flip(dy!, backwards);
    const before: number[] = Array(x.length).fill(0);
    const after: number[] = Array(x.length).fill(0);
    const dims = [...y];
    axes.forEach((axis, i) => {
      const [size, count, step] = [x[axis]!, y[axis]!, Math.abs(steps[i]!)];
      const given = starts[i]! < 0 ? starts[i]! + size : starts[i]!;
      const start = Math.min(Math.max(given, 0), steps[i]! < 0 ? size - 1 : size);
      const first = steps[i]! < 0 ? start - (count - 1) * step : start;
      if (step > 1) {
        const spaced = g.unsqueeze(d, [axis + 1]);
        d = g.pad(
          spaced,
          Array(x.length + 1).fill(0),
          range(x.length + 1).map((a) => (a === axis + 1 ? step - 1 : 0)),
        );
        dims[axis] = count * step;
        d = g.reshape(d, dims);
      }
      before[axis] = first;
      after[axis] = size - first - dims[axis]!;
    });
    return [g.pad(d, before, after)];
  },
};

/** Rows are added where they were read from; a single constant index is a slice. */
const gather: GradientRule = {
  backward: (g, node, [dy]) => {
    const x = dimsOf(node.inputs[0]!);
    const axis = axisOf(node, "axis", 0, x.length);
    const indices = node.inputs[1]!;
    const indexDims = dimsOf(indices);
    const single = indices.constant && elementCount(indexDims) === 1 ? integerInput(node, 1)![0]! : undefined;
    const rows = elementCount(indexDims);
    const outer = x.slice(0, axis);
    const inner = x.slice(axis + 1);
    const d = g.reshape(dy!, [...outer, rows, ...inner]);
    if (single !== undefined) {
      const at = single < 0 ? single + x[axis]! : single;
      const pads = (count: number) => x.map((_, i) => (i === axis ? count : 0));
      return [g.pad(d, pads(at), pads(x[axis]! - at - 1))];
    }
    // The gathered axis first, then every index adds its row: [rows, outer, inner] into [size, outer, inner].
    const forth = [axis, ...range(axis), ...range(inner.length).map((i) => axis + 1 + i)];
    const moved = g.transpose(d, forth);
    const sum = sumOfRows(g, moved, wholeNumbers(g, indices), [x[axis]!, ...outer, ...inner]);
    return [
      g.transpose(
        sum,
        range(x.length).map((i) => forth.indexOf(i)),
      ),
    ];
  },
};

/**
 * Zeros of `dims` to which each of `rows` is added at its index. ScatterND would be several times as fast, and is wrong with more threads than one
 * (onnxruntime 1.30): they add to a row that has several indices at the same time, and one of the sums is lost.
 */
function sumOfRows(g: GraphBuilder, rows: Value, indices: Value, dims: readonly number[]): Value {
  const [size = 0, ...inner] = dims;
  const width = elementCount(inner);
  const updates = g.reshape(rows, [-1, width]);
  const places = g.expand(g.reshape(indices, [-1, 1]), [1, width]);
  const attrs = { axis: int(0), reduction: string("add") };
  return g.reshape(g.op("ScatterElements", [g.full([size, width], 0, rows), places, updates], attrs), dims);
}

/** Indices as int64, which the scatter operators take. */
function wholeNumbers(g: GraphBuilder, indices: Value): Value {
  return indices.dtype === "int64" ? indices : g.cast(indices, "int64");
}

const gatherElements: GradientRule = {
  backward: (g, node, [dy]) => {
    const x = dimsOf(node.inputs[0]!);
    const attrs = { axis: int(node.int("axis", 0)), reduction: string("add") };
    return [g.op("ScatterElements", [g.full(x, 0, dy!), node.inputs[1], dy], attrs)];
  },
};

/** The second output says where each of the largest elements was. */
const topK: GradientRule = {
  backward: (g, node, [dy]) => {
    if (!dy) return [];
    return [
      g.op("ScatterElements", [g.full(dimsOf(node.inputs[0]!), 0, dy), node.outputs[1], dy], {
        axis: int(node.int("axis", -1)),
      }),
    ];
  },
};

const gatherND: GradientRule = {
  refuses: (node) => (node.int("batch_dims", 0) > 0 ? "batch_dims" : undefined),
  backward: (g, node, [dy]) => {
    const x = dimsOf(node.inputs[0]!);
    const depth = dimsOf(node.inputs[1]!).at(-1)!;
    const read = x.slice(0, depth);
    const given = wholeNumbers(g, node.inputs[1]!);
    const sizes = g.constant("int64", [depth], read);
    const indices = g.where(g.op("Less", [given, g.scalar(0, given)]), g.add(given, sizes), given);
    const strides = g.constant(
      "int64",
      [depth],
      read.map((_, i) => elementCount(read.slice(i + 1))),
    );
    const rows = g.sum(g.mul(indices, strides), [-1], false);
    return [g.reshape(sumOfRows(g, dy!, rows, [elementCount(read), ...x.slice(depth)]), x)];
  },
};

const expand: GradientRule = {
  backward: (g, node, [dy]) => [sumTo(g, dy!, dimsOf(node.outputs[0]!), dimsOf(node.inputs[0]!))],
};

/** The repeats of each axis stand side by side, and are summed. */
const tile: GradientRule = {
  backward: (g, node, [dy]) => {
    const x = dimsOf(node.inputs[0]!);
    const repeats = integerInput(node, 1)!;
    const repeated = range(x.length).filter((i) => repeats[i] !== 1);
    if (repeated.length === 0) return [dy];
    const apart = x.flatMap((dim, i) => (repeats[i] === 1 ? [dim] : [repeats[i]!, dim]));
    let position = 0;
    const axes = x.flatMap((_, i) => {
      const at = position;
      position += repeats[i] === 1 ? 1 : 2;
      return repeats[i] === 1 ? [] : [at];
    });
    return [g.sum(g.reshape(dy!, apart), axes, false)];
  },
};

/** [N, C, H, W] to blocks and back; `mode` says whether the block position is the slower (DCR) or the faster (CRD) part of a channel. */
const depthToSpace: GradientRule = {
  backward: (g, node, [dy]) => {
    const [n, c, h, w] = dimsOf(node.inputs[0]!) as [number, number, number, number];
    const b = node.int("blocksize")!;
    const apart = g.reshape(dy!, [n, c / (b * b), h, b, w, b]);
    const perm = node.string("mode", "DCR") === "DCR" ? [0, 3, 5, 1, 2, 4] : [0, 1, 3, 5, 2, 4];
    return [g.reshape(g.transpose(apart, perm), [n, c, h, w])];
  },
};

const spaceToDepth: GradientRule = {
  backward: (g, node, [dy]) => [g.op("DepthToSpace", [dy], { blocksize: int(node.int("blocksize")!) })],
};

export const MOVEMENT = {
  Reshape: reshaped,
  Squeeze: reshaped,
  Unsqueeze: reshaped,
  Flatten: reshaped,
  Transpose: transpose,
  Concat: concat,
  Split: split,
  Slice: slice,
  Gather: gather,
  GatherElements: gatherElements,
  GatherND: gatherND,
  TopK: topK,
  Expand: expand,
  Tile: tile,
  DepthToSpace: depthToSpace,
  SpaceToDepth: spaceToDepth,
} as const satisfies Partial<Record<OpType, GradientRule>>;
