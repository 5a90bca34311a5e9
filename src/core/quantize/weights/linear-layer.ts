import { CoreError } from "../../errors.ts";
import type { DType } from "../../onnx/dtype.ts";
import type { Node, Value } from "../../onnx/ir.ts";
import { elementCount, type Tensor, tensorOf } from "../../onnx/tensor.ts";
import { parameterOf } from "../../operators/operators.ts";
import { reshaped, type WeightView, type WeightViews } from "../../passes/weight-views.ts";
import { addBehind, isBiasFor } from "../bias-add.ts";
import type { WeightMatrix } from "../rounding/blocks.ts";
import { replaceNode, takeOver } from "./replace-node.ts";
import type { WeightSlot } from "./slots.ts";

/** y = alpha · x · W + bias, out of a MatMul or a Gemm: `rows` outputs of `depth` inputs each. */
export interface LinearLayer {
  readonly node: Node;
  /** x; transposed first where the Gemm says so. */
  readonly input: Value;
  readonly transposeInput: boolean;
  readonly weight: WeightView;
  /** How `weight` is stored: [rows, depth] (row-major) or [depth, rows] (column-major). */
  readonly matrix: Omit<WeightMatrix, "values">;
  readonly alpha: number;
  /** A vector over the outputs that is constant, times `factor`. */
  readonly bias?: { readonly view: WeightView; readonly factor: number };
  /** What else is added to the product, times `factor`. */
  readonly addend?: { readonly value: Value; readonly factor: number };
  /** The node that adds the bias; its output is the layer's. */
  readonly add?: Node;
}

/** The layer a weight belongs to; undefined when MatMul stacks matrices, or when the weight is on the left. */
export function linearLayer(slot: WeightSlot, views: WeightViews): LinearLayer | undefined {
  const { node, index, view } = slot;
  const [input] = node.inputs;
  if (index !== 1 || !input) return undefined;
  if (node.opType === "Gemm") {
    const transposed = node.int("transB", 0) !== 0;
    const [rows, depth] = transposed ? [view.dims[0]!, view.dims[1]!] : [view.dims[1]!, view.dims[0]!];
    return {
      node,
      input,
      transposeInput: node.int("transA", 0) !== 0,
      ...stored(view, rows, depth, transposed),
      alpha: parameterOf(node, "alpha"),
      ...gemmBias(node, views, rows),
    };
  }
  if (node.opType !== "MatMul") return undefined;
  const rank = view.dims.length;
  // Leading axes of 1 vanish in the product when x has as many: their number must be known.
  if (elementCount(view.dims.slice(0, -2)) !== 1) return undefined;
  if (rank > 2 && (input.shape?.length ?? 0) < rank) return undefined;
  const [depth, rows] = [view.dims[rank - 2]!, view.dims[rank - 1]!];
  return {
    node,
    input,
    transposeInput: false,
    ...stored(reshaped(view, [depth, rows]), rows, depth, false),
    alpha: 1,
    ...addedBias(node, views, rows),
  };
}

/** The matrix in the order it has in the file, rather than behind a Transpose. */
function stored(
  view: WeightView,
  rows: number,
  depth: number,
  rowMajor: boolean,
): Pick<LinearLayer, "weight" | "matrix"> {
  const flipped = view.transposed !== undefined;
  const layout = rowMajor !== flipped ? "row-major" : "column-major";
  return { weight: view.transposed ?? view, matrix: { batches: 1, rows, depth, layout } };
}

function gemmBias(node: Node, views: WeightViews, rows: number): Pick<LinearLayer, "bias" | "addend"> {
  const value = node.inputs[2];
  const factor = parameterOf(node, "beta");
  if (!value || factor === 0) return {};
  const view = views.of(value);
  return view && isVector(view, rows) ? { bias: { view, factor } } : { addend: { value, factor } };
}

/** An Add of a constant vector that is all that happens to the product. */
function addedBias(node: Node, views: WeightViews, rows: number): Pick<LinearLayer, "bias" | "add"> {
  const add = addBehind(node.outputs[0]!);
  const view = add && views.of(add.node.inputs[add.index]);
  return view && isVector(view, rows) && view.dims.length <= 1 ? { bias: { view, factor: 1 }, add: add.node } : {};
}

/** Whether a constant is the same for every row of x: [rows], [1, rows], or a single number. */
function isVector({ dims }: WeightView, rows: number): boolean {
  return elementCount(dims) === 1 || isBiasFor(rows, dims);
}

/**
 * Puts `node` (as `replaceNode` takes it, given x and the bias) in place of the layer. What is added besides the bias stays an Add.
 */
export function replaceLayer(
  layer: LinearLayer,
  build: (input: Value, bias: Value | undefined) => Parameters<typeof replaceNode>[1],
): void {
  const { node, add, addend, transposeInput } = layer;
  const { graph } = node;
  let { input } = layer;
  if (transposeInput) {
    const attrs = { perm: { type: "ints", value: [1, 0] } } as const;
    input = graph.insertBefore(node, { opType: "Transpose", inputs: [input], outputs: 1, attrs }).outputs[0]!;
  }
  const init = build(input, layer.bias && biasValue(layer, layer.bias));
  let product: Node;
  if (add) {
    product = graph.insertBefore(add, { ...init, name: node.name, standsFor: node, outputs: 1 });
    product.absorb(add);
    takeOver(add.outputs[0]!, product.outputs[0]!);
    graph.remove(add);
    graph.remove(node);
  } else product = replaceNode(node, init);
  if (addend) addScaled(product, addend, layer.weight.dtype);
}

/** The bias as a vector of its own, or the constant itself where that is one. */
function biasValue({ matrix, weight }: LinearLayer, { view, factor }: NonNullable<LinearLayer["bias"]>): Value {
  const source = view.sources[0]!;
  if (factor === 1 && source.constant?.dims.length === 1 && view.whole && view.dims[0] === matrix.rows) return source;
  const values = view.read();
  const vector = Array.from({ length: matrix.rows }, (_, i) => values[values.length === 1 ? 0 : i]! * factor);
  return view.graph.addInitializer(`${source.name}_vector`, floatTensor(weight.dtype, [matrix.rows], vector));
}

/** product + factor · value, under the product's name. */
function addScaled(product: Node, { value, factor }: NonNullable<LinearLayer["addend"]>, dtype: DType): void {
  const { graph } = product;
  const output = product.outputs[0]!;
  const sum = graph.insertAfter(product, { opType: "Add", inputs: [undefined, undefined], outputs: 1 });
  takeOver(output, sum.outputs[0]!);
  sum.setInput(0, output);
  if (factor === 1) {
    sum.setInput(1, value);
    return;
  }
  const scale = graph.addInitializer("beta", floatTensor(dtype, [], [factor]));
  sum.setInput(1, graph.insertBefore(sum, { opType: "Mul", inputs: [value, scale], outputs: 1 }).outputs[0]!);
}

/** A tensor of `dtype`, which is that of the weight: operands of MatMul and Gemm all have one. */
function floatTensor(dtype: DType, dims: readonly number[], values: readonly number[]): Tensor {
  if (dtype !== "float32" && dtype !== "float16" && dtype !== "float64") {
    throw new CoreError("internal", `There is no array of ${dtype}.`);
  }
  return tensorOf(dtype, dims, values);
}
