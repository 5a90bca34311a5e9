/**
 * Resize and Pad are linear along each axis: y = R₁ ⋯ Rₙ x, where Rᵢ acts on axis i alone. The matrix Rᵢ is what the operator itself
 * makes of an identity matrix; onnxruntime computes it once, when the session is made, so that every interpolation mode is right by
 * construction. The gradient is dx = R₁ᵀ ⋯ Rₙᵀ dy.
 */

import { constantInput, dimsOf, type GraphBuilder, integerInput, normalAxes, range } from "../../onnx/graph-builder.ts";
import type { Node, Value } from "../../onnx/ir.ts";
import { arrayOf } from "../../onnx/tensor.ts";
import type { OpType } from "../../operators/operators.ts";
import type { GradientRule } from "./gradient-rule.ts";

/** Contracts axis `axis` of d (shape `dims`) with the rows of `matrix` [dims[axis], to]. */
function contract(g: GraphBuilder, d: Value, dims: readonly number[], axis: number, matrix: Value): Value {
  const last = dims.length - 1;
  const swapped = range(dims.length).map((i) => (i === axis ? last : i === last ? axis : i));
  return g.transpose(g.matMul(g.transpose(d, swapped), matrix), swapped);
}

function identity(g: GraphBuilder, n: number, like: Value): Value {
  const data = range(n * n).map((i) => (i % (n + 1) === 0 ? 1 : 0));
  return g.constant(like.dtype === "float64" ? "float64" : "float32", [n, n], data);
}

/** Applies the transposed matrices axis by axis; `matrix(axis)` is [output size, input size]. */
function transposedAlong(
  g: GraphBuilder,
  dy: Value,
  x: readonly number[],
  y: readonly number[],
  axes: readonly number[],
  matrix: (axis: number) => Value,
): Value {
  const dims = [...y];
  return axes.reduce((d, axis) => {
    const next = contract(g, d, dims, axis, matrix(axis));
    dims[axis] = x[axis]!;
    return next;
  }, dy);
}

const resize: GradientRule = {
  refuses: (node) => {
    if (node.string("coordinate_transformation_mode", "") === "tf_crop_and_resize") return "cropping while resizing";
    return undefined;
  },
  backward: (g, node, [dy]) => {
    const x = dimsOf(node.inputs[0]!);
    const y = dimsOf(node.outputs[0]!);
    const scales = constantInput(node, 2);
    const named = normalAxes(node.ints("axes", range(x.length)), x.length);
    const given = scales && scales.dims[0] !== 0 ? arrayOf(scales, "float32") : undefined;
    const axes = range(x.length).filter((axis) => x[axis] !== y[axis] || (given?.[named.indexOf(axis)] ?? 1) !== 1);
    const mode = node.string("mode", "nearest");
    const repeats = axes.map((axis) => y[axis]! / x[axis]!);
    const spread =
      mode === "nearest" && repeats.every(Number.isInteger) && isPlainRepeat(node)
        ? sumOfRepeats(g, dy!, x, axes, repeats)
        : undefined;
    if (spread) return [spread];
    const attrs = Object.fromEntries([...node.attrs].filter(([name]) => name !== "axes"));
    return [
      transposedAlong(g, dy!, x, y, axes, (axis) => {
        const n = x[axis]!;
        const image = g.reshape(identity(g, n, dy!), [1, 1, n, n]);
        const scale = given?.[named.indexOf(axis)];
        const target =
          scale !== undefined
            ? [g.constant("float32", [4], [1, 1, scale, 1])]
            : [undefined, g.shape([1, 1, y[axis]!, n])];
        return g.reshape(g.op("Resize", [image, undefined, ...target], attrs), [y[axis]!, n]);
      }),
    ];
  },
};

/** Nearest neighbours of whole-number factors repeat each element where coordinates are mapped without a shift. */
function isPlainRepeat(node: Node): boolean {
  const mapping = node.string("coordinate_transformation_mode", "half_pixel");
  const rounding = node.string("nearest_mode", "round_prefer_floor");
  if (mapping === "asymmetric") return rounding === "floor";
  return mapping.startsWith("half_pixel") && rounding.startsWith("round");
}

function sumOfRepeats(
  g: GraphBuilder,
  dy: Value,
  x: readonly number[],
  axes: readonly number[],
  repeats: readonly number[],
): Value {
  const apart: number[] = [];
  const summed: number[] = [];
  x.forEach((dim, axis) => {
    apart.push(dim);
    const at = axes.indexOf(axis);
    if (at < 0) return;
    summed.push(apart.length);
    apart.push(repeats[at]!);
  });
  return g.sum(g.reshape(dy, apart), summed, false);
}

const pad: GradientRule = {
  backward: (g, node, [dy]) => {
    const x = dimsOf(node.inputs[0]!);
    const y = dimsOf(node.outputs[0]!);
    const pads = integerInput(node, 1)!;
    const named = normalAxes(integerInput(node, 3) ?? range(x.length), x.length);
    const before = range(x.length).map((axis) => (named.includes(axis) ? pads[named.indexOf(axis)]! : 0));
    const after = range(x.length).map((axis) => (named.includes(axis) ? pads[named.indexOf(axis) + named.length]! : 0));
    const mode = node.attrs.get("mode");
    if (node.string("mode", "constant") === "constant" || !mode) {
      return [
        g.pad(
          dy!,
          before.map((count) => -count),
          after.map((count) => -count),
        ),
      ];
    }
    const axes = range(x.length).filter((axis) => before[axis] !== 0 || after[axis] !== 0);
    return [
      transposedAlong(g, dy!, x, y, axes, (axis) => {
        const rows = g.shape([before[axis]!, 0, after[axis]!, 0]);
        return g.op("Pad", [identity(g, x[axis]!, dy!), rows], { mode });
      }),
    ];
  },
};

export const RESAMPLING = { Resize: resize, Pad: pad } as const satisfies Partial<Record<OpType, GradientRule>>;
