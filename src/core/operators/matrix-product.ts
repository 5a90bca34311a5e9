import { einsumOperand } from "./einsum.ts";
import { einsumMacs, productMacs, unknownMacs } from "./macs.ts";
import type { Records } from "./operator-record.ts";
import { gemm, product } from "./weight-operands.ts";

export const MATRIX_PRODUCT = {
  MatMul: {
    since: 1,
    constants: { 0: "weight", 1: "weight" },
    weights: product(0, 1),
    macs: productMacs,
    channels: "matrix product",
    estimates: true,
  },
  Gemm: {
    since: 1,
    defaults: { alpha: 1, beta: 1, transA: 0, transB: 0 },
    constants: { 0: "weight", 1: "weight", 2: "bias" },
    weights: gemm(1),
    macs: productMacs,
    channels: "gemm",
    estimates: true,
  },
  Einsum: {
    since: 12,
    constants: { 0: "weight", 1: "weight" },
    weights: [einsumOperand(0), einsumOperand(1)],
    macs: einsumMacs,
    estimates: true,
  },
  MatMulInteger: {
    since: 10,
    results: ["int32"],
    weights: product(0, 1),
    quantized: { values: [0, 1], parameters: [2, 3] },
    macs: productMacs,
  },
  QLinearMatMul: {
    since: 10,
    results: [7],
    weights: product(0, 3),
    quantized: { values: [0, 3], parameters: [1, 2, 4, 5, 6, 7] },
    macs: productMacs,
  },
  Attention: { since: 23, macs: unknownMacs },
  Det: { since: 11 },
} as const satisfies Records;
