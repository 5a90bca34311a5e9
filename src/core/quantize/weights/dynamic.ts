/**
 * Dynamic quantization: weights are int8, activations become uint8 as they come, with the range each tensor has in that run. Needs no data.
 *
 * | weight of    | becomes                                                                                            |
 * |--------------|----------------------------------------------------------------------------------------------------|
 * | MatMul, Gemm | DynamicQuantizeMatMul                                                                              |
 * | LSTM         | DynamicQuantizeLSTM                                                                                |
 * | Gather       | Gather of int8 codes and of a scale for each row                                                   |
 * | all others   | int8 codes that onnxruntime turns into floats at load: the file shrinks, the computation stays float |
 *
 * The last row holds for Conv on purpose. There is a ConvInteger, but it is five times slower than float; convolutions become faster with
 * calibrated activations only (the static method). Each MatMul quantizes its own input: one DynamicQuantizeLinear for the three
 * projections of an attention layer with a MatMulIntegerToFloat each is at most 4 % faster.
 */
import type { Model } from "../../onnx/ir.ts";
import { tensorOf } from "../../onnx/tensor.ts";
import { type Exclusions, exclusionTest, type Pass } from "../../passes/pass.ts";
import { WeightViews } from "../../passes/weight-views.ts";
import type { WeightUse } from "../plan.ts";
import { type QuantizedForm, QuantizedWeights, quantizedBytes } from "./codes.ts";
import { gatherCodes, isRowGather, rowCodes } from "./gather.ts";
import { linearLayer, replaceLayer } from "./linear-layer.ts";
import { replaceNode } from "./replace-node.ts";
import { type RewriteForm, rewriteWeights } from "./rewrite.ts";
import { matrixOf, type WeightSlot } from "./slots.ts";
import { storeCodes } from "./storage.ts";

export interface DynamicOptions {
  /** A scale for each output channel rather than for each weight. */
  readonly perChannel: boolean;
  /**
   * Weights are scaled so that kernels which add two products in 16 bits cannot overflow: needed on x64 without VNNI, and wherever the
   * model may meet such a machine. Costs a fraction of a bit.
   */
  readonly reduceRange: boolean;
  readonly exclude: Exclusions;
}

type KernelOptions = Pick<DynamicOptions, "perChannel" | "reduceRange">;

const DOMAIN = "com.microsoft";

/** About what a node and the headers of its tensors take up in the file. */
const OVERHEAD_BYTES = 200;

/** int8 weights and dynamically quantized activations; every node that holds a weight is noted with the form it got, or the reason why not. `onWeights` is told which are quantized. */
export function dynamicPass(options: DynamicOptions, onWeights: (uses: readonly WeightUse[]) => void = () => {}): Pass {
  return {
    name: "dynamic",
    run: (model, note) => {
      const views = new WeightViews();
      const isExcluded = exclusionTest(options.exclude);
      const formsFor = (slots: readonly WeightSlot[]) => formsOf(model, views, options, slots);
      const uses = rewriteWeights(model, views, isExcluded, formsFor, note);
      onWeights(uses);
      return uses.length > 0;
    },
  };
}

function formsOf(
  model: Model,
  views: WeightViews,
  options: DynamicOptions,
  slots: readonly WeightSlot[],
): RewriteForm[] {
  const weights = new QuantizedWeights();
  const gathered = new Set(slots.filter(isRowGather).map(({ view }) => view.key));
  return [
    dynamicLstm(model, weights, options),
    dynamicMatMul(model, views, weights, options, gathered),
    gatherCodes(weights, options.reduceRange),
    storedConv(storeCodes(model, weights, { bits: 8, blockSize: 0, symmetric: true })),
  ];
}

/** How a weight is quantized for a kernel that multiplies uint8 with int8. */
function schemeOf({ perChannel, reduceRange }: KernelOptions): QuantizedForm["scheme"] {
  const granularity = perChannel ? "channel" : "tensor";
  return { bits: 8, signed: true, symmetric: true, granularity, reduceRange };
}

/**
 * MatMul and Gemm. Weights that a Gather reads row by row (`gathered`) stay as that stores them, [N, K], and reach the kernel through a
 * Transpose that is folded at load.
 */
function dynamicMatMul(
  model: Model,
  views: WeightViews,
  weights: QuantizedWeights,
  options: DynamicOptions,
  gathered: ReadonlySet<string>,
): RewriteForm {
  return (slots) => {
    const layer = slots.length === 1 ? linearLayer(slots[0]!, views) : undefined;
    if (layer?.weight.dtype !== "float32") return undefined;
    const { node, weight, matrix, alpha } = layer;
    const tied = gathered.has(weight.key) && matrix.layout === "row-major" && alpha === 1;
    const form: QuantizedForm = tied
      ? rowCodes(matrix, weight.dtype, options.reduceRange)
      : {
          matrix,
          scheme: schemeOf(options),
          layout: { layout: "column-major" },
          codes: { dtype: "int8", dims: [matrix.depth, matrix.rows] },
          scales: { dtype: "float32", dims: [matrix.rows], factor: alpha },
        };
    return {
      bytes: quantizedBytes(form) + OVERHEAD_BYTES,
      code: "dynamic_matmul",
      weights: [{ view: weight, form }],
      message: `DynamicQuantizeMatMul${tied ? ", its weight shared with a Gather" : ""}.`,
      apply: () => {
        let { codes, scales } = weights.of(weight, form);
        if (tied) {
          const before = (opType: string, inputs: (typeof codes)[], attrs = {}) =>
            node.graph.insertBefore(node, { opType, inputs, outputs: 1, attrs }).outputs[0]!;
          const shape = weight.graph.addInitializer(`${codes.name}_rows`, tensorOf("int64", [1], [matrix.rows]));
          codes = before("Transpose", [codes], { perm: { type: "ints", value: [1, 0] } });
          scales = before("Reshape", [scales, shape]);
        }
        model.requireOpset(DOMAIN, 1);
        replaceLayer(layer, (input, bias) => ({
          opType: "DynamicQuantizeMatMul",
          domain: DOMAIN,
          inputs: bias ? [input, codes, scales, undefined, bias] : [input, codes, scales],
        }));
      },
    };
  };
}

/** LSTM in the default layout: W and R become [directions, inputs, 4 · hidden], with scales and zero points [directions, 4 · hidden]. */
export function dynamicLstm(model: Model, weights: QuantizedWeights, options: KernelOptions): RewriteForm {
  return (slots) => {
    const [w, r] = slots;
    const node = w?.node;
    if (node?.opType !== "LSTM" || !w || !r || node.int("layout", 0) !== 0) return undefined;
    if (w.view.dtype !== "float32" || r.view.dtype !== "float32") return undefined;
    const forms = [w, r].map((slot): QuantizedForm => {
      const matrix = matrixOf(slot);
      const [directions, rows, depth] = slot.view.dims as [number, number, number];
      return {
        matrix: { ...matrix, batches: directions, rows },
        scheme: schemeOf(options),
        layout: { layout: "column-major" },
        codes: { dtype: "int8", dims: [directions, depth, rows] },
        scales: { dtype: "float32", dims: [directions, rows] },
        zeroPoints: { dtype: "int8", dims: [directions, rows] },
      };
    });
    return {
      bytes: forms.reduce((sum, form) => sum + quantizedBytes(form), 2 * OVERHEAD_BYTES),
      code: "dynamic_lstm",
      weights: [w, r].map(({ view }, i) => ({ view, form: forms[i]! })),
      message: "DynamicQuantizeLSTM.",
      apply: () => {
        const [wide, recurrent] = [weights.of(w.view, forms[0]!), weights.of(r.view, forms[1]!)];
        const [x, , , bias, lengths, hidden, cell, peepholes] = node.inputs;
        const { layout: _, ...attrs } = Object.fromEntries(node.attrs);
        model.requireOpset(DOMAIN, 1);
        replaceNode(node, {
          opType: "DynamicQuantizeLSTM",
          domain: DOMAIN,
          inputs: [
            ...[x, wide.codes, recurrent.codes, bias, lengths, hidden, cell, peepholes],
            ...[wide.scales, wide.zeroPoints, recurrent.scales, recurrent.zeroPoints],
          ],
          attrs,
        });
      },
    };
  };
}

/** What is stored only, with the reason why it is not faster. */
function storedConv(store: RewriteForm): RewriteForm {
  return (slots) => {
    const rewrite = store(slots);
    if (!rewrite || !slots[0]!.node.opType.startsWith("Conv")) return rewrite;
    return {
      ...rewrite,
      code: "conv_needs_calibration",
      message:
        "Stored in 8 bits, computed in float: an integer convolution needs calibrated activations (method static).",
    };
  };
}
