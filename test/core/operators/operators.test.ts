import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { CoreError } from "../../../src/core/errors.ts";
import { listLayers } from "../../../src/core/evaluate/layer-facts.ts";
import { einsumTerms } from "../../../src/core/operators/einsum.ts";
import type { OperatorRecord } from "../../../src/core/operators/operator-record.ts";
import { CONTRIB_OPERATORS, entryFor, ONNX_OPERATORS, operatorOf } from "../../../src/core/operators/operators.ts";
import { weightOnlyPass } from "../../../src/core/quantize/weights/weight-only.ts";
import { compress } from "../../support/compressed.ts";
import { GraphMaker, randomFeeds } from "../../support/graphs.ts";
import { openModel, runModel, sqnrDb } from "../../support/open-model.ts";
import { assertRecorded } from "../../support/recorded.ts";

/** The newest operator set that onnxruntime 1.30 knows for certain. */
const NEWEST_OPSET = 23;
/** onnxruntime declares some earlier than the standard: they were experiments there first. */
const EXPERIMENTS = new Set(["LayerNormalization", "MeanVarianceNormalization", "ThresholdedRelu"]);

/** What onnxruntime says of a model of one node without inputs: whether it knows the operator at all. */
async function isRegistered(opType: string, domain: string, opset: number): Promise<boolean> {
  const make = new GraphMaker({ opset: domain === "" ? opset : 17 });
  make.output(make.node(opType, [], {}, 1, domain).outputs[0]!, "y");
  try {
    const session = await openModel(make.model);
    await session.close();
    return true;
  } catch (error) {
    assert.ok(error instanceof CoreError, String(error));
    return !/No Op registered|not a registered function\/op/.test(error.message);
  }
}

describe("what a record says of its operator is what onnxruntime says", () => {
  for (const [domain, records] of [
    ["", ONNX_OPERATORS],
    ["com.microsoft", CONTRIB_OPERATORS],
  ] as const) {
    test(`names and versions of ${domain || "ai.onnx"}`, async () => {
      const wrong: string[] = [];
      for (const [name, { since }] of Object.entries<OperatorRecord>(records)) {
        if (since > NEWEST_OPSET) continue;
        if (!(await isRegistered(name, domain, since))) wrong.push(`${name} is not there in ${since}`);
        // onnxruntime has no declarations from before operator set 7.
        const isNewer = domain === "" && since > 7 && !EXPERIMENTS.has(name);
        if (isNewer && (await isRegistered(name, domain, since - 1))) wrong.push(`${name} is there before ${since}`);
      }
      assert.deepEqual(wrong, []);
    });
  }
});

test("a record belongs to a domain: an operator of the same name elsewhere is another", () => {
  assert.equal(operatorOf({ domain: "my.domain", opType: "Conv" }), undefined);
  assert.equal(operatorOf({ domain: "", opType: "FusedConv" }), undefined);
  assert.notEqual(
    operatorOf({ domain: "", opType: "Attention" }),
    operatorOf({ domain: "com.microsoft", opType: "Attention" }),
  );
  assert.equal(operatorOf({ domain: "", opType: "constructor" }), undefined);
  assert.equal(entryFor({}, { domain: "", opType: "toString" }), undefined);
});

test("every operator with a weight is counted, but for lookups", () => {
  const uncounted = [
    ...Object.entries<OperatorRecord>(ONNX_OPERATORS),
    ...Object.entries<OperatorRecord>(CONTRIB_OPERATORS),
  ]
    .filter(([, { weights, macs }]) => weights && !macs)
    .map(([name]) => name);
  assert.deepEqual(uncounted, ["Gather", "GatherBlockQuantized"]);
});

test("the terms of an Einsum, its output left out", () => {
  const make = new GraphMaker();
  const x = make.input("x", [2, 3]);
  const terms = (equation: string) => einsumTerms(make.node("Einsum", [x, x], { equation }));
  assert.deepEqual(terms("bij, jk -> bik"), { inputs: ["bij", "jk"], output: "bik" });
  assert.deepEqual(terms("kj,ji"), { inputs: ["kj", "ji"], output: "ik" });
});

describe("decided: tables that used to disagree", () => {
  test("a constant first factor of a Gemm is a layer's weight, as that of a MatMul is; its channels are its rows", () => {
    for (const transA of [0, 1]) {
      const make = new GraphMaker();
      const a = make.floats(
        "a",
        transA ? [2, 3] : [3, 2],
        transA ? [1, 10, 100, 1, 10, 100] : [1, 1, 10, 10, 100, 100],
      );
      make.output(make.op("Gemm", [a, make.input("x", [2, "n"])], { transA }), "y", [3, "n"]);
      const [layer, ...others] = listLayers(make.model);
      assert.equal(others.length, 0);
      assert.equal(layer?.weight, "a");
      assert.equal(layer?.channel_range_spread, 100);
    }
  });

  test("an Einsum with a constant operand is a layer, with the channels that its equation says", () => {
    const make = new GraphMaker();
    const w = make.floats("w", [3, 2], [1, 1, 10, 10, 100, 100]);
    make.output(make.op("Einsum", [make.input("x", ["n", 2]), w], { equation: "nk,ck->nc" }), "y", ["n", 3]);
    const [layer] = listLayers(make.model);
    assert.deepEqual([layer?.weight, layer?.channel_range_spread], ["w", 100]);
  });

  test("weights of Einsum are compressed along what is summed, and left alone where that is not one run of axes", async () => {
    for (const [equation, dims, shape, changed] of [
      ["nk,kc->nc", [64, 128], [2, 64], true],
      ["nk,ck->nc", [128, 64], [2, 64], true],
      ["bhk,hkc->bhc", [4, 64, 32], [2, 4, 64], true],
      ["nij,icj->nc", [16, 64, 16], [2, 16, 16], false],
      ["...k,kc->...c", [64, 128], [2, 64], true],
    ] as const) {
      const make = new GraphMaker();
      const x = make.input("x", shape);
      make.output(make.op("Einsum", [x, make.weight("w", dims, 0.1)], { equation }), "y");
      const { model, notes } = compress(make.model, weightOnly());
      assert.deepEqual(
        notes.map(({ outcome }) => outcome),
        [changed ? "changed" : "skipped"],
        equation,
      );
      const feeds = randomFeeds(make.model);
      const [before, after] = [await runModel(make.model, feeds), await runModel(model, feeds)];
      assert.ok(sqnrDb(before, after) > 46, equation);
    }
  });

  test("the weight of a DeformConv is compressed as that of a Conv", async () => {
    const make = new GraphMaker({ opset: 19 });
    const x = make.input("x", [1, 16, 8, 8]);
    const offsets = make.input("offsets", [1, 18, 6, 6]);
    make.output(make.op("DeformConv", [x, make.weight("w", [32, 16, 3, 3], 0.1), offsets]), "y");
    const { model, notes } = compress(make.model, weightOnly());
    assert.deepEqual(
      notes.map(({ op, outcome }) => [op, outcome]),
      [["DeformConv", "changed"]],
    );
    const feeds = randomFeeds(make.model);
    assertRecorded(sqnrDb(await runModel(make.model, feeds), await runModel(model, feeds)), 48.3, 1);
  });
});

function weightOnly() {
  return weightOnlyPass({
    bits: 8,
    blockSize: 32,
    symmetric: true,
    format: "matmulnbits",
    embeddings: true,
    accuracyLevel: 0,
    exclude: { nodes: [], ops: [] },
  });
}
