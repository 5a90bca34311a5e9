import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { addExits } from "../../../src/core/distill/exits.ts";
import { CoreError } from "../../../src/core/errors.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { imageTransformer, NetworkBuilder } from "../../support/networks.ts";
import { runModel } from "../../support/open-model.ts";

/** Exits of networks of several kinds: what they read, and the head that each has. */

const random = (dims: readonly number[]) => {
  const length = dims.reduce((product, dim) => product * dim, 1);
  return tensorOf(
    "float32",
    dims,
    Float32Array.from({ length }, (_, i) => Math.sin(12.9 * i)),
  );
};

const dimsOf = (model: Model) =>
  Object.fromEntries([...model.graph.initializers].map(({ name, constant }) => [name, constant!.dims]));

const add = (model: Model, dims: readonly number[], exits: number | readonly string[] = 1) =>
  addExits(model, { exits, feeds: { x: random(dims) }, seed: 1, openSession });

/** Two stages of 6 and 10 channels over a line or an image of 8, and a dense layer behind their means. */
function stages(axes: 1 | 2, size: number | string = 8): Model {
  const net = new NetworkBuilder(3);
  let x = net.input(["n", 2, ...Array<number | string>(axes).fill(size)]);
  x = net.relu(net.conv(x, 2, 6, { axes }));
  x = net.relu(net.conv(x, 6, 10, { axes }));
  x = net.relu(net.conv(x, 10, 10, { axes }));
  return net.output(net.linear(net.globalAverage(x), 10, 4), ["n", 4]);
}

describe("an exit", () => {
  test("of a line has the mean over positions of its channels, and as wide a layer as the last features", async () => {
    const { model, exits, deepest } = await add(stages(1), [2, 2, 8]);
    const dims = dimsOf(model);
    assert.deepEqual(
      [dims["exit_1.fc.weight"], dims["exit_1.classes.weight"]],
      [
        [10, 6],
        [4, 10],
      ],
    );
    assert.deepEqual(deepest.channelAxis, 1);
    const { [exits[0]!.value]: read, exit_1: answer } = await runAll(model, [exits[0]!.value], random([2, 2, 8]));
    assert.deepEqual(answer!.dims, [2, 4]);
    // By hand: the mean, the layer, Relu, the classes.
    const weights = (name: string) => floatsOf([...model.graph.initializers].find((it) => it.name === name)!.constant!);
    const [w, c] = [weights("exit_1.fc.weight"), weights("exit_1.classes.weight")];
    const values = floatsOf(read!);
    for (let n = 0; n < 2; n++) {
      const means = Array.from({ length: 6 }, (_, k) => {
        const at = (n * 6 + k) * 8;
        return values.slice(at, at + 8).reduce((sum, x) => sum + x, 0) / 8;
      });
      const hidden = Array.from({ length: 10 }, (_, j) =>
        Math.max(
          0,
          means.reduce((sum, x, k) => sum + x * w[j * 6 + k]!, 0),
        ),
      );
      for (let k = 0; k < 4; k++) {
        const expected = hidden.reduce((sum, x, j) => sum + x * c[k * 10 + j]!, 0);
        assert.ok(Math.abs(floatsOf(answer!)[n * 4 + k]! - expected) < 1e-5);
      }
    }
  });

  test("of a sequence has the mean over its places of their features", async () => {
    const encoder = imageTransformer({ layers: 3, width: 12, heads: 2, length: 4, classes: 10 });
    const { model, deepest } = await add(encoder, [2, 1, 28, 28]);
    assert.deepEqual([deepest.channelAxis, deepest.dims], [2, [2, 4, 12]]);
    assert.deepEqual(dimsOf(model)["exit_1.fc.weight"], [12, 12]);
  });

  test("of an image has convolutions, whose positions it reads one by one where their number is known", async () => {
    const fixed = await add(stages(2), [2, 2, 8, 8]);
    // One convolution of stride 2 leaves 4 by 4 positions of 10 channels.
    assert.deepEqual(dimsOf(fixed.model)["exit_1.classes.weight"], [4, 10 * 16]);
    const free = await add(stages(2, "size"), [2, 2, 8, 8]);
    assert.deepEqual(dimsOf(free.model)["exit_1.classes.weight"], [4, 10]);
    const other = await runModel(free.model, { x: random([2, 2, 12, 12]) });
    assert.deepEqual(other.exit_1!.dims, [2, 4]);
  });

  test("has the first axis of the network's own answer", async () => {
    const { model } = await add(stages(1), [2, 2, 8]);
    assert.deepEqual(model.graph.outputs[1]!.shape, ["n", 4]);
  });
});

test("exits that are named must be values between two layers: a refusal says which there are, and which name is wrong", async () => {
  const model = stages(1);
  const relus = model.graph.nodes.filter(({ opType }) => opType === "Relu").map(({ outputs }) => outputs[0]!.name);
  const { exits } = await add(model, [2, 2, 8], [relus[1]!, relus[0]!]);
  assert.deepEqual(
    exits.map(({ name, value }) => [name, value]),
    [
      ["exit_1", relus[1]],
      ["exit_2", relus[0]],
    ],
  );
  const refusal = async (names: readonly string[]) => {
    const error = await add(model, [2, 2, 8], names).then(
      () => assert.fail("it was not refused"),
      (thrown: unknown) => thrown,
    );
    assert.ok(error instanceof CoreError && error.code === "invalid_params");
    return { message: error.message, subject: error.subject, path: error.path };
  };
  const conv = model.graph.nodes.find(({ opType }) => opType === "Conv")!.outputs[0]!.name;
  assert.deepEqual(await refusal([relus[0]!, "nowhere"]), {
    ...{ message: 'The network has no value "nowhere".', subject: "nowhere", path: ["exits", 1] },
  });
  const inner = await refusal([conv]);
  assert.deepEqual([inner.subject, inner.path], [conv, ["exits", 0]]);
  assert.ok(inner.message.endsWith(`Possible are ${relus.map((name) => `"${name}"`).join(", ")}.`), inner.message);
});

/** All outputs, and further values of the graph. */
async function runAll(model: Model, names: readonly string[], x: ReturnType<typeof random>) {
  const copy = model.clone();
  for (const node of copy.graph.nodes) {
    for (const value of node.outputs) {
      if (!names.includes(value.name)) continue;
      value.retype("float32", undefined);
      copy.graph.addOutput(value);
    }
  }
  return runModel(copy, { x });
}
