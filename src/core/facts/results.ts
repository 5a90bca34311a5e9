/** What a result is like beside its original. */
import type { MetricName } from "../evaluate/metrics.ts";
import type { NodeNote, Warning } from "./plans.ts";
import type { DeploymentFacts } from "./targets.ts";
import type { ExitFacts, TrainingMetrics } from "./training.ts";

/** How close an output of the compressed model is to the original's, over all samples. */
export interface OutputFidelity {
  readonly name: string;
  /** 10·log10(Σx² / Σ(x−y)²), never below -200; null when identical. */
  readonly sqnr_db: number | null;
  readonly cosine: number;
  /** Of the finite numbers of the original: 0 where an output is empty, null where all that it gives is NaN or infinite. */
  readonly min_value: number | null;
  readonly max_value: number | null;
  readonly max_abs_error: number;
  readonly mean_abs_error: number;
  /**
   * Share of positions whose class, the largest of its scores, is the same; for integer outputs the share of equal elements; for labels that are told
   * one by one (shares of a Sigmoid), of those that either model says yes to, the part that both do. Null for other outputs, and where there is no yes.
   */
  readonly top1_agreement: number | null;
  /** At 95 %, over runs; null when identical, and for a single run. */
  readonly sqnr_interval_db: readonly [number, number] | null;
  /** At 95 %; null where there is no agreement, and where a single run has several positions. */
  readonly top1_agreement_interval: readonly [number, number] | null;
  /** Elements that are NaN or infinite in one model and not in the other; as errors they count as if the compressed model had said 0. */
  readonly non_finite: number;
  /** Runs in which the output had another shape, which cannot be compared (boxes after a threshold). */
  readonly shape_mismatches: number;
}

export interface Timing {
  readonly p50_ms: number;
  readonly p90_ms: number;
  readonly mean_ms: number;
}

/** One of the models of an evaluation, against the first of them. */
export interface EvaluatedModel
  extends Pick<JobMetrics, "size" | "fidelity" | "accuracy" | "latency" | "memory" | "acceptance" | "warnings"> {
  readonly model_id: string;
  /** What it was called then; null where nobody has said. */
  readonly name: string | null;
  readonly parameters: number;
  /** At each batch size and number of threads; the first is `latency`. */
  readonly latencies: readonly JobMetrics["latency"][];
}

/** What a few samples, and a few timed runs, have shown of a candidate: an indication. */
export interface CandidatePrediction {
  readonly size_bytes: number;
  readonly size_ratio: number;
  readonly samples: number;
  /** Of the worst output; null when identical. */
  readonly sqnr_db: number | null;
  readonly metric_drop: number | null;
  readonly speedup: number;
}

/** A model that a search has tried. */
export interface AutoCandidate {
  readonly name: string;
  /** What it was made and judged for. */
  readonly target: string;
  /** The job that makes the same bytes; null for the original. */
  readonly spec: Readonly<Record<string, unknown>> | null;
  /** Of those on the front. */
  readonly model_id: string | null;
  readonly sha256: string | null;
  /** How far it came. */
  readonly stage: "planned" | "made" | "tried" | "measured";
  readonly predicted: CandidatePrediction | null;
  /** Of those that were measured in full, all in turns. */
  readonly measured: Pick<JobMetrics, "size" | "fidelity" | "accuracy" | "latency" | "memory"> | null;
  /** What the runtime of the target makes of it, of those that were measured; null for onnxruntime on a CPU. */
  readonly deployment: DeploymentFacts | null;
  readonly on_front: boolean;
  readonly recommended: boolean;
  /** When, and why. */
  readonly dropped: {
    /** One of `DROPPED`, or of the problem that it ended with. */
    readonly code: string;
    readonly message: string;
    readonly stage: AutoCandidate["stage"];
  } | null;
}

export interface AutoRecommendation {
  readonly candidate: string;
  /** The original's id when nothing is better than it. */
  readonly model_id: string;
  readonly why: string;
  /** The nearest model of the front that is better in the objective, or else in quality, and what it costs. */
  readonly next_better: {
    readonly candidate: string;
    readonly model_id: string | null;
    readonly message: string;
  } | null;
}

/** What a search has found for one of its targets. */
export interface AutoTarget {
  readonly target: string;
  /** Whether what is recommended for it holds all limits. */
  readonly accepted: boolean;
  readonly recommendation: AutoRecommendation;
  /** The constraints that were set, for the recommended model. */
  readonly constraints: JobMetrics["acceptance"];
}

/** What a search has found. */
export interface AutoMetrics {
  readonly candidates: readonly AutoCandidate[];
  /** For the first target, as are the constraints. */
  readonly recommendation: AutoRecommendation;
  readonly constraints: JobMetrics["acceptance"];
  /** In the order of the job; the first included. */
  readonly targets: readonly AutoTarget[];
  /** How long it took, attempts before this one included. */
  readonly seconds: number;
}

export interface JobMetrics {
  readonly size: { readonly before_bytes: number; readonly after_bytes: number; readonly ratio: number };
  readonly fidelity: {
    readonly samples: number;
    readonly data: "evaluation" | "validation" | "calibration" | "synthetic";
    readonly outputs: readonly OutputFidelity[];
  };
  readonly accuracy: {
    readonly metric: MetricName;
    readonly before: number;
    readonly after: number;
    readonly drop: number;
    readonly samples: number;
    /** Of `drop`, at 95 %, on the same samples in both models; null for a single sample. A smaller drop may be chance. */
    readonly interval: readonly [number, number] | null;
    readonly before_interval: readonly [number, number] | null;
    readonly after_interval: readonly [number, number] | null;
  } | null;
  readonly latency: {
    readonly before: Timing;
    readonly after: Timing;
    readonly speedup: number;
    /** At 95 %, over rounds; null for a single one. */
    readonly speedup_interval: readonly [number, number] | null;
    readonly batch_size: number;
    readonly threads: number;
    readonly runs: number;
    readonly cpu: string;
  };
  /** Peak resident memory of a process that loads and runs one model, and what the same process takes before it loads one. */
  readonly memory: {
    readonly before_peak_bytes: number;
    readonly after_peak_bytes: number;
    readonly baseline_bytes: number;
  };
  readonly coverage: {
    readonly quantized_nodes: number;
    readonly skipped_nodes: readonly NodeNote[];
    /** Nodes of the graph onnxruntime really runs that compute on quantized data. */
    readonly fused_nodes: number;
    /** Nodes that a Q/DQ pattern surrounds but that run in float all the same. */
    readonly float_islands: readonly NodeNote[];
  };
  readonly training: TrainingMetrics | null;
  /** Of a network that is its own teacher. */
  readonly exits: readonly ExitFacts[] | null;
  /** Of a quantization for another runtime than onnxruntime on a CPU. */
  readonly deployment: DeploymentFacts | null;
  /** Of an evaluation: every model, the first one by itself. What is said beside it is of the second one. */
  readonly models: readonly EvaluatedModel[] | null;
  /** Of a search; what is said beside it is of the recommended model. */
  readonly auto: AutoMetrics | null;
  readonly acceptance: readonly {
    readonly name: string;
    readonly limit: number;
    readonly value: number | null;
    readonly ok: boolean;
  }[];
  /** What no limit was set for and has to be known all the same. */
  readonly warnings: readonly Warning[];
  readonly environment: {
    readonly onnxruntime: string;
    readonly cpu: string;
    readonly isa: readonly string[];
    readonly threads: number;
    readonly seed: number;
    readonly versions: Readonly<Record<string, string>>;
  };
}
