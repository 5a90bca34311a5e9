/**
 * Straight-through estimators (Bengio, Léonard and Courville 2013): the derivative of rounding is zero almost everywhere, so it is taken to
 * be 1, as if values were not rounded; where a value is clipped it is 0. These rules are not the derivatives of their operators, which
 * finite differences would find, and are marked so.
 *
 *   q = clip(round(x/s) + z, qmin, qmax)      dx = dq/s · [inside],   ds = Σ −dq·x/s² · [inside],   inside: qmin ≤ x/s + z ≤ qmax
 *   y = (q − z)·s                             dq = dy·s,              ds = Σ dy·(q − z)
 *
 * Together, y = s·(clip(round(x/s) + z) − z): dx = dy · [inside], and ds = Σ dy·(round(x/s) − x/s) inside, Σ dy·(q − z) where clipped: the
 * learned step size of LSQ (Esser et al. 2020). Scales have one element, or one for each slice along `axis`; zero points are constant.
 */
import { CoreError } from "../../errors.ts";
import { DTYPES } from "../../onnx/dtype.ts";
import { dimsOf, type GraphBuilder, range } from "../../onnx/graph-builder.ts";
import type { Node, Value } from "../../onnx/ir.ts";
import { elementCount, integersOf } from "../../onnx/tensor.ts";
import type { OpType } from "../../operators/operators.ts";
import type { GradientRule } from "./gradient-rule.ts";

/** The shape of a scale beside values of `dims`; undefined where it has one element and broadcasts as it is. */
function scaleDims(node: Node, dims: readonly number[]): readonly number[] | undefined {
  const count = elementCount(dimsOf(node.inputs[1]!));
  if (count === 1) return undefined;
  const given = node.int("axis", 1);
  const axis = given < 0 ? given + dims.length : given;
  return dims.map((_, i) => (i === axis ? count : 1));
}

function scaleOf(g: GraphBuilder, node: Node, dims: readonly number[]): Value {
  const scale = node.inputs[1]!;
  const beside = scaleDims(node, dims);
  return beside ? g.reshape(scale, beside) : scale;
}

/** Sums a gradient of every element to one of the scale. */
function toScale(g: GraphBuilder, gradient: Value, node: Node, dims: readonly number[]): Value {
  const own = dimsOf(node.inputs[1]!);
  const beside = scaleDims(node, dims);
  const others = range(dims.length).filter((i) => !beside || beside[i] === 1);
  const sum = others.length === 0 ? gradient : g.sum(gradient, others, false);
  return g.reshape(sum, own);
}

function refuses(node: Node): string | undefined {
  if (node.int("block_size", 0) !== 0) return "scales of blocks";
  if (node.inputs[2] && !node.inputs[2].constant) return "a zero point that is computed";
  return undefined;
}

/** The least and the largest x/s that are not clipped: qmin − z and qmax − z, in the shape of the scale. */
function bounds(g: GraphBuilder, node: Node, dims: readonly number[]): readonly [Value, Value] {
  const { dtype } = node.outputs[0]!;
  const { kind, bits } = DTYPES[dtype ?? "uint8"];
  if (kind !== "int" && kind !== "uint") {
    throw new CoreError(
      "unsupported",
      `"${node.label}" (${node.opType}) does not make integers but ${dtype}.`,
      node.label,
    );
  }
  const [low, high] = kind === "int" ? [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] : [0, 2 ** bits - 1];
  const zero = node.inputs[2]?.constant;
  const zeros = zero ? integersOf(zero) : [0];
  const shape = zeros.length === 1 ? [] : (scaleDims(node, dims) ?? []);
  return [low, high].map((bound) =>
    g.constant(
      node.inputs[0]!.dtype === "float64" ? "float64" : "float32",
      shape,
      zeros.map((z) => bound - z),
    ),
  ) as [Value, Value];
}

const quantize: GradientRule = {
  straightThrough: true,
  refuses,
  backward(g, node, [d], wanted) {
    const x = node.inputs[0]!;
    const dims = dimsOf(x);
    const scale = scaleOf(g, node, dims);
    const ratio = g.div(x, scale);
    const [low, high] = bounds(g, node, dims);
    const inside = g.op("And", [g.op("GreaterOrEqual", [ratio, low]), g.op("LessOrEqual", [ratio, high])]);
    const perScale = g.mul(g.div(d!, scale), g.indicator(inside, x));
    return [
      wanted[0] ? perScale : undefined,
      wanted[1] ? toScale(g, g.neg(g.mul(perScale, ratio)), node, dims) : undefined,
    ];
  },
};

const dequantize: GradientRule = {
  straightThrough: true,
  refuses,
  backward(g, node, [d], wanted) {
    const y = node.outputs[0]!;
    const dims = dimsOf(y);
    const scale = scaleOf(g, node, dims);
    return [
      wanted[0] ? g.mul(d!, scale) : undefined,
      wanted[1] ? toScale(g, g.mul(d!, g.div(y, scale)), node, dims) : undefined,
    ];
  },
};

export const ROUNDING: Readonly<Record<string, GradientRule>> = {
  Round: { straightThrough: true, backward: (_g, _node, [d]) => [d] },
  QuantizeLinear: quantize,
  DequantizeLinear: dequantize,
} satisfies Partial<Record<OpType, GradientRule>>;
