/**
 * What the graph itself tells of its large values: extremes, sums of squares and a share of the elements. The values never leave the runtime, where
 * taking them out costs several times what it takes to compute them.
 */
import { type GraphBuilder, int, ints } from "../../onnx/graph-builder.ts";
import type { Value } from "../../onnx/ir.ts";
import { elementCount, floatsOf, integersOf, type Tensor } from "../../onnx/tensor.ts";
import { ChannelObserver } from "./observers.ts";

/** Of one tensor, all of whose elements are finite. */
export interface Summary {
  readonly dims: readonly number[];
  readonly min: number;
  readonly max: number;
  /** Elements `distance` apart, in row-major order. */
  readonly sample: Float32Array;
  readonly distance: number;
  /** Extremes and, as far as the sample tells it, Σx² of each channel along an axis, where one was named. */
  readonly channels: ChannelSummary | undefined;
}

export interface ChannelSummary {
  /** Counted from the front. */
  readonly axis: number;
  readonly min: ArrayLike<number>;
  readonly max: ArrayLike<number>;
  squares(): ArrayLike<number>;
}

/** The axis of the channels that a summary is to tell apart, which may count from the end; undefined for none. */
export type ChannelAxis = number | undefined;

/** Smaller values are sooner taken out of the runtime than told about. */
const MIN_ELEMENTS = 2 ** 15;
/** Elements in a sample; somewhat fewer, because of distances. */
const SAMPLE = 2 ** 13;
/** Whether a value of these dims is worth a summary. */
export function isLarge(dims: readonly number[]): boolean {
  return elementCount(dims) > MIN_ELEMENTS;
}

/** A value that outputs are to tell of: its dims, which later ones may differ from in size, and the axis of its channels. */
export interface Summarized {
  readonly value: Value;
  readonly dims: readonly number[];
  readonly axis: ChannelAxis;
}

interface Told {
  readonly name: string;
  readonly rank: number;
  readonly axis: number | undefined;
  /** Numbers are told of each slice along this axis, whether or not channels are: of a whole value they take longer. */
  readonly sliced: number;
  readonly distance: number;
  /** The channel of each element of the sample, for values of the size that came last. */
  last?: { readonly size: string; readonly channelAt: Uint32Array };
}

/** Outputs that tell of values: one for each kind of number, with those of all values behind each other. */
export class SummaryOutputs {
  readonly #told: readonly Told[];
  readonly #outputs: Readonly<Record<"shapes" | "min" | "max" | "sums" | "samples", Value>> | undefined;

  /** Adds outputs that tell of float32 values of the main graph. */
  constructor(g: GraphBuilder, values: readonly Summarized[]) {
    this.#told = values.map(({ value, dims, axis: given }) => {
      const axis = given !== undefined && given < 0 ? given + dims.length : given;
      const sliced = axis ?? Math.min(1, dims.length - 1);
      return { name: value.name, rank: dims.length, distance: distanceIn(dims), axis, sliced };
    });
    if (values.length === 0) return;
    const reduced = (opType: string, axesSince = AXES_AS_INPUT) =>
      values.map((it, i) => reduce(g, opType, axesSince, it, this.#told[i]!.sliced));
    const samples = values.map(({ value }, i) =>
      g.slice(g.reshape(value, [-1]), [0], [0], [LAST], [this.#told[i]!.distance]),
    );
    this.#outputs = {
      shapes: g.concat(
        values.map(({ value }) => g.op("Shape", [value])),
        0,
      ),
      min: g.concat(reduced("ReduceMin"), 0),
      max: g.concat(reduced("ReduceMax"), 0),
      sums: g.concat(reduced("ReduceSum", SUM_AXES_AS_INPUT), 0),
      samples: g.concat(samples, 0),
    };
    for (const output of Object.values(this.#outputs)) g.graph.addOutput(output);
  }

  get names(): string[] {
    return Object.values(this.#outputs ?? {}).map(({ name }) => name);
  }

  /**
   * What the results of a run tell of each value, by name; undefined where elements are not finite, or so large that their sum is not.
   */
  read(results: Readonly<Record<string, Tensor>>): ReadonlyMap<string, Summary | undefined> {
    const summaries = new Map<string, Summary | undefined>();
    if (!this.#outputs) return summaries;
    const floats = (output: Value) => floatsOf(results[output.name]!);
    const shapes = integersOf(results[this.#outputs.shapes.name]!);
    const [lows, highs] = [floats(this.#outputs.min), floats(this.#outputs.max)];
    const [sums, samples] = [floats(this.#outputs.sums), floats(this.#outputs.samples)];
    let at = { shape: 0, channel: 0, sample: 0 };
    for (const told of this.#told) {
      const { name, rank, axis, sliced, distance } = told;
      const dims = shapes.slice(at.shape, at.shape + rank);
      const next = {
        shape: at.shape + rank,
        channel: at.channel + dims[sliced]!,
        sample: at.sample + Math.ceil(elementCount(dims) / distance),
      };
      const ofChannels = (values: Float32Array) => values.subarray(at.channel, next.channel);
      const sampled = { dims, distance, sample: samples.subarray(at.sample, next.sample) };
      const [min, max] = [ofChannels(lows), ofChannels(highs)];
      const channels =
        axis === undefined
          ? undefined
          : { axis, min, max, squares: () => squaresOf(sampled, axis, placesOf(told, sampled)) };
      const isTold = ofChannels(sums).every(Number.isFinite);
      summaries.set(name, isTold ? { ...sampled, min: least(min), max: largest(max), channels } : undefined);
      at = next;
    }
    return summaries;
  }
}

/** [slices along the axis]; `axesSince`: the version since which the operator takes axes as an input. */
function reduce(g: GraphBuilder, opType: string, axesSince: number, { value, dims }: Summarized, axis: number): Value {
  const axes = [...dims.keys()].filter((i) => i !== axis);
  const isInput = g.graph.model.opset >= axesSince;
  // Without any axis, all of them would be meant.
  if (axes.length === 0) return value;
  return isInput
    ? g.op(opType, [value, g.shape(axes)], { keepdims: int(0) })
    : g.op(opType, [value], { axes: ints(axes), keepdims: int(0) });
}

type Sampled = Pick<Summary, "dims" | "distance" | "sample">;

/** Σx² of each channel: the mean over its elements in the sample, or over the whole sample where it has none, times its elements. */
function squaresOf({ dims, sample }: Sampled, axis: number, channelAt: Uint32Array): Float64Array {
  const channels = dims[axis]!;
  const squares = new Float64Array(channels);
  const counts = new Uint32Array(channels);
  // Neighbours are mostly of one channel: its sum is kept in a register meanwhile.
  for (let i = 0; i < sample.length; ) {
    const channel = channelAt[i]!;
    const start = i;
    let sum = 0;
    for (; i < sample.length && channelAt[i] === channel; i++) sum += sample[i]! * sample[i]!;
    squares[channel]! += sum;
    counts[channel]! += i - start;
  }
  const each = elementCount(dims) / channels;
  const mean = squares.reduce((a, b) => a + b, 0) / Math.max(sample.length, 1);
  return squares.map((sum, c) => each * (counts[c]! > 0 ? sum / counts[c]! : mean));
}

function placesOf(told: Told, sampled: Sampled): Uint32Array {
  const size = sampled.dims.join();
  if (told.last?.size !== size) told.last = { size, channelAt: channelsOf(sampled, told.axis!) };
  return told.last.channelAt;
}

/** The channel of each element of a sample. */
function channelsOf({ dims, distance, sample }: Sampled, axis: number): Uint32Array {
  const channels = dims[axis]!;
  const inner = elementCount(dims.slice(axis + 1));
  const result = new Uint32Array(sample.length);
  const [step, rest] = [Math.floor(distance / inner) % channels, distance % inner];
  // The channel, and the position within its run of `inner` elements.
  let channel = 0;
  let within = 0;
  for (let i = 0; i < result.length; i++) {
    result[i] = channel;
    within += rest;
    channel += step;
    if (within >= inner) {
      within -= inner;
      channel++;
    }
    if (channel >= channels) channel -= channels;
  }
  return result;
}

/** The summary of a value that is seen whole. Of a small one, and of one with elements that are not finite, every element is in the sample. */
export function summaryOfWhole(values: Float32Array, dims: readonly number[], channelAxis: number): Summary {
  const axis = channelAxis < 0 ? channelAxis + dims.length : channelAxis;
  const observer = new ChannelObserver(axis);
  observer.observe(values, dims);
  const { min, max, squares } = observer.state;
  const distance = squares.every(Number.isFinite) ? distanceIn(dims) : 1;
  const sample = new Float32Array(Math.ceil(values.length / distance));
  for (let i = 0; i < sample.length; i++) sample[i] = values[i * distance]!;
  return {
    dims,
    distance,
    sample,
    channels: { axis, min, max, squares: () => squares },
    min: least(min),
    max: largest(max),
  };
}

function least(values: ArrayLike<number>): number {
  let min = Number.POSITIVE_INFINITY;
  for (let i = 0; i < values.length; i++) min = Math.min(min, values[i]!);
  return min;
}

function largest(values: ArrayLike<number>): number {
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) max = Math.max(max, values[i]!);
  return max;
}

/** What becomes of a value when its channels are multiplied, and, for those of a Clip, limited. */
export interface ChannelFactors {
  readonly factors: ArrayLike<number>;
  readonly limit: number;
}

/** The summary of the value that the channels of another make, multiplied each by its factor. It must tell of channels along that axis. */
export function scaledSummary(summary: Summary, { factors, limit }: ChannelFactors): Summary {
  const { axis, ...of } = summary.channels!;
  const scaled = (values: ArrayLike<number>, power = 1) =>
    Float64Array.from(values, (x, c) => Math.min(x * factors[c]! ** power, power === 1 ? limit : Infinity));
  const [min, max] = [scaled(of.min), scaled(of.max)];
  const channelAt = channelsOf(summary, axis);
  const sample = summary.sample.map((x, i) => Math.min(x * factors[channelAt[i]!]!, limit));
  const channels = { axis, min, max, squares: () => scaled(of.squares(), 2) };
  return { ...summary, sample, channels, min: least(min), max: largest(max) };
}

/** As an end: behind all elements. */
const LAST = 2 ** 31 - 1;
/** The versions of ai.onnx since which sums, and all other reductions, take axes as an input. */
const SUM_AXES_AS_INPUT = 13;
const AXES_AS_INPUT = 18;

/**
 * Every how many-th element is in the sample: a prime number that divides no dim, or elements would all be from a few channels or columns.
 */
function distanceIn(dims: readonly number[]): number {
  const isPrime = (n: number) => {
    for (let factor = 2; factor * factor <= n; factor++) if (n % factor === 0) return false;
    return true;
  };
  let distance = Math.max(1, Math.floor(elementCount(dims) / SAMPLE));
  while (distance > 1 && !(isPrime(distance) && dims.every((dim) => dim % distance !== 0))) distance++;
  return distance;
}
