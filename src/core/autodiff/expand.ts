/**
 * Operators that are rewritten in terms of others before differentiation: normalisations that are a layer normalisation of reshaped
 * input, and recurrent layers, which are unrolled over time. Shapes must be known.
 */

import { dimsOf, float, GraphBuilder, int, range } from "../onnx/graph-builder.ts";
import type { Graph, Node, Value } from "../onnx/ir.ts";
import { elementCount, integersOf } from "../onnx/tensor.ts";
import { type OpType, parameterOf } from "../operators/operators.ts";
import { gru, lstm, recurrent, rnn } from "./recurrent.ts";

/** One entry of the expansion table: emits the node's outputs in terms of operators that have gradient rules. */
export interface Expansion {
  readonly expand: (g: GraphBuilder, node: Node) => readonly (Value | undefined)[];
  /** Why this very node cannot be expanded, judged by its attributes and inputs alone. */
  readonly refuses?: (node: Node) => string | undefined;
}

/**
 * (x − μ)·r over the rows of x reshaped to [rows, n], then scale and bias, one for each channel. Layer normalisation with a scale of
 * one is the fused kernel for x̂.
 */
function normalizeGroups(g: GraphBuilder, node: Node, groupsPerSample: number): Value {
  const [x, scale, bias] = node.inputs as readonly [Value, Value, Value];
  const dims = dimsOf(x);
  const rows = dims[0]! * groupsPerSample;
  const n = elementCount(dims) / rows;
  const normal = g.op("LayerNormalization", [g.reshape(x, [rows, n]), g.full([n], 1, x)], {
    axis: int(-1),
    epsilon: float(parameterOf(node, "epsilon")),
  });
  const channels = (vector: Value) => g.reshape(vector, [dims[1]!, ...dims.slice(2).map(() => 1)]);
  return g.add(g.mul(g.reshape(normal, dims), channels(scale)), channels(bias));
}

/** x / √(mean(x²) + ε) · scale over the last axes. */
function rmsNormalization(g: GraphBuilder, node: Node): Value {
  const [x, scale] = node.inputs as readonly [Value, Value];
  const axes = range(dimsOf(x).length).slice(node.int("axis", -1));
  const meanSquare = g.add(g.mean(g.square(x), axes), parameterOf(node, "epsilon"));
  return g.mul(g.div(x, g.sqrt(meanSquare)), scale);
}

/** Only whole sequences can be unrolled. */
function refusesRecurrent(node: Node): string | undefined {
  const lengths = node.inputs[4];
  if (lengths?.constant) {
    const values = integersOf(lengths.constant);
    if (values.some((length) => length !== values[0])) return "sequences of different lengths";
  }
  if (node.attrs.has("activations") && !hasDefaultActivations(node)) return "activations other than the usual ones";
  if (node.attrs.has("clip")) return "clipped gates";
  if (node.int("input_forget", 0) === 1) return "coupled input and forget gates";
  return undefined;
}

const USUAL_ACTIVATIONS: Readonly<Record<string, readonly string[]>> = {
  LSTM: ["sigmoid", "tanh", "tanh"],
  GRU: ["sigmoid", "tanh"],
  RNN: ["tanh"],
} satisfies Partial<Record<OpType, readonly string[]>>;

function hasDefaultActivations(node: Node): boolean {
  const attr = node.attrs.get("activations");
  const usual = USUAL_ACTIVATIONS[node.opType]!;
  return attr?.type === "strings" && attr.value.every((name, i) => name.toLowerCase() === usual[i % usual.length]);
}

export const EXPANSIONS: Readonly<Record<string, Expansion>> = {
  InstanceNormalization: { expand: (g, node) => [normalizeGroups(g, node, dimsOf(node.inputs[0]!)[1]!)] },
  GroupNormalization: { expand: (g, node) => [normalizeGroups(g, node, node.int("num_groups")!)] },
  RMSNormalization: { expand: (g, node) => [rmsNormalization(g, node)] },
  LSTM: { expand: (g, node) => recurrent(g, node, lstm), refuses: refusesRecurrent },
  GRU: { expand: (g, node) => recurrent(g, node, gru), refuses: refusesRecurrent },
  RNN: { expand: (g, node) => recurrent(g, node, rnn), refuses: refusesRecurrent },
} satisfies Partial<Record<OpType, Expansion>>;

/** Expands every node of `graph` that has an expansion; answers whether any had. New values have no shapes yet. */
export function expandOperators(graph: Graph): boolean {
  const nodes = graph.nodes.filter((node) => node.domain === "" && EXPANSIONS[node.opType]);
  const g = new GraphBuilder(graph);
  for (const node of nodes) {
    const values = g.before(node, () => g.within(node.label, () => EXPANSIONS[node.opType]!.expand(g, node)));
    node.outputs.forEach((output, i) => {
      const value = values[i];
      if (!value || output.name === "") return;
      value.dtype = output.dtype;
      value.shape = output.shape;
      graph.replaceUses(output, value);
    });
    graph.remove(node);
  }
  return nodes.length > 0;
}
