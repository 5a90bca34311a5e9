import type { Evaluation } from "../core/evaluate/evaluate.ts";
import { type Verdict, verdictOf } from "../core/evaluate/verdict.ts";
import type { JobMetrics, LayerError, ModelFacts, StaticEvidence, ValuePlan, WeightPlan } from "../core/facts.ts";
import type { Note } from "../core/passes/pass.ts";

/** What was asked for, with every default filled in. */
export interface ReportedJob {
  readonly id: string;
  readonly type: string;
  readonly name?: string | null;
  readonly params: Readonly<Record<string, unknown>>;
  readonly evaluation: Readonly<Record<string, unknown>>;
  readonly acceptance: Readonly<Record<string, unknown>>;
}

/** Which model it is. */
export interface ReportedModel {
  /** Of its record, where that is known: a result has none before it is stored. */
  readonly id: string | null;
  readonly name: string | null;
  readonly sha256: string | null;
}

/** Something worth doing next, and the body of `POST /v1/jobs` that does it. */
export interface ReportedNextStep {
  readonly title: string;
  readonly why: string;
  readonly job: object;
}

/** A step of a pipeline. */
export interface ReportedStep {
  readonly name: string;
  readonly type: string;
  readonly model_id: string;
  /** Of the model that it has made. */
  readonly parameters: number;
  readonly metrics: JobMetrics;
}

/** `report.json`: everything that is known about a job and its result, for people and for machines. Fields are only ever added. */
export interface Report {
  readonly format: "modelpress-report";
  readonly version: 1;
  /** RFC 3339, UTC. */
  readonly created_at: string;
  readonly job: ReportedJob;
  /** What was done, in words. */
  readonly title: string;
  /** What the result is held against: the original, which it should equal, or a teacher, which it comes near, where it has one. */
  readonly held_against: "original" | "teacher";
  /** The body of `POST /v1/jobs` that does it again; what defaults say is left out. */
  readonly request: object;
  readonly accepted: boolean;
  readonly verdict: Verdict;
  readonly metrics: JobMetrics;
  readonly next: readonly ReportedNextStep[];
  /** `after` is null where a job makes no model. */
  readonly origins: { readonly before: ReportedModel; readonly after: ReportedModel | null };
  readonly models: { readonly before: ModelFacts; readonly after: ModelFacts };
  /** Every node that a pass was meant for: what became of it, and why. */
  readonly nodes: readonly Note[];
  /** Of static quantization. */
  readonly quantization: StaticEvidence | null;
  /** How weights, and values while the model runs, are quantized; null where no method of quantization decided it. */
  readonly plan: {
    readonly weights: readonly WeightPlan[];
    readonly values: readonly (ValuePlan & { readonly scale: number; readonly zero_point: number })[];
  } | null;
  /** Of layers that both models have, in order; null where there are none, and for models that are too large to look inside. */
  readonly layer_errors: readonly LayerError[] | null;
  /** Shapes of the inputs of one run while measuring. */
  readonly input_shapes: Readonly<Record<string, readonly number[]>>;
  /** Every measured run, in the order they were made: before, after, before, after, … */
  readonly latency_samples_ms: { readonly before: readonly number[]; readonly after: readonly number[] };
  /** How many nodes of each operator are in the graph that onnxruntime makes of the compressed model. */
  readonly optimized_operators: Readonly<Record<string, number>>;
  /** Of a pipeline, in their order: each compares its model with the one that it was fed. Empty for other jobs. */
  readonly steps: readonly ReportedStep[];
  /** Wall-clock time of each step. */
  readonly timings_ms: Readonly<Record<string, number>>;
}

export interface ReportParts {
  readonly createdAt: Date;
  readonly job: ReportedJob;
  readonly title: string;
  readonly heldAgainst: Report["held_against"];
  readonly request: object;
  readonly next: readonly ReportedNextStep[];
  readonly origins: Report["origins"];
  readonly evaluation: Evaluation;
  readonly models: Report["models"];
  readonly notes: readonly Note[];
  readonly quantization?: StaticEvidence | undefined;
  readonly plan?: Report["plan"] | undefined;
  readonly steps?: readonly ReportedStep[];
  /** Steps before the evaluation; its own are added. */
  readonly timingsMs: Readonly<Record<string, number>>;
}

/** Puts the report together; nothing is measured here. */
export function buildReport(parts: ReportParts): Report {
  const { createdAt, job, title, heldAgainst, request, next, origins, evaluation, models, notes } = parts;
  const { quantization, plan, steps, timingsMs } = parts;
  const evaluated = Object.entries(evaluation.timingsMs).map(([step, ms]) => [`evaluate.${step}`, ms] as const);
  const timings = [...Object.entries(timingsMs), ...evaluated].map(([step, ms]) => [step, Math.round(ms * 10) / 10]);
  return {
    format: "modelpress-report",
    version: 1,
    created_at: createdAt.toISOString(),
    job,
    title,
    held_against: heldAgainst,
    request,
    accepted: evaluation.accepted,
    verdict: verdictOf(evaluation.metrics),
    metrics: evaluation.metrics,
    next,
    origins,
    models,
    nodes: notes,
    quantization: quantization ?? null,
    plan: plan ?? null,
    layer_errors: evaluation.layerErrors,
    input_shapes: evaluation.inputShapes,
    latency_samples_ms: evaluation.latencySamplesMs,
    optimized_operators: evaluation.optimizedOperators,
    steps: steps ?? [],
    timings_ms: Object.fromEntries(timings),
  };
}
