/**
 * Losses as ONNX operators, each a scalar: the mean over samples (and positions) unless said otherwise. Their gradients come from the
 * same table as the model's. Shapes of what they read must be known (`resolveStatics`).
 *
 * Nothing here broadcasts: two values that are compared must be of one shape but for axes of one, else `invalid_params` is thrown with both
 * shapes. The first axis counts the samples; class scores are along the last axis that is not of one (`scoresOf` makes them so).
 */

import { CoreError } from "../errors.ts";
import { dimsOf, type GraphBuilder, int, ints } from "../onnx/graph-builder.ts";
import type { Value } from "../onnx/ir.ts";
import { withoutUnitAxes } from "../onnx/tensor.ts";

/**
 * What a classifier's loss reads: the scores before a final Softmax, where the output is one over the classes; otherwise the output itself.
 * `axis` says where they lie; null: along the last axis that is not of one.
 */
export function logitsOf(output: Value, axis: number | null = null): Value {
  const node = output.producer;
  if (node?.domain !== "" || (node.opType !== "Softmax" && node.opType !== "LogSoftmax")) return output;
  const { shape } = output;
  const own = node.int("axis", -1);
  if (!shape) return own === (axis ?? -1) ? node.inputs[0]! : output;
  const positive = (at: number) => (at < 0 ? at + shape.length : at);
  const last = shape.findLastIndex((dim, i) => i > 0 && dim !== 1);
  const isOverClasses = positive(own) === (axis === null ? (last === -1 ? shape.length - 1 : last) : positive(axis));
  return isOverClasses ? node.inputs[0]! : output;
}

/** The logits of an output with its classes along the last axis. */
export function scoresOf(g: GraphBuilder, output: Value, axis: number | null): Value {
  return withClassesLast(g, logitsOf(output, axis), dimsOf(output), axis);
}

/** A value of these dims with its classes along the last axis. */
function withClassesLast(g: GraphBuilder, value: Value, dims: readonly number[], axis: number | null): Value {
  if (axis === null) return value;
  const at = axis < 0 ? axis + dims.length : axis;
  const order = dims.map((_, i) => i).filter((i) => i !== at);
  if (order.slice(at).every((i) => dims[i] === 1)) return value;
  const moved = g.op("Transpose", [value], { perm: ints([...order, at]) });
  moved.shape = [...order, at].map((i) => dims[i]!);
  return moved;
}

/**
 * The log-odds of an output of shares, log p − log(1 − p): what the Sigmoid reads that makes it, or computed from the shares, which are
 * held at 1e-7 from 0 and 1, where something lies in between.
 */
export function logOddsOf(g: GraphBuilder, output: Value): Value {
  const logits = sigmoidInput(output);
  if (logits) return logits;
  const held = g.op("Clip", [output, g.scalar(SHARE_MARGIN, output), g.scalar(1 - SHARE_MARGIN, output)]);
  const odds = g.sub(g.log(held), g.log(g.sub(1, held)));
  odds.shape = output.shape;
  return odds;
}

/** What the Sigmoid reads that makes this output; undefined where none does. */
export function sigmoidInput({ producer }: Value): Value | undefined {
  return producer?.domain === "" && producer.opType === "Sigmoid" ? producer.inputs[0] : undefined;
}

/** How far shares are held from 0 and 1 before their log-odds are taken. */
export const SHARE_MARGIN = 1e-7;

/** A value in another shape of the same numbers, which is then known. */
function inShape(g: GraphBuilder, value: Value, dims: readonly number[]): Value {
  if (`${dimsOf(value)}` === `${dims}`) return value;
  const reshaped = g.reshape(value, dims);
  reshaped.shape = dims;
  return reshaped;
}

/** `[4, 1, 5]`, for messages. */
const shapeText = (value: Value) => `"${value.name}" [${dimsOf(value).join(", ")}]`;

/**
 * `other` in the shape of `value`: a regressor's [n, 1] and targets [n] would broadcast to [n, n]. Throws `invalid_params` where more than
 * axes of one differ; `what` begins the sentence.
 */
export function alignedTo(g: GraphBuilder, value: Value, other: Value, what: string): Value {
  const [to, from] = [value, other].map((it) => withoutUnitAxes(dimsOf(it)));
  if (`${to}` === `${from}`) return inShape(g, other, dimsOf(value));
  const isPermuted = `${to!.toSorted()}` === `${from!.toSorted()}`;
  throw new CoreError(
    "invalid_params",
    `${what} cannot compare ${shapeText(value)} with ${shapeText(other)}: only axes of 1 may differ` +
      `${isPermuted ? ", and these are in another order: put a Transpose behind one of them" : ""}.`,
    value.name,
  );
}

/** Class scores as [n, ..., K] without axes of one. Throws `invalid_params` where there are no two classes to choose from. */
function classScores(g: GraphBuilder, scores: Value, what: string): Value {
  const dims = withoutUnitAxes(dimsOf(scores));
  if (dims.length > 1) return inShape(g, scores, dims);
  throw new CoreError(
    "invalid_params",
    `${what} compares scores of classes, and ${shapeText(scores)} has one number for each sample: use mse or huber for numbers.`,
    scores.name,
  );
}

/** Student's and teacher's class scores in one shape. */
export function classScorePair(g: GraphBuilder, student: Value, teacher: Value, what: string): readonly [Value, Value] {
  const aligned = alignedTo(g, student, teacher, what);
  return [classScores(g, student, what), classScores(g, aligned, what)];
}

/** Labels in the shape of scores [n, ..., K] without the K. Throws `invalid_params` where there are more or fewer of them. */
export function classLabels(g: GraphBuilder, scores: Value, labels: Value): Value {
  const wanted = dimsOf(scores).slice(0, -1);
  if (`${withoutUnitAxes(dimsOf(labels))}` === `${wanted}`) return inShape(g, labels, wanted);
  throw new CoreError(
    "invalid_params",
    `Labels that are classes must be one integer for each row of scores; ${shapeText(labels)} does not fit scores of [${dimsOf(scores).join(", ")}].`,
    labels.name,
  );
}

/** 1 where a label counts, 0 where it is the one that is ignored; in float32. */
export function countedLabels(g: GraphBuilder, labels: Value, ignoreLabel: number): Value {
  const counted = g.cast(g.op("Not", [g.equal(labels, ignoreLabel)]), "float32");
  counted.shape = dimsOf(labels);
  return counted;
}

/** The mean over what `counted` is 1 for, 0 when that is nothing. */
export function meanOver(g: GraphBuilder, values: Value, counted: Value): Value {
  const count = g.sumAll(counted);
  return g.div(g.sumAll(g.mul(values, counted)), g.op("Max", [count, g.scalar(1, count)]));
}

/**
 * −Σ q log softmax(z), with q = (1 − s)·[class] + s/K for smoothing s (Szegedy et al. 2016).
 * logits [n, ..., K], labels int [n, ...] of classes 0 … K−1. Positions labelled `ignoreLabel` do not count; where none is left the loss is 0.
 */
export function crossEntropy(
  g: GraphBuilder,
  logits: Value,
  labels: Value,
  smoothing = 0,
  ignoreLabel: number | null = null,
): Value {
  const scores = classScores(g, logits, "Cross-entropy");
  const classes = classLabels(g, scores, labels);
  const counted = ignoreLabel === null ? undefined : countedLabels(g, classes, ignoreLabel);
  const known = ignoreLabel === null ? classes : g.where(g.equal(classes, ignoreLabel), 0, classes);
  const rank = dimsOf(scores).length;
  const logP = g.op("LogSoftmax", [scores], { axis: int(-1) });
  const own = g.op("GatherElements", [logP, g.unsqueeze(known, [rank - 1])], { axis: int(-1) });
  const average = (rows: Value) => (counted ? meanOver(g, rows, g.unsqueeze(counted, [rank - 1])) : g.meanAll(rows));
  const picked = g.neg(average(own));
  if (smoothing === 0) return picked;
  const all = counted ? average(g.mean(logP, [-1])) : g.meanAll(logP);
  return g.sub(g.mul(picked, 1 - smoothing), g.mul(all, smoothing));
}

/**
 * −[y log p + (1 − y) log(1 − p)] of log-odds z with p = 1/(1 + e^−z), as softplus(z) − y·z, which is exact for large z too; the mean over all
 * positions. For smoothing s the label is y·(1 − s) + s/2. Labels are 0 or 1, in any dtype; where one is `ignoreLabel` it does not count.
 */
export function binaryCrossEntropy(
  g: GraphBuilder,
  logOdds: Value,
  labels: Value,
  smoothing = 0,
  ignoreLabel: number | null = null,
): Value {
  const given = alignedTo(g, logOdds, labels, "Binary cross-entropy");
  const numbers = g.cast(given, "float32");
  numbers.shape = dimsOf(given);
  const losses = binaryLosses(g, logOdds, numbers, smoothing);
  return ignoreLabel === null ? g.meanAll(losses) : meanOver(g, losses, countedLabels(g, given, ignoreLabel));
}

/**
 * `binaryCrossEntropy` of log-odds [n, ..., K], the classes along `axis`, where the label of a position, int [n, ...], is a yes for its own class
 * and a no for all others; the mean over positions and classes. Positions labelled `ignoreLabel` do not count.
 */
export function oneVersusRest(
  g: GraphBuilder,
  logOdds: Value,
  labels: Value,
  options: { readonly axis: number | null; readonly smoothing: number; readonly ignoreLabel: number | null },
): Value {
  const { axis, smoothing, ignoreLabel } = options;
  const odds = classScores(g, withClassesLast(g, logOdds, dimsOf(logOdds), axis), "Binary cross-entropy");
  const classes = classLabels(g, odds, labels);
  const losses = binaryLosses(g, odds, oneHotLabels(g, odds, classes, ignoreLabel), smoothing);
  if (ignoreLabel === null) return g.meanAll(losses);
  const rows = g.reshape(g.mean(losses, [-1]), dimsOf(classes));
  return meanOver(g, rows, countedLabels(g, classes, ignoreLabel));
}

/** softplus(z) − y·z of each position. */
function binaryLosses(g: GraphBuilder, logOdds: Value, labels: Value, smoothing: number): Value {
  const y = smoothing === 0 ? labels : g.add(g.mul(labels, 1 - smoothing), smoothing / 2);
  return g.sub(g.op("Softplus", [logOdds]), g.mul(y, logOdds));
}

/** Labels [n, ...] as rows of scores [n, ..., K]: 1 for the class, 0 for the others. Those that are ignored get any class. */
export function oneHotLabels(g: GraphBuilder, scores: Value, labels: Value, ignoreLabel: number | null): Value {
  const known = ignoreLabel === null ? labels : g.where(g.equal(labels, ignoreLabel), 0, labels);
  const classes = dimsOf(scores).at(-1)!;
  const values = [g.constant("int64", [1], [classes]), g.constant("float32", [2], [0, 1])];
  const rows = g.op("OneHot", [known, ...values], { axis: int(-1) });
  rows.dtype = "float32";
  rows.shape = dimsOf(scores);
  return rows;
}

/** mean (a − b)²; where `b` is `ignored` the difference does not count. */
export function meanSquaredError(g: GraphBuilder, a: Value, b: Value, ignored: number | null = null): Value {
  const target = alignedTo(g, a, b, "The squared error");
  const squares = g.square(g.sub(a, target));
  return ignored === null ? g.meanAll(squares) : meanOver(g, squares, countedLabels(g, target, ignored));
}

/** mean of ½d² where |d| ≤ δ, else δ(|d| − ½δ), with d = a − b (Huber 1964); δ = 1 is smooth L1. */
export function huber(g: GraphBuilder, a: Value, b: Value, delta = 1): Value {
  return g.meanAll(huberOf(g, g.sub(a, alignedTo(g, a, b, "The Huber loss")), delta));
}

/** Elementwise. With c = min(|d|, δ): c·(|d| − ½c). */
export function huberOf(g: GraphBuilder, difference: Value, delta: number): Value {
  const size = g.op("Abs", [difference]);
  const clipped = g.op("Min", [size, g.scalar(delta, size)]);
  return g.mul(clipped, g.sub(size, g.mul(clipped, 0.5)));
}

/** mean of 1 − cos(x, y) over the last axis that is not of one. */
export function cosineDistance(g: GraphBuilder, x: Value, y: Value): Value {
  const what = "The cosine";
  const aligned = alignedTo(g, x, y, what);
  const dims = withoutUnitAxes(dimsOf(x));
  if (dims.length === 1) {
    throw new CoreError(
      "invalid_params",
      `${what} compares directions, and ${shapeText(x)} has one number for each sample: use mse or huber for numbers.`,
      x.name,
    );
  }
  const [a, b] = [inShape(g, x, dims), inShape(g, aligned, dims)];
  const dot = g.sum(g.mul(a, b), [-1]);
  const norms = g.sqrt(g.add(g.mul(g.sum(g.square(a), [-1]), g.sum(g.square(b), [-1])), 1e-12));
  return g.sub(1, g.meanAll(g.div(dot, norms)));
}

/**
 * T²·KL(softmax(t/T) ‖ softmax(s/T)) over the classes, the mean over all other axes (Hinton, Vinyals and Dean 2015). T² keeps the size
 * of the gradient when T changes. Zero when student and teacher agree.
 */
export function distillationKl(g: GraphBuilder, s: Value, t: Value, temperature = 1): Value {
  const [student, teacher] = classScorePair(g, s, t, "The Kullback-Leibler divergence");
  const soften = (logits: Value) => (temperature === 1 ? logits : g.mul(logits, 1 / temperature));
  const logS = g.op("LogSoftmax", [soften(student)], { axis: int(-1) });
  const logT = g.op("LogSoftmax", [soften(teacher)], { axis: int(-1) });
  return g.mul(klOf(g, logT, logS), temperature * temperature);
}

/**
 * T²·KL(Bernoulli(σ(t/T)) ‖ Bernoulli(σ(s/T))) of log-odds, the mean over all positions: `distillationKl` of each share by itself. With
 * σ(z) = 1/(1 + e^−z) it is softplus(s) − softplus(t) − σ(t)·(s − t). Zero when student and teacher agree.
 */
export function distillationBinaryKl(g: GraphBuilder, s: Value, t: Value, temperature = 1): Value {
  const soften = (odds: Value) => (temperature === 1 ? odds : g.mul(odds, 1 / temperature));
  const [student, teacher] = [soften(s), soften(alignedTo(g, s, t, "The Kullback-Leibler divergence"))];
  const normalizers = g.sub(g.op("Softplus", [student]), g.op("Softplus", [teacher]));
  const divergence = g.sub(normalizers, g.mul(g.op("Sigmoid", [teacher]), g.sub(student, teacher)));
  return g.mul(g.meanAll(divergence), temperature * temperature);
}

/** Σ p (log p − log q) over the last axis, the mean over the others. Both must have been made from values of one shape. */
export function klOf(g: GraphBuilder, logP: Value, logQ: Value): Value {
  return g.meanAll(g.sum(g.mul(g.exp(logP), g.sub(logP, logQ)), [-1]));
}
