/** What onnxruntime's kernels take on kinds of processors that are not at hand: one table for each, fitted to its profiler by `bench/kernel-costs.ts`. */
import type { Node } from "../onnx/ir.ts";
import { entryFor, type OpType } from "../operators/operators.ts";
import type { Cost, Costs } from "./target.ts";

/** Of one thread. Only ratios mean something: how fast the processor is as a whole is not in them. */
export interface CostTable {
  readonly convolution: Costs;
  readonly depthwise: Costs;
  /** Products of matrices. */
  readonly product: Costs;
  /** Operators without a weight; those that were not measured cost the same either way. */
  readonly pointwise: Readonly<Partial<Record<OpType, Costs>>>;
  /** Relu or Clip behind anything but a convolution, which takes it in. */
  readonly clip: Cost;
  readonly quantize: Cost;
  readonly dequantize: Cost;
  /** Into the layout that float convolutions compute in, or out of it. */
  readonly reorder: Cost;
  /** Positions of the output that a convolution of one axis works on at a time in float. */
  readonly floatTile: number;
}

/** By what the service calls the targets. */
const COST_TABLES: ReadonlyMap<string, CostTable> = new Map([
  [
    "x64-avx2",
    /*
     * Least squares over every node of PP-OCR's recognizer and classifier (AVX2 and no VNNI, a loaded machine); matrix products have the ratio that they
     * had in a transformer. For eight of ten nodes it says 0.4 to 1.4 times what was measured.
     */
    {
      convolution: { float: [7.9, 0.0281, 0.036], int8: [12.6, 0.0109, 0.198] },
      depthwise: { float: [6.7, 0.0224, 0.32], int8: [21.7, 0.0488, 0.364] },
      product: { float: [7.9, 0.0281, 0.036], int8: [12.6, 0.0138, 0.198] },
      pointwise: {
        Add: { float: [4.4, 0, 0.194], int8: [7, 0, 0.109] },
        Mul: { float: [4.5, 0, 0.223], int8: [7.4, 0, 0.267] },
        /** As the Add that it becomes. */
        HardSigmoid: { float: [3.1, 0, 0.234], int8: [7, 0, 0.109] },
        Sigmoid: { float: [3.1, 0, 0.234], int8: [7.1, 0, 0.382] },
        Concat: { float: [6.7, 0, 0.371], int8: [6.2, 0, 0.307] },
        GlobalAveragePool: { float: [5.6, 0, 19.8], int8: [7.5, 0, 20.1] },
      },
      clip: [3.1, 0, 0.234],
      quantize: [3.2, 0, 0.869],
      dequantize: [5, 0, 0.3],
      reorder: [3.5, 0, 0.2],
      floatTile: 16,
    },
  ],
  [
    "x64-vnni",
    /*
     * `bench/kernel-costs.ts` on PP-OCR's recognizer, detector and classifier, MobileNetV2 and two encoders (Xeon with AVX-512 VNNI and AMX, 29 November
     * 2026, otherwise idle): 849 kernels. For eight of ten convolutions and products it says 0.3 to 1.7 times what was measured.
     */
    {
      convolution: { float: [5.57, 0.0149, 0.337], int8: [3.99, 0.00385, 0.169] },
      depthwise: { float: [0, 0.0165, 0.611], int8: [7.5, 0.0249, 0.392] },
      product: { float: [6.32, 0.0136, 0.759], int8: [5.79, 0.00134, 0.806] },
      pointwise: {
        Add: { float: [0, 0, 0.513], int8: [0.944, 0, 0.13] },
        Mul: { float: [0, 0, 0.336], int8: [2.48, 0, 0.329] },
        /** Float convolutions take it in. */
        HardSigmoid: { float: [0, 0, 0], int8: [1.3, 0, 3.19] },
        /** In float as on AVX2: none stood alone. */
        Sigmoid: { float: [3.1, 0, 0.234], int8: [3.89, 0, 0.312] },
        Concat: { float: [0, 0, 0.353], int8: [0, 0, 0.198] },
        GlobalAveragePool: { float: [4.44, 0, 16.3], int8: [1.51, 0, 10.6] },
        Transpose: { float: [4.25, 0, 0.362], int8: [2.84, 0, 0.228] },
        Resize: { float: [0, 0, 0.419], int8: [17.5, 0, 1.44] },
      },
      clip: [0, 0, 0.286],
      quantize: [1.53, 0, 0.353],
      dequantize: [3.85, 0, 0.197],
      reorder: [0.516, 0, 0.244],
      floatTile: 16,
    },
  ],
]);

/** The table of a target; undefined where there is none. */
export function costTableOf(target: string): CostTable | undefined {
  return COST_TABLES.get(target);
}

/** What measured costs of parts of a model are held against, on processors without a table of their own. */
export const USUAL_COSTS: CostTable = COST_TABLES.get("x64-avx2")!;

const EVEN: Costs = { float: [0, 0, 0], int8: [0, 0, 0] };

/** What a node costs; `weightDims` are of its weight, undefined where it has none. */
export function costsOf(table: CostTable, node: Node, weightDims: readonly number[] | undefined): Costs {
  if (!weightDims) return entryFor(table.pointwise, node) ?? EVEN;
  if (!takesInActivation(node)) return table.product;
  return weightDims[1] === 1 ? table.depthwise : table.convolution;
}

/** Whether the kernel of a node computes a Relu or Clip behind it at no cost. */
export function takesInActivation({ domain, opType }: Node): boolean {
  return domain === "" && opType === "Conv";
}

/** Microseconds of the machine that the table was measured on. */
export function timeOf([call, perProduct, perElement]: Cost, products: number, elements: number): number {
  return call + (perProduct * products + perElement * elements) / 1000;
}
