import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Model } from "../../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../../src/core/onnx/save.ts";
import { arrayOf, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { addStoredWeight, type WeightBits, weightRange } from "../../../../src/core/quantize/static/stored-weights.ts";
import { openSession } from "../../../../src/core/runtime/session.ts";

/** What onnxruntime reads from a weight that was stored, and the bytes of the initializers. */
async function readBack(q: Int8Array<ArrayBuffer>, dims: readonly number[], bits: WeightBits) {
  const model = new Model({ irVersion: 8, opsets: [["", 13]], graphName: "main" });
  const value = addStoredWeight(model.graph, "w", tensorOf("int8", dims, q), bits);
  const output = model.graph.append({ opType: "Identity", inputs: [value], outputs: ["y"] }).outputs[0]!;
  output.retype("int8", dims);
  model.graph.addOutput(output);
  const bytes = [...model.graph.initializers].reduce((sum, it) => sum + it.constant!.byteLength, 0);
  const session = await openSession({ bytes: modelToBytes(model) });
  try {
    const { y } = await session.run({});
    return { values: arrayOf(y!, "int8"), dims: y!.dims, bytes };
  } finally {
    await session.close();
  }
}

test("weights of 8, 4 and 2 bits are read back as they were, whatever their number", async () => {
  const cases = fc.record({
    bits: fc.constantFrom<WeightBits>(8, 4, 2),
    dims: fc.oneof(
      fc.tuple(fc.integer({ min: 1, max: 70 }), fc.integer({ min: 1, max: 70 })),
      fc.tuple(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 1, max: 32 }), fc.constant(3), fc.constant(3)),
    ),
    seed: fc.integer(),
  });
  await fc.assert(
    fc.asyncProperty(cases, async ({ bits, dims, seed }) => {
      const { min, max } = weightRange(bits);
      const count = dims.reduce((a, b) => a * b, 1);
      const q = Int8Array.from(
        { length: count },
        (_, i) => min + ((Math.imul(i + 1, seed | 1) >>> 16) % (max - min + 1)),
      );
      const read = await readBack(q, dims, bits);
      assert.deepEqual(read.dims, dims);
      assert.deepEqual(read.values, q);
    }),
    { numRuns: 60 },
  );
});

test("every value of the range survives, at both ends of a byte, and four or two share one", async () => {
  for (const [bits, share] of [
    [4, 2],
    [2, 4],
  ] as const) {
    const { min, max } = weightRange(bits);
    const q = Int8Array.from({ length: 64 * 65 }, (_, i) => min + (i % (max - min + 1)));
    const { values, bytes } = await readBack(q, [64, 65], bits);
    assert.deepEqual(values, q);
    assert.ok(bytes < q.length / share + 200, `${bytes} bytes for ${q.length} weights of ${bits} bits`);
  }
});
