import { onnxOfDtype } from "../../onnx/dtype.ts";
import type { Attr } from "../../onnx/ir.ts";
import type { WeightMatrix } from "../rounding/blocks.ts";
import { type QuantizedForm, type QuantizedWeights, quantizedBytes } from "./codes.ts";
import { takeOver } from "./replace-node.ts";
import type { RewriteForm } from "./rewrite.ts";
import { matrixOf, type WeightSlot } from "./slots.ts";

/** Whether a Gather takes rows of a matrix, as a lookup of embeddings does. */
export function isRowGather({ node, view }: WeightSlot): boolean {
  return node.opType === "Gather" && view.dims.length === 2 && [0, -2].includes(node.int("axis", 0));
}

/**
 * Gather of 8-bit codes and of the scale of each row, multiplied after: only the rows that are looked up are turned into floats.
 * Plain operators of any opset.
 */
export function gatherCodes(weights: QuantizedWeights, reduceRange = false): RewriteForm {
  return ([slot, second]) => {
    if (!slot || second || !isRowGather(slot)) return undefined;
    const { node, view } = slot;
    const form = rowCodes(matrixOf(slot), view.dtype, reduceRange);
    return {
      bytes: quantizedBytes(form) + OVERHEAD_BYTES,
      code: "gather_codes",
      weights: [{ view, form }],
      message: "Gather of 8-bit codes, with one scale for each row.",
      apply: () => {
        const { codes, scales } = weights.of(view, form);
        const [output] = node.outputs;
        const dtype = form.scales.dtype;
        const axis = { axis: int(0) };
        const { graph } = node;
        const gathered = [codes, scales].map(
          (table) =>
            graph.insertBefore(node, { opType: "Gather", inputs: [table, node.inputs[1]], outputs: 1, attrs: axis })
              .outputs[0]!,
        );
        const cast = { to: int(onnxOfDtype(dtype)) };
        const values = graph.insertBefore(node, { opType: "Cast", inputs: [gathered[0]], outputs: 1, attrs: cast })
          .outputs[0]!;
        const scaled = graph.insertBefore(node, {
          opType: "Mul",
          name: node.name,
          standsFor: node,
          inputs: [values, gathered[1]],
          outputs: 1,
        });
        takeOver(output!, scaled.outputs[0]!);
        graph.remove(node);
      },
    };
  };
}

function int(value: number): Attr {
  return { type: "int", value };
}

/** About what the operators and the headers of the tensors take up in the file. */
const OVERHEAD_BYTES = 400;

/** Rows of int8 codes [V, D] with scales [V, 1]. */
export function rowCodes(matrix: Omit<WeightMatrix, "values">, dtype: string, reduceRange: boolean): QuantizedForm {
  const { rows, depth } = matrix;
  const scaleDType = dtype === "float16" ? "float16" : "float32";
  return {
    matrix,
    scheme: { bits: 8, signed: true, symmetric: true, granularity: "channel", scaleDType, reduceRange },
    layout: { layout: "row-major" },
    codes: { dtype: "int8", dims: [rows, depth] },
    scales: { dtype: scaleDType, dims: [rows, 1] },
  };
}
