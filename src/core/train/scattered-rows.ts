/**
 * Rows that are added to rows of a table, as the gradient of an embedding adds them. ScatterElements looks for every element's place; ScatterND
 * adds whole rows, in the same order, in a fraction of the time. With more threads than one it is wrong (onnxruntime 1.30): two of them that
 * add to one row at the same time lose a sum.
 */
import { GraphBuilder, integerInput, string } from "../onnx/graph-builder.ts";
import type { Graph, Node, Value } from "../onnx/ir.ts";

/** Adds whole rows by ScatterND, for sessions of one thread. */
export function scatterWholeRows(graph: Graph): void {
  const g = new GraphBuilder(graph);
  for (const node of [...graph.nodes]) {
    const indices = indicesOfRows(node);
    if (!indices) continue;
    const [table, , rows] = node.inputs as readonly [Value, Value, Value];
    const [sum] = node.outputs as readonly [Value];
    const emit = () => g.op("ScatterND", [table, indices, rows], { reduction: string("add") });
    const added = g.before(node, () => g.within(node.name, emit));
    added.retype(sum.dtype, sum.shape);
    graph.replaceUses(sum, added);
    graph.remove(node);
  }
}

/** One index for each row, [rows, 1], where a node adds rows to a table of zeros as wide as they are. */
function indicesOfRows(node: Node): Value | undefined {
  if (node.opType !== "ScatterElements" || node.domain !== "") return undefined;
  if (node.int("axis", 0) !== 0 || node.string("reduction", "none") !== "add") return undefined;
  const [table, places, rows] = node.inputs.map((value) => value?.producer);
  if (table?.opType !== "ConstantOfShape" || places?.opType !== "Expand" || rows?.opType !== "Reshape")
    return undefined;
  const indices = places.inputs[0]!;
  const column = indices.producer;
  const [, width, ...more] = integerInput(table, 0) ?? [];
  const is = (shape: readonly number[] | undefined, ...expected: readonly (number | undefined)[]) =>
    shape?.length === expected.length && shape.every((dim, i) => dim === expected[i]);
  return column?.opType === "Reshape" &&
    more.length === 0 &&
    is(integerInput(column, 1), -1, 1) &&
    is(integerInput(places, 1), 1, width) &&
    is(integerInput(rows, 1), -1, width)
    ? indices
    : undefined;
}
