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
import { GraphBuilder, int } from "../onnx/graph-builder.ts";
import type { Graph, Model, Node, Value } from "../onnx/ir.ts";
import { elementCount, floatsOf, tensorOf } from "../onnx/tensor.ts";
import { type CodeRange, roundHalfEven } from "../quantize/params.ts";
import type { WeightStart } from "../quantize/static/channel-weights.ts";
import type { MarkedWeight } from "../quantize/static/emission.ts";
import { leastErrorScale } from "../quantize/static/least-error-scale.ts";
import { type WeightBits, weightRange } from "../quantize/static/stored-weights.ts";
import { allocateParameters, type Floats } from "../train/parameter-kernels.ts";
import { liveTensor, type Parameter } from "../train/parameters.ts";
import { createTrainable, type TrainableModel, type TrainedValues } from "../train/trainable.ts";
import { clipToRange, STEPS_RATIO, simulateFourBits } from "./activation-ranges.ts";
import { exportQuantized, type LearnedScale } from "./export-quantized.ts";
import { activationScales, markerNamed, replaceMarker, valueNamed } from "./markers.ts";
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
  const quantizer = new FakeQuantizer(model, options);
  quantizer.atFront(() => {
    for (const entry of marked) quantizer.roundWeight(entry);
    quantizer.learnRanges();
  });
  quantizer.atFront(() => {
    for (const entry of marked) quantizer.roundBiases(entry);
  });
  for (const name of options.tables ?? []) quantizer.roundTable(name);
  return quantizer.finish();
}

/** Puts rounding into the graph of a training, and the scales that it learns. */
class FakeQuantizer {
  readonly #model: Model;
  readonly #options: FakeQuantizeOptions;
  readonly #range: CodeRange;
  readonly #base: TrainableModel;
  readonly #g: GraphBuilder;
  /** What goes before it is at the front of the graph. */
  readonly #front: Node;
  readonly #parameters: Parameter[] = [];
  readonly #weights = new Map<MarkedWeight, LearnedScale>();
  readonly #activations = new Map<string, LearnedScale>();
  /** By the names of weights, and of the constants that scale activations. */
  readonly #scales = new Map<string, Value>();
  /** What changes pairs of Q/DQ: when everything at the front is there. */
  readonly #changes: (() => void)[] = [];
  readonly #detached: string[] = [];
  /** Ranges that are to stay small. */
  readonly #widths: Value[] = [];

  constructor(model: Model, options: FakeQuantizeOptions) {
    this.#model = model;
    this.#options = options;
    this.#range = weightRange(options.weightBits);
    this.#base = createTrainable(model, { watch: options.watch ?? [], freezeStatistics: true });
    const { graph } = this.#base.graph;
    this.#g = new GraphBuilder(graph);
    this.#front = graph.prepend({ opType: "Identity", inputs: [graph.inputs[0]], outputs: 1 });
  }

  get #graph(): Graph {
    return this.#base.graph.graph;
  }

  atFront(emit: () => void): void {
    this.#g.before(this.#front, emit);
  }

  /** s₀·exp(t) as a value of shape `dims`. */
  #learn(name: string, initial: Floats, dims: readonly number[]): { scale: Value; learned: LearnedScale } {
    const [graph, g] = [this.#graph, this.#g];
    const input = graph.addInput(graph.model.freshName(`${name}/log_scale`), "float32", dims);
    const [arrays] = allocateParameters([initial.length]);
    const fan = { in: 1, out: 1 };
    this.#parameters.push({ name: input.name, role: "scale", dims, ...arrays!, fan, rectified: false });
    const start = graph.addInitializer(`${name}/initial_scale`, tensorOf("float32", dims, initial));
    return { scale: g.mul(start, g.exp(input)), learned: { parameter: input.name, initial } };
  }

  roundWeight(entry: MarkedWeight): void {
    const g = this.#g;
    const weight = valueNamed(this.#graph, entry.weight);
    const dims = weight.constant?.dims ?? (weight.shape as readonly number[]);
    const data =
      this.#base.parameters.find(({ name }) => name === entry.weight)?.data ?? floatsOf(weight.constant!).slice();
    const beside = dims.map((_, i) => (i === entry.axis ? dims[i]! : 1));
    const start = this.#options.starts?.get(entry.weight);
    if (start) moveTo(data, dims, entry.axis, start, this.#range);
    const initial = start
      ? Float32Array.from(start.scales)
      : leastErrorScales(data, dims, entry.axis, this.#range, smallestScales(this.#model, entry));
    const { scale, learned } = this.#learn(entry.weight, initial, beside);
    const q = g.op("Round", [clipped(g, g.div(weight, scale), dims, start?.bounds, this.#range)]);
    const rounded = g.mul(q, scale);
    for (const name of entry.markers) replaceMarker(markerNamed(this.#graph, name), rounded);
    this.#weights.set(entry, learned);
    this.#scales.set(entry.weight, scale);
  }

  /** Of activations; those of data stay as they are in 8 bits. */
  learnRanges(): void {
    const learnedValues = valuesThatLearn(this.#base);
    for (const [name, pairs] of activationScales(this.#base.graph)) {
      const isData = pairs.every(({ inputs }) => !learnedValues.has(inputs[0]!));
      if (this.#options.activationBits === 8 && isData) this.#scales.set(name, pairs[0]!.inputs[1]!);
      else this.#learnRange(name, pairs);
    }
  }

  #learnRange(name: string, pairs: readonly Node[]): void {
    const g = this.#g;
    const { activationBits: bits, algorithm } = this.#options;
    const ratio = bits === 4 ? STEPS_RATIO : 1;
    const initial = Float32Array.from(floatsOf(pairs[0]!.inputs[1]!.constant!), (scale) => scale * ratio);
    const { scale: moving, learned } = this.#learn(name, initial, []);
    // What rounding does moves no range of PACT.
    const isPact = algorithm === "pact";
    const scale = isPact ? g.op("Identity", [moving]) : moving;
    if (isPact) {
      this.#detached.push(scale.name);
      this.#widths.push(g.mul(moving, bits === 4 ? 15 : 255));
    }
    for (const node of pairs) {
      if (isPact && node.opType === "QuantizeLinear") {
        this.#changes.push(() => g.before(node, () => clipToRange(g, node, moving, bits)));
      }
      if (bits === 8) node.setInput(1, scale);
      else this.#changes.push(() => g.before(node, () => simulateFourBits(g, node, scale)));
    }
    this.#activations.set(name, learned);
    this.#scales.set(name, scale);
  }

  /** As kernels take biases: int32 at the scale of the products, whose steps are too fine for a scale to learn anything from. */
  roundBiases({ weight, biases }: MarkedWeight): void {
    const g = this.#g;
    for (const { bias, inputScale, marker } of biases) {
      if (marker === undefined) continue;
      const scale = g.mul(g.reshape(this.#scales.get(weight)!, [-1]), this.#scales.get(inputScale)!);
      const rounded = g.mul(g.op("Round", [g.div(valueNamed(this.#graph, bias), scale)]), scale);
      this.#detached.push(scale.name);
      replaceMarker(markerNamed(this.#graph, marker), rounded);
    }
  }

  roundTable(name: string): void {
    this.#detached.push(roundRows(this.#g, valueNamed(this.#graph, name)));
  }

  finish(): FakeQuantized {
    const penalty = this.#addPenalty();
    this.#graph.remove(this.#front);
    for (const change of this.#changes) change();
    const [base, parameters, options] = [this.#base, this.#parameters, this.#options];
    const live = parameters.map((parameter) => [parameter.name, liveTensor(parameter)]);
    const trainable: TrainableModel = {
      ...base,
      parameters: [...base.parameters, ...parameters],
      feeds: { ...base.feeds, ...Object.fromEntries(live) },
      detached: this.#detached,
      penalties: penalty ? [{ name: "ranges", value: penalty.name, weight: RANGE_DECAY }] : [],
    };
    const [weights, activations] = [this.#weights, this.#activations];
    return {
      trainable,
      finish: (values = trainable) => exportQuantized({ trainable, values, weights, activations, options }),
    };
  }

  /** Σ (b − a)² of the ranges of PACT. */
  #addPenalty(): Value | undefined {
    const g = this.#g;
    const squares = this.#widths.map((width) => g.before(this.#front, () => g.square(width)));
    if (squares.length === 0) return undefined;
    const penalty = g.before(this.#front, () => squares.reduce((sum, square) => g.add(sum, square)));
    this.#graph.addOutput(penalty);
    return penalty;
  }
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
