import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import { simplifyFully } from "../../../src/core/passes/simplify-fully.ts";
import { operatorsOf } from "../../support/compressed.ts";
import {
  branches,
  cnn,
  GraphMaker,
  loop,
  lstm,
  mobilenet,
  randomFeeds,
  resnet,
  transformer,
} from "../../support/graphs.ts";
import { runModel } from "../../support/open-model.ts";
import { REAL_MODEL_NAMES, readRealModel } from "../../support/real-models.ts";
import { assertSameFunction } from "../../support/same-function.ts";

const NOTHING = { nodes: [], ops: [] };
const evaluate = (constants: Model) => runModel(constants, {});

async function simplified(model: Model, exclude: { nodes: readonly string[]; ops: readonly string[] } = NOTHING) {
  const result = await simplifyFully(model, { evaluate, exclude });
  return { notes: result.notes, model: loadModel(modelToBytes(result.model)) };
}

const size = (model: Model) => [...model.nodes()].filter(({ opType }) => opType !== "Constant").length;

/** x → Relu(Conv(x)) + 1 - 1, through an Identity, a computed shape, and a constant that takes two rounds. */
function wordy(): Model {
  const make = new GraphMaker();
  const x = make.input("x", [1, 4, 8, 8]);
  const w = make.weight("w", [4, 4, 3, 3], 0.2);
  const conv = make.node("Conv", [make.op("Identity", [x]), w], { pads: [1, 1, 1, 1] }, 1);
  conv.name = "conv";
  const scaled = make.node("Mul", [conv.outputs[0]!, make.floats("scale", [4, 1, 1], [1, 2, 3, 4])], {}, 1);
  scaled.name = "scale_channels";
  const shape = make.op(
    "Concat",
    [make.ints("one", [1]), make.op("Neg", [make.op("Neg", [make.ints("rest", [256])])])],
    { axis: 0 },
  );
  const flat = make.node("Reshape", [make.op("Relu", [scaled.outputs[0]!]), shape], {}, 1);
  flat.name = "flatten";
  make.output(flat.outputs[0]!, "y", [1, 256]);
  return make.model;
}

describe("simplify", () => {
  it("nothing but the layers is left, and every node that is gone has a note", async () => {
    const model = wordy();
    const result = await simplified(model);
    assert.deepEqual(operatorsOf(result.model), ["Conv", "Relu", "Reshape"]);
    await assertSameFunction(model, result.model, randomFeeds(model));
    const changed = result.notes.filter(({ outcome }) => outcome === "changed");
    assert.deepEqual(changed.map(({ op, code }) => `${op} ${code}`).sort(), [
      ...["Concat removed", "Identity removed", "Mul fused", "Neg removed", "Neg removed"],
    ]);
  });

  it("what is excluded stays, by name and by operator, with its name and its outputs", async () => {
    const model = wordy();
    const named = await simplified(model, { nodes: ["scale_channels"], ops: [] });
    assert.deepEqual(operatorsOf(named.model), ["Conv", "Mul", "Relu", "Reshape"]);
    const byOp = await simplified(model, { nodes: [], ops: ["Identity", "Concat"] });
    assert.deepEqual(operatorsOf(byOp.model).sort(), ["Concat", "Conv", "Identity", "Relu", "Reshape"]);
    for (const { model: after, notes } of [named, byOp]) {
      await assertSameFunction(model, after, randomFeeds(model));
      assert.ok(notes.some(({ outcome, code }) => outcome === "skipped" && code === "excluded"));
      assert.ok([...after.nodes()].every(({ domain }) => domain === ""));
      const outputs = (it: Model) => it.graph.outputs.map(({ name }) => name);
      assert.deepEqual(outputs(after), outputs(model));
    }
    const mul = [...named.model.nodes()].find(({ opType }) => opType === "Mul")!;
    const before = [...model.nodes()].find(({ opType }) => opType === "Mul")!;
    assert.equal(mul.name, "scale_channels");
    assert.equal(mul.outputs[0]!.name, before.outputs[0]!.name);
  });

  it("an excluded node that makes an output of the model keeps making it", async () => {
    const model = wordy();
    const { model: after } = await simplified(model, { nodes: ["flatten"], ops: ["Relu"] });
    await assertSameFunction(model, after, randomFeeds(model));
  });

  for (const [name, model] of Object.entries({
    ...{ cnn: cnn(), resnet: resnet(), mobilenet: mobilenet(), transformer: transformer(), lstm: lstm() },
    ...{ branches: branches(), loop: loop() },
  })) {
    it(`${name}: the same function, and once more changes nothing`, async () => {
      const { model: once } = await simplified(model);
      await assertSameFunction(model, once, randomFeeds(model));
      const { model: twice, notes } = await simplified(once);
      assert.equal(size(twice), size(once));
      assert.deepEqual(notes, []);
      const kept = await simplified(model, { nodes: [], ops: [...new Set(operatorsOf(model))] });
      await assertSameFunction(model, kept.model, randomFeeds(model));
    });
  }

  for (const name of REAL_MODEL_NAMES) {
    it(`${name} gets smaller and stays the same`, async () => {
      const model = loadModel(readRealModel(name));
      const { model: after } = await simplified(model);
      assert.ok(size(after) <= size(model));
      const pixels = (height: number, width: number) =>
        tensorOf(
          "float32",
          [1, 3, height, width],
          Float32Array.from({ length: 3 * height * width }, (_, i) => Math.sin(i / 7)),
        );
      const feeds = name.startsWith("silero")
        ? {
            input: tensorOf(
              "float32",
              [1, 512],
              Float32Array.from({ length: 512 }, (_, i) => Math.sin(i / 5)),
            ),
            state: tensorOf("float32", [2, 1, 128], new Float32Array(256)),
            sr: tensorOf("int64", [], [16_000]),
          }
        : { x: name === "ppocr-det" ? pixels(64, 96) : pixels(48, 160) };
      await assertSameFunction(model, after, feeds, 1e-4);
    });
  }
});
