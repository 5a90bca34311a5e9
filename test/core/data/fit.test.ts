import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { checkDatasetFits, feedsFor } from "../../../src/core/data/fit.ts";
import type { DatasetFacts, Shape, ValueFacts } from "../../../src/core/facts.ts";
import type { DType } from "../../../src/core/onnx/dtype.ts";
import { arrayOf, type Tensor, tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";

function facts(fields: Record<string, readonly [DType, readonly number[]]>, samples = 10): DatasetFacts {
  return {
    samples,
    fields: Object.entries(fields).map(([name, [dtype, shape]]) => ({ name, dtype, shape })),
    has_labels: false,
    classes: null,
  };
}

const input = (name: string, dtype: DType | null, shape: Shape): ValueFacts => ({ name, dtype, shape });
const IMAGES = input("x", "float32", ["n", 3, 48, "w"]);

describe("checkDatasetFits", () => {
  it("takes batches of any size where the model does", () => {
    assert.deepEqual(checkDatasetFits(facts({ x: ["float32", [3, 48, 320]], y: ["int8", []] }), [IMAGES]), {
      batchSize: null,
    });
    assert.deepEqual(checkDatasetFits(facts({ x: ["float32", [3]] }), [input("x", "float32", null)]), {
      batchSize: null,
    });
  });

  it("takes the model's batch size where it is fixed", () => {
    const fixed = input("x", "float32", [4, 3]);
    assert.deepEqual(checkDatasetFits(facts({ x: ["float32", [3]] }), [fixed]), { batchSize: 4 });
    assert.throws(() => checkDatasetFits(facts({ x: ["float32", [3]] }, 3), [fixed]), /4 samples at a time.* has 3/);
    assert.throws(
      () => checkDatasetFits(facts({ x: ["float32", [3]], y: ["float32", []] }), [fixed, input("y", "float32", [2])]),
      { code: "invalid_dataset", subject: "y" },
    );
  });

  it("takes one sample at a time where an input has no batch axis", () => {
    const silero = [
      input("input", "float32", [null, null]),
      input("state", "float32", [2, null, 128]),
      input("sr", "int64", []),
    ];
    const fields = { input: ["float32", [512]], state: ["float32", [2, 1, 128]], sr: ["int64", []] } as const;
    assert.deepEqual(checkDatasetFits(facts(fields), silero), { batchSize: 1 });
  });

  it("says what does not fit", () => {
    const cases: [DatasetFacts, ValueFacts, RegExp][] = [
      [facts({ y: ["float32", [3]] }), IMAGES, /no array for the model's input "x"; it has "y"/],
      [
        facts({ x: ["float32", [3, 32, 320]] }),
        IMAGES,
        /takes \[n, 3, 48, w\] and a sample of the dataset has \[3, 32, 320\]/,
      ],
      [facts({ x: ["float32", [48, 320]] }), IMAGES, /a sample of the dataset has \[48, 320\]/],
      [facts({ x: ["uint8", [3, 48, 320]] }), IMAGES, /takes float32 and the dataset has uint8: save it scaled/],
      [facts({ x: ["bool", [3, 48, 320]] }), IMAGES, /takes float32 and the dataset has bool/],
      [facts({ x: ["float32", []] }), input("x", "int64", ["n"]), /takes int64 and the dataset has float32/],
      [facts({ x: ["float32", []] }), input("x", null, null), /takes no tensor/],
      [facts({ x: ["float32", []] }), input("x", "bfloat16", ["n"]), /takes bfloat16/],
    ];
    for (const [dataset, value, message] of cases) {
      assert.throws(() => checkDatasetFits(dataset, [value]), { code: "invalid_dataset", subject: "x", message });
    }
  });
});

describe("feedsFor", () => {
  const feed = (array: Tensor, dtype: DType, shape: Shape) => feedsFor([input("x", dtype, shape)], { x: array }).x!;

  it("passes what fits through without a copy", () => {
    const x = tensorOf("float32", [2, 3], [1, 2, 3, 4, 5, 6]);
    assert.equal(feed(x, "float32", ["n", 3]), x);
  });

  it("drops the sample axis where the input has none", () => {
    assert.deepEqual(feed(tensorOf("int64", [1], [16000]), "int64", []).dims, []);
    assert.deepEqual(feed(tensorOf("float32", [1, 2, 1], [1, 2]), "float32", [2, "batch"]).dims, [2, 1]);
    assert.deepEqual(feed(tensorOf("float32", [1, 2], [1, 2]), "float32", ["n", 2]).dims, [1, 2]);
  });

  it("converts floats to floats", () => {
    const doubles = tensorOf("float64", [3], [0.1, -2, 1e30]);
    assert.deepEqual([...arrayOf(feed(doubles, "float32", ["n"]), "float32")], [0.1, -2, 1e30].map(Math.fround));
    assert.deepEqual([...arrayOf(feed(doubles, "float16", ["n"]), "float16")], [Math.f16round(0.1), -2, Infinity]);
    const halves = tensorOf("float16", [2], [0.5, -3]);
    assert.deepEqual([...arrayOf(feed(halves, "float64", ["n"]), "float64")], [0.5, -3]);
    const brain = tensor("bfloat16", [2], new Uint8Array([0x80, 0x3f, 0x00, 0xc0]));
    assert.deepEqual([...arrayOf(feed(brain, "float32", ["n"]), "float32")], [1, -2]);
  });

  it("converts integers to integers that can hold them", () => {
    assert.deepEqual([...arrayOf(feed(tensorOf("int32", [2], [-1, 7]), "int64", ["n"]), "int64")], [-1n, 7n]);
    assert.deepEqual([...arrayOf(feed(tensorOf("int64", [2], [-128, 127]), "int8", ["n"]), "int8")], [-128, 127]);
    const huge = tensorOf("uint64", [1], BigUint64Array.of(2n ** 63n));
    assert.throws(() => feed(huge, "int64", ["n"]), {
      code: "invalid_dataset",
      subject: "x",
      message: /9223372036854775808/,
    });
    assert.throws(() => feed(tensorOf("int64", [1], [-1]), "uint8", ["n"]), /-1, which is not a value of uint8/);
    assert.throws(() => feed(tensorOf("int64", [1], [256]), "uint8", ["n"]), /256/);
  });

  it("refuses what checkDatasetFits would have refused", () => {
    assert.throws(() => feed(tensorOf("uint8", [1], [1]), "float32", ["n"]), { code: "invalid_dataset" });
    assert.throws(() => feedsFor([input("y", "float32", [])], {}), { code: "invalid_dataset", subject: "y" });
  });
});
