import { uuidv7 } from "uuidv7";
import type { JobMetrics, ModelFacts } from "../../src/core/index.ts";
import type { JobRecord } from "../../src/service/jobs/job-store.ts";
import { Acceptance, Evaluation } from "../../src/service/kinds/evaluation.ts";
import type { JobSpec } from "../../src/service/kinds/kinds.ts";
import { QuantizeParams } from "../../src/service/kinds/quantize/params.ts";

/** A float16 job with every default, as the API would record it. */
export function queuedJob(
  fields: Partial<JobRecord> & { model_id?: string; dataset_id?: string; exclude_nodes?: string[] } = {},
): JobRecord {
  const { model_id = "mdl_a", dataset_id, exclude_nodes, ...rest } = fields;
  const sent = { method: "float16", ...(exclude_nodes && { exclude_nodes }) };
  const spec: JobSpec = {
    type: "quantize",
    model_id,
    params: QuantizeParams.parse(sent),
    evaluation: Evaluation.parse({ dataset_id: dataset_id ?? null }),
    acceptance: Acceptance.parse({}),
  };
  return {
    id: `job_${uuidv7()}`,
    status: "queued",
    spec,
    sent_params: sent,
    name: null,
    metadata: {},
    priority: 5,
    webhook: null,
    created_at: new Date().toISOString(),
    started_at: null,
    finished_at: null,
    retry_of: null,
    attempt: 0,
    handed_back: 0,
    progress: null,
    checkpoints: {},
    steps: [],
    result: null,
    error: null,
    ...rest,
  };
}

/** Facts of a model without nodes. */
export function factsSaying(producer: string): ModelFacts {
  return {
    ir_version: 10,
    opset_imports: { "ai.onnx": 21 },
    producer,
    inputs: [],
    outputs: [],
    nodes: 0,
    operators: {},
    parameters: 0,
    weight_bytes: 0,
    weight_bytes_by_dtype: {},
    activation_bytes: null,
    macs: null,
    trainable: { ok: true, subject: null, message: null },
  };
}

/** Metrics of a job that measured nothing. */
export function emptyMetrics(): JobMetrics {
  const timing = { p50_ms: 0, p90_ms: 0, mean_ms: 0 };
  return {
    size: { before_bytes: 0, after_bytes: 0, ratio: 0 },
    fidelity: { samples: 0, data: "synthetic", outputs: [] },
    accuracy: null,
    latency: {
      before: timing,
      after: timing,
      speedup: 1,
      speedup_interval: null,
      batch_size: 1,
      threads: 1,
      runs: 0,
      cpu: "",
    },
    memory: { before_peak_bytes: 0, after_peak_bytes: 0, baseline_bytes: 0 },
    coverage: { quantized_nodes: 0, skipped_nodes: [], fused_nodes: 0, float_islands: [] },
    training: null,
    exits: null,
    deployment: null,
    models: null,
    auto: null,
    acceptance: [],
    warnings: [],
    environment: { onnxruntime: "", cpu: "", isa: [], threads: 1, seed: 0, versions: {} },
  };
}
