import { dtypeOfOnnx } from "../onnx/dtype.ts";
import type { Records } from "./operator-record.ts";

/** The way from floats to quantized values and back. */
export const QUANTIZATION = {
  QuantizeLinear: {
    since: 10,
    results: [(node, typeOf) => typeOf(node.inputs[2]) ?? dtypeOfOnnx(node.int("output_dtype") || 2)],
    steering: [1, 2],
  },
  DequantizeLinear: { since: 10, results: [1], quantized: { values: [0], parameters: [1, 2] } },
  DynamicQuantizeLinear: { since: 11, results: ["uint8", "float32", "uint8"] },
} as const satisfies Records;
