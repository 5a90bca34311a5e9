import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { arrayOf, floatsOf, tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { checkInvariants } from "../../../../src/core/passes/pass.ts";
import { exposeValues, type Feeds, observe } from "../../../../src/core/quantize/calibration/calibrate.ts";
import {
  ActivationObserver,
  activationRange,
  ChannelObserver,
  type Observer,
} from "../../../../src/core/quantize/calibration/observers.ts";
import { branches, cnn, GraphMaker, loop, randomFeeds } from "../../../support/graphs.ts";
import { openModel, runModel } from "../../../support/open-model.ts";

/** Keeps everything it is shown. */
class Recorder implements Observer {
  readonly values: number[] = [];
  readonly dims: (readonly number[])[] = [];
  observe(values: Float32Array, dims: readonly number[]): void {
    this.values.push(...values);
    this.dims.push(dims);
  }
}

async function* streamOf(...batches: readonly Feeds[]): AsyncGenerator<Feeds> {
  yield* batches;
}

function recorders(model: Model, opType: string): Map<string, Recorder> {
  const names = [...model.nodes()].filter((node) => node.opType === opType).map((node) => node.outputs[0]!.name);
  return new Map(names.map((name) => [name, new Recorder()]));
}

test("observers see exactly what the model computes, for any batch size and spatial size", async () => {
  const model = cnn();
  const observers = recorders(model, "Conv");
  observers.set("x", new Recorder());
  const feeds = [
    randomFeeds(model, { seed: 1, dims: { n: 1 } }),
    randomFeeds(model, { seed: 2, dims: { n: 3 } }),
    randomFeeds(model, { seed: 3, dims: { n: 2 } }),
  ];
  const copy = model.clone();
  const expected = new Map([...observers.keys()].map((name) => [name, [] as number[]]));
  for (const node of copy.nodes()) if (expected.has(node.outputs[0]!.name)) copy.graph.addOutput(node.outputs[0]!);
  for (const batch of feeds) {
    const results = { ...(await runModel(copy, batch, { optimization: "disabled" })), ...batch };
    for (const [name, values] of expected) values.push(...floatsOf(results[name]!));
  }
  assert.ok(observers.size > 2);
  assert.equal(await observe(model, observers, streamOf(...feeds), { openModel }), 3);
  for (const [name, { values }] of observers) {
    assert.equal(values.length, expected.get(name)!.length);
    values.forEach((value, i) => {
      assert.ok(Math.abs(value - expected.get(name)![i]!) < 1e-5, name);
    });
  }
});

test("a small budget means more runs and the same observations", async () => {
  const model = cnn();
  const feeds = [randomFeeds(model, { seed: 1 }), randomFeeds(model, { seed: 2 })];
  const whole = recorders(model, "Conv");
  const split = recorders(model, "Conv");
  const runs: number[] = [];
  await observe(model, whole, streamOf(...feeds), { openModel });
  await observe(model, split, streamOf(...feeds), {
    maxTapBytes: 1,
    openModel: async (copy, options) => {
      const session = await openModel(copy, options);
      return {
        ...session,
        run: (batch, outputs, signal) => {
          runs.push(outputs!.length);
          return session.run(batch, outputs, signal);
        },
        close: () => session.close(),
      };
    },
  });
  // Sizes are not known before the first batch; from then on each run is within the budget.
  assert.deepEqual(runs, [split.size, ...Array(split.size).fill(1)]);
  assert.deepEqual(split, whole);
});

test("values in the branch that is taken are observed, those in the other are not", async () => {
  const model = branches();
  const bodies = [...model.nodes()].find((node) => node.opType === "If")!.bodies();
  const [taken, untaken] = bodies.map((body) => body.nodes.find((node) => node.opType === "MatMul")!.outputs[0]!.name);
  const observers = new Map([
    [taken!, new Recorder()],
    [untaken!, new Recorder()],
  ]);
  const feeds = { ...randomFeeds(model, { dims: { n: 5 } }), condition: tensorOf("bool", [], [1]) };
  await observe(model, observers, streamOf(feeds), { openModel });
  assert.deepEqual(observers.get(taken!)!.dims, [[5, 32]]);
  assert.equal(observers.get(untaken!)!.values.length, 0);
});

test("values of a Loop's body, loop-carried ones included, are observed in every iteration", async () => {
  const model = loop({ steps: 4 });
  const body = [...model.nodes()].find((node) => node.opType === "Loop")!.bodies()[0]!;
  const tanh = body.nodes.find((node) => node.opType === "Tanh")!.outputs[0]!.name;
  const observers = new Map([
    [tanh, new Recorder()],
    ["state", new Recorder()],
  ]);
  const feeds = randomFeeds(model, { dims: { n: 2 } });
  const outputs = await runModel(model, feeds);
  await observe(model, observers, streamOf(feeds), { openModel });
  const states = [...floatsOf(outputs.states!)];
  assert.deepEqual(observers.get(tanh)!.values, states);
  assert.deepEqual(observers.get("state")!.values, [...floatsOf(feeds.x!), ...states.slice(0, -32)]);
});

test("values of an If inside a Loop come out through both", async () => {
  const make = new GraphMaker();
  const x = make.input("x", [2, 4]);
  const body = make.body();
  const iteration = body.input("iteration", [], "int64");
  const going = body.input("going", [], "bool");
  const state = body.input("state", [2, 4]);
  const branch = (opType: string, name: string) => {
    const inner = body.body();
    inner.output(inner.op(opType, [state]), name);
    return inner.graph;
  };
  const isFirst = body.op("Equal", [iteration, body.ints("zero", [0], [])]);
  const y = body.op("If", [isFirst], { then_branch: branch("Exp", "then_y"), else_branch: branch("Neg", "else_y") });
  body.output(body.op("Identity", [going]), "going_out", [], "bool");
  body.output(y, "state_out");
  make.output(make.op("Loop", [make.ints("trips", [2], []), undefined, x], { body: body.graph }), "y", [2, 4]);
  const observers = new Map([["y_of_if", new Recorder()]]);
  y.name = "y_of_if";
  const feeds = randomFeeds(make.model);
  await observe(make.model, observers, streamOf(feeds), { openModel });
  const expected = [...floatsOf(feeds.x!)].map((value) => Math.fround(Math.exp(value)));
  observers.get("y_of_if")!.values.forEach((value, i) => {
    assert.ok(Math.abs(value - (i < 8 ? expected[i]! : -expected[i - 8]!)) < 1e-6);
  });
  assert.equal(observers.get("y_of_if")!.values.length, 16);
});

test("values of Ifs in Ifs come out through all of them, integers too", async () => {
  const make = new GraphMaker();
  const x = make.input("x", [2, 4]);
  const condition = make.input("condition", [], "bool");
  const body = make.body();
  const deep = (opType: string, name: string) => {
    const inner = body.body();
    inner.output(inner.op("Neg", [inner.op(opType, [x])]), name);
    return inner.graph;
  };
  const y = body.op("If", [condition], { then_branch: deep("Exp", "then_y"), else_branch: deep("Abs", "else_y") });
  y.name = "y_of_inner_if";
  // The result of the inner If is that of the branch too: it must stay so when that If gives out more.
  body.output(y, "y_of_outer_if");
  const sizes = body.op("Shape", [x]);
  const other = make.body();
  other.output(other.op("Identity", [x]), "x_again");
  make.output(make.op("If", [condition], { then_branch: body.graph, else_branch: other.graph }), "y", [2, 4]);
  const exp = [...make.model.nodes()].find(({ opType }) => opType === "Exp")!.outputs[0]!;
  const { model, outputs } = exposeValues(make.model, [exp.name, y.name, sizes.name]);
  checkInvariants(model, "giving out values");
  const feeds: Feeds = { ...randomFeeds(make.model), condition: tensorOf("bool", [], [1]) };
  const results = await runModel(model, feeds);
  const expected = [...floatsOf(feeds.x!)].map((value) => Math.exp(value));
  const close = (name: string, sign: number) =>
    floatsOf(results[name]!).forEach((value, i) => {
      assert.ok(Math.abs(value - sign * expected[i]!) < 1e-5);
    });
  close(outputs.get(exp.name)!, 1);
  close(outputs.get(y.name)!, -1);
  close("y", -1);
  assert.deepEqual([...arrayOf(results[outputs.get(sizes.name)!]!, "int64")], [2n, 4n]);
});

test("cancelling stops between runs", async () => {
  const model = cnn();
  const controller = new AbortController();
  const endless = async function* () {
    for (;;) yield randomFeeds(model);
  };
  const work = observe(model, recorders(model, "Conv"), endless(), {
    openModel,
    signal: controller.signal,
    onBatch: (batches) => {
      if (batches === 2) controller.abort();
    },
  });
  await assert.rejects(work, { code: "cancelled" });
});

test("channel statistics are exact along any axis", () => {
  const values = Float32Array.from({ length: 2 * 3 * 4 }, (_, i) => ((i * 7) % 11) - 5);
  for (const [axis, channelOf] of [
    [0, (i: number) => Math.floor(i / 12)],
    [1, (i: number) => Math.floor(i / 4) % 3],
    [-1, (i: number) => i % 4],
  ] as const) {
    const observer = new ChannelObserver(axis);
    observer.observe(values, [2, 3, 4]);
    observer.observe(values, [2, 3, 4]);
    for (let c = 0; c < observer.channels; c++) {
      const mine = [...values].filter((_, i) => channelOf(i) === c);
      assert.equal(observer.min[c], Math.min(...mine));
      assert.equal(observer.max[c], Math.max(...mine));
      assert.equal(observer.magnitudes()[c], Math.max(...mine.map(Math.abs)));
      assert.ok(Math.abs(observer.meanSquares()[c]! - mine.reduce((a, b) => a + b * b, 0) / mine.length) < 1e-12);
    }
    assert.equal(observer.count, (2 * values.length) / observer.channels);
  }
});

test("the moving average follows the batches' own ranges without a pull towards zero", () => {
  const observer = new ActivationObserver();
  const options = { steps: 255, percentile: 99.99 };
  observer.observe(Float32Array.of(-1, 2));
  assert.ok(Math.abs(activationRange(observer, "moving_average", options).max - 2) < 1e-12);
  observer.observe(Float32Array.of(-3, 4));
  const { min, max } = activationRange(observer, "moving_average", options);
  // Weights 0.09 and 0.1 of 0.19.
  assert.ok(Math.abs(min - (-1 * 0.09 + -3 * 0.1) / 0.19) < 1e-12);
  assert.ok(Math.abs(max - (2 * 0.09 + 4 * 0.1) / 0.19) < 1e-12);
  assert.deepEqual(activationRange(observer, "minmax", options), { min: -3, max: 4 });
});
