import type { Model, Node, NodeInit, Value } from "../onnx/ir.ts";

/**
 * Puts a node of another kind in place of `old`: outputs keep their names, types and readers. `outputs` of the new node are those of `old`.
 */
export function replaceNode(old: Node, init: Omit<NodeInit, "outputs" | "name">): Node {
  const { graph } = old;
  const node = graph.insertBefore(old, {
    ...init,
    name: old.name,
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

/**
 * Removes what nothing reads any more: the value's constant, or the node that makes it and then what that node read. Values that are gone
 * already are fine.
 */
export function removeUnread(value: Value): void {
  if (value.uses.length > 0 || value.isGraphOutput) return;
  const { producer, graph } = value;
  if (!producer) {
    if (value.constant) graph.removeInitializer(value);
    return;
  }
  if (!graph.nodes.includes(producer)) return;
  if (producer.outputs.some((output) => output.uses.length > 0 || output.isGraphOutput)) return;
  const inputs = new Set(producer.inputs);
  graph.remove(producer);
  for (const input of inputs) if (input) removeUnread(input);
}

/**
 * Before IR version 4 every initializer had to be listed as an input, and was constant all the same. Later versions take a listed one for
 * a default that callers may override, and do not optimize it: compressed models are of version 4 at least and list none.
 */
export function listNoInitializers(model: Model): void {
  if (model.irVersion >= 4) return;
  model.irVersion = 4;
  for (const value of model.graph.initializers) model.graph.setOverridable(value, false);
}
