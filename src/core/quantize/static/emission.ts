/** What is decided of the weights and values of a model when pairs of Q/DQ are put into it. */
import type { QdqPattern } from "../../facts.ts";
import type { Tensor } from "../../onnx/tensor.ts";
import type { RoundedWeights } from "../rounding/round-layers.ts";
import type { WeightContext, WeightOptions } from "./channel-weights.ts";

export interface QdqScheme {
  readonly activationDType: "uint8" | "int8";
  /** `marked`: weights, and biases of their scale, stay in float behind an Identity each, for somebody else to round. */
  readonly weights: WeightOptions | "marked";
  /** Weights by name that are rounded already; all others are rounded to nearest. */
  readonly rounded?: RoundedWeights | undefined;
  /** What biases are stored as; as onnxruntime's kernels want them unless given. */
  readonly biases?: QdqPattern["biases"] | undefined;
}

/** The largest value of each channel of what weights meet, by its name; undefined where it is not known. */
export type ChannelMaxima = (name: string) => Float64Array | undefined;

/** The name in the quantized model of what a value of the float model has become, by the name that the value has in the float model. */
export type ResultNames = ReadonlyMap<string, string>;

/** A weight of the float model that kernels read in 8 bits, and what decided how it is quantized. */
export interface EmittedWeight {
  readonly name: string;
  readonly weight: Tensor;
  readonly context: WeightContext;
  /** The input of its readers that it is. */
  readonly input: number;
  /** Names of the nodes that read it. */
  readonly readers: readonly string[];
}

/** A weight that was left in float, and what must be known to round it. Values go by their names. */
export interface MarkedWeight {
  /** The constant. */
  readonly weight: string;
  /** Of its output channels. */
  readonly axis: number;
  /** The Identity outputs that layers read instead of it. */
  readonly markers: readonly string[];
  /** Biases that are added to products of the weight with activations of a scale, also named. */
  readonly biases: readonly {
    readonly bias: string;
    readonly inputScale: string;
    /** The Identity output that the layer reads instead of it; undefined where the bias is added behind the product. */
    readonly marker: string | undefined;
    /** `int32` where the kernel takes nothing else. Elsewhere it stays in float, and onnxruntime rounds it to the same when it loads the model. */
    readonly storage: "int32" | "float32";
  }[];
}

export interface Emission {
  readonly results: ResultNames;
  readonly weights: readonly EmittedWeight[];
  /** Of the scheme `marked`. */
  readonly marked: readonly MarkedWeight[];
}
