/**
 * y = γ·x̂ + β with x̂ = (x − μ)·r, r = 1/√(σ² + ε). Where μ and σ² are computed from x itself, over n elements:
 *
 *   dx = r·(dx̂ − mean(dx̂) − x̂·mean(dx̂ ⊙ x̂)),   dx̂ = γ·dy,   dγ = Σ dy ⊙ x̂,   dβ = Σ dy
 *
 * Where they are given (an inference BatchNormalization), dx = r·γ·dy. Instance, group and RMS normalisation are rewritten in terms of
 * these before differentiation (`expand.ts`).
 */

import { dimsOf, float, type GraphBuilder, range } from "../../onnx/graph-builder.ts";
import type { Node, Value } from "../../onnx/ir.ts";
import { type OpType, parameterOf } from "../../operators/operators.ts";
import type { GradientRule } from "./gradient-rule.ts";

/** A vector of one number per channel, shaped to meet [N, C, …]. */
function perChannel(g: GraphBuilder, vector: Value, rank: number): Value {
  return g.unsqueeze(
    vector,
    range(rank - 2).map((i) => i + 1),
  );
}

/** scale·(x − mean), one of each for a channel, in one pass over memory: an inference BatchNormalization computes that. */
function centredAndScaled(g: GraphBuilder, x: Value, mean: Value, scale: Value, channels: number): Value {
  const [shift, variance] = [g.full([channels], 0, x), g.full([channels], 1, x)];
  return g.op("BatchNormalization", [x, scale, shift, mean, variance], { epsilon: float(0) });
}

/**
 * A training node has its momentum set to 0 (`train/prepare.ts`), so that its second and third outputs are the mean and variance of this
 * batch.
 */
const batchNormalization: GradientRule = {
  refuses: (node) =>
    node.int("training_mode", 0) === 1 && parameterOf(node, "momentum") !== 0
      ? "its running averages hide the statistics of the batch"
      : undefined,
  backward: (g, node, [dy], wanted) => {
    const [x, gamma] = [node.inputs[0]!, node.inputs[1]!];
    const training = node.int("training_mode", 0) === 1;
    const [mean, variance] = training ? [node.outputs[1]!, node.outputs[2]!] : [node.inputs[3]!, node.inputs[4]!];
    const dims = dimsOf(x);
    const axes = [0, ...range(dims.length - 2).map((i) => i + 2)];
    const n = axes.reduce((count, axis) => count * dims[axis]!, 1);
    const d = dy!;
    const r = g.op("Reciprocal", [g.sqrt(g.add(variance, parameterOf(node, "epsilon")))]);
    const beta = wanted[2] || training ? g.sum(d, axes, false) : undefined;
    const channels = (vector: Value) => perChannel(g, vector, dims.length);
    if (!training) {
      const dGamma = () => g.mul(g.sub(g.sum(g.mul(d, x), axes, false), g.mul(mean, beta ?? g.sum(d, axes, false))), r);
      return [
        wanted[0] ? g.mul(d, channels(g.mul(gamma, r))) : undefined,
        wanted[1] ? dGamma() : undefined,
        wanted[2] ? beta : undefined,
      ];
    }
    const centred = g.sub(x, channels(mean));
    const dGamma = g.mul(g.sum(g.mul(d, centred), axes, false), r);
    const scale = g.mul(gamma, r);
    const dx = () => {
      const direct = centredAndScaled(g, d, g.mul(beta!, 1 / n), scale, dims[1]!);
      const slope = g.mul(g.mul(scale, r), g.mul(dGamma, 1 / n));
      return g.sub(direct, g.mul(centred, channels(slope)));
    };
    return [wanted[0] ? dx() : undefined, wanted[1] ? dGamma : undefined, wanted[2] ? beta : undefined];
  },
};

/** Outputs 1 and 2 are the mean and r of each row; the forward node gives them out on demand. */
const layerNormalization: GradientRule = {
  backward: (g, node, [dy], wanted) => {
    const [x, scale] = [node.inputs[0]!, node.inputs[1]!];
    const dims = dimsOf(x);
    const given = node.int("axis", -1);
    const axis = given < 0 ? given + dims.length : given;
    const axes = range(dims.length).slice(axis);
    const outer = range(axis);
    const [mean, r] = statisticsOf(node, dims, axis);
    const d = dy!;
    const xHat = g.mul(g.sub(x, mean), r);
    const product = g.mul(d, xHat);
    const scaleRank = dimsOf(scale).length;
    // Scale and bias may have fewer axes than the normalised part only by leading ones of size 1; sums give them back their shape.
    const toScale = (value: Value) => {
      const sum = outer.length > 0 ? g.sum(value, outer, false) : value;
      return scaleRank === axes.length ? sum : g.reshape(sum, dimsOf(scale));
    };
    const dx = () => {
      const dxHat = g.mul(d, scale);
      const meanOfProduct = g.mean(g.mul(product, scale), axes);
      return g.mul(g.sub(g.sub(dxHat, g.mean(dxHat, axes)), g.mul(xHat, meanOfProduct)), r);
    };
    return [
      wanted[0] ? dx() : undefined,
      wanted[1] ? toScale(product) : undefined,
      node.inputs[2] && wanted[2] ? toScale(d) : undefined,
    ];
  },
};

function statisticsOf(node: Node, dims: readonly number[], axis: number): readonly [Value, Value] {
  while (node.outputs.length < 3) {
    const kind = node.outputs.length === 1 ? "mean" : "inv_std_dev";
    node.addOutput(`${node.outputs[0]!.name}_${kind}`, node.outputs[0]!.dtype);
  }
  const [, mean, r] = node.outputs as [Value, Value, Value];
  for (const value of [mean, r]) value.shape ??= dims.map((dim, i) => (i < axis ? dim : 1));
  return [mean, r];
}

export const NORMALIZATION = {
  BatchNormalization: batchNormalization,
  LayerNormalization: layerNormalization,
} as const satisfies Partial<Record<OpType, GradientRule>>;
