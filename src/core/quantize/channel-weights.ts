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
import { arrayOf, deriveTensors, elementCount, type Tensor } from "../onnx/tensor.ts";
import { type CodeRange, roundHalfEven } from "./params.ts";

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
  const values = arrayOf(weight, "float32");
  const rows = new RowLayout(weight.dims, layout);
  const { codes, perChannel } = scheme;
  const scales = new Float32Array(rows.channels);
  const floors = smallestScales(rows.channels, uses);
  const row = new Float32Array(rows.length);
  for (let c = 0; c < rows.channels; c++) {
    rows.gather(values, c, row);
    let largest = 0;
    for (const w of row) largest = Math.max(largest, Math.abs(w));
    scales[c] = usableScale(largest / codes.max, floors[c]!);
  }
  if (!perChannel) scales.fill(scales.reduce((a, b) => Math.max(a, b), 0));

  const out = new Int8Array(values.length);
  const rowCodes = new Int8Array(rows.length);
  // A product that is alone in its sum (depthwise kernels) has no partner to saturate with.
  const pairs = scheme.avoidSaturation && !rows.isDepthwise ? new PairLimits(rows, inputCodes) : undefined;
  const quantizeRow = (c: number, scale: number) => {
    for (let k = 0; k < row.length; k++) {
      rowCodes[k] = Math.min(Math.max(roundHalfEven(Math.fround(row[k]! / scale)), codes.min), codes.max);
    }
    return pairs?.pullIn(rowCodes, c) ?? false;
  };
  if (pairs) {
    for (let c = 0; c < rows.channels; c++) {
      rows.gather(values, c, row);
      if (quantizeRow(c, scales[c]!)) scales[c] = bestScale(scales[c]!, row, rowCodes, (s) => quantizeRow(c, s));
    }
    if (!perChannel) scales.fill(scales.reduce((a, b) => Math.max(a, b), 0));
  }
  for (let c = 0; c < rows.channels; c++) {
    rows.gather(values, c, row);
    quantizeRow(c, scales[c]!);
    rows.scatter(rowCodes, c, out);
  }
  const result: Record<string, Uint8Array> = {
    codes: new Uint8Array(out.buffer),
    scale: bytesOf(perChannel ? scales : scales.subarray(0, 1)),
  };
  uses.forEach(({ bias, inputScale }, i) => {
    if (!bias) return;
    const biases = arrayOf(bias, "float32");
    const biasScales = scales.map((scale) => scale * inputScale);
    result[`bias${i}`] = bytesOf(Int32Array.from(biases, (b, c) => roundHalfEven(b / biasScales[c]!)));
    result[`biasScale${i}`] = bytesOf(perChannel ? biasScales : biasScales.subarray(0, 1));
  });
  return result;
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

/** The scale, from `smallest` to about twice as much, that leaves the least squared error once unsafe pairs have been pulled in. */
function bestScale(
  smallest: number,
  row: Float32Array,
  rowCodes: Int8Array,
  quantizeRow: (scale: number) => boolean,
): number {
  let best = smallest;
  let least = Number.POSITIVE_INFINITY;
  for (let factor = 1; factor < MAX_SCALE_FACTOR; factor *= SCALE_STEP) {
    const scale = Math.fround(smallest * factor);
    const isPulledIn = quantizeRow(scale);
    let sum = 0;
    for (let k = 0; k < row.length; k++) sum += (row[k]! - rowCodes[k]! * scale) ** 2;
    if (sum < least) {
      least = sum;
      best = scale;
    }
    // From here on all pairs are safe, and rounding only becomes coarser.
    if (!isPulledIn) break;
  }
  return best;
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

class PairLimits {
  readonly #rows: RowLayout;
  readonly #inputCodes: ArrayLike<number> | undefined;

  constructor(rows: RowLayout, inputCodes: ArrayLike<number> | undefined) {
    this.#rows = rows;
    this.#inputCodes = inputCodes;
  }

  /** Moves the codes of unsafe pairs towards zero until they are safe; answers whether there were any. */
  pullIn(codes: Int8Array, c: number): boolean {
    let found = false;
    for (let k = 0; k + 1 < codes.length; k += 2) {
      const first = codes[k]!;
      const second = codes[k + 1]!;
      // Products of different signs cannot reach the limit, nor can a single one.
      if (first * second <= 0 || (Math.abs(first) + Math.abs(second)) * MAX_CODE <= MAX_PAIR) continue;
      const a = this.#largestCode(c, k);
      const b = this.#largestCode(c, k + 1);
      const excess = Math.abs(first) * a + Math.abs(second) * b - MAX_PAIR;
      if (excess <= 0) continue;
      found = true;
      const sign = Math.sign(first);
      // The shortest way back to the line a·|first| + b·|second| = limit, in whole codes.
      const less = Math.min(Math.ceil((excess * a) / (a * a + b * b)), Math.abs(first));
      const rest = Math.max(0, Math.ceil((excess - less * a) / b));
      codes[k] = first - sign * less;
      codes[k + 1] = second - sign * rest;
    }
    return found;
  }

  #largestCode(c: number, k: number): number {
    return this.#inputCodes?.[this.#rows.inputOf(c, k)] ?? MAX_CODE;
  }
}

function bytesOf(array: Float32Array | Int32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
