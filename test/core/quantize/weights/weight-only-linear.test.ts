import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { Model, Value } from "../../../../src/core/onnx/ir.ts";
import { elementCount, type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import type { WeightOnlyOptions } from "../../../../src/core/quantize/weights/weight-only.ts";
import { compress, computedValue, floatArray, matMulNBitsWeight, only, product } from "../../../support/compressed.ts";
import { GraphMaker, randomFeeds } from "../../../support/graphs.ts";
import { fusedOperators, runModel } from "../../../support/open-model.ts";
import { assertSameFunction } from "../../../support/same-function.ts";
import { assertDequantized, DEFAULTS, weightOnly } from "../../../support/weight-only.ts";

interface LinearCase {
  readonly lead: readonly number[];
  readonly depth: number;
  readonly rows: number;
  readonly op: "MatMul" | "MatMul+Add" | "Gemm" | "Gemm transB" | "Gemm transA" | "MatMul of Transpose";
  readonly storage: "initializer" | "constant";
  readonly opset: number;
  readonly seed: number;
  readonly alpha: number;
  readonly beta: number;
  readonly bias: "none" | "vector" | "row" | "scalar" | "matrix" | "input";
}

const linearCase = fc.record({
  lead: fc.constantFrom([3], [2, 3], [2, 1, 2], []),
  depth: fc.integer({ min: 24, max: 150 }),
  rows: fc.integer({ min: 23, max: 50 }),
  op: fc.constantFrom("MatMul", "MatMul+Add", "Gemm", "Gemm transB", "Gemm transA", "MatMul of Transpose"),
  storage: fc.constantFrom("initializer", "constant"),
  opset: fc.constantFrom(9, 11, 13, 17, 21),
  seed: fc.nat({ max: 1000 }),
  alpha: fc.constantFrom(1, 0.5),
  beta: fc.constantFrom(1, -2, 0),
  bias: fc.constantFrom("none", "vector", "row", "scalar", "matrix", "input"),
}) as fc.Arbitrary<LinearCase>;

interface Linear {
  readonly model: Model;
  readonly feeds: Record<string, Tensor>;
  /** The original weight, seen as [rows, depth]. */
  readonly weight: (row: number, d: number) => number;
}

function buildLinear(test: LinearCase): Linear {
  const { depth, rows, op, storage, opset, seed } = test;
  const make = new GraphMaker({ storage, opset, seed, irVersion: opset >= 21 ? 10 : 8 });
  const gemm = op.startsWith("Gemm");
  const lead = gemm ? [3] : test.lead;
  const rowMajor = op === "Gemm transB" || op === "MatMul of Transpose";
  const tensor = make.random(rowMajor ? [rows, depth] : [depth, rows], 1, 0.2);
  const values = floatArray(tensor);
  const w = make.constant("w", tensor);
  const x = make.input("x", op === "Gemm transA" ? [depth, 3] : [...lead, depth]);
  let y: Value;
  if (gemm) {
    const biases: Record<LinearCase["bias"], () => Value | undefined> = {
      none: () => undefined,
      vector: () => make.weight("b", [rows], 1),
      row: () => make.weight("b", [1, rows], 1),
      scalar: () => make.weight("b", [1], 1),
      matrix: () => make.weight("b", [3, rows], 1),
      input: () => make.input("b", [3, rows]),
    };
    // Optional since opset 11.
    const bias = biases[test.bias === "none" && opset < 11 ? "scalar" : test.bias]();
    y = make.op("Gemm", bias ? [x, w, bias] : [x, w], {
      ...(op === "Gemm transB" && { transB: 1 }),
      ...(op === "Gemm transA" && { transA: 1 }),
      ...(test.alpha !== 1 && { alpha: { type: "float", value: test.alpha } }),
      ...(test.beta !== 1 && { beta: { type: "float", value: test.beta } }),
    });
  } else {
    const right = op === "MatMul of Transpose" ? make.op("Transpose", [w], { perm: [1, 0] }) : w;
    y = make.op("MatMul", [x, right]);
    if (op === "MatMul+Add") y = make.op("Add", [make.weight("b", [rows], 1), y]);
  }
  make.output(y, "y", undefined);
  return {
    model: make.model,
    feeds: randomFeeds(make.model, { seed }),
    weight: (row, d) => values[rowMajor ? row * depth + d : d * rows + row]!,
  };
}

/** The original with another weight [rows, depth] in its place. */
function withWeight(linear: Linear, test: LinearCase, weight: (row: number, d: number) => number): Model {
  const copy = buildLinear(test).model;
  const { depth, rows } = test;
  const rowMajor = test.op === "Gemm transB" || test.op === "MatMul of Transpose";
  const data = Array.from({ length: rows * depth }, (_, i) =>
    rowMajor ? weight(Math.floor(i / depth), i % depth) : weight(i % rows, Math.floor(i / rows)),
  );
  const replaced = copy.graph.addInitializer(
    "replaced",
    tensorOf("float32", rowMajor ? [rows, depth] : [depth, rows], data),
  );
  for (const node of copy.graph.nodes) {
    node.inputs.forEach((value, i) => {
      if (value?.name === "w") node.setInput(i, replaced);
    });
  }
  assert.equal(linear.model.graph.nodes.length, copy.graph.nodes.length);
  return copy;
}

describe("linear layers as MatMulNBits", () => {
  const options = fc.record({
    bits: fc.constantFrom(2, 4, 8),
    blockSize: fc.constantFrom(16, 32, 64, 128, 256),
    symmetric: fc.boolean(),
  }) as fc.Arbitrary<Pick<WeightOnlyOptions, "bits" | "blockSize" | "symmetric">>;

  it("hold the weights of every shape, and compute with them what the original would", async () => {
    await fc.assert(
      fc.asyncProperty(linearCase, options, async (test, scheme) => {
        const linear = buildLinear(test);
        const { model, notes } = compress(linear.model, weightOnly(scheme));
        const node = only(model, "MatMulNBits");
        const { depth, rows } = test;
        const blockSize = node.int("block_size")!;
        assert.ok(blockSize <= scheme.blockSize);
        assert.deepEqual(
          notes.map(({ code }) => code),
          ["matmulnbits"],
        );
        const weight = matMulNBitsWeight(node);
        const alpha = test.op.startsWith("Gemm") ? test.alpha : 1;
        const dequantized = (row: number, d: number) => weight[row * depth + d]! / alpha;
        assertDequantized(linear.weight, dequantized, [rows, depth], { ...scheme, blockSize });
        await assertSameFunction(withWeight(linear, test, dequantized), model, linear.feeds, 1e-5);
        assert.deepEqual(
          await runModel(model, linear.feeds, { optimization: "all" }).then(({ y }) => y!.dims),
          (await runModel(linear.model, linear.feeds)).y!.dims,
        );
      }),
      { numRuns: 150 },
    );
  });

  it("stay within the rounding of their inputs when they compute in int8", async () => {
    await fc.assert(
      fc.asyncProperty(linearCase, options, async (test, scheme) => {
        const linear = buildLinear({ ...test, op: "MatMul", lead: [5] });
        const { model } = compress(linear.model, weightOnly({ ...scheme, accuracyLevel: 4 }));
        const node = only(model, "MatMulNBits");
        assert.equal(node.int("accuracy_level"), 4);
        const weight = matMulNBitsWeight(node);
        const { depth, rows } = test;
        const x = floatArray(linear.feeds.x!);
        const y = floatArray((await runModel(model, linear.feeds)).y!);
        const exact = product(x, (k, n) => weight[n * depth + k]!, [5, depth, rows]);
        const block = node.int("block_size")!;
        for (let m = 0; m < 5; m++) {
          for (let n = 0; n < rows; n++) {
            // Inputs are rounded to 127 steps of the largest of their block.
            let bound = 1e-5;
            for (let from = 0; from < depth; from += block) {
              const ks = Array.from({ length: Math.min(block, depth - from) }, (_, i) => from + i);
              const step = Math.max(...ks.map((k) => Math.abs(x[m * depth + k]!))) / 127;
              for (const k of ks) bound += (step / 2) * 1.001 * Math.abs(weight[n * depth + k]!);
            }
            const error = Math.abs(y[m * rows + n]! - exact[m * rows + n]!);
            assert.ok(error <= bound, `[${m}, ${n}]: ${error} is more than ${bound}`);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  it("take float16 models as they are", async () => {
    const make = new GraphMaker();
    const values = Array.from(floatArray(make.random([70, 40], 1)));
    const w = make.constant("w", tensorOf("float16", [70, 40], values));
    make.output(make.op("MatMul", [make.input("x", [3, 70], "float16"), w]), "y", [3, 40], "float16");
    const { model } = compress(make.model, weightOnly({ bits: 4 }));
    const node = only(model, "MatMulNBits");
    assert.equal(node.inputs[2]!.constant!.dtype, "float16");
    const weight = matMulNBitsWeight(node);
    const half = Float16Array.from(values);
    const original = (row: number, d: number) => half[d * 40 + row]!;
    assertDequantized(original, (row, d) => weight[row * 70 + d]!, [40, 70], { ...DEFAULTS, bits: 4 }, 2 ** -8);
    const x = Float16Array.from({ length: 210 }, (_, i) => Math.sin(i));
    const y = floatArray((await runModel(model, { x: tensorOf("float16", [3, 70], x) })).y!);
    const exact = product(x, (k, n) => weight[n * 70 + k]!, [3, 70, 40]);
    // Each weight is rounded to half precision, and so is the sum.
    const sizes = product(x.map(Math.abs), (k, n) => Math.abs(weight[n * 70 + k]!), [3, 70, 40]);
    exact.forEach((value, i) => {
      assert.ok(Math.abs(value - y[i]!) <= 2 ** -11 * (sizes[i]! + Math.abs(value)), `${value} came out as ${y[i]}`);
    });
  });
});

describe("linear layers behind DequantizeLinear", () => {
  const options = fc.record({
    bits: fc.constantFrom(4, 8),
    blockSize: fc.constantFrom(16, 32, 64),
    symmetric: fc.boolean(),
  }) as fc.Arbitrary<Pick<WeightOnlyOptions, "bits" | "blockSize" | "symmetric">>;

  it("hold the weights of every shape, in every opset", async () => {
    await fc.assert(
      fc.asyncProperty(linearCase, options, async (test, scheme) => {
        const linear = buildLinear(test);
        const { model, notes } = compress(linear.model, weightOnly({ ...scheme, format: "qdq" }));
        const { depth, rows, opset } = test;
        assert.ok(![...model.nodes()].some(({ domain }) => domain !== ""), "plain ONNX");
        const standard = opset >= 21 || (opset >= 13 && scheme.bits === 8);
        assert.deepEqual(
          notes.map(({ code }) => code),
          [standard ? "dequantize_matmul" : "stored_codes"],
        );
        const node = [...model.nodes()].find(({ opType }) => opType === "MatMul" || opType === "Gemm")!;
        const tensor = await computedValue(model, node.inputs[1]!, linear.feeds);
        const weight = floatArray(tensor);
        const rowMajor = node.int("transB", 0) === 1;
        const alpha = standard && test.op.startsWith("Gemm") ? test.alpha : 1;
        const dequantized = (row: number, d: number) => weight[rowMajor ? row * depth + d : d * rows + row]! / alpha;
        // Before opset 21 8-bit codes have one scale for each channel, and blocks divide the depth.
        const blockSize = opset >= 21 && standard ? scheme.blockSize : depth;
        const bits = standard || elementCount(tensor.dims) >= 4096 ? scheme.bits : 8;
        assertDequantized(linear.weight, dequantized, [rows, depth], { ...scheme, bits, blockSize });
        await assertSameFunction(withWeight(linear, test, dequantized), model, linear.feeds, 1e-5);
      }),
      { numRuns: 150 },
    );
  });

  it("are fused to MatMulNBits when onnxruntime loads them", async () => {
    for (const [opset, bits] of [
      [13, 8],
      [17, 8],
      [21, 8],
      [21, 4],
    ] as const) {
      const make = new GraphMaker({ opset, irVersion: opset >= 21 ? 10 : 8 });
      const x = make.input("x", [4, 64]);
      const hidden = make.op("Tanh", [make.linear(x, 64, 96)]);
      const gemm = make.op("Gemm", [hidden, make.weight("fc_w", [48, 96], 0.1), make.weight("fc_b", [48], 1)], {
        transB: 1,
      });
      make.output(gemm, "y", [4, 48]);
      const { model } = compress(make.model, weightOnly({ bits, format: "qdq" }));
      const fused = await fusedOperators(model);
      assert.equal(fused.MatMulNBits, 2, `opset ${opset}, ${bits} bits: ${JSON.stringify(fused)}`);
      assert.equal(fused.DequantizeLinear, undefined);
    }
  });

  it("are not fused before a Relu, and the note says so", async () => {
    const make = new GraphMaker();
    const hidden = make.op("Relu", [make.linear(make.input("x", [4, 64]), 64, 96)]);
    make.output(make.op("MatMul", [hidden, make.weight("w", [96, 48], 0.1)]), "y", [4, 48]);
    const { model, notes } = compress(make.model, weightOnly({ format: "qdq" }));
    assert.deepEqual(
      notes.map(({ code }) => code),
      ["dequantize", "dequantize_matmul"],
    );
    const fused = await fusedOperators(model);
    assert.deepEqual([fused.DequantizeLinear, fused.MatMulNBits], [1, 1], "a later onnxruntime may fuse both");
  });
});
