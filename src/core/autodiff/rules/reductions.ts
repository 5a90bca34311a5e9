/** Reductions over axes A (n elements each), and Softmax. dy is first given back the reduced axes with size 1. */

import { dimsOf, type GraphBuilder, integerInput, normalAxes, range } from "../../onnx/graph-builder.ts";
import type { Node, Value } from "../../onnx/ir.ts";
import type { OpType } from "../../operators/operators.ts";
import type { GradientRule } from "./gradient-rule.ts";

interface Reduced {
  readonly x: Value;
  /** The result and dL/d(result), both with the reduced axes kept. */
  readonly y: Value;
  readonly d: Value;
  readonly dims: readonly number[];
  readonly axes: readonly number[];
  /** Elements in each sum. */
  readonly n: number;
}

function reduction(derive: (g: GraphBuilder, reduced: Reduced) => Value): GradientRule {
  return {
    backward: (g, node, [dy]) => {
      const x = node.inputs[0]!;
      const dims = dimsOf(x);
      const axes = reducedAxes(node, dims.length);
      const kept = dims.map((dim, axis) => (axes.includes(axis) ? 1 : dim));
      const keep = (value: Value) => (dimsOf(node.outputs[0]!).length === dims.length ? value : g.reshape(value, kept));
      return [
        derive(g, {
          x,
          get y() {
            return keep(node.outputs[0]!);
          },
          d: keep(dy!),
          dims,
          axes,
          n: axes.reduce((count, axis) => count * dims[axis]!, 1),
        }),
      ];
    },
  };
}

function reducedAxes(node: Node, rank: number): readonly number[] {
  const axes = integerInput(node, 1) ?? [];
  if (axes.length > 0) return normalAxes(axes, rank);
  return node.int("noop_with_empty_axes", 0) === 1 ? [] : range(rank);
}

/** Equal shares to all elements that reach the extremum, so that the shares sum to dy. */
const extremum = reduction((g, { x, y, d, axes }) => {
  const reached = g.indicator(g.equal(x, y), d);
  return g.mul(reached, g.div(d, g.sum(reached, axes)));
});

function softmaxAxis(node: Node): number {
  return normalAxes([node.int("axis", -1)], dimsOf(node.inputs[0]!).length)[0]!;
}

/**
 * Where shares go into a product with V and nowhere else, o = y·V and dy = do·Vᵀ, Σ dy ⊙ y is Σ do ⊙ o (Dao et al. 2022): of fewer elements where
 * V has few columns, as in attention. Answers do and o.
 */
function productBehind(node: Node, dy: Value): readonly [Value, Value] | undefined {
  const y = node.outputs[0]!;
  const rank = dimsOf(y).length;
  const [dOut, turned] = dy.producer?.opType === "MatMul" ? dy.producer.inputs : [];
  const v = turned?.producer?.opType === "Transpose" ? turned.producer.inputs[0] : undefined;
  if (!dOut || !v || softmaxAxis(node) !== rank - 1) return undefined;
  const product = y.uses.find(
    ({ node: { opType, inputs } }) => opType === "MatMul" && inputs[0] === y && inputs[1] === v,
  );
  const out = product?.node.outputs[0];
  if (!out || dimsOf(out).length !== rank || dimsOf(out).at(-1)! >= dimsOf(y).at(-1)!) return undefined;
  return [dOut, out];
}

export const REDUCTIONS = {
  ReduceSum: reduction((g, { d, dims }) => g.expand(d, dims)),
  ReduceMean: reduction((g, { d, dims, n }) => g.expand(g.mul(d, 1 / n), dims)),
  ReduceMax: extremum,
  ReduceMin: extremum,
  ReduceSumSquare: reduction((g, { x, d }) => g.mul(x, g.mul(d, 2))),
  ReduceL1: reduction((g, { x, d }) => g.mul(g.op("Sign", [x]), d)),
  ReduceL2: reduction((g, { x, y, d }) => g.mul(x, g.div(d, y))),
  ReduceLogSumExp: reduction((g, { x, y, d }) => g.mul(g.exp(g.sub(x, y)), d)),
  ReduceProd: reduction((g, { x, y, d }) => g.div(g.mul(y, d), x)),
  // y ⊙ (dy − Σ dy ⊙ y)
  Softmax: {
    backward: (g, node, [d]) => {
      const y = node.outputs[0]!;
      const [a, b] = productBehind(node, d!) ?? [d!, y];
      return [g.mul(y, g.sub(d!, g.sum(g.mul(a, b), [softmaxAxis(node)])))];
    },
  },
  // dy − softmax(x) · Σ dy
  LogSoftmax: {
    backward: (g, node, [d]) => [g.sub(d!, g.mul(g.exp(node.outputs[0]!), g.sum(d!, [softmaxAxis(node)])))],
  },
} as const satisfies Partial<Record<OpType, GradientRule>>;
