import { DTYPES } from "../onnx/dtype.ts";
import type { Model, Node } from "../onnx/ir.ts";
import { integersOf } from "../onnx/tensor.ts";
import type { OpType } from "../operators/operators.ts";
import type { Pass } from "./pass.ts";

/** Nodes whose first output is their first input. Outputs after the first must be unused. */
const IDENTITIES: Readonly<Record<string, (node: Node, model: Model) => boolean>> = {
  Identity: () => true,
  Concat: (node) => node.inputs.length === 1,
  Cast: (node) => {
    const dtype = node.inputs[0]?.dtype;
    return dtype !== undefined && DTYPES[dtype].onnx === node.int("to");
  },
  Dropout: (node, model) => {
    if (model.opset < 7) return node.int("is_test", 0) === 1;
    const training = node.inputs[2];
    if (!training) return true;
    const isFixed = training.constant !== undefined && !training.graph.isOverridable(training);
    return isFixed && integersOf(training.constant)[0] === 0;
  },
} satisfies Partial<Record<OpType, (node: Node, model: Model) => boolean>>;

/**
 * Bypasses nodes that do nothing: Identity, Dropout outside of training, Cast to the type a value has, Concat of one value.
 * The nodes themselves are left to dead code removal. An output of the model, or of a body, keeps its node where the value behind
 * it is an input, a constant, another output, or belongs to another graph: runtimes want such outputs to be made by a node.
 */
export const bypassIdentities: Pass = {
  name: "bypass identities",
  run(model) {
    let changed = false;
    for (const node of model.nodes()) {
      const [input] = node.inputs;
      const [output, ...others] = node.outputs;
      if (!input || !output || node.domain !== "" || !IDENTITIES[node.opType]?.(node, model)) continue;
      if (output.useCount === 0 && !output.isGraphOutput) continue;
      if (others.some((value) => value.useCount > 0 || value.isGraphOutput)) continue;
      if (output.isGraphOutput && (input.constant || !node.graph.canReplace(output, input))) continue;
      node.graph.replaceUses(output, input);
      changed = true;
    }
    return changed;
  },
};
