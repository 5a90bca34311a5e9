/** Ranges of activations that clipping moves, and activations of 4 bits. */
import type { GraphBuilder } from "../onnx/graph-builder.ts";
import type { Node, Value } from "../onnx/ir.ts";
import { integersOf, type Tensor, tensorOf } from "../onnx/tensor.ts";
import { roundHalfEven } from "../quantize/params.ts";

// ---- ranges that clipping moves, and activations of 4 bits -------------------------------------------------------------------------------------------

/** 255 steps of 8 bits to 15 of 4. */
export const STEPS_RATIO = 17;

/**
 * x between s·(qmin − z) and s·(qmax − z), which are taken in by less than rounding notices: x/s must not be seen as outside for an error of
 * its last bit, where the gradient of a pair ends.
 */
export function clipToRange(g: GraphBuilder, node: Node, scale: Value, bits: 8 | 4): void {
  const [x, , zero] = node.inputs;
  const [least, largest] = bits === 4 ? fourBitRange(zero!.constant!) : eightBitRange(zero!.constant!);
  const end = (steps: number) => g.mul(scale, steps * (1 - 2 ** -20));
  const clipped = g.op("Max", [g.op("Min", [x, end(largest)]), end(least)]);
  clipped.retype("float32", x!.shape);
  node.setInput(0, clipped);
}

/** qmin − z and qmax − z. */
function eightBitRange(zero: Tensor): readonly [number, number] {
  const lowest = zero.dtype === "int8" ? -128 : 0;
  const value = integersOf(zero)[0]!;
  return [lowest - value, lowest + 255 - value];
}

function fourBitRange(zero: Tensor): readonly [number, number] {
  const { value, low } = narrowed(zero);
  return [low - value, low + 15 - value];
}

/** Where a zero point among 256 values is among 16, counted from the lowest of `dtype`. */
function narrowed(zero: Tensor): { readonly dtype: "int8" | "uint8"; readonly value: number; readonly low: number } {
  const isSigned = zero.dtype === "int8";
  const [low, lowest] = isSigned ? [-8, -128] : [0, 0];
  const value = low + roundHalfEven((integersOf(zero)[0]! - lowest) / STEPS_RATIO);
  return { dtype: isSigned ? "int8" : "uint8", value, low };
}

/** One half of a pair in float: q = clip(round(x/s) + z, …) or (q − z)·s. onnxruntime's binding cannot give out values of 4 bits. */
export function simulateFourBits(g: GraphBuilder, node: Node, scale: Value): void {
  const [x, , zero] = node.inputs;
  const { value, low } = narrowed(zero!.constant!);
  const made =
    node.opType === "QuantizeLinear"
      ? g.op("Clip", [g.add(g.op("Round", [g.div(x!, scale)]), value), g.scalar(low, x!), g.scalar(low + 15, x!)])
      : g.mul(g.sub(x!, value), scale);
  made.retype("float32", node.outputs[0]!.shape);
  g.graph.replaceUses(node.outputs[0]!, made);
  g.graph.remove(node);
}

/**
 * Lets a pair tell 16 values apart, in 8 bits, which integer kernels read: onnxruntime has none for 4. What QuantizeLinear gives out beyond
 * those values is clipped.
 */
export function limitToFourBits(node: Node): void {
  const { graph } = node;
  const { dtype, value, low } = narrowed(node.inputs[2]!.constant!);
  const integer = (name: string, number: number) => graph.addInitializer(name, tensorOf(dtype, [], [number]));
  node.setInput(2, integer(node.inputs[2]!.name, value));
  if (node.opType !== "QuantizeLinear") return;
  const q = node.outputs[0]!;
  const clip = graph.insertAfter(node, {
    opType: "Clip",
    inputs: [q, integer("least", low), integer("largest", low + 15)],
    outputs: 1,
  });
  clip.outputs[0]!.retype(dtype, q.shape);
  for (const use of [...q.uses]) if (use.node !== clip) use.node.setInput(use.index, clip.outputs[0]!);
}
