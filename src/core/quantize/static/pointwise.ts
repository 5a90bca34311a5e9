/**
 * What becomes of a value before anything else than pointwise arithmetic reads it. A swish behind a convolution, say, forgets most of what is
 * below −3: the convolution's range need not hold it.
 */
import type { Node, Value } from "../../onnx/ir.ts";
import { operatorOf } from "../../operators/operators.ts";
import { scalarOf } from "./operators.ts";

export type PointwiseFunction = (x: number) => number;

/** A node as a function of the one number that its inputs are functions of; undefined where it is not pointwise. */
function composed(node: Node, inputs: readonly (PointwiseFunction | undefined)[]): PointwiseFunction | undefined {
  const f = operatorOf(node)?.pointwise?.(node);
  const [a, b, ...others] = inputs;
  if (!f || !a) return undefined;
  if (!b && others.length === 0) return (x) => f(a(x));
  if (b && others.length === 0) return (x) => f(a(x), b(x));
  // An optional input that is not there is undefined, as the record says.
  return (x) => f(...(inputs.map((input) => input?.(x)) as number[]));
}

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
      if (inside.has(reader) || reader.graph !== value.graph) continue;
      const inputs = reader.inputs.map((input) => input && functionOf(input, known));
      if (reader.inputs.some((input, i) => input && !inputs[i])) continue;
      const becomes = composed(reader, inputs);
      if (!becomes) continue;
      known.set(reader.outputs[0]!, becomes);
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
