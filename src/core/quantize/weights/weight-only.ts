/**
 * Weight-only quantization by round-to-nearest: weights in 8, 4 or 2 bits, activations in float.
 *
 * | weight of                   | `matmulnbits`                                | `qdq`                                              |
 * |-----------------------------|----------------------------------------------|----------------------------------------------------|
 * | MatMul, Gemm                | MatMulNBits                                  | the DequantizeLinear that onnxruntime fuses to it  |
 * | Gather                      | GatherBlockQuantized                         | Gather of codes and of scales, in 8 bits           |
 * | Conv, recurrent, all others | codes and operators that are folded at load  | DequantizeLinear, in every run                     |
 *
 * What the model's opset has no DequantizeLinear for (a scale for each channel needs 13, blocks and 4 bits 21) takes the last form of
 * `matmulnbits`, which is plain ONNX in every opset.
 */
import type { Model } from "../../onnx/ir.ts";
import { type Exclusions, exclusionTest, type NodeTest, type Pass } from "../../passes/pass.ts";
import { WeightViews } from "../../passes/weight-views.ts";
import type { CodeBits } from "../packing.ts";
import type { WeightUse } from "../plan.ts";
import { QuantizedWeights } from "./codes.ts";
import { gatherBlockQuantized, matMulNBits, tiedMatrices } from "./contrib.ts";
import { dequantizeAny, dequantizeForMatMul } from "./dequantize.ts";
import { gatherCodes } from "./gather.ts";
import { planWeights, type RewriteForm, rewriteWeights } from "./rewrite.ts";
import type { WeightSlot } from "./slots.ts";
import { storeCodes } from "./storage.ts";

export interface WeightOnlyOptions {
  /** Two bits are for MatMul, Gemm and Gather in `matmulnbits`; everything else then has four. */
  readonly bits: CodeBits;
  /** Weights that share a scale, along the axis that is summed over: a power of two from 16 to 256. */
  readonly blockSize: number;
  readonly symmetric: boolean;
  readonly format: "matmulnbits" | "qdq";
  /** Also the tables that Gather reads. */
  readonly embeddings: boolean;
  /** Of MatMulNBits: 4 computes in int8, 1 in float32, 0 leaves it to the runtime. */
  readonly accuracyLevel: 0 | 1 | 4;
  readonly exclude: Exclusions;
}

/**
 * Stores weights in few bits; every node that holds one is noted with the form it got, or with the reason why it got none. `weights` takes
 * the weights of one model: the pass is run once. `onWeights` is told which weights are quantized.
 */
export function weightOnlyPass(
  options: WeightOnlyOptions,
  weights = new QuantizedWeights(),
  onWeights: (uses: readonly WeightUse[]) => void = () => {},
): Pass {
  return {
    name: "weight_only",
    run: (model, note) => {
      const views = new WeightViews();
      const formsFor = (slots: readonly WeightSlot[]) => formsOf(model, views, weights, options, slots);
      const uses = rewriteWeights(model, views, excludedFrom(options), formsFor, note);
      onWeights(uses);
      return uses.length > 0;
    },
  };
}

/** What `weightOnlyPass` does to each node of `model`, which stays as it is. */
export function planWeightOnly(
  model: Model,
  views: WeightViews,
  options: WeightOnlyOptions,
): ReturnType<typeof planWeights> {
  const none = new QuantizedWeights();
  return planWeights(model, views, excludedFrom(options), (slots) => formsOf(model, views, none, options, slots));
}

function excludedFrom({ embeddings, exclude }: WeightOnlyOptions): NodeTest {
  return exclusionTest({ ...exclude, ops: embeddings ? exclude.ops : [...exclude.ops, "Gather"] });
}

function formsOf(
  model: Model,
  views: WeightViews,
  weights: QuantizedWeights,
  options: WeightOnlyOptions,
  slots: readonly WeightSlot[],
): RewriteForm[] {
  const { bits, blockSize, symmetric } = options;
  const plain = { bits: bits === 8 ? 8 : 4, blockSize, symmetric } as const;
  if (options.format === "qdq") {
    return [
      gatherCodes(weights),
      dequantizeForMatMul(model, views, weights, plain),
      dequantizeAny(model, weights, plain),
      storeCodes(model, weights, plain),
    ];
  }
  const tied = tiedMatrices(slots, views, blockSize);
  return [
    gatherBlockQuantized(model, weights, options, tied),
    matMulNBits(model, views, weights, options, tied),
    gatherCodes(weights),
    storeCodes(model, weights, plain),
  ];
}
