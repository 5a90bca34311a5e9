/** What a conversion to float16 must know of each operator, in one table. */
import type { NoteReason } from "../facts.ts";
import type { Node } from "../onnx/ir.ts";
import type { ContribOpType, OpType } from "../operators/operators.ts";

/** `message` is empty for parts of a pattern that is not worth a line of the report for each of its nodes. */
export type KeptReason = NoteReason;

export interface Float16Policy {
  /** Why it is never converted. */
  readonly keep?: KeptReason;
  /** ... or, where that depends on its attributes or neighbours, a test. */
  readonly keepIf?: (node: Node) => KeptReason | undefined;
  /** Inputs of which rounding makes another answer, not a near one: what is compared, counted, or an index. */
  readonly exact?: readonly number[];
  /** It multiplies its constants with what flows in: they are numbers, never masks or limits, and what it gives out is an estimate. */
  readonly weights?: true;
  /** It only moves elements, or chooses among them. */
  readonly moves?: true;
  /** Its constants are limits: the largest number of float16 will do for one that is larger. */
  readonly limits?: true;
  /** It turns numbers of any size into small ones, as Softmax does: masks end here. */
  readonly absorbs?: true;
  /** |result| is at most this. */
  readonly bound?: number;
  /** Inputs at whose zeros the result is infinite. */
  readonly poles?: readonly number[];
  /** What it adds up inside: all of its input, or the squares of it, in the type of its input. */
  readonly sums?: "values" | "squares";
}

const NO_FLOAT16: KeptReason = {
  code: "no_float16",
  message: "The operator has no float16 form that runs everywhere.",
};
const COORDINATES: KeptReason = {
  code: "coordinates",
  message: "It computes or compares positions, which float16 rounds to steps.",
};
export const SQUARES: KeptReason = { code: "squares", message: "Sums of squares leave the range of float16." };
export const QUANTIZED: KeptReason = {
  code: "quantized",
  message: "It belongs to a part of the model that is quantized already.",
};
const NO_TENSOR: KeptReason = { code: "unknown_type", message: "It works on something other than tensors." };
const BITS: KeptReason = { code: "bits", message: "It looks at the bits of float32 numbers." };
const CRASH: KeptReason = {
  code: "does_not_load",
  message: "onnxruntime 1.30 crashes while it fuses a float16 Transpose of this permutation with the MatMul behind it.",
};

function each<T extends OpType | ContribOpType>(ops: readonly T[], policy: Float16Policy): [T, Float16Policy][] {
  return ops.map((op) => [op, policy]);
}

/** Adding up into a tensor has no float16 kernel; without a reduction it only moves elements. */
function keepReduction(node: Node): KeptReason | undefined {
  return node.string("reduction", "none") === "none" ? undefined : NO_FLOAT16;
}

/**
 * onnxruntime's fusion of a batch transposition into MatMul does not survive the Cast that it puts between the two: first axis moved to the
 * last or last but one place, and a matrix as the other operand.
 */
function keepBatchTranspose(node: Node): KeptReason | undefined {
  const perm = node.ints("perm");
  if (!perm || perm.length < 3) return undefined;
  const moved = perm.indexOf(0);
  const isBatch = moved >= perm.length - 2 && perm.filter((axis) => axis !== 0).every((axis, i) => axis === i + 1);
  return isBatch && readByMatMul(node) ? CRASH : undefined;
}

function readByMatMul(node: Node): boolean {
  return node.outputs[0]!.uses.some(
    (use) =>
      use.node.opType === "MatMul" ||
      use.node.opType === "FusedMatMul" ||
      (use.node.opType === "Cast" && readByMatMul(use.node)),
  );
}

const POLICIES: ReadonlyMap<string, Float16Policy> = new Map<OpType, Float16Policy>([
  ...each(["Bernoulli", "Celu", "EyeLike", "IsInf", "IsNaN", "MeanVarianceNormalization", "Multinomial"], {
    keep: NO_FLOAT16,
  }),
  ...each(["DFT", "STFT", "MelWeightMatrix", "HannWindow", "HammingWindow", "BlackmanWindow", "TfIdfVectorizer"], {
    keep: NO_FLOAT16,
  }),
  ["BitCast", { keep: BITS, exact: [0] }],
  ["Range", { keep: NO_FLOAT16, exact: [0, 1, 2] }],
  ["CumSum", { keep: NO_FLOAT16, exact: [0] }],
  ["CumProd", { keep: NO_FLOAT16, exact: [0] }],
  ["NonMaxSuppression", { keep: NO_FLOAT16, exact: [0, 1, 2, 3, 4] }],
  ["AffineGrid", { keep: COORDINATES, exact: [0] }],
  ["GridSample", { keep: COORDINATES, exact: [1] }],
  ["MaxRoiPool", { keep: COORDINATES, exact: [1] }],
  ["RoiAlign", { keep: COORDINATES, exact: [1] }],
  ["TopK", { keep: COORDINATES, absorbs: true }],
  ["Unique", { keep: COORDINATES, exact: [0] }],
  ...each(["LpNormalization", "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare"], { keep: SQUARES }),
  ...each(["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"], {
    keep: QUANTIZED,
  }),
  ...each(["ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement", "SequenceAt"], {
    keep: NO_TENSOR,
  }),
  ...each(["SequenceConstruct", "SequenceInsert", "SequenceErase", "SequenceMap", "SplitToSequence"], {
    keep: NO_TENSOR,
  }),
  ...each(["ScatterND", "ScatterElements", "Scatter"], { keepIf: keepReduction }),
  ["Transpose", { keepIf: keepBatchTranspose, moves: true }],

  ...each(["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"], { exact: [0, 1], absorbs: true }),
  ...each(["Ceil", "Floor", "Round"], { exact: [0] }),
  ...each(["Sin", "Cos"], { exact: [0], bound: 1 }),
  ["Tan", { exact: [0] }],
  ["Mod", { exact: [0, 1] }],
  ["OneHot", { exact: [0, 1] }],
  ["Resize", { exact: [1, 2] }],
  ["Upsample", { exact: [1] }],

  ...each(["Conv", "ConvTranspose", "Einsum", "Gemm", "GRU", "LSTM", "MatMul", "RNN"], { weights: true }),
  ["DeformConv", { weights: true, exact: [2] }],
  ...each(["LayerNormalization", "RMSNormalization"], { weights: true }),
  ...each(["BatchNormalization"], { weights: true }),
  ...each(["GroupNormalization", "InstanceNormalization"], { weights: true, sums: "squares" }),
  ["LpPool", { sums: "squares" }],
  ...each(["AveragePool", "GlobalAveragePool", "ReduceL1", "ReduceMean", "ReduceSum"], { sums: "values" }),

  ...each(["Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity"], {
    moves: true,
  }),
  ...each(["Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Trilu", "Unsqueeze", "Where"], {
    moves: true,
  }),
  ...each(["Clip", "Max", "Min"], { limits: true }),
  ...each(["ArgMax", "ArgMin"], { absorbs: true }),
  ["Div", { poles: [1] }],
  ...each(["Log", "Reciprocal"], { poles: [0] }),
  ["Exp", { absorbs: true }],
  ["LogSoftmax", { absorbs: true }],
  ...each(["Softmax", "Hardmax", "Sigmoid", "HardSigmoid", "Tanh", "Erf", "Softsign"], { absorbs: true, bound: 1 }),
]);

/** Operators of com.microsoft with a float16 form. */
const CONTRIB: ReadonlyMap<string, Float16Policy> = new Map<ContribOpType, Float16Policy>([
  ...each(["BiasGelu", "FastGelu", "Gelu", "GroupQueryAttention", "MultiHeadAttention", "QuickGelu"], {}),
  ...each(["Attention", "EmbedLayerNormalization"], { weights: true }),
  ...each(["FusedConv", "FusedGemm", "FusedMatMul", "MatMulNBits", "RotaryEmbedding"], { weights: true }),
  ...each(["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"], { weights: true }),
]);

const NOTHING: Float16Policy = {};

export function policyOf(node: Pick<Node, "domain" | "opType">): Float16Policy {
  if (node.domain === "") return POLICIES.get(node.opType) ?? NOTHING;
  const contrib = node.domain === "com.microsoft" ? CONTRIB.get(node.opType) : undefined;
  return (
    contrib ?? {
      keep: { code: "unknown_operator", message: `Operators of ${node.domain} are left as they are.` },
    }
  );
}
