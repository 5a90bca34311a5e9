/**
 * Weights in plain ONNX: DequantizeLinear.
 *
 * onnxruntime turns DequantizeLinear → MatMul into MatMulNBits when the weight is [K, N], its codes and parameters are constant and
 * nothing else reads it: blocks along axis 0 (a power of two), or a scale for each column. Gemm fuses too, without transB and with
 * alpha = 1. Everywhere else it dequantizes the weight in every run, and so it does before a Relu or Clip that something else reads.
 */
import type { Attr, Model, Node, Value } from "../../onnx/ir.ts";
import { tensorOf } from "../../onnx/tensor.ts";
import { operatorOf } from "../../operators/operators.ts";
import type { WeightViews } from "../../passes/weight-views.ts";
import { packRows } from "../packing.ts";
import type { WeightMatrix } from "../rounding/blocks.ts";
import { blockCount } from "../rounding/weight-tiles.ts";
import { dtypeOf, type WeightScheme } from "../scheme.ts";
import {
  type CodesForm,
  type QuantizedForm,
  type QuantizedWeight,
  type QuantizedWeights,
  quantizedBytes,
  requireCodes,
} from "./codes.ts";
import { type LinearLayer, linearLayer } from "./linear-layer.ts";
import type { RewriteForm } from "./rewrite.ts";
import { isDepthwise, matrixOf } from "./slots.ts";

export interface QdqOptions {
  readonly bits: 4 | 8;
  readonly blockSize: number;
  readonly symmetric: boolean;
}

/** First opsets whose DequantizeLinear has a scale for each channel, float16 scales, blocks and 4 bits. */
const OPSET = { channels: 13, float16: 19, blocks: 21 } as const;

/** What the codes of a matrix look like, and the attributes of the DequantizeLinear that reads them; undefined before the opset that can. */
function dequantizedForm(
  dtype: "float32" | "float16",
  matrix: Omit<WeightMatrix, "values">,
  layout: WeightMatrix["layout"],
  options: QdqOptions & { readonly byChannel: boolean },
  opset: number,
): { readonly form: QuantizedForm; readonly attrs: Readonly<Record<string, Attr>> } | undefined {
  const { bits, symmetric } = options;
  const { rows, depth } = matrix;
  const blocked = opset >= OPSET.blocks && !(bits === 8 && options.byChannel);
  if (opset < OPSET.channels || (bits === 4 && !blocked)) return undefined;
  if (dtype === "float16" && opset < OPSET.float16) return undefined;
  const rowMajor = layout === "row-major";
  const blockSize = blocked ? options.blockSize : depth;
  const blocks = blockCount(depth, blockSize);
  const paramDims = blocked ? (rowMajor ? [rows, blocks] : [blocks, rows]) : [rows];
  const scheme: WeightScheme = {
    bits,
    signed: symmetric,
    symmetric,
    granularity: blocked && blockSize < depth ? { block: blockSize } : "channel",
    scaleDType: dtype,
  };
  const codeDType = dtypeOf(scheme);
  const flat = (dims: readonly number[]): CodesForm => ({
    dtype: codeDType,
    dims,
    pack: (codes) => packRows(codes, codes.length, bits),
  });
  const depthAxis = rowMajor ? 1 : 0;
  return {
    form: {
      matrix,
      scheme,
      layout: { layout },
      codes: flat(rowMajor ? [rows, depth] : [depth, rows]),
      scales: { dtype, dims: paramDims },
      ...(!symmetric && { zeroPoints: flat(paramDims) }),
    },
    attrs: blocked ? { axis: int(depthAxis), block_size: int(blockSize) } : { axis: int(1 - depthAxis) },
  };
}

function int(value: number): Attr {
  return { type: "int", value };
}

/** About what a node and the headers of its tensors take up in the file. */
const OVERHEAD_BYTES = 250;

/** MatMul and Gemm that read their weight, as [K, N], from a DequantizeLinear of their own. */
export function dequantizeForMatMul(
  model: Model,
  views: WeightViews,
  weights: QuantizedWeights,
  options: QdqOptions,
): RewriteForm {
  return (slots) => {
    const layer = slots.length === 1 ? linearLayer(slots[0]!, views) : undefined;
    if (layer?.weight.dtype !== "float32" && layer?.weight.dtype !== "float16") return undefined;
    const { weight, matrix, node, alpha } = layer;
    const made = dequantizedForm(
      weight.dtype as "float32" | "float16",
      matrix,
      "column-major",
      { ...options, byChannel: false },
      model.opset,
    );
    if (!made) return undefined;
    const form: QuantizedForm = { ...made.form, scales: { ...made.form.scales, factor: alpha } };
    const fuses = !feedsClip(layer);
    const how = fuses ? "runs as MatMulNBits" : "dequantizes in every run, because of what follows";
    return {
      bytes: quantizedBytes(form) + OVERHEAD_BYTES,
      code: fuses ? "dequantize_matmul" : "dequantize",
      weights: [{ view: weight, form }],
      message: `DequantizeLinear before ${node.opType}, which onnxruntime ${how}: ${describe(made.form, options)}.`,
      apply: () => {
        requireCodes(model, form);
        // onnxruntime 1.30 refuses to load a body whose MatMul it fuses when the weight is in a graph outside.
        node.setInput(1, insertDequantize(node, weights.of(weight, form, node.graph), made.attrs));
        node.setAttr("transB", undefined);
        node.setAttr("alpha", undefined);
      },
    };
  };
}

/** Whether a layer's output goes through a Relu or Clip: onnxruntime 1.30 then looks for a QuantizeLinear behind that. */
function feedsClip({ node, add }: LinearLayer): boolean {
  const output = (add ?? node).outputs[0]!;
  const [use] = output.uses;
  if (!use || output.uses.length > 1 || output.isGraphOutput) return false;
  return operatorOf(use.node)?.clamps !== undefined && use.node.outputs[0]!.uses.length > 0;
}

/** Any weight, from a DequantizeLinear. */
export function dequantizeAny(model: Model, weights: QuantizedWeights, options: QdqOptions): RewriteForm {
  return (slots) => {
    const parts = slots.map((slot) => {
      const matrix = matrixOf(slot);
      const { dtype } = slot.view;
      if ((dtype !== "float32" && dtype !== "float16") || matrix.batches !== 1) return undefined;
      const made = dequantizedForm(dtype, matrix, matrix.layout, { ...options, byChannel: true }, model.opset);
      if (!made) return undefined;
      const { form, attrs } = made;
      // A scale for each index of the first axis needs no matrix.
      const direct =
        form.scales.dims.length === 1 && matrix.layout === "row-major" && slot.view.dims[0] === matrix.rows;
      if (!direct) return { slot, attrs, form };
      return {
        slot,
        attrs,
        form: { ...form, keepSums: isDepthwise(slot), codes: { ...form.codes, dims: slot.view.dims } },
      };
    });
    if (!parts.every((part) => part !== undefined)) return undefined;
    return {
      bytes: parts.reduce((sum, { form }) => sum + quantizedBytes(form) + OVERHEAD_BYTES, 0),
      code: "dequantize",
      weights: parts.map(({ slot: { view }, form }) => ({ view, form })),
      message: `DequantizeLinear, computed in float: ${describe(parts[0]!.form, options)}. onnxruntime dequantizes in every run.`,
      apply: () => {
        for (const { slot, form, attrs } of parts) {
          const { node, index, view } = slot;
          requireCodes(model, form);
          let value = insertDequantize(node, weights.of(view, form), attrs);
          if (`${form.codes.dims}` !== `${view.dims}`) {
            const dims = tensorOf("int64", [view.dims.length], view.dims);
            const shape = view.graph.addInitializer(`${view.sources[0]!.name}_shape`, dims);
            value = node.graph.insertBefore(node, { opType: "Reshape", inputs: [value, shape], outputs: 1 })
              .outputs[0]!;
          }
          node.setInput(index, value);
        }
      },
    };
  };
}

function describe({ scheme: { granularity } }: QuantizedForm, { bits }: QdqOptions): string {
  return `${bits} bits, ${typeof granularity === "object" ? `blocks of ${granularity.block}` : "one scale for each channel"}`;
}

function insertDequantize(node: Node, weight: QuantizedWeight, attrs: Readonly<Record<string, Attr>>): Value {
  const { codes, scales, zeroPoints } = weight;
  const inputs = zeroPoints ? [codes, scales, zeroPoints] : [codes, scales];
  return node.graph.insertBefore(node, { opType: "DequantizeLinear", inputs, outputs: 1, attrs }).outputs[0]!;
}
