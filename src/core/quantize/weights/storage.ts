/**
 * Weights that are kept in few bits and computed with in float, for operators whose kernels take nothing else (Conv, recurrent layers).
 *
 * The stored codes are turned back by plain operators, float = (Cast(codes) − Cast(zero points)) · scales, and not by DequantizeLinear:
 * onnxruntime folds the first into a constant when it loads the model, so that it runs exactly as fast as the original and is laid out
 * for its kernels, but keeps the second in case it can be fused, and then dequantizes every weight in every run (30 % to 70 % slower on
 * PP-OCR). The operators exist in every opset since 7.
 *
 * Four bits: from opset 21 on Cast reads (u)int4. Before, and with two bits, several codes share a byte (`packParts`).
 */
import { type DType, onnxOfDtype } from "../../onnx/dtype.ts";
import { int } from "../../onnx/graph-builder.ts";
import type { Graph, Model, Value } from "../../onnx/ir.ts";
import { elementCount, scalarOf, type Tensor, tensorOf } from "../../onnx/tensor.ts";
import { type CodeBits, packParts, packRows } from "../packing.ts";
import { type CodesForm, type QuantizedForm, type QuantizedWeights, quantizedBytes, requireCodes } from "./codes.ts";
import { type Emitter, unpackParts } from "./packed-parts.ts";
import type { RewriteForm } from "./rewrite.ts";
import { isDepthwise, matrixOf, type WeightSlot } from "./slots.ts";

export interface StorageOptions {
  readonly bits: CodeBits;
  /** Of codes of 4 and 2 bits; 8-bit ones have one scale for each channel. */
  readonly blockSize: number;
  readonly symmetric: boolean;
}

/** Any weight of any operator. */
export function storeCodes(model: Model, weights: QuantizedWeights, options: StorageOptions): RewriteForm {
  const storage = new WeightStorage(model, weights);
  return (slots) => {
    const plans = slots.map((slot) => planStorage(slot, options, model.opset));
    const bits = [...new Set(plans.map((plan) => plan.form.scheme.bits))].join(" and ");
    const [why] = plans.flatMap(({ inEightBits }) => inEightBits ?? []);
    return {
      bytes: plans.reduce((sum, plan) => sum + plan.bytes, 0),
      code: "stored_codes",
      weights: slots.map(({ view }, i) => ({ view, form: plans[i]!.form })),
      message: `Stored in ${bits} bits, computed in float${why ? `: ${why}` : ""}.`,
      apply: () => {
        for (const [i, slot] of slots.entries()) {
          requireCodes(model, plans[i]!.form);
          slot.node.setInput(slot.index, storage.restore(slot, plans[i]!));
        }
      },
    };
  };
}

/** Below this a weight in fewer bits saves less than the operators cost that unpack it. */
export const MIN_PACKED_WEIGHTS = 4096;

/** About what the operators and tensor headers of a stored weight take up in the file. */
const OVERHEAD_BYTES = { 2: 1800, 4: 1000, 8: 250 } as const;

/** First opset whose Cast takes 4-bit integers. */
const OPSET_INT4 = 21;

interface StoragePlan {
  readonly form: QuantizedForm;
  /** Set when several codes share a byte: the dims of the unpacked codes. */
  readonly unpackedDims?: readonly number[];
  /** Why it has 8 bits although fewer were asked for. */
  readonly inEightBits?: string;
  /** Predicted, with what the operators take. */
  readonly bytes: number;
}

function planStorage(slot: WeightSlot, { bits, blockSize, symmetric }: StorageOptions, opset: number): StoragePlan {
  const { view } = slot;
  if (bits === 8) return plan(channelForm(slot, symmetric));
  const matrix = matrixOf(slot);
  const count = elementCount(view.dims);
  const run = blockLength(matrix.depth, blockSize);
  const isPacked = bits === 2 || opset < OPSET_INT4;
  const why =
    (count < MIN_PACKED_WEIGHTS && "fewer bits would not make so few weights smaller") ||
    // A depthwise filter has too few weights to average the error of fewer bits out, and is small anyway.
    (isDepthwise(slot) && "a filter of one channel has too few weights to share a scale of fewer bits") ||
    (!run && "its inputs are not a multiple of any size that blocks of fewer bits have") ||
    (isPacked && (count * bits) % 8 !== 0 && "its weights in fewer bits are no whole number of bytes");
  if (!run || why) return { ...plan(channelForm(slot, symmetric)), inEightBits: why || "" };
  const blocks = matrix.depth / run;
  const rowMajor = matrix.layout === "row-major";
  const cut = rowMajor
    ? { ...matrix, rows: matrix.rows * blocks, depth: run }
    : { ...matrix, batches: matrix.batches * blocks, depth: run };
  const dims = rowMajor ? [cut.rows, run] : [cut.batches, run, cut.rows];
  const signed = symmetric && !isPacked;
  return {
    ...plan({
      matrix: cut,
      scheme: { bits, signed, symmetric, granularity: "channel" },
      layout: { layout: matrix.layout },
      codes: isPacked
        ? { dtype: "uint8", dims: [(count * bits) / 8], pack: (codes) => packParts(codes, bits) }
        : { dtype: signed ? "int4" : "uint4", dims, pack: packFlat },
      ...paramForms(rowMajor ? [cut.rows, 1] : [cut.batches, 1, cut.rows], symmetric),
    }),
    ...(isPacked && { unpackedDims: dims }),
  };
}

function plan(form: QuantizedForm): StoragePlan {
  return { form, bytes: quantizedBytes(form) + OVERHEAD_BYTES[form.scheme.bits] };
}

/** One scale for each output channel, in the shape that broadcasts over the weight. */
function channelForm(slot: WeightSlot, symmetric: boolean): QuantizedForm {
  const { view, depthAxes } = slot;
  const matrix = matrixOf(slot);
  const dtype = symmetric ? "int8" : "uint8";
  return {
    matrix,
    scheme: { bits: 8, signed: symmetric, symmetric, granularity: "channel" },
    keepSums: isDepthwise(slot),
    layout: { layout: matrix.layout },
    codes: { dtype, dims: view.dims },
    ...paramForms(
      view.dims.map((dim, axis) => (axis >= depthAxes[0] && axis < depthAxes[1] ? 1 : dim)),
      symmetric,
    ),
  };
}

function paramForms(dims: readonly number[], symmetric: boolean): Pick<QuantizedForm, "scales" | "zeroPoints"> {
  const zeroPoints: CodesForm = { dtype: "uint8", dims };
  return { scales: { dtype: "float32", dims }, ...(!symmetric && { zeroPoints }) };
}

/**
 * A length of at most `blockSize`, or little more, that divides the depth: plain operators know no blocks of unequal length. Undefined when
 * there is none; then a whole channel is a block.
 */
function blockLength(depth: number, blockSize: number): number | undefined {
  if (depth <= blockSize) return depth;
  for (let length = blockSize; length >= blockSize / 2; length--) if (depth % length === 0) return length;
  for (let length = blockSize + 1; length <= 4 * blockSize; length++) if (depth % length === 0) return length;
  return undefined;
}

function packFlat(codes: Uint8Array): Uint8Array {
  return packRows(codes, codes.length, 4);
}

/** Builds the operators that turn stored codes back into weights; weights read several times in one graph are turned back once. */
class WeightStorage {
  readonly #model: Model;
  readonly #weights: QuantizedWeights;
  readonly #restored = new Map<Graph, Map<string, Value>>();
  readonly #constants = new Map<string, Value>();

  constructor(model: Model, weights: QuantizedWeights) {
    this.#model = model;
    this.#weights = weights;
  }

  /** The weight of `slot` as a float value that its node can read. */
  restore({ node, view }: WeightSlot, { form, unpackedDims }: StoragePlan): Value {
    const restored = this.#restored.get(node.graph) ?? new Map<string, Value>();
    this.#restored.set(node.graph, restored);
    const key = `${view.key} ${JSON.stringify(form)}`;
    const known = restored.get(key);
    if (known) return known;

    const { codes, scales, zeroPoints } = this.#weights.of(view, form);
    const { bits, signed } = form.scheme;
    // Nodes without names: a hundred of them take a hundredth of a small file.
    const op: Emitter["op"] = (opType, inputs, attrs = {}) =>
      node.graph.insertBefore(node, { opType, inputs, outputs: [this.#model.freshName("w")], attrs }).outputs[0]!;
    const cast = (value: Value, dtype: DType = "float32") => op("Cast", [value], { to: int(onnxOfDtype(dtype)) });
    const scalar = (value: number) => this.#constant(`number_${value}`, () => scalarOf("float32", value));

    let value =
      unpackedDims && bits !== 8
        ? op("Reshape", [unpackParts({ op, scalar }, codes, bits), this.#shape(unpackedDims)])
        : cast(codes);
    if (zeroPoints) value = op("Sub", [value, cast(zeroPoints)]);
    else if (!signed) value = op("Sub", [value, scalar(2 ** (bits - 1))]);
    value = op("Mul", [value, scales]);
    if (`${unpackedDims ?? form.codes.dims}` !== `${view.dims}`) value = op("Reshape", [value, this.#shape(view.dims)]);
    if (view.dtype !== "float32") value = cast(value, view.dtype);
    restored.set(key, value);
    return value;
  }

  #shape(dims: readonly number[]): Value {
    return this.#constant(`shape_${dims.join("x")}`, () => tensorOf("int64", [dims.length], dims));
  }

  #constant(name: string, make: () => Tensor): Value {
    const value = this.#constants.get(name) ?? this.#model.graph.addInitializer(name, make());
    this.#constants.set(name, value);
    return value;
  }
}
