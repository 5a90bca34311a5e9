import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { memorySource } from "../../../src/core/data/byte-source.ts";
import { inspectDataset, openDataset } from "../../../src/core/data/dataset.ts";
import {
  type LabelMeaning,
  readLabels,
  withLabelReading,
  withoutLabels,
} from "../../../src/core/data/label-reading.ts";
import type { LabelFacts, OutputFacts, Shape } from "../../../src/core/facts.ts";
import { type ArrayDType, arrayOf, elementCount, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { writeNpz } from "../../support/dataset-writers.ts";

const fileOf = (labels: Tensor) => {
  const count = labels.dims[0]!;
  return memorySource(writeNpz({ x: tensorOf("float32", [count, 1], new Float32Array(count)), labels }));
};
const factsOf = async (dtype: ArrayDType, shape: readonly number[], values: readonly number[]): Promise<LabelFacts> => {
  const dims = [values.length / elementCount(shape), ...shape];
  return (await inspectDataset(fileOf(tensorOf(dtype, dims, values)))).labels!;
};
const output = (shape: Shape, name = "y"): OutputFacts => ({ name, dtype: "float32", shape });
const SHARES = { kind: "shares", class_axis: null, evident: true } as const;

const read = (
  labels: LabelFacts,
  shape: Shape,
  options: { meaning?: LabelMeaning; ignoreLabel?: number; of?: OutputFacts["meaning"] } = {},
): string => {
  const { meaning = null, ignoreLabel = null, of } = options;
  const verdict = readLabels({
    labels,
    outputs: [{ ...output(shape), ...(of && { meaning: of }) }],
    meaning,
    ignoreLabel,
  });
  return verdict.kind === "fits"
    ? `${verdict.reading.meaning} ${verdict.reading.stored}`
    : `${verdict.kind}: ${verdict.message}`;
};

describe("what is recorded of labels", () => {
  test("counts, range, distinct values with their first sample", async () => {
    assert.deepEqual(await factsOf("int64", [], [2, -1, 0, 2, -1, -1]), {
      ...{ dtype: "int64", shape: [], count: 6, min: -1, max: 2, non_finite: 0, first_non_finite: null },
      ...{ integers: true, one_hot: false, distinct: 3 },
      outermost: [
        { value: -1, count: 3, first_sample: 1 },
        { value: 0, count: 1, first_sample: 2 },
        { value: 2, count: 2, first_sample: 0 },
      ],
    });
  });

  test("of more values than are counted the outermost are exact", async () => {
    const values = Array.from({ length: 20_000 }, (_, i) => (i * 7919) % 20_000);
    const facts = await factsOf("int32", [], values);
    assert.equal(facts.distinct, null);
    assert.equal(facts.outermost.length, 32);
    assert.deepEqual(
      facts.outermost,
      [...Array(16).keys(), ...Array.from({ length: 16 }, (_, i) => 19_984 + i)].map((value) => ({
        ...{ value, count: 1, first_sample: values.indexOf(value) },
      })),
    );
  });

  test("one-hot rows, whatever their dtype; and rows that only look like it", async () => {
    const rows = [0, 1, 0, 1, 0, 0];
    for (const dtype of ["float32", "int64", "bool", "uint8"] as const) {
      assert.equal((await factsOf(dtype, [3], rows)).one_hot, true, dtype);
    }
    for (const other of [
      [0, 1, 1, 1, 0, 0],
      [0, 0, 0, 1, 0, 0],
      [0, 2, 0, 1, 0, 0],
    ]) {
      assert.equal((await factsOf("float32", [3], other)).one_hot, false);
    }
    assert.equal((await factsOf("float32", [1], [1, 1])).one_hot, false);
  });
});

describe("what labels mean for an output", () => {
  test("one integer for each row of scores is a class, over axes of one, as floats without fractions, or one-hot", async () => {
    const classes = [0, 2, 1];
    assert.equal(read(await factsOf("int64", [], classes), ["n", 3]), "classes as_is");
    assert.equal(read(await factsOf("uint8", [1], classes), ["n", 3]), "classes as_is");
    assert.equal(read(await factsOf("int32", [], classes), ["n", 3, 1, 1]), "classes as_is");
    assert.equal(read(await factsOf("float32", [], classes), ["n", 3]), "classes not_integers");
    assert.equal(read(await factsOf("float64", [1], classes), ["n", 1, 3]), "classes not_integers");
    assert.equal(read(await factsOf("float32", [3], [0, 1, 0, 0, 0, 1]), ["n", 3]), "classes one_hot");
    assert.equal(read(await factsOf("int64", [2], [0, 2, 1, 1]), ["n", 2, 3]), "classes as_is");
    assert.equal(read(await factsOf("int64", [2], [0, 2, 1, 1]), ["n", "t", 3]), "classes as_is");
    assert.equal(read(await factsOf("int64", [], classes), null), "classes as_is");
  });

  test("one integer for each position of a map is a class, along the channels", async () => {
    const map = await factsOf("uint8", [2, 3], [0, 1, 2, 0, 1, 2]);
    assert.equal(read(map, ["n", 3, 2, 3]), "classes as_is");
    assert.equal(read(map, ["n", "k", "h", "w"]), "classes as_is");
    assert.match(read(map, ["n", 2, 2, 3]), /^bad_values: The label 2 of sample 0.* \(0 to 1\)/);
    assert.match(read(map, ["n", 1, 2, 3], { meaning: "classes" }), /^misfit: /);
  });

  test("numbers in the shape of the output are numbers", async () => {
    const numbers = [0.5, -2, 1.25];
    assert.equal(read(await factsOf("float32", [], numbers), ["n", 1]), "numbers as_is");
    assert.equal(read(await factsOf("float32", [1], numbers), ["n"]), "numbers as_is");
    assert.equal(read(await factsOf("float64", [3], numbers), ["n", 3]), "numbers as_is");
    assert.equal(
      read(await factsOf("int64", [], [3, 5, 900]), ["n", 1], { meaning: "numbers" }),
      "numbers integer_numbers",
    );
    assert.equal(read(await factsOf("float32", [3], [0, 1, 0]), ["n", 3], { meaning: "numbers" }), "numbers as_is");
  });

  test("0 or 1 for each share of the output is a binary label, in any dtype", async () => {
    const each = [0, 1, 1, 1, 0, 0];
    const of = SHARES;
    assert.equal(read(await factsOf("int64", [], each), ["n", 1], { of }), "binary as_is");
    assert.equal(read(await factsOf("bool", [1], each), ["n"], { of }), "binary not_integers");
    assert.equal(read(await factsOf("float32", [3], each), ["n", 3], { of }), "binary not_integers");
    assert.equal(read(await factsOf("uint8", [1, 3], each), ["n", 1, 1, 3], { of }), "binary as_is");
    const unknown = await factsOf("uint8", [3], [0, 1, 1, 255, 0, 0]);
    assert.equal(read(unknown, ["n", 3], { of, ignoreLabel: 255 }), "binary as_is");
    assert.match(read(unknown, ["n", 3], { of }), /^misfit: .*If they are binary labels, all must be 0 or 1/);
    assert.match(read(unknown, ["n", 3], { of, meaning: "binary" }), /^misfit: .*not binary labels/);
    // What else they can be against shares: a class each, one-hot rows, numbers between 0 and 1, and numbers where an error is asked for.
    assert.equal(read(await factsOf("int64", [], [0, 1, 2]), ["n", 3], { of }), "classes as_is");
    assert.equal(read(await factsOf("int64", [3], [0, 1, 0, 1, 0, 0]), ["n", 3], { of }), "classes one_hot");
    assert.equal(
      read(await factsOf("int64", [3], [0, 1, 0, 1, 0, 0]), ["n", 3], { of, meaning: "binary" }),
      "binary as_is",
    );
    assert.equal(read(await factsOf("float32", [3], [0, 0.5, 1]), ["n", 3], { of }), "numbers as_is");
    assert.equal(read(await factsOf("float32", [3], each), ["n", 3], { of, meaning: "numbers" }), "numbers as_is");
  });

  test("0 or 1 for each number that is no share is refused, and what to do is said", async () => {
    const each = [0, 1, 1, 1, 0, 0];
    for (const dtype of ["int64", "bool"] as const) {
      const labels = await factsOf(dtype, [3], each);
      assert.match(read(labels, ["n", 3]), /^misfit: .*these must be shares: put a Sigmoid behind them/);
      assert.match(
        read(labels, ["n", 3], { meaning: "binary", of: { kind: "class_scores", class_axis: null, evident: false } }),
        /^misfit: .*its numbers are not shares.* put a Sigmoid behind them/,
      );
    }
    // Of models that were recorded without what their outputs are.
    assert.equal(read(await factsOf("int64", [3], each), ["n", 3], { meaning: "binary" }), "binary as_is");
  });

  test("a class that there is not is refused, with the first sample that has it, unless it is ignored", async () => {
    const labels = await factsOf("int64", [], [0, 3, -1, -1, 2]);
    assert.match(
      read(labels, ["n", 4]),
      /^bad_values: The label -1 of sample 2, like at least 1 more, is not a class \(0 to 3\) of the output "y".*ignore_label/,
    );
    assert.equal(read(labels, ["n", 4], { ignoreLabel: -1 }), "classes as_is");
    assert.match(
      read(labels, ["n", 3], { ignoreLabel: -1 }),
      /^bad_values: The label 3 of sample 1 is not a class \(0 to 2\) of the output "y", \[3\] a sample\.$/,
    );
    assert.match(read(labels, ["n", "k"]), /The label -1 of sample 2/);
    assert.match(
      read(await factsOf("int64", [], [0, 1, 2, -1, -7]), ["n", 3], { ignoreLabel: -1 }),
      /^bad_values: The label -7 of sample 4 is not .* If -7 means that there is no label/,
    );
    assert.match(read(await factsOf("float32", [], [0, 1, 7]), ["n", 3]), /The label 7 of sample 2/);
    const void255 = await factsOf("uint8", [2, 2], [0, 1, 255, 2, 1, 1, 255, 0]);
    assert.match(read(void255, ["n", 2, 2, 3]), /The label 255 of sample 0, like at least 1 more,/);
    assert.equal(read(void255, ["n", 2, 2, 3], { ignoreLabel: 255 }), "classes as_is");
    assert.match(
      read(await factsOf("int64", [], [-100, -100]), ["n", 3], { ignoreLabel: -100 }),
      /All 2 labels are ignore_label/,
    );
  });

  test("labels that are neither are refused with both shapes", async () => {
    assert.match(read(await factsOf("int64", [], [0, 2]), ["n", 3], { meaning: "numbers" }), /^misfit: .*neither/);
    assert.match(read(await factsOf("int64", [3, 2], new Array(6).fill(0)), ["n", 3]), /^misfit: /);
    assert.match(
      read(await factsOf("float32", [], [0, 0.5]), ["n", 3]),
      /^misfit: .*float32 \[\] .*\[3\].*not all are whole numbers/,
    );
    assert.match(read(await factsOf("int64", [5], [0, 1, 2, 0, 1]), ["n", 3]), /^misfit: .*\[5\].*\[3\]/);
    assert.match(read(await factsOf("int64", [], [0, 1]), ["n", 1]), /^misfit: .*no scores of classes.*float32/);
    assert.match(read(await factsOf("float32", [3], [0, 0.5, 0.5]), ["n", 3], { meaning: "classes" }), /^misfit: /);
    assert.match(
      read(await factsOf("int64", [4, 4], new Array(16).fill(0)), ["n", 2, 5, 4]),
      /^misfit: .*along the last axis or the channels/,
    );
    assert.match(
      read(await factsOf("float32", [], [1, Number.NaN]), ["n", 1]),
      /^bad_values: .*1 that are NaN.*sample 1 \(nan\)/,
    );
    const verdict = readLabels({
      ...{ labels: await factsOf("int64", [], [0, 1]), meaning: null, ignoreLabel: null },
      outputs: [{ name: "ids", dtype: "int64", shape: ["n"] }, output(["n", 2], "scores")],
    });
    assert.deepEqual(verdict, { kind: "fits", output: "scores", reading: { meaning: "classes", stored: "as_is" } });
  });
});

test("a dataset gives its labels out as they are read", async () => {
  const labelsOf = async (
    labels: Tensor,
    ...how: [Parameters<typeof withLabelReading>[1], Parameters<typeof withLabelReading>[2]?]
  ) => {
    const dataset = withLabelReading(await openDataset(fileOf(labels)), ...how);
    const { labels: gathered } = dataset.gather([1, 0]);
    const batches = [];
    for await (const batch of dataset.batches({ batchSize: 2 })) batches.push(batch.labels!);
    const values = (value: Tensor) =>
      Array.from(arrayOf(value, value.dtype as ArrayDType) as ArrayLike<number>, Number);
    assert.deepEqual(values(gathered!).length, values(batches[0]!).length);
    return [gathered!.dtype, gathered!.dims, values(gathered!)];
  };
  const rows = tensorOf("float32", [2, 3], [0, 0, 1, 1, 0, 0]);
  assert.deepEqual(await labelsOf(rows, { meaning: "classes", stored: "one_hot" }), ["int64", [2], [0, 2]]);
  const floats = tensorOf("float64", [2], [3, -100]);
  assert.deepEqual(await labelsOf(floats, { meaning: "classes", stored: "not_integers" }), ["int64", [2], [-100, 3]]);
  assert.deepEqual(await labelsOf(floats, { meaning: "classes", stored: "not_integers" }, { from: -100, to: -1 }), [
    "int64",
    [2],
    [-1, 3],
  ]);
  const integers = tensorOf("int32", [2], [7, 9]);
  assert.deepEqual(await labelsOf(integers, { meaning: "numbers", stored: "integer_numbers" }), [
    "float64",
    [2],
    [9, 7],
  ]);
  assert.deepEqual(await labelsOf(integers, { meaning: "classes", stored: "as_is" }), ["int32", [2], [9, 7]]);
  const prepared: unknown[] = [];
  const whole = await openDataset(fileOf(integers));
  const watched = {
    ...whole,
    prepare: async (indices: ArrayLike<number>) => void prepared.push([...Array.from(indices)]),
  };
  await withLabelReading(watched, { meaning: "numbers", stored: "integer_numbers" }).prepare([1]);
  assert.deepEqual(prepared, [[1]]);
  const bare = withoutLabels(await openDataset(fileOf(integers)));
  assert.equal(bare.facts.has_labels, false);
  assert.equal(bare.gather([0]).labels, undefined);
});
