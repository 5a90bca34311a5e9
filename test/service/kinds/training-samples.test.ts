import assert from "node:assert/strict";
import { test } from "node:test";
import { memorySource } from "../../../src/core/data/byte-source.ts";
import { openDataset } from "../../../src/core/data/dataset.ts";
import { type DatasetFacts, tensorOf } from "../../../src/core/index.ts";
import { trainingSamples } from "../../../src/service/kinds/run/training-samples.ts";
import { writeNpz } from "../../support/dataset-writers.ts";

const COUNT = 7;

/** x float64 [7, 3] and labels float64 [7], every number its position. */
async function dataset() {
  const numbers = (n: number) => Float64Array.from({ length: n }, (_, i) => i);
  const arrays = {
    x: tensorOf("float64", [COUNT, 3], numbers(COUNT * 3)),
    unused: tensorOf("float64", [COUNT], numbers(COUNT)),
    labels: tensorOf("float64", [COUNT], numbers(COUNT)),
  };
  return openDataset(memorySource(writeNpz(arrays)));
}

const INPUTS = [{ name: "x", dtype: "float32", shape: ["n", 3] }] as const;

test("kept in memory or read each time, batches are the same: converted, in the order asked for", async () => {
  const kept = await trainingSamples(await dataset(), INPUTS);
  const read = await trainingSamples(await dataset(), INPUTS, { maxResidentBytes: 0 });
  for (const samples of [kept, read]) {
    assert.equal(samples.count, COUNT);
    const batch = samples.gather(Uint32Array.of(5, 0, 5));
    assert.deepEqual(batch.feeds, {
      x: tensorOf("float32", [3, 3], Float32Array.of(15, 16, 17, 0, 1, 2, 15, 16, 17)),
    });
    assert.deepEqual(batch.targets, { labels: tensorOf("float32", [3], Float32Array.of(5, 0, 5)) });
  }
});

test("a dataset over the limit is never read as a whole", async () => {
  const source = await dataset();
  let most = 0;
  const watched = {
    facts: source.facts satisfies DatasetFacts,
    batches: source.batches.bind(source),
    prepare: source.prepare.bind(source),
    gather(indices: ArrayLike<number>) {
      most = Math.max(most, indices.length);
      return source.gather(indices);
    },
  };
  (await trainingSamples(watched, INPUTS, { maxResidentBytes: 10 })).gather([1, 2]);
  assert.equal(most, 2);
});
