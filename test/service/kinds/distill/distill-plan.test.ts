import assert from "node:assert/strict";
import { test } from "node:test";
import { memorySource } from "../../../../src/core/data/byte-source.ts";
import { inspectDataset, openDataset } from "../../../../src/core/data/dataset.ts";
import { type Dataset, tensorOf } from "../../../../src/core/index.ts";
import { openSession } from "../../../../src/core/runtime/session.ts";
import { JobRequest } from "../../../../src/service/api/job-schemas.ts";
import { planDistillJob } from "../../../../src/service/kinds/distill/run/distill-job.ts";
import type { DistillSpec } from "../../../../src/service/kinds/distill/spec.ts";
import type { JobEnvironment } from "../../../../src/service/kinds/run/job-environment.ts";
import { writeNpz } from "../../../support/dataset-writers.ts";
import { mlp } from "../../../support/networks.ts";

const COUNT = 500;

test("a plan counts all samples of its datasets, and reads a few", async () => {
  const file = writeNpz({
    x: tensorOf("float32", [COUNT, 1, 28, 28], new Float32Array(COUNT * 784)),
    labels: tensorOf("int64", [COUNT], new BigInt64Array(COUNT)),
  });
  const prepared: number[] = [];
  async function openWatched(): Promise<Dataset> {
    const dataset = await openDataset(memorySource(file));
    return {
      facts: dataset.facts,
      batches: dataset.batches.bind(dataset),
      gather: dataset.gather.bind(dataset),
      prepare(indices, signal) {
        prepared.push(indices.length);
        return dataset.prepare(indices, signal);
      },
    };
  }
  const environment = {
    openSession,
    files: { openModel: () => mlp([784, 16, 10]), openDataset: openWatched },
  } as unknown as JobEnvironment;
  const spec = JobRequest.parse({
    type: "distill",
    params: {
      ...{ mode: "offline", dataset_id: "dst_1", student: { model_id: "mdl_1" } },
      loss: { kl_weight: 0, label_weight: 1 },
      training: { epochs: 2, batch_size: 50, validation_split: 0.1 },
    },
    evaluation: { dataset_id: "dst_2", samples: 300 },
  }) as unknown as DistillSpec;
  const stored = {
    files: [],
    facts: {
      inputs: [{ name: "x", dtype: "float32", shape: ["n", 1, 28, 28] }],
      outputs: [{ name: "logits", dtype: "float32", shape: ["n", 10] }],
    },
  };
  const facts = await inspectDataset(memorySource(file));
  const dataset = { file: { name: "x.npz", path: "x.npz" }, spec: null, facts };
  const plan = await planDistillJob(
    {
      spec,
      models: { mdl_1: stored } as unknown as Parameters<typeof planDistillJob>[0]["models"],
      datasets: { dst_1: dataset, dst_2: dataset },
    },
    environment,
    { signal: new AbortController().signal, news: () => {} },
  );
  assert.equal(plan.training_samples, 450);
  assert.equal(plan.validation_samples, 50);
  assert.equal(plan.optimizer_steps, 18);
  assert.deepEqual(prepared, [64, 64]);
});
