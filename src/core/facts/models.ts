/** What the library says about models and the weights in them. */
import type { DType } from "../onnx/dtype.ts";
import type { OutputMeaning } from "../operators/output-meaning.ts";

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

export interface OutputFacts extends ValueFacts {
  /** Missing for what is no tensor of floats, and in facts of earlier versions. */
  readonly meaning?: OutputMeaning;
}

export interface ModelFacts {
  readonly ir_version: number;
  readonly opset_imports: Readonly<Record<string, number>>;
  readonly producer: string;
  readonly inputs: readonly ValueFacts[];
  readonly outputs: readonly OutputFacts[];
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
