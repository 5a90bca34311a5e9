/**
 * BatchNormalization by the statistics of its batch, for sessions of several threads: onnxruntime's kernel takes one. Operators that threads share
 * compute the same, with n values for each channel:
 *
 *   c = x − mean(x),   var = Σ c² / n,   y = γ/√(var + ε) · c + β
 *
 * The gradient needs c as well, which onnxruntime then computes once. The last step is a convolution of every channel by itself with a window of one, and
 * the only operator that does it in one pass; a Relu behind it is done along.
 */
import { dimsOf, GraphBuilder, int, ints } from "../onnx/graph-builder.ts";
import type { Graph, Node, Value } from "../onnx/ir.ts";
import { elementCount } from "../onnx/tensor.ts";
import { parameterOf } from "../operators/operators.ts";

/** The convolution has a start for each map: with smaller ones the kernel of one thread is as fast as two threads are. */
const MIN_POSITIONS = 1000;

/** Writes the normalizations of a graph for several threads where that is faster. Answers how many there were. */
export function shareNormalizations(graph: Graph): number {
  const g = new GraphBuilder(graph);
  const found = graph.nodes.filter(isFaster);
  for (const node of found) {
    const values = g.before(node, () => g.within(node.label, () => normalized(g, node)));
    for (const [i, value] of values.entries()) {
      const output = node.outputs[i]!;
      value.retype(output.dtype, output.shape);
      graph.replaceUses(output, value);
    }
    graph.remove(node);
  }
  return found.length;
}

function isFaster(node: Node): boolean {
  if (node.opType !== "BatchNormalization" || node.domain !== "" || node.int("training_mode", 0) !== 1) return false;
  const { shape, dtype } = node.inputs[0]!;
  const isKnown = shape?.length === 4 && shape.every((dim) => typeof dim === "number");
  return isKnown && dtype === "float32" && elementCount(shape.slice(2) as readonly number[]) >= MIN_POSITIONS;
}

/** y, and the mean and the variance of each channel. */
function normalized(g: GraphBuilder, node: Node): readonly [Value, Value, Value] {
  const [x, gamma, beta] = node.inputs as readonly [Value, Value, Value];
  const dims = dimsOf(x);
  const [, channels] = dims as readonly [number, number];
  const axes = [0, 2, 3];
  const mean = g.mean(x, axes, false);
  const centred = g.sub(x, g.unsqueeze(mean, [1, 2]));
  const squares = g.op("ReduceSumSquare", [centred, g.shape(axes)], { keepdims: int(0) });
  const variance = g.mul(squares, channels / elementCount(dims));
  const scale = g.div(gamma, g.sqrt(g.add(variance, parameterOf(node, "epsilon"))));
  const windows = g.reshape(scale, [channels, 1, 1, 1]);
  const y = g.op("Conv", [centred, windows, beta], { kernel_shape: ints([1, 1]), group: int(channels) });
  return [y, mean, variance];
}
