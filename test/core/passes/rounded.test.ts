import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { float16Pass } from "../../../src/core/passes/float16.ts";
import { roundedForm } from "../../../src/core/passes/rounded.ts";
import { compress, floatArray } from "../../support/compressed.ts";
import { branches, GraphMaker, loop, lstm, mlp, randomFeeds, resnet, transformer } from "../../support/graphs.ts";
import { runModel } from "../../support/open-model.ts";

const toHalf = (model: Model, keepIo = true) =>
  compress(model, float16Pass({ keepIo, exclude: { nodes: [], ops: [] } })).model;

/** x [4] → y: x multiplied with each factor in turn. */
function products(factors: readonly number[]): Model {
  const make = new GraphMaker();
  let x = make.input("x", [4]);
  for (const factor of factors) x = make.op("Mul", [x, make.floats("factor", [], [factor])]);
  make.output(x, "y", [4]);
  return make.model;
}

const run = async (model: Model, x: readonly number[], optimization: "disabled" | "basic" | "all") =>
  floatArray((await runModel(model, { x: tensorOf("float32", [4], x) }, { optimization })).y!);

describe("a float16 model that really rounds", () => {
  it("loses what float16 does not hold, between operators too", async () => {
    // 1 + 2⁻¹⁰ + 2⁻¹² lies between two numbers of float16, nearer to the first; 70000 lies beyond all, as does 40000 times two.
    const x = [1 + 2 ** -10 + 2 ** -12, 70_000, 40_000, 2 ** -24];
    const half = toHalf(products([2, 0.5]));
    // Without this form a CPU does not show what becomes of 80000 on the way.
    assert.equal((await run(half, x, "all"))[2], 40_000);
    const rounded = roundedForm(half)!;
    for (const optimization of ["disabled", "basic", "all"] as const) {
      const y = [...(await run(rounded, x, optimization))];
      assert.deepEqual(y, [1 + 2 ** -10, Infinity, Infinity, 2 ** -24], optimization);
    }
  });

  it("rounds after every operator, as arithmetic in Float16Array does", async () => {
    const number = fc.float({ min: -300, max: 300, noNaN: true });
    await fc.assert(
      fc.asyncProperty(
        fc.array(number, { minLength: 4, maxLength: 4 }),
        // A model whose only weight float16 cannot hold with all its digits would stay as it is.
        fc.array(
          number.filter((factor) => Math.abs(factor) > 2 ** -10),
          { minLength: 1, maxLength: 5 },
        ),
        async (x, factors) => {
          const given = factors.map((factor) => Math.f16round(factor));
          const expected = x.map((value) =>
            given.reduce((product, factor) => Math.f16round(Math.fround(product * factor)), Math.f16round(value)),
          );
          const rounded = roundedForm(toHalf(products(given)))!;
          const y = await run(rounded, x, "basic");
          // The sign of a zero is not what this is about.
          const unsigned = (value: number) => value + 0;
          assert.deepEqual([...y].map(unsigned), expected.map(unsigned));
        },
      ),
      { numRuns: 40 },
    );
  });

  it("gives the outputs of a network under their names, near those of the network", async () => {
    const networks: Record<string, Model> = {
      mlp: mlp(),
      resnet: resnet({ width: 8, size: 32, classes: 10 }),
      transformer: transformer({ layers: 1 }),
      lstm: lstm(),
      branches: branches(),
      loop: loop(),
    };
    for (const [name, model] of Object.entries(networks)) {
      const feeds: Record<string, Tensor> = randomFeeds(model);
      const expected = await runModel(model, feeds);
      const half = toHalf(model);
      const before = modelToBytes(half);
      const rounded = roundedForm(half)!;
      assert.deepEqual(Buffer.from(modelToBytes(half)), Buffer.from(before), "the model itself stays as it is");
      for (const optimization of ["disabled", "basic"] as const) {
        const actual = await runModel(rounded, feeds, { optimization });
        assert.deepEqual(Object.keys(actual), Object.keys(expected));
        for (const [output, tensor] of Object.entries(expected)) {
          if (tensor.dtype !== "float32") continue;
          const [x, y] = [floatArray(tensor), floatArray(actual[output]!)];
          const largest = x.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
          x.forEach((value, i) => {
            assert.ok(Math.abs(value - y[i]!) <= 5e-3 * largest, `${name} ${output}[${i}]: ${value} ${y[i]}`);
          });
        }
      }
    }
  });

  it("is not there for a model without float16", () => {
    assert.equal(roundedForm(mlp()), undefined);
  });

  it("rounds nothing that is only moved, padded or chosen", () => {
    const make = new GraphMaker();
    const x = make.input("x", [4, 2], "float16");
    const turned = make.op("ReverseSequence", [x, make.ints("lengths", [4, 3])]);
    const padded = make.op("Pad", [turned, make.ints("pads", [0, 1, 0, 0])]);
    const kept = make.op("Trilu", [padded]);
    make.output(make.op("Tanh", [kept]), "y", [4, 3], "float16");
    const rounded = roundedForm(make.model)!;
    const casts = [...rounded.nodes()].filter(({ opType }) => opType === "Cast");
    assert.equal(casts.length, 2, "around the Tanh");
  });
});
