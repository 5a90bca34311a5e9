/**
 * Elementwise operators, y = f(x). Gradients of binary and n-ary ones have the shape of y; the walk sums over broadcast axes.
 * At a kink (Relu at 0, Clip at a bound) the derivative is one of the two sides.
 */

import { dimsOf, float, type GraphBuilder, int, sumTo } from "../../onnx/graph-builder.ts";
import type { Node, Value } from "../../onnx/ir.ts";
import { type OpType, parameterOf } from "../../operators/operators.ts";
import type { GradientRule } from "./gradient-rule.ts";

/** x and y are the operator's input and output, d is dL/dy. */
type Unary = (g: GraphBuilder, v: { readonly x: Value; readonly y: Value; readonly d: Value }, node: Node) => Value;

function unary(derive: Unary): GradientRule {
  return { backward: (g, node, [d]) => [derive(g, { x: node.inputs[0]!, y: node.outputs[0]!, d: d! }, node)] };
}

type Binary = (
  g: GraphBuilder,
  v: { readonly a: Value; readonly b: Value; readonly y: Value; readonly d: Value },
) => Value;

function binary(first: Binary, second: Binary): GradientRule {
  return {
    broadcasts: true,
    backward: (g, node, [d], wanted) => {
      const v = { a: node.inputs[0]!, b: node.inputs[1]!, y: node.outputs[0]!, d: d! };
      return [wanted[0] ? first(g, v) : undefined, wanted[1] ? second(g, v) : undefined];
    },
  };
}

/** d · [c]: what passes through where the condition holds. */
function masked(g: GraphBuilder, d: Value, condition: Value): Value {
  return g.mul(d, g.indicator(condition, d));
}

/**
 * 1 where x is above 0, else 0. In float32 it is clip(x·2¹²⁷, 0, 1): one pass, which threads share, where a comparison and a Cast are two, and Cast takes
 * one thread. The product is at least 1 for all but subnormal numbers below 2⁻¹²⁷.
 */
function positive(g: GraphBuilder, x: Value): Value {
  if (x.dtype !== "float32") return g.indicator(g.greater(x, 0), x);
  return g.op("HardSigmoid", [x], { alpha: float(2 ** 127), beta: float(0) });
}

/** a / b: da = d / b, and db = −Σ d·y / b, summed before it is divided where b is smaller than y. */
const quotient: GradientRule = {
  backward: (g, node, [d], wanted) => {
    const [a, b] = [node.inputs[0]!, node.inputs[1]!];
    const y = node.outputs[0]!;
    const sum = (value: Value, to: Value) => sumTo(g, value, dimsOf(y), dimsOf(to));
    return [
      wanted[0] ? sum(g.div(d!, b), a) : undefined,
      wanted[1] ? g.neg(g.div(sum(g.mul(d!, y), b), b)) : undefined,
    ];
  },
};

/** Max and Min: the gradient goes to the first of the inputs that equal the result. */
const extremum: GradientRule = {
  broadcasts: true,
  backward: (g, node, [d], wanted) => {
    const y = node.outputs[0]!;
    let taken: Value | undefined;
    return node.inputs.map((x, i) => {
      const equal = g.equal(x!, y);
      const chosen = taken ? g.op("And", [equal, g.op("Not", [taken])]) : equal;
      taken = taken ? g.op("Or", [taken, equal]) : equal;
      return wanted[i] ? masked(g, d!, chosen) : undefined;
    });
  },
};

/** dy · p · x^(p − 1) with the common exponents spelled out, and dy · y · ln x for the exponent. */
const pow: GradientRule = binary(
  (g, { a, b, d }) => {
    const p = b.constant && b.constant.dims.length === 0 ? exponentOf(b) : undefined;
    if (p === 2) return g.mul(d, g.mul(a, 2));
    if (p === 3) return g.mul(d, g.mul(g.square(a), 3));
    return g.mul(d, g.mul(b, g.pow(a, g.sub(b, 1))));
  },
  (g, { a, y, d }) => g.mul(d, g.mul(y, g.log(a))),
);

function exponentOf(value: Value): number | undefined {
  const { bytes, dtype } = value.constant!;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (dtype === "float32") return view.getFloat32(0, true);
  return dtype === "float64" ? view.getFloat64(0, true) : undefined;
}

const LOG_INV_SQRT_2PI = -0.5 * Math.log(2 * Math.PI);

/** Φ(x) + x·φ(x) for the exact form; for the tanh form u = √(2/π)(x + 0.044715x³): ½(1 + tanh u) + ½x(1 − tanh² u)u'. */
const gelu = unary((g, { x, d }, node) => {
  if (node.string("approximate", "none") === "tanh") {
    const c = Math.sqrt(2 / Math.PI);
    const squared = g.square(x);
    const t = g.op("Tanh", [g.mul(g.mul(x, c), g.add(g.mul(squared, 0.044715), 1))]);
    const slope = g.add(g.mul(squared, 3 * 0.044715 * c), c);
    const half = g.mul(g.add(t, 1), 0.5);
    return g.mul(d, g.add(half, g.mul(g.mul(g.mul(x, 0.5), g.sub(1, g.square(t))), slope)));
  }
  const s = g.mul(x, Math.SQRT1_2);
  // One pass each: ½erf + ½, whose bounds are never met, and φ(x) with its factor inside the exponential.
  const cdf = g.op("HardSigmoid", [g.op("Erf", [s])], { alpha: float(0.5), beta: float(0.5) });
  const density = g.exp(g.sub(LOG_INV_SQRT_2PI, g.mul(s, s)));
  return g.mul(d, g.add(cdf, g.mul(x, density)));
});

export const ELEMENTWISE = {
  Identity: unary((_g, { d }) => d),
  Neg: unary((g, { d }) => g.neg(d)),
  Abs: unary((g, { x, d }) => g.mul(d, g.op("Sign", [x]))),
  Exp: unary((g, { y, d }) => g.mul(d, y)),
  Log: unary((g, { x, d }) => g.div(d, x)),
  Sqrt: unary((g, { y, d }) => g.div(g.mul(d, 0.5), y)),
  Reciprocal: unary((g, { y, d }) => g.neg(g.mul(d, g.square(y)))),
  Sin: unary((g, { x, d }) => g.mul(d, g.op("Cos", [x]))),
  Cos: unary((g, { x, d }) => g.neg(g.mul(d, g.op("Sin", [x])))),
  Erf: unary((g, { x, d }) => g.mul(d, g.mul(g.exp(g.neg(g.square(x))), 2 / Math.sqrt(Math.PI)))),
  Relu: unary((g, { y, d }) => g.mul(d, positive(g, y))),
  LeakyRelu: unary((g, { x, d }, node) => g.where(g.greater(x, 0), d, g.mul(d, parameterOf(node, "alpha")))),
  Elu: unary((g, { x, y, d }, node) => g.where(g.greater(x, 0), d, g.mul(d, g.add(y, parameterOf(node, "alpha"))))),
  Selu: unary((g, { x, y, d }, node) => {
    const gamma = parameterOf(node, "gamma");
    const scale = parameterOf(node, "alpha") * gamma;
    return g.mul(d, g.where(g.greater(x, 0), gamma, g.add(y, scale)));
  }),
  Sigmoid: unary((g, { y, d }) => g.mul(d, g.mul(y, g.sub(1, y)))),
  Tanh: unary((g, { y, d }) => g.mul(d, g.sub(1, g.square(y)))),
  HardSigmoid: unary((g, { y, d }, node) => {
    const inside = g.op("And", [g.greater(y, 0), g.op("Less", [y, g.scalar(1, y)])]);
    return g.mul(masked(g, d, inside), parameterOf(node, "alpha"));
  }),
  // x·clip(x/6 + ½, 0, 1): 0 below −3, 1 above 3, x/3 + ½ between.
  HardSwish: unary((g, { x, d }) => {
    const inner = g.where(g.greater(x, 3), 1, g.add(g.mul(x, 1 / 3), 0.5));
    return g.mul(d, g.where(g.greater(x, -3), inner, 0));
  }),
  Softplus: unary((g, { x, d }) => g.mul(d, g.op("Sigmoid", [x]))),
  Softsign: unary((g, { x, d }) => g.div(d, g.square(g.add(g.op("Abs", [x]), 1)))),
  Gelu: gelu,
  // tanh(s) + x·σ(x)·(1 − tanh²(s)) with s = softplus(x) and tanh(s) = y / x; written without the division.
  Mish: unary((g, { x, d }) => {
    const t = g.op("Tanh", [g.op("Softplus", [x])]);
    return g.mul(d, g.add(t, g.mul(g.mul(x, g.op("Sigmoid", [x])), g.sub(1, g.square(t)))));
  }),
  // Only what was not cut off is equal to the result.
  Clip: { backward: (g, node, [d]) => [masked(g, d!, g.equal(node.inputs[0]!, node.outputs[0]!))] },
  Cast: unary((g, { x, d }) => g.cast(d, x.dtype === "float64" || x.dtype === "float16" ? x.dtype : "float32")),

  Add: binary(
    (_g, { d }) => d,
    (_g, { d }) => d,
  ),
  Sub: binary(
    (_g, { d }) => d,
    (g, { d }) => g.neg(d),
  ),
  Mul: binary(
    (g, { b, d }) => g.mul(d, b),
    (g, { a, d }) => g.mul(d, a),
  ),
  Div: quotient,
  Pow: pow,
  PRelu: binary(
    (g, { a, b, d }) => g.where(g.greater(a, 0), d, g.mul(d, b)),
    (g, { a, d }) => g.mul(d, g.op("Min", [a, g.scalar(0, a)])),
  ),
  Sum: { broadcasts: true, backward: (_g, node, [d]) => node.inputs.map(() => d) },
  Mean: {
    broadcasts: true,
    backward: (g, node, [d]) => {
      const share = g.mul(d!, 1 / node.inputs.length);
      return node.inputs.map(() => share);
    },
  },
  Max: extremum,
  Min: extremum,
  Where: {
    broadcasts: true,
    backward: (g, node, [d], wanted) => {
      const condition = node.inputs[0]!;
      // Where broadcasts its result, so that a smaller condition still gives a gradient of the shape of y.
      return [
        undefined,
        wanted[1] ? g.where(condition, d!, 0) : undefined,
        wanted[2] ? g.where(condition, 0, d!) : undefined,
      ];
    },
  },
  // Inference graphs carry it as an identity; training replaces it by a product with a mask (`train/step-graph.ts`).
  Dropout: unary((_g, { d }) => d),
  CumSum: {
    refuses: (node) => (node.int("exclusive", 0) === 1 ? "exclusive sums" : undefined),
    backward: (g, node, [d]) => [g.op("CumSum", [d!, node.inputs[1]], { reverse: int(1 - node.int("reverse", 0)) })],
  },
} as const satisfies Partial<Record<OpType, GradientRule>>;
