/**
 * A thinner student of the same depth: layers become two layers with a narrow middle. For y = Wx + b with W [M, K] (a convolution's kernel
 * with all taps in K), the best rank-r map for the inputs it really gets is the projection of its outputs on their r principal directions
 * U (Zhang et al. 2016, "Accelerating very deep convolutional networks", 3.1):
 *
 *   ŷ = U (Uᵀ W) x + b̂,   b̂ = b + (1 − U Uᵀ) E[Wx],   U: eigenvectors of Cov[Wx] with the largest eigenvalues
 *
 * that is, a layer Uᵀ W (to r outputs) followed by a layer U with bias b̂ (for a convolution, 1x1). Without data Cov is W Wᵀ and E[Wx] is 0,
 * which is the plain SVD. Layers have (K + M)·r weights instead of K·M.
 */
import { CoreError, checkCancelled } from "../errors.ts";
import type { Attr, Model, Node, Value } from "../onnx/ir.ts";
import { modelToBytes } from "../onnx/save.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../onnx/tensor.ts";
import { removeDeadCode } from "../passes/dead-code.ts";
import type { OpenSession } from "../runtime/session.ts";
import { symmetricEigen } from "./eigen.ts";

/** A layer that was looked at: factorized to `rank`, or left alone for a reason. */
export interface FactorizedLayer {
  readonly node: string;
  readonly op: string;
  /** M and K. */
  readonly outputs: number;
  readonly inputs: number;
  readonly rank: number | null;
  /** Share of the variance of the outputs that the rank keeps; null for a layer that was left alone. */
  readonly energy: number | null;
  readonly reason: string | null;
}

export interface FactorizeOptions {
  /** Share of each layer's weights that is kept. */
  readonly fraction: number;
  /** Inputs to judge directions by; undefined: by the weights alone. */
  readonly batches?: readonly Readonly<Record<string, Tensor>>[] | undefined;
  readonly openSession: OpenSession;
  readonly threads: number;
  readonly signal?: AbortSignal | undefined;
}

/** Layers whose smaller side is below this lose too much for what they save. */
const MIN_SIDE = 16;
/** Eigenvectors of a larger side take minutes. */
const MAX_OUTPUTS = 2048;

interface Layer {
  readonly node: Node;
  readonly weight: Value;
  /** Row-major [M, K]. */
  readonly w: Float64Array;
  readonly m: number;
  readonly k: number;
  readonly bias: Value | undefined;
}

/** A copy of `model` with its large layers factorized. Throws `unsupported` where there is none. */
export async function factorizeLayers(
  model: Model,
  options: FactorizeOptions,
): Promise<{ readonly model: Model; readonly layers: readonly FactorizedLayer[] }> {
  const student = model.clone();
  const layers: Layer[] = [];
  const report: FactorizedLayer[] = [];
  const leave = (node: Node, m: number, k: number, reason: string) =>
    report.push({ node: node.label, op: node.opType, outputs: m, inputs: k, rank: null, energy: null, reason });
  for (const node of student.graph.nodes) {
    const layer = layerOf(node);
    if (!layer) continue;
    const reason = typeof layer === "string" ? layer : reasonToLeave(layer, options.fraction);
    if (reason) leave(node, typeof layer === "string" ? 0 : layer.m, typeof layer === "string" ? 0 : layer.k, reason);
    else layers.push(layer as Layer);
  }
  if (layers.length === 0) throw new CoreError("unsupported", "The model has no layers that are worth factorizing.");
  const moments = options.batches && (await outputMoments(student, layers, options));
  for (const layer of layers) {
    checkCancelled(options.signal);
    const rank = rankOf(layer, options.fraction);
    const { covariance, mean } = moments?.get(layer) ?? { covariance: gramOf(layer), mean: undefined };
    const { values, vectors } = symmetricEigen(covariance, layer.m);
    const total = values.reduce((sum, value) => sum + Math.max(0, value), 0);
    const kept = values.subarray(0, rank).reduce((sum, value) => sum + Math.max(0, value), 0);
    report.push({
      node: layer.node.label,
      op: layer.node.opType,
      outputs: layer.m,
      inputs: layer.k,
      rank,
      energy: total > 0 ? kept / total : 1,
      reason: null,
    });
    replaceLayer(layer, rank, vectors, mean);
  }
  removeDeadCode.run(student, () => {});
  return { model: student, layers: report };
}

/** The layer a node is; undefined for other nodes, a reason for layers that cannot be factorized. */
function layerOf(node: Node): Layer | string | undefined {
  if (node.domain !== "" || !["Conv", "Gemm", "MatMul"].includes(node.opType)) return undefined;
  const weight = node.inputs[1];
  if (weight?.constant?.dtype !== "float32") return undefined;
  const dims = weight.constant.dims;
  const data = floatsOf(weight.constant);
  const base = { node, weight, bias: node.inputs[2] };
  if (weight.uses.length > 1) return "its weight is shared";
  if (node.opType === "Conv") {
    if (node.int("group", 1) !== 1) return "its channels are in groups";
    const m = dims[0]!;
    return { ...base, w: Float64Array.from(data), m, k: data.length / m };
  }
  if (dims.length !== 2 || (node.opType === "Gemm" && node.int("transA", 0) === 1))
    return "it is not a matrix applied to rows";
  const bias = node.inputs[2];
  if (bias && !(bias.constant && [1, dims[0], dims[1]].includes(elementCount(bias.constant.dims)))) {
    return "its bias is not a vector";
  }
  const transposed = node.opType === "Gemm" && node.int("transB", 0) === 1;
  const [m, k] = transposed ? [dims[0]!, dims[1]!] : [dims[1]!, dims[0]!];
  const w = new Float64Array(m * k);
  for (let i = 0; i < m; i++) for (let j = 0; j < k; j++) w[i * k + j] = data[transposed ? i * k + j : j * m + i]!;
  return { ...base, w, m, k };
}

function rankOf({ m, k }: Layer, fraction: number): number {
  return Math.max(1, Math.floor((fraction * m * k) / (m + k)));
}

function reasonToLeave(layer: Layer, fraction: number): string | undefined {
  const { m, k } = layer;
  if (Math.min(m, k) < MIN_SIDE) return "it is too narrow";
  if (m > MAX_OUTPUTS) return "it is too wide";
  if (rankOf(layer, fraction) >= Math.min(m, k)) return "two layers would be no smaller";
  return undefined;
}

/** W Wᵀ. */
function gramOf({ w, m, k }: Layer): Float64Array {
  const gram = new Float64Array(m * m);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = 0;
      for (let c = 0; c < k; c++) sum += w[i * k + c]! * w[j * k + c]!;
      gram[i * m + j] = sum;
      gram[j * m + i] = sum;
    }
  }
  return gram;
}

interface Moments {
  readonly covariance: Float64Array;
  readonly mean: Float64Array;
}

/** Mean and covariance of each layer's outputs without bias, [M] and [M, M], over all samples and positions of the batches. */
async function outputMoments(
  model: Model,
  layers: readonly Layer[],
  { batches, openSession, threads, signal }: FactorizeOptions,
): Promise<ReadonlyMap<Layer, Moments>> {
  // In a copy, Σ yyᵀ and Σ y of each layer become outputs, so that only small matrices leave the runtime.
  const probe = model.clone();
  for (const value of [...probe.graph.outputs]) probe.graph.removeOutput(value);
  const nodes = new Map(probe.graph.nodes.flatMap((node) => node.outputs.map((value) => [value.name, node] as const)));
  const names = layers.map(({ node, m }) => {
    const copy = nodes.get(node.outputs[0]!.name)!;
    const graph = probe.graph;
    const append = (opType: string, inputs: Value[], attrs = {}) =>
      graph.append({ opType, name: graph.model.freshName(`moments_${opType}`), inputs, outputs: 1, attrs }).outputs[0]!;
    const shape = (...dims: number[]) => graph.addInitializer("moments_shape", tensorOf("int64", [dims.length], dims));
    // Outputs as columns [n, M, positions] for a convolution, as rows [1, n, M] otherwise.
    const isConv = node.opType === "Conv";
    const y = append("Reshape", [copy.outputs[0]!, isConv ? shape(0, m, -1) : shape(1, -1, m)]);
    const swapped = append("Transpose", [y], { perm: { type: "ints", value: [0, 2, 1] } });
    const products = isConv ? append("MatMul", [y, swapped]) : append("MatMul", [swapped, y]);
    // Axes are an input from version 13 on, an attribute before.
    const total = (value: Value, ...axes: number[]) =>
      probe.opset < 13
        ? append("ReduceSum", [value], { axes: { type: "ints", value: axes }, keepdims: { type: "int", value: 0 } })
        : append("ReduceSum", [value, shape(...axes)], { keepdims: { type: "int", value: 0 } });
    const outputs = {
      products: total(products, 0),
      sum: isConv ? total(y, 0, 2) : total(y, 0, 1),
      count: append("Shape", [y]),
    };
    for (const value of Object.values(outputs)) graph.addOutput(value);
    return { products: outputs.products.name, sum: outputs.sum.name, count: outputs.count.name, isConv };
  });
  const session = await openSession({ bytes: modelToBytes(probe) }, { threads });
  const totals = layers.map(({ m }) => ({ covariance: new Float64Array(m * m), mean: new Float64Array(m), count: 0 }));
  try {
    for (const feeds of batches!) {
      checkCancelled(signal);
      const results = await session.run(feeds);
      for (const [i, { products, sum, count, isConv }] of names.entries()) {
        const total = totals[i]!;
        floatsOf(results[products]!).forEach((x, j) => {
          total.covariance[j]! += x;
        });
        floatsOf(results[sum]!).forEach((x, j) => {
          total.mean[j]! += x;
        });
        const dims = new BigInt64Array(results[count]!.bytes.slice().buffer);
        total.count += Number(isConv ? dims[0]! * dims[2]! : dims[1]!);
      }
    }
  } finally {
    await session.close();
  }
  return new Map(layers.map((layer, i) => [layer, momentsOf(layer, totals[i]!)]));
}

/**
 * Sums to moments. The bias is taken off the mean, which is all that it changes. A MatMul has no bias that could make up for the mean, so
 * that it is part of what U must keep.
 */
function momentsOf({ m, bias, node }: Layer, { covariance, mean, count }: Moments & { count: number }): Moments {
  const centre = node.opType === "MatMul" ? 0 : 1;
  for (let i = 0; i < m; i++) mean[i]! /= count;
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < m; j++) covariance[i * m + j] = covariance[i * m + j]! / count - centre * mean[i]! * mean[j]!;
  }
  if (bias?.constant) {
    const beta = node.opType === "Gemm" ? node.float("beta", 1) : 1;
    const values = floatsOf(bias.constant);
    for (let i = 0; i < m; i++) mean[i]! -= beta * values[values.length === 1 ? 0 : i]!;
  }
  return { covariance, mean };
}

/** Puts Uᵀ W and U in the place of the layer. */
function replaceLayer(layer: Layer, rank: number, vectors: Float64Array, mean: Float64Array | undefined): void {
  const { node, weight, w, m, k, bias } = layer;
  const { graph } = node;
  const inner = new Float32Array(rank * k);
  const outer = new Float32Array(m * rank);
  for (let r = 0; r < rank; r++) {
    for (let i = 0; i < m; i++) {
      const u = vectors[i * m + r]!;
      outer[i * rank + r] = u;
      for (let c = 0; c < k; c++) inner[r * k + c]! += u * w[i * k + c]!;
    }
  }
  const make = (opType: string, part: string, inputs: (Value | undefined)[], attrs: Record<string, Attr>) =>
    graph.insertBefore(node, {
      opType,
      name: graph.model.freshName(`${node.label}_${part}`),
      inputs,
      outputs: 1,
      attrs,
    }).outputs[0]!;
  const constant = (part: string, dims: readonly number[], data: Float32Array<ArrayBuffer>) =>
    graph.addInitializer(`${weight.name}_${part}`, tensorOf("float32", dims, data));
  const x = node.inputs[0]!;
  let result: Value;
  if (node.opType === "Conv") {
    const kernel = weight.constant!.dims.slice(1);
    const first = make(
      "Conv",
      "inner",
      [x, constant("inner", [rank, ...kernel], inner)],
      Object.fromEntries(node.attrs),
    );
    const second = constant("outer", [m, rank, ...kernel.slice(1).map(() => 1)], outer);
    const newBias = mean ? adjustedBias(layer, rank, outer, mean) : bias;
    result = make("Conv", "outer", newBias ? [first, second, newBias] : [first, second], {});
  } else if (node.opType === "Gemm") {
    const attrs: Record<string, Attr> = { transB: { type: "int", value: 1 } };
    const alpha: Record<string, Attr> = { alpha: { type: "float", value: node.float("alpha", 1) } };
    const first = make("Gemm", "inner", [x, constant("inner", [rank, k], inner)], { ...attrs, ...alpha });
    const second = constant("outer", [m, rank], outer);
    const newBias = mean ? adjustedBias(layer, rank, outer, mean) : bias;
    const beta: Record<string, Attr> = { beta: { type: "float", value: mean ? 1 : node.float("beta", 1) } };
    result = make("Gemm", "outer", newBias ? [first, second, newBias] : [first, second], { ...attrs, ...beta });
  } else {
    const swap = (data: Float32Array, rows: number, columns: number) =>
      Float32Array.from(data, (_, i) => data[(i % rows) * columns + Math.floor(i / rows)]!);
    const first = make("MatMul", "inner", [x, constant("inner", [k, rank], swap(inner, rank, k))], {});
    result = make("MatMul", "outer", [first, constant("outer", [rank, m], swap(outer, m, rank))], {});
  }
  result.dtype = node.outputs[0]!.dtype;
  result.shape = node.outputs[0]!.shape;
  graph.replaceUses(node.outputs[0]!, result);
  graph.remove(node);
}

/** b + (1 − U Uᵀ) E[Wx]. */
function adjustedBias({ node, weight, m, bias }: Layer, rank: number, outer: Float32Array, mean: Float64Array): Value {
  const beta = node.opType === "Gemm" ? node.float("beta", 1) : 1;
  const old = bias?.constant ? floatsOf(bias.constant) : undefined;
  const coordinates = new Float64Array(rank);
  for (let i = 0; i < m; i++) for (let r = 0; r < rank; r++) coordinates[r]! += outer[i * rank + r]! * mean[i]!;
  const data = Float32Array.from({ length: m }, (_, i) => {
    let projected = 0;
    for (let r = 0; r < rank; r++) projected += outer[i * rank + r]! * coordinates[r]!;
    return beta * (old?.[old.length === 1 ? 0 : i] ?? 0) + mean[i]! - projected;
  });
  return node.graph.addInitializer(`${weight.name}_bias`, tensorOf("float32", [m], data));
}
