import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { memorySource } from "../../../src/core/data/byte-source.ts";
import { inspectDataset } from "../../../src/core/data/dataset.ts";
import { type ArrayDType, elementCount, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { writeNpy, writeNpz, writeSafetensors } from "../../support/dataset-writers.ts";

const floats = (dims: readonly number[], change: (data: Float32Array) => void = () => {}) => {
  const data = Float32Array.from({ length: elementCount(dims) }, (_, i) => Math.sin(i));
  change(data);
  return tensorOf("float32", dims, data);
};
const inspect = async (
  arrays: Readonly<Record<string, Tensor>>,
  write: typeof writeNpz | typeof writeSafetensors = writeNpz,
) => inspectDataset(memorySource((write as typeof writeNpz)(arrays)));

describe("the content of a dataset", () => {
  test("is counted and placed in every format of arrays", async () => {
    const x = floats([5, 2, 3], (data) => {
      data[19] = Number.NaN;
      data[26] = Number.NEGATIVE_INFINITY;
      data[2] = 7;
      data[3] = -9;
    });
    const expected = { min: -9, max: 7, non_finite: 2, first_non_finite: { sample: 3, value: "nan" } };
    const warning = {
      ...{ code: "non_finite", field: "x" },
      message: '"x" has 2 values that are NaN or infinite, the first in sample 3 (nan).',
    };
    for (const facts of [
      await inspect({ x }),
      await inspect({ x }, writeSafetensors),
      await inspectDataset(memorySource(writeNpz({ x }, { deflate: true }))),
      await inspectDataset(memorySource(writeNpz({ x }, { bigEndian: true }))),
      await inspectDataset(memorySource(writeNpz({ x }, { fortranOrder: true }))),
      await inspectDataset(memorySource(writeNpy(x)), { spec: { kind: "array", input: "x" } }),
    ]) {
      assert.deepEqual(facts.fields[0]!.content, expected);
      assert.deepEqual(facts.warnings, [warning]);
      assert.equal(facts.labels, null);
    }
  });

  test("is that of a plain loop, for every dtype and more than a run of samples", async () => {
    const kinds = { float16: 60_000, float64: 1e300, int8: 127, uint16: 65_535, int64: 2 ** 40 } as const;
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...(Object.keys(kinds) as (keyof typeof kinds)[])),
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 0, max: 1000 }),
        async (dtype, count, seed) => {
          const most = kinds[dtype];
          const values = Array.from({ length: 3 * count }, (_, i) =>
            Math.round(Math.abs(Math.sin(i * 7 + seed)) * Math.min(most, 2 ** 31)),
          );
          const facts = await inspect({ x: tensorOf(dtype as ArrayDType, [count, 3], values) });
          const kept =
            dtype === "float16"
              ? values.map(Math.f16round)
              : dtype === "uint16"
                ? values.map((v) => v % 65_536)
                : dtype === "int8"
                  ? [...Int8Array.from(values)]
                  : values;
          const finite = kept.filter(Number.isFinite);
          const { content } = facts.fields[0]!;
          assert.deepEqual(
            [content!.min, content!.max, content!.non_finite],
            [
              finite.length ? Math.min(...finite) : null,
              finite.length ? Math.max(...finite) : null,
              kept.length - finite.length,
            ],
          );
        },
      ),
      { numRuns: 60 },
    );
    // 6 MB: two runs.
    const long = floats([1500, 1024], (data) => {
      data[1400 * 1024 + 5] = Number.POSITIVE_INFINITY;
    });
    const { content } = (await inspect({ x: long })).fields[0]!;
    assert.deepEqual(content!.first_non_finite, { sample: 1400, value: "inf" });
    const below = await inspect({ x: tensorOf("float32", [2, 1], [1, Number.NEGATIVE_INFINITY]) });
    assert.deepEqual(below.fields[0]!.content!.first_non_finite, { sample: 1, value: "-inf" });
  });

  test("fields that say nothing are named; masks and ids may well be all the same", async () => {
    const facts = await inspect({
      zeros: tensorOf("float32", [4, 2], new Float32Array(8)),
      same: tensorOf("float32", [4, 2], new Float32Array(8).fill(1.5)),
      mask: tensorOf("int64", [4, 2], new BigInt64Array(8).fill(1n)),
      x: floats([4, 2]),
      labels: tensorOf("int64", [4], [3, 3, 3, 3]),
    });
    assert.deepEqual(facts.warnings, [
      { code: "all_zero", field: "zeros", message: 'All values of "zeros" are 0.' },
      { code: "constant", field: "same", message: 'All values of "same" are 1.5.' },
      { code: "constant", field: "labels", message: "All labels are 3." },
    ]);
    const nothing = await inspect({ x: tensorOf("float32", [2, 1], [Number.NaN, Number.NaN]) });
    assert.deepEqual(nothing.fields[0]!.content, {
      ...{ min: null, max: null, non_finite: 2, first_non_finite: { sample: 0, value: "nan" } },
    });
  });
});
