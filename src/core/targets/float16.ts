/** What onnxruntime 1.30 does not compute in float16: operators without a kernel for it, forms of operators that fail. */
import type { NoteReason } from "../facts.ts";
import type { Node } from "../onnx/ir.ts";
import { type ContribOpType, entryFor, type OpType } from "../operators/operators.ts";

const NO_FLOAT16: NoteReason = {
  code: "no_float16",
  message: "The operator has no float16 form that runs everywhere.",
};
const CRASH: NoteReason = {
  code: "does_not_load",
  message: "onnxruntime 1.30 crashes while it fuses a float16 Transpose of this permutation with the MatMul behind it.",
};

/** Why an operator is not computed in float16, or, where that depends on its attributes or neighbours, a test. */
export type Float16Refusal = NoteReason | ((node: Node) => NoteReason | undefined);

/** Adding up into a tensor has no float16 kernel; without a reduction it only moves elements. */
function refuseReduction(node: Node): NoteReason | undefined {
  return node.string("reduction", "none") === "none" ? undefined : NO_FLOAT16;
}

/**
 * onnxruntime's fusion of a batch transposition into MatMul does not survive the Cast that it puts between the two: first axis moved to the
 * last or last but one place, and a matrix as the other operand.
 */
function refuseBatchTranspose(node: Node): NoteReason | undefined {
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

const REFUSALS: Readonly<Partial<Record<OpType, Float16Refusal>>> = {
  Bernoulli: NO_FLOAT16,
  BlackmanWindow: NO_FLOAT16,
  Celu: NO_FLOAT16,
  CumProd: NO_FLOAT16,
  CumSum: NO_FLOAT16,
  DFT: NO_FLOAT16,
  EyeLike: NO_FLOAT16,
  HammingWindow: NO_FLOAT16,
  HannWindow: NO_FLOAT16,
  IsInf: NO_FLOAT16,
  IsNaN: NO_FLOAT16,
  MeanVarianceNormalization: NO_FLOAT16,
  MelWeightMatrix: NO_FLOAT16,
  Multinomial: NO_FLOAT16,
  NonMaxSuppression: NO_FLOAT16,
  Range: NO_FLOAT16,
  STFT: NO_FLOAT16,
  Scatter: refuseReduction,
  ScatterElements: refuseReduction,
  ScatterND: refuseReduction,
  TfIdfVectorizer: NO_FLOAT16,
  Transpose: refuseBatchTranspose,
};

/** Operators of com.microsoft with a float16 form. */
const CONTRIB: ReadonlySet<string> = new Set<ContribOpType>([
  "Attention",
  "BiasGelu",
  "EmbedLayerNormalization",
  "FastGelu",
  "FusedConv",
  "FusedGemm",
  "FusedMatMul",
  "Gelu",
  "GroupQueryAttention",
  "MatMulNBits",
  "MultiHeadAttention",
  "QuickGelu",
  "RotaryEmbedding",
  "SkipLayerNormalization",
  "SkipSimplifiedLayerNormalization",
]);

/** What stands against computing a node in float16. Of other domains than ai.onnx, only what is listed is known to have a float16 form. */
export function float16Refusal(node: Pick<Node, "domain" | "opType">): Float16Refusal | undefined {
  if (node.domain === "") return entryFor(REFUSALS, node);
  if (node.domain === "com.microsoft" && CONTRIB.has(node.opType)) return undefined;
  return { code: "unknown_operator", message: `Operators of ${node.domain} are left as they are.` };
}
