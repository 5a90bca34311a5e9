import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { slimWidth } from "../../../src/core/distill/slim.ts";
import { CoreError } from "../../../src/core/errors.ts";
import { int, ints } from "../../../src/core/onnx/graph-builder.ts";
import type { Model, Value } from "../../../src/core/onnx/ir.ts";
import { floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { createTrainable } from "../../../src/core/train/trainable.ts";
import { halves, NetworkBuilder, resNet18, transformer } from "../../support/networks.ts";
import { outputs, tokens } from "../../support/students.ts";

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
