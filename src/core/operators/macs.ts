/**
 * Multiply-accumulates by kind of operator. With |t| for the number of elements of t
 *
 *     Conv            |y| · Cin/group · kernel             = |y| · |W| / Cout
 *     ConvTranspose   |x| · Cout/group · kernel            = |x| · |W| / Cin
 *     MatMul, Gemm    |y| · K
 *     RNN, GRU, LSTM  time · batch · (|W| + |R|)           gates and directions are in the weights
 *     Einsum          the product of all its axes
 *
 * Biases, activations and normalizations are not counted, as is usual.
 */
import { elementCount } from "../onnx/tensor.ts";
import { einsumTerms } from "./einsum.ts";
import type { Macs, Shape } from "./operator-record.ts";

function times(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a * b;
}

function sizeOf(shape: Shape | undefined): number | undefined {
  return shape && elementCount(shape);
}

/** Elements of a weight that meet one element of axis 0. */
function perRow(weight: Shape | undefined): number | undefined {
  return weight && elementCount(weight.slice(1));
}

export function convolutionMacs(weight: number): Macs {
  return (_, { input, output }) => times(sizeOf(output()), perRow(input(weight)));
}

export const transposedConvolutionMacs: Macs = (_, { input }) => times(sizeOf(input(0)), perRow(input(1)));

export const productMacs: Macs = (node, { input, output }) => {
  const dims = input(0);
  const inner = node.int("transA", 0) !== 0 ? dims?.at(-2) : dims?.at(-1);
  return times(sizeOf(output()), inner);
};

/** X is [time, batch, inputs], or [batch, time, inputs]: W and R are applied to each of its rows. */
export const recurrentMacs: Macs = (_, { input }) => {
  const [w, r] = [sizeOf(input(1)), sizeOf(input(2))];
  if (w === undefined || r === undefined) return undefined;
  return times(sizeOf(input(0)?.slice(0, 2)), w + r);
};

export const einsumMacs: Macs = (node, { input }) => {
  const terms = einsumTerms(node).inputs;
  if (terms.length < 2) return 0;
  const axes = new Map<string, number>();
  for (const [i, term] of terms.entries()) {
    const dims = input(i);
    if (!dims || !/^[A-Za-z]*$/.test(term) || term.length !== dims.length) return undefined;
    for (const [axis, label] of [...term].entries()) axes.set(label, dims[axis]!);
  }
  return elementCount([...axes.values()]);
};

/** Fused attention hides its matrix products: how many there are depends on attributes and caches, so nothing is said. */
export const unknownMacs: Macs = () => undefined;
