import type { DatasetWarningCode, ProvisionCode, WarningCode } from "./codes.ts";
import type { MetricName } from "./evaluate/metrics.ts";
import type { NoteCode } from "./note-codes.ts";
import type { DType } from "./onnx/dtype.ts";

/**
 * What the library says about models, datasets and results. These objects go to the user as they are (over HTTP, into
 * `report.json`), so their fields carry the wire's snake_case names.
 */

/** `null`: unknown rank; a string or null dimension is symbolic. */
export type Shape = readonly (number | string | null)[] | null;

export interface ValueFacts {
  readonly name: string;
  /** Null for what is no tensor. */
  readonly dtype: DType | null;
  readonly shape: Shape;
  /** What it is when it is no tensor: `sequence(map(int64, float32))`. */
  readonly type?: string;
}

export interface ModelFacts {
  readonly ir_version: number;
  readonly opset_imports: Readonly<Record<string, number>>;
  readonly producer: string;
  readonly inputs: readonly ValueFacts[];
  readonly outputs: readonly ValueFacts[];
  /** Nodes of the graph and of all its subgraphs; Constant nodes are storage and do not count. */
  readonly nodes: number;
  readonly operators: Readonly<Record<string, number>>;
  /** Elements of all weights; a tensor used twice counts once. */
  readonly parameters: number;
  readonly weight_bytes: number;
  readonly weight_bytes_by_dtype: Readonly<Partial<Record<DType, number>>>;
  /** Sum of all intermediate values for one sample; null where shapes are not known. */
  readonly activation_bytes: number | null;
  /** Multiply-accumulates of Conv, ConvTranspose, Gemm, MatMul and recurrent layers for one sample; null where shapes are not known. */
  readonly macs: number | null;
  /** Whether a model of this structure can be a student; if not, why, and the node or tensor that is in the way. */
  readonly trainable: { readonly ok: boolean; readonly subject: string | null; readonly message: string | null };
  /** The first of them; missing where they were not looked for. */
  readonly non_finite_weights?: readonly NonFiniteWeight[];
}

/** A weight with values that are NaN or infinite. */
export interface NonFiniteWeight {
  readonly name: string;
  /** The nodes that multiply with it or look rows up in it; none where it is a bias, a gain or another operand. */
  readonly layers: readonly { readonly name: string; readonly op: string }[];
  readonly shape: readonly number[];
  /** How many of its values. */
  readonly count: number;
  readonly first: { readonly index: readonly number[]; readonly value: NonFinite };
}

export type NonFinite = "nan" | "inf" | "-inf";

/** One node that holds weights. */
export interface LayerFacts {
  readonly name: string;
  readonly op: string;
  readonly weight: string;
  readonly shape: readonly number[];
  readonly parameters: number;
  readonly bytes: number;
  readonly dtype: DType;
  readonly weight_min: number | null;
  readonly weight_max: number | null;
  /** Largest over smallest per-channel max|w| (dead channels left out): above 10 or so, per-tensor scales lose much. */
  readonly channel_range_spread: number | null;
  /** Channels whose weights are nothing beside the layer's largest; null where there is no spread. */
  readonly dead_channels: number | null;
}

/** What the values of an array are like. */
export interface FieldContent {
  /** Of the finite values; null where there are none. */
  readonly min: number | null;
  readonly max: number | null;
  /** How many values are NaN or infinite, and where the first one is. */
  readonly non_finite: number;
  readonly first_non_finite: { readonly sample: number; readonly value: NonFinite } | null;
}

/** An integer among the labels. */
export interface LabelValue {
  readonly value: number;
  readonly count: number;
  readonly first_sample: number;
}

export interface LabelFacts extends FieldContent {
  readonly dtype: DType;
  /** Without the sample axis. */
  readonly shape: readonly number[];
  /** Labels of all samples. */
  readonly count: number;
  /** Whether all are whole numbers, whatever their dtype. */
  readonly integers: boolean;
  /** Whether every row along the last axis has a single 1 among zeros. */
  readonly one_hot: boolean;
  /** How many different integers there are; null when they are not integers, or too many to count. */
  readonly distinct: number | null;
  /** The smallest and the largest integers, ascending: all of them when they are few. */
  readonly outermost: readonly LabelValue[];
}

export interface DatasetWarning {
  readonly code: DatasetWarningCode;
  readonly field: string;
  readonly message: string;
}

export interface DatasetFacts {
  readonly samples: number;
  /** Shapes without the sample axis. `content` is null for images, which are always finite, and missing where it was not looked for. */
  readonly fields: readonly {
    readonly name: string;
    readonly dtype: DType;
    readonly shape: readonly number[];
    readonly content?: FieldContent | null;
  }[];
  readonly has_labels: boolean;
  readonly classes: readonly string[] | null;
  /** Null without labels; missing where they were not looked at. */
  readonly labels?: LabelFacts | null;
  readonly warnings?: readonly DatasetWarning[];
}

/** Why something is so of a node. `code` is stable snake_case, `message` a sentence. */
export interface NoteReason {
  readonly code: NoteCode;
  readonly message: string;
}

/** Why a node was, or was not, touched. */
export interface NodeNote extends NoteReason {
  readonly name: string;
  readonly op: string;
}

/** What nobody asked about and should be known; `WARNINGS` says of each code what its `value` is. */
export interface Warning {
  readonly code: WarningCode;
  readonly message: string;
  readonly value: number;
}

/** How a weight is quantized. */
export interface WeightPlan {
  readonly name: string;
  /** The nodes that read it so. */
  readonly nodes: readonly string[];
  readonly bits: number;
  readonly signed: boolean;
  readonly symmetric: boolean;
  /** What has a scale of its own. */
  readonly granularity: "tensor" | "channel" | "block";
  readonly block_size: number | null;
  /** What it looks like in the file: the code of the notes on the nodes. */
  readonly storage: string;
}

/** A value that is rounded while the model runs. */
export interface ValuePlan {
  readonly name: string;
  readonly dtype: "uint8" | "int8";
}

/** Why entries of a plan may come out otherwise in the job. */
export interface Provision {
  readonly code: ProvisionCode;
  readonly message: string;
  /** The nodes that it may concern; none: any. */
  readonly nodes: readonly string[];
}

export interface QuantizePlan {
  readonly method: string;
  readonly weights: readonly WeightPlan[];
  readonly values: readonly ValuePlan[];
  readonly quantized_nodes: readonly NodeNote[];
  readonly skipped_nodes: readonly NodeNote[];
  readonly size: { readonly before_bytes: number; readonly predicted_bytes: number; readonly ratio: number };
  /** Those that are known before anything is computed. */
  readonly warnings: readonly Warning[];
  /** Nothing: the job does what the plan says. */
  readonly provisional: readonly Provision[];
}

export interface DistillPlan {
  readonly teacher_parameters: number | null;
  readonly student_parameters: number;
  /** Outputs that are taken to mean the same. */
  readonly outputs: readonly { readonly teacher: string; readonly student: string }[];
  readonly training_samples: number;
  readonly validation_samples: number;
  /** Of one run; a baseline is a second run. */
  readonly optimizer_steps: number;
  /** Those that are trained; of generations the first. */
  readonly networks: readonly { readonly name: string; readonly parameters: number }[];
  readonly exits: readonly { readonly name: string; readonly value: string; readonly macs_share: number }[];
}

/** How close an output of the compressed model is to the original's, over all samples. */
export interface OutputFidelity {
  readonly name: string;
  /** 10·log10(Σx² / Σ(x−y)²), never below -200; null when identical. */
  readonly sqnr_db: number | null;
  readonly cosine: number;
  readonly max_abs_error: number;
  readonly mean_abs_error: number;
  /**
   * Share of positions whose argmax over the last axis is the same; for integer outputs the share of equal elements; null for outputs that
   * are not class scores.
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

/** One epoch of a training run. */
export interface EpochFacts {
  /** Counts from 1. */
  readonly epoch: number;
  /** Mean over the steps, and that of each term before its weight. */
  readonly loss: number;
  readonly losses: Readonly<Record<string, number>>;
  /** On the samples that were held out; null when there are none. */
  readonly validation_metric: number | null;
  readonly learning_rate: number;
  readonly samples_per_second: number;
}

export interface TrainingMetrics {
  readonly history: readonly EpochFacts[];
  /** The epoch that the student's weights are from. */
  readonly best_epoch: number;
  /** What the four numbers below are: a metric of `evaluation.metric` against labels; without labels `teacher_agreement` or `teacher_mse`. */
  readonly metric: string | null;
  readonly metric_samples: number;
  readonly teacher_metric: number | null;
  /** Before training. */
  readonly student_before_metric: number | null;
  readonly student_metric: number | null;
  /** Of the same student from the same start, trained on the labels alone. */
  readonly baseline_metric: number | null;
  readonly baseline_history: readonly EpochFacts[] | null;
  /** While training, validation left out. */
  readonly samples_per_second: number;
  /** All that were trained, baselines left out: the student alone, or peers, or a teacher beside its student, or generations. */
  readonly networks: readonly TrainedNetworkFacts[];
  /** The name of the network that is the result; `average` is all of them together. */
  readonly chosen: string;
  /** Of the mean of all networks' (or exits') answers; null where there is one. */
  readonly ensemble_metric: number | null;
}

export interface TrainedNetworkFacts {
  /** `student`, `teacher`, `peer_1`, `generation_1`, … */
  readonly name: string;
  readonly parameters: number;
  readonly history: readonly EpochFacts[];
  readonly best_epoch: number;
  /** Of the best epoch, on the samples that were held out. */
  readonly validation_metric: number | null;
  /** On the samples that the student is judged by, before and after training. */
  readonly before_metric: number | null;
  readonly metric: number | null;
  readonly artifact: string;
}

/** An answer that a network can give before its last layer. The last one is the network's own. */
export interface ExitFacts {
  readonly name: string;
  /** What it reads. */
  readonly value: string;
  readonly metric: number | null;
  /** Multiply-accumulates, and median latency, up to this answer, over those of the whole network. */
  readonly macs_share: number;
  readonly latency_share: number;
  /** A model that stops here; null where exits are not kept. */
  readonly artifact: string | null;
}

/** What a correction was worth, on samples that it was not made from. */
export interface CorrectionFacts {
  readonly name: string;
  readonly sqnr_before_db: number;
  readonly sqnr_after_db: number;
  /** Whether it was kept. */
  readonly applied: boolean;
}

/** What leaving some neighbouring nodes in float does for a model that is quantized otherwise. */
export interface SensitivityFacts {
  readonly nodes: readonly string[];
  /** Of the outputs, over calibration samples. */
  readonly sqnr_db: number;
  /** Better than with everything quantized. */
  readonly gain_db: number;
}

/** A model that accuracy control has tried. */
export interface TrialFacts {
  readonly float_nodes: readonly string[];
  /** Higher is better. */
  readonly score: number;
  readonly size_bytes: number;
  /** Median latency of the original over that of this one, over a few runs in turn. */
  readonly speedup: number;
  readonly chosen: boolean;
}

/** How fast a model is in float, all in 8 bits, and with those nodes in float that kernels are measured to be slower for in 8 bits. */
export interface KernelFacts {
  /** Whether kernels were told apart in onnxruntime's profiles, or only whole models timed. */
  readonly basis: "measured" | "timed";
  /** Of a run of the float model; null where there was nothing to measure. */
  readonly float_ms: number | null;
  readonly int8_speedup: number | null;
  /** Null where all of it is faster in 8 bits, or none. */
  readonly mixed_speedup: number | null;
  /** Of the mixed one, from what its kernels take. */
  readonly predicted_speedup: number | null;
  readonly chosen: "int8" | "mixed" | "float";
  /** Labels of the nodes that stay in float for speed. */
  readonly nodes: readonly string[];
  /** Microseconds of a run that each layer takes, by label, where profiles tell. */
  readonly layers: readonly { readonly node: string; readonly float_us: number; readonly int8_us: number }[];
  /** Whether it is known from an earlier job. */
  readonly cached: boolean;
}

/** What static quantization has found out on its way. */
export interface StaticEvidence {
  readonly calibration: {
    readonly method: string;
    /** What each method reached on some samples where the choice was `auto`, the chosen one first; else empty. */
    readonly tried: readonly { readonly method: string; readonly sqnr_db: number }[];
    readonly samples: number;
    /** Activations whose ranges were taken. */
    readonly tensors: number;
    /** Whether the ranges were known from an earlier job. */
    readonly cached: boolean;
  };
  /** What was measured to tell where 8 bits are slower than float; null where that was not asked for, or the machine is another. */
  readonly kernels: KernelFacts | null;
  readonly corrections: readonly CorrectionFacts[];
  /** The most useful nodes to leave in float first; empty without accuracy control, or where it had nothing to do. */
  readonly sensitivity: readonly SensitivityFacts[];
  readonly control: {
    /** What trials are scored by: a metric, or `sqnr_db`. */
    readonly score: string;
    /** The least score that was good enough, and the original's where it has one. */
    readonly target: number;
    readonly original_score: number | null;
    readonly reached: boolean;
    /** Of the nodes that stay in float, those whose weights are stored in 8 bits. */
    readonly stored_nodes: readonly string[];
    /** In the order in which they were made; the first has everything quantized. */
    readonly trials: readonly TrialFacts[];
  } | null;
}

/** How much of a node's output is error, given the error of everything before it. */
export interface LayerError {
  readonly node: string;
  readonly op: string;
  /** 10·log10(Σx² / Σ(x−y)²) of its output; null when identical. */
  readonly sqnr_db: number | null;
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

/** What a search has found. */
export interface AutoMetrics {
  readonly candidates: readonly AutoCandidate[];
  readonly recommendation: AutoRecommendation;
  /** The constraints that were set, for the recommended model. */
  readonly constraints: JobMetrics["acceptance"];
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
