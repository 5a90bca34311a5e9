/**
 * Scales channels so that 8 bits serve all of them: a whole activation tensor has one scale (and so has a whole weight, without per-channel
 * weights), which is as coarse as its largest channel needs.
 *
 * - Cross-layer equalisation (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.1):
 *   s_c = √(r₁ / r₂), with the largest weights r₁ before and r₂ behind channel c, makes them equal. Repeated until nothing moves, a
 *   depthwise layer between two others ends with all three ranges at their geometric mean, the closed form for such triples.
 * - SmoothQuant (Xiao et al., 2211.10438): s_c = max|X_c|^α / max|W_c|^(1−α) moves the difficulty of outlier channels from an activation into
 *   the weights behind it.
 *
 * Which of them, with which α, or none, is decided for each tensor by the error that rounding is expected to leave in the outputs of the
 * layers behind it. With the step Δ of the activation and Δ_o of weight row o under the scales s, rounding errors uniform and independent,
 *
 *     E = Σ_o [ Δ²/12 · Σ_ck (W_ock s_c)²  +  Δ_o²/12 · K · Σ_c E[x_c²] / s_c² ]
 *
 * with K window positions. Everything in it is known from the ranges and mean squares of the channels; no model has to run. Where a whole
 * weight has one scale, what rounding the producer's weight leaves in x_c, Δ_p²/12 · Σ E[z²], comes on top of Δ²/12.
 */
import type { Model, Node } from "../../onnx/ir.ts";
import { arrayOf, elementCount } from "../../onnx/tensor.ts";
import { checkInvariants, type NoteSink, noteOn } from "../../passes/pass.ts";
import type { ChannelObserver } from "../calibration/observers.ts";
import { type ScaledValue, type ScalingSite, scalingSites, visitPairs } from "./channel-scaling.ts";
import { ruleFor, type WeightOperand } from "./operators.ts";

/** Channels are not scaled against each other by more than this. */
const MAX_SCALE = 1e4;

// ---- cross-layer equalisation ----------------------------------------------------------------------------------------

const MAX_SWEEPS = 30;
const CONVERGED = 1e-3;

/** Equalises the weights of all layers that can be, in place and without data. Answers the values that are others than before. */
export function equalizeWeights(model: Model): Map<string, ScaledValue> {
  const sites = scalingSites(model).filter(({ producerOperand, isClipped }) => producerOperand && !isClipped);
  const magnitudes = new Map<Node, MagnitudeMatrix>();
  const matrixOf = (node: Node, operand: WeightOperand): MagnitudeMatrix => {
    const matrix = magnitudes.get(node) ?? new MagnitudeMatrix(node, operand);
    magnitudes.set(node, matrix);
    return matrix;
  };
  const total = sites.map(({ channels }) => new Float64Array(channels).fill(1));
  for (let sweep = 0; sweep < MAX_SWEEPS; sweep++) {
    let furthest = 0;
    sites.forEach((site, i) => {
      const producer = matrixOf(site.producer, site.producerOperand!);
      const consumers = site.consumers.map(({ node, operand }) => matrixOf(node, operand));
      const before = producer.rows();
      const behind = largest(consumers.map((matrix) => matrix.columns()));
      const scales = before.map((r, c) => limited(Math.sqrt(r / behind[c]!)));
      producer.scaleRows(scales.map((s) => 1 / s));
      for (const matrix of consumers) matrix.scaleColumns(scales);
      scales.forEach((s, c) => {
        total[i]![c]! *= s;
        furthest = Math.max(furthest, Math.abs(Math.log(s)));
      });
    });
    if (furthest < CONVERGED) break;
  }
  const changed = new Map(sites.flatMap((site, i) => [...site.apply(total[i]!)]));
  checkInvariants(model, "equalisation");
  return changed;
}

/** The largest |weight| between each output channel and each input channel, and the scales they have been given. */
class MagnitudeMatrix {
  readonly #largest: Float64Array;
  readonly #outputs: number;
  readonly #inputsPerGroup: number;
  readonly #outputsPerGroup: number;
  readonly #rowScales: Float64Array;
  readonly #columnScales: Float64Array;

  constructor(node: Node, operand: WeightOperand) {
    const { dims } = node.inputs[operand.input]!.constant!;
    this.#outputs = dims[operand.axis]!;
    this.#inputsPerGroup = dims[operand.inputAxis]!;
    this.#outputsPerGroup = this.#outputs / operand.groups;
    this.#rowScales = new Float64Array(this.#outputs).fill(1);
    this.#columnScales = new Float64Array(this.#inputsPerGroup * operand.groups).fill(1);
    this.#largest = weightStatistics(node, operand).largest;
  }

  rows(): Float64Array {
    const rows = new Float64Array(this.#outputs);
    this.#visit((magnitude, row) => {
      rows[row] = Math.max(rows[row]!, magnitude);
    });
    return rows;
  }

  columns(): Float64Array {
    const columns = new Float64Array(this.#columnScales.length);
    this.#visit((magnitude, _, column) => {
      columns[column] = Math.max(columns[column]!, magnitude);
    });
    return columns;
  }

  scaleRows(scales: Float64Array): void {
    scales.forEach((scale, i) => {
      this.#rowScales[i]! *= scale;
    });
  }

  scaleColumns(scales: Float64Array): void {
    scales.forEach((scale, i) => {
      this.#columnScales[i]! *= scale;
    });
  }

  #visit(visitor: (magnitude: number, row: number, column: number) => void): void {
    for (let row = 0, at = 0; row < this.#outputs; row++) {
      const first = Math.floor(row / this.#outputsPerGroup) * this.#inputsPerGroup;
      for (let k = 0; k < this.#inputsPerGroup; k++, at++) {
        const column = first + k;
        visitor(this.#largest[at]! * this.#rowScales[row]! * this.#columnScales[column]!, row, column);
      }
    }
  }
}

// ---- scales by expected error ----------------------------------------------------------------------------------------

export interface BalanceOptions {
  /** Each output channel of a weight has its own scale. */
  readonly perChannel: boolean;
  /** Scale channels between layers. */
  readonly layers: boolean;
  /** Scale channels between normalizations and layers: by what is best, by the formula with this α, or not at all. */
  readonly normalizations: "auto" | number | undefined;
}

/** α of SmoothQuant's formula. */
const ALPHAS = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];
/** A clipped channel is not limited to less than this share of the largest, however little was seen of it. */
const MIN_CLIPPED_SHARE = 0.01;
/** Less is within what the expectation leaves out: zeros that cost nothing, weights that must not saturate, what other tensors lose. */
const MIN_GAIN_DB = 3;

/**
 * What the whole model is expected to gain at least for it to be tried: were all layers to err alike, which leaves out that one may err more than all
 * others, so that a single site with so large a gain is tried as well. What is less does not show: on networks that were expected to gain 0.1 to 1.1 dB, trials on a few
 * samples could not tell what was better on others.
 */
const MIN_TOTAL_DB = 1.5;
const LARGE_GAIN_DB = 10;

interface ChosenScales {
  readonly site: ScalingSite;
  readonly scales: Float64Array;
  readonly gainDb: number;
  /** It was left to us. */
  readonly isAuto: boolean;
}

/**
 * Scales channels wherever that is expected to help, in place. `statistics` are those of the values that layers read, by name; sites of which
 * nothing is known stay as they are. Answers the values that are others than before.
 */
export function balanceChannels(
  model: Model,
  statistics: (name: string) => ChannelObserver | undefined,
  options: BalanceOptions,
  note: NoteSink,
): Map<string, ScaledValue> {
  const chosen: ChosenScales[] = [];
  const known = new Map<Node, WeightStatistics>();
  const weightsOf = (node: Node, operand: WeightOperand) => {
    const weights = known.get(node) ?? weightStatistics(node, operand);
    known.set(node, weights);
    return weights;
  };
  for (const site of scalingSites(model, { inserting: true })) {
    const wanted = site.producerOperand ? options.layers && "auto" : options.normalizations;
    if (wanted === undefined || wanted === false) continue;
    const expectation = expectationOf(site, statistics, weightsOf, options.perChannel);
    if (!expectation) continue;
    const { scales, gainDb } = chooseScales(expectation, wanted, site.isClipped);
    const isAuto = wanted === "auto";
    // NaN, of weights that are not finite, is no gain either.
    if (!isAuto || gainDb >= MIN_GAIN_DB) chosen.push({ site, scales, gainDb, isAuto });
  }
  const layers = [...model.nodes()].filter((node) => ruleFor(node)?.weight?.(node)).length;
  const isWorthwhile =
    totalGainDb(chosen, layers) >= MIN_TOTAL_DB || chosen.some(({ gainDb }) => gainDb >= LARGE_GAIN_DB);
  const changed = new Map<string, ScaledValue>();
  for (const { site, scales, gainDb, isAuto } of chosen) {
    if (isAuto && !isWorthwhile) continue;
    for (const [name, scaled] of site.apply(scales)) changed.set(name, scaled);
    note(
      noteOn(
        site.producer,
        "changed",
        "channels_scaled",
        `Its channels were scaled against each other${site.inserts ? ", by a product in front of the layers that read them" : ""}: ` +
          `rounding is expected to cost ${gainDb.toFixed(1)} dB less behind it.`,
      ),
    );
  }
  checkInvariants(model, "scaling channels");
  return changed;
}

/** What a model of so many layers gains in all, were they all to err alike without. */
function totalGainDb(chosen: readonly ChosenScales[], layers: number): number {
  const saved = chosen.reduce((sum, { site, gainDb }) => sum + site.consumers.length * (1 - 10 ** (-gainDb / 10)), 0);
  return -10 * Math.log10(1 - Math.min(saved / layers, 1));
}

/** What the error at a site depends on. */
interface Expectation {
  /** Of the tensor, by channel. */
  readonly min: Float64Array;
  readonly max: Float64Array;
  readonly meanSquare: Float64Array;
  readonly consumers: readonly WeightStatistics[];
  /** Largest weight that makes each channel, and what its rounding is multiplied with; zero when every channel has a scale of its own. */
  readonly producer: { readonly largest: Float64Array; readonly inputPower: number };
  readonly perChannel: boolean;
}

interface WeightStatistics {
  /** max_k |w_ock| by output o and input c of its group. */
  readonly largest: Float64Array;
  readonly outputs: number;
  readonly inputs: number;
  readonly groups: number;
  /** Σ_ok w_ock² by input channel, over all groups. */
  readonly energy: Float64Array;
  /** Window positions. */
  readonly window: number;
}

function expectationOf(
  site: ScalingSite,
  statistics: (name: string) => ChannelObserver | undefined,
  weightsOf: typeof weightStatistics,
  perChannel: boolean,
): Expectation | undefined {
  const seen = site.consumers.map(({ input }) => statistics(input.name));
  const known = seen.flatMap((observer) => (observer?.channels === site.channels ? [observer] : []));
  if (known.length < site.consumers.length) return undefined;
  const { producer, producerOperand } = site;
  const made = producerOperand && rowMagnitudes(weightsOf(producer, producerOperand));
  const fed = statistics(producer.inputs[0]!.name)?.meanSquares();
  return {
    min: extreme(
      known.map(({ min }) => min),
      Math.min,
    ),
    max: extreme(
      known.map(({ max }) => max),
      Math.max,
    ),
    meanSquare: known[0]!.meanSquares(),
    consumers: site.consumers.map(({ node, operand }) => weightsOf(node, operand)),
    producer: {
      largest: made ?? new Float64Array(site.channels),
      inputPower: perChannel || !fed || !producerOperand ? 0 : inputPower(producer, producerOperand, fed),
    },
    perChannel,
  };
}

/** K · Σ E[z²] over the products of one output. */
function inputPower(node: Node, operand: WeightOperand, meanSquares: Float64Array): number {
  const { dims } = node.inputs[operand.input]!.constant!;
  const window = elementCount(dims) / dims[operand.axis]! / dims[operand.inputAxis]!;
  return (window * meanSquares.reduce((sum, square) => sum + square, 0)) / operand.groups;
}

function weightStatistics(node: Node, operand: WeightOperand): WeightStatistics {
  const weight = node.inputs[operand.input]!.constant!;
  const values = arrayOf(weight, "float32");
  const outputs = weight.dims[operand.axis]!;
  const inputs = weight.dims[operand.inputAxis]!;
  const largest = new Float64Array(outputs * inputs);
  const energy = new Float64Array(inputs * operand.groups);
  visitPairs(weight.dims, operand, (output, input, start, window) => {
    let most = 0;
    let squares = 0;
    for (let i = start; i < start + window; i++) {
      const x = Math.abs(values[i]!);
      if (x > most) most = x;
      squares += x * x;
    }
    largest[output * inputs + (input % inputs)] = most;
    energy[input]! += squares;
  });
  return { largest, outputs, inputs, groups: operand.groups, energy, window: values.length / outputs / inputs };
}

function chooseScales(
  of: Expectation,
  wanted: "auto" | number,
  isClipped: boolean,
): { scales: Float64Array; gainDb: number } {
  const activation = of.max.map((max, c) => Math.max(max, -of.min[c]!));
  const weights = largest(of.consumers.map(columnMagnitudes));
  const smooth = (alpha: number) => activation.map((x, c) => limited(x ** alpha / weights[c]! ** (1 - alpha)));
  const none = new Float64Array(of.min.length).fill(1);
  const before = expectedError(of, none);
  const top = activation.reduce((a, b) => Math.max(a, b), 0);
  const whole = activation.map((x) => limited(Math.max(x, MIN_CLIPPED_SHARE * top)));
  const candidates = isClipped
    ? [whole, none]
    : wanted === "auto"
      ? [...ALPHAS.map(smooth), of.producer.largest.map((made, c) => limited(Math.sqrt(made / weights[c]!))), none]
      : [smooth(wanted)];
  let best = candidates[0]!;
  let least = expectedError(of, best);
  for (const scales of candidates.slice(1)) {
    const error = expectedError(of, scales, least);
    if (error < least) {
      best = scales;
      least = error;
    }
  }
  return { scales: best, gainDb: 10 * Math.log10(before / least) };
}

function rowMagnitudes({ largest: matrix, outputs, inputs }: WeightStatistics): Float64Array {
  const rows = new Float64Array(outputs);
  for (let output = 0, at = 0; output < outputs; output++) {
    for (const end = at + inputs; at < end; at++) if (matrix[at]! > rows[output]!) rows[output] = matrix[at]!;
  }
  return rows;
}

function columnMagnitudes({ largest: matrix, outputs, inputs, groups }: WeightStatistics): Float64Array {
  const columns = new Float64Array(inputs * groups);
  for (let output = 0, at = 0; output < outputs; output++) {
    const first = Math.floor(output / (outputs / groups)) * inputs;
    for (let c = first; c < first + inputs; c++, at++) if (matrix[at]! > columns[c]!) columns[c] = matrix[at]!;
  }
  return columns;
}

const ACTIVATION_STEPS = 255;
const WEIGHT_STEPS = 127;

/** E of the formula at the top, without the common factor 1/12; or, once it is known to be no less than `enough`, a part of it that is not either. */
function expectedError(of: Expectation, scales: Float64Array, enough = Number.POSITIVE_INFINITY): number {
  const high = of.max.reduce((most, max, c) => Math.max(most, max / scales[c]!), 0);
  const low = of.min.reduce((least, min, c) => Math.min(least, min / scales[c]!), 0);
  const made = of.producer.largest.reduce((most, w, c) => Math.max(most, w / scales[c]!), 0) / WEIGHT_STEPS;
  const activation = ((high - low) / ACTIVATION_STEPS) ** 2 + made ** 2 * of.producer.inputPower;
  let error = 0;
  for (const { largest: matrix, outputs, inputs, groups, energy, window } of of.consumers) {
    energy.forEach((square, c) => {
      error += activation * scales[c]! ** 2 * square;
    });
    if (error >= enough) return error;
    const power = new Float64Array(groups);
    of.meanSquare.forEach((square, c) => {
      power[Math.floor(c / inputs)]! += (window * square) / scales[c]! ** 2;
    });
    const steps = new Float64Array(outputs);
    for (let o = 0; o < outputs; o++) {
      const row = o * inputs;
      const first = Math.floor(o / (outputs / groups)) * inputs;
      let most = 0;
      for (let c = 0; c < inputs; c++) {
        const scaled = matrix[row + c]! * scales[first + c]!;
        if (scaled > most) most = scaled;
      }
      steps[o] = most / WEIGHT_STEPS;
    }
    const whole = steps.reduce((a, b) => Math.max(a, b), 0);
    steps.forEach((step, o) => {
      error += (of.perChannel ? step : whole) ** 2 * power[Math.floor(o / (outputs / groups))]!;
    });
  }
  return error;
}

// ---- vectors ---------------------------------------------------------------------------------------------------------

/** A usable scale: 1 where a channel is dead on either side. */
function limited(scale: number): number {
  if (!Number.isFinite(scale) || scale <= 0) return 1;
  return Math.min(Math.max(scale, 1 / MAX_SCALE), MAX_SCALE);
}

function largest(vectors: readonly Float64Array[]): Float64Array {
  return extreme(vectors, Math.max);
}

function extreme(vectors: readonly Float64Array[], of: (a: number, b: number) => number): Float64Array {
  return vectors.reduce((a, b) => a.map((value, i) => of(value, b[i]!)));
}
