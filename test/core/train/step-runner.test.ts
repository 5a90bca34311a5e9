import assert from "node:assert/strict";
import { test } from "node:test";
import { GraphBuilder, int } from "../../../src/core/onnx/graph-builder.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { floatsOf, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { Random } from "../../../src/core/random.ts";
import { openSession, type SessionOptions } from "../../../src/core/runtime/session.ts";
import { crossEntropy } from "../../../src/core/train/losses.ts";
import type { SampleBatch } from "../../../src/core/train/samples.ts";
import { batchFeeds, buildStepGraph, type Objective, soloNetwork } from "../../../src/core/train/step-graph.ts";
import { openStep } from "../../../src/core/train/step-runner.ts";
import { createTrainable } from "../../../src/core/train/trainable.ts";
import { cnn, imageTransformer, mlp, smallStudent } from "../../support/networks.ts";

const CLASSES = 10;

function images(samples: number): SampleBatch {
  const random = new Random(3, "parts");
  const data = new Float32Array(samples * 784);
  random.fillNormal(data);
  const labels = BigInt64Array.from({ length: samples }, () => BigInt(random.integer(CLASSES)));
  return {
    feeds: { x: tensorOf("float32", [samples, 1, 28, 28], data) },
    targets: { labels: tensorOf("int64", [samples], labels) },
  };
}

const onLabels: Objective = ({ g, value, target }) => [
  { name: "label", weight: 0.5, value: crossEntropy(g, value("logits"), target("labels")), overSamples: true },
];

interface Opened {
  readonly options: SessionOptions;
  open: boolean;
}

/** The step of a network, the sessions that are open for it, and the same step in one session. */
async function stepOf(model: Model, { samples = 32, threads = 2, objective = onLabels } = {}) {
  const trainable = createTrainable(model);
  const batch = images(samples);
  const rebuild = (part: SampleBatch) =>
    buildStepGraph([soloNetwork(trainable)], { batch: part, objective, seed: 1, openSession });
  const graph = await rebuild(batch);
  const opened: Opened[] = [];
  const runner = await openStep(graph, {
    threads,
    batch,
    rebuild,
    async openSession(source, options = {}) {
      const session = await openSession(source, options);
      const entry: Opened = { options, open: true };
      opened.push(entry);
      const close = async () => {
        entry.open = false;
        await session.close();
      };
      return { inputs: session.inputs, outputs: session.outputs, run: session.run.bind(session), close };
    },
  });
  const feeds = { ...graph.feeds, ...batchFeeds(batch) };
  return { graph, runner, feeds, sessions: opened.filter(({ open }) => open).map(({ options }) => options) };
}

async function inOneSession(graph: { readonly model: Uint8Array }, feeds: Readonly<Record<string, Tensor>>) {
  const session = await openSession({ bytes: graph.model }, { threads: 1 });
  try {
    return await session.run(feeds);
  } finally {
    await session.close();
  }
}

/** |a − b| in units of the largest |a|. */
function difference(a: Float32Array, b: Float32Array): number {
  assert.equal(a.length, b.length);
  const largest = a.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0) / largest;
}

/** The same with the weight 1: the loss and its only term are one output. */
const byLabels: Objective = (context) => onLabels(context).map((term) => ({ ...term, weight: 1 }));

// The last two compute parts one after the other: the first layer's values of one would be larger than 8 MiB.
for (const [threads, samples, objective] of [
  [2, 32, onLabels],
  [2, 32, byLabels],
  [4, 32, onLabels],
  [1, 1024, byLabels],
  [2, 2048, onLabels],
] as const) {
  test(`${threads} threads give the losses, gradients and squares of a whole batch of ${samples} (${objective.name})`, async () => {
    const { graph, runner, feeds, sessions } = await stepOf(smallStudent(), { threads, samples, objective });
    try {
      assert.deepEqual(
        sessions.map(({ threads: count, ownThread = false }) => [count, ownThread]),
        Array.from({ length: threads }, (_, i) => [1, i < threads - 1]),
      );
      const expected = await inOneSession(graph, feeds);
      const actual = await runner.run(feeds);
      for (const name of [graph.loss, ...graph.terms.map(({ output }) => output)]) {
        assert.ok(difference(floatsOf(expected[name]!), floatsOf(actual[name]!)) < 1e-6, name);
      }
      for (const { name, gradient } of graph.parameters) {
        assert.deepEqual(actual[gradient!]!.dims, expected[gradient!]!.dims);
        // Sums over samples in another order: a few units in the last place.
        assert.ok(difference(floatsOf(expected[gradient!]!), floatsOf(actual[gradient!]!)) < 5e-6, name);
      }
      assert.ok(difference(floatsOf(expected[graph.squares]!), floatsOf(actual[graph.squares]!)) < 1e-5);
    } finally {
      await runner.close();
    }
  });
}

test("parts read the parameters as they are, and give the same bytes every time", async () => {
  const model = imageTransformer({ layers: 1, width: 16, heads: 2, length: 28, classes: CLASSES });
  const { graph, runner, feeds, sessions } = await stepOf(model);
  const bytes = async () => {
    const results = await runner.run(feeds);
    return graph.parameters.map(({ gradient }) => Buffer.from(results[gradient!]!.bytes).toString("base64"));
  };
  try {
    assert.equal(sessions.length, 2);
    const first = await bytes();
    assert.deepEqual(await bytes(), first);
    for (const { parameter } of graph.parameters) parameter.data[0]! += 0.5;
    const moved = await bytes();
    assert.notDeepEqual(moved, first);
    const expected = await inOneSession(graph, feeds);
    const actual = await runner.run(feeds);
    const { gradient } = graph.parameters.at(-1)!;
    assert.ok(difference(floatsOf(expected[gradient!]!), floatsOf(actual[gradient!]!)) < 5e-6);
  } finally {
    await runner.close();
  }
});

/** Centres every image by the mean of the batch: a sample is no longer by itself, which no operator says. */
function centredByBatch(): Model {
  const model = smallStudent();
  const [first] = model.graph.nodes;
  const x = first!.inputs[0]!;
  const g = new GraphBuilder(model.graph);
  const centred = g.before(first!, () => g.sub(x, g.op("ReduceMean", [x, g.shape([0])], { keepdims: int(1) })));
  first!.setInput(0, centred);
  return model;
}

/** Takes batches of 32 only. */
function ofOneSize(): Model {
  const model = smallStudent();
  const gemm = model.graph.nodes.find(({ opType }) => opType === "Gemm")!;
  const g = new GraphBuilder(model.graph);
  const rows = gemm.inputs[0]!;
  gemm.setInput(
    0,
    g.before(gemm, () => g.reshape(rows, [32, 24 * 49])),
  );
  return model;
}

const WHOLE: readonly (readonly [string, () => Model, Parameters<typeof stepOf>[1]])[] = [
  ["one thread", smallStudent, { threads: 1 }],
  ["a batch that cannot be divided", smallStudent, { samples: 33 }],
  ["parts of few samples", smallStudent, { samples: 14 }],
  ["statistics of the batch", () => cnn([4, 4], 8), {}],
  ["more parameters than work", () => mlp([784, 512, 10]), {}],
  ["a network that mixes samples", centredByBatch, {}],
  ["a network for one size of batch", ofOneSize, {}],
  [
    "a loss that does not say that it is a mean over samples",
    smallStudent,
    { objective: (context) => onLabels(context).map(({ overSamples: _, ...term }) => term) },
  ],
  [
    "a parameter of the loss",
    smallStudent,
    {
      objective: (context) => {
        const { g, value, parameter } = context;
        const product = g.matMul(value("logits"), parameter("w", [CLASSES, 1], CLASSES));
        return [{ name: "own", weight: 1, value: g.meanAll(g.square(product)), overSamples: true }];
      },
    },
  ],
];

for (const [what, model, options] of WHOLE) {
  test(`a step stays in one session: ${what}`, async () => {
    const { graph, runner, feeds, sessions } = await stepOf(model(), options);
    try {
      assert.deepEqual(sessions, [{ threads: options?.threads ?? 2, transientOutputs: true }]);
      const results = await runner.run({
        ...feeds,
        ...Object.assign({}, ...graph.parts.map((part) => part.feeds?.(0))),
      });
      assert.ok(Number.isFinite(floatsOf(results[graph.loss]!)[0]!));
    } finally {
      await runner.close();
    }
  });
}
