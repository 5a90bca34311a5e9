/** What bodies of If, Loop and Scan read of the graph around them, where it comes out of a DequantizeLinear. */
import type { Graph, Model, Node, Value } from "../../onnx/ir.ts";
import { ruleFor } from "./operators.ts";

/**
 * Lets bodies read codes of what only moves dequantized values (a Transpose behind a DequantizeLinear), which is exact: moved codes are the codes of
 * moved values. Left as it is, it aborts onnxruntime 1.30 when that loads the model: it puts a pair of its own behind such a node
 * (QDQPropagationTransformer), and looks for the reader among the inputs of the If, where what bodies read of the graph around them is not.
 */
export function giveBodiesCodes(model: Model): void {
  for (const graph of model.graphs()) {
    for (const node of [...graph.nodes]) {
      if (node.opType !== "DequantizeLinear" || node.inputs[0]!.constant) continue;
      for (const moved of movedFrom(node.outputs[0]!)) giveCodes(moved, node);
    }
  }
}

/** What movements make of a value in its own graph, through any number of them. */
function movedFrom(value: Value): ReadonlySet<Value> {
  const found = new Set<Value>();
  follow(value);
  // A set is walked to what is added meanwhile.
  for (const from of found) follow(from);
  return found;

  function follow(from: Value): void {
    for (const { node } of from.uses) {
      const rule = ruleFor(node);
      // What is refused makes other values of them: a Resize that interpolates.
      if (node.graph !== from.graph || rule?.kind !== "movement" || rule.refuse?.(node)) continue;
      for (const output of node.outputs) found.add(output);
    }
  }
}

/** Lets bodies read `moved` as `dequantize` makes it of its codes. */
function giveCodes(moved: Value, dequantize: Node): void {
  const { graph } = moved;
  const inBodies = moved.uses.filter(({ node }) => node.graph !== graph);
  if (inBodies.length === 0) return;
  const { model } = graph;
  const [, scale, zeroPoint] = dequantize.inputs;
  const [codes] = graph.insertAfter(moved.producer!, {
    opType: "QuantizeLinear",
    inputs: [moved, scale, zeroPoint],
    outputs: [model.freshName("q")],
  }).outputs;
  const made = new Map<Graph, Value>();
  for (const { node, index } of inBodies) {
    const body = node.graph;
    const value =
      made.get(body) ??
      body.prepend({
        opType: "DequantizeLinear",
        inputs: [codes, scale, zeroPoint],
        outputs: [model.freshName("d")],
      }).outputs[0]!;
    made.set(body, value);
    node.setInput(index, value);
  }
}
