/**
 * Weights in onnxruntime's own operators.
 *
 * MatMulNBits reads codes [N, blocks, block · bits / 8] (the depth padded to whole blocks), scales [N, blocks] and zero points
 * [N, ⌈blocks · bits / 8⌉]; without zero points zero is the middle code. GatherBlockQuantized reads the same bytes as [V, D · bits / 8], so a
 * table of embeddings that is also the output projection is stored once.
 */
import type { Attr, Model } from "../../onnx/ir.ts";
import { tensorOf } from "../../onnx/tensor.ts";
import type { WeightView, WeightViews } from "../../passes/weight-views.ts";
import { type CodeBits, packedRowBytes, packRows } from "../packing.ts";
import type { WeightMatrix } from "../rounding/blocks.ts";
import { blockCount } from "../rounding/weight-tiles.ts";
import { type QuantizedForm, type QuantizedWeights, quantizedBytes } from "./codes.ts";
import { isRowGather } from "./gather.ts";
import { linearLayer, replaceLayer } from "./linear-layer.ts";
import { replaceNode } from "./replace-node.ts";
import type { RewriteForm } from "./rewrite.ts";
import { matrixOf, type WeightSlot } from "./slots.ts";

const DOMAIN = "com.microsoft";

export interface BlockOptions {
  readonly bits: CodeBits;
  readonly blockSize: number;
  readonly symmetric: boolean;
  readonly accuracyLevel: 0 | 1 | 4;
}

/** What the kernels take: float32 and float16. */
function hasKernel({ dtype }: WeightView): boolean {
  return dtype === "float32" || dtype === "float16";
}

/** MatMul and Gemm as MatMulNBits. Matrices in `tied` are stored in a form that `gatherBlockQuantized` can share. */
export function matMulNBits(
  model: Model,
  views: WeightViews,
  weights: QuantizedWeights,
  options: BlockOptions,
  tied: ReadonlySet<string>,
): RewriteForm {
  return (slots) => {
    const layer = slots.length === 1 ? linearLayer(slots[0]!, views) : undefined;
    if (!layer || !hasKernel(layer.weight)) return undefined;
    const { weight, matrix, alpha } = layer;
    const { bits, accuracyLevel } = options;
    const blockSize = tied.has(weight.key)
      ? dividingBlock(matrix.depth, options.blockSize)
      : Math.min(options.blockSize, Math.max(16, 2 ** Math.ceil(Math.log2(matrix.depth))));
    const form = blockForm(weight, matrix, { ...options, blockSize }, alpha);
    return {
      bytes: quantizedBytes(form) + OVERHEAD_BYTES,
      code: "matmulnbits",
      weights: [{ view: weight, form }],
      message: `MatMulNBits: ${bits} bits, blocks of ${blockSize}.`,
      apply: () => {
        const { codes, scales, zeroPoints } = weights.of(weight, form);
        model.requireOpset(DOMAIN, 1);
        replaceLayer(layer, (input, bias) => ({
          opType: "MatMulNBits",
          domain: DOMAIN,
          inputs: bias ? [input, codes, scales, zeroPoints, undefined, bias] : [input, codes, scales, zeroPoints],
          attrs: ints({
            K: matrix.depth,
            N: matrix.rows,
            bits,
            block_size: blockSize,
            ...(accuracyLevel !== 0 && { accuracy_level: accuracyLevel }),
          }),
        }));
      },
    };
  };
}

/** Gather from the rows of a matrix as GatherBlockQuantized. */
export function gatherBlockQuantized(
  model: Model,
  weights: QuantizedWeights,
  options: BlockOptions,
  tied: ReadonlySet<string>,
): RewriteForm {
  return ([slot, second]) => {
    if (!slot || second || !isRowGather(slot) || !hasKernel(slot.view)) return undefined;
    const { node, view } = slot;
    const matrix = matrixOf(slot);
    const { bits } = options;
    const isTied = tied.has(view.key);
    const blockSize = isTied ? dividingBlock(matrix.depth, options.blockSize) : options.blockSize;
    if ((matrix.depth * bits) % 8 !== 0) return undefined;
    const form = blockForm(view, matrix, { ...options, blockSize });
    const dims = [matrix.rows, packedRowBytes(matrix.depth, bits)];
    const flat: QuantizedForm = {
      ...form,
      layout: { layout: "row-major" },
      codes: { ...form.codes, dims },
    };
    return {
      bytes: quantizedBytes(flat) + OVERHEAD_BYTES,
      code: "gather_block_quantized",
      weights: [{ view, form: isTied ? form : flat }],
      message: `GatherBlockQuantized: ${bits} bits, blocks of ${blockSize}${isTied ? ", shared with a MatMulNBits" : ""}.`,
      apply: () => {
        const made = weights.of(view, isTied ? form : flat);
        let { codes } = made;
        if (isTied) {
          const shape = view.graph.addInitializer(`${view.sources[0]!.name}_shape`, tensorOf("int64", [2], dims));
          codes = node.graph.insertBefore(node, { opType: "Reshape", inputs: [codes, shape], outputs: 1 }).outputs[0]!;
        }
        model.requireOpset(DOMAIN, 1);
        replaceNode(node, {
          opType: "GatherBlockQuantized",
          domain: DOMAIN,
          inputs: [codes, node.inputs[1], made.scales, made.zeroPoints],
          attrs: ints({ gather_axis: 0, quantize_axis: 1, block_size: blockSize, bits }),
        });
      },
    };
  };
}

/** Keys of the matrices that both a Gather and a linear layer of `slots` read row by row: embeddings that are the output projection too. */
export function tiedMatrices(slots: Iterable<WeightSlot>, views: WeightViews, blockSize: number): Set<string> {
  const gathered = new Set<string>();
  const multiplied = new Set<string>();
  for (const slot of slots) {
    if (isRowGather(slot)) gathered.add(slot.view.key);
    const layer = linearLayer(slot, views);
    if (layer?.matrix.layout === "row-major" && dividingBlock(layer.matrix.depth, blockSize) >= 16) {
      multiplied.add(layer.weight.key);
    }
  }
  return new Set([...gathered].filter((key) => multiplied.has(key)));
}

/** The largest power of two up to `blockSize` that divides the depth. */
function dividingBlock(depth: number, blockSize: number): number {
  let block = blockSize;
  while (depth % block !== 0) block /= 2;
  return block;
}

function blockForm(
  view: WeightView,
  matrix: Omit<WeightMatrix, "values">,
  { bits, blockSize, symmetric }: Pick<BlockOptions, "bits" | "blockSize" | "symmetric">,
  factor = 1,
): QuantizedForm {
  const { rows, depth } = matrix;
  const blocks = blockCount(depth, blockSize);
  const dtype = view.dtype === "float16" ? "float16" : "float32";
  return {
    matrix,
    scheme: { bits, signed: false, symmetric, granularity: { block: blockSize }, scaleDType: dtype },
    layout: { layout: "row-major", padded: true },
    codes: {
      dtype: "uint8",
      dims: [rows, blocks, (blockSize * bits) / 8],
      pack: (codes) => packRows(codes, codes.length / rows, bits),
    },
    scales: { dtype, dims: [rows, blocks], factor },
    ...(!symmetric && {
      zeroPoints: {
        dtype: "uint8",
        dims: [rows, packedRowBytes(blocks, bits)],
        pack: (zeroPoints) => packRows(zeroPoints, blocks, bits),
      },
    }),
  };
}

/** About what a node and the headers of its tensors take up in the file. */
const OVERHEAD_BYTES = 200;

function ints(values: Readonly<Record<string, number>>): Record<string, Attr> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, { type: "int", value }]));
}
