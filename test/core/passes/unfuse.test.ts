import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model, Value } from "../../../src/core/onnx/ir.ts";
import { type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { runPasses } from "../../../src/core/passes/pass.ts";
import { simplifyPasses } from "../../../src/core/passes/simplify.ts";
import { unfuse } from "../../../src/core/passes/unfuse.ts";
import { dynamicPass } from "../../../src/core/quantize/weights/dynamic.ts";
import { weightOnlyPass } from "../../../src/core/quantize/weights/weight-only.ts";
import { type AttrShorthand, GraphMaker, randomFeeds } from "../../support/graphs.ts";
import { runModel, sqnrDb } from "../../support/open-model.ts";
import { assertSameFunction } from "../../support/same-function.ts";

const HIDDEN = 64;
const [BATCH, LENGTH] = [2, 5];
/** Both forms are computed by other kernels, which sum in another order. */
const ROUNDING = 2e-6;

const contrib = (make: GraphMaker, op: string, inputs: readonly (Value | undefined)[], attrs = {}, outputs = 1) =>
  make.node(op, inputs, attrs, outputs, "com.microsoft").outputs;

interface Mask {
  readonly dims: readonly number[];
  readonly data: readonly number[];
}

const MASKS: Readonly<Record<string, Mask | undefined>> = {
  none: undefined,
  "which positions count": { dims: [BATCH, LENGTH], data: [1, 1, 1, 0, 0, 1, 1, 1, 1, 0] },
  "which position sees which": {
    dims: [BATCH, LENGTH, LENGTH],
    data: Array.from({ length: BATCH * LENGTH * LENGTH }, (_, i) => (i % 7 < 4 ? 1 : 0)),
  },
};

function attention(mask: Mask | undefined, attrs: Readonly<Record<string, AttrShorthand>> = {}): Model {
  const make = new GraphMaker();
  const x = make.input("x", [BATCH, LENGTH, HIDDEN]);
  const given = mask && make.input("mask", mask.dims, "int32");
  const w = make.weight("w", [HIDDEN, 3 * HIDDEN], 0.125);
  const [y] = contrib(make, "Attention", [x, w, make.weight("b", [3 * HIDDEN], 0.2), given], {
    num_heads: 4,
    ...attrs,
  });
  make.output(y!, "y", [BATCH, LENGTH, HIDDEN]);
  return make.model;
}

function feedsOf(model: Model, mask: Mask | undefined): Record<string, Tensor> {
  const feeds = randomFeeds(model);
  return mask ? { ...feeds, mask: tensorOf("int32", mask.dims, mask.data) } : feeds;
}

const operators = (model: Model) => model.graph.nodes.map(({ opType }) => opType).join(" ");

for (const [name, mask] of Object.entries(MASKS)) {
  for (const [what, attrs] of [
    ["plain", {}],
    ["causal", { unidirectional: 1 }],
    ["scaled", { scale: { type: "float", value: 0.5 } }],
  ] as const) {
    test(`Attention (${what}; mask: ${name}) is a product of its own and computes the same`, async () => {
      const model = attention(mask, attrs);
      const { model: unfused } = runPasses(model, [unfuse]);
      assert.equal(operators(unfused), "MatMul Add Split MultiHeadAttention");
      await assertSameFunction(model, unfused, feedsOf(model, mask), ROUNDING);
    });
  }
}

test("Attention with what the other form has no place for stays", () => {
  const make = new GraphMaker();
  const x = make.input("x", [BATCH, LENGTH, HIDDEN]);
  const w = make.weight("w", [HIDDEN, 3 * HIDDEN], 0.125);
  const b = make.weight("b", [3 * HIDDEN], 0.2);
  const past = make.input("past", [2, BATCH, 4, 3, 16]);
  const mask = make.input("mask", [BATCH, 1, 8, 8], "int32");
  const unknown = make.input("unknown", undefined, "int32");
  for (const inputs of [
    [x, w, b, undefined, past],
    [x, w, b, mask],
    [x, w, b, unknown],
    [x, make.input("given", [HIDDEN, 3 * HIDDEN]), b],
  ]) {
    contrib(make, "Attention", inputs, { num_heads: 4 });
  }
  assert.equal(
    unfuse.run(make.model, () => {}),
    false,
  );
});

/** Token ids and a mask → EmbedLayerNormalization → Attention. */
function embedding(opset: number, options: { readonly segments: boolean; readonly positions: boolean }): Model {
  const make = new GraphMaker({ opset });
  const ids = make.input("ids", [BATCH, LENGTH], "int32");
  const segments = options.segments ? make.input("segments", [BATCH, LENGTH], "int32") : undefined;
  const mask = make.input("mask", [BATCH, LENGTH], "int32");
  const positions = options.positions ? make.input("positions", [BATCH, LENGTH], "int32") : undefined;
  const table = (name: string, rows: number) => make.weight(name, [rows, HIDDEN], 1);
  const [embedded, index] = contrib(
    make,
    "EmbedLayerNormalization",
    [
      ids,
      segments,
      table("words", 40),
      table("places", 16),
      segments && table("sentences", 2),
      make.constant("gamma", make.random([HIDDEN], 0.2, 1)),
      make.weight("beta", [HIDDEN], 0.2),
      mask,
      positions,
    ],
    { epsilon: { type: "float", value: 1e-12 } },
    2,
  );
  const [y] = contrib(
    make,
    "Attention",
    [embedded, make.weight("w", [HIDDEN, 3 * HIDDEN], 0.125), make.weight("b", [3 * HIDDEN], 0.2), index],
    { num_heads: 4 },
  );
  make.output(y!, "y", [BATCH, LENGTH, HIDDEN]);
  return make.model;
}

function tokens(model: Model): Record<string, Tensor> {
  const ints = (data: readonly number[]) => tensorOf("int32", [BATCH, LENGTH], data);
  const all = {
    ids: ints([3, 1, 4, 1, 5, 9, 2, 6, 5, 39]),
    segments: ints([0, 0, 0, 1, 1, 0, 1, 1, 1, 1]),
    mask: ints([1, 1, 1, 0, 0, 1, 1, 1, 1, 1]),
    positions: ints([0, 1, 2, 3, 4, 5, 6, 7, 8, 15]),
  };
  const names = new Set(model.graph.inputs.map(({ name }) => name));
  return Object.fromEntries(Object.entries(all).filter(([name]) => names.has(name)));
}

for (const segments of [false, true]) {
  for (const positions of [false, true]) {
    test(`EmbedLayerNormalization computes the same table by table (segments: ${segments}, positions: ${positions})`, async () => {
      const model = embedding(17, { segments, positions });
      const { model: unfused } = runPasses(model, [unfuse]);
      assert.ok(!unfused.graph.nodes.some(({ opType }) => ["EmbedLayerNormalization", "Attention"].includes(opType)));
      await assertSameFunction(model, unfused, tokens(model), ROUNDING);
    });
  }
}

test("before operator set 17 there is no LayerNormalization to write it with", async () => {
  const model = embedding(16, { segments: true, positions: false });
  const { model: unfused } = runPasses(model, [unfuse]);
  assert.equal(operators(unfused), "EmbedLayerNormalization MatMul Add Split MultiHeadAttention");
  await assertSameFunction(model, unfused, tokens(model), ROUNDING);
});

test("FusedMatMul with a constant is a product", async () => {
  const make = new GraphMaker();
  const x = make.input("x", [BATCH, LENGTH, HIDDEN]);
  const attrs = { transB: 1, alpha: { type: "float", value: 0.5 } } as const;
  const [y] = contrib(make, "FusedMatMul", [x, make.weight("w", [32, HIDDEN], 0.125)], attrs);
  make.output(y!, "y", [BATCH, LENGTH, 32]);
  const { model: unfused } = runPasses(make.model, [unfuse]);
  assert.equal(operators(unfused), "Transpose MatMul Mul");
  await assertSameFunction(make.model, unfused, randomFeeds(make.model), ROUNDING);
});

test("methods that quantize weights reach those of fused operators, by the name of the node that held them", async () => {
  const model = embedding(17, { segments: true, positions: false });
  const exclude = { nodes: [], ops: [] };
  const methods = {
    dynamic: dynamicPass({ perChannel: true, reduceRange: true, exclude }),
    weightOnly: weightOnlyPass({
      ...{ bits: 8, blockSize: 32, symmetric: true, format: "matmulnbits" },
      ...{ embeddings: true, accuracyLevel: 0, exclude },
    }),
  };
  for (const [name, pass] of Object.entries(methods)) {
    const { model: result, notes } = runPasses(model, [...simplifyPasses(), unfuse, pass]);
    const changed = notes.filter(({ outcome }) => outcome === "changed").map(({ op }) => op);
    assert.ok(changed.includes("EmbedLayerNormalization") && changed.includes("Attention"), `${name}: ${changed}`);
    const db = sqnrDb(await runModel(model, tokens(model)), await runModel(result, tokens(model)));
    assert.ok(db > 38, `${name}: ${db} dB`);
  }
});
