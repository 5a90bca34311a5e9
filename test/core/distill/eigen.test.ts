import assert from "node:assert/strict";
import { test } from "node:test";
import { symmetricEigen } from "../../../src/core/distill/eigen.ts";
import { CoreError } from "../../../src/core/errors.ts";

function symmetric(n: number, element: (i: number, j: number) => number): Float64Array {
  return Float64Array.from({ length: n * n }, (_, k) =>
    element(Math.min(Math.floor(k / n), k % n), Math.max(Math.floor(k / n), k % n)),
  );
}

/** Sums of products of numbers in single precision: all eigenvalues but `rank` are rounding. */
function lowRankCovariance(n: number, rank: number): Float64Array {
  const rows = Array.from({ length: 300 }, (_, s) =>
    Float32Array.from({ length: n }, (_, i) => {
      let sum = 0;
      for (let r = 0; r < rank; r++) sum += Math.sin(s * (r + 1.3) + r) * Math.cos(i * (r + 0.7)) * 2 ** -r;
      return sum;
    }),
  );
  return symmetric(n, (i, j) => rows.reduce((sum, row) => sum + row[i]! * row[j]!, 0));
}

for (const [name, n, matrix] of [
  ["1 x 1", 1, symmetric(1, () => 4)],
  [
    "2 x 2",
    2,
    symmetric(
      2,
      (i, j) =>
        [
          [2, 1],
          [1, 2],
        ][i]![j]!,
    ),
  ],
  ["diagonal, with equal values", 5, symmetric(5, (i, j) => (i === j ? [3, 1, 3, -2, 0][i]! : 0))],
  ["without a pattern", 40, symmetric(40, (i, j) => Math.sin(13 * i + 7 * j * j))],
  ["of rank 3", 25, symmetric(25, (i, j) => Math.sin(i) * Math.sin(j) + Math.cos(i) * Math.cos(j) + 100 * i * j)],
  ["of rank 20 in single precision", 120, lowRankCovariance(120, 20)],
  ["zero", 4, symmetric(4, () => 0)],
] as const) {
  test(`the largest eigenvalues alone are the same as among all (${name})`, () => {
    const count = Math.ceil(n / 3);
    const [all, some] = [symmetricEigen(matrix, n), symmetricEigen(matrix, n, count)];
    assert.deepEqual(some.values, all.values.slice(0, count));
    for (let r = 0; r < count; r++) {
      for (let i = 0; i < n; i++) assert.equal(some.vectors[i * count + r], all.vectors[i * n + r]);
    }
  });

  test(`a symmetric matrix is its eigenvectors and eigenvalues (${name})`, () => {
    const { values, vectors } = symmetricEigen(matrix, n);
    const scale = Math.max(1, ...values.map(Math.abs));
    for (let i = 0; i < n; i++) {
      if (i > 0) assert.ok(values[i]! <= values[i - 1]!);
      for (let j = 0; j < n; j++) {
        let [product, dot] = [0, 0];
        for (let k = 0; k < n; k++) {
          product += vectors[i * n + k]! * values[k]! * vectors[j * n + k]!;
          dot += vectors[k * n + i]! * vectors[k * n + j]!;
        }
        assert.ok(Math.abs(product - matrix[i * n + j]!) < 1e-11 * scale * n);
        assert.ok(Math.abs(dot - (i === j ? 1 : 0)) < 1e-12 * n);
      }
    }
  });
}

test("a matrix that is not finite is refused", () => {
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    const matrix = symmetric(5, (i, j) => (i === 1 && j === 3 ? bad : i === j ? 1 : 0));
    assert.throws(
      () => symmetricEigen(matrix, 5, 2),
      (error) => error instanceof CoreError && error.code === "non_finite",
    );
  }
});
