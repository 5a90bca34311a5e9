/** Examples of jobs, for the API's document. */
import { createdAt, datasetId, jobId, modelId, sha256 } from "./examples.ts";

export const createJobRequest = {
  type: "quantize",
  model_id: modelId,
  params: { method: "weight_only", bits: 4, block_size: 32, format: "qdq" },
  evaluation: { dataset_id: datasetId, samples: 100, dims: { w: 320 }, latency: { runs: 50, threads: 1 } },
  acceptance: { min_sqnr_db: 20, max_size_ratio: 0.3 },
  name: "rec in 4 bits",
};

export const createSimplifyJobRequest = {
  type: "quantize",
  model_id: modelId,
  params: { method: "simplify", exclude_nodes: ["/head/Mul"] },
  name: "the same, with fewer nodes",
};

export const createDistillJobRequest = {
  type: "distill",
  params: {
    mode: "offline",
    teacher_model_id: modelId,
    dataset_id: datasetId,
    student: { derive: { width: 0.5 } },
    loss: { temperature: 4, kl_weight: 0.9, label_weight: 0.1 },
    training: { epochs: 10, batch_size: 128, learning_rate: 0.005 },
    baseline: true,
  },
  name: "half as wide",
};

export const createOnlineJobRequest = {
  type: "distill",
  params: {
    mode: "online",
    dataset_id: datasetId,
    student: { model_id: modelId, init: "reinitialize" },
    peers: 2,
    update: "simultaneous",
    loss: { temperature: 1, kl_weight: 1, label_weight: 1 },
    training: { epochs: 20 },
    baseline: true,
  },
  name: "two peers",
};

export const createSelfJobRequest = {
  type: "distill",
  params: {
    mode: "self",
    self_kind: "be_your_own_teacher",
    dataset_id: datasetId,
    student: { model_id: modelId },
    exits: 2,
    keep_exits: true,
    training: { epochs: 20 },
  },
  name: "early exits",
};

export const createTrainingJobRequest = {
  type: "distill",
  params: {
    mode: "offline",
    dataset_id: datasetId,
    student: { model_id: modelId, init: "reinitialize" },
    loss: { kl_weight: 0, label_weight: 1 },
    training: { epochs: 20, augmentation: { input: "x", flip: true, shift_pixels: 4 } },
  },
  name: "from scratch",
};

export const createQatJobRequest = {
  type: "quantize",
  model_id: modelId,
  params: {
    method: "qat",
    dataset_id: datasetId,
    bits: { weights: 4, activations: 8 },
    training: { epochs: 3, batch_size: 64, learning_rate: 0.0005 },
  },
  evaluation: { dataset_id: "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5b" },
  acceptance: { max_metric_drop: 0.01 },
  name: "rec, trained in 4 bits",
};

export const createPipelineJobRequest = {
  type: "pipeline",
  params: {
    steps: [
      {
        type: "distill",
        name: "half",
        params: {
          mode: "offline",
          teacher_model_id: modelId,
          dataset_id: datasetId,
          student: { derive: { width: 0.5 } },
          training: { epochs: 10 },
        },
      },
      { type: "quantize", name: "int8", params: { method: "static", dataset_id: datasetId } },
    ],
  },
  evaluation: { dataset_id: "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5b" },
  acceptance: { max_size_ratio: 0.1, max_metric_drop: 0.01 },
  name: "half as wide, in int8",
};

export const createAutoJobRequest = {
  type: "auto",
  model_id: modelId,
  params: {
    dataset_id: datasetId,
    objective: "latency",
    constraints: { max_metric_drop: 0.005, max_size_ratio: 0.5 },
    budget: { seconds: 300 },
  },
  evaluation: { dataset_id: "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5b" },
  name: "the fastest that loses less than half a percent",
};

export const createEvaluateJobRequest = {
  type: "evaluate",
  params: { model_ids: [modelId, "mdl_0199d3b2-7e11-7f00-9a9b-21222324252f"], batch_sizes: [1, 8], threads: [1, 2] },
  evaluation: { dataset_id: datasetId },
  acceptance: { max_metric_drop: 0.005, min_speedup: 1.2 },
  name: "before the rollout",
};

const params = {
  method: "weight_only",
  bits: 4,
  block_size: 32,
  symmetric: false,
  algorithm: "rtn",
  dataset_id: null,
  samples: 128,
  format: "qdq",
  embeddings: true,
  accuracy_level: 4,
  exclude_nodes: [],
  exclude_ops: [],
  target: "auto",
  seed: 0,
};

export const queuedJob = {
  id: jobId,
  object: "job",
  type: "quantize",
  status: "queued",
  name: "rec in 4 bits",
  model_id: modelId,
  params: createJobRequest.params,
  effective_params: params,
  evaluation: {
    dataset_id: datasetId,
    samples: 100,
    metric: null,
    ignore_label: null,
    dims: { w: 320 },
    layer_errors: true,
    latency: { runs: 50, batch_size: 1, threads: 1 },
  },
  acceptance: { min_sqnr_db: 20, max_size_ratio: 0.3 },
  metadata: {},
  priority: 5,
  progress: null,
  queue_position: 1,
  attempt: 0,
  handed_back: 0,
  created_at: createdAt,
  started_at: null,
  finished_at: null,
  delivery: null,
  retry_of: null,
  result: null,
  error: null,
};

export const jobSummary = {
  ...{ id: jobId, object: "job", type: "quantize", method: params.method, status: "queued", name: queuedJob.name },
  ...{ metadata: {}, model_id: modelId, priority: 5, progress: null, queue_position: 1, attempt: 0 },
  ...{ created_at: createdAt, started_at: null, finished_at: null, retry_of: null, result: null, error: null },
};

const skipped = {
  name: "Conv.0",
  op: "Conv",
  code: "too_few_weights",
  message: "Its weights are too few to be worth the scales.",
};

export const finishedJob = {
  ...queuedJob,
  status: "succeeded",
  queue_position: null,
  attempt: 1,
  handed_back: 0,
  started_at: "2026-10-01T09:30:00.120Z",
  finished_at: "2026-10-01T09:30:09.480Z",
  progress: { step: "done", fraction: 1, message: "" },
  result: {
    model_id: "mdl_0199d3b2-7e11-7f00-9a9b-21222324252f",
    accepted: true,
    artifacts: [
      {
        name: "model.onnx",
        media_type: "application/octet-stream",
        size_bytes: 2164464,
        sha256,
        url: `/v1/jobs/${jobId}/artifacts/model.onnx`,
      },
    ],
    metrics: {
      size: { before_bytes: 10822323, after_bytes: 2164464, ratio: 0.2 },
      fidelity: {
        samples: 100,
        data: "evaluation",
        outputs: [
          {
            name: "softmax_11.tmp_0",
            sqnr_db: 24.1,
            cosine: 0.998,
            min_value: 0,
            max_value: 1,
            max_abs_error: 0.21,
            mean_abs_error: 0.0004,
            top1_agreement: 0.994,
            sqnr_interval_db: [23.8, 24.5] as [number, number],
            top1_agreement_interval: [0.988, 0.998] as [number, number],
            non_finite: 0,
            shape_mismatches: 0,
          },
        ],
      },
      accuracy: null,
      latency: {
        before: { p50_ms: 41.2, p90_ms: 44.0, mean_ms: 41.9 },
        after: { p50_ms: 39.8, p90_ms: 42.1, mean_ms: 40.2 },
        speedup: 1.035,
        speedup_interval: [1.01, 1.06] as [number, number],
        batch_size: 1,
        threads: 1,
        runs: 50,
        cpu: "AMD EPYC",
      },
      memory: { baseline_bytes: 52428800, before_peak_bytes: 96468992, after_peak_bytes: 88080384 },
      coverage: { quantized_nodes: 54, skipped_nodes: [skipped], fused_nodes: 0, float_islands: [] },
      training: null,
      exits: null,
      deployment: null,
      models: null,
      auto: null,
      acceptance: [
        { name: "min_sqnr_db", limit: 20, value: 24.1, ok: true },
        { name: "max_size_ratio", limit: 0.3, value: 0.2, ok: true },
      ],
      warnings: [],
      environment: {
        onnxruntime: "1.30.0",
        cpu: "AMD EPYC",
        isa: ["avx2"],
        threads: 1,
        seed: 0,
        versions: { modelpress: "0.1.0" },
      },
    },
    steps: null,
  },
};

export const plan = {
  warnings: [],
  type: "quantize",
  method: "weight_only",
  weights: [
    {
      ...{ name: "linear_3.w_0", nodes: ["MatMul.3"], bits: 4, signed: false, symmetric: false },
      ...{ granularity: "block", block_size: 32, storage: "matmulnbits" },
    },
  ],
  values: [],
  quantized_nodes: [{ name: "MatMul.3", op: "MatMul", code: "quantized", message: "4 bits in blocks of 32." }],
  skipped_nodes: [skipped],
  size: { before_bytes: 10822323, predicted_bytes: 2200000, ratio: 0.203 },
  provisional: [],
};

export const event = {
  id: 7,
  at: "2026-10-01T09:30:04.000Z",
  type: "progress",
  data: { step: "quantize", fraction: 0.4, message: "22 of 54 nodes" },
};

const { size, accuracy, latency, memory, acceptance } = finishedJob.result.metrics;
export const comparison = {
  jobs: [
    {
      ...{ job_id: finishedJob.id, name: null, type: "quantize", method: "weight_only", title: "Weights in 4 bits" },
      ...{ status: "succeeded", model_id: finishedJob.model_id, result_model_id: finishedJob.result.model_id },
      ...{ accepted: true, created_at: finishedJob.created_at, finished_at: finishedJob.finished_at },
      metrics: { size, accuracy, latency, memory, acceptance, worst_sqnr_db: 24.1, fidelity_data: "synthetic" },
    },
  ],
  differences: [],
};
