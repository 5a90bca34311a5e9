/**
 * Round-to-nearest quantization of weights: a weight is a stack of matrices whose rows (output channels) are cut into blocks along their
 * depth (the axis that is summed over), and every block has a scale and a zero point of its own. A block as long as the depth is one
 * scale for each channel.
 */
import { CoreError } from "../../errors.ts";
import { type AffineParams, affineRule, type CodeRange, roundHalfEven, type ScaleDType } from "../params.ts";
import { blockSizeOf, rangeOf, type WeightScheme } from "../scheme.ts";
import { blockCount, forEachTile } from "./weight-tiles.ts";

/** `row-major`: [batches, rows, depth], a row lies in one piece. `column-major`: [batches, depth, rows]. */
export type Layout = "row-major" | "column-major";

export interface WeightMatrix {
  readonly values: Float32Array;
  readonly batches: number;
  readonly rows: number;
  readonly depth: number;
  readonly layout: Layout;
}

/** Scales and zero points that are decided: of every block, in the layout of the result. */
export interface Grid {
  readonly scales: Float32Array;
  readonly zeroPoints: Uint8Array;
}

export interface BlockOptions {
  /**
   * As few values as it takes are rounded the other way, so that the sum of a row is kept to half a step. Needs one block for each row, in
   * row-major order on both sides. For depthwise filters: their inputs have a mean, each filter passes on the error of its sum times that
   * mean, and nothing averages it out (PP-OCR recognition loses 0.7 points of its characters to it, and none with kept sums).
   */
  readonly keepSums?: boolean;
  /** Taken instead of the parameters that follow from the ranges of the blocks. */
  readonly grid?: Grid;
}

export interface RoundedWeight {
  /** The quantized values, a byte each (signed ones in two's complement), in the layout asked for; padding stands for zero. */
  readonly q: Uint8Array<ArrayBuffer>;
  /** [batches, rows, blocks] for a row-major result, [batches, blocks, rows] for a column-major one. Rounded to the scheme's scale dtype. */
  readonly scales: Float32Array<ArrayBuffer>;
  /** As the scales; a byte each, signed ones in two's complement. */
  readonly zeroPoints: Uint8Array<ArrayBuffer>;
}

export interface BlockLayout {
  readonly layout: Layout;
  /** Row-major results only: rows are padded to whole blocks, as MatMulNBits wants them. */
  readonly padded?: boolean;
}

/**
 * Quantizes a weight to the nearest values. Throws `non_finite` when it holds NaN or an infinity.
 * Reads `matrix.values` once (twice with one scale for the tensor), tile by tile.
 */
export function quantizeBlocks(
  matrix: WeightMatrix,
  scheme: WeightScheme,
  target: BlockLayout,
  { keepSums = false, grid }: BlockOptions = {},
): RoundedWeight {
  const { batches, rows, depth } = matrix;
  const wanted = blockSizeOf(scheme, depth);
  const blockSize = target.padded ? wanted : Math.min(wanted, depth);
  checkBlock(blockSize, depth, target.padded === true);
  const blocks = blockCount(depth, blockSize);
  const rowLength = target.padded ? blocks * blockSize : depth;
  const result: RoundedWeight = {
    q: new Uint8Array(batches * rows * rowLength),
    scales: new Float32Array(batches * rows * blocks),
    zeroPoints: new Uint8Array(batches * rows * blocks),
  };
  const range = rangeOf(scheme);
  const paramsOf = blockRule(scheme);
  const common = scheme.granularity === "tensor" && !grid ? paramsOf(...wholeRange(matrix, scheme)) : undefined;
  forEachTile(matrix, blockSize, (tile) => {
    const { los, his } = tile.ranges(scheme.reduceRange === true);
    if (grid) tile.loadGrid(grid, target.layout, blocks, scheme.signed);
    else {
      const { scales, zeroPoints } = tile;
      for (let i = 0; i < los.length; i++) {
        const { scale, zeroPoint } = common ?? paramsOf(los[i]!, his[i]!);
        scales[i] = scale;
        zeroPoints[i] = zeroPoint;
      }
    }
    tile.encode(range);
    tile.store(result, target.layout, rowLength, blocks);
  });
  if (keepSums) restoreSums(matrix, result, range);
  return result;
}

/** The kernels take 16 floats at a time: only a row that is a single block may be of any length. */
function checkBlock(blockSize: number, depth: number, padded: boolean): void {
  if ((blockSize >= depth && !padded) || blockSize % 16 === 0) return;
  throw new CoreError("internal", `A block of ${blockSize} is not a whole number of 16 elements.`);
}

function wholeRange(matrix: WeightMatrix, { reduceRange = false }: WeightScheme): [lo: number, hi: number] {
  let [lo, hi] = [0, 0];
  forEachTile(matrix, matrix.depth, (tile) => {
    const { los, his } = tile.ranges(reduceRange);
    for (let i = 0; i < los.length; i++) {
      lo = Math.min(lo, los[i]!);
      hi = Math.max(hi, his[i]!);
    }
  });
  return [lo, hi];
}

/** The largest |w| of each row of a single matrix. Throws `non_finite` when it holds NaN or an infinity. */
export function largestOfRows(matrix: WeightMatrix): Float32Array {
  const largest = new Float32Array(matrix.rows);
  forEachTile(matrix, matrix.depth, (tile) => {
    const { los, his } = tile.ranges(false);
    for (let i = 0; i < tile.rows; i++) largest[tile.firstRow + i] = Math.max(-los[i]!, his[i]!);
  });
  return largest;
}

/** Moves codes by one step, those first that lose least by it, until each row's codes add up to its values. */
function restoreSums({ values, depth }: WeightMatrix, result: RoundedWeight, range: CodeRange): void {
  const signed = range.min < 0;
  const codes = signed ? new Int8Array(result.q.buffer) : result.q;
  const zeroPoints = signed ? new Int8Array(result.zeroPoints.buffer) : result.zeroPoints;
  for (const [row, scale] of result.scales.entries()) {
    const start = row * depth;
    const residuals = Array.from({ length: depth }, (_, i) => ({
      at: start + i,
      residual: values[start + i]! / scale + zeroPoints[row]! - codes[start + i]!,
    }));
    let missing = roundHalfEven(residuals.reduce((sum, { residual }) => sum + residual, 0));
    const step = Math.sign(missing);
    residuals.sort((a, b) => step * (b.residual - a.residual) || a.at - b.at);
    for (const { at } of residuals) {
      if (missing === 0) break;
      const moved = codes[at]! + step;
      if (moved < range.min || moved > range.max) continue;
      codes[at] = moved;
      missing -= step;
    }
  }
}

/** The rule that makes a scale and zero point out of the range of a block. */
export function blockRule(scheme: WeightScheme): (lo: number, hi: number) => AffineParams {
  const { symmetric, bits, reduceRange, scaleDType = "float32" } = scheme;
  // Two values of one sign that add up to `reach` are quantized to at most reach / scale + 1 once rounded: 127 + 1.
  if (reduceRange) return affineRule({ min: -127, max: 127 }, { symmetric: true, scaleDType });
  if (!symmetric || bits === 8) return affineRule(rangeOf(scheme), { symmetric, scaleDType });
  return signedRule(rangeOf(scheme), scaleDType);
}

/**
 * Symmetric codes of few bits have one more step on the negative side. Giving the scale the sign of the larger end, so that this end
 * falls on the lowest code, makes use of it: of 4 bits all 16 levels instead of 15 (0.8 dB on Gaussian weights).
 */
function signedRule(codes: CodeRange, scaleDType: ScaleDType): (lo: number, hi: number) => AffineParams {
  const zeroPoint = roundHalfEven((codes.min + codes.max) / 2);
  const negativeSide = affineRule({ min: codes.min - zeroPoint, max: 0 }, { scaleDType });
  return (lo, hi) => {
    const { scale } = negativeSide(-Math.max(-lo, hi), 0);
    return { scale: hi > -lo ? -scale : scale, zeroPoint };
  };
}
