import type { Evaluation } from "../../src/core/evaluate/evaluate.ts";
import type { JobMetrics, LayerError, StaticEvidence } from "../../src/core/facts.ts";
import type { Note } from "../../src/core/passes/pass.ts";
import { buildReport, type Report } from "../../src/report/report.ts";
import { uniformSource } from "./graphs.ts";
import { accuracyFixture, metricsFixture, modelFactsFixture } from "./metrics.ts";

/** Reports as they might be, for tests of the page. */

export interface ReportFixture {
  readonly metrics?: Partial<JobMetrics>;
  readonly notes?: readonly Note[];
  readonly job?: Partial<Report["job"]>;
  readonly quantization?: StaticEvidence;
  readonly layerErrors?: readonly LayerError[] | null;
  readonly samplesMs?: Evaluation["latencySamplesMs"];
  readonly models?: Report["models"];
  readonly title?: string;
  readonly heldAgainst?: Report["held_against"];
  readonly origins?: Report["origins"];
  readonly next?: Report["next"];
  readonly request?: object;
}

export function reportFixture(parts: ReportFixture = {}): Report {
  const { metrics = {}, notes = [], job = {}, quantization, layerErrors = null, samplesMs, models } = parts;
  const evaluation: Evaluation = {
    metrics: metricsFixture(metrics),
    accepted: metrics.acceptance?.every(({ ok }) => ok) ?? true,
    inputShapes: { x: [1, 4] },
    latencySamplesMs: samplesMs ?? { before: [20, 21.5, 19], after: [10, 9.5, 11] },
    optimizedOperators: { MatMulNBits: 2, Relu: 1 },
    layerErrors,
    timingsMs: { fidelity: 12.3456 },
  };
  return buildReport({
    createdAt: new Date(Date.UTC(2026, 0, 2, 3, 4, 5)),
    job: {
      id: "job_1",
      type: "quantize",
      params: { method: "weight_only", bits: 4 },
      evaluation: { samples: 16 },
      acceptance: {},
      ...job,
    },
    heldAgainst: parts.heldAgainst ?? "original",
    title: parts.title ?? "4-bit weights in blocks of 32",
    request: parts.request ?? { type: "quantize", model_id: "mdl_1", params: { method: "weight_only" } },
    next: parts.next ?? [],
    origins: parts.origins ?? {
      before: { id: "mdl_1", name: "a model", sha256: "a".repeat(64) },
      after: { id: null, name: "model.onnx", sha256: "b".repeat(64) },
    },
    evaluation,
    models: models ?? {
      before: modelFactsFixture(),
      after: modelFactsFixture({ weight_bytes_by_dtype: { uint8: 2_600_000 } }),
    },
    notes,
    quantization,
    timingsMs: { compress: 250 },
  });
}

/** Names as exporters give them. */
export function nodeName(i: number): string {
  return `/features/features.${Math.floor(i / 3)}/conv/conv.${i % 3}/Conv`;
}

/** A static job with all that such a job can have to tell: corrections, sensitivity, a curve, an error for each of `layers` layers. */
export function staticReportFixture(layers = 52): Report {
  const uniform = uniformSource(3);
  const names = Array.from({ length: layers }, (_, i) => nodeName(i));
  const ratios = names.map((_, i) =>
    i === 1 ? null : 42 - (22 * i) / layers + 6 * uniform() - (i % 17 === 9 ? 12 : 0),
  );
  const layerErrors = names.map((node, i) => ({
    ...{ node, op: "Conv", sqnr_db: ratios[i]!, input_sqnr_db: ratios[i - 1] ?? null, changed: i % 13 !== 12 },
  }));
  const trials = Array.from({ length: 14 }, (_, i) => ({
    float_nodes: names.slice(0, i),
    score: 0.6853 + 0.031 * (1 - Math.exp(-i / 4)) + 0.001 * uniform(),
    size_bytes: 3_650_000 + 240_000 * i,
    speedup: 2.4 - 0.07 * i,
    chosen: i === 9,
  }));
  const runs = (median: number) =>
    Array.from({ length: 50 }, (_, i) => median * (0.97 + 0.09 * uniform() + (i === 30 ? 3 : 0)));
  const samplesMs = { before: runs(21.3), after: runs(10.1) };
  const islands = [
    {
      name: "/classifier/Softmax",
      op: "Softmax",
      code: "no_integer_kernel",
      message: "onnxruntime has no integer kernel for Softmax.",
    },
  ] as const;
  const skipped: Note[] = [
    {
      outcome: "skipped",
      name: names[0]!,
      op: "Conv",
      code: "kept_for_accuracy",
      message: "In float the model keeps its accuracy.",
    },
    {
      outcome: "skipped",
      name: "/classifier/Gemm",
      op: "Gemm",
      code: "excluded",
      message: "The job excludes this node.",
    },
    ...names.slice(1, 9).map((name): Note => ({ ...ACCURACY, name })),
  ];
  const changed = names
    .slice(9)
    .map(
      (name): Note => ({ outcome: "changed", name, op: "Conv", code: "quantized", message: "It computes in 8 bits." }),
    );
  return reportFixture({
    models: {
      before: modelFactsFixture({ weight_bytes: 13_900_000, weight_bytes_by_dtype: { float32: 13_900_000 } }),
      after: modelFactsFixture({
        weight_bytes: 5_714_000,
        weight_bytes_by_dtype: { int8: 2_790_000, float32: 2_840_000, int32: 84_000 },
      }),
    },
    samplesMs,
    layerErrors,
    notes: [...skipped, ...changed],
    job: {
      name: "mobilenet v2, static",
      params: { method: "static", calibration: { method: "entropy", samples: 256 }, per_channel: true },
      acceptance: { max_metric_drop: 0.01 },
    },
    metrics: {
      size: { before_bytes: 13_964_000, after_bytes: 5_810_000, ratio: 5_810_000 / 13_964_000 },
      accuracy: accuracyFixture({
        ...{ before: 0.7188, after: 0.7124, drop: 0.0064, samples: 5000, interval: [0.002, 0.011] },
        ...{ before_interval: [0.706, 0.731], after_interval: [0.7, 0.725] },
      }),
      latency: {
        before: { p50_ms: 21.6, p90_ms: 22.4, mean_ms: 21.9 },
        after: { p50_ms: 10.2, p90_ms: 10.7, mean_ms: 10.6 },
        ...{ speedup: 2.12, speedup_interval: null, batch_size: 1, threads: 1, runs: 50, cpu: "A processor" },
      },
      coverage: {
        quantized_nodes: changed.length,
        skipped_nodes: skipped.map(({ outcome: _, ...note }) => note),
        fused_nodes: changed.length,
        float_islands: islands,
      },
      acceptance: [{ name: "max_metric_drop", limit: 0.01, value: 0.0064, ok: true }],
    },
    quantization: {
      calibration: { method: "entropy", tried: [], samples: 256, tensors: 104, cached: false },
      kernels: {
        ...{ basis: "measured", float_ms: 12.5, int8_speedup: 1.4, mixed_speedup: 1.52, predicted_speedup: 1.55 },
        ...{ chosen: "mixed", nodes: ["layer 1"], layers: [], cached: false },
      },
      corrections: [
        { name: "cross_layer_equalization", sqnr_before_db: 6.2, sqnr_after_db: 19.4, applied: true },
        { name: "bias_correction", sqnr_before_db: 19.4, sqnr_after_db: 22.1, applied: true },
        { name: "smooth_quant", sqnr_before_db: 22.1, sqnr_after_db: 21.7, applied: false },
      ],
      sensitivity: Array.from({ length: 34 }, (_, i) => ({
        nodes: names.slice(i, i + 1 + (i % 3)),
        sqnr_db: 22.1 + 6.3 * Math.exp(-i / 7) - 0.2,
        gain_db: 6.3 * Math.exp(-i / 7) - 0.2,
      })),
      control: { score: "top1", target: 0.7088, original_score: 0.7188, reached: true, stored_nodes: [], trials },
    },
  });
}

const ACCURACY = {
  outcome: "skipped",
  op: "Conv",
  code: "kept_for_accuracy",
  message: "In float the model keeps its accuracy.",
} as const;
