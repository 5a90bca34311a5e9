import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { symmetricEigen } from "../../../src/core/distill/eigen.ts";
import { factorizeLayers } from "../../../src/core/distill/factorize.ts";
import { deriveStudent, parameterCount } from "../../../src/core/distill/student.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { samplesOf } from "../../../src/core/train/samples.ts";
import { createTrainable } from "../../../src/core/train/trainable.ts";
import { halves, NetworkBuilder, transformer } from "../../support/networks.ts";
import { assertRecorded } from "../../support/recorded.ts";
import { outputs } from "../../support/students.ts";

const options = { openSession, threads: 1 };

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
