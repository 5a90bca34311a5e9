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
  /** Absent: [inputs, outputs] in the last two axes. */
  fan?(node: Node, dims: Shape): Fan;
}

/** How an operator reads quantized data: which inputs are quantized values, and which are their scales and zero points. */
export interface QuantizedOperands {
  readonly values: readonly number[];
  readonly parameters: readonly number[];
  /** How many values a packed tensor holds; absent: as many as it has elements. */
  count?(node: Node, tensor: Tensor): number;
}

export type TypeOf = (value: Value | undefined) => DType | undefined;

/** The type that an attribute names; where a node does not give it, `otherwise`, or that of the first input. */
export interface NamedType {
  readonly attribute: string;
  readonly otherwise?: DType;
}

/** The type of an output: a type, the index of the input that has it, what an attribute says, or a rule. */
export type ResultType = DType | number | NamedType | ((node: Node, typeOf: TypeOf) => DType | undefined);

/** How many inputs of a layer one of its outputs sums over, and how many outputs one input reaches: what starting values depend on. */
export interface Fan {
  readonly in: number;
  readonly out: number;
}

/** y = factor · x + shift. */
export interface Affine {
  readonly factor: number;
  readonly shift: number;
}

/** What an operator cuts its first input off at: numbers, or operands that hold one; absent where there is no limit. */
export interface Limits {
  readonly low?: number | Value | undefined;
  readonly high?: number | Value | undefined;
}

/** What |result| cannot exceed, given what the inputs cannot: a number, the largest of them (0 of absent ones), or a rule; infinity where that is unknown. */
export type Magnitude = number | "largest" | ((node: Node, of: readonly number[]) => number);

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
  | "split"
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
  /** It moves, selects or repeats elements of its first input, or of all of them, and computes none. */
  readonly moves?: "first" | "all";
  /** Each of its elements is one of its inputs', or zero, as a condition or a position says. */
  readonly chooses?: true;
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
  /** The inputs whose values say how large the result is. */
  readonly sizedBy?: "all" | readonly number[];
  /** Its second input says by index which elements of its first it takes. */
  readonly indexes?: true;
  /** Its result says how large its input is, whatever that holds. */
  readonly ofShape?: true;
  /** Its result is drawn at random. */
  readonly random?: true;
  /** What it makes of a tensor when its other operand, number `at`, is `constant`; undefined where that is no affine function. */
  readonly affine?: (constant: number, at: 0 | 1) => Affine | undefined;
  /** It cuts off what is outside of limits and changes nothing else. */
  readonly clamps?: (node: Node) => Limits;
  /** f(a·x) = a·f(x) for a > 0 of its first input x, channel by channel; channels stay where they are. */
  readonly homogeneous?: true;
  /** Small values of its inputs make small ones of its result; `linear`: and sums make sums. */
  readonly small?: "pass" | "linear";
  /** Each element of its result is a share of a whole: most are small, and the few large ones matter. */
  readonly shares?: true;
  /** Half of a normal distribution does not come through it, or hardly. */
  readonly rectifies?: true;

  // ---- what numbers with few digits make of it ----

  /** Inputs that are float32 whatever it computes in. */
  readonly float32?: readonly number[];
  /** Inputs of which rounding makes another answer, not a near one: what is compared, counted, or an index. */
  readonly exact?: readonly number[];
  /** Its input is an angle, or any number of turns. */
  readonly periodic?: true;
  /** It multiplies its constants with what flows in: they are numbers, never masks or limits, and what it gives out is an estimate. */
  readonly estimates?: true;
  /** Its constants are limits: the largest number of a type will do for one that is larger. */
  readonly limits?: true;
  /** A mask, a number too large for anything else to count beside it, is one in its result. Of what moves or chooses elements, that goes without saying. */
  readonly masks?: true;
  /** It turns numbers of any size into small ones, as Softmax does: masks end here. */
  readonly absorbs?: true;
  readonly magnitude?: Magnitude;
  /** Inputs at whose zeros the result is infinite. */
  readonly poles?: readonly number[];
  /** What it adds up inside, in the type of its input: the values of its input, the same to take their mean, or their squares. */
  readonly sums?: "values" | "mean" | "squares";
}

export type Records = Readonly<Record<string, OperatorRecord>>;
