import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CoreError } from "../../../../src/core/errors.ts";
import type { Model, Value } from "../../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../../src/core/onnx/save.ts";
import { lazyTensor, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { type Note, type Pass, runPasses } from "../../../../src/core/passes/pass.ts";
import { dynamicPass } from "../../../../src/core/quantize/weights/dynamic.ts";
import { weightOnlyPass } from "../../../../src/core/quantize/weights/weight-only.ts";
import { compress, floatArray, operatorsOf } from "../../../support/compressed.ts";
import { branches, GraphMaker, loop, type MakerOptions, randomFeeds, transformer } from "../../../support/graphs.ts";
import { runModel } from "../../../support/open-model.ts";

const NONE = { nodes: [], ops: [] };

const METHODS: Readonly<Record<string, (exclude?: { nodes: readonly string[]; ops: readonly string[] }) => Pass>> = {
  dynamic: (exclude = NONE) => dynamicPass({ perChannel: true, reduceRange: true, exclude }),
  matmulnbits: (exclude = NONE) =>
    weightOnlyPass({
      bits: 8,
      blockSize: 32,
      symmetric: false,
      format: "matmulnbits",
      embeddings: true,
      accuracyLevel: 4,
      exclude,
    }),
  qdq: (exclude = NONE) =>
    weightOnlyPass({
      bits: 8,
      blockSize: 32,
      symmetric: true,
      format: "qdq",
      embeddings: true,
      accuracyLevel: 4,
      exclude,
    }),
};

function codesByNode(notes: readonly Note[]): Record<string, string> {
  return Object.fromEntries(notes.map(({ name, code }) => [name, code]));
}

/** Of the largest value: weights in 8 bits turn an output by a few of their steps, 1/127 each. A value in another place is off by more. */
async function assertNear(original: Model, model: Model, tolerance = 0.05): Promise<void> {
  const feeds = randomFeeds(original);
  for (const optimization of ["disabled", "all"] as const) {
    const [before, after] = [await runModel(original, feeds), await runModel(model, feeds, { optimization })];
    assert.deepEqual(Object.keys(after), Object.keys(before));
    for (const [name, tensor] of Object.entries(before)) {
      const [x, y] = [floatArray(tensor), floatArray(after[name]!)];
      const largest = Math.max(...x.map(Math.abs));
      assert.deepEqual(after[name]!.dims, tensor.dims);
      x.forEach((value, i) => {
        assert.ok(Math.abs(value - y[i]!) <= tolerance * largest, `${name}[${i}]: ${y[i]}, not ${value}`);
      });
    }
  }
}

/** Bytes of float32 that are left in a model. */
function floatBytes(model: Model): number {
  let sum = 0;
  for (const graph of model.graphs()) {
    const values: Value[] = [...graph.initializers, ...graph.nodes.flatMap(({ outputs }) => outputs)];
    for (const { constant } of values) if (constant?.dtype === "float32") sum += constant.byteLength;
  }
  return sum;
}

for (const [name, method] of Object.entries(METHODS)) {
  describe(name, () => {
    it("reaches weights wherever they are kept", async () => {
      for (const storage of ["initializer", "constant"] as const) {
        const options: MakerOptions = { storage };
        const models = [
          branches({ ...options, features: 32 }),
          loop({ ...options, features: 32 }),
          transformer(options),
        ];
        for (const original of models) {
          const { model, notes } = compress(original, method());
          assert.deepEqual(
            notes.filter(({ outcome }) => outcome === "skipped").map(({ code }) => code),
            [],
          );
          // What stays are scales, biases and normalizations.
          assert.ok(
            floatBytes(model) < floatBytes(original) / 4,
            `${floatBytes(model)} of ${floatBytes(original)} bytes`,
          );
          await assertNear(original, model);
        }
      }
    });

    it("leaves alone what the job excludes, by name, by label and by operator", () => {
      const make = new GraphMaker();
      const x = make.input("x", [4, 64]);
      const named = make.op("MatMul", [x, make.weight("a", [64, 64], 0.1)]);
      const unnamed = make.graph.append({
        opType: "MatMul",
        inputs: [named, make.weight("b", [64, 64], 0.1)],
        outputs: ["unnamed_out"],
      });
      const gemm = make.op("Gemm", [unnamed.outputs[0]!, make.weight("c", [64, 64], 0.1)]);
      make.output(make.op("MatMul", [gemm, make.weight("d", [64, 64], 0.1)]), "y");
      const exclude = { nodes: ["matmul_node", "unnamed_out"], ops: ["Gemm"] };
      const { model, notes } = compress(make.model, method(exclude));
      const codes = codesByNode(notes);
      assert.deepEqual([codes.matmul_node, codes.unnamed_out, codes.gemm_node], ["excluded", "excluded", "excluded"]);
      assert.equal(operatorsOf(model).filter((op) => op === "MatMul" || op === "Gemm").length >= 3, true);
      assert.equal(notes.filter(({ outcome }) => outcome === "changed").length, 1);
    });

    it("stores a weight that several nodes read once", () => {
      for (const transposed of [false, true]) {
        const make = new GraphMaker();
        const shared = make.weight("shared", [64, 64], 0.1);
        const right = () => (transposed ? make.op("Transpose", [shared], { perm: [1, 0] }) : shared);
        let x = make.input("x", [4, 64]);
        for (let i = 0; i < 3; i++) x = make.op("Tanh", [make.op("MatMul", [x, right()])]);
        make.output(x, "y", [4, 64]);
        const { model } = compress(make.model, method());
        const codes = [...model.graph.initializers].filter(({ constant }) => (constant?.byteLength ?? 0) >= 4096);
        assert.equal(codes.length, 1, [...model.graph.initializers].map((value) => value.name).join());
      }
    });

    it("keeps a weight whole that something else reads too", async () => {
      const readers: Record<string, (make: GraphMaker, w: Value, x: Value) => Value> = {
        '"add_node" \\(Add\\)': (make, w, x) => make.op("Add", [make.op("MatMul", [x, w]), w]),
        "an output of the model": (make, w, x) => {
          make.graph.addOutput(w);
          return make.op("MatMul", [x, w]);
        },
        '"matmul_node_1" \\(MatMul\\)': (make, w, x) => make.op("MatMul", [make.op("MatMul", [x, w]), w]),
      };
      for (const [who, build] of Object.entries(readers)) {
        const make = new GraphMaker();
        make.output(build(make, make.weight("w", [64, 64], 0.1), make.input("x", [64, 64])), "y", [64, 64]);
        const { model, notes } = compress(make.model, method({ nodes: ["matmul_node_1"], ops: [] }));
        const note = notes.find(({ name: node }) => node === "matmul_node")!;
        assert.equal(note.code, "shared_weight");
        assert.match(note.message, new RegExp(who));
        assert.equal(floatBytes(model), floatBytes(make.model));
        await assertNear(make.model, model, 0);
      }
    });

    it("says of every other weight why it is left alone", () => {
      const make = new GraphMaker();
      const x = make.input("x", [1, 8, 16, 16]);
      const tiny = make.conv(x, [8, 4], 1);
      const position = make.op("Add", [tiny, make.weight("position", [1, 4, 16, 16], 1)]);
      const large = make.op("Mul", [position, make.weight("table", [4, 4, 16, 16], 1)]);
      make.output(make.op("MatMul", [large, make.weight("few", [16, 4], 1)]), "y", [4, 4, 16, 4]);
      const { model, notes } = compress(make.model, method());
      assert.deepEqual(codesByNode(notes), {
        conv_node: "no_gain",
        matmul_node: "no_gain",
        mul_node: "unsupported_op",
      });
      assert.deepEqual(Buffer.from(modelToBytes(model)), Buffer.from(modelToBytes(make.model)), "nothing has changed");
    });

    it("takes weights off the list of inputs", async () => {
      for (const irVersion of [3, 8]) {
        const make = new GraphMaker({ opset: 9, irVersion });
        const w = make.weight("w", [64, 48], 0.2);
        const b = make.weight("b", [48], 0.2);
        make.output(make.op("Add", [make.op("MatMul", [make.input("x", [2, 64]), w]), b]), "y", [2, 48]);
        for (const value of [w, b]) make.graph.setOverridable(value, true);
        const { model } = compress(make.model, method());
        assert.deepEqual(
          model.graph.inputs.map((value) => value.name),
          ["x"],
        );
        assert.ok(model.irVersion >= 4);
        await assertNear(make.model, model);
      }
    });

    it("gives the same bytes for the same model, and reads no weight before they are asked for", () => {
      let reads = 0;
      const build = () => {
        const make = new GraphMaker();
        const data = make.random([64, 96], 0.1);
        const lazy = lazyTensor("float32", [64, 96], () => {
          reads++;
          return data.bytes;
        });
        make.output(make.op("MatMul", [make.input("x", [2, 64]), make.constant("w", lazy)]), "y", [2, 96]);
        return runPasses(make.model, [method()]).model;
      };
      const [first, second] = [build(), build()];
      assert.equal(reads, 0);
      assert.deepEqual(Buffer.from(modelToBytes(first)), Buffer.from(modelToBytes(second)));
      assert.equal(reads, 2, "once for codes, scales and zero points together");
    });

    it("refuses a weight that is not finite, by name", () => {
      const make = new GraphMaker();
      const values = new Float32Array(64 * 64).fill(0.5);
      values[1000] = Number.NaN;
      make.output(
        make.op("MatMul", [make.input("x", [2, 64]), make.constant("broken", tensorOf("float32", [64, 64], values))]),
        "y",
      );
      const { model } = runPasses(make.model, [method()]);
      assert.throws(
        () => modelToBytes(model),
        (error) => error instanceof CoreError && error.code === "non_finite" && error.subject === "broken",
      );
    });

    it("leaves what is quantized already as it is", async () => {
      const make = new GraphMaker();
      make.output(make.linear(make.input("x", [2, 64]), 64, 96), "y", [2, 96]);
      const { model: once } = compress(make.model, method());
      const { model: twice, notes } = compress(once, method());
      assert.deepEqual(
        notes.filter(({ outcome }) => outcome === "changed"),
        [],
      );
      assert.deepEqual(Buffer.from(modelToBytes(twice)), Buffer.from(modelToBytes(once)));
    });
  });
}
