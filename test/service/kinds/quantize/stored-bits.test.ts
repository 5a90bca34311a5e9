import assert from "node:assert/strict";
import { test } from "node:test";
import type { Model, QuantizationPlan } from "../../../../src/core/index.ts";
import { bitsWarnings } from "../../../../src/service/kinds/quantize/run/stored-bits.ts";
import { writeNpz } from "../../../support/dataset-writers.ts";
import { GraphMaker, mlp } from "../../../support/graphs.ts";
import { quantizeJob } from "../../../support/quantize-job.ts";

const form = (bits: 4 | 8, ...nodes: string[]): QuantizationPlan["weights"][string][number] => ({
  scheme: { bits, signed: true, symmetric: true, granularity: "channel" },
  storage: bits === 8 ? "stored_codes" : "quantized",
  nodes,
});
const planOf = (weights: QuantizationPlan["weights"]): QuantizationPlan => ({
  ...{ weights, values: {} },
  ...{ nodes: {}, results: {} },
});

/** Weights of 64 by 64, and one that is smaller. */
function floatModel(): Model {
  const make = new GraphMaker({ seed: 1 });
  const names = { a: [64, 64], b: [64, 64], c: [64, 64], small: [4, 64] };
  for (const [name, dims] of Object.entries(names)) make.weight(name, dims, 1);
  return make.model;
}

test("weights in more bits than were asked for are named, unless the job asked for that by name", () => {
  const plan = planOf({
    ...{ a: [form(8, "layer_a")], b: [form(4, "layer_b")], c: [form(8, "layer_c")] },
    // Fewer bits would not make it smaller.
    small: [form(8, "layer_small")],
  });
  const float = floatModel();
  const [warning, ...none] = bitsWarnings({ weight_bits: 4, layers: { layer_c: "int8_weights" } }, plan, float);
  assert.equal(warning!.code, "more_bits_stored");
  assert.equal(warning!.value, 1);
  assert.match(warning!.message, /stored in 8 bits, not in 4: "a"\. /);
  assert.deepEqual(none, []);
  assert.equal(bitsWarnings({ weight_bits: 2, layers: {} }, plan, float)[0]!.value, 3);
  assert.deepEqual(bitsWarnings({ weight_bits: 8, layers: {} }, plan, float), []);
  assert.deepEqual(bitsWarnings({ weight_bits: 4, layers: {} }, planOf({ b: [form(4, "layer_b")] }), float), []);
});

test("a weight that two nodes read is named unless both were asked for by name; of many, three are named and the rest counted", () => {
  const make = new GraphMaker({ seed: 1 });
  const names = ["a", "b", "c", "d", "e"];
  for (const name of names) make.weight(name, [64, 64], 1);
  const shared = planOf({ a: [form(8, "one", "two")] });
  const count = (layers: Readonly<Record<string, "int8_weights">>) =>
    bitsWarnings({ weight_bits: 4, layers }, shared, make.model).length;
  assert.deepEqual([count({ one: "int8_weights" }), count({ one: "int8_weights", two: "int8_weights" })], [1, 0]);
  const told = (some: readonly string[]) =>
    bitsWarnings(
      { weight_bits: 4, layers: {} },
      planOf(Object.fromEntries(some.map((name) => [name, [form(8, name)]]))),
      make.model,
    )[0]!.message;
  assert.match(told(names), /: "a", "b", "c", and 2 more\. /);
  assert.match(told(names.slice(0, 3)), /: "a", "b", "c"\. /);
});

test("a job whose layers all compute in 8 bits has weights of 4, and no such warning", async () => {
  const dataset = writeNpz({ x: new GraphMaker({ seed: 9 }).random([40, 16], 1) });
  const params = { method: "static", dataset_id: "dst_1", samples: 20, float_where_slower: false, weight_bits: 4 };
  const { report } = await quantizeJob(mlp(), { params, dataset, evaluation: { samples: 4 } });
  assert.ok(report.plan!.weights.length > 0 && report.plan!.weights.every(({ bits }) => bits === 4));
  assert.deepEqual(
    report.metrics.warnings.filter(({ code }) => code === "more_bits_stored"),
    [],
  );
});
