import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { runsOfAxes } from "../../../src/core/distill/channel-labels.ts";
import { dropLayers, evenlySpaced } from "../../../src/core/distill/drop-layers.ts";
import { slimWidth } from "../../../src/core/distill/slim.ts";
import { type Derivation, deriveStudent } from "../../../src/core/distill/student.ts";
import { CoreError } from "../../../src/core/errors.ts";
import type { Model, Value } from "../../../src/core/onnx/ir.ts";
import { floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { estimateStatistics } from "../../../src/core/train/statistics.ts";
import { halves, NetworkBuilder, resNet18 } from "../../support/networks.ts";
import { encoder, outputs, tokens } from "../../support/students.ts";

const options = { openSession, threads: 1 };

test("blocks are kept evenly spaced, the first and the last among them", () => {
  assert.deepEqual(evenlySpaced(12, 6), [0, 2, 4, 7, 9, 11]);
  assert.deepEqual(evenlySpaced(6, 2), [0, 5]);
  assert.deepEqual(evenlySpaced(4, 1), [0]);
  assert.deepEqual(evenlySpaced(3, 5), [0, 1, 2]);
});

describe("leaving out layers", () => {
  test("a transformer of six layers becomes one of three: the first, the fourth and the last", async () => {
    const teacher = encoder(6);
    const { model, runs } = dropLayers(teacher, 0.5);
    assert.deepEqual(
      runs.map(({ blocks, kept }) => [blocks, kept]),
      [[6, [0, 3, 5]]],
    );
    const shallow = encoder(3);
    const kinds = (of: Model) => of.graph.nodes.map(({ opType }) => opType);
    assert.deepEqual(kinds(model), kinds(shallow));
    // Kept layers have the teacher's weights: a network of three layers that is given these computes the same.
    const weights = new Map([...teacher.graph.initializers].map((value) => [value.name, value]));
    const names = [...shallow.graph.initializers].map(({ name }) => name);
    const kept = [...model.graph.initializers].map(({ name }) => name);
    assert.equal(kept.length, names.length);
    assert.ok(kept.every((name) => weights.has(name)));
    const [before, after] = [await outputs(teacher, { tokens }), await outputs(model, { tokens })];
    assert.equal(after.length, before.length);
    assert.notDeepEqual(after, before);
  });

  test("the stages of a residual network lose blocks each on its own", async () => {
    const teacher = resNet18({ size: 16, classes: 4, width: 8 });
    // As training leaves them: every layer has statistics of its own.
    for (const [i, { name, constant }] of [...teacher.graph.initializers].entries()) {
      if (name.endsWith("running_mean")) floatsOf(constant!).fill(i / 10);
    }
    const { model, runs } = dropLayers(teacher, 0.5);
    // Blocks that change the width repeat nothing; the two of the first stage are alike.
    assert.deepEqual(
      runs.map(({ blocks, kept }) => [blocks, kept]),
      [[2, [0]]],
    );
    const x = tensorOf("float32", [1, 3, 16, 16], new Float32Array(768).fill(0.5));
    assert.equal((await outputs(model, { x })).length, 4);
  });

  test("a network without repeats is refused", () => {
    const net = new NetworkBuilder();
    const model = net.output(net.linear(net.relu(net.linear(net.input(["n", 4]), 4, 8)), 8, 2), ["n", 2]);
    assert.throws(
      () => dropLayers(model, 0.5),
      (error) => error instanceof CoreError && error.code === "unsupported",
    );
  });
});

describe("blocks repeat where they compute the same with other weights", () => {
  /** Four layers of one width, each followed by what `behind` adds; the value behind the second may be an output as well. */
  function layers(behind: (net: NetworkBuilder, x: Value, layer: number) => Value, hasMiddle = false): Model {
    const net = new NetworkBuilder(3);
    let x = net.relu(net.linear(net.input(["n", 6]), 6, 8));
    for (let layer = 0; layer < 4; layer++) {
      x = behind(net, net.relu(net.linear(x, 8, 8)), layer);
      if (hasMiddle && layer === 1) {
        x.name = "middle";
        x.retype("float32", ["n", 8]);
        net.model.graph.addOutput(x);
      }
    }
    return net.output(net.linear(x, 8, 3), ["n", 3]);
  }
  const same = (_: NetworkBuilder, x: Value) => x;
  const blocksOf = (model: Model) => dropLayers(model, 0.5).runs.map(({ blocks }) => blocks);
  const feeds = {
    x: tensorOf(
      "float32",
      [2, 6],
      Float32Array.from({ length: 12 }, (_, i) => Math.sin(i)),
    ),
  };

  test("numbers in attributes count, whatever form they have", () => {
    assert.deepEqual(blocksOf(layers(same)), [4]);
    const filled = (value: (layer: number) => number) =>
      layers((net, x, layer) => {
        const fill = { type: "tensor", value: tensorOf("float32", [1], [value(layer)]) } as const;
        return net.g.add(x, net.g.op("ConstantOfShape", [net.g.op("Shape", [x])], { value: fill }));
      });
    assert.deepEqual(blocksOf(filled(() => 2)), [4]);
    assert.throws(() => blocksOf(filled((layer) => layer)), { code: "unsupported" });
    assert.deepEqual(blocksOf(filled((layer) => Math.floor(layer / 2))), [2, 2]);
  });

  test("what is an output in the middle is computed as before by what is left in front of it", async () => {
    const model = layers(same, true);
    const { model: student, runs } = dropLayers(model, 0.5);
    for (const { boundaries } of runs) assert.ok(!boundaries.slice(1, -1).includes("middle"), String(boundaries));
    const names = student.graph.outputs.map(({ name }) => name);
    assert.deepEqual(names, ["middle", "logits"]);
    assert.ok((await outputs(student, feeds)).every(Number.isFinite));
  });
});

test("a model with a value that has no shape is refused, with its name", async () => {
  const net = new NetworkBuilder(8);
  const x = net.linear(net.g.op("Flatten", [net.input(["n", 1, 8, 8])]), 64, 8);
  const parts = net.g.op("SequenceConstruct", [x, x]);
  const first = net.g.op("SequenceAt", [parts, net.g.constant("int64", [], [0])]);
  const model = net.output(net.linear(first, 8, 3), ["n", 3]);
  await assert.rejects(
    slimWidth(model, { fraction: 0.5, feeds: halves(2, 2).gather([0, 1]).feeds, openSession }),
    (error) => error instanceof CoreError && error.code === "unsupported" && error.subject === parts.name,
  );
});

test("shapes are cut into the shortest runs of equal size", () => {
  const text = (from: number[], to: number[]) =>
    runsOfAxes(from, to)
      .map((run) => `${run.from}>${run.to}`)
      .join(" ");
  assert.equal(text([2, 3, 4, 5], [2, 60]), "0>0 1,2,3>1");
  assert.equal(text([2, 6, 32], [2, 6, 4, 8]), "0>0 1>1 2>2,3");
  assert.equal(text([4, 6], [6, 4]), "0,1>0,1");
  assert.equal(text([1, 3, 1], [3]), "1>0");
});

test("a student normalises by what it sees itself, not by what its teacher saw", async () => {
  const net = new NetworkBuilder(3);
  let x = net.relu(net.batchNorm(net.conv(net.input(["n", 1, 8, 8]), 1, 8), 8));
  x = net.relu(net.batchNorm(net.conv(x, 8, 8), 8));
  const teacher = net.output(net.linear(net.globalAverage(x), 8, 4), ["n", 4]);
  const samples = halves(64, 2);
  const { model } = await deriveStudent(teacher, { width: 0.5 }, { ...options, samples });

  // The mean over two batches of 32 of the mean and the variance of each channel that the first convolution makes.
  const probe = model.clone();
  const made = probe.graph.nodes.find(({ opType }) => opType === "Conv")!.outputs[0]!;
  for (const value of [...probe.graph.outputs]) probe.graph.removeOutput(value);
  probe.graph.addOutput(made);
  const expected = { mean: [0, 0, 0, 0], variance: [0, 0, 0, 0] };
  for (const start of [0, 32]) {
    const values = await outputs(probe, samples.gather(Array.from({ length: 32 }, (_, i) => start + i)).feeds);
    for (let channel = 0; channel < 4; channel++) {
      const own = values.filter((_, i) => Math.floor(i / 64) % 4 === channel);
      const mean = own.reduce((sum, value) => sum + value, 0) / own.length;
      expected.mean[channel]! += mean / 2;
      expected.variance[channel]! += own.reduce((sum, value) => sum + (value - mean) ** 2, 0) / own.length / 2;
    }
  }
  const [, , , mean, variance] = model.graph.nodes.find(({ opType }) => opType === "BatchNormalization")!.inputs;
  for (const [value, wanted] of [[mean, expected.mean] as const, [variance, expected.variance] as const]) {
    for (const [i, own] of floatsOf(value!.constant!).entries()) assert.ok(Math.abs(own - wanted[i]!) < 1e-5, `${own}`);
  }

  const plain = encoder(2);
  assert.equal(await estimateStatistics(plain, [{ tokens }], options), plain, "nothing to estimate");
});

test("a share must be between 0 and 1", async () => {
  for (const derivation of [
    { rank: 0 },
    { keepLayers: 1 },
    { width: 2 },
    { rank: Number.NaN },
  ] satisfies Derivation[]) {
    await assert.rejects(
      deriveStudent(encoder(2), derivation, { ...options, samples: halves(4, 1) }),
      (error) => error instanceof CoreError && error.code === "invalid_params",
    );
  }
});
