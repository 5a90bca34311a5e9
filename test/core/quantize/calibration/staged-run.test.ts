import assert from "node:assert/strict";
import { test } from "node:test";
import { arrayOf, floatsOf } from "../../../../src/core/onnx/tensor.ts";
import { StagedRun } from "../../../../src/core/quantize/calibration/staged-run.ts";
import { branches, cnn, loop, randomFeeds, transformer } from "../../../support/graphs.ts";
import { openModel, runModel } from "../../../support/open-model.ts";

const MODELS = { cnn: cnn(), transformer: transformer(), branches: branches(), loop: loop() };

for (const [name, model] of Object.entries(MODELS)) {
  test(`${name}: node by node, the values are those of the whole model`, async () => {
    const samples = [1, 2].map((seed) => randomFeeds(model, { seed }));
    const whole = model.clone();
    for (const node of whole.graph.nodes) {
      const [value] = node.outputs;
      if (!value!.isGraphOutput && !value!.constant) whole.graph.addOutput(value!);
    }
    const expected = await Promise.all(samples.map((feeds) => runModel(whole, feeds, { optimization: "disabled" })));
    const run = new StagedRun(model, samples, { openModel });
    const stops = model.graph.nodes.filter(
      (node, i, { length }) => (i % 2 === 1 || i === length - 1) && !node.outputs[0]!.constant,
    );
    assert.ok(stops.length > 0);
    for (const node of stops) {
      const actual = await run.runTo(node);
      samples.forEach((_, i) => {
        const reference = expected[i]![node.outputs[0]!.name]!;
        assert.deepEqual(actual[i]!.dims, reference.dims);
        if (reference.dtype !== "float32") return;
        floatsOf(reference).forEach((x, k) => {
          assert.ok(Math.abs(x - floatsOf(actual[i]!)[k]!) < 1e-4, node.label);
        });
      });
    }
  });
}

test("what is put in the place of a value is what the rest computes with", async () => {
  const model = cnn();
  const [conv] = model.graph.nodes.filter((node) => node.opType === "Conv");
  const samples = [randomFeeds(model)];
  const run = new StagedRun(model, samples, { openModel });
  const [tensor] = await run.runTo(conv!);
  arrayOf(tensor!, "float32").fill(0);
  const [next] = await run.runTo(model.graph.nodes[model.graph.nodes.indexOf(conv!) + 1]!);
  const values = floatsOf(next!);
  // The normalization of zeros is the same everywhere in a channel.
  assert.ok(values.subarray(0, 28 * 28).every((value) => value === values[0]));
  await assert.rejects(() => run.runTo(conv!), { code: "internal" });
});
