/** Values, markers and scales in the graph of a quantization-aware training, by their names. */
import { CoreError } from "../errors.ts";
import type { Model, Node, Value } from "../onnx/ir.ts";
import { elementCount } from "../onnx/tensor.ts";

export function valueNamed(graph: Model["graph"], name: string): Value {
  const value =
    graph.inputs.find((it) => it.name === name) ??
    [...graph.initializers].find((it) => it.name === name) ??
    graph.nodes.flatMap(({ outputs }) => outputs).find((it) => it.name === name);
  if (!value) throw notInMainGraph(name);
  return value;
}

export function markerNamed(graph: Model["graph"], name: string): Node {
  const node = graph.nodes.find(({ outputs }) => outputs[0]?.name === name);
  if (!node) throw notInMainGraph(name);
  return node;
}

function notInMainGraph(name: string): CoreError {
  const message = `The weight "${name}" is inside the body of an If, Loop or Scan, where it cannot be trained: exclude its node.`;
  return new CoreError("unsupported", message, name);
}

export function replaceMarker(marker: Node, value: Value): void {
  marker.graph.replaceUses(marker.outputs[0]!, value);
  marker.graph.remove(marker);
}

/** The constants that scale activations, by name, and the nodes that read them. */
export function activationScales(model: Model): ReadonlyMap<string, readonly Node[]> {
  const found = new Map<string, Node[]>();
  for (const node of model.graph.nodes) {
    if (node.opType !== "QuantizeLinear" && node.opType !== "DequantizeLinear") continue;
    const [x, scale] = node.inputs;
    if (x!.constant || !scale!.constant || elementCount(scale!.constant.dims) !== 1) continue;
    const nodes = found.get(scale!.name) ?? [];
    nodes.push(node);
    found.set(scale!.name, nodes);
  }
  return found;
}
