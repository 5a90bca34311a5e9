/**
 * The element type of every value, as far as it follows from the types of inputs and constants: files need not declare it, and bodies of
 * If rarely do. A type that is not found out is undefined, never guessed.
 */
import { type DType, dtypeOfOnnx } from "../onnx/dtype.ts";
import type { Graph, Model, Node, Value } from "../onnx/ir.ts";
import type { ResultType, TypeOf } from "../operators/operator-record.ts";
import { operatorOf } from "../operators/operators.ts";

export type DTypes = ReadonlyMap<Value, DType>;

/** What an operator gives out where its record says nothing else. */
const OF_FIRST_INPUT: readonly ResultType[] = [0];

/** Types of all values of all graphs of a model. */
export function inferDTypes(model: Model): DTypes {
  const types = new Map<Value, DType>();
  const typeOf = (value: Value | undefined) => value && (types.get(value) ?? value.dtype);
  const set = (value: Value | undefined, dtype: DType | undefined) => {
    const known = value?.dtype ?? dtype;
    if (value && known) types.set(value, known);
  };
  const visit = (graph: Graph): void => {
    for (const value of graph.initializers) set(value, undefined);
    for (const value of graph.inputs) set(value, undefined);
    for (const node of graph.nodes) {
      for (const body of node.bodies()) {
        for (const [inner, outer] of bodyInputs(node, body)) set(inner, typeOf(outer));
        visit(body);
      }
      node.outputs.forEach((value, i) => {
        set(value, outputType(node, i, typeOf));
      });
    }
  };
  visit(model.graph);
  return types;
}

/** The type of an output, as far as `typeOf` its inputs tells. */
export function outputType(node: Node, index: number, typeOf: TypeOf): DType | undefined {
  const [body] = node.bodies();
  if (body) return typeOf(body.outputs[index + bodyOutputOffset(node)]);
  const record = operatorOf(node);
  // Of ai.onnx the versions to come may have operators that nothing here knows; what other domains have can be anything.
  if (!record && node.domain !== "") return undefined;
  const rules = record?.results ?? OF_FIRST_INPUT;
  const rule = rules[Math.min(index, rules.length - 1)]!;
  if (typeof rule === "number") return typeOf(node.inputs[rule]);
  if (typeof rule === "string") return rule;
  if (typeof rule === "function") return rule(node, typeOf);
  const named = node.int(rule.attribute);
  return named === undefined ? (rule.otherwise ?? typeOf(node.inputs[0])) : dtypeOfOnnx(named);
}

/** What a body's inputs are given by the node that runs it, as pairs (inside, outside). */
export function bodyInputs(node: Node, body: Graph): [Value, Value | undefined][] {
  // Loop: trip count and condition come from the loop itself; then what is carried. Scan: states, then slices of the scanned inputs;
  // before opset 9 the lengths of the sequences came first.
  const own = body.inputs.filter(({ constant }) => !constant);
  if (node.opType === "Loop") return own.slice(2).map((value, i) => [value, node.inputs[2 + i]]);
  const offset = node.graph.model.opset < 9 ? 1 : 0;
  return own.map((value, i) => [value, node.inputs[offset + i]]);
}

/** Output i of the node is output i + offset of its body: a Loop's condition stays inside. */
export function bodyOutputOffset(node: Node): number {
  return node.opType === "Loop" ? 1 : 0;
}
