/** Examples for the API document; a test checks each against its schema. */

export const modelId = "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90";
export const datasetId = "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a";
export const jobId = "job_0199d3b2-5a30-7e21-b8c4-0a1b2c3d4e5f";
export const createdAt = "2026-10-01T09:30:00.000Z";
export const sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

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
  outputs: [
    {
      ...{ name: "softmax_11.tmp_0", dtype: "float32", shape: ["n", null, 6625] },
      meaning: { kind: "class_scores", class_axis: null, evident: true },
    },
  ],
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

export const link = {
  url: "https://press.example.com/v1/jobs/job_0199d3b2-4f6e-7000-8000-000000000003/report?expires=1767225600&signature=Zm9yIHRoaXMgZmlsZSBvbmx5",
  expires_at: "2026-01-01T00:00:00.000Z",
};

export const webhookSecret = {
  url: "https://ci.example.com/hooks/modelpress",
  secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
  previous_valid_until: null,
};
