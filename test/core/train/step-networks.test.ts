import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { floatsOf, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { crossEntropy, distillationKl } from "../../../src/core/train/losses.ts";
import { batchFeeds, buildStepGraph, type Objective, soloNetwork } from "../../../src/core/train/step-graph.ts";
import type { StepNetwork } from "../../../src/core/train/step-networks.ts";
import { createTrainable } from "../../../src/core/train/trainable.ts";
import { halves, NetworkBuilder } from "../../support/networks.ts";

/** Convolution, BatchNormalization, Dropout and a dense layer. */
function network(seed: number, channels = 3): Model {
  const net = new NetworkBuilder(seed);
  const pooled = net.maxPool(net.relu(net.batchNorm(net.conv(net.input(["n", 1, 8, 8]), 1, channels), channels)), 4);
  return net.output(net.linear(net.g.op("Flatten", [pooled]), channels * 4, 4), ["n", 4]);
}

/** One affine layer, whose gradients can be worked out by hand. */
function affine(seed: number): Model {
  const net = new NetworkBuilder(seed);
  return net.output(net.linear(net.input(["n", 3]), 3, 4), ["n", 4]);
}

const batch = halves(16, 4).gather([...Array(16).keys()]);

/** Loss and gradients of a step, by the parameter's name in the step graph. */
async function gradientsOf(networks: readonly StepNetwork[], objective: Objective, of: typeof batch = batch) {
  const graph = await buildStepGraph(networks, { batch: of, objective, seed: 1, openSession });
  const session = await openSession({ bytes: graph.model });
  const results: Readonly<Record<string, Tensor>> = await session.run({ ...graph.feeds, ...batchFeeds(of) });
  await session.close();
  return Object.fromEntries(
    graph.parameters.map(({ name, gradient }) => [
      name,
      gradient === undefined ? undefined : [...floatsOf(results[gradient]!)],
    ]),
  );
}

const onLabels =
  (...prefixes: string[]): Objective =>
  ({ g, value, target }) =>
    prefixes.map((prefix) => ({
      name: "label",
      weight: 1,
      value: crossEntropy(g, value(`${prefix}logits`), target("labels")),
    }));

describe("several networks in a step", () => {
  test("each has the gradients that it has alone, whatever the other is like", async () => {
    const [a, b] = [createTrainable(network(1)), createTrainable(network(2, 5))];
    const alone = [
      await gradientsOf([soloNetwork(a)], onLabels("")),
      await gradientsOf([soloNetwork(b)], onLabels("")),
    ];
    const together = await gradientsOf(
      [
        { prefix: "a/", trainable: a, trained: true },
        { prefix: "b/", trainable: b, trained: true },
      ],
      onLabels("a/", "b/"),
    );
    for (const [i, prefix] of ["a/", "b/"].entries()) {
      for (const [name, gradient] of Object.entries(alone[i]!))
        assert.deepEqual(together[prefix + name], gradient, name);
    }
    assert.equal(Object.keys(together).length, Object.keys({ ...alone[0] }).length * 2);
  });

  test("what is detached teaches, and learns nothing from it: KL(p_b ‖ p_a) by hand", async () => {
    const [a, b] = [createTrainable(affine(1)), createTrainable(affine(2))];
    const x = [0.5, -1, 2, 1, 0.25, -0.75];
    const of = { feeds: { x: tensorOf("float32", [2, 3], x) }, targets: {} };
    const networks = [
      { prefix: "a/", trainable: a, trained: true },
      { prefix: "b/", trainable: b, trained: true },
    ];
    const taught: Objective = ({ g, value, detach }) => [
      { name: "kl", weight: 1, value: distillationKl(g, value("a/logits"), detach(value("b/logits"))) },
    ];
    const gradients = await gradientsOf(networks, taught, of);
    const names = (trainable: typeof a) => trainable.parameters.map(({ name }) => name);
    for (const name of names(b)) assert.equal(gradients[`b/${name}`], undefined, name);

    // z = W x + b; dKL/dz_a = (p_a − p_b)/n
    const softmax = (z: readonly number[]) => {
      const e = z.map(Math.exp);
      const sum = e.reduce((s, v) => s + v, 0);
      return e.map((v) => v / sum);
    };
    const rows = [x.slice(0, 3), x.slice(3)];
    const probabilities = [a, b].map(({ parameters }) => {
      const [w, bias] = parameters.map(({ data }) => data) as [Float32Array, Float32Array];
      return rows.map((row) =>
        softmax([0, 1, 2, 3].map((k) => row.reduce((s, v, i) => s + v * w[3 * k + i]!, bias[k]!))),
      );
    });
    const dz = rows.map((_, n) => probabilities[0]![n]!.map((p, k) => (p - probabilities[1]![n]![k]!) / 2));
    const weight = [0, 1, 2, 3].flatMap((k) =>
      [0, 1, 2].map((i) => dz[0]![k]! * rows[0]![i]! + dz[1]![k]! * rows[1]![i]!),
    );
    const bias = [0, 1, 2, 3].map((k) => dz[0]![k]! + dz[1]![k]!);
    for (const [i, expected] of [weight, bias].entries()) {
      const actual = gradients[`a/${names(a)[i]}`]!;
      for (const [k, value] of expected.entries())
        assert.ok(Math.abs(actual[k]! - value) < 1e-6, `${actual[k]} ${value}`);
    }
  });

  test("one that is not trained is computed and has no gradients; one with inputs of its own sees its own", async () => {
    const [a, b] = [createTrainable(network(1)), createTrainable(network(2))];
    const ownInputs = { feeds: { ...batch.feeds, "b/x": batch.feeds.x! }, targets: batch.targets };
    const objective: Objective = ({ g, value }) => [
      { name: "kl", weight: 1, value: distillationKl(g, value("a/logits"), value("b/logits")) },
    ];
    const step = (own: boolean) => [
      { prefix: "a/", trainable: a, trained: true },
      { prefix: "b/", trainable: b, trained: false, ownInputs: own },
    ];
    const shared = await gradientsOf(step(false), objective);
    assert.deepEqual(await gradientsOf(step(true), objective, ownInputs), shared);
    assert.ok(Object.keys(shared).every((name) => name.startsWith("a/")));
    const unmoved = createTrainable(network(2)).statistics;
    assert.deepEqual(b.statistics, unmoved, "its running statistics are not written to");
    const zeros = tensorOf("float32", batch.feeds.x!.dims, new Float32Array(16 * 64));
    assert.notDeepEqual(
      await gradientsOf(step(true), objective, { ...ownInputs, feeds: { ...batch.feeds, "b/x": zeros } }),
      shared,
    );
  });
});
