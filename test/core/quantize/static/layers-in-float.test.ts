import assert from "node:assert/strict";
import { test } from "node:test";
import { Model } from "../../../../src/core/onnx/ir.ts";
import { tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { type AccuracyTarget, leaveInFloat } from "../../../../src/core/quantize/static/layers-in-float.ts";
import type { StaticResult } from "../../../../src/core/quantize/static/quantize-static.ts";

/** What a model is worth: a number for each layer in float, less one for each of them whose weights are stored in 8 bits. */
interface Worth {
  readonly float: Readonly<Record<string, number>>;
  readonly stored: Readonly<Record<string, number>>;
  /** With no weights that are only stored in 8 bits. */
  readonly nothingStored?: number;
}

/** Layers of these sizes, and what was made of them and scored, in order: layers in float, and behind a slash those that are stored. */
function search(sizes: Readonly<Record<string, number>>, worth: Worth, target: number, maxTrials = 20) {
  const scores = new Map<Model, number>();
  const names = new Map<Model, string>();
  const scored: string[] = [];
  const build = (layers: ReadonlySet<string>, stored: ReadonlySet<string> | "nothing"): StaticResult => {
    const model = new Model({ irVersion: 10, opsets: [["", 21]], graphName: "made" });
    const x = model.graph.addInput("x", "float32", [1]);
    for (const [name, size] of Object.entries(sizes)) {
      const weight = model.graph.addInitializer(`${name}_w`, tensorOf("float32", [size], new Float32Array(size)));
      const inputs = [x, weight];
      model.graph.append({ name, opType: "Add", inputs, outputs: [`${name}_y`] });
    }
    const sum = (these: Iterable<string>, of: Readonly<Record<string, number>>) =>
      [...these].reduce((total, name) => total + (of[name] ?? 0), 0);
    const kept = sum(layers, worth.float);
    scores.set(model, stored === "nothing" ? kept + (worth.nothingStored ?? 0) : kept - sum(stored, worth.stored));
    names.set(model, `${[...layers].join("")}/${stored === "nothing" ? stored : [...stored].join("")}`);
    return { model, computeLayers: Object.keys(sizes) } as unknown as StaticResult;
  };
  const score = async (model: Model) => {
    scored.push(names.get(model)!);
    return scores.get(model)!;
  };
  const told: string[] = [];
  const wanted: AccuracyTarget = { score, speedup: async () => 1.5, target, maxTrials };
  const result = leaveInFloat(build, async (model) => scores.get(model)!, wanted, {
    onProgress: (step, fraction, message) => told.push(`${step} ${fraction.toFixed(2)} ${message}`),
  });
  return result.then((found) => ({ ...found, scored, told, made: names.get(found.result.model) }));
}

const SIZES = { a: 10, b: 30, c: 20 };
const ALL_NEEDED = { a: 1, b: 1, c: 1 };

test("weights of all layers in float are stored in 8 bits where the target holds so", async () => {
  const { made, stored, control, scored } = await search(SIZES, { float: ALL_NEEDED, stored: {} }, 3);
  assert.deepEqual([made, [...stored].join(""), control.reached], ["abc/abc", "abc", true]);
  assert.deepEqual(scored.slice(-1), ["abc/abc"]);
});

test("else those of the largest are, one after the other, as many as hold the target", async () => {
  const worth = { float: ALL_NEEDED, stored: { a: 0.2, b: 0.1, c: 2 } };
  const { made, stored, control, scored } = await search(SIZES, worth, 2.6);
  assert.deepEqual([made, [...stored].sort().join("")], ["abc/ba", "ab"]);
  assert.deepEqual(scored.slice(-4), ["abc/abc", "abc/b", "abc/bc", "abc/ba"]);
  const chosen = control.trials.find(({ floatLayers }) => floatLayers.length === 3)!;
  assert.ok(Math.abs(chosen.score - 2.7) < 1e-9, "the trial is what was made of it in the end");
  assert.equal(chosen.speedup, 1.5);
});

test("where storing any of them misses the target all keep their floats, and one alone is not tried twice", async () => {
  const none = await search(SIZES, { float: ALL_NEEDED, stored: { a: 9, b: 9, c: 9 } }, 3);
  assert.deepEqual([none.made, none.stored.size], ["abc/", 0]);
  assert.deepEqual(none.scored.slice(-4), ["abc/abc", "abc/b", "abc/c", "abc/a"]);
  const one = await search({ a: 5 }, { float: { a: 1 }, stored: { a: 9 } }, 1);
  assert.deepEqual([one.made, one.scored], ["a/", ["/", "a/", "a/a"]]);
});

test("where nothing is needed nothing is stored, and nothing more is tried", async () => {
  const { made, sensitivity, scored, told } = await search(SIZES, { float: {}, stored: {} }, 0);
  assert.deepEqual([made, sensitivity, scored, told], ["/", [], ["/"], ["control 0.05 1 models tried"]]);
});

test("where no layers are enough, weights that are only stored are taken back, if that is better", async () => {
  const better = await search(SIZES, { float: ALL_NEEDED, stored: {}, nothingStored: 5 }, 8);
  assert.deepEqual([better.made, better.control.reached], ["abc/nothing", true]);
  const most = await search(SIZES, { float: ALL_NEEDED, stored: {}, nothingStored: 1 }, 8);
  assert.deepEqual([most.made, most.control.reached], ["abc/nothing", false]);
  const equal = await search(SIZES, { float: ALL_NEEDED, stored: {}, nothingStored: 0 }, 8);
  assert.deepEqual([equal.made, equal.control.reached, equal.stored.size], ["abc/", false, 0]);
});

test("layers are told with what each is worth, and how far the search is", async () => {
  const { sensitivity, told } = await search(SIZES, { float: { a: 1, b: 3, c: 2 }, stored: {} }, 5);
  assert.deepEqual(
    sensitivity.map(({ names, gainDb }) => `${names} ${gainDb}`),
    ["b 3", "c 2", "a 1"],
  );
  assert.deepEqual(told, [
    "control 0.05 1 models tried",
    "rank 0.33 1 of 3 layers",
    "rank 0.67 2 of 3 layers",
    "rank 1.00 3 of 3 layers",
    "control 0.10 2 models tried",
    "control 0.15 3 models tried",
    "control 0.20 4 models tried",
  ]);
});
