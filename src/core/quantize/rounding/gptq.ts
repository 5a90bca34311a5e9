/**
 * GPTQ (Frantar et al., arXiv 2210.17323): weights are rounded one after the other along the depth, and what each loses is made up for by those
 * that are still to be rounded, as far as the activations correlate. Minimizes ‖X·(Ŵ − W)ᵀ‖², given H = XᵀX.
 */
import { quantizeValue } from "../params.ts";
import { blockSizeOf, rangeOf, type WeightScheme } from "../scheme.ts";
import { blockCount, blockRule, type RoundedWeight } from "./blocks.ts";
import { type LayerStatistics, paramsAt, type Rounding, type RowMatrix } from "./rounding.ts";

/** Layers are rounded for what the float model shows them. */
export const gptq: Rounding = {
  name: "gptq",
  title: "GPTQ",
  sees: "float",
  round: async (weight, scheme, statistics) => statistics && gptqRound(weight, statistics, scheme),
};

/** Part of the mean of H's diagonal that is added to it (section 3.3 of the paper). */
const DAMPING = 0.01;
/** Each next attempt damps ten times as much, when rounding errors have made H indefinite. */
const MAX_DAMPING = 10;

/** Columns that are finished before what they lost reaches the columns behind them: so much of U stays in the cache. */
const CHUNK = 128;

/**
 * Rounds the rows of a weight, given H = `fit.gram` [depth, depth] (symmetric, any factor). Scale and zero point of a block are those of its
 * weights at the time it is reached, unless they are given. Undefined when H cannot be factorized, because it is not finite.
 */
export function gptqRound(
  { values, rows, depth, grid, limit }: RowMatrix,
  { fit: { gram } }: Pick<LayerStatistics, "fit">,
  scheme: WeightScheme,
): RoundedWeight | undefined {
  const upper = inverseFactor(gram, depth);
  if (!upper) return undefined;
  const range = rangeOf(scheme);
  const blockSize = Math.min(blockSizeOf(scheme, depth), depth);
  const blocks = blockCount(depth, blockSize);
  const rounded: RoundedWeight = {
    q: new Uint8Array(rows * depth),
    scales: grid ? Float32Array.from(grid.scales) : new Float32Array(rows * blocks),
    zeroPoints: grid ? Uint8Array.from(grid.zeroPoints) : new Uint8Array(rows * blocks),
  };
  const work = Float64Array.from(values);
  const chunk = chunkOf(blockSize, depth);
  const paramsOf = blockRule(scheme);
  const losses = new Float64Array(depth);
  for (let start = 0; start < depth; start += chunk) {
    const end = Math.min(start + chunk, depth);
    for (let row = 0; row < rows; row++) {
      const weights = work.subarray(row * depth, (row + 1) * depth);
      for (let i = start; i < end; i++) {
        const at = row * blocks + Math.floor(i / blockSize);
        if (i % blockSize === 0 && !grid) {
          const { scale, zeroPoint } = paramsOf(...extremesOf(weights, i, Math.min(i + blockSize, depth)));
          rounded.scales[at] = scale;
          rounded.zeroPoints[at] = zeroPoint;
        }
        const params = paramsAt(rounded, at, scheme);
        const q = quantizeValue(weights[i]!, params, range);
        rounded.q[row * depth + i] = q;
        const loss = (weights[i]! - (q - params.zeroPoint) * params.scale) / upper[i * depth + i]!;
        losses[i] = loss;
        subtractRows(weights, upper, depth, losses, i, i + 1, i + 1, end);
      }
      subtractRows(weights, upper, depth, losses, start, end, end, depth);
    }
  }
  limit?.(new Int8Array(rounded.q.buffer));
  return rounded;
}

/** Whole blocks, so that a block's range is known when it is reached; a single block for the whole depth needs none. */
function chunkOf(blockSize: number, depth: number): number {
  return blockSize >= depth ? CHUNK : blockSize * Math.max(1, Math.floor(CHUNK / blockSize));
}

function extremesOf(weights: Float64Array, start: number, end: number): [number, number] {
  let [lo, hi] = [0, 0];
  for (let i = start; i < end; i++) {
    const x = Math.fround(weights[i]!);
    if (x < lo) lo = x;
    else if (x > hi) hi = x;
    else if (Number.isNaN(x)) return [Number.NaN, Number.NaN];
  }
  return [lo, hi];
}

/**
 * U, upper triangular with H⁻¹ = Uᵀ·U (H damped), in row-major order; undefined when there is none. Inputs that were always zero stand alone.
 * Found without inverting H: H = R·Rᵀ with R upper triangular (Cholesky from the last row up) gives H⁻¹ = R⁻ᵀ·R⁻¹, so U = R⁻¹.
 */
export function inverseFactor(gram: Float32Array, depth: number): Float64Array | undefined {
  let mean = 0;
  for (let i = 0; i < depth; i++) mean += gram[i * depth + i]! / depth;
  if (!(mean >= 0 && mean < Number.POSITIVE_INFINITY)) return undefined;
  const factor = new Float64Array(depth * depth);
  for (let damping = DAMPING; damping <= MAX_DAMPING; damping *= 10) {
    factor.set(gram);
    for (let i = 0; i < depth; i++) {
      const at = i * depth + i;
      factor[at] = factor[at] === 0 ? 1 : factor[at]! + damping * mean;
    }
    if (factorize(factor, depth)) {
      invert(factor, depth);
      return factor;
    }
  }
  return undefined;
}

/** H = R·Rᵀ in place, in the upper triangle. Answers whether H was positive definite. */
function factorize(h: Float64Array, depth: number): boolean {
  for (let j = depth - 1; j >= 0; j--) {
    const rowJ = j * depth + j + 1;
    const count = depth - j - 1;
    const diagonal = h[rowJ - 1]! - dot(h, rowJ, rowJ, count);
    if (!(diagonal > 0)) return false;
    const pivot = Math.sqrt(diagonal);
    h[rowJ - 1] = pivot;
    for (let i = 0; i < j; i++) {
      const at = i * depth + j;
      h[at] = (h[at]! - dot(h, at + 1, rowJ, count)) / pivot;
    }
  }
  return true;
}

/** The inverse of an upper triangle, in place. */
function invert(r: Float64Array, depth: number): void {
  const row = new Float64Array(depth);
  const factors = new Float64Array(depth);
  for (let i = depth - 1; i >= 0; i--) {
    const at = i * depth;
    const pivot = 1 / r[at + i]!;
    for (let k = i + 1; k < depth; k++) factors[k] = r[at + k]! * pivot;
    row.fill(0, i);
    row[i] = pivot;
    for (let k = i + 1; k < depth; k += 4) subtractRows(row, r, depth, factors, k, Math.min(k + 4, depth), k, depth);
    r.set(row.subarray(i), at + i);
    r.fill(0, at, at + i);
  }
}

/** Of `count` elements from `a` on and as many from `b` on. Four sums, because each addition waits for the one before. */
function dot(values: Float64Array, a: number, b: number, count: number): number {
  let [s0, s1, s2, s3] = [0, 0, 0, 0];
  let i = 0;
  for (; i + 3 < count; i += 4) {
    s0 += values[a + i]! * values[b + i]!;
    s1 += values[a + i + 1]! * values[b + i + 1]!;
    s2 += values[a + i + 2]! * values[b + i + 2]!;
    s3 += values[a + i + 3]! * values[b + i + 3]!;
  }
  for (; i < count; i++) s0 += values[a + i]! * values[b + i]!;
  return s0 + s1 + (s2 + s3);
}

/**
 * target[j] −= Σ factors[k] · matrix[k, j] over `first` ≤ k < `last`, for `start` ≤ j < `end`; `matrix` is [·, depth]. Four rows at a time, because
 * target is read and written for each.
 */
function subtractRows(
  target: Float64Array,
  matrix: Float64Array,
  depth: number,
  factors: Float64Array,
  first: number,
  last: number,
  start: number,
  end: number,
): void {
  let k = first;
  for (; k + 3 < last; k += 4) {
    const [f0, f1, f2, f3] = [factors[k]!, factors[k + 1]!, factors[k + 2]!, factors[k + 3]!];
    for (let j = start, at = k * depth + start; j < end; j++, at++) {
      target[j] =
        target[j]! -
        (f0 * matrix[at]! + f1 * matrix[at + depth]! + (f2 * matrix[at + 2 * depth]! + f3 * matrix[at + 3 * depth]!));
    }
  }
  for (; k < last; k++) {
    const factor = factors[k]!;
    for (let j = start, at = k * depth + start; j < end; j++, at++) target[j] = target[j]! - factor * matrix[at]!;
  }
}
