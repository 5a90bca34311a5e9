/** Examples for the API document; a test checks each against its schema. */

const modelId = "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90";
const datasetId = "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a";
const jobId = "job_0199d3b2-5a30-7e21-b8c4-0a1b2c3d4e5f";
const createdAt = "2026-10-01T09:30:00.000Z";
const sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

export const model = {
  id: modelId,
  object: "model",
  name: "rec",
  created_at: createdAt,
  sha256,
  size_bytes: 10822323,
  files: [{ name: "rec.onnx", size_bytes: 10822323, sha256 }],
  ir_version: 7,
  opset_imports: { "ai.onnx": 9 },
  producer: "PaddlePaddle",
  inputs: [{ name: "x", dtype: "float32", shape: ["n", 3, 48, "w"] }],
  outputs: [{ name: "softmax_11.tmp_0", dtype: "float32", shape: ["n", null, 6625] }],
  nodes: 440,
  operators: { Conv: 38, MatMul: 17 },
  parameters: 2680000,
  weight_bytes: 10700000,
  weight_bytes_by_dtype: { float32: 10700000 },
  activation_bytes: null,
  macs: null,
  trainable: { ok: true, subject: null, message: null },
  non_finite_weights: [],
  warnings: [],
  derived_from: null,
  metadata: { team: "ocr" },
};

export const modelSummary = {
  ...{ id: modelId, object: "model", name: "rec", created_at: createdAt, sha256, size_bytes: 10822323 },
  ...{ nodes: 440, parameters: 2680000, weight_bytes: 10700000, derived_from: null, metadata: { team: "ocr" } },
};

export const modelFromUploads = {
  uploads: [{ upload_id: "upl_0199d3b2-4e00-7b7b-8a8a-111213141516", filename: "rec.onnx" }],
  name: "rec",
  metadata: { team: "ocr" },
};

const address = "https://models.example.com/press";

export const modelFromSource = {
  source: { kind: "https", files: [{ url: `${address}/rec.onnx?X-Amz-Signature=…` }] },
  name: "recognizer",
};

export const datasetFromSource = {
  source: { kind: "https", files: [{ url: `${address}/lines.npz`, sha256: "c".repeat(64) }] },
};

export const renaming = { name: "recognizer v2", metadata: { team: "ocr", stage: "production" } };

export const layer = {
  name: "Conv.0",
  op: "Conv",
  weight: "conv2d_0.w_0",
  shape: [8, 3, 3, 3],
  parameters: 216,
  bytes: 864,
  dtype: "float32",
  weight_min: -0.91,
  weight_max: 0.87,
  channel_range_spread: 3.4,
  dead_channels: 0,
};

export const dataset = {
  id: datasetId,
  object: "dataset",
  name: "lines",
  created_at: createdAt,
  size_bytes: 94372154,
  sha256,
  samples: 512,
  fields: [
    {
      ...{ name: "x", dtype: "float32", shape: [3, 48, 320] },
      content: { min: -1, max: 1, non_finite: 0, first_non_finite: null },
    },
  ],
  has_labels: false,
  classes: null,
  class_count: null,
  labels: null,
  warnings: [],
  metadata: {},
};

export const datasetSummary = {
  ...{ id: datasetId, object: "dataset", name: "lines", created_at: createdAt, size_bytes: 94372154, sha256 },
  ...{ samples: 512, has_labels: false, metadata: {} },
};

const uploadOf = (filename: string) => ({
  uploads: [{ upload_id: "upl_0199d3b2-4e00-7b7b-8a8a-111213141516", filename }],
});

/** By format. */
export const datasetFromUploads = {
  arrays: { ...uploadOf("lines.npz"), name: "lines" },
  images: {
    ...uploadOf("photos.zip"),
    spec: {
      ...{ kind: "images", input: "pixels", size: [224, 224], resize: "crop", shorter_side: 256 },
      ...{ mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] },
    },
  },
  csv: {
    ...uploadOf("digits.csv"),
    spec: { kind: "csv", inputs: { x: { shape: [1, 28, 28] } }, labels: "label" },
  },
  jsonl: {
    ...uploadOf("sentences.jsonl"),
    spec: {
      kind: "jsonl",
      inputs: {
        input_ids: { columns: ["input_ids"], dtype: "int64" },
        attention_mask: { columns: ["attention_mask"], dtype: "int64" },
      },
      labels: "label",
    },
  },
};

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

export const link = {
  url: "https://press.example.com/v1/jobs/job_0199d3b2-4f6e-7000-8000-000000000003/report?expires=1767225600&signature=Zm9yIHRoaXMgZmlsZSBvbmx5",
  expires_at: "2026-01-01T00:00:00.000Z",
};

export const webhookSecret = {
  url: "https://ci.example.com/hooks/modelpress",
  secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
  previous_valid_until: null,
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
