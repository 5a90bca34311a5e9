import { CoreError } from "../errors.ts";

/**
 * Eigenvalues and eigenvectors of a symmetric matrix (row-major, n x n), largest first; `vectors` holds one eigenvector for each column.
 *
 * Householder reflections bring the matrix to tridiagonal form, implicitly shifted QL steps to diagonal form (Golub and Van Loan, Matrix
 * Computations, 8.3). About 5 n³ operations: one second for n = 512.
 */
export function symmetricEigen(matrix: Float64Array, n: number): { values: Float64Array; vectors: Float64Array } {
  const q = new Float64Array(n * n);
  for (let i = 0; i < n; i++) q[i * n + i] = 1;
  const a = matrix.slice();
  const { diagonal, off } = tridiagonalize(a, q, n);
  diagonalize(diagonal, off, q, n);

  const order = Array.from({ length: n }, (_, i) => i).sort((i, j) => diagonal[j]! - diagonal[i]!);
  const vectors = new Float64Array(n * n);
  order.forEach((from, to) => {
    // q holds eigenvectors in rows; the result has them in columns.
    for (let k = 0; k < n; k++) vectors[k * n + to] = q[from * n + k]!;
  });
  return { values: Float64Array.from(order, (i) => diagonal[i]!), vectors };
}

/**
 * A ← H A H for n − 2 reflections H = 1 − β v vᵀ, each of which clears a column below the subdiagonal. The product of the reflections is
 * gathered in q, transposed: row i of q is column i of the orthogonal matrix.
 */
function tridiagonalize(a: Float64Array, q: Float64Array, n: number): { diagonal: Float64Array; off: Float64Array } {
  const v = new Float64Array(n);
  const w = new Float64Array(n);
  for (let k = 0; k < n - 2; k++) {
    let norm = 0;
    for (let i = k + 1; i < n; i++) norm += a[i * n + k]! ** 2;
    norm = Math.sqrt(norm);
    if (norm === 0) continue;
    const head = a[(k + 1) * n + k]!;
    const alpha = head > 0 ? -norm : norm;
    for (let i = k + 1; i < n; i++) v[i] = a[i * n + k]!;
    v[k + 1]! -= alpha;
    // |v|² = 2 norm (norm + |head|)
    const beta = 1 / (norm * (norm + Math.abs(head)));
    // w = β A v − ½ β² (vᵀ A v) v, then A ← A − v wᵀ − w vᵀ
    let dot = 0;
    for (let i = k + 1; i < n; i++) {
      let sum = 0;
      const row = i * n;
      for (let j = k + 1; j < n; j++) sum += a[row + j]! * v[j]!;
      w[i] = beta * sum;
      dot += w[i]! * v[i]!;
    }
    const half = 0.5 * beta * dot;
    for (let i = k + 1; i < n; i++) w[i]! -= half * v[i]!;
    for (let i = k + 1; i < n; i++) {
      const [vi, wi, row] = [v[i]!, w[i]!, i * n];
      for (let j = k + 1; j < n; j++) a[row + j]! -= vi * w[j]! + wi * v[j]!;
    }
    a[(k + 1) * n + k] = alpha;
    a[k * n + k + 1] = alpha;
    // Q ← Q H; in rows: every column of Q changes by −β (Q v) vᵀ.
    w.fill(0);
    for (let i = k + 1; i < n; i++) {
      const [vi, row] = [v[i]!, i * n];
      for (let j = 0; j < n; j++) w[j]! += vi * q[row + j]!;
    }
    for (let i = k + 1; i < n; i++) {
      const [factor, row] = [beta * v[i]!, i * n];
      for (let j = 0; j < n; j++) q[row + j]! -= factor * w[j]!;
    }
  }
  return {
    diagonal: Float64Array.from({ length: n }, (_, i) => a[i * n + i]!),
    off: Float64Array.from({ length: n }, (_, i) => (i < n - 1 ? a[(i + 1) * n + i]! : 0)),
  };
}

const MAX_STEPS = 60;

/** QL steps with Wilkinson's shift on the tridiagonal matrix; rotations are applied to the rows of q. */
function diagonalize(d: Float64Array, e: Float64Array, q: Float64Array, n: number): void {
  for (let l = 0; l < n; l++) {
    for (let step = 0; ; step++) {
      let m = l;
      while (m < n - 1 && Math.abs(e[m]!) > Number.EPSILON * (Math.abs(d[m]!) + Math.abs(d[m + 1]!))) m++;
      if (m === l) break;
      if (step === MAX_STEPS)
        throw new CoreError("non_finite", "The eigenvalues of a layer's outputs did not converge.");
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
        const [upper, lower] = [i * n, (i + 1) * n];
        for (let k = 0; k < n; k++) {
          const [x, y] = [q[upper + k]!, q[lower + k]!];
          q[lower + k] = s * x + c * y;
          q[upper + k] = c * x - s * y;
        }
      }
      if (r === 0 && i >= l) continue;
      d[l]! -= p;
      e[l] = g;
      e[m] = 0;
    }
  }
}
