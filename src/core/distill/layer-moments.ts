/** Means and covariances of what layers read or give out. */
import { checkCancelled } from "../errors.ts";
import type { Model, Node, Value } from "../onnx/ir.ts";
import { modelToBytes } from "../onnx/save.ts";
import { floatsOf, tensorOf } from "../onnx/tensor.ts";
import type { FactorizeOptions } from "./factorize.ts";
import type { Matrix } from "./matrix-products.ts";

export interface Layer {
  readonly node: Node;
  readonly weight: Value;
  readonly m: number;
  readonly k: number;
  readonly bias: Value | undefined;
}

/** The inputs of a convolution are not rows: they would have to be cut out of the image first. */
export const solvesInputs = ({ node, m, k }: Layer) => node.opType !== "Conv" && k < m;

export interface Moments {
  readonly covariance: Matrix;
  readonly mean: Matrix;
}

/**
 * Mean and covariance over all samples and positions of the batches: of each layer's outputs without bias, [M] and [M, M], or of its
 * inputs, [K] and [K, K], where `solvesInputs`.
 */
export async function layerMoments(
  model: Model,
  layers: readonly Layer[],
  { batches, openSession, threads, signal }: FactorizeOptions,
): Promise<ReadonlyMap<Layer, Moments>> {
  // In a copy, Σ yyᵀ and Σ y of each layer (or of its inputs) become outputs, so that only small matrices leave the runtime.
  const probe = model.clone();
  for (const value of [...probe.graph.outputs]) probe.graph.removeOutput(value);
  const nodes = new Map(probe.graph.nodes.flatMap((node) => node.outputs.map((value) => [value.name, node] as const)));
  const sides = layers.map((layer) => (solvesInputs(layer) ? layer.k : layer.m));
  const names = layers.map((layer, i) => {
    const { node } = layer;
    const side = sides[i]!;
    const copy = nodes.get(node.outputs[0]!.name)!;
    const graph = probe.graph;
    const append = (opType: string, inputs: Value[], attrs = {}) =>
      graph.append({ opType, name: graph.model.freshName(`moments_${opType}`), inputs, outputs: 1, attrs }).outputs[0]!;
    const shape = (...dims: number[]) => graph.addInitializer("moments_shape", tensorOf("int64", [dims.length], dims));
    // Outputs as columns [n, M, positions] for a convolution, rows [1, n, M] or [1, n, K] otherwise.
    const isConv = node.opType === "Conv";
    const seen = solvesInputs(layer) ? copy.inputs[0]! : copy.outputs[0]!;
    const y = append("Reshape", [seen, isConv ? shape(0, side, -1) : shape(1, -1, side)]);
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
  const totals = sides.map((side) => ({
    covariance: new Float64Array(side ** 2),
    mean: new Float64Array(side),
    count: 0,
  }));
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
 * Sums to moments. The bias is taken off the mean of outputs, which is all that it changes. A MatMul has no bias that could make up for the
 * mean, so that it is part of what U must keep.
 */
function momentsOf(layer: Layer, { covariance, mean, count }: Moments & { count: number }): Moments {
  const { bias, node } = layer;
  const side = mean.length;
  const centre = node.opType === "MatMul" ? 0 : 1;
  for (let i = 0; i < side; i++) mean[i]! /= count;
  for (let i = 0; i < side; i++) {
    for (let j = 0; j < side; j++) {
      covariance[i * side + j] = covariance[i * side + j]! / count - centre * mean[i]! * mean[j]!;
    }
  }
  if (bias?.constant && !solvesInputs(layer)) {
    const beta = node.opType === "Gemm" ? node.float("beta", 1) : 1;
    const values = floatsOf(bias.constant);
    for (let i = 0; i < side; i++) mean[i]! -= beta * values[values.length === 1 ? 0 : i]!;
  }
  return { covariance, mean };
}
