/**
 * U, upper triangular with H⁻¹ = Uᵀ·U, found without inverting H: H = R·Rᵀ with R upper triangular (Cholesky from the last row up) gives
 * H⁻¹ = R⁻ᵀ·R⁻¹, so U = R⁻¹. Both go block by block, so that nearly all of the work is products of matrices (Golub and Van Loan, Matrix
 * Computations, 4.2.9).
 */
import { type Block, type Matrix, TILE, type Workspace, wholeTiles, workspace } from "./products.ts";

/** Part of the mean of H's diagonal that is added to it (GPTQ, section 3.3). */
const DAMPING = 0.01;
/** Each next attempt damps ten times as much, when rounding errors have made H indefinite. */
const MAX_DAMPING = 10;

/** Columns that are finished element by element; what they mean for the others is a product. */
const BLOCK = 4 * TILE;

/**
 * U [depth, depth] in row-major order for H = `gram`, damped; undefined when there is none, because H is not finite. Inputs that were always zero
 * stand alone. Throws `limit_exceeded` above a depth of 16,000.
 */
export function inverseFactor(gram: Float32Array, depth: number): Float64Array<ArrayBuffer> | undefined {
  let mean = 0;
  for (let i = 0; i < depth; i++) mean += gram[i * depth + i]! / depth;
  if (!(mean >= 0 && mean < Number.POSITIVE_INFINITY)) return undefined;
  const size = wholeTiles(depth);
  const space = workspace([
    [size, size],
    [BLOCK, size],
  ]);
  const [h] = space.matrices;
  for (let damping = DAMPING; damping <= MAX_DAMPING; damping *= 10) {
    h.data.fill(0);
    for (let i = 0; i < depth; i++) {
      h.data.set(gram.subarray(i * depth, (i + 1) * depth), i * h.stride);
      const at = i * h.stride + i;
      h.data[at] = h.data[at] === 0 ? 1 : h.data[at]! + damping * mean;
    }
    for (let i = depth; i < size; i++) h.data[i * h.stride + i] = 1;
    if (factorize(space, size)) {
      invert(space, size);
      const upper = new Float64Array(depth * depth);
      for (let i = 0; i < depth; i++) {
        upper.set(h.data.subarray(i * h.stride + i, i * h.stride + depth), i * depth + i);
      }
      return upper;
    }
  }
  return undefined;
}

/** The matrix [size, size] itself, and [BLOCK, size] to work with. */
type Space = Workspace<readonly [Matrix, Matrix]>;

const block = (of: Matrix, row: number, column: number, rows: number, columns: number): Block => {
  return { of, row, column, rows, columns };
};

/** H = R·Rᵀ in place, in the upper triangle. Answers whether H was positive definite. */
function factorize({ matrices: [h, transposed], subtractProduct }: Space, size: number): boolean {
  const { data, stride } = h;
  for (let last = size; last > 0; ) {
    const first = Math.max(0, last - BLOCK);
    for (let j = last - 1; j >= first; j--) {
      const rowJ = j * stride;
      const diagonal = data[rowJ + j]! - dot(data, rowJ + j + 1, rowJ + j + 1, last - j - 1);
      if (!(diagonal > 0)) return false;
      const pivot = Math.sqrt(diagonal);
      data[rowJ + j] = pivot;
      for (let i = 0; i < j; i++) {
        const at = i * stride + j;
        data[at] = (data[at]! - dot(data, at + 1, rowJ + j + 1, last - j - 1)) / pivot;
      }
    }
    const width = last - first;
    for (let i = 0; i < first; i++) {
      for (let k = 0; k < width; k++) transposed.data[k * transposed.stride + i] = data[i * stride + first + k]!;
    }
    for (let row = 0; row < first; row += BLOCK) {
      const [rows, columns] = [Math.min(BLOCK, first - row), first - row];
      subtractProduct(
        block(h, row, row, rows, columns),
        block(h, row, first, rows, width),
        block(transposed, 0, row, width, columns),
      );
    }
    last = first;
  }
  return true;
}

/** U = R⁻¹ in place, from the last rows up: R_bb·U_b = (1 | −R_b·U_behind), with b a block's rows and those behind it finished. */
function invert({ matrices: [r, right], subtractProduct }: Space, size: number): void {
  const { data, stride } = r;
  for (let last = size; last > 0; ) {
    const first = Math.max(0, last - BLOCK);
    right.data.fill(0);
    for (let row = last; row < size; row += BLOCK) {
      const [depth, columns] = [Math.min(BLOCK, size - row), size - row];
      subtractProduct(
        block(right, 0, row, last - first, columns),
        block(r, first, row, last - first, depth),
        block(r, row, row, depth, columns),
      );
    }
    for (let i = last - 1; i >= first; i--) {
      const sums = right.data.subarray((i - first) * right.stride, (i - first) * right.stride + size);
      sums[i] = 1;
      for (let k = i + 1; k < last; k++) {
        const factor = data[i * stride + k]!;
        for (let j = k, at = k * stride + k; j < size; j++, at++) sums[j] = sums[j]! - factor * data[at]!;
      }
      const pivot = 1 / data[i * stride + i]!;
      for (let j = i; j < size; j++) data[i * stride + j] = sums[j]! * pivot;
      // Products with this block read it as a square.
      data.fill(0, i * stride + first, i * stride + i);
    }
    last = first;
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
