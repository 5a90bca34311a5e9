/**
 * What a student can learn from a teacher besides labels and softened outputs. Teacher values are inputs of the step graph, so no gradient
 * flows into them. Feature maps are [N, C, …] or token states [N, T, D].
 *
 * An operator whose result a loss needs and whose shape is not known yet cannot be asked for its shape: functions here compute the shapes
 * of what they make from the shapes of what they are given.
 */

import { CoreError } from "../errors.ts";
import { dimsOf, type GraphBuilder, int, ints } from "../onnx/graph-builder.ts";
import type { Value } from "../onnx/ir.ts";
import { elementCount } from "../onnx/tensor.ts";
import {
  alignedTo,
  classLabels,
  classScorePair,
  countedLabels,
  huberOf,
  klOf,
  meanOver,
  oneHotLabels,
} from "./losses.ts";

/** Makes a parameter of the loss itself: trained with the student, dropped with the loss. */
export type AdaptorFactory = (name: string, dims: readonly number[], fanIn: number) => Value;

/** A value with the shape that its maker knows it to have. */
function shaped(value: Value, dims: readonly number[]): Value {
  value.shape = dims;
  return value;
}

/**
 * Decoupled distillation (Zhao et al. 2022): α·TCKD + β·NCKD, each T²·KL. TCKD compares (p_target, 1 − p_target); NCKD the distributions
 * over the other classes. logits [N, ..., K], labels [N, ...]; positions labelled `ignoreLabel` do not count.
 */
export function decoupledKl(
  g: GraphBuilder,
  s: Value,
  t: Value,
  l: Value,
  options: {
    readonly temperature: number;
    readonly alpha: number;
    readonly beta: number;
    readonly ignoreLabel?: number | null;
  },
): Value {
  const [student, teacher] = classScorePair(g, s, t, "Decoupled distillation");
  const given = classLabels(g, student, l);
  const { temperature, alpha, beta, ignoreLabel = null } = options;
  const counted = ignoreLabel === null ? undefined : countedLabels(g, given, ignoreLabel);
  const average = (rows: Value) => {
    const each = g.reshape(rows, dimsOf(given));
    return counted ? meanOver(g, each, counted) : g.meanAll(each);
  };
  const target = oneHotLabels(g, student, given, ignoreLabel);
  const soften = (logits: Value) => g.mul(logits, 1 / temperature);
  const targetShare = (logits: Value) =>
    g.sum(g.mul(g.op("Softmax", [soften(logits)], { axis: int(-1) }), target), [-1]);
  const [pS, pT] = [targetShare(student), targetShare(teacher)];
  // Shares can reach 0 and 1 in float32; ε keeps the logarithms finite.
  const log = (p: Value) => g.log(g.add(p, 1e-7));
  const part = (p: Value, q: Value) => g.mul(p, g.sub(log(p), log(q)));
  const tckd = average(g.add(part(pT, pS), part(g.sub(1, pT), g.sub(1, pS))));
  const others = (logits: Value) => g.op("LogSoftmax", [g.sub(soften(logits), g.mul(target, 1000))], { axis: int(-1) });
  const [logS, logT] = [others(student), others(teacher)];
  const nckd = average(g.sum(g.mul(g.exp(logT), g.sub(logT, logS)), [-1]));
  return g.mul(g.add(g.mul(tckd, alpha), g.mul(nckd, beta)), temperature * temperature);
}

/**
 * FitNets' hint (Romero et al. 2015): mean (r(F_s) − F_t)², with r a learned 1x1 convolution (for [N, C, …]) or linear map (for token
 * states and vectors) where the widths differ. The larger of two maps is average-pooled to the size of the smaller. Values of different
 * ranks are compared where only axes of one differ.
 */
export function hint(g: GraphBuilder, student: Value, teacher: Value, adaptor: AdaptorFactory): Value {
  const [s, t] = [dimsOf(student), dimsOf(teacher)];
  if (s.length !== t.length) return g.meanAll(g.square(g.sub(student, alignedTo(g, student, teacher, "A hint"))));
  if (s[0] !== t[0]) throw mismatch("A hint", student, teacher);
  if (s.length <= 3) {
    if (s.slice(0, -1).some((dim, i) => dim !== t[i])) throw mismatch("A hint", student, teacher);
    const [from, to] = [s.at(-1)!, t.at(-1)!];
    const mapped = from === to ? student : g.matMul(student, adaptor("hint", [from, to], from));
    return g.meanAll(g.square(g.sub(mapped, teacher)));
  }
  const [pooledS, pooledT] = toCommonSize(g, student, teacher);
  const [from, to] = [s[1]!, t[1]!];
  const mapped =
    from === to ? pooledS : g.op("Conv", [pooledS, adaptor("hint", [to, from, ...s.slice(2).map(() => 1)], from)]);
  return g.meanAll(g.square(g.sub(mapped, pooledT)));
}

/**
 * Attention transfer (Zagoruyko and Komodakis 2017): the mean squared difference of the maps mean_c F² after each is divided by its
 * L2 norm. Channels may differ; the larger map is average-pooled to the size of the smaller.
 */
export function attentionTransfer(g: GraphBuilder, student: Value, teacher: Value): Value {
  const [ours, theirs] = [dimsOf(student), dimsOf(teacher)];
  if (ours.length !== theirs.length || ours.length < 3 || ours[0] !== theirs[0]) {
    throw mismatch("Attention transfer", student, teacher);
  }
  const map = (features: Value) => {
    const [n, , ...size] = dimsOf(features) as [number, number, ...number[]];
    const flat = g.reshape(g.mean(g.square(features), [1]), [n, elementCount(size)]);
    return g.div(flat, g.sqrt(g.add(g.sum(g.square(flat), [1]), 1e-12)));
  };
  const [s, t] = toCommonSize(g, student, teacher);
  return g.meanAll(g.square(g.sub(map(s), map(t))));
}

/** Relational distillation needs every pair and triple of a batch: more samples than this are left out. */
const MAX_RELATED = 64;

/**
 * Relational distillation (Park et al. 2019): smooth L1 between student's and teacher's distances of all pairs, each divided by its mean
 * over distinct pairs, and between the cosines of all angles. Embeddings are flattened to [N, D]; widths may differ.
 */
export function relationalDistance(g: GraphBuilder, student: Value, teacher: Value): Value {
  checkRelated(student, teacher);
  const distances = (value: Value) => {
    const { rows, n, width } = embeddings(g, value);
    const difference = g.sub(shaped(g.reshape(rows, [n, 1, width]), [n, 1, width]), g.reshape(rows, [1, n, width]));
    const squares = g.sum(g.square(difference), [2]);
    // On the diagonal the root of ε, constant: no gradient of √ at 0.
    const distance = g.sqrt(g.add(squares, 1e-12));
    return g.div(distance, g.mul(g.sumAll(distance), 1 / (n * (n - 1))));
  };
  return g.meanAll(huberOf(g, g.sub(distances(student), distances(teacher)), 1));
}

/** The part of relational distillation that compares angles: cos ∠(x_j − x_i, x_k − x_i) for all i, j, k. */
export function relationalAngle(g: GraphBuilder, student: Value, teacher: Value): Value {
  checkRelated(student, teacher);
  const angles = (value: Value) => {
    const { rows, n, width } = embeddings(g, value);
    const difference = g.sub(g.reshape(rows, [1, n, width]), g.reshape(rows, [n, 1, width]));
    const unit = g.div(difference, g.sqrt(g.add(g.sum(g.square(difference), [2]), 1e-12)));
    return g.matMul(unit, g.transpose(unit, [0, 2, 1]));
  };
  return g.meanAll(huberOf(g, g.sub(angles(student), angles(teacher)), 1));
}

/** Relations are between the samples of a batch: both sides must have the same ones, and more than one. */
function checkRelated(student: Value, teacher: Value): void {
  const [ours, theirs] = [dimsOf(student)[0], dimsOf(teacher)[0]];
  if (ours !== theirs || ours === undefined) throw mismatch("Relational distillation", student, teacher);
  if (ours > 1) return;
  throw new CoreError(
    "invalid_params",
    `Relational distillation compares the samples of a batch with each other, and the batch of "${student.name}" has one: take a batch size of 2 or more.`,
    student.name,
  );
}

function embeddings(g: GraphBuilder, value: Value): { rows: Value; n: number; width: number } {
  const [n, ...rest] = dimsOf(value) as [number, ...number[]];
  const width = elementCount(rest);
  const rows = rest.length === 1 ? value : g.reshape(value, [n, width]);
  if (n <= MAX_RELATED) return { rows, n, width };
  return { rows: g.slice(rows, [0], [0], [MAX_RELATED]), n: MAX_RELATED, width };
}

/**
 * MiniLM's self-attention relations, version 2 (Wang et al. 2021): states [N, T, D] (all heads' queries, keys or values side by side) are
 * cut into R relation heads; relations are softmax(X Xᵀ / √(D/R)); the loss is KL(teacher ‖ student), the mean over samples, heads and
 * positions. Widths and head counts of student and teacher may differ.
 */
export function relationKl(g: GraphBuilder, student: Value, teacher: Value, relationHeads: number): Value {
  const [s, t] = [dimsOf(student), dimsOf(teacher)];
  if (s.length !== 3 || t.length !== 3 || s[0] !== t[0] || s[1] !== t[1])
    throw mismatch("A relation", student, teacher);
  const logRelations = (value: Value) => {
    const [n, length, width] = dimsOf(value) as [number, number, number];
    if (width % relationHeads !== 0) {
      throw new CoreError(
        "invalid_params",
        `${width} features of "${value.name}" cannot be cut into ${relationHeads} relation heads.`,
        value.name,
      );
    }
    const size = width / relationHeads;
    const heads = g.transpose(g.reshape(value, [n, length, relationHeads, size]), [0, 2, 1, 3]);
    const scores = g.mul(g.matMul(heads, g.transpose(heads, [0, 1, 3, 2])), 1 / Math.sqrt(size));
    return g.op("LogSoftmax", [scores], { axis: int(-1) });
  };
  return klOf(g, logRelations(teacher), logRelations(student));
}

/**
 * KL(teacher ‖ student) between attention distributions [N, heads, T, T] (MiniLM 2020): the mean over samples, heads and positions. Head
 * counts must be equal.
 */
export function attentionKl(g: GraphBuilder, student: Value, teacher: Value): Value {
  if (`${dimsOf(student)}` !== `${dimsOf(teacher)}`) throw mismatch("Attention maps", student, teacher);
  const log = (p: Value) => g.log(g.add(p, 1e-12));
  return klOf(g, log(teacher), log(student));
}

/** Average-pools the larger of two maps [N, C, …] to the spatial size of the smaller. Sizes must divide. */
function toCommonSize(g: GraphBuilder, student: Value, teacher: Value): [Value, Value] {
  const [s, t] = [dimsOf(student), dimsOf(teacher)];
  const pooled = (value: Value, from: readonly number[], to: readonly number[]) => {
    const kernel = from.slice(2).map((dim, i) => dim / to[i + 2]!);
    if (kernel.every((k) => k <= 1)) return value;
    if (!kernel.every((k) => Number.isInteger(k))) throw mismatch("A comparison of maps", student, teacher);
    const result = g.op("AveragePool", [value], { kernel_shape: ints(kernel), strides: ints(kernel) });
    return shaped(result, [...from.slice(0, 2), ...to.slice(2)]);
  };
  return [pooled(student, s, t), pooled(teacher, t, s)];
}

function mismatch(what: string, student: Value, teacher: Value): CoreError {
  const text = (value: Value) => `"${value.name}" [${dimsOf(value).join(", ")}]`;
  return new CoreError(
    "invalid_params",
    `${what} cannot pair the student's ${text(student)} with the teacher's ${text(teacher)}.`,
    student.name,
  );
}
