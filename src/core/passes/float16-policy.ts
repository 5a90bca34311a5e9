/** What a conversion to float16 leaves in float32 although float16 has it. What it makes of numbers is in the records of operators. */
import type { NoteReason } from "../facts.ts";
import type { Node } from "../onnx/ir.ts";
import { entryFor, type OpType } from "../operators/operators.ts";
import { type Float16Refusal, float16Refusal } from "../targets/float16.ts";

/** `message` is empty for parts of a pattern that is not worth a line of the report for each of its nodes. */
export type KeptReason = NoteReason;

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

const POLICY: Readonly<Partial<Record<OpType, KeptReason>>> = {
  AffineGrid: COORDINATES,
  BitCast: BITS,
  ConcatFromSequence: NO_TENSOR,
  DequantizeLinear: QUANTIZED,
  DynamicQuantizeLinear: QUANTIZED,
  GridSample: COORDINATES,
  LpNormalization: SQUARES,
  MaxRoiPool: COORDINATES,
  Optional: NO_TENSOR,
  OptionalGetElement: NO_TENSOR,
  OptionalHasElement: NO_TENSOR,
  QLinearConv: QUANTIZED,
  QLinearMatMul: QUANTIZED,
  QuantizeLinear: QUANTIZED,
  ReduceL2: SQUARES,
  ReduceLogSumExp: SQUARES,
  ReduceSumSquare: SQUARES,
  RoiAlign: COORDINATES,
  SequenceAt: NO_TENSOR,
  SequenceConstruct: NO_TENSOR,
  SequenceErase: NO_TENSOR,
  SequenceInsert: NO_TENSOR,
  SequenceMap: NO_TENSOR,
  SplitToSequence: NO_TENSOR,
  TopK: COORDINATES,
  Unique: COORDINATES,
};

/** Why nodes of an operator stay in float32, or a test of one; undefined where nothing stands against float16. */
export function float16Rule(node: Pick<Node, "domain" | "opType">): Float16Refusal | undefined {
  return entryFor(POLICY, node) ?? float16Refusal(node);
}

/** Why a node stays in float32, going by its operator. */
export function keptByOperator(node: Node): KeptReason | undefined {
  const rule = float16Rule(node);
  return typeof rule === "function" ? rule(node) : rule;
}
