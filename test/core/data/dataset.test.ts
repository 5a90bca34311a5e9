import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { ByteSource } from "../../../src/core/data/byte-source.ts";
import { type Batch, datasetView, drawnSamples, openDataset } from "../../../src/core/data/dataset.ts";
import { CoreError } from "../../../src/core/errors.ts";
import { arrayOf, elementCount, floatsOf, tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { writeNpy, writeNpz, writeSafetensors } from "../../support/dataset-writers.ts";
import { assertRefused, batchesOf, open, SMALL } from "../../support/datasets.ts";

describe("openDataset", () => {
  it("refuses other files", async () => {
    for (const bytes of [new Uint8Array(0), Buffer.from("PK"), Buffer.from("x,y\n1,2\n"), new Uint8Array(1000)]) {
      await assertRefused(open(bytes), "invalid_dataset", undefined, /formats/);
    }
  });

  it("refuses arrays of different lengths, of none, and without a sample axis", async () => {
    const floats = (dims: number[]) => tensorOf("float32", dims, new Float32Array(elementCount(dims)));
    await assertRefused(open(writeNpz({ x: floats([2]), y: floats([3]) })), "invalid_dataset", "y", /3 samples/);
    await assertRefused(
      open(writeNpz({ x: floats([2]), labels: floats([3]) })),
      "invalid_dataset",
      "labels",
      /3 samples/,
    );
    await assertRefused(open(writeNpz({ x: floats([0, 2]) })), "invalid_dataset", "x", /no samples/);
    await assertRefused(open(writeNpz({ x: floats([]) })), "invalid_dataset", undefined, /sample axis/);
    await assertRefused(open(writeNpz({ x: floats([2]), labels: floats([]) })), "invalid_dataset", "labels", /axis/);
    await assertRefused(open(writeNpz({ labels: floats([2]) })), "invalid_dataset", undefined, /no arrays/);
  });

  it("refuses bools that are not", async () => {
    const dataset = await open(writeNpy(tensor("bool", [3], new Uint8Array([0, 1, 2]))));
    await assert.rejects(batchesOf(dataset), { code: "invalid_dataset", subject: "x" });
  });

  const valid: [string, Uint8Array][] = [
    ["npy", writeNpy(SMALL)],
    ["npz", writeNpz({ x: SMALL, labels: tensorOf("int64", [2], [0, 1]) })],
    ["npz, deflated", writeNpz({ x: SMALL, labels: tensorOf("int64", [2], [0, 1]) }, { deflate: true })],
    ["safetensors", writeSafetensors({ x: SMALL, labels: tensorOf("int64", [2], [0, 1]) })],
  ];
  for (const [format, bytes] of valid) {
    const survives = async (damaged: Uint8Array, mustFail: boolean) => {
      try {
        await batchesOf(await open(damaged));
      } catch (error) {
        assert.ok(error instanceof CoreError, String(error));
        assert.notEqual(error.code, "internal");
        return;
      }
      // Data bytes and unused header fields may change without anyone noticing; the length may not.
      assert.ok(!mustFail, "a truncated file was accepted");
    };

    it(`refuses every truncation of a ${format} file`, async () => {
      for (let length = 0; length < bytes.byteLength; length++) await survives(bytes.slice(0, length), true);
    });

    it(`gives a dataset or a refusal for a ${format} file with damaged bytes`, async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.tuple(fc.nat(bytes.byteLength - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
          async (changes) => {
            const damaged = Uint8Array.from(bytes);
            for (const [at, byte] of changes) damaged[at] = byte;
            await survives(damaged, false);
          },
        ),
        { numRuns: 1500 },
      );
    });
  }
});

describe("batches", () => {
  const x = tensorOf(
    "int32",
    [10, 2],
    Array.from({ length: 20 }, (_, i) => i),
  );
  const labels = tensorOf(
    "int64",
    [10],
    Array.from({ length: 10 }, (_, i) => i),
  );
  const rows = (batches: Batch[]) =>
    batches.map(({ feeds, count }) => {
      const all = arrayOf(feeds.x!, "int32");
      return Array.from({ length: count }, (_, i) => [all[2 * i], all[2 * i + 1]]);
    });

  it("cuts samples into batches, the last one smaller", async () => {
    const dataset = await open(writeNpz({ x, labels }));
    const batches = await batchesOf(dataset, { batchSize: 4 });
    assert.deepEqual(
      batches.map(({ count, feeds, labels }) => [count, feeds.x!.dims, labels!.dims]),
      [
        [4, [4, 2], [4]],
        [4, [4, 2], [4]],
        [2, [2, 2], [2]],
      ],
    );
    assert.deepEqual(
      rows(batches).flat(),
      Array.from({ length: 10 }, (_, i) => [2 * i, 2 * i + 1]),
    );
    assert.deepEqual(
      rows(await batchesOf(dataset, { batchSize: 4, limit: 5 })).map((batch) => batch.length),
      [4, 1],
    );
  });

  it("shuffles features and labels together, by the seed", async () => {
    const dataset = await open(writeNpz({ x, labels }, { deflate: true }));
    const shuffled = await batchesOf(dataset, { batchSize: 3, shuffleSeed: 4 });
    const order = rows(shuffled).flat();
    assert.notDeepEqual(
      order,
      order.toSorted((a, b) => a[0]! - b[0]!),
    );
    assert.deepEqual(
      order.toSorted((a, b) => a[0]! - b[0]!),
      rows(await batchesOf(dataset)).flat(),
    );
    const shuffledLabels = shuffled.flatMap(({ labels }) => [...arrayOf(labels!, "int64")]);
    assert.deepEqual(
      shuffledLabels.map(Number),
      order.map(([first]) => first! / 2),
    );
    assert.deepEqual(rows(await batchesOf(dataset, { batchSize: 3, shuffleSeed: 4 })), rows(shuffled));
    assert.notDeepEqual(rows(await batchesOf(dataset, { batchSize: 3, shuffleSeed: 5 })), rows(shuffled));
  });

  it("reads no more of the file than the batches asked for", async () => {
    const bytes = writeNpy(tensor("uint8", [1000, 1000], new Uint8Array(1_000_000)));
    let read = 0;
    const counting: ByteSource = {
      size: bytes.byteLength,
      read: (offset, length) => {
        read += length;
        return bytes.subarray(offset, offset + length);
      },
    };
    const dataset = await openDataset(counting, { spec: { kind: "array", input: "x" } });
    await batchesOf(dataset, { batchSize: 2, limit: 10 });
    assert.ok(read < 11_000, `${read} bytes were read for 10 samples of 1000`);
  });

  it("any samples, in any order, and views of some of them", async () => {
    const source = await open(writeNpz({ x, labels }));
    const view = datasetView(source, Uint32Array.of(4, 1, 3));
    assert.deepEqual({ ...view.facts, samples: 0 }, { ...source.facts, samples: 0 });
    assert.equal(view.facts.samples, 3);
    assert.deepEqual(view.gather([2, 0]), source.gather([3, 4]));
    const [first, second] = await batchesOf(view, { batchSize: 2 });
    assert.deepEqual([first, second], [source.gather([4, 1]), source.gather([3])]);
    assert.equal((await batchesOf(view, { batchSize: 3 })).length, 1);
  });

  it("draws samples from all over a dataset, the same ones every time, fewer being the first of more", async () => {
    const sorted = tensorOf(
      "float32",
      [1000, 1],
      Float32Array.from({ length: 1000 }, (_, i) => i),
    );
    const source = await open(writeNpz({ x: sorted }));
    const drawn = (count: number) => {
      const { feeds } = drawnSamples(source, count).gather([...Array(Math.min(count, 1000)).keys()]);
      return [...floatsOf(feeds.x!)];
    };
    const fifty = drawn(50);
    assert.equal(new Set(fifty).size, 50);
    for (const quarter of [0, 1, 2, 3]) {
      const share = fifty.filter((value) => Math.floor(value / 250) === quarter).length;
      assert.ok(share >= 5, `${share} of 50 are of quarter ${quarter}`);
    }
    assert.deepEqual(drawn(20), fifty.slice(0, 20));
    assert.deepEqual(
      drawn(5000).toSorted((a, b) => a - b),
      [...floatsOf(sorted)],
    );
  });

  it("stops when cancelled", async () => {
    const dataset = await open(writeNpz({ x }));
    const controller = new AbortController();
    await assert.rejects(
      async () => {
        for await (const _ of dataset.batches({ batchSize: 1, signal: controller.signal })) controller.abort();
      },
      { code: "cancelled" },
    );
  });
});
