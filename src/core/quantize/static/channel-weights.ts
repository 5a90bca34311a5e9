/**
 * Weights of static quantization: symmetric int8 codes with a scale for each output channel (or one for all), and int32 biases at the scale
 * of the products they are added to, s_b[c] = s_x · s_w[c], zero point 0. All of it is computed when the tensors are written, not before.
 *
 * Processors with AVX2 and no VNNI multiply 8-bit numbers in pairs, u8·s8 + u8·s8, and the sum saturates at 16 bits. Which two products
 * make a pair follows from the order in which the kernels reduce: positions of the kernel window first, input channels within. A pair
 * (q₁, q₂) is safe when the largest codes a₁, a₂ of its two inputs keep a₁·q₁ + a₂·q₂ within 16 bits. The usual remedy gives up a bit of
 * every weight. Here each output channel gets the scale with the least error after its unsafe pairs have been pulled in, which costs about
 * half as much, and nothing where activations stay small.
 */
import { arrayOf, deriveTensors, elementCount, type Tensor } from "../../onnx/tensor.ts";
import { type CodeRange, roundHalfEven } from "../params.ts";

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

export interface WeightScheme {
  readonly codes: CodeRange;
  readonly perChannel: boolean;
  /** Keep pairs of products within 16 bits. */
  readonly avoidSaturation: boolean;
}

export interface QuantizedWeight {
  readonly codes: Tensor;
  /** [channels], or [] when there is one scale. */
  readonly scale: Tensor;
  /** int32 [channels] for each bias, in the order given; undefined where there is none. */
  readonly biases: readonly ({ readonly codes: Tensor; readonly scale: Tensor } | undefined)[];
}

/** |b| / (s_x · s_w) must stay below this to fit an int32 with the rounding of the scales. */
const MAX_BIAS_CODE = (2 ** 31 - 1) * (1 - 1e-4);
/** Where a whole channel is zero its scale only serves the bias: this many codes for it. */
const ZERO_CHANNEL_BIAS_CODES = 2 ** 24;

/**
 * Quantizes a float32 weight. `inputCodes` are the largest codes that each input channel (of all groups) takes; undefined: all codes.
 * They matter only to `avoidSaturation`.
 */
export function quantizeWeight(
  weight: Tensor,
  layout: WeightLayout,
  uses: readonly BiasUse[],
  scheme: WeightScheme,
  inputCodes?: ArrayLike<number>,
): QuantizedWeight {
  const channels = weight.dims[layout.axis]!;
  const scaleDims = scheme.perChannel ? [channels] : [];
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
      codes: { dtype: "int8", dims: weight.dims },
      scale: { dtype: "float32", dims: scaleDims },
      ...Object.fromEntries(biasTypes),
    },
    () => compute(weight, layout, uses, scheme, inputCodes),
  );
  return {
    codes: tensors.codes!,
    scale: tensors.scale!,
    biases: uses.map(({ bias }, i) =>
      bias ? { codes: tensors[`bias${i}`]!, scale: tensors[`biasScale${i}`]! } : undefined,
    ),
  };
}

function compute(
  weight: Tensor,
  layout: WeightLayout,
  uses: readonly BiasUse[],
  scheme: WeightScheme,
  inputCodes: ArrayLike<number> | undefined,
): Record<string, Uint8Array> {
  const floors = smallestScales(weight.dims[layout.axis]!, uses);
  const { codes, scales } = rounded(weight, layout, floors, scheme, inputCodes);
  const bytesOfScales = (all: Float32Array) => bytesOf(scheme.perChannel ? all : all.subarray(0, 1));
  const result: Record<string, Uint8Array> = { codes: bytesOf(codes), scale: bytesOfScales(scales) };
  uses.forEach(({ bias, inputScale }, i) => {
    if (!bias) return;
    const biases = arrayOf(bias, "float32");
    const biasScales = scales.map((scale) => scale * inputScale);
    result[`bias${i}`] = bytesOf(Int32Array.from(biases, (b, c) => roundHalfEven(b / biasScales[c]!)));
    result[`biasScale${i}`] = bytesOfScales(biasScales);
  });
  return result;
}

interface Rounded {
  readonly codes: Int8Array;
  /** One for each channel, also where all are the same. */
  readonly scales: Float32Array;
  /** For each channel, the smallest scale that its weights fit, and the smallest that was allowed. */
  readonly fitting: Float64Array;
  readonly smallest: Float64Array;
}

/**
 * What was rounded last, by weight: several models are made of one float model, which differ in biases and in which layers are quantized, and
 * a model that is written asks for the scales of a weight before it asks for its codes.
 */
const ROUNDED = new Map<Tensor, { readonly key: string; readonly result: Rounded }>();
const MAX_ROUNDED_BYTES = 2 ** 27;
let roundedBytes = 0;

function rounded(
  weight: Tensor,
  layout: WeightLayout,
  floors: Float64Array,
  scheme: WeightScheme,
  inputCodes: ArrayLike<number> | undefined,
): Rounded {
  const limits = inputCodes && scheme.avoidSaturation ? Array.from(inputCodes).join() : "";
  const key = JSON.stringify([layout.axis, layout.inputAxis, layout.groups, scheme, limits]);
  const known = ROUNDED.get(weight);
  // Other floors, which other biases have, make no difference where the weights need a larger scale anyway.
  const isSame = ({ fitting, smallest }: Rounded) =>
    fitting.every((scale, c) => usableScale(scale, floors[c]!) === smallest[c]);
  if (known?.key === key && isSame(known.result)) return known.result;
  const result = round(weight, layout, floors, scheme, inputCodes);
  if (known) roundedBytes -= known.result.codes.length;
  ROUNDED.delete(weight);
  for (const [oldest, { result: old }] of ROUNDED) {
    if (roundedBytes + result.codes.length <= MAX_ROUNDED_BYTES) break;
    ROUNDED.delete(oldest);
    roundedBytes -= old.codes.length;
  }
  if (roundedBytes + result.codes.length <= MAX_ROUNDED_BYTES) {
    ROUNDED.set(weight, { key, result });
    roundedBytes += result.codes.length;
  }
  return result;
}

function round(
  weight: Tensor,
  layout: WeightLayout,
  floors: Float64Array,
  { codes: range, perChannel, avoidSaturation }: WeightScheme,
  inputCodes: ArrayLike<number> | undefined,
): Rounded {
  const values = arrayOf(weight, "float32");
  const rows = new RowLayout(weight.dims, layout);
  const codes = new Int8Array(values.length);
  const scales = new Float32Array(rows.channels);
  // A product that is alone in its sum (depthwise kernels) has no partner to saturate with.
  const pairs = avoidSaturation && !rows.isDepthwise ? new PairLimits(rows, inputCodes) : undefined;
  const rounder = new RowRounder(rows.length, range, pairs);
  const fitting = new Float64Array(rows.channels);
  const smallest = new Float64Array(rows.channels);
  const smallestScale = (c: number, largest: number) => {
    fitting[c] = largest / range.max;
    smallest[c] = usableScale(fitting[c]!, floors[c]!);
    return smallest[c]!;
  };
  const passes = perChannel ? 1 : 2;
  for (let pass = 0; pass < passes; pass++) {
    const isLast = pass === passes - 1;
    for (let c = 0; c < rows.channels; c++) {
      rows.gather(values, c, rounder.row);
      if (pass === 0) scales[c] = rounder.bestScale(c, (largest) => smallestScale(c, largest));
      else rounder.round(c, scales[c]!);
      if (isLast) rows.scatter(rounder.codes, c, codes);
    }
    if (!perChannel) scales.fill(scales.reduce((a, b) => Math.max(a, b), 0));
  }
  return { codes, scales, fitting, smallest };
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

const SCALE_STEP = 1.06;
const MAX_SCALE_FACTOR = 2.1;

/** Rounds the weights of one output channel at a time. */
class RowRounder {
  readonly row: Float32Array;
  readonly codes: Int8Array;
  readonly #range: CodeRange;
  readonly #limits: PairLimits | undefined;
  /** Where pairs are that are unsafe at the smallest scale, and the codes of one that is tried. */
  readonly #unsafe: Int32Array;
  readonly #pair = new Int8Array(2);

  constructor(length: number, range: CodeRange, limits: PairLimits | undefined) {
    this.row = new Float32Array(length);
    this.codes = new Int8Array(length);
    this.#range = range;
    this.#limits = limits;
    this.#unsafe = new Int32Array(length >> 1);
  }

  /** Codes for one scale, all pairs safe. */
  round(channel: number, scale: number): void {
    const { row, codes } = this;
    const { min, max } = this.#range;
    for (let k = 0; k < row.length; k++) {
      codes[k] = Math.min(Math.max(roundHalfEven(Math.fround(row[k]! / scale)), min), max);
    }
    if (!this.#limits) return;
    for (let k = 0; k + 1 < codes.length; k += 2) this.#limits.pullIn(codes, k, channel, k);
  }

  /**
   * Leaves the codes for the best scale, and answers it: the one that `fitting` says for the largest weight, or, if pairs are unsafe there, up
   * to twice that one, whichever leaves the least squared error once they have been pulled in.
   */
  bestScale(channel: number, fitting: (largest: number) => number): number {
    const { row } = this;
    let largest = 0;
    for (let k = 0; k < row.length; k++) largest = Math.max(largest, Math.abs(row[k]!));
    const smallest = Math.fround(fitting(largest));
    const unsafe = this.#findUnsafe(channel, smallest);
    let best = smallest;
    let least = Number.POSITIVE_INFINITY;
    for (let factor = 1; unsafe > 0 && factor < MAX_SCALE_FACTOR; factor *= SCALE_STEP) {
      const scale = Math.fround(smallest * factor);
      // Codes shrink as the scale grows: pairs that are safe at the smallest stay so, and are rounded with an error of s²/12 on average.
      const { error, pulled } = this.#errorOfUnsafe(unsafe, channel, scale);
      const total = error + ((row.length - 2 * unsafe) * scale * scale) / 12;
      if (total < least) {
        least = total;
        best = scale;
      }
      if (pulled === 0) break;
    }
    this.round(channel, best);
    return best;
  }

  /** Notes where pairs are unsafe at `scale`; answers how many there are. */
  #findUnsafe(channel: number, scale: number): number {
    const { row } = this;
    if (!this.#limits) return 0;
    let count = 0;
    for (let k = 0; k + 1 < row.length; k += 2) {
      // Most pairs are far from it, and seen to be so without a division.
      const [first, second] = [row[k]!, row[k + 1]!];
      if (first * second <= 0 || Math.abs(first) + Math.abs(second) < MIN_UNSAFE_CODES * scale) continue;
      if (this.#roundPair(k, channel, scale)) this.#unsafe[count++] = k;
    }
    return count;
  }

  #errorOfUnsafe(count: number, channel: number, scale: number): { readonly error: number; readonly pulled: number } {
    let error = 0;
    let pulled = 0;
    for (let i = 0; i < count; i++) {
      const k = this.#unsafe[i]!;
      if (this.#roundPair(k, channel, scale)) pulled++;
      error += (this.row[k]! - this.#pair[0]! * scale) ** 2 + (this.row[k + 1]! - this.#pair[1]! * scale) ** 2;
    }
    return { error, pulled };
  }

  /** Whether the pair at `k` had to be pulled in. */
  #roundPair(k: number, channel: number, scale: number): boolean {
    const { min, max } = this.#range;
    for (let i = 0; i < 2; i++) {
      const code = roundHalfEven(Math.fround(this.row[k + i]! / scale));
      this.#pair[i] = Math.min(Math.max(code, min), max);
    }
    return this.#limits!.pullIn(this.#pair, 0, channel, k);
  }
}

/** The weights of one output channel, in the order in which kernels reduce over them. */
class RowLayout {
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

  gather(values: Float32Array, c: number, row: Float32Array): void {
    const start = c * this.#channelStride;
    for (let k = 0; k < row.length; k++) row[k] = values[start + this.#offsets[k]!]!;
  }

  scatter(row: Int8Array, c: number, out: Int8Array): void {
    const start = c * this.#channelStride;
    for (let k = 0; k < row.length; k++) out[start + this.#offsets[k]!] = row[k]!;
  }
}

const MAX_PAIR = 2 ** 15 - 1;
const MAX_CODE = 255;
/** Less than what the codes of an unsafe pair add up to, before rounding. */
const MIN_UNSAFE_CODES = Math.floor(MAX_PAIR / MAX_CODE) - 1;

class PairLimits {
  readonly #rows: RowLayout;
  readonly #inputCodes: ArrayLike<number> | undefined;

  constructor(rows: RowLayout, inputCodes: ArrayLike<number> | undefined) {
    this.#rows = rows;
    this.#inputCodes = inputCodes;
  }

  /** Moves the pair at `codes[at]`, products `k` and `k + 1` of output channel `c`, towards zero until it is safe; answers whether it was not. */
  pullIn(codes: Int8Array, at: number, c: number, k: number): boolean {
    const first = codes[at]!;
    const second = codes[at + 1]!;
    // Products of different signs cannot reach the limit, nor can a single one.
    if (first * second <= 0 || (Math.abs(first) + Math.abs(second)) * MAX_CODE <= MAX_PAIR) return false;
    const a = this.#largestCode(c, k);
    const b = this.#largestCode(c, k + 1);
    const excess = Math.abs(first) * a + Math.abs(second) * b - MAX_PAIR;
    if (excess <= 0) return false;
    const sign = Math.sign(first);
    // The shortest way back to the line a·|first| + b·|second| = limit, in whole codes.
    const less = Math.min(Math.ceil((excess * a) / (a * a + b * b)), Math.abs(first));
    const rest = Math.max(0, Math.ceil((excess - less * a) / b));
    codes[at] = first - sign * less;
    codes[at + 1] = second - sign * rest;
    return true;
  }

  #largestCode(c: number, k: number): number {
    return this.#inputCodes?.[this.#rows.inputOf(c, k)] ?? MAX_CODE;
  }
}

function bytesOf(array: Float32Array | Int32Array | Int8Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
