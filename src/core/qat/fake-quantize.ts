/**
 * Quantization in training: the graph that will be deployed, with float weights that are rounded in every step, ŵ = s·round(clip(w/s, qmin,
 * qmax)), and with the pairs of QuantizeLinear and DequantizeLinear of its activations as they are. Gradients pass rounding straight through.
 *
 * All scales are learned along (LSQ, Esser et al. 2020: dŵ/ds = round(w/s) − w/s inside the range, qmin or qmax outside; it follows from
 * the operators). A scale is kept as s = s₀·exp(t), with t from 0 and s₀ from calibration or from the least squared error of a weight: it stays
 * positive, and a step of Adam changes it by a part of itself, whatever its size (LSQ scales the gradient instead, which Adam would undo).
 *
 * The scale of data, in 8 bits, stays as it was calibrated: its gradient is a product that training does not need otherwise, a third of all that a network
 * of dense layers computes.
 *
 * PACT (Choi et al. 2018) learns the ranges of activations otherwise, and those of weights as LSQ does: x̂ = Q(min(max(x, a), b)) with
 * a = s·(qmin − z), b = s·(qmax − z). What is clipped moves the range (dx̂/db = 1 where x > b), what is rounded does not, and λ·Σ(b − a)²
 * is added to the loss, so that ranges stay small enough to be rounded well.
 *
 * Tables of embeddings are stored in 8 bits with a scale for each row that follows from the row; so are the rows that a step looks up rounded.
 */
import { CoreError } from "../errors.ts";
import { GraphBuilder, int } from "../onnx/graph-builder.ts";
import type { Model, Node, Value } from "../onnx/ir.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../onnx/tensor.ts";
import { type CodeRange, roundHalfEven } from "../quantize/params.ts";
import type { WeightStart } from "../quantize/static/channel-weights.ts";
import type { MarkedWeight } from "../quantize/static/emission.ts";
import { leastErrorScale } from "../quantize/static/least-error-scale.ts";
import { addStoredWeight, type WeightBits, weightRange } from "../quantize/static/stored-weights.ts";
import { allocateParameters, type Floats } from "../train/adam-kernel.ts";
import { liveTensor, type Parameter } from "../train/parameters.ts";
import { createTrainable, exportTrained, type TrainableModel, type TrainedValues } from "../train/trainable.ts";
import { clipToRange, limitToFourBits, STEPS_RATIO, simulateFourBits } from "./activation-ranges.ts";
import type { QatAlgorithm } from "./qat-algorithms.ts";

/** λ of PACT, between those of its authors (1e-4 and 1e-3 with the settings of their networks). */
const RANGE_DECAY = 1e-4;

export interface FakeQuantizeOptions {
  readonly weightBits: WeightBits;
  /** Of those that the model has in pairs of Q/DQ of 8 bits. */
  readonly activationBits: 8 | 4;
  /** How the ranges of activations are learned. */
  readonly algorithm: QatAlgorithm;
  /** Values of the graph, other than outputs, that losses read. */
  readonly watch?: readonly string[];
  /** Rows of tables that are stored in 8 bits in the end. */
  readonly tables?: readonly string[];
  /** Weights by name that start at these values; all others at the nearest, with the scales of the least squared error. */
  readonly starts?: ReadonlyMap<string, WeightStart> | undefined;
}

/** A scale that is learned: `initial` · exp(the parameter). */
interface LearnedScale {
  readonly parameter: string;
  readonly initial: Floats;
}

export interface FakeQuantized {
  readonly trainable: TrainableModel;
  /** The model with these values, its weights rounded and stored in few bits. */
  finish(values?: TrainedValues): Model;
}

/**
 * `model` has its activations in pairs of Q/DQ, or none, and its weights in float behind markers. Throws `unsupported` as `createTrainable`
 * does, and where a marked weight is inside the body of an If, Loop or Scan.
 */
export function fakeQuantize(
  model: Model,
  marked: readonly MarkedWeight[],
  options: FakeQuantizeOptions,
): FakeQuantized {
  const range = weightRange(options.weightBits);
  const base = createTrainable(model, { watch: options.watch ?? [], freezeStatistics: true });
  const { graph } = base.graph;
  const g = new GraphBuilder(graph);
  const parameters: Parameter[] = [];

  /** s₀·exp(t) as a value of shape `dims`, at the front of the graph. */
  const learn = (name: string, initial: Floats, dims: readonly number[]): { scale: Value; learned: LearnedScale } => {
    const input = graph.addInput(graph.model.freshName(`${name}/log_scale`), "float32", dims);
    const [arrays] = allocateParameters([initial.length]);
    const fan = { in: 1, out: 1 };
    parameters.push({ name: input.name, role: "scale", dims, ...arrays!, fan, rectified: false });
    const start = graph.addInitializer(`${name}/initial_scale`, tensorOf("float32", dims, initial));
    return { scale: g.mul(start, g.exp(input)), learned: { parameter: input.name, initial } };
  };

  const weights = new Map<MarkedWeight, LearnedScale>();
  const activations = new Map<string, LearnedScale>();
  /** By the names of weights, and of the constants that scale activations. */
  const scales = new Map<string, Value>();
  const simulated: (() => void)[] = [];
  const detached: string[] = [];
  const widths: Value[] = [];
  const front = graph.prepend({ opType: "Identity", inputs: [graph.inputs[0]], outputs: 1 });
  g.before(front, () => {
    for (const entry of marked) {
      const weight = valueNamed(graph, entry.weight);
      const dims = weight.constant?.dims ?? (weight.shape as readonly number[]);
      const data =
        base.parameters.find(({ name }) => name === entry.weight)?.data ?? floatsOf(weight.constant!).slice();
      const beside = dims.map((_, i) => (i === entry.axis ? dims[i]! : 1));
      const start = options.starts?.get(entry.weight);
      if (start) moveTo(data, dims, entry.axis, start, range);
      const initial = start
        ? Float32Array.from(start.scales)
        : leastErrorScales(data, dims, entry.axis, range, smallestScales(model, entry));
      const { scale, learned } = learn(entry.weight, initial, beside);
      const q = g.op("Round", [clipped(g, g.div(weight, scale), dims, start?.bounds, range)]);
      const rounded = g.mul(q, scale);
      for (const name of entry.markers) replaceMarker(markerNamed(graph, name), rounded);
      weights.set(entry, learned);
      scales.set(entry.weight, scale);
    }
    const ratio = options.activationBits === 4 ? STEPS_RATIO : 1;
    const learnedValues = valuesThatLearn(base);
    for (const [name, pairs] of activationScales(base.graph)) {
      if (options.activationBits === 8 && pairs.every(({ inputs }) => !learnedValues.has(inputs[0]!))) {
        scales.set(name, pairs[0]!.inputs[1]!);
        continue;
      }
      const initial = Float32Array.from(floatsOf(pairs[0]!.inputs[1]!.constant!), (scale) => scale * ratio);
      const { scale: moving, learned } = learn(name, initial, []);
      const scale = options.algorithm === "pact" ? g.op("Identity", [moving]) : moving;
      if (scale !== moving) {
        detached.push(scale.name);
        widths.push(g.mul(moving, options.activationBits === 4 ? 15 : 255));
      }
      for (const node of pairs) {
        if (scale !== moving && node.opType === "QuantizeLinear") {
          simulated.push(() => g.before(node, () => clipToRange(g, node, moving, options.activationBits)));
        }
        if (options.activationBits === 8) node.setInput(1, scale);
        else simulated.push(() => g.before(node, () => simulateFourBits(g, node, scale)));
      }
      activations.set(name, learned);
      scales.set(name, scale);
    }
  });
  g.before(front, () => {
    for (const { weight, biases } of marked) {
      for (const { bias, inputScale, marker } of biases) {
        if (marker === undefined) continue;
        // As kernels take it: int32 at the scale of the products, whose steps are too fine for a scale to learn anything from.
        const scale = g.mul(g.reshape(scales.get(weight)!, [-1]), scales.get(inputScale)!);
        const rounded = g.mul(g.op("Round", [g.div(valueNamed(graph, bias), scale)]), scale);
        detached.push(scale.name);
        replaceMarker(markerNamed(graph, marker), rounded);
      }
    }
  });
  for (const name of options.tables ?? []) detached.push(roundRows(g, valueNamed(graph, name)));
  const squares = widths.map((width) => g.before(front, () => g.square(width)));
  const penalty = squares.length > 0 && g.before(front, () => squares.reduce((sum, square) => g.add(sum, square)));
  if (penalty) graph.addOutput(penalty);
  graph.remove(front);
  for (const simulate of simulated) simulate();
  const live = parameters.map((parameter) => [parameter.name, liveTensor(parameter)]);
  const trainable: TrainableModel = {
    ...base,
    parameters: [...base.parameters, ...parameters],
    feeds: { ...base.feeds, ...Object.fromEntries(live) },
    detached,
    penalties: penalty ? [{ name: "ranges", value: penalty.name, weight: RANGE_DECAY }] : [],
  };
  return {
    trainable,
    finish: (values = trainable) => finish({ trainable, values, weights, activations, options }),
  };
}

/** Values that change as parameters are trained. */
function valuesThatLearn({ graph: { graph }, parameters }: TrainableModel): ReadonlySet<Value> {
  const names = new Set(parameters.map(({ name }) => name));
  const found = new Set<Value>(graph.inputs.filter(({ name }) => names.has(name)));
  for (const { inputs, outputs } of graph.nodes) {
    if (inputs.some((value) => value && found.has(value))) for (const value of outputs) found.add(value);
  }
  return found;
}

/** Codes within their range, or, where pairs of them may not saturate, each within its own. */
function clipped(
  g: GraphBuilder,
  position: Value,
  dims: readonly number[],
  bounds: WeightStart["bounds"],
  { min, max }: CodeRange,
): Value {
  if (!bounds) return g.op("Clip", [position, g.scalar(min, position), g.scalar(max, position)]);
  const [low, high] = [bounds.low, bounds.high].map((of) =>
    g.graph.addInitializer("bound", tensorOf("float32", dims, Float32Array.from(of))),
  );
  return g.op("Min", [g.op("Max", [position, low]), high]);
}

function valueNamed(graph: Model["graph"], name: string): Value {
  const value =
    graph.inputs.find((it) => it.name === name) ??
    [...graph.initializers].find((it) => it.name === name) ??
    graph.nodes.flatMap(({ outputs }) => outputs).find((it) => it.name === name);
  if (!value) throw notInMainGraph(name);
  return value;
}

function markerNamed(graph: Model["graph"], name: string): Node {
  const node = graph.nodes.find(({ outputs }) => outputs[0]?.name === name);
  if (!node) throw notInMainGraph(name);
  return node;
}

function notInMainGraph(name: string): CoreError {
  const message = `The weight "${name}" is inside the body of an If, Loop or Scan, where it cannot be trained: exclude its node.`;
  return new CoreError("unsupported", message, name);
}

function replaceMarker(marker: Node, value: Value): void {
  marker.graph.replaceUses(marker.outputs[0]!, value);
  marker.graph.remove(marker);
}

/**
 * Rounds rows as a table of 8-bit codes with a scale for each row has them: s·round(w/s), s = max|w|/127. Answers the name of the scales, which no
 * gradient is to flow through.
 */
function roundRows(g: GraphBuilder, old: Value): string {
  const node = old.producer!;
  const { scale, rounded } = g.before(node, () => {
    const rows = g.op("Gather", [node.inputs[0], node.inputs[1]], { axis: int(0) });
    const largest = g.op("ReduceMax", [g.op("Abs", [rows]), g.shape([-1])], { keepdims: int(1) });
    const scale = g.op("Max", [g.div(largest, 127), g.scalar(SMALLEST_SCALE, rows)]);
    return { scale, rounded: g.mul(g.op("Round", [g.div(rows, scale)]), scale) };
  });
  rounded.retype("float32", old.shape);
  g.graph.replaceUses(old, rounded);
  g.graph.remove(node);
  return scale.name;
}

/** A row of zeros has any scale. */
const SMALLEST_SCALE = 2 ** -126;

/** The constants that scale activations, by name, and the nodes that read them. */
function activationScales(model: Model): ReadonlyMap<string, readonly Node[]> {
  const found = new Map<string, Node[]>();
  for (const node of model.graph.nodes) {
    if (node.opType !== "QuantizeLinear" && node.opType !== "DequantizeLinear") continue;
    const [x, scale] = node.inputs;
    if (x!.constant || !scale!.constant || elementCount(scale!.constant.dims) !== 1) continue;
    const nodes = found.get(scale!.name) ?? [];
    nodes.push(node);
    found.set(scale!.name, nodes);
  }
  return found;
}

/** Scales of a weight below which its biases, at their scale, would need more than 31 bits: |b| / (s_x·2³⁰). */
function smallestScales(model: Model, { biases }: MarkedWeight): Float64Array | undefined {
  let floors: Float64Array | undefined;
  for (const { bias, inputScale } of biases) {
    const values = floatsOf(valueNamed(model.graph, bias).constant!);
    const [scale] = floatsOf(valueNamed(model.graph, inputScale).constant!);
    floors ??= new Float64Array(values.length);
    for (const [c, b] of values.entries()) floors[c] = Math.max(floors[c]!, Math.abs(b) / (scale! * 2 ** 30));
  }
  return floors;
}

/** How far from the middle of a step, in steps, a weight may be that is to be rounded there. */
const INSIDE_STEP = 0.49;

/** Moves weights, in place, as little as makes round(clip(w / scale)) their codes. */
function moveTo(
  weights: Float32Array,
  dims: readonly number[],
  axis: number,
  { codes, scales, bounds }: WeightStart,
  { min, max }: CodeRange,
): void {
  const inner = elementCount(dims.slice(axis + 1));
  for (const [i, code] of codes.entries()) {
    const scale = scales[Math.floor(i / inner) % scales.length]!;
    const position = Math.min(
      Math.max(Math.fround(weights[i]! / scale), bounds?.low[i] ?? min),
      bounds?.high[i] ?? max,
    );
    if (roundHalfEven(position) === code) continue;
    weights[i] = scale * (code + Math.min(Math.max(position - code, -INSIDE_STEP), INSIDE_STEP));
  }
}

/** For each output channel the scale of the least squared error. */
function leastErrorScales(
  data: Float32Array,
  dims: readonly number[],
  axis: number,
  range: CodeRange,
  floors: Float64Array | undefined,
): Floats {
  const channels = dims[axis]!;
  const inner = elementCount(dims.slice(axis + 1));
  const scales = new Float32Array(channels);
  const row = new Float32Array(data.length / channels);
  for (let c = 0; c < channels; c++) {
    let length = 0;
    for (let start = c * inner; start < data.length; start += channels * inner) {
      row.set(data.subarray(start, start + inner), length);
      length += inner;
    }
    scales[c] = Math.max(leastErrorScale(row, range), floors?.[c] ?? 0);
  }
  // A channel of zeros is exact at any scale.
  const usual = scales.reduce((a, b) => Math.max(a, b), 0) || 1;
  return scales.map((scale) => (scale > 0 ? scale : usual));
}

// ---- the trained model -----------------------------------------------------------------------------------------------

function finish({
  trainable,
  values,
  weights,
  activations,
  options,
}: {
  readonly trainable: TrainableModel;
  readonly values: TrainedValues;
  readonly weights: ReadonlyMap<MarkedWeight, LearnedScale>;
  readonly activations: ReadonlyMap<string, LearnedScale>;
  readonly options: FakeQuantizeOptions;
}): Model {
  const model = exportTrained(trainable, values);
  const { graph } = model;
  const learned = new Map(values.parameters.map(({ name, data }) => [name, data]));
  const scaleOf = ({ parameter, initial }: LearnedScale) =>
    initial.map((scale, i) => Math.fround(scale * Math.exp(learned.get(parameter)![i]!)));
  const inputScales = new Map<string, number>();
  for (const [name, pairs] of activationScales(model)) {
    const learnedScale = activations.get(name);
    const scale = learnedScale ? scaleOf(learnedScale)[0]! : floatsOf(pairs[0]!.inputs[1]!.constant!)[0]!;
    inputScales.set(name, scale);
    const value = graph.addInitializer(name, tensorOf("float32", [], [scale]));
    for (const node of pairs) {
      node.setInput(1, value);
      if (options.activationBits === 4) limitToFourBits(node);
    }
  }
  for (const [entry, scale] of weights) {
    const scales = scaleOf(scale);
    const { bounds } = options.starts?.get(entry.weight) ?? {};
    const range = bounds ?? weightRange(options.weightBits);
    const q = roundedWeight(valueNamed(graph, entry.weight).constant!, entry.axis, scales, range);
    const stored = addStoredWeight(graph, entry.weight, q, options.weightBits);
    const scaleValue = graph.addInitializer(`${entry.weight}_scale`, tensorOf("float32", [scales.length], scales));
    for (const name of entry.markers) {
      dequantizeAt(markerNamed(graph, name), stored, scaleValue, entry.axis, inputScales.size > 0);
    }
    for (const bias of entry.biases) storeBias(graph, bias, scales, inputScales.get(bias.inputScale)!);
  }
  removeUnreadConstants(graph);
  return model;
}

function roundedWeight(
  weight: Tensor,
  axis: number,
  scales: Float32Array,
  range: CodeRange | NonNullable<WeightStart["bounds"]>,
): Tensor {
  const { dims } = weight;
  const inner = elementCount(dims.slice(axis + 1));
  const data = floatsOf(weight);
  // As the simulation computes it: w/s is rounded to float32 first.
  const q = Int8Array.from(data, (w, i) => {
    const scale = scales[Math.floor(i / inner) % scales.length]!;
    const [min, max] = "low" in range ? [range.low[i]!, range.high[i]!] : [range.min, range.max];
    return Math.min(Math.max(roundHalfEven(Math.fround(w / scale)), min), max);
  });
  return tensorOf("int8", dims, q);
}

/**
 * With quantized activations, DequantizeLinear, which becomes part of an integer kernel. Without, plain operators, which onnxruntime computes once
 * when it loads the model.
 */
function dequantizeAt(marker: Node, q: Value, scale: Value, axis: number, isFused: boolean): void {
  const { graph } = marker;
  const dims = marker.inputs[0]!.constant!.dims;
  const g = new GraphBuilder(graph);
  const value = g.before(marker, () => {
    if (isFused) return g.op("DequantizeLinear", [q, scale], { axis: { type: "int", value: axis } });
    const beside = dims.map((_, i) => (i === axis ? dims[i]! : 1));
    return g.mul(g.cast(q, "float32"), g.reshape(scale, beside));
  });
  value.retype("float32", dims);
  replaceMarker(marker, value);
}

/** Puts the bias in the place of its marker: as int32, or as the floats that are rounded to it. */
function storeBias(
  graph: Model["graph"],
  { bias: name, marker, storage }: MarkedWeight["biases"][number],
  scales: Float32Array,
  inputScale: number,
): void {
  if (marker === undefined) return;
  const node = markerNamed(graph, marker);
  const bias = floatsOf(node.inputs[0]!.constant!);
  const biasScales = scales.map((scale) => Math.fround(scale * inputScale));
  const q = Int32Array.from(bias, (b, c) => {
    const value = roundHalfEven(b / biasScales[c]!);
    return Math.min(Math.max(value, -(2 ** 31)), 2 ** 31 - 1);
  });
  if (storage === "float32") {
    const rounded = Float32Array.from(q, (value, c) => value * biasScales[c]!);
    replaceMarker(node, graph.addInitializer(`${name}_rounded`, tensorOf("float32", [bias.length], rounded)));
    return;
  }
  const stored = graph.addInitializer(`${name}_q`, tensorOf("int32", [bias.length], q));
  const scale = graph.addInitializer(`${name}_scale`, tensorOf("float32", [bias.length], biasScales));
  const dequantize = node.graph.insertBefore(node, {
    opType: "DequantizeLinear",
    inputs: [stored, scale],
    outputs: 1,
    attrs: { axis: { type: "int", value: 0 } },
  });
  replaceMarker(node, dequantize.outputs[0]!);
}

function removeUnreadConstants(graph: Model["graph"]): void {
  for (const value of [...graph.initializers]) {
    if (value.useCount === 0 && !value.isGraphOutput) graph.removeInitializer(value);
  }
}
