import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { cnn, GraphMaker } from "../support/graphs.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { fileOf } from "../support/model-file.ts";

/** Names that users give, over HTTP: those that nothing has are refused when the job is posted, and the others are found again in what comes out. */

let stack: Stack;
let jobs: LiveJobs;
before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  jobs = await openLiveJobs(stack);
});
after(() => stack?.close());

async function post(path: string, body: object): Promise<{ status: number; json: Record<string, never> }> {
  const answer = await fetch(`${stack.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return { status: answer.status, json: (await answer.json()) as Record<string, never> };
}

function twoLayers(): Uint8Array<ArrayBuffer> {
  const m = new GraphMaker();
  const x = m.input("x", ["n", 64]);
  const layer = (input: typeof x, name: string) =>
    m.graph.append({
      opType: "MatMul",
      name,
      inputs: [input, m.weight(`${name}_w`, [64, 64], 0.1)],
      outputs: [`${name}_y`],
    }).outputs[0]!;
  m.output(layer(m.op("Relu", [layer(x, "first")]), "second"), "y", ["n", 64]);
  return fileOf(m.model);
}

const METHODS = [{ method: "float16" }, { method: "dynamic" }, { method: "weight_only", bits: 8 }] as const;

test("names and operators that nothing has are refused at once, each with its place and the nearest there is", async () => {
  const { id } = await jobs.client.uploadModel(twoLayers(), "two");
  for (const params of METHODS) {
    for (const query of ["", "?validate_only=true"]) {
      const asked = { ...params, exclude_nodes: ["first", "frist"], exclude_ops: ["matmul"] };
      const { status, json } = await post(`/v1/jobs${query}`, { type: "quantize", model_id: id, params: asked });
      assert.equal(status, 422, JSON.stringify(json));
      assert.equal(json.code, "validation_failed");
      assert.deepEqual(json.errors, [
        {
          pointer: "/params/exclude_nodes/1",
          code: "unknown_node",
          message: 'The model has no node "frist". Did you mean "first"?',
        },
        {
          pointer: "/params/exclude_ops/0",
          code: "unknown_operator",
          message: 'The model has no operator "matmul". Did you mean "MatMul"?',
        },
      ]);
    }
  }
});

test("a node without a name has one label: in the layers, in the plan, in what is excluded and in the result", async () => {
  const model = cnn({ batchNorm: true, width: 16 });
  for (const node of model.nodes()) node.name = "";
  const { id } = await jobs.client.uploadModel(fileOf(model), "unnamed");
  const layers = (await (await jobs.client.request(`/v1/models/${id}/layers`)).json()) as {
    data: { name: string; op: string }[];
  };
  const convs = layers.data.filter(({ op }) => op === "Conv").map(({ name }) => name);
  assert.ok(convs.length >= 2);
  for (const params of METHODS) {
    const asked = { type: "quantize", model_id: id, params: { ...params, exclude_nodes: [convs[0]] } };
    const plan = await post("/v1/jobs?validate_only=true", asked);
    assert.equal(plan.status, 200, JSON.stringify(plan.json));
    const { skipped_nodes: skipped, quantized_nodes: quantized } = plan.json as unknown as Record<
      "skipped_nodes" | "quantized_nodes",
      { name: string; code: string }[]
    >;
    assert.deepEqual(
      skipped.filter(({ name }) => name === convs[0]).map(({ code }) => code),
      ["excluded"],
    );
    assert.ok(
      quantized.some(({ name }) => name === convs[1]),
      JSON.stringify(plan.json),
    );
    const job = await jobs.succeeded(await jobs.client.createJob({ ...asked, evaluation: { latency: { runs: 1 } } }));
    const { coverage } = job.result!.metrics as unknown as {
      coverage: { skipped_nodes: unknown; float_islands: { name: string }[]; quantized_nodes: number };
    };
    assert.deepEqual(coverage.skipped_nodes, skipped);
    assert.equal(coverage.quantized_nodes, quantized.length);
    const report = (await (await jobs.client.request(`/v1/jobs/${job.id}/artifacts/report.json`)).json()) as {
      layer_errors: { node: string }[] | null;
      plan: { weights: unknown[]; values: { name: string; dtype: string }[] };
    };
    const { weights, values } = plan.json as unknown as { weights: unknown[]; values: unknown[] };
    assert.deepEqual(report.plan.weights, weights);
    const rounded = report.plan.values.map(({ name, dtype }) => ({ name, dtype }));
    assert.deepEqual(rounded, values);
    if (params.method !== "float16") assert.ok(weights.length > 0);
    const listed = new Set(layers.data.map(({ name }) => name));
    for (const { node } of report.layer_errors ?? []) assert.ok(listed.has(node), node);
    for (const { name } of coverage.float_islands) assert.ok(listed.has(name), name);
  }
});

test("sizes are given by the name of a dimension, or by input and axis", async () => {
  const m = new GraphMaker();
  const x = m.input("x", ["n", "wide"]);
  m.output(m.op("Relu", [x]), "y", ["n", "wide"]);
  const { id } = await jobs.client.uploadModel(fileOf(m.model), "wide");
  const of = (dims: object) => ({
    type: "quantize",
    model_id: id,
    params: { method: "dynamic" },
    evaluation: { dims },
  });
  assert.equal((await post("/v1/jobs?validate_only=true", of({ "x.1": 8 }))).status, 200);
  const refused = await post("/v1/jobs", of({ wied: 8 }));
  assert.equal(refused.status, 422);
  assert.deepEqual(refused.json.errors, [
    {
      pointer: "/evaluation/dims/wied",
      code: "unknown_dimension",
      message: `The model's inputs have no symbolic dimension "wied". Did you mean "wide"?`,
    },
  ]);
});
