import type { Model, Node } from "./ir.ts";

/**
 * Gives every node of a model that was read the label that users know it by, in all bodies: its name; its first output where it has no name.
 * Where several nodes would have the same label (branches of an If may repeat names), they are numbered in the order of the graph:
 * `conv#1`, `conv#2`; a node that is named so comes before unnamed ones with an output of that name. Labels are unique.
 */
export function labelNodes(model: Model): void {
  const groups = Map.groupBy(model.nodes(), (node) => node.ownLabel);
  const taken = new Set(groups.keys());
  for (const [base, nodes] of groups) {
    const named = nodes.filter(({ name }) => name !== "");
    const owner = named.length === 1 ? named[0] : nodes.length === 1 ? nodes[0] : undefined;
    let number = 0;
    for (const node of nodes) node.setOrigin(node === owner ? base : next(base));
    function next(of: string): string {
      let label: string;
      do label = `${of}#${++number}`;
      while (taken.has(label));
      taken.add(label);
      return label;
    }
  }
}

/** The nodes of a model that was read, by everything they may be called: by label, and by name where several share one. */
export function nodesByName(model: Model): ReadonlyMap<string, readonly Node[]> {
  const byName = Map.groupBy(model.nodes(), (node) => node.label);
  for (const [name, nodes] of Map.groupBy(model.nodes(), (node) => node.ownLabel)) {
    if (!byName.has(name)) byName.set(name, nodes);
  }
  return byName;
}

/** Labels of a model's nodes by their names as they are now, and by the values that they make: for graphs that were made of this one. */
export function labelsByName(model: Model): ReadonlyMap<string, string> {
  const labels = new Map<string, string>();
  const nodes = [...model.nodes()];
  for (const { outputs, label } of nodes) for (const { name } of outputs) labels.set(name, label);
  for (const { name, label } of nodes) labels.set(name, label);
  labels.delete("");
  return labels;
}
