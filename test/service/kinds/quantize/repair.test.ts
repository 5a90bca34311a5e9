import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BrokenModel } from "../../../../src/core/index.ts";
import type { Model } from "../../../../src/core/onnx/ir.ts";
import { inferDTypes } from "../../../../src/core/passes/value-dtypes.ts";
import type { JobEnvironment } from "../../../../src/service/kinds/run/job-environment.ts";
import { openWrittenModel } from "../../../../workers/model-files.ts";
import { ENVIRONMENT } from "../../../../workers/tasks.ts";
import { GraphMaker, mlp } from "../../../support/graphs.ts";
import { quantizeJob } from "../../../support/quantize-job.ts";
import { assertRecorded } from "../../../support/recorded.ts";

/** x → four linear layers, each behind another activation. */
function activations(): Model {
  const make = new GraphMaker();
  let x = make.input("x", [2, 8]);
  for (const op of ["Tanh", "Relu", "Tanh", "Sigmoid"]) x = make.op(op, [make.linear(x, 8, 8)]);
  make.output(x, "y", [2, 8]);
  return make.model;
}

/** A runtime in which a model ends its process when `breaks` holds of it; counts the processes. */
function fragile(breaks: (model: Model) => boolean): { environment: Partial<JobEnvironment>; runs: () => number } {
  let runs = 0;
  return {
    runs: () => runs,
    environment: {
      measurePeak: (request, signal) => {
        runs++;
        if (breaks(openWrittenModel(request.modelPath))) throw new BrokenModel("It crashed (SIGSEGV).");
        return ENVIRONMENT.measurePeak(request, signal);
      },
    },
  };
}

function isHalf(model: Model, opType: string): boolean {
  const types = inferDTypes(model);
  return [...model.nodes()].some((node) => node.opType === opType && types.get(node.outputs[0]!) === "float16");
}

const skipped = (notes: readonly { name: string; code: string }[]) =>
  notes.map(({ name, code }) => `${name} ${code}`).sort();

describe("a result that does not run", () => {
  it("is made again without the nodes at fault, and says which", async () => {
    const { environment } = fragile((model) => isHalf(model, "Sigmoid"));
    const { model, metrics } = await quantizeJob(activations(), { params: { method: "float16" }, environment });
    assert.deepEqual(skipped(metrics.coverage.skipped_nodes), ["sigmoid_node does_not_run"]);
    assert.match(metrics.coverage.skipped_nodes[0]!.message, /SIGSEGV/);
    assert.ok(isHalf(model, "Tanh") && !isHalf(model, "Sigmoid"));
    assertRecorded(metrics.fidelity.outputs[0]!.sqnr_db, 81.2, 1.5);
  });

  it("is made again without an operator, after two nodes of it", async () => {
    const { environment } = fragile((model) => isHalf(model, "Tanh"));
    const { metrics } = await quantizeJob(activations(), { params: { method: "float16" }, environment });
    assert.deepEqual(skipped(metrics.coverage.skipped_nodes), ["tanh_node does_not_run", "tanh_node_1 does_not_run"]);
  });

  it("of another method too", async () => {
    const isQuantized = ({ opType }: { opType: string }) => opType === "DynamicQuantizeMatMul";
    const broken = (model: Model) => [...model.nodes()].filter(isQuantized).length === 2;
    const { environment } = fragile(broken);
    const { metrics } = await quantizeJob(mlp({ sizes: [64, 64, 64] }), { params: { method: "dynamic" }, environment });
    assert.deepEqual(
      metrics.coverage.skipped_nodes.map(({ code, op }) => [code, op]),
      [["does_not_run", "Gemm"]],
    );
  });

  it("is given up when no node is at fault, as a fault of ours", async () => {
    const { environment, runs } = fragile((model) => model.graph.name === "main");
    await assert.rejects(quantizeJob(activations(), { params: { method: "float16" }, environment }), {
      code: "internal",
      message: /fault of the compression, not of the model\. It crashed \(SIGSEGV\)/,
    });
    assert.equal(runs(), 2);
  });
});
