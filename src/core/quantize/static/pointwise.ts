/**
 * What becomes of a value before anything else than pointwise arithmetic reads it. A swish behind a convolution, say, forgets most of what is
 * below −3: the convolution's range need not hold it.
 */
import type { Node, Value } from "../../onnx/ir.ts";
import { scalarOf } from "./operators.ts";

export type PointwiseFunction = (x: number) => number;

type Build = (node: Node, inputs: readonly PointwiseFunction[]) => PointwiseFunction;

const unary =
  (f: (x: number, node: Node) => number): Build =>
  (node, [x]) =>
  (v) =>
    f(x!(v), node);
const binary =
  (f: (a: number, b: number) => number): Build =>
  (_, [a, b]) =>
  (v) =>
    f(a!(v), b!(v));

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const hardSigmoid = (x: number, alpha: number, beta: number) => Math.min(Math.max(alpha * x + beta, 0), 1);

const FUNCTIONS: Readonly<Record<string, Build>> = {
  Identity: unary((x) => x),
  Relu: unary((x) => Math.max(x, 0)),
  LeakyRelu: unary((x, node) => (x < 0 ? node.float("alpha", 0.01) * x : x)),
  Clip:
    (_, [x, low, high]) =>
    (v) =>
      Math.min(Math.max(x!(v), low?.(v) ?? -Infinity), high?.(v) ?? Infinity),
  Sigmoid: unary(sigmoid),
  HardSigmoid: unary((x, node) => hardSigmoid(x, node.float("alpha", 0.2), node.float("beta", 0.5))),
  HardSwish: unary((x) => x * hardSigmoid(x, 1 / 6, 0.5)),
  Tanh: unary(Math.tanh),
  Exp: unary(Math.exp),
  Neg: unary((x) => -x),
  Abs: unary(Math.abs),
  Add: binary((a, b) => a + b),
  Sub: binary((a, b) => a - b),
  Mul: binary((a, b) => a * b),
  Div: binary((a, b) => a / b),
};

/**
 * The function of `value` that the rest of the graph sees, when it sees nothing else: all paths from the value lead through pointwise
 * operators to a single value. Undefined when something reads the value itself, or several functions of it.
 */
export function pointwiseFunction(value: Value): PointwiseFunction | undefined {
  const known = new Map<Value, PointwiseFunction>([[value, (x) => x]]);
  const inside = new Set<Node>();
  // A node comes in once everything it reads is known; a value with several readers may have to wait for the longer path.
  for (let grown = true; grown; ) {
    grown = false;
    for (const reader of [...known.keys()].flatMap(({ uses }) => uses.map(({ node }) => node))) {
      if (inside.has(reader) || reader.graph !== value.graph || reader.domain !== "") continue;
      const build = FUNCTIONS[reader.opType];
      const inputs = reader.inputs.map((input) => input && functionOf(input, known));
      if (!build || reader.inputs.some((input, i) => input && !inputs[i])) continue;
      known.set(reader.outputs[0]!, build(reader, inputs as PointwiseFunction[]));
      inside.add(reader);
      grown = true;
    }
  }
  const exits = [...known.keys()].filter(
    (candidate) => candidate.isGraphOutput || candidate.uses.some(({ node }) => !inside.has(node)),
  );
  const [exit, other] = exits;
  return exit && !other && exit !== value ? known.get(exit) : undefined;
}

function functionOf(input: Value, known: ReadonlyMap<Value, PointwiseFunction>): PointwiseFunction | undefined {
  const number = scalarOf(input);
  return number === undefined ? known.get(input) : () => number;
}
