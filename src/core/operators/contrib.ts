import { DTYPES } from "../onnx/dtype.ts";
import { elementCount } from "../onnx/tensor.ts";
import { convolutionMacs, productMacs, recurrentMacs, unknownMacs } from "./macs.ts";
import type { Macs, Records } from "./operator-record.ts";
import { UNKNOWN } from "./result-types.ts";
import { columns, convolution, gemm, opaque, product } from "./weight-operands.ts";

/** Element by element on quantized values: A, its scale and zero point, B with its own, those of the result. */
const QUANTIZED_BINARY = {
  since: 1,
  quantized: { values: [0, 3], parameters: [1, 2, 4, 5, 6, 7] },
} as const;

const nBitsMacs: Macs = (node, { output }) => {
  const [y, depth] = [output(), node.int("K")];
  return y === undefined || depth === undefined ? undefined : elementCount(y) * depth;
};

/** Operators of com.microsoft, onnxruntime's own. What they give out is of the type of their first input where nothing else is said. */
export const CONTRIB = {
  Attention: { since: 1, estimates: true, weights: columns(1), macs: unknownMacs },
  BiasGelu: { since: 1 },
  DecoderMaskedMultiHeadAttention: { since: 1, macs: unknownMacs },
  DynamicQuantizeLSTM: {
    since: 1,
    weights: opaque(1, 2),
    quantized: { values: [1, 2], parameters: [8, 9, 10, 11] },
    macs: recurrentMacs,
  },
  DynamicQuantizeMatMul: {
    since: 1,
    weights: columns(1),
    quantized: { values: [1], parameters: [2, 3] },
    macs: productMacs,
  },
  // The sum of a row of three tables, normalized; where a row ends, as int32; the sum itself.
  EmbedLayerNormalization: { since: 1, estimates: true, results: [2, "int32", 2] },
  FastGelu: { since: 1 },
  FusedConv: {
    since: 1,
    estimates: true,
    weights: convolution(1),
    macs: convolutionMacs(1),
    window: { weight: 1 },
  },
  FusedGemm: { since: 1, estimates: true, weights: gemm(1), macs: productMacs },
  FusedMatMul: { since: 1, estimates: true, weights: product(0, 1), macs: productMacs },
  GatherBlockQuantized: {
    since: 1,
    results: [2],
    weights: opaque(0),
    quantized: {
      values: [0],
      parameters: [2, 3],
      count: (node, { dtype, dims }) => {
        const count = elementCount(dims);
        return dtype === "uint8" ? (count * DTYPES.uint8.bits) / node.int("bits", 4) : count;
      },
    },
  },
  Gelu: { since: 1 },
  GroupQueryAttention: { since: 1, macs: unknownMacs },
  MatMulIntegerToFloat: {
    since: 1,
    results: [2],
    weights: product(0, 1),
    quantized: { values: [0, 1], parameters: [2, 3, 4, 5] },
    macs: productMacs,
  },
  MatMulNBits: {
    since: 1,
    estimates: true,
    weights: opaque(1),
    quantized: { values: [1], parameters: [2, 3], count: (node) => node.int("K", 0) * node.int("N", 0) },
    macs: nBitsMacs,
  },
  MultiHeadAttention: { since: 1, macs: unknownMacs },
  PackedAttention: { since: 1, macs: unknownMacs },
  QAttention: {
    since: 1,
    results: [3],
    weights: columns(1),
    quantized: { values: [1], parameters: [3, 4, 6, 7] },
    macs: unknownMacs,
  },
  QGemm: {
    since: 1,
    results: [UNKNOWN],
    weights: gemm(3),
    quantized: { values: [0, 3, 6], parameters: [1, 2, 4, 5, 7, 8] },
    macs: productMacs,
  },
  QLinearAdd: QUANTIZED_BINARY,
  QLinearMul: QUANTIZED_BINARY,
  QuickGelu: { since: 1 },
  RotaryEmbedding: { since: 1, estimates: true },
  SkipLayerNormalization: { since: 1, estimates: true },
  SkipSimplifiedLayerNormalization: { since: 1, estimates: true },
} as const satisfies Records;
