/** Where the bias of a layer is. */
import type { Value } from "../../onnx/ir.ts";
import { arrayOf, tensorOf } from "../../onnx/tensor.ts";
import type { Unit } from "./units.ts";

/** The bias that is added to a unit's products: an input, or the constant operand of the Add behind a MatMul. */
export function biasOf({ node, rule, biasAdd }: Unit): Value | undefined {
  if (biasAdd) return biasAdd.inputs.find((input) => input?.constant);
  return rule.bias === undefined ? undefined : node.inputs[rule.bias];
}

/**
 * product + bias as product − (−bias), which is the same number. A product of dequantized operands with an Add behind it becomes a Gemm in
 * onnxruntime, and that computes in float unless its output is quantized too; with a Sub behind it, it stays a MatMul and becomes an integer
 * kernel that gives out float.
 */
export function subtractNegatedBias({ node, biasAdd }: Unit): void {
  const bias = biasAdd!.inputs.find((input) => input?.constant)!;
  const negated = arrayOf(bias.constant!, "float32").map((value) => -value);
  const sub = biasAdd!.graph.insertBefore(biasAdd!, {
    opType: "Sub",
    name: biasAdd!.name,
    standsFor: biasAdd!,
    inputs: [
      node.outputs[0],
      biasAdd!.graph.addInitializer(`${bias.name}_negated`, tensorOf("float32", bias.constant!.dims, negated)),
    ],
    outputs: 1,
  });
  sub.outputs[0]!.retype(biasAdd!.outputs[0]!.dtype, biasAdd!.outputs[0]!.shape);
  biasAdd!.graph.replaceUses(biasAdd!.outputs[0]!, sub.outputs[0]!);
  biasAdd!.graph.remove(biasAdd!);
}
