/**
 * Weights of static quantization: symmetric int8 with a scale for each output channel (or one for all), and int32 biases at the scale
 * of the products they are added to, s_b[c] = s_x · s_w[c], zero point 0. All of it is computed when the tensors are written, not before.
 * Weights of 4 and 2 bits are int8 of few values (−8 … 7, −2 … 1), at the scales of the least squared error: their largest value decides too much.
 *
 * Processors with AVX2 and no VNNI multiply 8-bit numbers in pairs, u8·s8 + u8·s8, and the sum saturates at 16 bits. Which two products
 * make a pair follows from the order in which the kernels reduce: positions of the kernel window first, input channels within. A pair
 * (q₁, q₂) is safe when the largest quantized values a₁, a₂ of its two inputs keep a₁·q₁ + a₂·q₂ within 16 bits. The usual remedy gives up a bit of
 * every weight. Here each output channel gets the scale with the least error after its unsafe pairs have been pulled in, which costs about
 * half as much, and nothing where activations stay small.
 */
import { arrayOf, deriveTensors, elementCount, type Tensor } from "../../onnx/tensor.ts";
import { type CodeRange, roundHalfEven } from "../params.ts";
import { type Grid, largestOfRows, quantizeBlocks, type RoundedWeight, type WeightMatrix } from "../rounding/blocks.ts";
import { transposed } from "../rounding/round-layers.ts";
import type { RowMatrix } from "../rounding/rounding.ts";
import { rangeOf, type WeightScheme } from "../scheme.ts";
import { leastErrorScale } from "./least-error-scale.ts";
import { PairLimits } from "./pair-limits.ts";
import { ScaleSearch } from "./scale-search.ts";
import type { WeightBits } from "./stored-weights.ts";

/** Weights that kernels multiply with 8-bit activations: signed, around 0. */
export function kernelScheme({ perChannel, reduceRange, weightBits: bits = 8 }: WeightOptions): WeightScheme {
  const granularity = perChannel ? "channel" : "tensor";
  // With few values, the one that a symmetric range leaves out is worth having.
  return { bits, signed: true, symmetric: bits === 8, granularity, reduceRange: reduceRange && bits === 8 };
}

/** A bias that is added to products of this weight with an activation of scale `inputScale`. */
export interface BiasUse {
  readonly bias: Tensor | undefined;
  readonly inputScale: number;
}

/** How a weight is laid out: `axis` counts output channels; the reduction runs over window positions, and input channels within. */
export interface WeightLayout {
  readonly axis: number;
  /** Axis of the input channels of one group. */
  readonly inputAxis: number;
  readonly groups: number;
}

export interface WeightOptions {
  readonly perChannel: boolean;
  /** Keep sums of two products within 16 bits. */
  readonly reduceRange: boolean;
  /** 8 unless given. */
  readonly weightBits?: WeightBits | undefined;
  /** Keep them in int8 constants however few bits they have: for models that are run in parts, and not stored. */
  readonly unpacked?: boolean | undefined;
}

/** What decides how a weight is quantized. */
export interface WeightContext {
  readonly layout: WeightLayout;
  /** Biases that are added to its products. */
  readonly uses: readonly BiasUse[];
  /** The largest quantized values that each input channel (of all groups) takes, for `reduceRange`; undefined: all there are. */
  readonly inputLimits?: ArrayLike<number> | undefined;
  /** Values and scales that have been found already: [channels, depth] and [channels, 1]. */
  readonly rounded?: RoundedWeight | undefined;
}

export interface QuantizedWeight {
  readonly q: Tensor;
  /** [channels], or [] when there is one scale. */
  readonly scale: Tensor;
  /** int32 [channels] for each bias, in the order given; undefined where there is none. */
  readonly biases: readonly ({ readonly q: Tensor; readonly scale: Tensor } | undefined)[];
}

/** |b| / (s_x · s_w) must stay below this to fit an int32 with the rounding of the scales. */
const MAX_BIAS_CODE = (2 ** 31 - 1) * (1 - 1e-4);
/** Where a whole channel is zero its scale only serves the bias: this many codes for it. */
const ZERO_CHANNEL_BIAS_CODES = 2 ** 24;

/** Quantizes a float32 weight, when its bytes are asked for. Throws `non_finite` then when it holds NaN or an infinity. */
export function quantizeWeight(weight: Tensor, context: WeightContext, options: WeightOptions): QuantizedWeight {
  const { layout, uses } = context;
  const channels = weight.dims[layout.axis]!;
  const scaleDims = options.perChannel ? [channels] : [];
  const biasTypes = uses.flatMap(({ bias }, i) =>
    bias
      ? [
          [`bias${i}`, { dtype: "int32", dims: [channels] }] as const,
          [`biasScale${i}`, { dtype: "float32", dims: scaleDims }] as const,
        ]
      : [],
  );
  const tensors = deriveTensors(
    {
      q: { dtype: "int8", dims: weight.dims },
      scale: { dtype: "float32", dims: scaleDims },
      ...Object.fromEntries(biasTypes),
    },
    () => compute(weight, context, options),
  );
  return {
    q: tensors.q!,
    scale: tensors.scale!,
    biases: uses.map(({ bias }, i) =>
      bias ? { q: tensors[`bias${i}`]!, scale: tensors[`biasScale${i}`]! } : undefined,
    ),
  };
}

/** A weight that goes on learning from the values that it is quantized to. */
export interface WeightStart {
  /** As the weight is laid out. */
  readonly codes: Int8Array;
  /** [channels]. */
  readonly scales: Float32Array;
  /** The least and the largest value of each, where pairs of them may not saturate; undefined: those of their bits. */
  readonly bounds?: { readonly low: Int8Array; readonly high: Int8Array } | undefined;
}

/** What `quantizeWeight` makes of a weight with a scale for each channel, if its inputs may take all values: their scales will be learned too. */
export function startOfWeight(
  weight: Tensor,
  { inputLimits: _, ...context }: WeightContext,
  options: WeightOptions,
): WeightStart {
  const { q, scale } = quantizeWeight(weight, context, options);
  const codes = arrayOf(q, "int8") as Int8Array;
  const { max } = rangeOf(kernelScheme(options));
  const bounds = limitsOf(weight, context.layout, options, undefined)?.around(codes, max);
  return { codes, scales: arrayOf(scale, "float32") as Float32Array, bounds };
}

/** The weight as a rounding takes it, [channels, depth], with the scales that it has when it is rounded to nearest. */
export function weightRows(weight: Tensor, context: WeightContext, options: WeightOptions, name: string): RowMatrix {
  const { layout, uses, inputLimits } = context;
  const matrix = matrixOf(weight, layout);
  const { rows, depth } = matrix;
  const { scales } = rounded(weight, layout, smallestScales(rows, uses), options, inputLimits);
  const values = matrix.layout === "row-major" ? matrix.values : transposed(matrix.values, depth, rows);
  const limits = limitsOf(weight, layout, options, inputLimits);
  return {
    name,
    values,
    rows,
    depth,
    grid: gridOf(scales),
    ...(limits && {
      limit: (q) => {
        const natural = matrix.layout === "row-major" ? q : Int8Array.from(turnedBytes(q, rows, depth));
        limits.apply(natural);
        if (natural !== q) q.set(turnedBytes(natural, depth, rows));
      },
    }),
  };
}

/** [rows, columns] → [columns, rows] */
function turnedBytes(values: Int8Array, rows: number, columns: number): Int8Array<ArrayBuffer> {
  const result = new Int8Array(values.length);
  for (let row = 0; row < rows; row++)
    for (let i = 0; i < columns; i++) result[i * rows + row] = values[row * columns + i]!;
  return result;
}

function compute(weight: Tensor, context: WeightContext, options: WeightOptions): Record<string, Uint8Array> {
  const { layout, uses, inputLimits } = context;
  const floors = smallestScales(weight.dims[layout.axis]!, uses);
  const { q, scales } =
    given(weight, context, floors, options) ?? rounded(weight, layout, floors, options, inputLimits);
  const bytesOfScales = (all: Float32Array) => bytesOf(options.perChannel ? all : all.subarray(0, 1));
  const result: Record<string, Uint8Array> = { q: bytesOf(q), scale: bytesOfScales(scales) };
  uses.forEach(({ bias, inputScale }, i) => {
    if (!bias) return;
    const biases = arrayOf(bias, "float32");
    const biasScales = scales.map((scale) => scale * inputScale);
    result[`bias${i}`] = bytesOf(Int32Array.from(biases, (b, c) => roundHalfEven(b / biasScales[c]!)));
    result[`biasScale${i}`] = bytesOfScales(biasScales);
  });
  return result;
}

/** Whether a channel's bias does not fit an int32 at the scale that its weights were rounded at. */
const isLost = (scale: number, floor: number) => scale < floor;

/** In how many channels values that have been found already are given up for the nearest; see `given`. Nothing is rounded. */
export function lostChannels(weight: Tensor, { layout, uses, rounded }: WeightContext, { perChannel }: WeightOptions) {
  if (!rounded) return 0;
  const floors = smallestScales(weight.dims[layout.axis]!, uses);
  const lost = rounded.scales.filter((scale, c) => isLost(scale, floors[c]!)).length;
  return lost > 0 && !perChannel ? rounded.scales.length : lost;
}

/**
 * Values that have been found already. A channel whose bias, which may have been corrected since, does not fit an int32 at its scale is rounded to
 * nearest at one that it fits; with one scale for all channels, all of them are.
 */
function given(
  weight: Tensor,
  context: WeightContext,
  floors: Float64Array,
  options: WeightOptions,
): Pick<Rounded, "q" | "scales"> | undefined {
  const { layout, rounded: found, inputLimits } = context;
  if (!found) return undefined;
  const isGivenUp = (scale: number, channel: number) => isLost(scale, floors[channel]!);
  const nearest = found.scales.some(isGivenUp) ? rounded(weight, layout, floors, options, inputLimits) : undefined;
  if (nearest && !options.perChannel) return nearest;
  const rows = weight.dims[layout.axis]!;
  const depth = elementCount(weight.dims) / rows;
  const isRowMajor = layout.axis === 0;
  const found8 = new Int8Array(found.q.buffer, found.q.byteOffset, found.q.length);
  const q = isRowMajor ? Int8Array.from(found8) : turnedBytes(found8, rows, depth);
  const scales = Float32Array.from(found.scales);
  if (nearest) {
    found.scales.forEach((scale, c) => {
      if (!isGivenUp(scale, c)) return;
      scales[c] = nearest.scales[c]!;
      for (let k = 0; k < depth; k++) {
        const at = isRowMajor ? c * depth + k : k * rows + c;
        q[at] = nearest.q[at]!;
      }
    });
  }
  limitsOf(weight, layout, options, inputLimits)?.apply(q);
  return { q, scales };
}

interface Rounded {
  readonly q: Int8Array;
  /** One for each channel, also where all are the same. */
  readonly scales: Float32Array;
  /** For each channel, the smallest scale that its weights fit, and the smallest that was allowed. */
  readonly fitting: Float64Array;
  readonly smallest: Float64Array;
}

/**
 * What was rounded last, by weight: several models are made of one float model, which differ in biases and in which layers are quantized, and
 * a model that is written asks for the scales of a weight before it asks for its values.
 */
const ROUNDED = new Map<Tensor, { readonly key: string; readonly result: Rounded }>();
const MAX_ROUNDED_BYTES = 2 ** 27;
let roundedBytes = 0;

function rounded(
  weight: Tensor,
  layout: WeightLayout,
  floors: Float64Array,
  options: WeightOptions,
  inputLimits: ArrayLike<number> | undefined,
): Rounded {
  const limits = inputLimits && options.reduceRange ? Array.from(inputLimits).join() : "";
  const { perChannel, reduceRange, weightBits } = options;
  const key = JSON.stringify([
    layout.axis,
    layout.inputAxis,
    layout.groups,
    perChannel,
    reduceRange,
    weightBits,
    limits,
  ]);
  const known = ROUNDED.get(weight);
  // Other floors, which other biases have, make no difference where the weights need a larger scale anyway.
  const isSame = ({ fitting, smallest }: Rounded) =>
    fitting.every((scale, c) => usableScale(scale, floors[c]!) === smallest[c]);
  if (known?.key === key && isSame(known.result)) return known.result;
  const result = round(weight, layout, floors, options, inputLimits);
  if (known) roundedBytes -= known.result.q.length;
  ROUNDED.delete(weight);
  for (const [oldest, { result: old }] of ROUNDED) {
    if (roundedBytes + result.q.length <= MAX_ROUNDED_BYTES) break;
    ROUNDED.delete(oldest);
    roundedBytes -= old.q.length;
  }
  if (roundedBytes + result.q.length <= MAX_ROUNDED_BYTES) {
    ROUNDED.set(weight, { key, result });
    roundedBytes += result.q.length;
  }
  return result;
}

/** Output channels are rows: of the first axis, or of the second of a matrix. */
function matrixOf(weight: Tensor, { axis }: WeightLayout): WeightMatrix {
  const rows = weight.dims[axis]!;
  const depth = elementCount(weight.dims) / rows;
  const layout = axis === 0 ? "row-major" : "column-major";
  return { values: arrayOf(weight, "float32") as Float32Array, batches: 1, rows, depth, layout };
}

function gridOf(scales: Float32Array): Grid {
  return { scales, zeroPoints: new Uint8Array(scales.length) };
}

/** What pairs of products may not exceed; undefined where nothing can saturate. */
function limitsOf(
  weight: Tensor,
  layout: WeightLayout,
  { reduceRange, weightBits = 8 }: WeightOptions,
  inputLimits: ArrayLike<number> | undefined,
): PairLimits | undefined {
  const rows = new RowLayout(weight.dims, layout);
  // A product that is alone in its sum (depthwise kernels) has no partner to saturate with; two of few bits are too small to.
  return reduceRange && weightBits === 8 && !rows.isDepthwise ? new PairLimits(rows, inputLimits) : undefined;
}

function round(
  weight: Tensor,
  layout: WeightLayout,
  floors: Float64Array,
  options: WeightOptions,
  inputLimits: ArrayLike<number> | undefined,
): Rounded {
  const matrix = matrixOf(weight, layout);
  // How pairs are kept apart from saturating is decided here, for each of them, and not by the range of the weight.
  const scheme = { ...kernelScheme(options), reduceRange: false };
  const range = rangeOf(scheme);
  const largest = largestOfRows(matrix);
  const fitting =
    scheme.bits === 8
      ? Float64Array.from(largest, (size) => size / range.max)
      : leastErrorScales(matrix, range, options);
  const smallest = fitting.map((scale, c) => usableScale(scale, floors[c]!));
  const scales = Float32Array.from(smallest);
  const limits = limitsOf(weight, layout, options, inputLimits);
  const search = limits && new ScaleSearch(limits, range);
  if (search) for (let c = 0; c < scales.length; c++) scales[c] = search.bestScale(matrix.values, c, scales[c]!);
  if (!options.perChannel) scales.fill(scales.reduce((a, b) => Math.max(a, b), 0));
  const made = quantizeBlocks(matrix, scheme, { layout: matrix.layout }, { grid: gridOf(scales) });
  const q = new Int8Array(made.q.buffer);
  limits?.apply(q, search?.unsafeChannels);
  return { q, scales, fitting, smallest };
}

/** For each row of a matrix, or for all of them together. */
function leastErrorScales(matrix: WeightMatrix, range: CodeRange, { perChannel }: WeightOptions): Float64Array {
  const { values, rows, depth, layout } = matrix;
  const rowMajor = layout === "row-major" ? values : transposed(values, depth, rows);
  if (!perChannel) return new Float64Array(rows).fill(leastErrorScale(values, range));
  return Float64Array.from({ length: rows }, (_, row) =>
    leastErrorScale(rowMajor.subarray(row * depth, (row + 1) * depth), range),
  );
}

/** Scales below which some bias would not fit an int32. */
function smallestScales(channels: number, uses: readonly BiasUse[]): Float64Array {
  const floors = new Float64Array(channels);
  for (const { bias, inputScale } of uses) {
    const biases = bias && arrayOf(bias, "float32");
    for (let c = 0; c < channels; c++) floors[c] = Math.max(floors[c]!, Math.abs(biases?.[c] ?? 0) / inputScale);
  }
  return floors.map((floor) => floor / MAX_BIAS_CODE);
}

function usableScale(scale: number, floor: number): number {
  const wanted = scale > 0 ? Math.max(scale, floor) : (floor * MAX_BIAS_CODE) / ZERO_CHANNEL_BIAS_CODES;
  // Scales below float32's normal numbers divide badly; anything does for a channel of zeros without a bias.
  return wanted < 2 ** -126 ? 1 : wanted;
}

/** The weights of one output channel, in the order in which kernels reduce over them. */
export class RowLayout {
  readonly channels: number;
  /** Products in the sum of one output. */
  readonly length: number;
  readonly inputs: number;
  readonly isDepthwise: boolean;
  readonly #offsets: Int32Array;
  readonly #channelStride: number;
  readonly #channelsPerGroup: number;

  constructor(dims: readonly number[], { axis, inputAxis, groups }: WeightLayout) {
    const strides = dims.map((_, i) => elementCount(dims.slice(i + 1)));
    this.channels = dims[axis]!;
    this.inputs = dims[inputAxis]!;
    this.length = elementCount(dims) / this.channels;
    this.#channelStride = strides[axis]!;
    this.#channelsPerGroup = this.channels / groups;
    this.isDepthwise = this.inputs === 1 && this.channels === groups;
    // Everything but the two channel axes is the window; it lies behind them, contiguous.
    this.#offsets = Int32Array.from({ length: this.length }, (_, k) => {
      return Math.floor(k / this.inputs) + (k % this.inputs) * strides[inputAxis]!;
    });
  }

  /** The input channel, counted over all groups, of product `k` of output channel `c`. */
  inputOf(c: number, k: number): number {
    return Math.floor(c / this.#channelsPerGroup) * this.inputs + (k % this.inputs);
  }

  gather<A extends Float32Array | Int8Array>(values: A, c: number, row: A): void {
    const start = c * this.#channelStride;
    for (let k = 0; k < row.length; k++) row[k] = values[start + this.#offsets[k]!]!;
  }

  scatter(row: Int8Array, c: number, out: Int8Array): void {
    const start = c * this.#channelStride;
    for (let k = 0; k < row.length; k++) out[start + this.#offsets[k]!] = row[k]!;
  }
}

function bytesOf(array: Float32Array | Int32Array | Int8Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
