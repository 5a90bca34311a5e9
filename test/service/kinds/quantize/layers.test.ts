import assert from "node:assert/strict";
import { test } from "node:test";
import { checkExclusions } from "../../../../src/service/kinds/quantize/run/quantize-job.ts";
import { writeNpz } from "../../../support/dataset-writers.ts";
import { GraphMaker, mlp } from "../../../support/graphs.ts";
import { quantizeJob, quantizePlan } from "../../../support/quantize-job.ts";

const data = () => writeNpz({ x: new GraphMaker({ seed: 9 }).random([40, 16], 1) });
const params = {
  ...{ method: "static", dataset_id: "dst_1", samples: 20, float_where_slower: false, min_sqnr_db: null },
  layers: { gemm_node: "int8_weights", gemm_node_1: "float32", relu_node: "float32" },
};

test("layers compute in what the job says, in the plan and in the result; of one that changes nothing that is said", async () => {
  const plan = await quantizePlan(mlp(), { params, dataset: data() });
  const { report } = await quantizeJob(mlp(), { params, dataset: data(), evaluation: { samples: 4 } });
  for (const notes of [[...plan.quantized_nodes, ...plan.skipped_nodes], report.nodes]) {
    const codes = Object.fromEntries(notes.map(({ name, code }) => [name, code]));
    assert.deepEqual(
      [codes.gemm_node, codes.gemm_node_1, codes.relu_node],
      ["stored_codes", "asked", "asked"],
      JSON.stringify(notes),
    );
  }
});

test("a name that no node has is refused, with its place and the nearest there is", () => {
  assert.deepEqual(checkExclusions(mlp(), { nodes: [], ops: [], layers: ["gemm_node", "gemm_nod"] }), [
    {
      pointer: "/params/layers/gemm_nod",
      code: "unknown_node",
      message: 'The model has no node "gemm_nod". Did you mean "gemm_node"?',
    },
  ]);
});
