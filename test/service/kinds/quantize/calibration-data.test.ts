import assert from "node:assert/strict";
import { test } from "node:test";
import { tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { writeNpz } from "../../../support/dataset-writers.ts";
import { GraphMaker } from "../../../support/graphs.ts";
import { quantizeJob } from "../../../support/quantize-job.ts";

/** ids [n, 4] → y [n, 4, 8] by a table of 10 rows. */
function lookup() {
  const make = new GraphMaker();
  const rows = make.op("Gather", [make.weight("table", [10, 16], 1), make.input("ids", ["n", 4], "int64")]);
  make.output(make.linear(rows, 16, 8), "y", ["n", 4, 8]);
  return make.model;
}

const ids = (largest: bigint) =>
  writeNpz({
    ids: tensorOf(
      "int64",
      [20, 4],
      BigInt64Array.from({ length: 80 }, (_, i) => (i === 7 ? largest : 3n)),
    ),
  });

const METHODS = { static: {}, weight_only: { rounding: "gptq" } };

for (const [method, more] of Object.entries(METHODS)) {
  const run = (dataset: Uint8Array) =>
    quantizeJob(lookup(), { params: { method, dataset_id: "dst_1", samples: 20, ...more }, dataset });

  test(`${method}: samples that the model does not run on are the fault of the data, not of the model`, async () => {
    await assert.rejects(run(ids(99n)), (error: Error & { code: string }) => {
      assert.equal(error.code, "invalid_dataset");
      assert.match(error.message, /^The original model cannot run on the calibration data\. .*(?:out of|bounds)/);
      return true;
    });
  });
}
