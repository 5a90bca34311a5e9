/**
 * What is known of an operator: facts of its definition, for every layer to read. No graph is built here. What a runtime makes of an operator
 * is in `core/targets`; what a method prefers stands with the method; builders (gradients, decompositions, upgrades) stay in their layers,
 * keyed by `OpType`.
 */
import type { DType } from "../onnx/dtype.ts";
import type { Node, Value } from "../onnx/ir.ts";
import type { Tensor } from "../onnx/tensor.ts";

export type Shape = readonly number[];

/** Shapes of a node's operands in one run; undefined where one is not known. */
export interface OperandShapes {
  input(index: number): Shape | undefined;
  output(): Shape | undefined;
}

/** Multiply-accumulates of a node; undefined where its shapes do not say. */
export type Macs = (node: Node, shapes: OperandShapes) => number | undefined;

/** What a constant is to the operator that reads it. */
export type ConstantRole = "weight" | "bias" | "scale" | "slope" | "embedding";

/** An input where a layer has its weight, and how the axes of the weight are used. Axes depend on attributes and on the weight's dims. */
export interface WeightOperand {
  readonly input: number;
  /** The axis of the output features; undefined where the layout has none. */
  channelAxis(node: Node, dims: Shape): number | undefined;
  /** The axis that meets the input's channels (of one group). */
  inputAxis?(node: Node, dims: Shape): number;
  /**
   * The axes that the operator sums over, as [first, past the last); for a table of embeddings, the axis along which values share a scale. Absent:
   * the weight is stored in a form of its own. Undefined: the axes do not lie next to each other.
   */
  reducedAxes?(node: Node, dims: Shape): readonly [number, number] | undefined;
  /** Where the activation that meets the weight has its channels; negative: from the end. */
  readonly activationAxis?: number;
}

/** How an operator reads quantized data: which inputs are quantized values, and which are their scales and zero points. */
export interface QuantizedOperands {
  readonly values: readonly number[];
  readonly parameters: readonly number[];
  /** How many values a packed tensor holds; absent: as many as it has elements. */
  count?(node: Node, tensor: Tensor): number;
}

export type TypeOf = (value: Value | undefined) => DType | undefined;

/** The type of an output: a type, the index of the input that has it, or a rule. */
export type ResultType = DType | number | ((node: Node, typeOf: TypeOf) => DType | undefined);

/**
 * How the channels of the inputs relate to those of the outputs, which says what a narrower student can leave out. Each has one builder, in
 * `distill/channel-labels.ts`.
 */
export type ChannelRelation =
  | "elementwise"
  | "unary"
  | "reduction"
  | "pooling"
  | "reshape"
  | "convolution"
  | "transposed convolution"
  | "gemm"
  | "matrix product"
  | "channel normalization"
  | "last axis normalization"
  | "softmax"
  | "transpose"
  | "concatenation"
  | "selection along an axis"
  | "resize"
  | "none";

/**
 * How large a result can be for constants of known size, which bounds what folding makes: as its first input, as many elements in another shape, all
 * inputs together, the product of data and indices, or broadcast.
 */
export type FoldedSize = "unchanged" | "reordered" | "joined" | "selected" | "broadcast";

export interface OperatorRecord {
  /** The version of its domain's operator set that it came with. */
  readonly since: number;
  /** Values of attributes that a node does not give. */
  readonly defaults?: Readonly<Record<string, number>>;
  /** Types of the outputs, the last for all that follow; absent: the type of the first input. */
  readonly results?: readonly ResultType[];
  /** What its constant inputs are to it, by index. */
  readonly constants?: Readonly<Record<number, ConstantRole>>;
  readonly weights?: readonly WeightOperand[];
  readonly quantized?: QuantizedOperands;
  /** Float inputs that steer it (bounds, ratios, scales of a resize) and are no data. */
  readonly steering?: readonly number[];
  readonly macs?: Macs;
  readonly channels?: ChannelRelation;
  /** It moves, selects or repeats elements of its first input (a Concat: of all) and computes none. */
  readonly moves?: true;
  /** The number it makes of the numbers at one position of its inputs; an absent optional input is undefined. */
  readonly pointwise?: (node: Node) => (...inputs: number[]) => number;
  /** It gives the same result for the same constants every time, of at most this size. */
  readonly folds?: FoldedSize;
  /** Its derivative is zero wherever there is one: shapes, comparisons, indices, steps, random numbers. */
  readonly derivative?: "zero";
  /** It slides a window; the input that holds the window's weight, or undefined for one without. */
  readonly window?: { readonly weight: number | undefined };
  /** The input whose length is the number of axes of the result. */
  readonly rankFrom?: number;
}

export type Records = Readonly<Record<string, OperatorRecord>>;
