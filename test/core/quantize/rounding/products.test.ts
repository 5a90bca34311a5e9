import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { type Block, type Matrix, wholeTiles, workspace } from "../../../../src/core/quantize/rounding/products.ts";
import { Random } from "../../../../src/core/random.ts";

const size = fc.integer({ min: 1, max: 40 });

function fill({ data, stride }: Matrix, rows: number, columns: number, random: Random): void {
  const values = new Float32Array(rows * columns);
  random.fillNormal(values);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) data[i * stride + j] = values[i * columns + j]!;
}

describe("products", () => {
  test("C − A·B, element by element", () => {
    fc.assert(
      fc.property(size, fc.integer({ min: 1, max: 300 }), size, fc.nat(), (rows, depth, columns, seed) => {
        const { matrices, subtractProduct } = workspace([
          [rows, columns],
          [rows, depth],
          [depth, columns],
        ]);
        const [c, a, b] = matrices;
        const random = new Random(seed, "matrices");
        fill(c, rows, columns, random);
        fill(a, rows, depth, random);
        fill(b, depth, columns, random);
        const before = c.data.slice();
        const whole = (of: Matrix, own: number, across: number): Block => ({
          ...{ of, row: 0, column: 0, rows: own, columns: across },
        });
        subtractProduct(whole(c, rows, columns), whole(a, rows, depth), whole(b, depth, columns));
        for (let i = 0; i < wholeTiles(rows); i++) {
          for (let j = 0; j < wholeTiles(columns); j++) {
            let exact = before[i * c.stride + j]!;
            for (let k = 0; k < depth; k++) exact -= a.data[i * a.stride + k]! * b.data[k * b.stride + j]!;
            assert.ok(Math.abs(c.data[i * c.stride + j]! - exact) <= 1e-12 * (1 + depth), `${i}, ${j}`);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  test("a part of a matrix; the rest stays as it is", () => {
    const { matrices, subtractProduct } = workspace([
      [24, 20],
      [24, 140],
      [140, 20],
    ]);
    const [c, a, b] = matrices;
    for (const [i, matrix] of matrices.entries())
      fill(matrix, [24, 24, 140][i]!, [20, 140, 20][i]!, new Random(i, "part"));
    // Rows are an odd number of cache lines apart.
    assert.deepEqual(
      matrices.map(({ stride }) => stride),
      [24, 152, 24],
    );
    const before = c.data.slice();
    subtractProduct(
      { of: c, row: 8, column: 4, rows: 12, columns: 8 },
      { of: a, row: 4, column: 8, rows: 12, columns: 132 },
      { of: b, row: 8, column: 12, rows: 132, columns: 8 },
    );
    for (let i = 0; i < 24; i++) {
      for (let j = 0; j < 20; j++) {
        let exact = before[i * c.stride + j]!;
        if (i >= 8 && i < 20 && j >= 4 && j < 12) {
          for (let k = 0; k < 132; k++)
            exact -= a.data[(i - 4) * a.stride + 8 + k]! * b.data[(8 + k) * b.stride + j + 8]!;
          assert.ok(Math.abs(c.data[i * c.stride + j]! - exact) < 1e-11, `${i}, ${j}`);
        } else assert.equal(c.data[i * c.stride + j], exact);
      }
    }
  });
});
