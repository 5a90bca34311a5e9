import type { Node } from "../onnx/ir.ts";
import type { Shape, WeightOperand } from "./operator-record.ts";

/** The labels of each operand of an Einsum, and of its result: letters that stand once in all operands, in alphabetical order, where none is given. */
export function einsumTerms(node: Node): { readonly inputs: readonly string[]; readonly output: string } {
  const [left = "", right] = node.string("equation", "").replace(/\s/g, "").split("->");
  const inputs = left.split(",");
  const letters = [...left.replace(/,/g, "")];
  const once = letters.filter((letter) => letters.indexOf(letter) === letters.lastIndexOf(letter)).sort();
  return { inputs, output: right ?? once.join("") };
}

/** Labels of an operand by axis; undefined where an ellipsis stands for some of them. */
function labelsOf(node: Node, input: number, dims: Shape): readonly string[] | undefined {
  const term = einsumTerms(node).inputs[input] ?? "";
  return /^[A-Za-z]*$/.test(term) && term.length === dims.length ? [...term] : undefined;
}

/**
 * An operand of an Einsum as a weight. It sums over the labels that the result does not have; the output features are the last label that the
 * result has and no other operand.
 */
export function einsumOperand(input: number): WeightOperand {
  return {
    input,
    channelAxis(node, dims) {
      const { inputs, output } = einsumTerms(node);
      const others = inputs.filter((_, i) => i !== input).join("");
      const axis = labelsOf(node, input, dims)?.findLastIndex(
        (label) => output.includes(label) && !others.includes(label),
      );
      return axis === -1 ? undefined : axis;
    },
    reducedAxes(node, dims) {
      const { output } = einsumTerms(node);
      const labels = labelsOf(node, input, dims) ?? [];
      const summed = labels.flatMap((label, axis) => (output.includes(label) ? [] : [axis]));
      const [first, last] = [summed[0], summed.at(-1)];
      if (first === undefined || last === undefined || last - first >= summed.length) return undefined;
      return [first, last + 1];
    },
  };
}
