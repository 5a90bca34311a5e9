import assert from "node:assert/strict";
import { test } from "node:test";
import type { LayerChoice } from "../../../src/core/index.ts";
import { AutoParams } from "../../../src/service/kinds/auto/params.ts";
import { aimsOf, measuringWithin, mixedLayers } from "../../../src/service/kinds/auto/run/mixed.ts";

/** A layer whose noise in 8 bits is that of so many dB, and 18 dB more in 4 bits. */
function layer(node: string, db: number, us: { float: number; int8: number }): LayerChoice {
  const noise = 10 ** (-db / 10);
  return {
    nodes: [node],
    options: [
      { precision: "int8", noise, bytes: -750, us: us.int8 },
      { precision: "int8_weights", noise: noise / 4, bytes: -750, us: us.float },
      { precision: "int4_weights", noise: noise * 63, bytes: -860, us: us.float },
      { precision: "float32", noise: 0, bytes: 0, us: us.float },
    ],
  };
}

const CHOICES = [
  layer("loud", 20, { float: 100, int8: 50 }),
  layer("quiet", 60, { float: 100, int8: 50 }),
  layer("slow", 40, { float: 100, int8: 120 }),
];

const paramsOf = (objective: string, min_sqnr_db: number | null) =>
  AutoParams.parse({ dataset_id: "d", objective, constraints: { min_sqnr_db } });

const [fastest, smallest] = aimsOf(18, paramsOf("latency", 25), true);

test("with a constraint both aims keep to it, and half a dB more, because trials are on few samples; without one they keep to the quality of static, and one is better", () => {
  assert.deepEqual(
    aimsOf(18, paramsOf("latency", 25), true).map(({ name, leastDb }) => [name, leastDb]),
    [
      ["mixed-fastest", 25.5],
      ["mixed-smallest", 25.5],
    ],
  );
  assert.deepEqual(
    aimsOf(18, paramsOf("size", null), true).map(({ name, leastDb }) => [name, leastDb]),
    [
      ["mixed-smallest", 18],
      ["mixed-fastest", 18],
      ["mixed-better", 24],
    ],
  );
  assert.deepEqual(
    aimsOf(18, paramsOf("latency", null), false).map(({ name }) => name),
    ["mixed-smallest"],
    "no layer was timed",
  );
});

test("the smallest model has 4 bits where they are not heard, the fastest 8 bits where they are fast, and both keep to the noise", () => {
  // 25 dB: the loud layer alone, at 20 dB, is too much in 8 bits, and at 26 dB it is not as stored weights.
  assert.deepEqual(mixedLayers(CHOICES, smallest!, 0), {
    ...{ loud: "int8_weights", quiet: "int4_weights" },
    // As small as in 8 bits, and faster.
    slow: "int8_weights",
  });
  assert.deepEqual(mixedLayers(CHOICES, fastest!, 0), { loud: "int8_weights", slow: "int8_weights" });
  // With 8 dB less the loud layer must stay as it is.
  assert.equal(mixedLayers(CHOICES, smallest!, 8)!.loud, "float32");
  // With 6 dB more to spend even that may be in 8 bits.
  assert.deepEqual(mixedLayers(CHOICES, fastest!, -6), { slow: "int8_weights" });
});

test("layers are measured for half of the time at most, and leave as much as plain static quantization took, but where that is nearly all", () => {
  assert.equal(measuringWithin(40_000, 10_000), 20_000);
  assert.equal(measuringWithin(40_000, 25_000), 15_000);
  assert.equal(measuringWithin(40_000, 39_000), 10_000);
});
