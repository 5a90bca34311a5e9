/** Pooling. A window's maximum passes the gradient to where it came from; a window's mean gives equal shares. */

import { dimsOf, type GraphBuilder, int, ints, range, string } from "../../onnx/graph-builder.ts";
import type { Node, Value } from "../../onnx/ir.ts";
import { elementCount } from "../../onnx/tensor.ts";
import type { OpType } from "../../operators/operators.ts";
import { type ConvGeometry, convInputGradient, geometryOf } from "./convolution.ts";
import type { GradientRule } from "./gradient-rule.ts";

interface Pool {
  readonly x: readonly number[];
  readonly y: readonly number[];
  readonly geometry: ConvGeometry;
  /** Windows neither overlap nor leave anything out. */
  readonly tiles: boolean;
}

function poolOf(node: Node): Pool {
  const x = dimsOf(node.inputs[0]!);
  const y = dimsOf(node.outputs[0]!);
  const kernel = node.ints("kernel_shape")!;
  const geometry = geometryOf(node, kernel, x.slice(2), y.slice(2));
  const tiles = kernel.every(
    (k, i) => geometry.strides[i] === k && geometry.dilations[i] === 1 && x[i + 2] === k * y[i + 2]!,
  );
  return { x, y, geometry, tiles };
}

/** Repeats every element over its window: [N,C,H,W] to [N,C,H·kh,W·kw]. */
function repeat(g: GraphBuilder, value: Value, { geometry }: Pool): Value {
  const scales = [1, 1, ...geometry.kernel];
  return g.op("Resize", [value, undefined, g.constant("float32", [scales.length], scales)], {
    mode: string("nearest"),
    coordinate_transformation_mode: string("asymmetric"),
    nearest_mode: string("floor"),
  });
}

/**
 * Windows that overlap: onnxruntime gives the flat position of each maximum on demand. Windows that tile the input, which nearly all do:
 * what equals its window's maximum takes an equal share of dy, which needs no indices (`bench/train-kernels.ts`).
 */
const maxPool: GradientRule = {
  refuses: (node) => (node.int("storage_order", 0) === 1 ? "column-major indices" : undefined),
  backward: (g, node, [dy]) => {
    const x = node.inputs[0]!;
    const pool = poolOf(node);
    if (pool.tiles) {
      const reached = g.indicator(g.equal(x, repeat(g, node.outputs[0]!, pool)), dy!);
      const { kernel } = pool.geometry;
      const mean = g.op("AveragePool", [reached], { kernel_shape: ints(kernel), strides: ints(kernel) });
      return [g.mul(reached, repeat(g, g.div(dy!, g.mul(mean, elementCount(kernel))), pool))];
    }
    const indices = node.outputs[1] ?? node.addOutput(`${node.outputs[0]!.name}_indices`, "int64");
    const zeros = g.full([elementCount(pool.x)], 0, dy!);
    const flat = g.op("ScatterElements", [zeros, g.reshape(indices, [-1]), g.reshape(dy!, [-1])], {
      axis: int(0),
      reduction: string("add"),
    });
    return [g.reshape(flat, pool.x)];
  },
};

/** dy over the number of elements in each window, spread back over the windows. */
const averagePool: GradientRule = {
  backward: (g, node, [dy]) => {
    const pool = poolOf(node);
    const { geometry, x, y } = pool;
    if (pool.tiles) return [repeat(g, g.mul(dy!, 1 / elementCount(geometry.kernel)), pool)];
    const shares = g.constant(
      dy!.dtype === "float64" ? "float64" : "float32",
      [1, 1, ...y.slice(2)],
      windowSizes(node, pool).map((size) => 1 / size),
    );
    const channels = x[1]!;
    const ones = g.full([channels, 1, ...geometry.kernel], 1, dy!);
    const { padsAfter } = reachedPads(pool);
    const dims = { x, y, w: [channels, 1, ...geometry.kernel] };
    return [convInputGradient(g, g.mul(dy!, shares), ones, { ...geometry, padsAfter, group: channels }, dims)];
  },
};

/** With `ceil_mode` the last window may reach beyond the padding: the pads that make every window fit. */
function reachedPads({ x, y, geometry }: Pool): { padsAfter: readonly number[] } {
  const { kernel, strides, dilations, padsBefore, padsAfter } = geometry;
  return {
    padsAfter: padsAfter.map((pad, i) => {
      const end = (y[i + 2]! - 1) * strides[i]! + (kernel[i]! - 1) * dilations[i]! + 1;
      return Math.max(pad, end - padsBefore[i]! - x[i + 2]!);
    }),
  };
}

/** How many elements each window averages over, in the order of the output positions. */
function windowSizes(node: Node, { x, y, geometry }: Pool): number[] {
  const { kernel, strides, dilations, padsBefore, padsAfter } = geometry;
  const padded = node.int("count_include_pad", 0) === 1;
  const along = kernel.map((k, i) => {
    const low = padded ? -padsBefore[i]! : 0;
    const high = x[i + 2]! + (padded ? padsAfter[i]! : 0);
    return range(y[i + 2]!).map((o) => {
      const positions = range(k).map((tap) => o * strides[i]! + tap * dilations[i]! - padsBefore[i]!);
      return positions.filter((position) => position >= low && position < high).length;
    });
  });
  return along.reduce<number[]>((sizes, axis) => sizes.flatMap((size) => axis.map((count) => size * count)), [1]);
}

const spatialAxes = (rank: number) => range(rank - 2).map((i) => i + 2);

export const POOLING = {
  MaxPool: maxPool,
  AveragePool: averagePool,
  GlobalAveragePool: {
    backward: (g, node, [dy]) => {
      const x = dimsOf(node.inputs[0]!);
      return [g.expand(g.mul(dy!, 1 / elementCount(x.slice(2))), x)];
    },
  },
  // Equal shares to all elements that reach the maximum.
  GlobalMaxPool: {
    backward: (g, node, [dy]) => {
      const x = node.inputs[0]!;
      const reached = g.indicator(g.equal(x, node.outputs[0]!), dy!);
      return [g.mul(reached, g.div(dy!, g.sum(reached, spatialAxes(dimsOf(x).length))))];
    },
  },
} as const satisfies Partial<Record<OpType, GradientRule>>;
