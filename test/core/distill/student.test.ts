import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { runsOfAxes } from "../../../src/core/distill/channel-labels.ts";
import { dropLayers, evenlySpaced } from "../../../src/core/distill/drop-layers.ts";
import { symmetricEigen } from "../../../src/core/distill/eigen.ts";
import { factorizeLayers } from "../../../src/core/distill/factorize.ts";
import { slimWidth } from "../../../src/core/distill/slim.ts";
import { type Derivation, deriveStudent, parameterCount } from "../../../src/core/distill/student.ts";
import { CoreError } from "../../../src/core/errors.ts";
import { int, ints } from "../../../src/core/onnx/graph-builder.ts";
import type { Model, Value } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { floatsOf, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { checkInvariants } from "../../../src/core/passes/pass.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { samplesOf } from "../../../src/core/train/samples.ts";
import { estimateStatistics } from "../../../src/core/train/statistics.ts";
import { createTrainable } from "../../../src/core/train/trainable.ts";
import { halves, NetworkBuilder, resNet18, transformer } from "../../support/networks.ts";
import { assertRecorded } from "../../support/recorded.ts";

const options = { openSession, threads: 1 };
const encoder = (layers: number) =>
  transformer({ layers, width: 16, heads: 2, length: 6, vocabulary: 20, classes: 3, seed: 5 });
const tokens = tensorOf("int64", [2, 6], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);

async function outputs(model: Model, feeds: Record<string, Tensor>): Promise<number[]> {
  checkInvariants(model, "test");
  const session = await openSession({ bytes: modelToBytes(loadModel(modelToBytes(model))) });
  const results = await session.run(feeds);
  await session.close();
  return [...floatsOf(Object.values(results)[0]!)];
}

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

describe("factorizing layers", () => {
  /** A dense layer of rank 5 between two others, and a convolution of rank 3 before them. */
  function lowRank(): Model {
    const net = new NetworkBuilder(2);
    let x = net.relu(net.conv(net.input(["n", 1, 8, 8]), 1, 16, { bias: true }));
    x = net.relu(net.conv(x, 16, 24, { stride: 2, bias: true }));
    x = net.relu(net.linear(net.g.op("Flatten", [x]), 24 * 16, 32));
    const model = net.output(net.linear(net.g.op("Tanh", [net.linear(x, 32, 40, true)]), 40, 4), ["n", 4]);
    const rankOf: Record<string, number> = { "conv1.weight": 3, "fc2.weight": 5, "fc3.weight": 4 };
    for (const value of model.graph.initializers) {
      const rank = rankOf[value.name];
      if (rank === undefined) continue;
      const data = floatsOf(value.constant!);
      const columns = data.length / value.constant!.dims[0]!;
      // Every row is one of `rank` rows, scaled.
      for (let i = 0; i < data.length; i++) {
        const row = Math.floor(i / columns);
        data[i] = data[(row % rank) * columns + (i % columns)]! * (row < rank ? 1 : 0.5 + (row % 7) / 10);
      }
    }
    return model;
  }

  for (const samples of [undefined, halves(64, 3)]) {
    test(`layers of low rank are replaced without loss, ${samples ? "by their outputs" : "by their weights"}`, async () => {
      const teacher = lowRank();
      const batches = samples && [samples.gather([...Array(64).keys()]).feeds];
      const { model, layers } = await factorizeLayers(teacher, { ...options, fraction: 0.6, batches });
      const changed = layers!.filter(({ rank }) => rank !== null);
      assert.deepEqual(
        changed.map(({ op }) => op),
        ["Conv", "Gemm", "MatMul"],
      );
      for (const { energy } of changed) assert.ok(energy! > 1 - 1e-5, String(energy));
      assert.equal(parameterCount(model), 10_228);
      // Nothing is left of what was replaced.
      for (const value of model.graph.initializers) assert.ok(value.uses.length > 0, value.name);
      const { feeds } = halves(8, 9).gather([0, 1, 2, 3, 4, 5, 6, 7]);
      const [before, after] = [await outputs(teacher, feeds), await outputs(model, feeds)];
      const scale = Math.max(...before.map(Math.abs));
      assert.ok(before.every((x, i) => Math.abs(x - after[i]!) < 1e-4 * scale));
      assert.deepEqual(
        layers!.filter(({ rank }) => rank === null).map(({ reason }) => reason),
        ["it is too narrow", "it is too narrow"],
      );
      assert.ok(createTrainable(model).parameters.length > createTrainable(teacher).parameters.length);
    });
  }

  test("of its structure alone a student is made without data, without eigenvectors and without running anything", async () => {
    const teacher = lowRank();
    const openSession = () => assert.fail("a session was opened");
    const planned = await factorizeLayers(teacher, { ...options, fraction: 0.6, openSession, structureOnly: true });
    const batches = [halves(8, 3).gather([0, 1, 2, 3, 4, 5, 6, 7]).feeds];
    const real = await factorizeLayers(teacher, { ...options, fraction: 0.6, batches });
    assert.deepEqual(
      planned.layers,
      real.layers.map((layer) => ({ ...layer, energy: null })),
    );
    const sizes = (model: Model) => [...model.graph.initializers].map(({ name, shape }) => [name, shape]);
    assert.deepEqual(sizes(planned.model), sizes(real.model));
  });

  test("a transformer's width and rank are planned in seconds", async () => {
    const model = transformer({ layers: 2, width: 768, heads: 12, length: 8, classes: 2, vocabulary: 100 });
    const samples = samplesOf({ tokens: tensorOf("int64", [2, 8], new BigInt64Array(16)) });
    const before = process.cpuUsage();
    const rank = await deriveStudent(model, { rank: 0.5 }, { ...options, samples, structureOnly: true });
    const width = await deriveStudent(model, { width: 0.5 }, { ...options, samples, structureOnly: true });
    const { user } = process.cpuUsage(before);
    assert.ok(user < 5e6, `${user / 1e6} s`);
    // Of every layer half of the weights, whichever of its sides is the smaller.
    const share = rank.parameters.student / rank.parameters.teacher;
    assertRecorded(share, 0.5035, 0.0005);
    assert.equal(width.parameters.student, 3_591_938);
  });

  test("a layer with more outputs than inputs has the factors that its outputs' covariance gives", async () => {
    const { feeds } = halves(256, 5).gather([...Array(256).keys()]);
    for (const stacked of [true, false]) {
      const net = new NetworkBuilder(7);
      const wide = net.linear(net.g.op("Flatten", [net.input(["n", 1, 8, 8])]), 64, 160, stacked);
      const model = net.output(net.linear(wide, 160, 2), ["n", 2]);
      const inner = [...model.graph.nodes].find(({ inputs }) => inputs[1]?.constant?.dims.includes(160))!;
      model.graph.addOutput(inner.outputs[0]!);
      const name = inner.outputs[0]!.name;
      const { model: student, layers } = await factorizeLayers(model, { ...options, fraction: 0.6, batches: [feeds] });
      const layer = layers.find(({ outputs }) => outputs === 160)!;
      const session = async (it: Model) => {
        const opened = await openSession({ bytes: modelToBytes(it) });
        const result = floatsOf((await opened.run(feeds))[name]!);
        await opened.close();
        return result;
      };
      const [before, after] = [await session(model), await session(student)];
      // What the projection loses is what the energy says, of outputs about their mean (with a bias) or about zero.
      const mean = (i: number) => (stacked ? 0 : before.reduce((sum, y, j) => sum + (j % 160 === i ? y : 0), 0) / 256);
      const means = Float64Array.from({ length: 160 }, (_, i) => mean(i));
      let [lost, total] = [0, 0];
      before.forEach((y, i) => {
        lost += (y - after[i]!) ** 2;
        total += (y - means[i % 160]!) ** 2;
      });
      assert.equal(layer.rank, 27);
      assert.ok(Math.abs(1 - lost / total - layer.energy!) < 1e-4, `${1 - lost / total} and ${layer.energy}`);
      const covariance = new Float64Array(160 * 160);
      for (let s = 0; s < 256; s++) {
        for (let i = 0; i < 160; i++) {
          for (let j = 0; j < 160; j++) {
            covariance[i * 160 + j]! += (before[s * 160 + i]! - means[i]!) * (before[s * 160 + j]! - means[j]!);
          }
        }
      }
      const kept = symmetricEigen(covariance, 160, 27).values.reduce((sum, value) => sum + value, 0);
      assert.ok(Math.abs(kept / total - layer.energy!) < 1e-4, `${kept / total} and ${layer.energy}`);
    }
  });

  test("with data the directions that matter are kept: less error than from the weights alone", async () => {
    const net = new NetworkBuilder(3);
    const x = net.relu(net.conv(net.input(["n", 1, 8, 8]), 1, 16));
    const model = net.output(net.linear(net.g.op("Flatten", [net.conv(x, 16, 32, { bias: true })]), 2048, 20), [
      "n",
      20,
    ]);
    const { feeds } = halves(64, 11).gather([...Array(64).keys()]);
    const before = await outputs(model, feeds);
    const error = async (samples: ReturnType<typeof halves> | undefined) => {
      const batches = samples && [samples.gather([...Array(samples.count).keys()]).feeds];
      const { model: student } = await factorizeLayers(model, { ...options, fraction: 0.3, batches });
      const after = await outputs(student, feeds);
      return before.reduce((sum, y, i) => sum + (y - after[i]!) ** 2, 0);
    };
    const [plain, aware] = [await error(undefined), await error(halves(256, 4))];
    assertRecorded(aware / plain, 0.4533, 0.01, `${aware} with data, ${plain} without:`);
  });
});

describe("cutting channels", () => {
  const images = {
    x: tensorOf(
      "float32",
      [2, 3, 16, 16],
      Float32Array.from({ length: 1536 }, (_, i) => Math.sin(i)),
    ),
  };
  const shapes = (model: Model) =>
    Object.fromEntries([...model.graph.initializers].map(({ name, constant }) => [name, constant!.dims.join("x")]));

  test("a residual network loses channels through its additions, shortcuts and normalisations", async () => {
    const teacher = resNet18({ size: 16, classes: 4, width: 32 });
    const { model, families } = await slimWidth(teacher, { fraction: 0.5, feeds: images, openSession });
    // The stream of each stage, and the inner channels of each of its two blocks.
    assert.deepEqual(
      families.map(({ units, kept }) => `${units} to ${kept}`).sort(),
      [32, 64, 128, 256].flatMap((width) => Array(3).fill(`${width} to ${width / 2}`)).sort(),
    );
    assert.deepEqual(shapes(model), shapes(resNet18({ size: 16, classes: 4, width: 16 })));
    assert.equal((await outputs(model, images)).length, 8);
  });

  test("channels whose weights are zero are the ones that go, and nothing changes", async () => {
    const teacher = flattened();
    const dead = new Set([1, 2, 5, 7]);
    for (const { name, constant } of teacher.graph.initializers) {
      if (!name.startsWith("conv0") && !name.startsWith("bn1.bias")) continue;
      const data = floatsOf(constant!);
      const size = data.length / constant!.dims[0]!;
      for (const channel of dead) data.fill(0, channel * size, (channel + 1) * size);
    }
    for (const { name, constant } of teacher.graph.initializers) {
      if (name === "bn1.bias") for (const channel of dead) floatsOf(constant!)[channel] = 0;
      // What reads a dead channel must not tell it from one that is gone either.
      if (name === "conv2.weight")
        for (const channel of dead) floatsOf(constant!).fill(0, channel * 9, (channel + 1) * 9);
    }
    const { feeds } = halves(4, 2).gather([0, 1, 2, 3]);
    const { model } = await slimWidth(teacher, { fraction: 0.5, feeds, openSession });
    const found = shapes(model);
    assert.deepEqual([found["conv0.weight"], found["conv2.weight"]], ["4x1x3x3", "4x1x3x3"]);
    const [before, after] = [await outputs(teacher, feeds), await outputs(model, feeds)];
    assert.ok(before.every((x, i) => Math.abs(x - after[i]!) < 1e-5));
  });

  /** A convolution, a depthwise one, and a dense layer on the flattened maps. */
  function flattened(): Model {
    const net = new NetworkBuilder(6);
    const x = net.relu(net.batchNorm(net.conv(net.input(["n", 1, 8, 8]), 1, 8), 8));
    const pooled = net.maxPool(net.relu(net.conv(x, 8, 8, { group: 8 })));
    const flat = net.g.reshape(pooled, [-1, 8 * 16]);
    return net.output(net.linear(flat, 8 * 16, 4), ["n", 4]);
  }

  test("a transformer loses heads, hidden units and features of its stream", async () => {
    const teacher = transformer({ layers: 2, width: 32, heads: 4, length: 6, vocabulary: 20, classes: 3 });
    const { model, families } = await slimWidth(teacher, { fraction: 0.5, feeds: { tokens }, openSession });
    assert.deepEqual(families.map(({ units, kept }) => `${units} to ${kept}`).sort(), [
      "128 to 64",
      "128 to 64",
      "32 to 16",
      "4 to 2",
      "4 to 2",
    ]);
    assert.deepEqual(shapes(model)["embedding0.weight"], "20x16");
    assert.equal((await outputs(model, { tokens })).length, 6);
    createTrainable(model);
  });

  test("branches of a concatenation are cut each on its own", async () => {
    const net = new NetworkBuilder(8);
    const x = net.input(["n", 1, 8, 8]);
    const both = net.g.concat([net.conv(x, 1, 6), net.relu(net.conv(x, 1, 4))], 1);
    const model = net.output(net.linear(net.globalAverage(net.conv(both, 10, 8)), 8, 3), ["n", 3]);
    const { feeds } = halves(2, 2).gather([0, 1]);
    const { families, model: student } = await slimWidth(model, { fraction: 0.5, feeds, openSession });
    assert.deepEqual(
      families.map(({ units, kept }) => [units, kept]),
      [
        [6, 3],
        [4, 2],
        [8, 4],
      ],
    );
    assert.equal(shapes(student)["conv2.weight"], "4x5x3x3");
  });

  /** The block of YOLOv8: half of the channels goes round a residual block, and all of it is joined again. `parts` says how Split is told of sizes. */
  function splitBlock(parts: "count" | "sizes" | "attribute"): Model {
    const net = new NetworkBuilder(9);
    const stem = net.relu(net.conv(net.input(["n", 1, 8, 8]), 1, 12, { bias: true }));
    const node = net.model.graph.append({
      opType: "Split",
      inputs: parts === "sizes" ? [stem, net.g.shape([4, 8])] : [stem],
      outputs: 2,
      attrs: {
        axis: int(1),
        ...(parts === "count" && { num_outputs: int(2) }),
        ...(parts === "attribute" && { split: ints([4, 8]) }),
      },
    });
    const [aside, through] = node.outputs as [Value, Value];
    const width = parts === "count" ? 6 : 8;
    const inner = net.relu(net.conv(net.relu(net.conv(through, width, 10)), 10, width));
    const joined = net.g.concat([aside, through, net.g.add(through, inner)], 1);
    const last = net.relu(net.conv(joined, 12 + width, 8));
    const model = net.output(net.linear(net.globalAverage(last), 8, 3), ["n", 3]);
    if (parts === "attribute") model.opsets.set("", 11);
    return model;
  }

  for (const parts of ["count", "sizes", "attribute"] as const) {
    test(`the parts of a Split are cut each on its own, told by ${parts}, and what is left computes the same`, async () => {
      const teacher = splitBlock(parts);
      const [aside, through] = parts === "count" ? [6, 6] : [4, 8];
      const weights = new Map([...teacher.graph.initializers].map(({ name, constant }) => [name, constant!]));
      // Every second channel of the stem, of the inner convolutions and of the last one is dead.
      for (const layer of ["conv0", "conv1", "conv2", "conv3"]) {
        const data = floatsOf(weights.get(`${layer}.weight`)!);
        const size = data.length / weights.get(`${layer}.weight`)!.dims[0]!;
        for (let channel = 1; channel * size < data.length; channel += 2) {
          data.fill(0, channel * size, (channel + 1) * size);
          if (layer === "conv0") floatsOf(weights.get("conv0.bias")!)[channel] = 0;
        }
      }
      const { feeds } = halves(4, 2).gather([0, 1, 2, 3]);
      const { model, families } = await slimWidth(teacher, { fraction: 0.5, feeds, openSession });
      const found = families.map(({ units, kept }) => `${units} to ${kept}`).sort();
      const expected = [aside, through, 10, 8].map((units) => `${units} to ${units / 2}`).sort();
      assert.deepEqual(found, expected);
      const [before, after] = [await outputs(teacher, feeds), await outputs(model, feeds)];
      for (const [i, x] of before.entries()) assert.ok(Math.abs(x - after[i]!) < 1e-5, `${x} and ${after[i]}`);
    });
  }

  test("channels that are picked by their numbers stay, and so does what meets them", async () => {
    const net = new NetworkBuilder(9);
    const stem = net.relu(net.conv(net.input(["n", 1, 8, 8]), 1, 8));
    const picked = net.g.op("Gather", [stem, net.g.shape([0, 2, 4, 6])], { axis: int(1) });
    const met = net.g.add(picked, net.conv(net.relu(net.conv(stem, 8, 6)), 6, 4));
    const model = net.output(net.linear(net.globalAverage(met), 4, 3), ["n", 3]);
    const { feeds } = halves(2, 2).gather([0, 1]);
    const { model: student, families } = await slimWidth(model, { fraction: 0.5, feeds, openSession });
    assert.deepEqual(
      families.map(({ weight, units, kept }) => [weight, units, kept]),
      [["conv1.weight", 6, 3]],
    );
    assert.equal((await outputs(student, feeds)).length, 6);
  });

  test("features of the input and of the answer stay, however many layers read them", async () => {
    const net = new NetworkBuilder(4);
    const x = net.g.op("Flatten", [net.input(["n", 1, 8, 8])], { axis: int(1) });
    const plain = net.input(["n", 12], "plain");
    const sum = net.g.add(net.linear(plain, 12, 16), net.g.add(net.linear(plain, 12, 16), net.linear(x, 64, 16)));
    const model = net.output(net.g.add(net.linear(net.relu(sum), 16, 5), net.linear(plain, 12, 5)), ["n", 5]);
    const feeds = {
      ...halves(2, 2).gather([0, 1]).feeds,
      plain: tensorOf("float32", [2, 12], new Float32Array(24).fill(0.5)),
    };
    const { families, model: student } = await slimWidth(model, { fraction: 0.5, feeds, openSession });
    assert.deepEqual(
      families.map(({ units, kept }) => [units, kept]),
      [[16, 8]],
    );
    assert.equal((await outputs(student, feeds)).length, 10);
  });

  test("what an operator that is not known touches stays", async () => {
    const net = new NetworkBuilder(8);
    const x = net.conv(net.input(["n", 1, 8, 8]), 1, 8);
    const odd = net.g.op("CumSum", [x, net.g.constant("int64", [], [1])]);
    const model = net.output(net.linear(net.globalAverage(odd), 8, 3), ["n", 3]);
    await assert.rejects(
      slimWidth(model, { fraction: 0.5, feeds: halves(2, 2).gather([0, 1]).feeds, openSession }),
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
