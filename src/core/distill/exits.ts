/**
 * Early exits: small classifiers on what a network has computed part of the way (be your own teacher, Zhang et al. 2019). An exit may stand
 * where a single learned value is alive, so that what comes before it can run without the rest. Among such places those are taken that end
 * a stage, where the next layers work on another resolution or number of channels; in networks without stages (transformers), places that
 * share the multiply-accumulates out evenly.
 *
 * A head is: separable convolutions (3x3 for each channel, then 1x1, BatchNormalization and Relu) that go down to about the size and the
 * channels of the deepest features, or a linear map with Relu; and a linear map from there to the classes, of all positions where inputs
 * have one size, else of their mean.
 */
import { CoreError } from "../errors.ts";
import { GraphBuilder, int, ints } from "../onnx/graph-builder.ts";
import type { Model, Node, Value } from "../onnx/ir.ts";
import { elementCount, type Tensor, tensorOf } from "../onnx/tensor.ts";
import { macsOf, operatorOf } from "../operators/operators.ts";
import { removeDeadCode } from "../passes/dead-code.ts";
import { Random } from "../random.ts";
import type { OpenSession } from "../runtime/session.ts";
import { findParameters } from "../train/parameters.ts";
import { runAllValues } from "../train/statics.ts";
import { findSegments } from "./drop-layers.ts";

export interface Exit {
  /** Of its output: `exit_1`, from the input on. */
  readonly name: string;
  /** What it reads. */
  readonly value: string;
  /** The vector of each sample, [N, F], that its last linear map reads. */
  readonly features: string;
  /** Multiply-accumulates up to its answer, over those of the whole network. */
  readonly macsShare: number;
}

export interface ModelWithExits {
  /** The network with the exits as further outputs. */
  readonly model: Model;
  readonly exits: readonly Exit[];
  /** What the network's own classifier reads, and its shape; the features that the exits' are to become like. */
  readonly deepest: { readonly value: string; readonly dims: readonly number[]; readonly channelAxis: number };
}

export interface ExitOptions {
  /** How many at the most, or the values that they are to read. */
  readonly exits: number | readonly string[];
  /** Of a few samples: shapes are seen by them. */
  readonly feeds: Readonly<Record<string, Tensor>>;
  /** Of the new weights. */
  readonly seed: number;
  readonly openSession: OpenSession;
}

/** A place for an exit. */
interface Place {
  readonly value: Value;
  readonly dims: readonly number[];
  /** Multiply-accumulates of one run up to here. */
  readonly macs: number;
}

/**
 * A copy of `model` with exits. Throws `unsupported` where there is no place for one or the network does not answer with one row of class scores
 * for each sample, `invalid_params` for a value that cannot be read by an exit.
 */
export async function addExits(source: Model, options: ExitOptions): Promise<ModelWithExits> {
  const model = source.clone();
  const { graph } = model;
  const values = { ...options.feeds, ...(await runAllValues(model, options.feeds, options.openSession)) };
  const output = graph.outputs[0];
  const scores = output && values[output.name]?.dims;
  if (scores?.length !== 2) {
    throw new CoreError(
      "unsupported",
      `Exits are for networks that answer with one row of class scores for each sample; "${output?.name}" is [${scores ?? ""}].`,
      output?.name,
    );
  }
  const { places, total } = findPlaces(model, values);
  const deepest = places.at(-1);
  if (!deepest) throw noPlace();
  const chosen =
    typeof options.exits === "number"
      ? choosePlaces(places, options.exits, total)
      : options.exits.map((name, i) => namedPlace(places, model, name, i));
  if (chosen.length === 0) throw noPlace();
  const { value, dims } = deepest;
  const features = { value: value.name, dims, channelAxis: channelAxis(value, dims) };
  const exits = chosen.map((place, i) =>
    addExit(model, place, { index: i + 1, classes: scores[1]!, total, seed: options.seed, deepest: features }),
  );
  return { model, exits, deepest: features };
}

/** The model without exits, or with the exit of this name for its only output. */
export function keepOutput(model: Model, names: readonly string[]): Model {
  const copy = model.clone();
  for (const value of [...copy.graph.outputs]) if (!names.includes(value.name)) copy.graph.removeOutput(value);
  removeDeadCode.run(copy, () => {});
  return copy;
}

function noPlace(): CoreError {
  return new CoreError(
    "unsupported",
    "The network has no place for an exit: no value between two layers is alive alone.",
  );
}

/** Cuts in order, one for each amount of work that is done; the last is what the final layer reads. */
function findPlaces(
  model: Model,
  values: Readonly<Record<string, Tensor>>,
): { readonly places: readonly Place[]; readonly total: number } {
  const { nodes } = model.graph;
  const cuts = new Set(findSegments(model).flatMap(({ from, to }) => [from, to]));
  const parameters = new Set(findParameters(model).map(({ value }) => value));
  const places: Place[] = [];
  let macs = 0;
  let weighted = 0;
  for (const node of nodes) {
    const own = weightedMacs(node, values, parameters);
    macs += own;
    if (own > 0) weighted = macs;
    for (const value of node.outputs) {
      const dims = values[value.name]?.dims;
      if (!dims || dims.length < 2 || dims.length > 5 || !cuts.has(value)) continue;
      const last = places.at(-1);
      // Behind one layer the last value of the layer's own size: after its activation, before pooling.
      if (last?.macs === macs) {
        if (`${last.dims}` === `${dims}`) places[places.length - 1] = { value, dims, macs };
      } else if (macs > 0) places.push({ value, dims, macs });
    }
  }
  // What the last layer makes is the answer itself.
  return { places: places.filter((place) => place.macs < weighted), total: macs };
}

/** Of one run; of layers that have weights, and products of two values. */
function weightedMacs(node: Node, values: Readonly<Record<string, Tensor>>, parameters: ReadonlySet<Value>): number {
  const out = values[node.outputs[0]?.name ?? ""]?.dims;
  const weight = node.inputs[1];
  if (!out || !weight || node.domain !== "") return 0;
  const dims = weight.constant?.dims ?? values[weight.name]?.dims;
  if (!dims || dims.length < 2) return 0;
  const isWeighted = parameters.has(weight) || weight.producer !== undefined;
  if (!isWeighted) return 0;
  return macsOf(node, (value) => value.constant?.dims ?? values[value.name]?.dims) ?? 0;
}

function choosePlaces(places: readonly Place[], count: number, total: number): readonly Place[] {
  const before = places.slice(0, -1);
  const stages = before.filter(({ dims }, i) => `${places[i + 1]!.dims.slice(1)}` !== `${dims.slice(1)}`);
  const candidates = stages.length > 0 ? stages : before;
  if (candidates.length <= count) return candidates;
  const chosen = new Set<Place>();
  for (let i = 1; i <= count; i++) {
    const target = (i * total) / (count + 1);
    const free = candidates.filter((place) => !chosen.has(place));
    chosen.add(free.reduce((a, b) => (Math.abs(b.macs - target) < Math.abs(a.macs - target) ? b : a)));
  }
  return candidates.filter((place) => chosen.has(place));
}

function namedPlace(places: readonly Place[], model: Model, name: string, index: number): Place {
  const place = places.find(({ value }) => value.name === name);
  if (place) return place;
  const known = model.graph.nodes.some(({ outputs }) => outputs.some((value) => value.name === name));
  const message = known
    ? `No exit can read "${name}": other values that the rest of the network reads are alive beside it, or it does not depend on weights. Possible are ${places
        .slice(0, 12)
        .map(({ value }) => `"${value.name}"`)
        .join(", ")}.`
    : `The network has no value "${name}".`;
  throw new CoreError("invalid_params", message, name, { path: ["exits", index] });
}

/** Whether channels are the second axis, as behind a convolution, or the last one. */
function channelAxis(value: Value, dims: readonly number[]): number {
  if (dims.length !== 3) return 1;
  for (let node = value.producer; node; node = node.inputs[0]?.producer) {
    const { weights = [], channels } = operatorOf(node) ?? {};
    const axis = weights.find(({ activationAxis }) => activationAxis !== undefined)?.activationAxis;
    if (axis === 1 || channels === "channel normalization") return 1;
    if (axis === -1 || channels === "last axis normalization") return 2;
  }
  return 1;
}

function addExit(
  model: Model,
  { value, dims, macs }: Place,
  options: {
    readonly index: number;
    readonly classes: number;
    readonly total: number;
    readonly seed: number;
    readonly deepest: ModelWithExits["deepest"];
  },
): Exit {
  const { index, classes, total, seed, deepest } = options;
  const { graph } = model;
  const g = new GraphBuilder(graph);
  const axis = channelAxis(value, dims);
  const channels = dims[axis]!;
  const width = Math.min(Math.max(channels, deepest.dims[deepest.channelAxis]!), MAX_WIDENING * channels);
  const base = `exit_${index}`;
  const weight = (name: string, shape: readonly number[], fanIn: number): Value => {
    const data = new Float32Array(elementCount(shape));
    const full = model.freshName(`${base}.${name}`);
    if (fanIn > 0) {
      new Random(seed, `initial ${full}`).fillNormal(data);
      for (let i = 0; i < data.length; i++) data[i]! *= Math.sqrt(2 / fanIn);
    }
    const added = graph.addInitializer(full, tensorOf("float32", shape, data));
    added.name = full;
    return added;
  };
  const vector = (name: string, start: number): Value => {
    const full = model.freshName(`${base}.${name}`);
    const added = graph.addInitializer(full, tensorOf("float32", [width], new Float32Array(width).fill(start)));
    added.name = full;
    return added;
  };
  const { features, own, length } = g.within(base, () => {
    if (dims.length > 3) {
      const depth = depthOf(dims, deepest.dims);
      const isFixedSize = graph.inputs.every(
        ({ constant, shape }) => constant || shape?.slice(1).every((dim) => typeof dim === "number"),
      );
      return convolutions(g, value, { dims, width, depth, weight, vector, isFixedSize });
    }
    const pooled =
      dims.length === 2
        ? value
        : g.op("Flatten", [g.op("GlobalAveragePool", [axis === 1 ? value : g.transpose(value, [0, 2, 1])])], {
            axis: int(1),
          });
    const map = [pooled, weight("fc.weight", [width, channels], channels), weight("fc.bias", [width], 0)];
    return {
      features: g.op("Relu", [g.op("Gemm", map, { transB: int(1) })]),
      own: dims[0]! * channels * width,
      length: width,
    };
  });
  const head = [features, weight("classes.weight", [classes, length], length), weight("classes.bias", [classes], 0)];
  const answer = g.within(base, () => g.op("Gemm", head, { transB: int(1) }));
  const name = model.freshName(base);
  answer.name = name;
  answer.retype("float32", [graph.outputs[0]!.shape?.[0] ?? null, classes]);
  graph.addOutput(answer);
  features.retype("float32", undefined);
  const work = macs + own + dims[0]! * length * classes;
  return { name, value: value.name, features: features.name, macsShare: work / total };
}

/** How many times the channels of what it reads a head may have. */
const MAX_WIDENING = 4;

const MAX_DEPTH = 3;

/** How many convolutions a head has: one for each halving down to the size of the deepest features. */
function depthOf(dims: readonly number[], deepest: readonly number[]): number {
  const halvings = Math.round(Math.log2(dims[2]! / (deepest[2] ?? 1)));
  return Math.min(MAX_DEPTH, Math.max(1, halvings));
}

/** Separable convolutions, of stride 2 while there is something to halve, and their values or the means of these, [N, length]. */
function convolutions(
  g: GraphBuilder,
  value: Value,
  options: {
    readonly dims: readonly number[];
    readonly width: number;
    readonly depth: number;
    readonly weight: (name: string, shape: readonly number[], fanIn: number) => Value;
    readonly vector: (name: string, value: number) => Value;
    readonly isFixedSize: boolean;
  },
): { readonly features: Value; readonly own: number; readonly length: number } {
  const { width, depth, weight, vector } = options;
  let x = value;
  let own = 0;
  let { dims } = options;
  for (let i = 1; i <= depth; i++) {
    const channels = dims[1]!;
    const kernel = dims.slice(2).map(() => 3);
    const strides = dims.slice(2).map((size) => (size >= 4 ? 2 : 1));
    const size = elementCount(kernel);
    const each = g.op("Conv", [x, weight(`depthwise${i}.weight`, [channels, 1, ...kernel], size)], {
      kernel_shape: ints(kernel),
      pads: ints([...kernel, ...kernel].map(() => 1)),
      strides: ints(strides),
      group: int(channels),
    });
    const mixed = g.op(
      "Conv",
      [each, weight(`pointwise${i}.weight`, [width, channels, ...kernel.map(() => 1)], channels)],
      {
        kernel_shape: ints(kernel.map(() => 1)),
      },
    );
    const statistics = [["scale", 1] as const, ["bias", 0] as const, ["mean", 0] as const, ["variance", 1] as const];
    const normal = g.op("BatchNormalization", [
      mixed,
      ...statistics.map(([name, start]) => vector(`norm${i}.${name}`, start)),
    ]);
    x = g.op("Relu", [normal]);
    const positions = dims[0]! * elementCount(dims.slice(2).map((length, axis) => Math.ceil(length / strides[axis]!)));
    dims = [dims[0]!, width, ...dims.slice(2).map((length, axis) => Math.ceil(length / strides[axis]!))];
    own += positions * channels * (size + width);
  }
  const last = options.isFixedSize ? x : g.op("GlobalAveragePool", [x]);
  const length = options.isFixedSize ? elementCount(dims.slice(1)) : width;
  return { features: g.op("Flatten", [last], { axis: int(1) }), own, length };
}
