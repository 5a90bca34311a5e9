import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { Model, Value } from "../../../../src/core/onnx/ir.ts";
import { elementCount, type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { type WeightOnlyOptions, weightOnlyPass } from "../../../../src/core/quantize/weights/weight-only.ts";
import {
  compress,
  computedValue,
  floatArray,
  matMulNBitsWeight,
  only,
  operatorsOf,
  product,
} from "../../../support/compressed.ts";
import { GraphMaker, type MakerOptions, randomFeeds, transformer, uniformSource } from "../../../support/graphs.ts";
import { fusedOperators, runModel } from "../../../support/open-model.ts";
import { assertSameFunction } from "../../../support/same-function.ts";

const DEFAULTS: WeightOnlyOptions = {
  bits: 8,
  blockSize: 32,
  symmetric: false,
  format: "matmulnbits",
  embeddings: true,
  accuracyLevel: 1,
  exclude: { nodes: [], ops: [] },
};

function weightOnly(options: Partial<WeightOnlyOptions> = {}) {
  return weightOnlyPass({ ...DEFAULTS, ...options });
}

/** The largest |x − x̂| of a block of values: half a step of its own range (a whole one past the shorter side of signed symmetric codes). */
function blockTolerance(values: readonly number[], bits: number, symmetric: boolean): number {
  const lo = Math.min(0, ...values);
  const hi = Math.max(0, ...values);
  if (!symmetric) return (hi - lo) / (2 ** bits - 1) / 2;
  const reach = Math.max(-lo, hi);
  return bits === 8 ? reach / 127 / 2 : reach / 2 ** (bits - 1);
}

/** Checks a dequantized weight [rows, depth] against the original, block by block. */
function assertDequantized(
  original: (row: number, d: number) => number,
  actual: (row: number, d: number) => number,
  [rows, depth]: readonly [number, number],
  { bits, blockSize, symmetric }: { bits: number; blockSize: number; symmetric: boolean },
  scaleError = 2 ** -22,
): void {
  for (let row = 0; row < rows; row++) {
    for (let from = 0; from < depth; from += blockSize) {
      const to = Math.min(depth, from + blockSize);
      const block = Array.from({ length: to - from }, (_, i) => original(row, from + i));
      const tolerance = blockTolerance(block, bits, symmetric);
      const slack = Math.max(...block.map(Math.abs)) * scaleError;
      block.forEach((value, i) => {
        const error = Math.abs(value - actual(row, from + i));
        assert.ok(error <= tolerance + slack, `[${row}, ${from + i}]: ${error} is more than ${tolerance}`);
      });
    }
  }
}

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

// ---- operators whose kernels take floats -----------------------------------------------------------------------------

interface FloatCase {
  readonly name: string;
  readonly dims: readonly number[];
  /** The axes of the weight that are summed over. */
  readonly depthAxes: readonly [number, number];
  build(make: GraphMaker, w: Value): Value;
}

const FLOAT_CASES: readonly FloatCase[] = [
  {
    name: "Conv",
    dims: [40, 16, 3, 3],
    depthAxes: [1, 4],
    build: (make, w) => make.op("Conv", [make.input("x", [1, 16, 6, 6]), w], { pads: [1, 1, 1, 1] }),
  },
  {
    name: "Conv with groups",
    dims: [48, 24, 3, 3],
    depthAxes: [1, 4],
    build: (make, w) => make.op("Conv", [make.input("x", [1, 48, 5, 5]), w], { group: 2 }),
  },
  {
    name: "Conv over one axis, depth not a whole number of blocks",
    dims: [64, 45, 5],
    depthAxes: [1, 3],
    build: (make, w) => make.op("Conv", [make.input("x", [2, 45, 9]), w]),
  },
  {
    name: "ConvTranspose",
    dims: [32, 16, 3, 3],
    depthAxes: [0, 1],
    build: (make, w) => make.op("ConvTranspose", [make.input("x", [1, 32, 4, 4]), w], { strides: [2, 2] }),
  },
  {
    name: "ConvTranspose with groups",
    dims: [64, 8, 3, 3],
    depthAxes: [0, 1],
    build: (make, w) => make.op("ConvTranspose", [make.input("x", [1, 64, 4, 4]), w], { group: 4 }),
  },
  {
    name: "MatMul of a stack",
    dims: [3, 48, 40],
    depthAxes: [1, 2],
    build: (make, w) => make.op("MatMul", [make.input("x", [3, 2, 48]), w]),
  },
  {
    name: "MatMul with the weight on the left",
    dims: [64, 80],
    depthAxes: [1, 2],
    build: (make, w) => make.op("MatMul", [w, make.input("x", [80, 3])]),
  },
  {
    name: "GRU",
    dims: [1, 96, 48],
    depthAxes: [2, 3],
    build: (make, w) =>
      make.op("GRU", [make.input("x", [4, 2, 48]), w, make.input("r", [1, 96, 32])], { hidden_size: 32 }),
  },
];

describe("weights of other operators", () => {
  for (const test of FLOAT_CASES) {
    for (const format of ["matmulnbits", "qdq"] as const) {
      it(`${test.name}, ${format}`, async () => {
        for (const opset of [9, 14, 21]) {
          for (const bits of [4, 8] as const) {
            for (const symmetric of [false, true]) {
              await checkFloatCase(test, { format, bits, symmetric }, { opset, irVersion: opset >= 21 ? 10 : 8 });
            }
          }
        }
      });
    }
  }

  it("depthwise filters and small weights keep 8 bits", () => {
    const make = new GraphMaker();
    const x = make.conv(make.input("x", [1, 96, 8, 8]), [96, 96], 7, { group: 96 });
    make.output(make.conv(make.conv(x, [96, 16], 1), [16, 64], 3), "y", [1, 64, 8, 8]);
    const { notes } = compress(make.model, weightOnly({ bits: 4 }));
    assert.deepEqual(
      notes.map(({ message }) => message),
      [
        "Stored in 8 bits, computed in float: a filter of one channel has too few weights to share a scale of fewer bits.",
        "Stored in 8 bits, computed in float: fewer bits would not make so few weights smaller.",
        "Stored in 4 bits, computed in float.",
      ],
    );
  });

  it("are folded to constants when onnxruntime loads them", async () => {
    for (const opset of [11, 21]) {
      for (const bits of [4, 8] as const) {
        const make = new GraphMaker({ opset, irVersion: opset >= 21 ? 10 : 8 });
        make.output(make.conv(make.input("x", [1, 64, 6, 6]), [64, 32], 3), "y", [1, 32, 6, 6]);
        const { model } = compress(make.model, weightOnly({ bits }));
        assert.deepEqual(await fusedOperators(model), { Conv: 1 }, `opset ${opset}, ${bits} bits`);
      }
    }
  });
});

async function checkFloatCase(
  { name, dims, depthAxes, build }: FloatCase,
  options: Pick<WeightOnlyOptions, "format" | "bits" | "symmetric">,
  maker: MakerOptions,
): Promise<void> {
  const made = (tensor?: Tensor): { model: Model; tensor: Tensor } => {
    const make = new GraphMaker(maker);
    const used = tensor ?? make.random(dims, 1, 0.1);
    make.output(build(make, make.constant("w", used)), "y", undefined);
    return { model: make.model, tensor: used };
  };
  const { model: original, tensor } = made();
  const { model, notes } = compress(original, weightOnly(options));
  const [first] = notes.filter(({ outcome }) => outcome === "changed");
  assert.ok(first, `${name}: nothing was compressed`);
  const node = [...model.nodes()].find(({ opType }) => opType === original.graph.nodes.at(-1)!.opType)!;
  const index = original.graph.nodes.at(-1)!.inputs.findIndex((value) => value?.name === "w");
  const feeds = randomFeeds(original);
  const restored = await computedValue(model, node.inputs[index]!, feeds);
  assert.deepEqual(restored.dims, dims);

  const before = elementCount(dims.slice(0, depthAxes[0]));
  const depth = elementCount(dims.slice(...depthAxes));
  const after = elementCount(dims.slice(depthAxes[1]));
  const at = (values: Float32Array) => (row: number, d: number) =>
    values[(Math.floor(row / after) * depth + d) * after + (row % after)]!;
  // Blocks that divide the depth may be longer than asked for; 8-bit codes have one scale for each channel.
  const bits = first.message.includes("4 bits") ? 4 : 8;
  const block = [32, 31, 30, 29, 28, 27, 26, 25, 24].find((length) => depth % length === 0) ?? depth;
  const blockSize = bits === 8 ? depth : first.code === "dequantize" ? 32 : block;
  assert.equal(bits, options.bits, `${name}: ${first.message}`);
  assertDequantized(at(floatArray(tensor)), at(floatArray(restored)), [before * after, depth], {
    ...options,
    bits,
    blockSize,
  });
  await assertSameFunction(made(restored).model, model, feeds, 1e-5);
  const optimized = floatArray((await runModel(model, feeds)).y!);
  const plain = floatArray((await runModel(made(restored).model, feeds)).y!);
  const largest = Math.max(...plain.map(Math.abs));
  plain.forEach((value, i) => {
    assert.ok(Math.abs(value - optimized[i]!) <= 1e-5 * largest, `${name}: ${value} came out as ${optimized[i]}`);
  });
}

// ---- embeddings ------------------------------------------------------------------------------------------------------

describe("embeddings", () => {
  const uniform = uniformSource(3);
  const indices = Array.from({ length: 12 }, () => Math.floor(uniform() * 100) - 50);

  const lookup = (options: MakerOptions & { dims?: number; dtype?: "int32" | "int64" }) => {
    const { dims = 48, dtype = "int64" } = options;
    const make = new GraphMaker(options);
    const tensor = make.random([50, dims], 1, 0.3);
    make.output(make.op("Gather", [make.constant("table", tensor), make.input("i", [3, 4], dtype)]), "y", [3, 4, dims]);
    // Negative indices count from the end.
    return { model: make.model, feeds: { i: tensorOf(dtype, [3, 4], indices) }, table: floatArray(tensor) };
  };

  const check = async (
    built: ReturnType<typeof lookup>,
    model: Model,
    scheme: { bits: number; blockSize: number; symmetric: boolean },
  ) => {
    const width = built.table.length / 50;
    for (const optimization of ["disabled", "all"] as const) {
      const y = floatArray((await runModel(model, built.feeds, { optimization })).y!);
      const row = (i: number) => (indices[i]! + 50) % 50;
      assertDequantized(
        (i, d) => built.table[row(i) * width + d]!,
        (i, d) => y[i * width + d]!,
        [12, width],
        scheme,
      );
    }
  };

  it("are looked up by GatherBlockQuantized", async () => {
    for (const bits of [2, 4, 8] as const) {
      for (const symmetric of [false, true]) {
        for (const dims of [48, 100]) {
          for (const dtype of ["int32", "int64"] as const) {
            const built = lookup({ dims, dtype, storage: "constant" });
            const { model } = compress(built.model, weightOnly({ bits, symmetric, blockSize: 32 }));
            assert.deepEqual(operatorsOf(model), ["GatherBlockQuantized"]);
            await check(built, model, { bits, blockSize: 32, symmetric });
          }
        }
      }
    }
  });

  it("are looked up in plain ONNX by Gather of codes and scales", async () => {
    for (const opset of [9, 21]) {
      const built = lookup({ opset, irVersion: opset >= 21 ? 10 : 8 });
      const { model } = compress(built.model, weightOnly({ bits: 4, format: "qdq" }));
      assert.deepEqual(operatorsOf(model), ["Gather", "Gather", "Cast", "Mul"]);
      await check(built, model, { bits: 8, blockSize: 48, symmetric: true });
    }
  });

  it("that are the output projection too are stored once", async () => {
    for (const symmetric of [false, true]) {
      const original = transformer({ tied: true, hidden: 48, vocabulary: 300 });
      const { model, notes } = compress(original, weightOnly({ bits: 4, symmetric, blockSize: 64 }));
      const [gather] = [only(model, "GatherBlockQuantized")];
      const projection = [...model.nodes()].filter(({ opType }) => opType === "MatMulNBits").at(-1)!;
      assert.equal(gather.inputs[0]!.producer!.inputs[0], projection.inputs[1], "the same codes");
      assert.equal(gather.inputs[2], projection.inputs[2], "the same scales");
      assert.equal(gather.int("block_size"), 16, "the largest power of two that divides 48");
      assert.match(notes.find(({ op }) => op === "Gather")!.message, /shared with a MatMulNBits/);
      const weight = matMulNBitsWeight(projection);
      const table = floatArray(original.graph.nodes[0]!.inputs[0]!.constant!);
      const scheme = { bits: 4, blockSize: 16, symmetric };
      assertDequantized(
        (row, d) => table[row * 48 + d]!,
        (row, d) => weight[row * 48 + d]!,
        [300, 48],
        scheme,
      );
      const feeds = randomFeeds(original);
      const [looked, run] = [await computedValue(model, gather.outputs[0]!, feeds), await runModel(model, feeds)];
      const rows = floatArray(looked);
      const ids = [...new BigInt64Array(feeds.ids!.bytes.slice().buffer)].map(Number);
      ids.forEach((id, i) => {
        assert.deepEqual(rows.slice(i * 48, (i + 1) * 48), weight.slice(id * 48, (id + 1) * 48));
      });
      assert.equal(run.logits!.dims.at(-1), 300);
    }
  });
});

describe("what a model must say of itself", () => {
  it("is the version of the format that has codes of 4 bits, and no newer one than it needs", () => {
    const versionOf = (irVersion: number, options: Partial<WeightOnlyOptions>) => {
      const make = new GraphMaker({ opset: 21, irVersion });
      make.output(make.op("MatMul", [make.input("x", ["n", 64]), make.weight("w", [64, 48], 1)]), "y");
      return compress(make.model, weightOnly({ format: "qdq", ...options })).model.irVersion;
    };
    for (const symmetric of [false, true]) {
      assert.deepEqual(
        [8, 11].map((version) => versionOf(version, { bits: 4, symmetric })),
        [10, 11],
      );
      assert.equal(versionOf(8, { bits: 8, symmetric }), 8);
    }
  });

  it("is opset 19 for float16 from DequantizeLinear; before, the operator is written out", () => {
    for (const opset of [17, 19]) {
      const make = new GraphMaker({ opset });
      const weight = make.constant("w", tensorOf("float16", [64, 48], new Float16Array(64 * 48).fill(0.5)));
      const y = make.op("MatMul", [make.input("x", ["n", 64], "float16"), weight]);
      make.output(y, "y", undefined, "float16");
      const { model } = compress(make.model, weightOnly({ format: "qdq" }));
      assert.equal(operatorsOf(model).includes("DequantizeLinear"), opset === 19);
      assert.notEqual(model.graph.nodes.at(-1)!.inputs[1], weight);
    }
  });
});
