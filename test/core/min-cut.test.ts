import assert from "node:assert/strict";
import { test } from "node:test";
import { type CutEdge, minCut } from "../../src/core/min-cut.ts";
import { Random } from "../../src/core/random.ts";

function costOf(edges: readonly CutEdge[], side: readonly boolean[]): number {
  return edges.reduce((sum, { from, to, capacity }) => sum + (side[from] && !side[to] ? capacity : 0), 0);
}

test("no division costs less, tried for all of them on random networks", () => {
  for (let seed = 0; seed < 60; seed++) {
    const random = new Random(seed, "networks");
    const count = 3 + random.integer(7);
    const edges = Array.from({ length: 4 * count }, (): CutEdge => {
      const [from, to] = [random.integer(count), random.integer(count)];
      return { from, to, capacity: random.integer(12) === 0 ? Number.POSITIVE_INFINITY : random.integer(20) };
    });
    let least = Number.POSITIVE_INFINITY;
    for (let sides = 0; sides < 2 ** count; sides++) {
      const side = Array.from({ length: count }, (_, i) => (sides >> i) % 2 === 1);
      if (side[0] && !side[count - 1]) least = Math.min(least, costOf(edges, side));
    }
    if (!Number.isFinite(least)) continue;
    const side = minCut(count, edges, 0, count - 1);
    assert.ok(side[0] && !side[count - 1]);
    assert.ok(Math.abs(costOf(edges, side) - least) < 1e-6, `seed ${seed}`);
  }
});

test("a chain of 20,000 nodes is divided where it is thinnest, in no more than a moment", () => {
  const count = 20_000;
  const edges = Array.from({ length: count - 1 }, (_, i): CutEdge => {
    return { from: i, to: i + 1, capacity: i === 12_345 ? 1.5 : 2 + (i % 7) };
  });
  const side = minCut(count, edges, 0, count - 1);
  assert.equal(side.lastIndexOf(true), 12_345);
  assert.equal(side.filter(Boolean).length, 12_346);
});
