import type { JobMetrics, LayerError, ModelFacts, OutputFidelity } from "../../src/core/facts.ts";

/** Results as they might be, for tests that are about one part of them. */

/** The error of a layer that the job has changed, which reads what has none. */
export function layerErrorFixture(node: string, sqnr_db: number | null, part: Partial<LayerError> = {}): LayerError {
  return { node, op: "Conv", sqnr_db, input_sqnr_db: null, changed: true, ...part };
}

export function outputFixture(part: Partial<OutputFidelity> = {}): OutputFidelity {
  return {
    name: "y",
    sqnr_db: 31.4,
    cosine: 0.99964,
    min_value: 0,
    max_value: 1,
    max_abs_error: 0.02,
    mean_abs_error: 0.003,
    top1_agreement: 0.99,
    sqnr_interval_db: [30.9, 31.9],
    top1_agreement_interval: [0.981, 0.995],
    non_finite: 0,
    shape_mismatches: 0,
    ...part,
  };
}

export function accuracyFixture(part: Partial<NonNullable<JobMetrics["accuracy"]>> = {}): JobMetrics["accuracy"] {
  return {
    metric: "top1",
    before: 0.9,
    after: 0.88,
    drop: 0.02,
    samples: 100,
    interval: [-0.01, 0.05],
    before_interval: [0.826, 0.945],
    after_interval: [0.802, 0.93],
    ...part,
  };
}

export function metricsFixture(part: Partial<JobMetrics> = {}): JobMetrics {
  return {
    size: { before_bytes: 10_000_000, after_bytes: 2_700_000, ratio: 0.27 },
    fidelity: { samples: 16, data: "synthetic", outputs: [outputFixture()] },
    accuracy: null,
    latency: {
      before: { p50_ms: 20, p90_ms: 22, mean_ms: 20.5 },
      after: { p50_ms: 10, p90_ms: 12, mean_ms: 10.5 },
      speedup: 2,
      speedup_interval: null,
      batch_size: 1,
      threads: 1,
      runs: 3,
      cpu: "A processor",
    },
    memory: { before_peak_bytes: 150_000_000, after_peak_bytes: 120_000_000, baseline_bytes: 80_000_000 },
    coverage: { quantized_nodes: 0, skipped_nodes: [], fused_nodes: 0, float_islands: [] },
    training: null,
    exits: null,
    deployment: null,
    models: null,
    auto: null,
    acceptance: [],
    warnings: [],
    environment: { onnxruntime: "1.30.0", cpu: "A processor", isa: ["avx2"], threads: 1, seed: 0, versions: {} },
    ...part,
  };
}

export function modelFactsFixture(part: Partial<ModelFacts> = {}): ModelFacts {
  return {
    ir_version: 8,
    opset_imports: { "ai.onnx": 17 },
    producer: "a test",
    inputs: [{ name: "x", dtype: "float32", shape: ["n", 4] }],
    outputs: [{ name: "y", dtype: "float32", shape: ["n", 2] }],
    nodes: 3,
    operators: { MatMul: 2, Relu: 1 },
    parameters: 2_500_000,
    weight_bytes: 10_000_000,
    weight_bytes_by_dtype: { float32: 10_000_000 },
    activation_bytes: null,
    macs: null,
    trainable: { ok: true, subject: null, message: null },
    ...part,
  };
}
