import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Model, Value } from "../../../../src/core/onnx/ir.ts";
import { elementCount, type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import type { WeightOnlyOptions } from "../../../../src/core/quantize/weights/weight-only.ts";
import { compress, computedValue, floatArray, operatorsOf } from "../../../support/compressed.ts";
import { GraphMaker, type MakerOptions, randomFeeds } from "../../../support/graphs.ts";
import { fusedOperators, runModel } from "../../../support/open-model.ts";
import { assertSameFunction } from "../../../support/same-function.ts";
import { assertDequantized, weightOnly } from "../../../support/weight-only.ts";

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
