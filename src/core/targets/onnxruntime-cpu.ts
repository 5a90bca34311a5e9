/**
 * onnxruntime 1.30 on the CPU. Which operators run in 8 bits when Q/DQ pairs stand around them was found out by dumping the graph that it really
 * runs, which `test/core/targets/onnxruntime-cpu.test.ts` does again.
 */
import type { NoteReason } from "../facts.ts";
import type { Node } from "../onnx/ir.ts";
import { elementCount, integersOf } from "../onnx/tensor.ts";
import { type ContribOpType, entryFor, type OpType } from "../operators/operators.ts";
import type { Int8Support } from "./target.ts";

function reason(code: NoteReason["code"], message: string): NoteReason {
  return { code, message };
}

function refuseWeight(node: Node, rank?: number): NoteReason | undefined {
  const weight = node.inputs[1];
  if (!weight?.constant) return reason("weight_not_constant", "Its weight is computed while the model runs.");
  const { dtype, dims } = weight.constant;
  if (dtype !== "float32") return reason("weight_not_float32", `Its weight is ${dtype}.`);
  if (rank !== undefined && dims.length !== rank) {
    return reason("weight_rank", `Its weight has ${dims.length} dimensions; the kernel takes ${rank}.`);
  }
  return elementCount(dims) === 0 ? reason("empty_weight", "Its weight is empty.") : undefined;
}

function refuseBias(node: Node): NoteReason | undefined {
  const bias = node.inputs[2];
  return bias && bias.constant?.dtype !== "float32"
    ? reason("bias_not_constant", "Its bias is not a float32 constant.")
    : undefined;
}

function refuseGemm(node: Node): NoteReason | undefined {
  if (node.int("transA", 0)) return reason("gemm_form", "Its first operand is transposed.");
  if (node.float("alpha", 1) !== 1 || (node.inputs[2] && node.float("beta", 1) !== 1)) {
    return reason("gemm_form", "It scales its product or its bias.");
  }
  const refused = refuseWeight(node, 2) ?? refuseBias(node);
  if (refused || !node.inputs[2]) return refused;
  const columns = node.inputs[1]!.constant!.dims[node.int("transB", 0) ? 0 : 1];
  return elementCount(node.inputs[2].constant!.dims) === columns
    ? undefined
    : reason("gemm_form", "Its bias is not one number for each column.");
}

function refuseMatMul(node: Node): NoteReason | undefined {
  if (node.inputs[0]?.constant) return reason("constant_operand", "Its first operand is a constant.");
  return node.inputs[1]?.constant ? refuseWeight(node, 2) : undefined;
}

function refuseInterpolation(node: Node): NoteReason | undefined {
  return node.string("mode", "nearest") === "nearest"
    ? undefined
    : reason("interpolation", "There is no 8-bit kernel that interpolates.");
}

/**
 * Over rows of floats the kernel is vectorized and over rows of bytes it is not: 512 rows of 1024 take 0.24 ms longer in 8 bits. Over channels or
 * over both axes of an image 8 bits take a tenth less, the way to float included (1 thread, AVX2).
 */
function refuseLastAxis(node: Node): NoteReason | undefined {
  const axes = node.ints("axes") ?? (node.inputs[1]?.constant && integersOf(node.inputs[1].constant));
  const rank = node.inputs[0]?.shape?.length;
  const [axis, other] = axes ?? [];
  const isLast = other === undefined && axis !== undefined && (axis === -1 || axis + 1 === rank);
  return isLast ? reason("slower", "Over the last axis alone the float kernel is the faster one.") : undefined;
}

const all = (node: Node): readonly number[] => [...node.inputs.keys()];

const COMPUTES: Int8Support = { runs: "computes" };
const MOVES: Int8Support = { runs: "moves" };

/** Operators with an 8-bit kernel. All others compute in float. */
export const INT8: Readonly<Partial<Record<OpType, Int8Support>>> = {
  Conv: { ...COMPUTES, bias: 2, refuse: (node) => refuseWeight(node) ?? refuseBias(node) },
  Gemm: { ...COMPUTES, bias: 2, floatOutput: true, refuse: refuseGemm },
  MatMul: {
    ...COMPUTES,
    activations: (node) => (node.inputs[1]?.constant ? [0] : [0, 1]),
    floatOutput: true,
    refuse: refuseMatMul,
  },
  Add: { ...COMPUTES, activations: all },
  Mul: { ...COMPUTES, activations: all },
  Concat: { ...COMPUTES, activations: all },
  Where: { ...COMPUTES, activations: () => [1, 2] },
  Sigmoid: COMPUTES,
  Softmax: COMPUTES,
  LeakyRelu: COMPUTES,
  AveragePool: COMPUTES,
  GlobalAveragePool: COMPUTES,
  MaxPool: {
    ...MOVES,
    refuse: (node) => (node.outputs.length > 1 ? reason("indices", "It also gives out indices.") : undefined),
  },
  Reshape: MOVES,
  Transpose: MOVES,
  Flatten: MOVES,
  Squeeze: MOVES,
  Unsqueeze: MOVES,
  Slice: MOVES,
  Split: MOVES,
  Expand: MOVES,
  Tile: MOVES,
  Gather: MOVES,
  GatherElements: MOVES,
  DepthToSpace: MOVES,
  /** The largest of some quantized values is one of them. */
  ReduceMax: { ...MOVES, refuse: refuseLastAxis },
  ReduceMin: { ...MOVES, refuse: refuseLastAxis },
  Resize: { ...MOVES, refuse: refuseInterpolation },
};

/** Operators with a kernel that quantizes its input as it runs and multiplies it with a stored int8 weight. */
export const DYNAMIC_INT8: ReadonlySet<OpType> = new Set<OpType>(["MatMul", "Gemm", "LSTM"]);

/** Float operators of com.microsoft, made by fusing those of ai.onnx, that are replaced by the same integer kernels. */
const FUSED: ReadonlySet<string> = new Set<ContribOpType>(["FusedConv", "FusedMatMul", "FusedGemm"]);

/** Operators that compute on quantized values. `DynamicQuantizeLinear` only makes them. */
const QUANTIZED_KERNELS =
  /^(QLinear\w+|QGemm|QAttention|QMoE|QEmbedLayerNormalization|QOrdered\w+|(MatMul|Conv)Integer\w*|DynamicQuantize(?!Linear$)\w+|MatMulNBits|MatMulBnb4|MatMulFpQ4|GatherBlockQuantized)$/;

export function int8Support(node: Pick<Node, "domain" | "opType">): Int8Support | undefined {
  if (node.domain === "com.microsoft") return FUSED.has(node.opType) ? COMPUTES : undefined;
  return entryFor(INT8, node);
}

/** Whether a node is one of the kernels that onnxruntime puts in the place of float operators. */
export function isQuantizedKernel({ opType }: Pick<Node, "opType">): boolean {
  return QUANTIZED_KERNELS.test(opType);
}

/** Whether onnxruntime runs a node on quantized values as they are. */
export function movesQuantized(node: Node): boolean {
  return int8Support(node)?.runs === "moves";
}
