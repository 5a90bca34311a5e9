import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../../src/core/onnx/save.ts";
import type { Tensor } from "../../../../src/core/onnx/tensor.ts";
import { calibrate } from "../../../../src/core/quantize/static/calibration.ts";
import { findFasterKernels, type KernelRuntime } from "../../../../src/core/quantize/static/faster-kernels.ts";
import { emptyBook } from "../../../../src/core/quantize/static/kernel-book.ts";
import { layersAsked } from "../../../../src/core/quantize/static/layers-asked.ts";
import { quantizeStatic, type StaticOptions } from "../../../../src/core/quantize/static/quantize-static.ts";
import { USUAL_COSTS } from "../../../../src/core/targets/cost-tables.ts";
import { profileTemporary } from "../../../../workers/model-files.ts";
import { GraphMaker, randomFeeds } from "../../../support/graphs.ts";
import { openModel } from "../../../support/open-model.ts";
import { assertRecorded } from "../../../support/recorded.ts";

const OPTIONS: StaticOptions = {
  method: "minmax",
  percentile: 99.999,
  activationDType: "uint8",
  perChannel: true,
  reduceRange: true,
};

/** Two wide convolutions, a Tanh, two more: two parts that have nothing to do with each other. */
function twoParts(): Model {
  const make = new GraphMaker();
  const part = (x: Parameters<typeof make.op>[1][0]) =>
    make.op("Relu", [make.conv(make.op("Relu", [make.conv(x!, [8, 8], 3)]), [8, 8], 3)]);
  make.output(part(make.op("Tanh", [part(make.input("x", [1, 8, 16, 16]))])), "y");
  return make.model;
}

async function seenOf(model: Model) {
  const feeds = randomFeeds(model, { seed: 1 });
  const batches = (async function* (): AsyncGenerator<Record<string, Tensor>> {
    yield feeds;
  })();
  return { feeds, calibration: await calibrate(model, batches, { openModel }) };
}

/** Profiles of a model as if a convolution took `us` by its number, from the names that it has. */
function profileOf(model: Model, us: (index: number) => number | undefined): string {
  const kernels = [...model.nodes()].filter(({ opType }) => opType === "Conv");
  const events = [0, 1, 2, 3, 4].flatMap((run) => {
    const ts = run * 1e6;
    const nodes = kernels.map(({ name }, i) => ({
      ...{ cat: "Node", name: `${us(i) === undefined ? "other" : name}_kernel_time`, ts: ts + 1 + i, dur: us(i) ?? 1 },
      args: { op_name: "Conv", output_type_shape: [{ float: [1, 8, 16, 16] }] },
    }));
    return [{ cat: "Session", name: "model_run", ts, dur: 9e5 }, ...nodes];
  });
  return JSON.stringify(events);
}

const isQuantized = (model: Model) => [...model.nodes()].some(({ opType }) => opType === "QuantizeLinear");

interface Speeds {
  readonly float: number;
  readonly int8: number;
  readonly mixed: number;
}

/** What is found where the convolutions of a model take these microseconds, and whole models these milliseconds. */
async function found(us: { float: number[]; int8: number[] }, ms: Speeds, timed?: KernelRuntime["time"]) {
  const model = twoParts();
  const { feeds, calibration } = await seenOf(model);
  const result = await findFasterKernels(model, calibration, OPTIONS, feeds, {
    latencyThreads: 1,
    table: USUAL_COSTS,
    openModel,
    time: async (contestants) =>
      timed?.(contestants) ??
      [ms.float, ms.int8, ms.mixed].slice(0, contestants.length).map((it) => [it, it * 1.01, it * 0.99, it, it]),
    profile: async (profiled) => ({
      text: profileOf(profiled, (i) => (isQuantized(profiled) ? us.int8 : us.float)[i]),
      session: await openModel(profiled),
    }),
  });
  const { slower: floatWhereSlower } = result;
  const { slower, notes } = quantizeStatic(model, calibration, { ...OPTIONS, floatWhereSlower });
  const convs = [...model.nodes()].filter(({ opType }) => opType === "Conv").map(({ name }) => name);
  return { ...result, notes, slow: slower.map((name) => convs.indexOf(name)).sort() };
}

const UNEVEN = { float: [500, 500, 500, 500], int8: [900, 900, 200, 200] };

test("the part that kernels are slower for in 8 bits stays in float, when it is no slower once it is timed", async () => {
  const { slow, facts, notes } = await found(UNEVEN, { float: 2, int8: 2.2, mixed: 1.4 });
  assert.deepEqual(slow, [0, 1]);
  assert.deepEqual([facts.basis, facts.chosen, facts.float_ms], ["measured", "mixed", 2]);
  // Two convolutions save 0.6 ms, less conversions, which are taken to be as slow here as these kernels are.
  assertRecorded(facts.predicted_speedup, 1.112, 0.001);
  assert.match(
    notes.find(({ code }) => code === "stored_codes")!.message,
    /8 bits are measured to take \d\.\d times as long as float/,
  );
});

test("what is predicted to pay and does not is not taken", async () => {
  const { slow, facts } = await found(UNEVEN, { float: 2, int8: 1, mixed: 1.6 });
  assert.deepEqual([facts.chosen, slow], ["int8", []]);
});

test("of two models in 8 bits the faster one is taken, however unsteady the machine is", async () => {
  const unsteady = async (contestants: readonly unknown[]) =>
    [
      [2, 2, 2, 2, 2],
      [1.8, 1.8, 1.8, 1.8, 1.8],
      [1, 3, 1.2, 3, 2.3],
    ].slice(0, contestants.length);
  const { facts } = await found(UNEVEN, { float: 2, int8: 1.8, mixed: 2.3 }, unsteady);
  assert.equal(facts.chosen, "int8");
});

test("where every model with 8 bits is slower than float, all of it stays in float, in 8 bits on the disk", async () => {
  const { slow, facts, notes } = await found(UNEVEN, { float: 1, int8: 1.5, mixed: 1.2 });
  assert.deepEqual([facts.chosen, slow], ["float", [0, 1, 2, 3]]);
  assert.deepEqual(
    notes.filter(({ op }) => op === "Conv").map(({ code }) => code),
    Array(4).fill("stored_codes"),
  );
});

test("where no kernel gains, times that tell nothing are no reason for 8 bits, and faster ones are", async () => {
  const slow = { float: [500, 500, 500, 500], int8: [900, 900, 900, 900] };
  const unsteady = async (contestants: readonly unknown[]) =>
    [[1, 3, 1, 3, 2], [3, 1, 3, 1, 2.1], [2]].slice(0, contestants.length);
  const { facts } = await found(slow, { float: 1, int8: 1, mixed: 1 }, unsteady);
  assert.equal(facts.chosen, "float");
  assert.equal((await found(slow, { float: 2, int8: 1, mixed: 1 })).facts.chosen, "int8");
});

test("a model that is as fast as float but for chance stays in 8 bits", async () => {
  const even = { float: [500, 500, 500, 500], int8: [200, 200, 200, 200] };
  const { facts } = await found(even, { float: 2, int8: 2.01, mixed: 2 });
  assert.equal(facts.chosen, "int8");
});

test("what was measured of one model serves others of the same shape, and of the same kernels", async () => {
  const book = emptyBook();
  const counts = { timed: 0, profiled: 0 };
  const search = async (model: Model, threads = 1, us = UNEVEN) => {
    const { feeds, calibration } = await seenOf(model);
    const before = { ...counts };
    const result = await findFasterKernels(model, calibration, OPTIONS, feeds, {
      ...{ latencyThreads: threads, table: USUAL_COSTS, openModel, book },
      time: async (contestants) => {
        counts.timed++;
        return [2, 2.2, 1.4].slice(0, contestants.length).map((it) => [it, it * 1.01, it * 0.99, it, it]);
      },
      profile: async (profiled) => {
        counts.profiled++;
        const text = profileOf(profiled, (i) => (isQuantized(profiled) ? us.int8 : us.float)[i]);
        return { text, session: await openModel(profiled) };
      },
    });
    const { slower } = quantizeStatic(model, calibration, { ...OPTIONS, floatWhereSlower: result.slower });
    const convs = [...model.nodes()].filter(({ opType }) => opType === "Conv").map(({ name }) => name);
    const slow = slower.map((name) => convs.indexOf(name)).sort();
    const measured = { timed: counts.timed - before.timed, profiled: counts.profiled - before.profiled };
    return {
      slow,
      measured,
      known: result.known,
      facts: result.facts,
      layers: result.layers.map(({ floatUs }) => floatUs),
    };
  };
  const first = await search(twoParts());
  assert.deepEqual([first.known, first.measured], [false, { timed: 2, profiled: 2 }]);
  // Other weights, the names all the same but one, and a machine that would say the opposite now.
  const opposite = { float: [900, 900, 200, 200], int8: [500, 500, 500, 500] };
  const like = twoParts();
  [...like.nodes()][0]!.name = "renamed";
  const again = await search(like, 1, opposite);
  assert.deepEqual([again.known, again.measured], [true, { timed: 0, profiled: 0 }]);
  assert.deepEqual([again.slow, again.facts, again.layers], [first.slow, first.facts, first.layers]);
  // Another graph of the same kernels is timed as a whole, and not profiled.
  const longer = twoParts();
  const { graph } = longer;
  const [tanh] = [...longer.nodes()].filter(({ opType }) => opType === "Tanh");
  const [spare] = graph.insertBefore(tanh!, { opType: "Tanh", inputs: [tanh!.inputs[0]], outputs: 1 }).outputs;
  tanh!.setInput(0, spare);
  const other = await search(longer, 1, opposite);
  assert.deepEqual([other.known, other.measured.profiled, other.measured.timed > 0], [false, 0, true]);
  assert.deepEqual(other.layers, first.layers);
  // What two threads take is another matter.
  assert.equal((await search(twoParts(), 2)).measured.profiled, 2);
});

test("profiles that name none of the model's kernels decide nothing: models are timed whole", async () => {
  const { facts, slow } = await found({ float: [], int8: [] }, { float: 2, int8: 1, mixed: 1 });
  assert.deepEqual([facts.basis, facts.chosen, slow], ["timed", "int8", []]);
});

test("onnxruntime's own profile names the layers of a model, in float and in 8 bits", async () => {
  const model = twoParts();
  const { feeds, calibration } = await seenOf(model);
  const { facts } = await findFasterKernels(model, calibration, OPTIONS, feeds, {
    ...{ latencyThreads: 1, table: USUAL_COSTS, openModel, profile: profileTemporary },
    time: async (contestants) => contestants.map(() => [1]),
  });
  assert.equal(facts.basis, "measured");
});

test("a session that was profiled goes on without the profiler, and a profile has the runs before", async () => {
  const model = twoParts();
  const { feeds } = await seenOf(model);
  const { text, session } = await profileTemporary(model, async (profiled) => void (await profiled.run(feeds)));
  const [first, second] = [await session.run(feeds), await session.run(feeds)];
  assert.deepEqual(first, second);
  await session.close();
  const runs = (JSON.parse(text) as { name: string }[]).filter(({ name }) => name === "model_run");
  assert.equal(runs.length, 1);
});

test("profiles of models that take long have fewer runs", async () => {
  const model = twoParts();
  const { feeds, calibration } = await seenOf(model);
  const counted: number[] = [];
  await findFasterKernels(model, calibration, OPTIONS, feeds, {
    ...{ latencyThreads: 1, table: USUAL_COSTS, openModel },
    time: async (contestants) => contestants.map(() => [1]),
    profile: async (profiled, use) => {
      const session = await openModel(profiled);
      let runs = 0;
      const slow = async (...of: Parameters<typeof session.run>) => {
        runs++;
        await setTimeout(counted.length === 0 ? 70 : 0);
        return session.run(...of);
      };
      await use({ ...session, run: slow });
      counted.push(runs);
      return { text: profileOf(profiled, () => 500), session };
    },
  });
  // The first is to warm up.
  assert.equal(counted[0], 3);
  assert.ok(counted[1]! >= 3 && counted[1]! <= 6);
});

test("layers that a job asks for are made as measured ones are, to the same bytes", async () => {
  const model = twoParts();
  const { calibration } = await seenOf(model);
  const names = [...model.nodes()].filter(({ opType }) => opType === "Conv").map(({ label }) => label);
  const [first] = names as [string];
  const made = (options: Partial<StaticOptions>) =>
    Buffer.from(modelToBytes(quantizeStatic(model, calibration, { ...OPTIONS, ...options }).model)).toString("base64");
  const why = { code: "slower", message: "", storesWeights: true } as const;
  const node = [...model.nodes()].find(({ label }) => label === first)!;
  assert.equal(
    made({ excludeNodes: layersAsked(model, { [first]: "int8_weights" }) }),
    made({ floatWhereSlower: { nodes: new Map([[node.name, why]]) } }),
  );
  const weightsOf = (layers: Parameters<typeof layersAsked>[1]) =>
    quantizeStatic(model, calibration, { ...OPTIONS, excludeNodes: layersAsked(model, layers) }).plan.weights;
  assert.deepEqual(
    Object.values(weightsOf({ [first]: "float32" }))
      .flatMap((forms) => forms.flatMap(({ nodes }) => nodes))
      .sort(),
    names.slice(1).sort(),
  );
});
