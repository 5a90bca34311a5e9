import type { Node, NodeInit, Value } from "../../onnx/ir.ts";

/**
 * Puts a node of another kind in place of `old`: outputs keep their names, types and readers. `outputs` of the new node are those of `old`.
 */
export function replaceNode(old: Node, init: Omit<NodeInit, "outputs" | "name" | "standsFor">): Node {
  const { graph } = old;
  const node = graph.insertBefore(old, {
    ...init,
    name: old.name,
    standsFor: old,
    outputs: old.outputs.map(({ name }) => (name === "" ? "" : graph.model.freshName(name))),
  });
  node.outputs.forEach((value, i) => {
    takeOver(old.outputs[i]!, value);
  });
  graph.remove(old);
  return node;
}

/** Everything that read `from`, a value of the same graph, reads `to`, which gets its name and type. */
export function takeOver(from: Value, to: Value): void {
  const { name, dtype, shape, source, graph } = from;
  if (name === "") return;
  graph.replaceUses(from, to);
  if (from.name === name) from.name = graph.model.freshName(`${name}_replaced`);
  to.name = name;
  to.retype(dtype, shape);
  to.source = source;
}
