import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { didYouMean, editDistance, nearestNames } from "../../src/core/nearest-names.ts";

test("a slip, another case, and the end of a path find the name that was meant", () => {
  const known = ["first", "second", "/backbone/conv1", "/backbone/conv2", "MatMul"];
  assert.deepEqual(nearestNames("frist", known), ["first"]);
  assert.deepEqual(nearestNames("matmul", known), ["MatMul"]);
  assert.deepEqual(nearestNames("conv1", known), ["/backbone/conv1"]);
  assert.deepEqual(nearestNames("/backbone/conv3", known), ["/backbone/conv1", "/backbone/conv2"]);
  assert.deepEqual(nearestNames("somewhere else entirely", known), []);
  assert.equal(didYouMean(["a", "b"]), ' Did you mean "a" or "b"?');
  assert.equal(didYouMean([]), "");
});

/** The table of the optimal string alignment, whole. */
function alignment(a: string, b: string): number {
  const table = Array.from({ length: a.length + 1 }, (_, i) =>
    Array.from({ length: b.length + 1 }, (_, j) => (i === 0 ? j : j === 0 ? i : 0)),
  );
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const same = table[i - 1]![j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      table[i]![j] = Math.min(same, table[i - 1]![j]! + 1, table[i]![j - 1]! + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        table[i]![j] = Math.min(table[i]![j]!, table[i - 2]![j - 2]! + 1);
      }
    }
  }
  return table[a.length]![b.length]!;
}

test("the banded edit distance is that of the whole table, up to where it gives up", () => {
  const word = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 12 });
  fc.assert(
    fc.property(word, word, fc.integer({ min: 1, max: 6 }), (a, b, most) => {
      assert.equal(editDistance(a, b, most), Math.min(alignment(a, b), most + 1));
    }),
    { numRuns: 500 },
  );
});

test("the worst lists that a request may hold are answered in bounded time", () => {
  const known = Array.from({ length: 100_000 }, (_, i) => `${"x".repeat(190)}${i}`);
  const start = performance.now();
  nearestNames(`${"y".repeat(190)}12345`, known);
  assert.ok(performance.now() - start < 20_000, `${performance.now() - start} ms`);
});
