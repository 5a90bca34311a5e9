/**
 * Weights that are kept in few bits and computed with in float, for operators whose kernels take nothing else (Conv, recurrent layers).
 *
 * The stored codes are turned back by plain operators, float = (Cast(codes) − Cast(zero points)) · scales, and not by DequantizeLinear:
 * onnxruntime folds the first into a constant when it loads the model, so that it runs exactly as fast as the original and is laid out
 * for its kernels, but keeps the second in case it can be fused, and then dequantizes every weight in every run (30 % to 70 % slower on
 * PP-OCR). The operators exist in every opset since 7.
 *
 * Four bits: from opset 21 on Cast reads (u)int4. Before, two codes share a byte, the first half of the weight in the low bits and the
 * second half in the high bits: high = ⌊byte / 16⌋, low = byte − 16 · high, exact in float32.
 */
import { type DType, onnxOfDtype } from "../../onnx/dtype.ts";
import type { Attr, Graph, Model, Value } from "../../onnx/ir.ts";
import { elementCount, scalarOf, type Tensor, tensorOf } from "../../onnx/tensor.ts";
import { packRows } from "../packing.ts";
import { type CodesForm, type QuantizedForm, type QuantizedWeights, quantizedBytes, requireCodes } from "./codes.ts";
import type { RewriteForm } from "./rewrite.ts";
import { isDepthwise, matrixOf, type WeightSlot } from "./slots.ts";

export interface StorageOptions {
  readonly bits: 4 | 8;
  /** Of 4-bit codes; 8-bit ones have one scale for each channel. */
  readonly blockSize: number;
  readonly symmetric: boolean;
}

/** Any weight of any operator. */
export function storeCodes(model: Model, weights: QuantizedWeights, options: StorageOptions): RewriteForm {
  const storage = new WeightStorage(model, weights);
  return (slots) => {
    const plans = slots.map((slot) => planStorage(slot, options, model.opset));
    const bits = [...new Set(plans.map((plan) => plan.bits))].join(" and ");
    return {
      bytes: plans.reduce((sum, plan) => sum + plan.bytes, 0),
      code: "stored_codes",
      weights: slots.map(({ view }, i) => ({ view, form: plans[i]!.form })),
      message: `Stored in ${bits} bits, computed in float.`,
      apply: () => {
        for (const [i, slot] of slots.entries()) {
          requireCodes(model, plans[i]!.form);
          slot.node.setInput(slot.index, storage.restore(slot, plans[i]!));
        }
      },
    };
  };
}

/** Below this a weight in four bits saves less than the operators cost that unpack it. */
const MIN_4BIT_ELEMENTS = 4096;

/** About what the operators and tensor headers of a stored weight take up in the file. */
const OVERHEAD_BYTES = { 4: 1000, 8: 250 } as const;

/** First opset whose Cast takes 4-bit integers. */
const OPSET_INT4 = 21;

interface StoragePlan {
  readonly bits: 4 | 8;
  readonly form: QuantizedForm;
  /** Set when two codes share a byte: the dims of the unpacked codes. */
  readonly unpackedDims: readonly number[] | undefined;
  /** Predicted, with what the operators take. */
  readonly bytes: number;
}

function planStorage(slot: WeightSlot, options: StorageOptions, opset: number): StoragePlan {
  const { view } = slot;
  const matrix = matrixOf(slot);
  const count = elementCount(view.dims);
  const run = options.bits === 4 ? blockLength(matrix.depth, options.blockSize) : undefined;
  const packable = opset >= OPSET_INT4 || count % 2 === 0;
  // A depthwise filter has too few weights to average the error of four bits out, and is small anyway.
  if (!run || !packable || isDepthwise(slot) || count < MIN_4BIT_ELEMENTS)
    return plan(channelForm(slot, options.symmetric), 8);
  const blocks = matrix.depth / run;
  const rowMajor = matrix.layout === "row-major";
  const cut = rowMajor
    ? { ...matrix, rows: matrix.rows * blocks, depth: run }
    : { ...matrix, batches: matrix.batches * blocks, depth: run };
  const dims = rowMajor ? [cut.rows, run] : [cut.batches, run, cut.rows];
  const byHalves = opset < OPSET_INT4;
  const dtype = options.symmetric && !byHalves ? "int4" : "uint4";
  return plan(
    {
      matrix: cut,
      scheme: { bits: 4, signed: dtype === "int4", symmetric: options.symmetric, granularity: "channel" },
      layout: { layout: matrix.layout },
      codes: byHalves ? { dtype: "uint8", dims: [count / 2], pack: packHalves } : { dtype, dims, pack: packFlat },
      ...paramForms(rowMajor ? [cut.rows, 1] : [cut.batches, 1, cut.rows], options.symmetric),
    },
    4,
    byHalves ? dims : undefined,
  );
}

function plan(form: QuantizedForm, bits: 4 | 8, unpackedDims?: readonly number[]): StoragePlan {
  return { bits, form, unpackedDims, bytes: quantizedBytes(form) + OVERHEAD_BYTES[bits] };
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

/** Byte i holds code i and code i + n/2. */
function packHalves(codes: Uint8Array): Uint8Array {
  const half = codes.length / 2;
  const packed = new Uint8Array(half);
  for (let i = 0; i < half; i++) packed[i] = codes[i]! | (codes[half + i]! << 4);
  return packed;
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
    const op = (opType: string, inputs: readonly Value[], attrs: Readonly<Record<string, Attr>> = {}): Value =>
      node.graph.insertBefore(node, { opType, inputs, outputs: [this.#model.freshName("w")], attrs }).outputs[0]!;
    const float = (value: Value, dtype: DType = "float32"): Value =>
      op("Cast", [value], { to: { type: "int", value: onnxOfDtype(dtype) } });

    let value = float(codes);
    if (unpackedDims) {
      const high = op("Floor", [op("Mul", [value, this.#scalar(1 / 16)])]);
      const low = op("Sub", [value, op("Mul", [high, this.#scalar(16)])]);
      value = op("Concat", [low, high], { axis: { type: "int", value: 0 } });
      value = op("Reshape", [value, this.#shape(unpackedDims)]);
    }
    if (zeroPoints) value = op("Sub", [value, float(zeroPoints)]);
    else if (form.scheme.bits === 4 && !form.scheme.signed) value = op("Sub", [value, this.#scalar(8)]);
    value = op("Mul", [value, scales]);
    if (`${unpackedDims ?? form.codes.dims}` !== `${view.dims}`) value = op("Reshape", [value, this.#shape(view.dims)]);
    if (view.dtype !== "float32") value = float(value, view.dtype);
    restored.set(key, value);
    return value;
  }

  #scalar(value: number): Value {
    return this.#constant(`number_${value}`, () => scalarOf("float32", value));
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
