import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { Model, Node, Value } from "../../../../src/core/onnx/ir.ts";
import { arrayOf, elementCount, type Tensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { roundHalfEven } from "../../../../src/core/quantize/params.ts";
import { type DynamicOptions, dynamicPass } from "../../../../src/core/quantize/weights/dynamic.ts";
import { compress, computedValue, floatArray, only, operatorsOf } from "../../../support/compressed.ts";
import { GraphMaker, lstm, type MakerOptions, randomFeeds, transformer } from "../../../support/graphs.ts";
import { fusedOperators, runModel } from "../../../support/open-model.ts";

function dynamic(options: Partial<DynamicOptions> = {}) {
  return dynamicPass({ perChannel: true, reduceRange: true, exclude: { nodes: [], ops: [] }, ...options });
}

/** DynamicQuantizeLinear: codes 0 … 255 of a range that contains zero, as its definition computes them in float32. */
function quantizeActivation(x: Float32Array): { codes: number[]; scale: number; zero: number } {
  const lo = Math.min(0, ...x);
  const hi = Math.max(0, ...x);
  const scale = lo === hi ? 1 : Math.fround(Math.fround(hi - lo) / 255);
  const zero = roundHalfEven(Math.min(255, Math.max(0, Math.fround(-lo / scale))));
  const codes = Array.from(x, (value) => Math.min(255, Math.max(0, roundHalfEven(Math.fround(value / scale)) + zero)));
  return { codes, scale, zero };
}

interface Codes {
  /** [depth, rows] */
  readonly codes: Int8Array;
  readonly scales: Float32Array;
}

/** Σ_k (a − zero) · w, exact in integers, times the scales. */
function integerProduct(x: Float32Array, { codes, scales }: Codes, depth: number, rows: number): Float64Array {
  const a = quantizeActivation(x);
  const count = x.length / depth;
  const y = new Float64Array(count * rows);
  for (let m = 0; m < count; m++) {
    for (let n = 0; n < rows; n++) {
      let sum = 0;
      for (let k = 0; k < depth; k++) sum += (a.codes[m * depth + k]! - a.zero) * codes[k * rows + n]!;
      y[m * rows + n] = sum * a.scale * scales[n]!;
    }
  }
  return y;
}

async function codesOf(model: Model, codes: Value, scales: Value, feeds: Record<string, Tensor>): Promise<Codes> {
  const read = async (value: Value) => value.constant ?? (await computedValue(model, value, feeds));
  return { codes: arrayOf(await read(codes), "int8") as Int8Array, scales: floatArray(await read(scales)) };
}

function assertClose(actual: Float32Array, expected: ArrayLike<number>, tolerance: number): void {
  let largest = 0;
  for (let i = 0; i < expected.length; i++) largest = Math.max(largest, Math.abs(expected[i]!));
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!);
    assert.ok(error <= tolerance * largest, `[${i}] is ${actual[i]} and should be ${expected[i]}`);
  }
}

describe("MatMul and Gemm", () => {
  const layer = fc.record({
    lead: fc.constantFrom([], [4], [2, 3], [2, 1, 2]),
    depth: fc.integer({ min: 20, max: 130 }),
    rows: fc.integer({ min: 23, max: 60 }),
    op: fc.constantFrom("MatMul", "MatMul+Add", "Gemm", "Gemm transB", "MatMul of Transpose", "MatMul of 1 × K × N"),
    storage: fc.constantFrom("initializer", "constant"),
    opset: fc.constantFrom(9, 13, 21),
    perChannel: fc.boolean(),
    alpha: fc.constantFrom(1, -0.25),
    seed: fc.nat({ max: 1000 }),
  });

  it("are DynamicQuantizeMatMul, whose integers do not overflow on any machine", async () => {
    await fc.assert(
      fc.asyncProperty(layer, async ({ lead, depth, rows, op, storage, opset, perChannel, alpha, seed }) => {
        const make = new GraphMaker({ storage, opset, seed, irVersion: opset >= 21 ? 10 : 8 });
        const gemm = op.startsWith("Gemm");
        const dims = gemm ? [4, depth] : op.endsWith("N") ? [2, 3, depth] : [...lead, depth];
        const x = make.input("x", dims);
        const flipped = op === "Gemm transB" || op === "MatMul of Transpose";
        const shape = flipped ? [rows, depth] : [depth, rows];
        // Weights of one sign and size: without care every sum of two products would overflow.
        const tensor = make.random(op.endsWith("N") ? [1, ...shape] : shape, 0.1, 1);
        let w = make.constant("w", tensor);
        const b = make.weight("b", [rows], 1);
        if (op === "MatMul of Transpose") w = make.op("Transpose", [w], { perm: [1, 0] });
        let y = gemm
          ? make.op("Gemm", [x, w, b], { transB: flipped ? 1 : 0, alpha: { type: "float", value: alpha } })
          : make.op("MatMul", [x, w]);
        if (op === "MatMul+Add") y = make.op("Add", [y, b]);
        make.output(y, "y");
        const { model, notes } = compress(make.model, dynamic({ perChannel }));
        assert.deepEqual(operatorsOf(model), ["DynamicQuantizeMatMul"]);
        assert.deepEqual(
          notes.map(({ code }) => code),
          ["dynamic_matmul"],
        );

        const node = only(model, "DynamicQuantizeMatMul");
        const feeds = { x: tensorOf("float32", dims, floatArray(randomFeeds(make.model, { seed }).x!).map(Math.abs)) };
        const stored = await codesOf(model, node.inputs[1]!, node.inputs[2]!, feeds);
        const factor = gemm ? alpha : 1;
        const values = floatArray(tensor);
        stored.codes.forEach((code, i) => {
          const [d, row] = [Math.floor(i / rows), i % rows];
          const value = values[flipped ? row * depth + d : i]!;
          const scale = stored.scales[row]! / factor;
          assert.ok(Math.abs(code * scale - value) <= (scale / 2) * 1.001, `${value} is stored as ${code} · ${scale}`);
        });
        assert.equal(new Set(stored.scales).size === 1, !perChannel);

        const bias = floatArray(b.constant!);
        const hasBias = gemm || op === "MatMul+Add";
        const expected = integerProduct(floatArray(feeds.x), stored, depth, rows).map(
          (value, i) => value + (hasBias ? bias[i % rows]! : 0),
        );
        for (const optimization of ["disabled", "all"] as const) {
          const { y: actual } = await runModel(model, feeds, { optimization });
          assert.equal(actual!.dims.at(-1), rows);
          assertClose(floatArray(actual!), expected, 2e-6);
        }
      }),
      { numRuns: 120 },
    );
  });

  it("use all eight bits where machines need no care", () => {
    const make = new GraphMaker();
    make.output(make.op("MatMul", [make.input("x", [2, 64]), make.weight("w", [64, 48], 1)]), "y", [2, 48]);
    const largest = (reduceRange: boolean) => {
      const { model } = compress(make.model, dynamic({ reduceRange }));
      const codes = arrayOf(only(model, "DynamicQuantizeMatMul").inputs[1]!.constant!, "int8") as Int8Array;
      return Math.max(...codes);
    };
    assert.equal(largest(false), 127);
    assert.ok(largest(true) < 127 && largest(true) >= 64, "half a bit, not a whole one");
  });

  it("of float16 and of a batch of matrices are stored, and say nothing they do not do", () => {
    const make = new GraphMaker();
    const half = make.constant(
      "w",
      tensorOf(
        "float16",
        [64, 32],
        Float16Array.from({ length: 2048 }, (_, i) => Math.sin(i)),
      ),
    );
    make.output(make.op("MatMul", [make.input("x", [2, 64], "float16"), half]), "y", [2, 32], "float16");
    make.output(make.op("MatMul", [make.input("z", [3, 2, 32]), make.weight("v", [3, 32, 32], 1)]), "q", [3, 2, 32]);
    const { notes } = compress(make.model, dynamic());
    assert.deepEqual(
      notes.map(({ code }) => code),
      ["stored_codes", "stored_codes"],
    );
  });

  it("share the table of embeddings that they project on", async () => {
    const original = transformer({ tied: true, hidden: 48, vocabulary: 200 });
    const { model, notes } = compress(original, dynamic());
    const last = [...model.nodes()].filter(({ opType }) => opType === "DynamicQuantizeMatMul").at(-1)!;
    const gathers = [...model.nodes()].filter(({ opType }) => opType === "Gather");
    assert.equal(last.inputs[1]!.producer!.inputs[0], gathers[0]!.inputs[0], "the same codes");
    assert.equal(last.inputs[2]!.producer!.inputs[0], gathers[1]!.inputs[0], "the same scales");
    assert.match(notes.at(-1)!.message, /shared with a Gather/);
    assert.equal((await fusedOperators(model)).Transpose, (await fusedOperators(original)).Transpose);
    const feeds = randomFeeds(original);
    const [before, after] = [await runModel(original, feeds), await runModel(model, feeds)];
    assertClose(floatArray(after.logits!), floatArray(before.logits!), 0.05);
  });
});

describe("LSTM", () => {
  /** The gates' order in ONNX is input, output, forget, cell. */
  function referenceLstm(
    x: Float32Array,
    node: Node,
    [time, batch, inputs]: readonly [number, number, number],
  ): Float64Array {
    const hidden = node.int("hidden_size")!;
    const directions = node.string("direction", "forward") === "bidirectional" ? 2 : 1;
    const [, w, r, bias, , , , , wScale, , rScale] = node.inputs.map((value) => value?.constant);
    const slice = (tensor: Tensor, d: number, size: number) => {
      const all = tensor.dtype === "int8" ? (arrayOf(tensor, "int8") as Int8Array) : floatArray(tensor);
      return all.slice(d * size, (d + 1) * size);
    };
    const sigmoid = (v: number) => 1 / (1 + Math.exp(-v));
    const y = new Float64Array(time * directions * batch * hidden);
    for (let d = 0; d < directions; d++) {
      const weight = (codes: Tensor, scales: Tensor, depth: number): Codes => ({
        codes: slice(codes, d, depth * 4 * hidden) as Int8Array,
        scales: slice(scales, d, 4 * hidden) as Float32Array,
      });
      const b = slice(bias!, d, 8 * hidden);
      const fromInput = integerProduct(x, weight(w!, wScale!, inputs), inputs, 4 * hidden);
      let h = new Float32Array(batch * hidden);
      const c = new Float64Array(batch * hidden);
      for (let step = 0; step < time; step++) {
        const t = d === 0 ? step : time - 1 - step;
        const fromState = integerProduct(h, weight(r!, rScale!, hidden), hidden, 4 * hidden);
        const next = new Float32Array(batch * hidden);
        for (let n = 0; n < batch; n++) {
          for (let j = 0; j < hidden; j++) {
            const gate = (g: number) => {
              const at = g * hidden + j;
              return (
                fromInput[(t * batch + n) * 4 * hidden + at]! +
                fromState[n * 4 * hidden + at]! +
                b[at]! +
                b[4 * hidden + at]!
              );
            };
            const cell = sigmoid(gate(2)) * c[n * hidden + j]! + sigmoid(gate(0)) * Math.tanh(gate(3));
            c[n * hidden + j] = cell;
            next[n * hidden + j] = sigmoid(gate(1)) * Math.tanh(cell);
            y[((t * directions + d) * batch + n) * hidden + j] = next[n * hidden + j]!;
          }
        }
        h = next;
      }
    }
    return y;
  }

  it("is DynamicQuantizeLSTM in one and two directions", async () => {
    for (const bidirectional of [false, true]) {
      for (const storage of ["initializer", "constant"] as const) {
        for (const perChannel of [true, false]) {
          const original = lstm({ bidirectional, storage, inputs: 20, hidden: 24 });
          const { model, notes } = compress(original, dynamic({ perChannel }));
          assert.deepEqual(operatorsOf(model), ["DynamicQuantizeLSTM"]);
          assert.deepEqual(
            notes.map(({ code }) => code),
            ["dynamic_lstm"],
          );
          const feeds = randomFeeds(original, { dims: { time: 5, n: 1 } });
          const y = floatArray((await runModel(model, feeds)).y!);
          const expected = referenceLstm(floatArray(feeds.x!), only(model, "DynamicQuantizeLSTM"), [5, 1, 20]);
          assertClose(y, expected, 2e-3);
          const float = floatArray((await runModel(original, feeds)).y!);
          assertClose(y, float, perChannel ? 0.03 : 0.06);
        }
      }
    }
  });

  it("keeps its state inputs, its outputs and its attributes", async () => {
    const build = (): Model => {
      const make = new GraphMaker();
      const lengths = make.constant("lengths", tensorOf("int32", [2], [4, 3]));
      const node = make.node(
        "LSTM",
        [
          make.input("x", [4, 2, 20]),
          make.weight("w", [1, 64, 20], 0.2),
          make.weight("r", [1, 64, 16], 0.2),
          undefined,
          lengths,
          make.input("h0", [1, 2, 16]),
          make.input("c0", [1, 2, 16]),
          make.weight("peepholes", [1, 48], 0.1),
        ],
        { hidden_size: 16, direction: "reverse", clip: { type: "float", value: 2 } },
        ["y", "", "c"],
      );
      for (const index of [0, 2]) make.graph.addOutput(node.outputs[index]!);
      for (const index of [0, 2]) node.outputs[index]!.retype("float32", undefined);
      return make.model;
    };
    const original = build();
    const { model } = compress(original, dynamic());
    const node = only(model, "DynamicQuantizeLSTM");
    assert.deepEqual(
      node.outputs.map(({ name }) => name),
      ["y", "", "c"],
    );
    const feeds = randomFeeds(original);
    const [before, after] = [await runModel(original, feeds), await runModel(model, feeds)];
    for (const name of ["y", "c"]) assertClose(floatArray(after[name]!), floatArray(before[name]!), 0.03);
  });
});

describe("everything else", () => {
  it("a convolution is stored, computes in float at full speed, and the note says what would make it faster", async () => {
    const make = new GraphMaker({ opset: 11 });
    make.output(make.conv(make.input("x", [1, 32, 8, 8]), [32, 48], 3), "y", [1, 48, 8, 8]);
    const { model, notes } = compress(make.model, dynamic());
    assert.equal(notes[0]!.outcome, "changed");
    assert.equal(notes[0]!.code, "conv_needs_calibration");
    assert.deepEqual(await fusedOperators(model), { Conv: 1 });
    const feeds = randomFeeds(make.model);
    const [before, after] = [await runModel(make.model, feeds), await runModel(model, feeds)];
    assertClose(floatArray(after.y!), floatArray(before.y!), 0.02);
  });

  it("a table is looked up by row", async () => {
    for (const options of [{ opset: 9 }, { opset: 17 }] satisfies MakerOptions[]) {
      const make = new GraphMaker(options);
      const table = make.weight("table", [60, 32], 1);
      make.output(make.op("Gather", [table, make.input("i", [5], "int64")]), "y", [5, 32]);
      const { model } = compress(make.model, dynamic());
      const feeds = { i: tensorOf("int64", [5], [0, 59, -1, 7, 30]) };
      const [before, after] = [await runModel(make.model, feeds), await runModel(model, feeds)];
      assertClose(floatArray(after.y!), floatArray(before.y!), 0.01);
      assert.equal(elementCount(after.y!.dims), 160);
    }
  });
});
