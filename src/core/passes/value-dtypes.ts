/**
 * The element type of every value, as far as it follows from the types of inputs and constants: files need not declare it, and bodies of
 * If rarely do. A type that is not found out is undefined, never guessed.
 */
import { type DType, dtypeOfOnnx } from "../onnx/dtype.ts";
import type { Graph, Model, Node, Value } from "../onnx/ir.ts";

export type DTypes = ReadonlyMap<Value, DType>;

/** A type, the index of the input that has it, or a rule. */
type OutputType =
  | DType
  | number
  | ((node: Node, typeOf: (value: Value | undefined) => DType | undefined) => DType | undefined);

/** The type that attribute `name` names, else that of the first input or `fallback`. */
function fromAttribute(name: string, fallback?: DType): OutputType {
  return (node, typeOf) => {
    const onnx = node.int(name);
    return onnx === undefined ? (fallback ?? typeOf(node.inputs[0])) : dtypeOfOnnx(onnx);
  };
}

/** Sequences and optionals are no tensors; what is taken out of them is unknown. */
const UNKNOWN: OutputType = () => undefined;

const FLOAT_STATISTICS: OutputType = fromAttribute("stash_type", "float32");

function each(ops: readonly string[], ...types: OutputType[]): [string, OutputType[]][] {
  return ops.map((op) => [op, types]);
}

/** By operator the types of its outputs, the last for all that follow. Operators that are not here give out the type of their first input. */
const OUTPUT_TYPES: ReadonlyMap<string, readonly OutputType[]> = new Map<string, readonly OutputType[]>([
  ...each(["And", "Or", "Xor", "Not", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"], "bool"),
  ...each(["IsNaN", "IsInf", "RegexFullMatch", "OptionalHasElement"], "bool"),
  ...each(["Shape", "Size", "ArgMax", "ArgMin", "NonZero", "NonMaxSuppression", "SequenceLength"], "int64"),
  ...each(
    ["SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceMap"],
    UNKNOWN,
  ),
  ...each(
    ["SplitToSequence", "ConcatFromSequence", "Optional", "OptionalGetElement", "StringSplit", "BitCast"],
    UNKNOWN,
  ),
  ...each(
    ["HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix"],
    fromAttribute("output_datatype", "float32"),
  ),
  ...each(["EyeLike", "RandomNormalLike", "RandomUniformLike", "Bernoulli"], fromAttribute("dtype")),
  ...each(["RandomNormal", "RandomUniform"], fromAttribute("dtype", "float32")),
  ...each(["TopK", "MaxPool", "Unique"], 0, "int64"),
  ...each(["QLinearConv", "QLinearMatMul"], 7),
  ...each(["ConvInteger", "MatMulInteger"], "int32"),
  ["Cast", [fromAttribute("to")]],
  ["CastLike", [1]],
  [
    "Constant",
    [(node) => (node.float("value_float") !== undefined || node.attrs.has("value_floats") ? "float32" : undefined)],
  ],
  ["ConstantOfShape", [(node) => node.tensor("value")?.dtype ?? "float32"]],
  ["Multinomial", [fromAttribute("dtype", "int32")]],
  ["Where", [1]],
  ["OneHot", [2]],
  ["Dropout", [0, "bool"]],
  ["LayerNormalization", [0, FLOAT_STATISTICS]],
  ["DequantizeLinear", [1]],
  ["QuantizeLinear", [(node, typeOf) => typeOf(node.inputs[2]) ?? dtypeOfOnnx(node.int("output_dtype") || 2)]],
  ["DynamicQuantizeLinear", ["uint8", "float32", "uint8"]],
  ["TfIdfVectorizer", ["float32"]],
  ["ImageDecoder", ["uint8"]],
]);

/** Operators of com.microsoft that give out the type of their first input. */
const CONTRIB_FIRST = new Set([
  "Attention",
  "BiasGelu",
  "DynamicQuantizeLSTM",
  "DynamicQuantizeMatMul",
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

/** Types of all values of all graphs of a model. */
export function inferDTypes(model: Model): DTypes {
  const types = new Map<Value, DType>();
  const typeOf = (value: Value | undefined) => value && (types.get(value) ?? value.dtype);
  const set = (value: Value | undefined, dtype: DType | undefined) => {
    const known = value?.dtype ?? dtype;
    if (value && known) types.set(value, known);
  };
  const visit = (graph: Graph): void => {
    for (const value of graph.initializers) set(value, undefined);
    for (const value of graph.inputs) set(value, undefined);
    for (const node of graph.nodes) {
      for (const body of node.bodies()) {
        for (const [inner, outer] of bodyInputs(node, body)) set(inner, typeOf(outer));
        visit(body);
      }
      node.outputs.forEach((value, i) => {
        set(value, outputType(node, i, typeOf));
      });
    }
  };
  visit(model.graph);
  return types;
}

function outputType(
  node: Node,
  index: number,
  typeOf: (value: Value | undefined) => DType | undefined,
): DType | undefined {
  const [body] = node.bodies();
  if (body) return typeOf(body.outputs[index + bodyOutputOffset(node)]);
  if (node.domain !== "") {
    return node.domain === "com.microsoft" && CONTRIB_FIRST.has(node.opType) ? typeOf(node.inputs[0]) : undefined;
  }
  const rules = OUTPUT_TYPES.get(node.opType) ?? [0];
  const rule = rules[Math.min(index, rules.length - 1)]!;
  if (typeof rule === "number") return typeOf(node.inputs[rule]);
  return typeof rule === "string" ? rule : rule(node, typeOf);
}

/** What a body's inputs are given by the node that runs it, as pairs (inside, outside). */
export function bodyInputs(node: Node, body: Graph): [Value, Value | undefined][] {
  // Loop: trip count and condition come from the loop itself; then what is carried. Scan: states, then slices of the scanned inputs;
  // before opset 9 the lengths of the sequences came first.
  const own = body.inputs.filter(({ constant }) => !constant);
  if (node.opType === "Loop") return own.slice(2).map((value, i) => [value, node.inputs[2 + i]]);
  const offset = node.graph.model.opset < 9 ? 1 : 0;
  return own.map((value, i) => [value, node.inputs[offset + i]]);
}

/** Output i of the node is output i + offset of its body: a Loop's condition stays inside. */
export function bodyOutputOffset(node: Node): number {
  return node.opType === "Loop" ? 1 : 0;
}
