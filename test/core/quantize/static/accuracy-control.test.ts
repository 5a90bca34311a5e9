import assert from "node:assert/strict";
import { test } from "node:test";
import { type Model, Model as ModelClass } from "../../../../src/core/onnx/ir.ts";
import { controlAccuracy, rankLayers } from "../../../../src/core/quantize/static/accuracy-control.ts";

/** A model that stands for the set of layers that are in float. */
function builder() {
  const floats = new Map<Model, ReadonlySet<string>>();
  const build = (float: ReadonlySet<string>) => {
    const model = new ModelClass({ irVersion: 8, opsets: [["", 13]], graphName: [...float].join() });
    floats.set(model, float);
    return model;
  };
  return { build, floatsOf: (model: Model) => floats.get(model)! };
}

const LAYERS = ["a", "b", "c", "d", "e", "f"];

test("layers are ranked by what leaving each in float gains; many share places", async () => {
  const gains: Record<string, number> = { a: 1, b: 5, c: 0, d: 3, e: -2, f: 0.5 };
  const { build, floatsOf } = builder();
  const sqnrDb = async (model: Model) => 20 + [...floatsOf(model)].reduce((sum, name) => sum + gains[name]!, 0);
  const ranked = await rankLayers(LAYERS, build, sqnrDb, 10);
  assert.deepEqual(
    ranked.map(({ names }) => names.join()),
    ["b", "d", "a", "f", "c", "e"],
  );
  assert.deepEqual(ranked[0], { names: ["b"], sqnrDb: 25, gainDb: 5 });
  const pairs = await rankLayers(LAYERS, build, sqnrDb, 3);
  assert.deepEqual(
    pairs.map(({ names }) => names.join()),
    ["a,b", "c,d", "e,f"],
  );
});

/** Scores rise by what each float layer is worth. */
function scored(worth: Readonly<Record<string, number>>) {
  const { build, floatsOf } = builder();
  const speedup = async (model: Model) => 2 - floatsOf(model).size / LAYERS.length;
  const score = async (model: Model) => [...floatsOf(model)].reduce((sum, name) => sum + (worth[name] ?? 0), 0);
  return { build, score, speedup };
}

const singles = LAYERS.map((name) => [name]);

test("a model that is good enough as it is stays quantized, and nothing is ranked", async () => {
  const { build, score, speedup } = scored({});
  const rank = () => Promise.reject(new Error("ranked"));
  const result = await controlAccuracy(rank, build, { score, speedup, target: 0, maxTrials: 10 });
  assert.deepEqual([result.floatLayers, result.reached, result.trials.length], [[], true, 1]);
});

test("the fewest layers that do are kept: the rest of the ranking, and what was of no use, is quantized again", async () => {
  // Ranked a … f; b is worth nothing, and a, c and d together are what it takes.
  const { build, score, speedup } = scored({ a: 4, b: 0, c: 3, d: 3, e: 0.1 });
  const result = await controlAccuracy(async () => singles, build, { score, speedup, target: 10, maxTrials: 30 });
  assert.deepEqual(result.floatLayers, ["a", "c", "d"]);
  assert.ok(result.reached);
  assert.ok(result.trials.every(({ bytes }) => bytes > 0));
  for (const trial of result.trials) assert.equal(trial.speedup, 2 - trial.floatLayers.length / LAYERS.length);
});

test("the budget is kept, and without success the best of what was tried is the answer", async () => {
  const { build, score, speedup } = scored({ a: 1, b: 1, c: -5 });
  const result = await controlAccuracy(async () => singles, build, { score, speedup, target: 100, maxTrials: 3 });
  assert.equal(result.trials.length, 3);
  assert.deepEqual([result.floatLayers, result.reached], [["a", "b"], false]);
  const { trials, floatLayers } = await controlAccuracy(async () => singles, build, {
    score,
    speedup,
    target: 2,
    maxTrials: 3,
  });
  assert.ok(trials.length <= 3);
  assert.deepEqual(floatLayers, ["a", "b"]);
});

test("all layers in float are tried when nothing less does", async () => {
  const { build, score, speedup } = scored({ a: 1, b: 1, c: 1, d: 1, e: 1, f: 1 });
  const result = await controlAccuracy(async () => singles, build, { score, speedup, target: 6, maxTrials: 20 });
  assert.deepEqual([...result.floatLayers].sort(), LAYERS);
});

/** The sets of layers that were tried to be in float, in order. */
async function attempts(worth: Readonly<Record<string, number>>, target: number, maxTrials = 30): Promise<string[]> {
  const { build, score, speedup } = scored(worth);
  const { trials } = await controlAccuracy(async () => singles, build, { score, speedup, target, maxTrials });
  return trials.map(({ floatLayers }) => floatLayers.join(""));
}

test("prefixes of the ranking are tried by doubling and bisection, then each layer but the last without it, the least useful first", async () => {
  const even = { a: 1, b: 1, c: 1, d: 1, e: 1, f: 1 };
  assert.deepEqual(await attempts({ a: 4, b: 0, c: 3, d: 3 }, 10), [
    ...["", "a", "ab", "abcd", "abc"],
    ...["abd", "acd", "cd"],
  ]);
  assert.deepEqual(await attempts(even, 3), ["", "a", "ab", "abcd", "abc", "ac", "bc"]);
  assert.deepEqual(await attempts(even, 5), ["", "a", "ab", "abcd", "abcdef", "abcde", "abce", "abde", "acde", "bcde"]);
  assert.deepEqual(await attempts({ b: 1 }, 1), ["", "a", "ab", "b"], "the most useful one, too, where others do");
  assert.deepEqual(await attempts(even, 3, 4), ["", "a", "ab", "abcd"]);
  assert.deepEqual(await attempts(even, 3, 6), ["", "a", "ab", "abcd", "abc", "ac"]);
});

test("ranking and control stop where they are told to", async () => {
  const stop = new AbortController();
  const { build, score, speedup } = scored({});
  const told: string[] = [];
  const ranking = rankLayers(LAYERS, build, score, 10, {
    signal: stop.signal,
    onTrial(done, of) {
      told.push(`${done} of ${of}`);
      if (done === 2) stop.abort();
    },
  });
  await assert.rejects(ranking, { code: "cancelled" });
  assert.deepEqual(told, ["1 of 6", "2 of 6"]);
  let made = 0;
  const again = new AbortController();
  const options = { score, speedup, target: 1, maxTrials: 9, signal: again.signal };
  const onTrial = () => {
    if (++made === 3) again.abort();
  };
  await assert.rejects(
    controlAccuracy(async () => singles, build, { ...options, onTrial }),
    { code: "cancelled" },
  );
  assert.equal(made, 3);
});
