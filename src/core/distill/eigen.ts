import { CoreError } from "../errors.ts";
import { Random } from "../random.ts";

/**
 * The `count` largest eigenvalues of a symmetric matrix (row-major, n x n; only its lower triangle is read) and their eigenvectors, largest
 * first; `vectors` is row-major [n, count], one eigenvector for each column. Throws `non_finite` where the matrix is not finite.
 *
 * Householder reflections bring the matrix to tridiagonal form, implicitly shifted QL steps find the eigenvalues of that, inverse iteration
 * its eigenvectors, which the reflections take back (Golub and Van Loan, Matrix Computations, 8.3; the eigenvectors as LAPACK's dstein).
 * About 4/3 n³ + 4 n² count operations.
 */
export function symmetricEigen(
  matrix: Float64Array,
  n: number,
  count = n,
): { values: Float64Array; vectors: Float64Array<ArrayBuffer> } {
  const a = matrix.slice();
  const { diagonal, off, betas } = tridiagonalize(a, n);
  if (![...diagonal, ...off].every(Number.isFinite)) {
    throw new CoreError("non_finite", "A layer's weights or outputs are not finite.");
  }
  const values = tridiagonalValues(diagonal, off).sort().reverse().slice(0, count);
  const rows = tridiagonalVectors(diagonal, off, values);
  for (const row of rows) reflectBack(a, betas, row);
  const vectors = new Float64Array(n * count);
  for (const [r, row] of rows.entries()) for (let i = 0; i < n; i++) vectors[i * count + r] = row[i]!;
  return { values, vectors };
}

/**
 * A ← H A H for n − 2 reflections H = 1 − β v vᵀ, each of which clears a column below the subdiagonal. Works on the lower triangle of `a`;
 * row k of its upper triangle holds the v of reflection k afterwards (elements k + 1 and on; the others are zero).
 */
function tridiagonalize(a: Float64Array, n: number) {
  const betas = new Float64Array(n);
  const v = new Float64Array(n);
  const w = new Float64Array(n);
  for (let k = 0; k < n - 2; k++) {
    let norm = 0;
    for (let i = k + 1; i < n; i++) norm += a[i * n + k]! ** 2;
    norm = Math.sqrt(norm);
    v.fill(0);
    if (norm === 0) continue;
    const head = a[(k + 1) * n + k]!;
    const alpha = head > 0 ? -norm : norm;
    for (let i = k + 1; i < n; i++) v[i] = a[i * n + k]!;
    v[k + 1]! -= alpha;
    // |v|² = 2 norm (norm + |head|)
    const beta = 1 / (norm * (norm + Math.abs(head)));
    betas[k] = beta;
    // w = β A v − ½ β² (vᵀ A v) v, then A ← A − v wᵀ − w vᵀ
    w.fill(0);
    for (let i = k + 1; i < n; i++) {
      const row = i * n;
      const vi = v[i]!;
      let sum = a[row + i]! * vi;
      for (let j = k + 1; j < i; j++) {
        const x = a[row + j]!;
        sum += x * v[j]!;
        w[j]! += x * vi;
      }
      w[i]! += sum;
    }
    let dot = 0;
    for (let i = k + 1; i < n; i++) {
      w[i]! *= beta;
      dot += w[i]! * v[i]!;
    }
    const half = 0.5 * beta * dot;
    for (let i = k + 1; i < n; i++) w[i]! -= half * v[i]!;
    for (let i = k + 1; i < n; i++) {
      const row = i * n;
      const vi = v[i]!;
      const wi = w[i]!;
      for (let j = k + 1; j <= i; j++) a[row + j]! -= vi * w[j]! + wi * v[j]!;
    }
    a[(k + 1) * n + k] = alpha;
    for (let i = k + 1; i < n; i++) a[k * n + i] = v[i]!;
  }
  return {
    diagonal: Float64Array.from({ length: n }, (_, i) => a[i * n + i]!),
    off: Float64Array.from({ length: n }, (_, i) => (i < n - 1 ? a[(i + 1) * n + i]! : 0)),
    betas,
  };
}

/** y ← H₀ H₁ … y. */
function reflectBack(a: Float64Array, betas: Float64Array, y: Float64Array): void {
  const n = y.length;
  for (let k = n - 3; k >= 0; k--) {
    const row = k * n;
    if (betas[k] === 0) continue;
    let dot = 0;
    for (let i = k + 1; i < n; i++) dot += a[row + i]! * y[i]!;
    dot *= betas[k]!;
    for (let i = k + 1; i < n; i++) y[i]! -= dot * a[row + i]!;
  }
}

/** A bound of the absolute values of all eigenvalues: the largest sum of a row. */
function rowNorm(diagonal: Float64Array, off: Float64Array): number {
  let norm = 0;
  for (let i = 0; i < diagonal.length; i++) {
    norm = Math.max(norm, Math.abs(diagonal[i]!) + Math.abs(off[i]!) + Math.abs(off[i - 1] ?? 0));
  }
  return norm;
}

const MAX_STEPS = 60;

/** Eigenvalues of a tridiagonal matrix, in no order, by QL steps with Wilkinson's shift. */
function tridiagonalValues(diagonal: Float64Array, off: Float64Array): Float64Array {
  const n = diagonal.length;
  const [d, e] = [diagonal.slice(), off.slice()];
  // Relative to the whole matrix: among eigenvalues that are nothing but rounding, couplings never get small beside their neighbours.
  const negligible = Number.EPSILON * rowNorm(diagonal, off);
  for (let l = 0; l < n; l++) {
    for (let step = 0; ; step++) {
      let m = l;
      while (m < n - 1 && Math.abs(e[m]!) > negligible) m++;
      if (m === l) break;
      if (step === MAX_STEPS) throw notConverged();
      // Wilkinson's shift: the eigenvalue of the leading 2x2 block that is closer to d[l].
      let g = (d[l + 1]! - d[l]!) / (2 * e[l]!);
      let r = Math.hypot(g, 1);
      g = d[m]! - d[l]! + e[l]! / (g + (g >= 0 ? r : -r));
      let [s, c, p] = [1, 1, 0];
      let i = m - 1;
      for (; i >= l; i--) {
        const f = s * e[i]!;
        const b = c * e[i]!;
        r = Math.hypot(f, g);
        e[i + 1] = r;
        if (r === 0) {
          d[i + 1]! -= p;
          e[m] = 0;
          break;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1]! - p;
        r = (d[i]! - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
      }
      if (r === 0 && i >= l) continue;
      d[l]! -= p;
      e[l] = g;
      e[m] = 0;
    }
  }
  return d;
}

const INVERSE_ITERATIONS = 3;
/** Inverse iteration keeps vectors apart by itself where eigenvalues differ by more than this share of the largest. */
const CLUSTER = 1e-3;
/** What is left of a vector of norm 1 when it lies in the span of those before it. */
const DEPENDENT = 1e-6;

/** An orthonormal eigenvector of a tridiagonal matrix for each of `values`, which are in descending order. */
function tridiagonalVectors(diagonal: Float64Array, off: Float64Array, values: Float64Array): Float64Array[] {
  const n = diagonal.length;
  const norm = rowNorm(diagonal, off) || 1;
  const random = new Random(0, "inverse iteration");
  const start = new Float32Array(n);
  const vectors: Float64Array[] = [];
  let shift = Number.POSITIVE_INFINITY;
  for (const value of values) {
    // Equal eigenvalues would give one vector again and again.
    shift = Math.min(value, shift - 4 * Number.EPSILON * norm);
    const near = vectors.filter((_, i) => values[i]! - value < CLUSTER * norm);
    const solve = shiftedSolver(diagonal, off, shift, Number.EPSILON * norm);
    vectors.push(
      inverseIteration(solve, near, () => {
        random.fillNormal(start);
        return Float64Array.from(start);
      }),
    );
  }
  return vectors;
}

const MAX_STARTS = 20;

/** A vector of norm 1 that `solve` stretches most, orthogonal to `near`. */
function inverseIteration(
  solve: (x: Float64Array) => void,
  near: readonly Float64Array[],
  start: () => Float64Array,
): Float64Array {
  for (let i = 0; i < MAX_STARTS; i++) {
    const x = start();
    let left = 0;
    for (let step = 0; step < INVERSE_ITERATIONS; step++) {
      solve(x);
      normalize(x);
      left = orthogonalize(x, near);
    }
    if (left > DEPENDENT) return x;
  }
  throw notConverged();
}

const notConverged = () => new CoreError("non_finite", "The eigenvalues of a layer's outputs did not converge.");

/** Takes the parts along orthonormal `others` out of x, of norm 1. Answers the norm that was left; x has norm 1 again. */
function orthogonalize(x: Float64Array, others: readonly Float64Array[]): number {
  let left = 1;
  // Twice is enough (Kahan and Parlett).
  for (let pass = 0; pass < 2 && others.length > 0; pass++) {
    for (const other of others) {
      let dot = 0;
      for (let i = 0; i < x.length; i++) dot += x[i]! * other[i]!;
      for (let i = 0; i < x.length; i++) x[i]! -= dot * other[i]!;
    }
    left *= normalize(x);
  }
  return left;
}

/** Scales x to norm 1 and answers the norm it had. */
function normalize(x: Float64Array): number {
  let largest = 0;
  for (let i = 0; i < x.length; i++) largest = Math.max(largest, Math.abs(x[i]!));
  if (largest === 0) return 0;
  let sum = 0;
  for (let i = 0; i < x.length; i++) {
    x[i]! /= largest;
    sum += x[i]! * x[i]!;
  }
  const norm = Math.sqrt(sum);
  for (let i = 0; i < x.length; i++) x[i]! /= norm;
  return norm * largest;
}

/** x ← (T − shift)⁻¹ x for a tridiagonal T, by Gaussian elimination with partial pivoting; pivots below `tiny` become `tiny`. */
function shiftedSolver(diagonal: Float64Array, off: Float64Array, shift: number, tiny: number) {
  const n = diagonal.length;
  // The rows of U have up to three elements.
  const [u0, u1, u2] = [new Float64Array(n), new Float64Array(n), new Float64Array(n)];
  const factors = new Float64Array(n);
  const swapped = new Uint8Array(n);
  let [pivot, next] = [diagonal[0]! - shift, off[0]!];
  for (let i = 0; i < n - 1; i++) {
    const [below, belowDiagonal, belowNext] = [off[i]!, diagonal[i + 1]! - shift, off[i + 1]!];
    if (Math.abs(below) > Math.abs(pivot)) {
      swapped[i] = 1;
      factors[i] = pivot / below;
      [u0[i], u1[i], u2[i]] = [below, belowDiagonal, belowNext];
      [pivot, next] = [next - factors[i]! * belowDiagonal, -factors[i]! * belowNext];
    } else {
      u0[i] = Math.abs(pivot) < tiny ? tiny : pivot;
      factors[i] = below / u0[i]!;
      u1[i] = next;
      [pivot, next] = [belowDiagonal - factors[i]! * next, belowNext];
    }
  }
  u0[n - 1] = Math.abs(pivot) < tiny ? tiny : pivot;
  return (x: Float64Array): void => {
    for (let i = 0; i < n - 1; i++) {
      if (swapped[i]) [x[i], x[i + 1]] = [x[i + 1]!, x[i]!];
      x[i + 1]! -= factors[i]! * x[i]!;
    }
    for (let i = n - 1; i >= 0; i--) {
      let rest = x[i]!;
      if (i + 1 < n) rest -= u1[i]! * x[i + 1]!;
      if (i + 2 < n) rest -= u2[i]! * x[i + 2]!;
      x[i] = rest / u0[i]!;
    }
  };
}
