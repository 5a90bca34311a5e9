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
import type { Grid, RoundedWeight } from "./blocks.ts";
import { type Matrix, type Workspace, workspace } from "./products.ts";
import type { RoundingName } from "./roundings.ts";
import { blockCount } from "./weight-tiles.ts";

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
  /** Told which statistics it will be given, in order: what follows from them can be computed ahead, until the answer is disposed of. */
  ahead?(statistics: readonly LayerStatistics[]): AsyncDisposable;
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
  for (let row = 0, at = 0; row < rows; row++) {
    for (let block = 0; block < blocks; block++) {
      const { scale, zeroPoint } = paramsAt(rounded, row * blocks + block, scheme);
      const end = row * depth + Math.min((block + 1) * blockSize, depth);
      for (; at < end; at++) values[at] = (q[at]! - zeroPoint) * scale;
    }
  }
  return values;
}

/** How far a layer's output is from the float model's, by some rows of its weight: all by the same statistics. */
export class OutputJudge {
  readonly #weight: RowMatrix;
  readonly #moments: Moments;
  readonly #rows: readonly number[];
  readonly #space: Workspace<readonly [Matrix, Matrix, Matrix]>;
  /** w·P·wᵀ, which is the same for every candidate. */
  #drifted: number | undefined;

  /** Throws `limit_exceeded` where `depth` is beyond what can be multiplied. */
  constructor(weight: RowMatrix, moments: Moments, rows: readonly number[]) {
    this.#weight = weight;
    this.#moments = moments;
    this.#rows = rows;
    const { depth } = weight;
    const most = Math.min(rows.length, MAX_FORMS);
    this.#space = workspace([
      [most, depth],
      [FORM_PANEL, depth],
      [most, depth],
    ]);
  }

  /** Σ |Ŵ·x̂ − W·x|² for Ŵ = `restored` [rows, depth]. */
  error(restored: Float32Array): number {
    const { values, depth } = this.#weight;
    const { gram, drift } = this.#moments;
    const e = (at: number, into: Float64Array) => {
      for (let i = 0; i < depth; i++) into[i] = restored[at + i]! - values[at + i]!;
    };
    const own = this.#forms(e, gram, e);
    if (!drift) return own;
    this.#drifted ??= this.#forms(this.#float, drift.power, this.#float);
    return own + 2 * this.#forms(e, drift.cross, this.#float) + this.#drifted;
  }

  /** Σ |W·x̂|²: what the error is held against. */
  power(): number {
    return this.#forms(this.#float, this.#moments.gram, this.#float);
  }

  readonly #float = (at: number, into: Float64Array) => into.set(this.#weight.values.subarray(at, at + into.length));

  /** Σ a·M·bᵀ over the rows, where `a` and `b` write the row that begins at an element. */
  #forms(a: RowWriter, matrix: Float32Array, b: RowWriter): number {
    const { depth } = this.#weight;
    const [left, panel, products] = this.#space.matrices;
    const right = new Float64Array(depth);
    let sum = 0;
    for (let first = 0; first < this.#rows.length; first += MAX_FORMS) {
      const rows = this.#rows.slice(first, first + MAX_FORMS);
      for (const [i, row] of rows.entries()) {
        a(row * depth, left.data.subarray(i * left.stride, i * left.stride + depth));
      }
      products.data.fill(0);
      for (let start = 0; start < depth; start += FORM_PANEL) {
        const deep = Math.min(FORM_PANEL, depth - start);
        for (let k = 0; k < deep; k++) {
          const at = (start + k) * depth;
          panel.data.set(matrix.subarray(at, at + depth), k * panel.stride);
        }
        this.#space.subtractProduct(
          { of: products, row: 0, column: 0, rows: rows.length, columns: depth },
          { of: left, row: 0, column: start, rows: rows.length, columns: deep },
          { of: panel, row: 0, column: 0, rows: deep, columns: depth },
        );
      }
      for (const [i, row] of rows.entries()) {
        b(row * depth, right);
        for (let j = 0, at = i * products.stride; j < depth; j++, at++) sum -= products.data[at]! * right[j]!;
      }
    }
    return sum;
  }
}

/** Writes a row of a weight; `at` is its first element in the weight. */
type RowWriter = (at: number, into: Float64Array) => void;

/** Rows whose products are computed at a time, and rows of M. */
const MAX_FORMS = 256;
const FORM_PANEL = 128;
