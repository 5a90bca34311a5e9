/**
 * Passes that bring a float model into the form that static quantization works on. None changes what the model computes, up to rounding.
 */
import type { QdqPattern } from "../../facts.ts";
import type { Graph, Node, Value } from "../../onnx/ir.ts";
import { upgradeOpset } from "../../onnx/opset.ts";
import { arrayOf, integersOf, tensorOf } from "../../onnx/tensor.ts";
import { type OpType, parameterOf } from "../../operators/operators.ts";
import { type Condition, noteOn, type Pass } from "../../passes/pass.ts";
import { clipBounds, isFloatConstant } from "./operators.ts";
import { MIN_OPSET } from "./qdq.ts";

const upgrade: Pass = {
  name: "upgrade operator set",
  run(model) {
    const present = model.opset;
    upgradeOpset(model, MIN_OPSET);
    return model.opset !== present;
  },
};

const NAMED_UNIQUELY: Condition = {
  clause: "every node and every value has a name of its own",
  holds(model) {
    const [values, nodes] = [new Set<string>(), new Set<string>()];
    let [valueCount, nodeCount] = [0, 0];
    for (const graph of model.graphs()) {
      for (const { name } of valuesOf(graph)) {
        if (name === "") continue;
        values.add(name);
        valueCount++;
      }
      for (const { name } of graph.nodes) nodes.add(name);
      nodeCount += graph.nodes.length;
    }
    return values.size === valueCount && nodes.size === nodeCount && !nodes.has("");
  },
};

/** What calibration finds out is kept by the names of values, and exclusions are by the names of nodes: over all bodies, too. */
const nameUniquely: Pass = {
  name: "name uniquely",
  ensures: [NAMED_UNIQUELY],
  run(model) {
    let changed = false;
    const values = new Set<string>();
    const nodes = new Set<string>();
    for (const graph of model.graphs()) {
      for (const value of valuesOf(graph)) {
        if (value.name === "") continue;
        if (values.has(value.name)) {
          value.name = model.freshName(value.name);
          changed = true;
        }
        values.add(value.name);
      }
      for (const node of graph.nodes) {
        if (node.name === "" || nodes.has(node.name)) {
          node.name = model.freshName(node.label);
          changed = true;
        }
        nodes.add(node.name);
      }
    }
    return changed;
  },
};

function valuesOf(graph: Graph): Set<Value> {
  return new Set([...graph.initializers, ...graph.inputs, ...graph.nodes.flatMap(({ outputs }) => outputs)]);
}

/** Operators that have an equal with an 8-bit kernel; answers the value that takes the place of the node's output. */
const EQUALS: Readonly<Record<string, (node: Node) => Value | undefined>> = {
  /** x · max(0, min(1, x/6 + 1/2)), by definition. */
  HardSwish(node) {
    const [x] = node.inputs;
    const gate = insert(node, "HardSigmoid", [x], {
      alpha: { type: "float", value: 1 / 6 },
      beta: { type: "float", value: 0.5 },
    });
    return insert(node, "Mul", [x, gate]);
  },
  /** The mean over all axes behind the channels. */
  ReduceMean(node) {
    const x = node.inputs[0];
    const rank = x?.shape?.length;
    const constant = node.inputs[1]?.constant;
    const axes = node.ints("axes") ?? (constant && integersOf(constant));
    // Over the one last axis of three it is half of a layer normalization.
    if (rank === undefined || rank < 4 || !axes) return undefined;
    const wanted = new Set(axes.map((axis) => (axis < 0 ? axis + rank : axis)));
    if (wanted.size !== rank - 2 || wanted.has(0) || wanted.has(1)) return undefined;
    const pooled = insert(node, "GlobalAveragePool", [x]);
    return node.int("keepdims", 1) ? pooled : insert(node, "Flatten", [pooled], { axis: { type: "int", value: 1 } });
  },
  /** A normalization in front of convolutions, which no layer before it can take in, is a convolution of each channel with one number. */
  BatchNormalization(node) {
    const [x, gamma, beta, mean, variance] = node.inputs;
    const rank = x?.shape?.length;
    if (rank === undefined || rank < 3 || node.int("training_mode", 0) || !leadsToConvolutions(node.outputs[0]!)) {
      return undefined;
    }
    if (![gamma, beta, mean, variance].every(isFloatConstant)) return undefined;
    const [g, b, m, v] = [gamma, beta, mean, variance].map((value) => arrayOf(value!.constant!, "float32"));
    const epsilon = parameterOf(node, "epsilon");
    const scale = Float64Array.from(g!, (value, c) => value / Math.sqrt(v![c]! + epsilon));
    const channels = scale.length;
    const { graph } = node;
    const dims = [channels, 1, ...new Array<number>(rank - 2).fill(1)];
    const weight = graph.addInitializer(`${node.label}_scale`, tensorOf("float32", dims, Float32Array.from(scale)));
    const shift = Float32Array.from(scale, (value, c) => b![c]! - value * m![c]!);
    const bias = graph.addInitializer(`${node.label}_shift`, tensorOf("float32", [channels], shift));
    return insert(node, "Conv", [x, weight, bias], { group: { type: "int", value: channels } });
  },
} satisfies Partial<Record<OpType, (node: Node) => Value | undefined>>;

function insert(
  node: Node,
  opType: string,
  inputs: Node["inputs"],
  attrs: Parameters<Graph["append"]>[0]["attrs"] = {},
): Value {
  const { graph } = node;
  const name = graph.model.freshName(`${node.name}_${opType}`);
  return graph.insertBefore(node, { opType, name, standsFor: node, inputs, outputs: 1, attrs }).outputs[0]!;
}

function leadsToConvolutions(value: Value): boolean {
  return (
    value.uses.length > 0 &&
    !value.isGraphOutput &&
    value.uses.every(
      ({ node }) => node.opType === "Conv" || (clipBounds(node) && leadsToConvolutions(node.outputs[0]!)),
    )
  );
}

const useEqualOperators: Pass = {
  name: "use operators with 8-bit kernels",
  run(model, note) {
    let changed = false;
    for (const graph of model.graphs()) {
      for (const node of [...graph.nodes]) {
        const [output] = node.outputs;
        if (node.domain !== "" || node.outputs.slice(1).some((value) => value.uses.length > 0)) continue;
        const equal = EQUALS[node.opType]?.(node);
        if (!equal) continue;
        equal.retype(output!.dtype, output!.shape);
        graph.replaceUses(output!, equal);
        graph.remove(node);
        note(
          noteOn(
            node,
            "changed",
            "rewritten",
            `It was written as ${equal.producer!.opType}, which has an 8-bit kernel.`,
          ),
        );
        changed = true;
      }
    }
    return changed;
  },
};

/** In order; the simplifying passes come before them. */
export const staticForms: readonly Pass[] = [upgrade, nameUniquely, useEqualOperators];

/** The same for a pattern of pairs: where only some operators are quantized, none is written as others. */
export function formsFor(pattern: QdqPattern | undefined): readonly Pass[] {
  return pattern?.operators ? staticForms.filter((form) => form !== useEqualOperators) : staticForms;
}
