/** What a runtime wants of a model that is made for it, and what was found about one. */
import type { Timing } from "./results.ts";

/** What a runtime wants: in words, and the public page that says so. */
export interface Claim {
  readonly says: string;
  readonly source: string;
}

/** A claim as a value that builders and the check read. */
export interface Ruled<T> extends Claim {
  readonly is: T;
}

/** Depthwise convolutions that a runtime computes no faster in 8 bits. */
export interface SlowDepthwise {
  /** They read fewer elements in a run, of all channels together, or it is not known how many. */
  readonly below: number;
  /** Why they stay in float, as a sentence. */
  readonly reason: string;
}

/** How pairs of Q/DQ are put into a model. */
export interface QdqPattern {
  /** Whether zero points of activations are 0. Their quantizers then cut nothing off, so limits behind layers stay. */
  readonly symmetric: boolean;
  /**
   * Whether a layer's output carries a pair because the layer is quantized: as the kernels of onnxruntime on the CPU want it, always, or never, so that
   * pairs stand on inputs alone and every other reader of a value sees it in float.
   */
  readonly outputs: "kernels" | "always" | "never";
  /** Operators of ai.onnx that are quantized; null: all that onnxruntime has 8-bit kernels for. */
  readonly operators: readonly string[] | null;
  /** What the bias of a quantized layer is stored as: as the kernel of onnxruntime wants it, or always so. */
  readonly biases: "kernels" | "float32" | "int32";
  /** Which depthwise convolutions stay in float; undefined: they are layers like others. */
  readonly floatDepthwise?: SlowDepthwise | undefined;
}

/** What an artifact must be for a runtime. A rule that is absent is none there. */
export interface ArtifactRules {
  /** Domains of operators that it has besides those of ai.onnx. */
  readonly domains: Ruled<readonly string[]>;
  /** Operator sets of ai.onnx that it reads. */
  readonly opset?: Ruled<{ readonly min: number; readonly max: number }>;
  /** Operators of ai.onnx that it has not. */
  readonly refused?: Ruled<readonly string[]>;
  /** What values are rounded to while the model runs. */
  readonly activations: Ruled<{ readonly dtype: "uint8" | "int8"; readonly symmetric: boolean }>;
  /** What constants that are dequantized are stored as; their zero points are 0 where `symmetric`. */
  readonly weights: Ruled<{ readonly dtypes: readonly string[]; readonly symmetric: boolean }>;
  readonly biases?: Ruled<"float32" | "int32">;
  /** Pairs on the inputs of layers alone, or on their outputs as well. */
  readonly pairs?: Ruled<"inputs" | "around">;
  /** Operators of ai.onnx that read rounded values; absent: all that have 8-bit kernels in onnxruntime. */
  readonly quantized?: Ruled<readonly string[]>;
  readonly fixedShapes?: Ruled<true>;
}

export type RuleName = keyof ArtifactRules;

/** One rule, and what in an artifact breaks it. */
export interface RuleCheck extends Claim {
  readonly rule: string;
  readonly holds: boolean;
  /** Where: at most the first few. */
  readonly broken: readonly { readonly name: string; readonly message: string }[];
}

/** What was measured in the runtime that a result is for. */
export interface ElsewhereFacts {
  /** Its name and version, and how it was run. */
  readonly runtime: string;
  readonly before: Timing;
  readonly after: Timing;
  readonly speedup: number;
  /** At 95 %, by bootstrap over rounds; null for a single one. */
  readonly speedup_interval: readonly [number, number] | null;
  readonly runs: number;
  readonly threads: number;
  /** Loading the result, in milliseconds. */
  readonly load_ms: number;
  /** Of the result there against the result in onnxruntime on this machine, over all float32 outputs; null when they are identical, and where there are none. */
  readonly sqnr_db: number | null;
}

/** Bytes of the files as they travel. */
export interface DownloadFacts {
  readonly encoding: "gzip";
  readonly before_bytes: number;
  readonly after_bytes: number;
}

/** A result beside what its target wants. */
export interface DeploymentFacts {
  readonly target: string;
  readonly rules: readonly RuleCheck[];
  /** Null where the runtime of the target is not on this machine: then the rules were checked, and nothing was measured there. */
  readonly measured: ElsewhereFacts | null;
  /** Why the runtime of the target did not run the result; null where it did, and where it was not there to try. */
  readonly failure: string | null;
  /** Where the target loads models over a network. */
  readonly download: DownloadFacts | null;
}
