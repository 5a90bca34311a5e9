/**
 * A thinner student of the same depth: layers become two layers with a narrow middle. For y = Wx + b with W [M, K] (a convolution's kernel
 * with all taps in K), the best rank-r map for the inputs it really gets is the projection of its outputs on their r principal directions
 * U (Zhang et al. 2016, "Accelerating very deep convolutional networks", 3.1):
 *
 *   ŷ = U (Uᵀ W) x + b̂,   b̂ = b + (1 − U Uᵀ) E[Wx],   U: eigenvectors of Cov[Wx] with the largest eigenvalues
 *
 * that is, a layer Uᵀ W (to r outputs) followed by a layer U with bias b̂ (for a convolution, 1x1). Without data Cov is W Wᵀ and E[Wx] is 0,
 * which is the plain SVD. Layers have (K + M)·r weights instead of K·M.
 *
 * Where K < M and the inputs are rows, the K x K problem is solved instead: with Cov[x] = L Lᵀ and v the eigenvectors of Lᵀ Wᵀ W L with
 * eigenvalues s², U = W L v / s has the directions of the outputs. How many weights a layer will have is known without any of it.
 */
import { CoreError, checkCancelled } from "../errors.ts";
import type { Attr, Model, Node, Value } from "../onnx/ir.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../onnx/tensor.ts";
import { removeDeadCode } from "../passes/dead-code.ts";
import type { OpenSession } from "../runtime/session.ts";
import { symmetricEigen } from "./eigen.ts";
import { type Layer, layerMoments, type Moments, solvesInputs } from "./layer-moments.ts";
import { choleskyFactor, type Matrix, openProducts, type Products, transposed } from "./matrix-products.ts";

/** A layer that was looked at: factorized to `rank`, or left alone for a reason. */
export interface FactorizedLayer {
  readonly node: string;
  readonly op: string;
  /** M and K. */
  readonly outputs: number;
  readonly inputs: number;
  readonly rank: number | null;
  /** Share of the variance of the outputs that the rank keeps; null for a layer that was left alone, and where it was not computed. */
  readonly energy: number | null;
  readonly reason: string | null;
}

export interface FactorizeOptions {
  /** Share of each layer's weights that is kept. */
  readonly fraction: number;
  /** Inputs to judge directions by; undefined: by the weights alone. */
  readonly batches?: readonly Readonly<Record<string, Tensor>>[] | undefined;
  /** Only the structure is wanted: layers get their ranks, and weights that mean nothing. Neither data nor time is needed. */
  readonly structureOnly?: boolean | undefined;
  readonly openSession: OpenSession;
  readonly threads: number;
  readonly signal?: AbortSignal | undefined;
}

/** Layers whose smaller side is below this lose too much for what they save. */
const MIN_SIDE = 16;
/** Eigenvectors of a larger matrix take minutes. */
const MAX_SIDE = 2048;

/** The two matrices that take the place of W, row-major: U [M, r] and Uᵀ W [r, K]. */
interface Factors {
  readonly outer: Matrix;
  readonly inner: Matrix;
  /** Share of the variance that is kept. */
  readonly energy: number;
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
  const entry = (layer: Layer, rank: number, energy: number | null): FactorizedLayer => {
    const { node, m, k } = layer;
    return { node: node.label, op: node.opType, outputs: m, inputs: k, rank, energy, reason: null };
  };
  if (options.structureOnly) {
    for (const layer of layers) {
      const rank = rankOf(layer, options.fraction);
      report.push(entry(layer, rank, null));
      replaceLayer(layer, rank);
    }
  } else {
    const moments = options.batches && (await layerMoments(student, layers, options));
    const products = await openProducts(options.openSession, options.threads);
    try {
      for (const layer of layers) {
        checkCancelled(options.signal);
        const rank = rankOf(layer, options.fraction);
        const seen = moments?.get(layer);
        const factors = await (solvesInputs(layer) ? factorsByInputs : factorsByOutputs)(layer, rank, seen, products);
        report.push(entry(layer, rank, factors.energy));
        replaceLayer(layer, rank, factors, seen && (await outputMean(layer, seen, products)));
      }
    } finally {
      await products.close();
    }
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
  const base = { node, weight, bias: node.inputs[2] };
  if (weight.uses.length > 1) return "its weight is shared";
  if (node.opType === "Conv") {
    if (node.int("group", 1) !== 1) return "its channels are in groups";
    const m = dims[0]!;
    return { ...base, m, k: elementCount(dims) / m };
  }
  if (dims.length !== 2 || (node.opType === "Gemm" && node.int("transA", 0) === 1))
    return "it is not a matrix applied to rows";
  const bias = node.inputs[2];
  if (bias && !(bias.constant && [1, dims[0], dims[1]].includes(elementCount(bias.constant.dims)))) {
    return "its bias is not a vector";
  }
  const [m, k] = hasRowsOfOutputs(node) ? [dims[0]!, dims[1]!] : [dims[1]!, dims[0]!];
  return { ...base, m, k };
}

/** Whether the weight of a Gemm or MatMul is W and not Wᵀ. */
const hasRowsOfOutputs = (node: Node) => node.opType === "Gemm" && node.int("transB", 0) === 1;

/** W, row-major [M, K]. */
function matrixOf({ node, weight, m, k }: Layer): Matrix {
  const data = Float64Array.from(floatsOf(weight.constant!));
  return node.opType === "Conv" || hasRowsOfOutputs(node) ? data : transposed(data, k, m);
}

function rankOf({ m, k }: Layer, fraction: number): number {
  return Math.max(1, Math.floor((fraction * m * k) / (m + k)));
}

function reasonToLeave(layer: Layer, fraction: number): string | undefined {
  const { m, k } = layer;
  if (Math.min(m, k) < MIN_SIDE) return "it is too narrow";
  if ((solvesInputs(layer) ? k : m) > MAX_SIDE) return "it is too wide";
  if (rankOf(layer, fraction) >= Math.min(m, k)) return "two layers would be no smaller";
  return undefined;
}

/** By the eigenvectors of the outputs' covariance. */
async function factorsByOutputs(
  layer: Layer,
  rank: number,
  moments: Moments | undefined,
  products: Products,
): Promise<Factors> {
  const { m, k } = layer;
  const w = matrixOf(layer);
  const covariance = moments?.covariance ?? (await products.multiply(w, transposed(w, m, k), m, k, m));
  const { values, vectors } = symmetricEigen(covariance, m, rank);
  const inner = await products.multiply(transposed(vectors, m, rank), w, rank, m, k);
  return { outer: vectors, inner, energy: energyOf(values, covariance, m) };
}

/** By the eigenvectors v of Lᵀ Wᵀ W L: U = W L v / s, and Uᵀ W = (Wᵀ W L v / s)ᵀ. */
async function factorsByInputs(
  layer: Layer,
  rank: number,
  moments: Moments | undefined,
  products: Products,
): Promise<Factors> {
  const { m, k } = layer;
  const w = matrixOf(layer);
  const gram = await products.multiply(transposed(w, m, k), w, k, m, k);
  const l = moments && choleskyFactor(moments.covariance, k);
  const problem = l
    ? await products.multiply(transposed(l, k, k), await products.multiply(gram, l, k, k, k), k, k, k)
    : gram;
  const { values, vectors } = symmetricEigen(problem, k, rank);
  const inputs = l ? await products.multiply(l, vectors, k, k, rank) : vectors;
  const largest = Math.max(0, values[0]!);
  for (let r = 0; r < rank; r++) {
    // Directions that the outputs do not have stay empty.
    const scale = values[r]! > DEAD_DIRECTION * largest ? 1 / Math.sqrt(values[r]!) : 0;
    for (let i = 0; i < k; i++) inputs[i * rank + r]! *= scale;
  }
  const outer = await products.multiply(w, inputs, m, k, rank);
  const inner = transposed(await products.multiply(gram, inputs, k, k, rank), k, rank);
  return { outer, inner, energy: energyOf(values, problem, k) };
}

/** Share of the largest variance below which a direction is rounding. */
const DEAD_DIRECTION = 1e-13;

/** What the kept eigenvalues are of the sum of all, the trace. */
function energyOf(kept: Float64Array, matrix: Float64Array, n: number): number {
  let trace = 0;
  for (let i = 0; i < n; i++) trace += matrix[i * n + i]!;
  return trace > 0 ? Math.min(1, kept.reduce((sum, value) => sum + Math.max(0, value), 0) / trace) : 1;
}

/** The mean of the outputs without bias, [M]. */
async function outputMean(layer: Layer, { mean }: Moments, products: Products): Promise<Matrix> {
  if (!solvesInputs(layer)) return mean;
  const alpha = layer.node.opType === "Gemm" ? layer.node.float("alpha", 1) : 1;
  const result = await products.multiply(matrixOf(layer), mean, layer.m, layer.k, 1);
  return result.map((x) => alpha * x);
}

/** Puts Uᵀ W and U in the place of the layer; zeros of their shapes, and of a bias, where there are no factors. */
function replaceLayer(layer: Layer, rank: number, factors?: Factors, mean?: Matrix | undefined): void {
  const { node, weight, m, k, bias } = layer;
  const { graph } = node;
  const make = (opType: string, part: string, inputs: (Value | undefined)[], attrs: Record<string, Attr>) =>
    graph.insertBefore(node, {
      opType,
      name: graph.model.freshName(`${node.label}_${part}`),
      inputs,
      outputs: 1,
      attrs,
    }).outputs[0]!;
  const constant = (part: string, dims: readonly number[], data: Matrix | undefined) =>
    graph.addInitializer(
      `${weight.name}_${part}`,
      tensorOf("float32", dims, data ? new Float32Array(data) : new Float32Array(elementCount(dims))),
    );
  const newBias = () => {
    if (factors) return mean ? adjustedBias(layer, rank, factors.outer, mean) : bias;
    return constant("bias", [m], undefined);
  };
  const { inner, outer } = factors ?? {};
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
    const third = newBias();
    result = make("Conv", "outer", third ? [first, second, third] : [first, second], {});
  } else if (node.opType === "Gemm") {
    const attrs: Record<string, Attr> = { transB: { type: "int", value: 1 } };
    const alpha: Record<string, Attr> = { alpha: { type: "float", value: node.float("alpha", 1) } };
    const first = make("Gemm", "inner", [x, constant("inner", [rank, k], inner)], { ...attrs, ...alpha });
    const second = constant("outer", [m, rank], outer);
    const third = newBias();
    const beta: Record<string, Attr> = { beta: { type: "float", value: mean ? 1 : node.float("beta", 1) } };
    result = make("Gemm", "outer", third ? [first, second, third] : [first, second], { ...attrs, ...beta });
  } else {
    const first = make("MatMul", "inner", [x, constant("inner", [k, rank], inner && transposed(inner, rank, k))], {});
    const second = constant("outer", [rank, m], outer && transposed(outer, m, rank));
    result = make("MatMul", "outer", [first, second], {});
  }
  result.dtype = node.outputs[0]!.dtype;
  result.shape = node.outputs[0]!.shape;
  graph.replaceUses(node.outputs[0]!, result);
  graph.remove(node);
}

/** b + (1 − U Uᵀ) E[Wx]. */
function adjustedBias({ node, weight, m, bias }: Layer, rank: number, outer: Matrix, mean: Matrix): Value {
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
