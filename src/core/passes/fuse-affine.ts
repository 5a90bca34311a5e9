import type { NoteCode } from "../note-codes.ts";
import type { Node, Value } from "../onnx/ir.ts";
import { arrayOf, elementCount, type Tensor, tensorOf } from "../onnx/tensor.ts";
import { entryFor, type OpType, operatorOf, parameterOf } from "../operators/operators.ts";
import { type NoteSink, noteOn, type Pass } from "./pass.ts";

/**
 * Folds what follows a linear operator channel by channel into its weight and bias. For channel c of the output
 *
 *     BatchNormalization   y_c = gamma_c · (x_c − mean_c) / sqrt(var_c + epsilon) + beta_c
 *     Mul, Div, Add, Sub   y_c = s_c · x_c + t_c   with a constant that has one value for each channel, or one for all
 *
 * are both y_c = s_c · x_c + t_c, with s_c = gamma_c / sqrt(var_c + epsilon) and t_c = beta_c − s_c · mean_c for the first. After
 * a linear operator x_c = W_c ∗ z + b_c this is (s_c · W_c) ∗ z + (s_c · b_c + t_c): new weights, and one node less. (Jacob et al.,
 * "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018, section 3.2, eq. 14.)
 *
 * Shapes: W of Conv is [Cout, Cin/group, …], of ConvTranspose [Cin, Cout/group, …] with the channels of group g at g · Cout/group; of
 * Gemm [K, N], or [N, K] when transB. All arithmetic is float64, rounded once to float32.
 *
 * A weight that another node reads too is left alone, unless only the bias changes; so is a BatchNormalization in training mode, whose
 * statistics are not constants.
 */
export const fuseAffine: Pass = {
  name: "fuse affine operators",
  run(model, note) {
    let changed = false;
    for (const graph of model.graphs()) {
      for (const node of [...graph.nodes]) {
        const layer = node.domain === "" ? LAYERS[node.opType]?.(node) : undefined;
        if (layer) while (fuseNext(layer, model.opset, note)) changed = true;
      }
    }
    return changed;
  },
};

/** A linear operator with constant weights, and where its output channels are. */
interface Layer {
  readonly node: Node;
  readonly channels: number;
  /** Axes of the output; channels are on axis 1. */
  readonly rank: number;
  /** Elements of the weight that lie next to each other and belong to one output channel. */
  readonly run: number;
  /** The output channel of element `index` of the weight. */
  channelOf(index: number): number;
}

/** y = scale · x + shift, for each channel. */
interface Affine {
  readonly scale: Float64Array;
  readonly shift: Float64Array;
}

function weightDims(node: Node, minRank: number): readonly number[] | undefined {
  const dims = constantOf(node.inputs[1])?.dims;
  return dims && dims.length >= minRank ? dims : undefined;
}

const LAYERS: Readonly<Record<string, (node: Node) => Layer | undefined>> = {
  Conv(node) {
    const dims = weightDims(node, 3);
    if (!dims) return undefined;
    const perChannel = elementCount(dims.slice(1));
    return {
      node,
      channels: dims[0]!,
      rank: dims.length,
      run: perChannel,
      channelOf: (index) => Math.floor(index / perChannel),
    };
  },
  ConvTranspose(node) {
    const dims = weightDims(node, 3);
    if (!dims) return undefined;
    const [inputs, perGroup] = dims as [number, number];
    const group = node.int("group", 1);
    const kernel = elementCount(dims.slice(2));
    const inputsPerGroup = inputs / group;
    return {
      node,
      channels: perGroup * group,
      rank: dims.length,
      run: kernel,
      channelOf(index) {
        const row = Math.floor(index / kernel);
        return Math.floor(row / perGroup / inputsPerGroup) * perGroup + (row % perGroup);
      },
    };
  },
  Gemm(node) {
    const dims = weightDims(node, 2);
    if (!dims) return undefined;
    const [rows, columns] = dims as [number, number];
    const transposed = node.int("transB", 0) !== 0;
    return {
      node,
      channels: transposed ? rows : columns,
      rank: 2,
      run: transposed ? columns : 1,
      channelOf: (index) => (transposed ? Math.floor(index / columns) : index % columns),
    };
  },
} satisfies Partial<Record<OpType, (node: Node) => Layer | undefined>>;

/** The constant behind a value that callers cannot replace. */
function constantOf(value: Value | undefined): Tensor | undefined {
  return value && !value.graph.isOverridable(value) ? value.constant : undefined;
}

/**
 * A value that is broadcast to `rank` axes with the channels on axis 1, as one float64 for each channel; undefined when it is not a float32
 * constant that varies along the channels only.
 */
function perChannel(value: Value | undefined, layer: Layer, rank = layer.rank): Float64Array | undefined {
  const constant = constantOf(value);
  if (constant?.dtype !== "float32" || constant.dims.length > rank) return undefined;
  const channelAxis = constant.dims.length - rank + 1;
  if (constant.dims.some((dim, axis) => dim !== 1 && !(axis === channelAxis && dim === layer.channels)))
    return undefined;
  const values = arrayOf(constant, "float32");
  return Float64Array.from({ length: layer.channels }, (_, c) => values[values.length === 1 ? 0 : c]!);
}

/** Biases and the parameters of a normalization are lists [C], which is what broadcasting to [N, C] wants. */
const LIST_RANK = 2;

/** What a node does to the output of `layer`, a sentence why it cannot be folded, or undefined when it is nothing of the kind. */
type Follower = (node: Node, layer: Layer, opset: number) => Affine | string | undefined;

/** What a node does to each channel whose other operand is a constant with one number for each. */
function withConstant(node: Node, layer: Layer): Affine | undefined {
  const { affine } = operatorOf(node) ?? {};
  for (const at of affine ? ([1, 0] as const) : []) {
    const parts = [...(perChannel(node.inputs[at], layer) ?? [])].map((c) => affine!(c, at));
    if (parts.length === 0 || parts.includes(undefined)) continue;
    return {
      scale: Float64Array.from(parts, (part) => part!.factor),
      shift: Float64Array.from(parts, (part) => part!.shift),
    };
  }
  return undefined;
}

const FOLLOWERS: Readonly<Partial<Record<OpType, Follower>>> = {
  BatchNormalization(node, layer, opset) {
    if (node.int("training_mode", 0) !== 0 || opset < 7 || node.int("spatial", 1) === 0) {
      return "It normalizes with the statistics of the batch.";
    }
    if (node.outputs.slice(1).some((value) => value.uses.length > 0 || value.isGraphOutput)) {
      return "Its statistics are read.";
    }
    const parameters = node.inputs.slice(1, 5).map((value) => perChannel(value, layer, LIST_RANK));
    if (parameters.some((values) => !values)) return "Its parameters are not float32 constants.";
    const [gamma, beta, mean, variance] = parameters as [Float64Array, Float64Array, Float64Array, Float64Array];
    const epsilon = parameterOf(node, "epsilon");
    const scale = gamma.map((value, c) => value / Math.sqrt(variance[c]! + epsilon));
    return { scale, shift: beta.map((value, c) => value - scale[c]! * mean[c]!) };
  },
};

/** Folds the one node that reads the layer's output, if it can be, and says whether it was. */
function fuseNext(layer: Layer, opset: number, note: NoteSink): boolean {
  const { node } = layer;
  const output = node.outputs[0]!;
  const [use, ...others] = output.uses;
  if (!use || others.length > 0 || output.isGraphOutput || use.node.graph !== node.graph) return false;
  const follower = use.node;
  const affine = entryFor(FOLLOWERS, follower)?.(follower, layer, opset) ?? withConstant(follower, layer);
  if (affine === undefined) return false;
  const skip = (code: NoteCode, message: string): false => {
    // Pointwise operators are everywhere; only a normalization that stays is worth a word.
    if (follower.opType === "BatchNormalization") note(noteOn(follower, "skipped", code, message));
    return false;
  };
  if (typeof affine === "string") return skip("not_affine", affine);
  const weight = node.inputs[1]!;
  const bias = node.inputs[2];
  if (weight.constant!.dtype !== "float32") return skip("weight_not_float32", "The weight before it is not float32.");
  const changesWeight = affine.scale.some((scale) => scale !== 1);
  if (changesWeight && weight.uses.length > 1)
    return skip("weight_is_shared", "The weight before it is read by other nodes too.");
  const oldBias = bias ? perChannel(bias, layer, LIST_RANK) : new Float64Array(layer.channels);
  if (!oldBias) return skip("bias_not_constant", "The bias before it is not a float32 constant.");
  // Gemm multiplies its bias with beta; afterwards there is none.
  const beta = node.float("beta", 1);
  const newBias = Float32Array.from(oldBias, (b, c) => affine.scale[c]! * beta * b + affine.shift[c]!);
  const newWeight = changesWeight ? scaled(weight.constant!, affine.scale, layer) : weight.constant!;
  if (![newBias, arrayOf(newWeight, "float32")].every(isAllFinite)) {
    return skip("not_finite", "Folded into the layer before it, its parameters would leave the range of float32.");
  }
  if (!node.graph.canReplace(follower.outputs[0]!, output)) return false;

  const { graph } = node;
  if (changesWeight) node.setInput(1, graph.addInitializer(`${weight.name}_fused`, newWeight));
  const biasName = bias ? `${bias.name}_fused` : `${weight.name}_bias`;
  node.setInput(2, graph.addInitializer(biasName, tensorOf("float32", [layer.channels], newBias)));
  node.setAttr("beta", undefined);
  graph.replaceUses(follower.outputs[0]!, output);
  graph.remove(follower);
  node.absorb(follower);
  note(noteOn(follower, "changed", "fused", `Folded into ${node.opType} "${node.label}".`));
  return true;
}

function scaled(weight: Tensor, scale: Float64Array, layer: Layer): Tensor {
  const values = arrayOf(weight, "float32");
  const products = new Float32Array(values.length);
  for (let start = 0; start < values.length; start += layer.run) {
    const factor = scale[layer.channelOf(start)]!;
    for (let i = start; i < start + layer.run; i++) products[i] = values[i]! * factor;
  }
  return tensorOf("float32", weight.dims, products);
}

function isAllFinite(values: Float32Array): boolean {
  // Zero times a number is zero unless that is infinite or NaN, which then stays in the sum.
  let zero = 0;
  for (let i = 0; i < values.length; i++) zero += 0 * values[i]!;
  return zero === 0;
}
