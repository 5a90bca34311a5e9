import assert from "node:assert/strict";
import { test } from "node:test";
import { deriveStudent } from "../../../src/core/distill/student.ts";
import { CoreError } from "../../../src/core/errors.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { elementCount, floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { meanSquaredError } from "../../../src/core/train/losses.ts";
import { samplesOf } from "../../../src/core/train/samples.ts";
import { estimateStatistics } from "../../../src/core/train/statistics.ts";
import { buildStepGraph, soloNetwork } from "../../../src/core/train/step-graph.ts";
import { createTrainable } from "../../../src/core/train/trainable.ts";
import { NetworkBuilder } from "../../support/networks.ts";

const wave = (dims: readonly number[], phase = 0.5) =>
  tensorOf(
    "float32",
    dims,
    Float32Array.from({ length: elementCount(dims) }, (_, i) => Math.sin(1.3 * i + phase)),
  );

/** A dense layer and a BatchNormalization of [n, 8]. */
function rows(): Model {
  const net = new NetworkBuilder(3);
  return net.output(net.linear(net.relu(net.batchNorm(net.linear(net.input(["n", 4]), 4, 8), 8)), 8, 2), ["n", 2]);
}

/** A convolution and a BatchNormalization of [n, 4, size, size], or of [n, 4, 1, 1] where it is pooled before. */
function maps(pooled: boolean): Model {
  const net = new NetworkBuilder(4);
  const made = net.conv(net.input(["n", 1, 4, 4]), 1, 4);
  const normal = net.batchNorm(pooled ? net.g.op("GlobalAveragePool", [made]) : made, 4);
  return net.output(net.linear(net.globalAverage(net.relu(normal)), 4, 2), ["n", 2]);
}

const stepOf = (model: Model, shape: readonly number[]) =>
  buildStepGraph([soloNetwork(createTrainable(model))], {
    batch: { feeds: { x: wave(shape) }, targets: { t: wave([shape[0]!, 2]) } },
    objective: ({ g, value, target }) => [
      { name: "mse", weight: 1, value: meanSquaredError(g, value("logits"), target("t")) },
    ],
    seed: 0,
    openSession,
  });

test("a batch of one value for each channel has no variance, and is refused with the node", async () => {
  for (const [model, shape, seen] of [
    [rows(), [1, 4], "[1, 8]"],
    [maps(true), [1, 1, 4, 4], "[1, 4, 1, 1]"],
  ] as const) {
    await assert.rejects(stepOf(model, shape), (error) => {
      assert.ok(error instanceof CoreError && error.code === "invalid_params", String(error));
      const node = model.graph.nodes.find(({ opType }) => opType === "BatchNormalization")!;
      assert.equal(error.subject, node.label);
      assert.ok(error.message.includes(seen) && error.message.includes("2 samples or more"), error.message);
      assert.deepEqual(error.path, ["training", "batch_size"]);
      return true;
    });
  }
  for (const [model, shape] of [
    [rows(), [2, 4]],
    [maps(true), [2, 1, 4, 4]],
    [maps(false), [1, 1, 4, 4]],
  ] as const) {
    await stepOf(model, shape);
  }
});

const statisticsOf = (model: Model) => {
  const [, , , mean, variance] = model.graph.nodes.find(({ opType }) => opType === "BatchNormalization")!.inputs;
  return { mean: [...floatsOf(mean!.constant!)], variance: [...floatsOf(variance!.constant!)] };
};

test("statistics that one sample cannot tell stay as they were", async () => {
  const options = { openSession, threads: 1 };
  assert.deepEqual(
    statisticsOf(await estimateStatistics(rows(), [{ x: wave([1, 4]) }], options)),
    statisticsOf(rows()),
  );
  const told = statisticsOf(await estimateStatistics(maps(false), [{ x: wave([1, 1, 4, 4]) }], options));
  assert.notDeepEqual(told, statisticsOf(maps(false)));
});

test("a channel that is always the same has statistics like the others", async () => {
  const net = new NetworkBuilder(6);
  const model = net.output(net.batchNorm(net.input(["n", 2]), 2), ["n", 2]);
  const x = tensorOf("float32", [4, 2], [7, 1, 7, 2, 7, 3, 7, 6]);
  const { mean, variance } = statisticsOf(await estimateStatistics(model, [{ x }], { openSession, threads: 1 }));
  assert.deepEqual(
    [mean, variance],
    [
      [7, 3],
      [0, 3.5],
    ],
  );
});

test("a student is not derived with a batch of the one sample that is left over", async () => {
  const net = new NetworkBuilder(5);
  const hidden = net.relu(net.batchNorm(net.linear(net.input(["n", 4]), 4, 8), 8));
  const teacher = net.output(net.linear(net.relu(net.linear(hidden, 8, 8)), 8, 2), ["n", 2]);
  const variance = async (count: number) => {
    const samples = samplesOf({ x: wave([count, 4]) });
    const derived = await deriveStudent(teacher, { width: 0.5 }, { samples, openSession, threads: 1 });
    return statisticsOf(derived.model).variance;
  };
  // 33 samples are one more than a batch: a batch of that one would halve the variance, where one sample more changes it by less than a fifth.
  const [whole, more] = [await variance(32), await variance(33)];
  for (const [i, own] of more.entries()) assert.ok(Math.abs(own / whole[i]! - 1) < 0.2, `${own} and ${whole[i]}`);
});
