/** What static quantization has found out on its way, and where errors arise. */

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
  /** The least of those of the layers whose results it reads, directly or through other operators; null where all of them are identical. */
  readonly input_sqnr_db: number | null;
  /** Whether the job has changed it. The error of another comes from before it, also where it is much larger there. */
  readonly changed: boolean;
}
