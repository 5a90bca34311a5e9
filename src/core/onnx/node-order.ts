import type { GraphProto, ModelProto, NodeProto } from "onnx-buf";

/**
 * The order that the ONNX IR specification asks for: "the graph must be topologically sorted". onnxruntime does not ask for it, it sorts
 * nodes itself, and there are files that are not sorted: converters to float16 append the Casts that they put between nodes.
 *
 * Puts the nodes of every graph and function of `proto` in that order, in place. Nodes that are in order keep it; one that is read before it
 * stands moves to right before its first reader. Nodes that read each other in a circle cannot be sorted, and are left for the loader to refuse.
 */
export function sortNodes(proto: ModelProto): void {
  if (proto.graph) sortGraph(proto.graph);
  for (const fn of proto.functions) sortGraph(fn);
}

function sortGraph(graph: { node: NodeProto[] }): void {
  for (const node of graph.node) for (const body of bodiesOf(node)) sortGraph(body);
  const makers = new Map<string, number>();
  graph.node.forEach(({ output }, index) => {
    for (const name of output) if (name !== "") makers.set(name, index);
  });
  const needs = graph.node.map((node) => {
    const indexes: number[] = [];
    for (const name of readsOf(node)) {
      const index = makers.get(name);
      if (index !== undefined) indexes.push(index);
    }
    return indexes;
  });
  if (needs.every((indexes, at) => indexes.every((index) => index < at))) return;
  graph.node = needFirst(needs).map((index) => graph.node[index]!);
}

/** Every index behind those that it needs, where that is possible; depth first, without recursion: chains are as long as the model. */
function needFirst(needs: readonly (readonly number[])[]): number[] {
  const opened = new Uint8Array(needs.length);
  const placed = new Uint8Array(needs.length);
  const order: number[] = [];
  for (let root = 0; root < needs.length; root++) {
    const stack = [root];
    for (let index = stack.at(-1); index !== undefined; index = stack.at(-1)) {
      if (!opened[index]) {
        opened[index] = 1;
        for (const needed of needs[index]!.toReversed()) if (!opened[needed]) stack.push(needed);
        continue;
      }
      stack.pop();
      if (placed[index]) continue;
      placed[index] = 1;
      order.push(index);
    }
  }
  return order;
}

function bodiesOf(node: NodeProto): GraphProto[] {
  return node.attribute.flatMap(({ g, graphs }) => (g ? [g, ...graphs] : graphs));
}

/** The names that a node reads: its inputs, and what its bodies read of the graphs around them. */
function readsOf(node: NodeProto): readonly string[] {
  const bodies = bodiesOf(node);
  return bodies.length === 0 ? node.input : [...node.input, ...bodies.flatMap(outerNamesOf)];
}

/** The names that a body reads and does not define. */
function outerNamesOf(body: GraphProto): string[] {
  const read = new Set(body.output.map(({ name }) => name));
  for (const node of body.node) for (const name of readsOf(node)) read.add(name);
  for (const { name } of [...body.input, ...body.initializer]) read.delete(name);
  for (const { values } of body.sparseInitializer) if (values) read.delete(values.name);
  for (const { output } of body.node) for (const name of output) read.delete(name);
  return [...read];
}
