import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { originOf, readKernelProfile } from "../../../src/core/runtime/kernel-profile.ts";

const run = (ts: number) => ({ cat: "Session", name: "model_run", ts, dur: 100 });
const kernel = (name: string, ts: number, dur: number, args?: object) => ({
  ...{ cat: "Node", name: `${name}_kernel_time`, ts, dur },
  ...(args && { args }),
});
const CONV = { op_name: "Conv", output_type_shape: [{ float: [2, 3, 4] }, { float: [7] }] };

describe("readKernelProfile", () => {
  it("sums the calls of a kernel in one run, and takes the least of the runs that count", () => {
    const events = [
      // As it comes, not in the order of time.
      run(2000),
      run(1000),
      run(0),
      ...[kernel("conv", 10, 1, CONV), kernel("relu", 20, 1, { op_name: "Relu" })],
      ...[kernel("conv", 1010, 30, CONV), kernel("relu", 1050, 4, { op_name: "Relu" }), kernel("relu", 1060, 5)],
      ...[kernel("conv", 2000, 40, CONV), kernel("relu", 2050, 6, { op_name: "Relu" }), kernel("relu", 2100, 2)],
      // Beside the runs, and of other kinds.
      kernel("conv", 1500, 2, CONV),
      { ...kernel("conv", 2020, 1, CONV), cat: "Session" },
      { cat: "Node", name: "conv_fence_before", ts: 2010, dur: 1 },
    ];
    assert.deepEqual(readKernelProfile(JSON.stringify(events), 1), [
      { name: "conv", op: "Conv", elements: 24, us: 30 },
      { name: "relu", op: "Relu", elements: 0, us: 8 },
    ]);
    assert.deepEqual(
      readKernelProfile(JSON.stringify(events), 0).map(({ us }) => us),
      [1, 1],
    );
  });

  it("counts the elements of the first output, as far as they are told", () => {
    const elementsOf = (args?: object) =>
      readKernelProfile(JSON.stringify([run(0), kernel("k", 1, 1, args)]), 0)[0]!.elements;
    assert.deepEqual(
      [
        { output_type_shape: [{ float: [] }] },
        { output_type_shape: [{ float: [5, 0] }] },
        { output_type_shape: [] },
        {},
        undefined,
      ].map(elementsOf),
      [1, 0, 0, 0, 0],
    );
    assert.equal(readKernelProfile(JSON.stringify([run(0), kernel("k", 1, 1)]), 0)[0]!.op, "");
  });

  it("refuses a profile in which nothing that counts has run", () => {
    for (const events of [[], [kernel("k", 1, 1)], [run(0), kernel("k", 1, 1)]]) {
      assert.throws(() => readKernelProfile(JSON.stringify(events), 1), { code: "internal" });
    }
  });
});

it("names of kernels lead to what they were made of", () => {
  for (const [name, origin] of [
    ["conv_1", "conv_1"],
    ["conv_1_nchwc", "conv_1"],
    ["/layer/Conv_quant", "/layer/Conv"],
    ["ln/LayerNormFusion/", "ln"],
    ["ln/LayerNormFusion", "ln"],
    ["x_token_12", "x"],
    ["x_nchwc_quant", "x"],
    ["quantized", "quantized"],
  ] as const) {
    assert.equal(originOf(name), origin);
  }
});
