import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { runPasses } from "../../../../src/core/passes/pass.ts";
import { simplifyPasses } from "../../../../src/core/passes/simplify.ts";
import { dynamicPass } from "../../../../src/core/quantize/weights/dynamic.ts";
import { weightOnlyPass } from "../../../../src/core/quantize/weights/weight-only.ts";
import { GraphMaker, randomFeeds } from "../../../support/graphs.ts";
import { runModel, sqnrDb } from "../../../support/open-model.ts";

/** x [1, 3, 8, 8] → y [1, 10], with the operators that onnxruntime has for operator sets before 7. */
function oldNetwork(opset: number): Model {
  const make = new GraphMaker({ opset, irVersion: 3 });
  const convolved = make.op("Relu", [make.conv(make.input("x", [1, 3, 8, 8]), [3, 16], 3)]);
  const pooled = make.op("MaxPool", [convolved], { kernel_shape: [2, 2], strides: [2, 2] });
  const flat = make.op("Flatten", [pooled], { axis: 1 });
  const product = make.op("MatMul", [flat, make.weight("w", [256, 10], 1 / 16)]);
  make.output(make.op("Softmax", [product], { axis: 1 }), "y", [1, 10]);
  for (const value of make.graph.initializers) make.graph.setOverridable(value, true);
  return make.model;
}

const exclude = { nodes: [], ops: [] };
const weightOnly = { blockSize: 32, symmetric: true, embeddings: true, accuracyLevel: 0, exclude } as const;
const METHODS = {
  dynamic: dynamicPass({ perChannel: true, reduceRange: false, exclude }),
  "weight-only, 8 bits": weightOnlyPass({ ...weightOnly, bits: 8, format: "matmulnbits" }),
  "weight-only, 8 bits, Q/DQ": weightOnlyPass({ ...weightOnly, bits: 8, format: "qdq" }),
};

for (const opset of [6, 7, 9]) {
  for (const [name, pass] of Object.entries(METHODS)) {
    test(`${name}: a model of operator set ${opset} is compressed and runs`, async () => {
      const before = oldNetwork(opset);
      const { model, notes } = runPasses(before, [...simplifyPasses(), pass]);
      assert.deepEqual(
        notes.map(({ op, outcome }) => `${op} ${outcome}`),
        ["Conv changed", "MatMul changed"],
      );
      const feeds = randomFeeds(before);
      const db = sqnrDb(await runModel(before, feeds), await runModel(model, feeds));
      assert.ok(db > 30, `${db} dB`);
    });
  }
}
