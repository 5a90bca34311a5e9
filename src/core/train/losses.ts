/**
 * Losses as ONNX operators, each a scalar: the mean over samples (and positions) unless said otherwise. Their gradients come from the
 * same table as the model's. Shapes of what they read must be known (`resolveStatics`).
 */

import { CoreError } from "../errors.ts";
import { dimsOf, type GraphBuilder, int } from "../onnx/graph-builder.ts";
import type { Value } from "../onnx/ir.ts";
import { elementCount } from "../onnx/tensor.ts";

/**
 * What a classifier's loss reads: the scores before a final Softmax, where the output is one over the last axis; otherwise the output
 * itself.
 */
export function logitsOf(output: Value): Value {
  const node = output.producer;
  if (node?.domain !== "" || (node.opType !== "Softmax" && node.opType !== "LogSoftmax")) return output;
  const rank = output.shape?.length;
  const axis = node.int("axis", -1);
  return axis === -1 || axis + 1 === rank ? node.inputs[0]! : output;
}

/**
 * −Σ q log softmax(z), with q = (1 − s)·[class] + s/K for smoothing s (Szegedy et al. 2016).
 * logits [..., K], labels int [...] of classes 0 … K−1.
 */
export function crossEntropy(g: GraphBuilder, logits: Value, labels: Value, smoothing = 0): Value {
  const rank = dimsOf(logits).length;
  const logP = g.op("LogSoftmax", [logits], { axis: int(-1) });
  const own = g.op("GatherElements", [logP, g.unsqueeze(labels, [rank - 1])], { axis: int(-1) });
  const picked = g.neg(g.meanAll(own));
  if (smoothing === 0) return picked;
  return g.sub(g.mul(picked, 1 - smoothing), g.mul(g.meanAll(logP), smoothing));
}

/**
 * The same numbers in the shape of `like`: a regressor's [n, 1] and targets [n] would broadcast to [n, n]. Throws `invalid_params` when
 * there are more or fewer of them.
 */
export function shapedLike(g: GraphBuilder, value: Value, like: Value): Value {
  const [from, to] = [dimsOf(value), dimsOf(like)];
  if (elementCount(from) !== elementCount(to)) {
    throw new CoreError(
      "invalid_params",
      `Labels that are numbers must have the shape of the output "${like.name}", [${to}]; they are [${from}].`,
      like.name,
    );
  }
  return `${from}` === `${to}` ? value : g.reshape(value, to);
}

/** mean (a − b)². */
export function meanSquaredError(g: GraphBuilder, a: Value, b: Value): Value {
  return g.meanAll(g.square(g.sub(a, b)));
}

/** mean of ½d² where |d| ≤ δ, else δ(|d| − ½δ), with d = a − b (Huber 1964); δ = 1 is smooth L1. */
export function huber(g: GraphBuilder, a: Value, b: Value, delta = 1): Value {
  return g.meanAll(huberOf(g, g.sub(a, b), delta));
}

/** Elementwise. With c = min(|d|, δ): c·(|d| − ½c). */
export function huberOf(g: GraphBuilder, difference: Value, delta: number): Value {
  const size = g.op("Abs", [difference]);
  const clipped = g.op("Min", [size, g.scalar(delta, size)]);
  return g.mul(clipped, g.sub(size, g.mul(clipped, 0.5)));
}

/** mean of −t log σ(z) − (1 − t) log(1 − σ(z)) = softplus(z) − t z; logits z and targets t in [0, 1] of one shape. */
export function binaryCrossEntropy(g: GraphBuilder, logits: Value, targets: Value): Value {
  return g.meanAll(g.sub(g.op("Softplus", [logits]), g.mul(targets, logits)));
}

/** mean of 1 − cos(a, b) over the last axis. */
export function cosineDistance(g: GraphBuilder, a: Value, b: Value): Value {
  const dot = g.sum(g.mul(a, b), [-1]);
  const norms = g.sqrt(g.add(g.mul(g.sum(g.square(a), [-1]), g.sum(g.square(b), [-1])), 1e-12));
  return g.sub(1, g.meanAll(g.div(dot, norms)));
}

/**
 * T²·KL(softmax(t/T) ‖ softmax(s/T)) over the last axis, the mean over all other axes (Hinton, Vinyals and Dean 2015). T² keeps the size
 * of the gradient when T changes. Zero when student and teacher agree.
 */
export function distillationKl(g: GraphBuilder, student: Value, teacher: Value, temperature = 1): Value {
  const soften = (logits: Value) => (temperature === 1 ? logits : g.mul(logits, 1 / temperature));
  const logS = g.op("LogSoftmax", [soften(student)], { axis: int(-1) });
  const logT = g.op("LogSoftmax", [soften(teacher)], { axis: int(-1) });
  return g.mul(klOf(g, logT, logS), temperature * temperature);
}

/** Σ p (log p − log q) over the last axis, the mean over the others. */
export function klOf(g: GraphBuilder, logP: Value, logQ: Value): Value {
  return g.meanAll(g.sum(g.mul(g.exp(logP), g.sub(logP, logQ)), [-1]));
}
