/**
 * What the graph itself tells of its large values: extremes, sums of squares and a share of the elements. The values never leave the runtime, where
 * taking them out costs several times what it takes to compute them.
 */
import { type GraphBuilder, int, ints } from "../../onnx/graph-builder.ts";
import type { Value } from "../../onnx/ir.ts";
import { elementCount, floatsOf, integersOf, type Tensor } from "../../onnx/tensor.ts";

/** Of one tensor, all of whose elements are finite. */
export interface Summary {
  readonly elements: number;
  readonly min: number;
  readonly max: number;
  /** Elements at equal distances, in row-major order. */
  readonly sample: Float32Array;
  /** Extremes and Σx² of each channel, where an axis was named. */
  readonly channels:
    | { readonly min: Float32Array; readonly max: Float32Array; readonly squares: Float32Array }
    | undefined;
}

/** The axis of the channels that a summary is to tell apart, which may count from the end; undefined for none. */
export type ChannelAxis = number | undefined;

/** Smaller values are sooner taken out of the runtime than told about. */
const MIN_ELEMENTS = 2 ** 16;
/** Elements in the sample of a very large value; of others it has fewer, because of the least distance. */
const SAMPLE = 2 ** 15;
/** Distances between elements of a sample share no small factor with the length of a row, or they would all be from a few columns. */
const LEAST_DISTANCE = 11;

/** Whether a value of these dims is worth a summary. */
export function isLarge(dims: readonly number[]): boolean {
  return elementCount(dims) > MIN_ELEMENTS;
}

/** Outputs that tell of a value. */
export interface SummaryOutputs {
  readonly names: readonly string[];
  /** Undefined where elements are not finite, or so large that their squares are not. */
  read(results: Readonly<Record<string, Tensor>>): Summary | undefined;
}

/** Adds outputs that tell of a float32 value of the main graph, which has about these dims. */
export function summarize(g: GraphBuilder, value: Value, dims: readonly number[], axis: ChannelAxis): SummaryOutputs {
  const { graph } = g;
  const channelAxis = axis !== undefined && axis < 0 ? axis + dims.length : axis;
  const axes = [...dims.keys()].filter((i) => i !== channelAxis);
  const byChannel = axes.length < dims.length;
  const reduced = (opType: string) =>
    graph.model.opset < AXES_AS_INPUT
      ? g.op(opType, [value], { axes: ints(axes), keepdims: int(0) })
      : g.op(opType, [value, g.shape(axes)], { keepdims: int(0) });
  const outputs = {
    elements: g.op("Size", [value]),
    min: reduced("ReduceMin"),
    max: reduced("ReduceMax"),
    squares: reduced("ReduceSumSquare"),
    sample: g.slice(g.reshape(value, [-1]), [0], [0], [LAST], [distanceIn(elementCount(dims))]),
  };
  for (const output of Object.values(outputs)) graph.addOutput(output);
  return {
    names: Object.values(outputs).map(({ name }) => name),
    read(results) {
      const floats = (output: Value) => floatsOf(results[output.name]!);
      const [min, max, squares] = [floats(outputs.min), floats(outputs.max), floats(outputs.squares)];
      if (!squares.every(Number.isFinite)) return undefined;
      return {
        elements: integersOf(results[outputs.elements.name]!)[0]!,
        min: min.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY),
        max: max.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY),
        sample: floats(outputs.sample),
        channels: byChannel ? { min, max, squares } : undefined,
      };
    },
  };
}

/** As an end: behind all elements. */
const LAST = 2 ** 31 - 1;
/** The version of ai.onnx since which all reductions take axes as an input. */
const AXES_AS_INPUT = 18;

/** A prime number: every how many-th element is in the sample. */
function distanceIn(elements: number): number {
  const isPrime = (n: number) => {
    for (let factor = 2; factor * factor <= n; factor++) if (n % factor === 0) return false;
    return true;
  };
  let distance = Math.max(LEAST_DISTANCE, Math.floor(elements / SAMPLE));
  while (!isPrime(distance)) distance++;
  return distance;
}
