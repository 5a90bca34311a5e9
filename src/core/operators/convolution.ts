import { convolutionMacs, transposedConvolutionMacs } from "./macs.ts";
import type { Records } from "./operator-record.ts";
import { convolution, TRANSPOSED_CONVOLUTION } from "./weight-operands.ts";

const LAYER = { 1: "weight", 2: "bias" } as const;

export const CONVOLUTION = {
  Conv: {
    since: 1,
    constants: LAYER,
    weights: convolution(1),
    macs: convolutionMacs(1),
    channels: "convolution",
    window: { weight: 1 },
    estimates: true,
  },
  ConvTranspose: {
    since: 1,
    constants: LAYER,
    weights: TRANSPOSED_CONVOLUTION,
    macs: transposedConvolutionMacs,
    channels: "transposed convolution",
    window: { weight: 1 },
    estimates: true,
  },
  /** X, W, offsets, bias, mask: W as of a Conv. */
  DeformConv: { since: 19, weights: convolution(1), macs: convolutionMacs(1), estimates: true, exact: [2] },
  ConvInteger: {
    since: 10,
    results: ["int32"],
    weights: convolution(1),
    quantized: { values: [1], parameters: [2, 3] },
    macs: convolutionMacs(1),
    window: { weight: 1 },
  },
  QLinearConv: {
    since: 10,
    results: [7],
    weights: convolution(3),
    quantized: { values: [3, 8], parameters: [1, 2, 4, 5, 6, 7] },
    macs: convolutionMacs(3),
    window: { weight: 3 },
  },
} as const satisfies Records;
