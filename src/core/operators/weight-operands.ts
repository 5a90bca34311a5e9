/** Where layers have their weights, by kind of operator. */
import type { Node } from "../onnx/ir.ts";
import { elementCount } from "../onnx/tensor.ts";
import type { Fan, Shape, WeightOperand } from "./operator-record.ts";

const last = (_: Node, dims: Shape) => dims.length - 1;
const none = () => undefined;
const flag = (node: Node, name: string) => node.int(name, 0) !== 0;

/** [output channels, input channels of a group, kernel …]. */
export function convolution(input: number): readonly WeightOperand[] {
  return [
    {
      input,
      channelAxis: () => 0,
      inputAxis: () => 1,
      reducedAxes: (_, dims) => [1, dims.length],
      activationAxis: 1,
      fan: (_, dims) => ({ in: elementCount(dims) / dims[0]!, out: elementCount(dims) / (dims[1] ?? 1) }),
    },
  ];
}

/** [input channels, output channels of a group, kernel …]. */
export const TRANSPOSED_CONVOLUTION: readonly WeightOperand[] = [
  {
    input: 1,
    channelAxis: () => 1,
    inputAxis: () => 0,
    reducedAxes: () => [0, 1],
    activationAxis: 1,
    fan: (_, dims) => ({ in: elementCount(dims) / (dims[1] ?? 1), out: elementCount(dims) / dims[0]! }),
  },
];

/** A · B: the rows of A are output features, and the columns of B. */
export function product(a: number, b: number): readonly WeightOperand[] {
  return [
    {
      input: a,
      channelAxis: (_, dims) => Math.max(0, dims.length - 2),
      reducedAxes: (_, dims) => [dims.length - 1, dims.length],
    },
    rightFactor(b),
  ];
}

/** B of A · B. */
function rightFactor(input: number): WeightOperand {
  return {
    input,
    channelAxis: last,
    inputAxis: (_, dims) => dims.length - 2,
    reducedAxes: (_, dims) => [dims.length - 2, dims.length - 1],
    activationAxis: -1,
  };
}

/** A' · B' of matrices, each transposed on demand. */
export function gemm(b: number): readonly WeightOperand[] {
  const axes = (first: 0 | 1): readonly [number, number] => [first, first + 1];
  return [
    {
      input: 0,
      channelAxis: (node) => (flag(node, "transA") ? 1 : 0),
      reducedAxes: (node) => axes(flag(node, "transA") ? 0 : 1),
      fan: (node, dims) => fanOf(dims, flag(node, "transA") ? 0 : 1),
    },
    {
      input: b,
      channelAxis: (node) => (flag(node, "transB") ? 0 : 1),
      inputAxis: (node) => (flag(node, "transB") ? 1 : 0),
      reducedAxes: (node) => axes(flag(node, "transB") ? 1 : 0),
      activationAxis: -1,
      fan: (node, dims) => fanOf(dims, flag(node, "transB") ? 1 : 0),
    },
  ];
}

/** Of a matrix whose inputs lie along `axis`. */
function fanOf(dims: Shape, axis: 0 | 1): Fan {
  return { in: dims[axis]!, out: dims[1 - axis]! };
}

/** W and R: [directions, gates · hidden, inputs]. */
export const RECURRENT: readonly WeightOperand[] = [1, 2].map((input) => ({
  input,
  channelAxis: () => 1,
  reducedAxes: (_, dims) => [dims.length - 1, dims.length],
  fan: (_, dims) => ({ in: dims.at(-1)!, out: dims.at(-1)! }),
}));

/** A table of embeddings: a row for each index. */
export const TABLE: readonly WeightOperand[] = [
  { input: 0, channelAxis: () => 0, reducedAxes: (_, dims) => [dims.length - 1, dims.length] },
];

/** Weights in a layout that has no axis of output features. */
export function opaque(...inputs: readonly number[]): readonly WeightOperand[] {
  return inputs.map((input) => ({ input, channelAxis: none }));
}

/** [inputs, outputs], stored as it is by a fused operator. */
export function columns(input: number): readonly WeightOperand[] {
  return [{ input, channelAxis: last }];
}
