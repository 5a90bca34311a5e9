/**
 * The seam between how weights are rounded and everything else. A rounding gets the weight of one layer as a matrix, the scheme it is
 * quantized to, and, if it looks at data, statistics of what the layer is given. It answers quantized values with their parameters.
 *
 * With W [rows, depth] the float weight, Ŵ the rounded one, e = Ŵ − W, and x and x̂ what the layer is given in the float model and in the
 * quantized one, the error of the layer's output, summed over samples and rows, is
 *
 *     Σ |Ŵ·x̂ − W·x|²  =  Σ_rows  e·H·eᵀ + 2·e·D·wᵀ + w·P·wᵀ        H = Σ x̂·x̂ᵀ   D = Σ x̂·(x̂ − x)ᵀ   P = Σ (x̂ − x)(x̂ − x)ᵀ
 *
 * so that three matrices [depth, depth] stand for any number of samples. Where x̂ is taken to be x, D and P are zero.
 */
import type { AffineParams } from "../params.ts";
import { blockSizeOf, type WeightScheme } from "../scheme.ts";
import { blockCount, type Grid, type RoundedWeight } from "./blocks.ts";
import type { RoundingName } from "./roundings.ts";

/** A weight as [rows, depth] in row-major order: outputs by inputs. */
export interface RowMatrix {
  readonly values: Float32Array;
  readonly rows: number;
  readonly depth: number;
  /** Random roundings of different weights are independent: what they are told apart by. */
  readonly name?: string;
  /** Scales and zero points [rows, blocks] that are decided; without it they follow from the ranges of the blocks. */
  readonly grid?: Grid | undefined;
  /** Pulls quantized values [rows, depth] into what the kernels of the target can add up without saturating, in place. */
  readonly limit?: ((q: Int8Array) => void) | undefined;
}

/** Sums over samples; see above. `drift` is there when x̂ is not x. */
export interface Moments {
  readonly gram: Float32Array;
  readonly drift?: { readonly cross: Float32Array; readonly power: Float32Array };
}

export interface LayerStatistics {
  readonly fit: Moments;
  /** Of samples that the rounding does not fit itself to; the same object when there are too few. */
  readonly heldOut: Moments;
}

export interface Rounding {
  readonly name: RoundingName;
  /** As the field calls it, for messages. */
  readonly title: string;
  /** The statistics it needs: none, of the float model's layers, or of what the layers before give once they are rounded. */
  readonly sees: "weights" | "float" | "quantized";
  /**
   * Rounds a weight. Undefined when the statistics are not finite, or missing where they are needed. Throws `non_finite` when the weight holds NaN
   * or an infinity, and `cancelled`.
   */
  round(weight: RowMatrix, scheme: WeightScheme, statistics?: LayerStatistics): Promise<RoundedWeight | undefined>;
}

/** Scale and zero point of block `at`, counted over all rows, as readers will see them. */
export function paramsAt(
  { scales, zeroPoints }: Grid,
  at: number,
  { signed }: Pick<WeightScheme, "signed">,
): AffineParams {
  const zeroPoint = zeroPoints[at]!;
  return { scale: scales[at]!, zeroPoint: signed ? (zeroPoint << 24) >> 24 : zeroPoint };
}

/** Ŵ [rows, depth] in float32, as DequantizeLinear gives it. */
export function dequantized(
  { rows, depth }: RowMatrix,
  rounded: RoundedWeight,
  scheme: WeightScheme,
): Float32Array<ArrayBuffer> {
  const q = scheme.signed ? new Int8Array(rounded.q.buffer) : rounded.q;
  const blockSize = Math.min(blockSizeOf(scheme, depth), depth);
  const blocks = blockCount(depth, blockSize);
  const values = new Float32Array(rows * depth);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < depth; i++) {
      const { scale, zeroPoint } = paramsAt(rounded, row * blocks + Math.floor(i / blockSize), scheme);
      values[row * depth + i] = (q[row * depth + i]! - zeroPoint) * scale;
    }
  }
  return values;
}

/** Σ |Ŵ·x̂ − W·x|² over these rows. */
export function outputError(
  weight: RowMatrix,
  restored: Float32Array,
  moments: Moments,
  rows: Iterable<number>,
): number {
  const { values, depth } = weight;
  const e = new Float64Array(depth);
  let sum = 0;
  for (const row of rows) {
    const w = values.subarray(row * depth, (row + 1) * depth);
    for (let i = 0; i < depth; i++) e[i] = restored[row * depth + i]! - w[i]!;
    sum += bilinear(e, moments.gram, e);
    if (!moments.drift) continue;
    sum += 2 * bilinear(e, moments.drift.cross, w) + bilinear(w, moments.drift.power, w);
  }
  return sum;
}

/** Σ |W·x̂|² over these rows: what the error is held against. */
export function outputPower({ values, depth }: RowMatrix, { gram }: Moments, rows: Iterable<number>): number {
  let sum = 0;
  for (const row of rows) {
    const w = values.subarray(row * depth, (row + 1) * depth);
    sum += bilinear(w, gram, w);
  }
  return sum;
}

/** a·M·bᵀ */
function bilinear(a: Float64Array | Float32Array, matrix: Float32Array, b: Float64Array | Float32Array): number {
  const depth = a.length;
  let sum = 0;
  for (let i = 0; i < depth; i++) {
    let dot = 0;
    for (let j = 0, at = i * depth; j < depth; j++, at++) dot += matrix[at]! * b[j]!;
    sum += a[i]! * dot;
  }
  return sum;
}
