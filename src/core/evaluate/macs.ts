import type { Node, Value } from "../onnx/ir.ts";
import { elementCount } from "../onnx/tensor.ts";

/**
 * Multiply-accumulates of one node. With |t| for the number of elements of t
 *
 *     Conv            |y| · Cin/group · kernel             = |y| · |W| / Cout
 *     ConvTranspose   |x| · Cout/group · kernel            = |x| · |W| / Cin
 *     MatMul, Gemm    |y| · K
 *     RNN, GRU, LSTM  time · batch · (|W| + |R|)           gates and directions are in the weights
 *     Einsum          the product of all its axes
 *
 * Biases, activations and normalizations are not counted, as is usual.
 */
export function macsOf(node: Node, shapeOf: (value: Value) => readonly number[] | undefined): number | undefined {
  const shape = (value: Value | undefined) => (value ? shapeOf(value) : undefined);
  return COUNTS[node.opType]?.(node, {
    input: (index) => shape(node.inputs[index]),
    output: () => shape(node.outputs[0]),
  });
}

/** Whether a node multiplies and accumulates, so that `macsOf` (or a null) must say how much. */
export function hasMacs(node: Node): boolean {
  return node.opType in COUNTS;
}

interface Shapes {
  input(index: number): readonly number[] | undefined;
  output(): readonly number[] | undefined;
}

type Count = (node: Node, shapes: Shapes) => number | undefined;

function times(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a * b;
}

function sizeOf(shape: readonly number[] | undefined): number | undefined {
  return shape && elementCount(shape);
}

/** Elements of a weight that meet one element of axis 0. */
function perRow(weight: readonly number[] | undefined): number | undefined {
  return weight && elementCount(weight.slice(1));
}

function convolution(weight: number): Count {
  return (_, { input, output }) => times(sizeOf(output()), perRow(input(weight)));
}

function product(a = 0): Count {
  return (node, { input, output }) => {
    const dims = input(a);
    const inner = node.int("transA", 0) !== 0 ? dims?.at(-2) : dims?.at(-1);
    return times(sizeOf(output()), inner);
  };
}

/** X is [time, batch, inputs], or [batch, time, inputs]: W and R are applied to each of its rows. */
const recurrent: Count = (_, { input }) => {
  const [w, r] = [sizeOf(input(1)), sizeOf(input(2))];
  if (w === undefined || r === undefined) return undefined;
  return times(sizeOf(input(0)?.slice(0, 2)), w + r);
};

const einsum: Count = (node, { input }) => {
  const terms = node.string("equation", "").replace(/\s/g, "").split("->")[0]!.split(",");
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
const unknown: Count = () => undefined;

const COUNTS: Readonly<Record<string, Count>> = {
  Conv: convolution(1),
  ConvInteger: convolution(1),
  DeformConv: convolution(1),
  FusedConv: convolution(1),
  QLinearConv: convolution(3),
  ConvTranspose: (_, { input }) => times(sizeOf(input(0)), perRow(input(1))),
  MatMul: product(),
  MatMulInteger: product(),
  MatMulIntegerToFloat: product(),
  DynamicQuantizeMatMul: product(),
  QLinearMatMul: product(),
  FusedMatMul: product(),
  Gemm: product(),
  FusedGemm: product(),
  QGemm: product(),
  MatMulNBits: (node, { output }) => times(sizeOf(output()), node.int("K")),
  RNN: recurrent,
  GRU: recurrent,
  LSTM: recurrent,
  DynamicQuantizeLSTM: recurrent,
  Einsum: einsum,
  Attention: unknown,
  QAttention: unknown,
  MultiHeadAttention: unknown,
  GroupQueryAttention: unknown,
  PackedAttention: unknown,
  DecoderMaskedMultiHeadAttention: unknown,
};
