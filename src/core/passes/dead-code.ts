import type { Graph } from "../onnx/ir.ts";
import type { Pass } from "./pass.ts";

/**
 * Removes nodes whose outputs nothing reads, with their bodies, and initializers that nothing reads. Inputs and outputs of the model stay
 * as they are.
 */
export const removeDeadCode: Pass = {
  name: "remove dead code",
  run: (model) => removeUnused(model.graph),
};

function removeUnused(graph: Graph): boolean {
  let changed = false;
  // Backwards: what only a removed node has read is removed in the same sweep.
  for (const node of [...graph.nodes].reverse()) {
    if (node.outputs.every((value) => value.useCount === 0 && !value.isGraphOutput)) {
      graph.remove(node);
      changed = true;
    } else {
      for (const body of node.bodies()) changed = removeUnused(body) || changed;
    }
  }
  for (const value of [...graph.initializers]) {
    if (value.useCount > 0 || value.isGraphOutput || graph.isOverridable(value)) continue;
    graph.removeInitializer(value);
    changed = true;
  }
  return changed;
}
