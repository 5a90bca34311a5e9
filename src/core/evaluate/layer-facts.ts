import type { LayerFacts } from "../facts.ts";
import type { DType } from "../onnx/dtype.ts";
import type { Model, Node, Value } from "../onnx/ir.ts";
import { elementCount, floatsOf, isFloat, type Tensor } from "../onnx/tensor.ts";
import type { WeightOperand } from "../operators/operator-record.ts";
import { operatorOf } from "../operators/operators.ts";
import { storedCodes, unpackedCount } from "./model-weights.ts";

/**
 * The layers of a model: nodes that multiply with a weight or look rows up in one. Biases, normalizations and lone scales are weights, but
 * nothing is decided layer by layer about them.
 */

/**
 * One row for each weight of each layer, in the order of the nodes, bodies included. A weight that two layers share has a row under each.
 * Ranges are of float weights; each weight is read once.
 */
export function listLayers(model: Model): LayerFacts[] {
  const ranges = new Map<Value, Map<number | undefined, Ranges>>();
  const layers: LayerFacts[] = [];
  for (const node of model.nodes()) {
    for (const operand of operatorOf(node)?.weights ?? []) {
      const weight = weightBehind(node, operand);
      if (weight && elementCount(weight.tensor.dims) > 1) layers.push(factsOf(node, weight, ranges));
    }
  }
  return layers;
}

/** The nodes that read each weight as a layer does, also where it is stored in another type or layout. */
export function layersByWeight(model: Model): Map<Value, Node[]> {
  const layers = new Map<Value, Node[]>();
  for (const node of model.nodes()) {
    for (const operand of operatorOf(node)?.weights ?? []) {
      const weight = weightBehind(node, operand)?.value;
      if (weight) layers.set(weight, [...(layers.get(weight) ?? []), node]);
    }
  }
  return layers;
}

/** Whether a node multiplies with a weight or looks rows up in one. */
export function isLayer(node: Node): boolean {
  return operatorOf(node)?.weights?.some((operand) => weightBehind(node, operand) !== undefined) ?? false;
}

/** The types that a layer's weights are stored in; none for what is no layer. */
export function weightDTypes(node: Node): DType[] {
  return (operatorOf(node)?.weights ?? []).flatMap((operand) => {
    const weight = weightBehind(node, operand);
    return weight && elementCount(weight.tensor.dims) > 1 ? [weight.tensor.dtype] : [];
  });
}

interface Found {
  readonly value: Value;
  readonly tensor: Tensor;
  /** Scales and zero points. */
  readonly parameters: readonly Value[];
  /** Weights that the tensor stands for. */
  readonly count: number;
  readonly axis: number | undefined;
}

/** The weight of a layer, also where it is stored in another type or layout and brought into shape by nodes. */
function weightBehind(node: Node, operand: WeightOperand): Found | undefined {
  let value = node.inputs[operand.input];
  const stored = value && storedCodes(value);
  if (stored) return { ...stored, value: stored.codes, tensor: stored.codes.constant!, axis: undefined };
  // The layer itself, or a DequantizeLinear in front of it.
  let reader = node;
  const perms: (readonly number[] | undefined)[] = [];
  while (value && !value.constant) {
    const { producer }: Value = value;
    if (producer?.domain !== "" || !["Cast", "DequantizeLinear", "Identity", "Transpose"].includes(producer.opType)) {
      return undefined;
    }
    if (producer.opType === "Transpose") perms.push(producer.ints("perm"));
    if (producer.opType === "DequantizeLinear") reader = producer;
    value = producer.inputs[0];
  }
  if (!value?.constant) return undefined;
  const tensor = value.constant;
  // Integers that a layer reads directly are indices or shapes, unless its operator takes codes.
  const quantized = operatorOf(reader)?.quantized;
  const isCode = quantized?.values.some((index) => reader.inputs[index] === value);
  if (!isFloat(tensor.dtype) && !isCode) return undefined;
  const axis = perms.reduce<number | undefined>(
    (current, perm) => (current === undefined ? undefined : (perm?.[current] ?? tensor.dims.length - 1 - current)),
    operand.channelAxis(node, tensor.dims),
  );
  const parameters = (quantized?.parameters ?? []).flatMap((index) => {
    const part = reader.inputs[index];
    return part?.constant ? [part] : [];
  });
  return { value, tensor, parameters, count: unpackedCount(tensor, reader), axis };
}

function factsOf(
  node: Node,
  { value, tensor, parameters, count, axis }: Found,
  ranges: Map<Value, Map<number | undefined, Ranges>>,
): LayerFacts {
  const bytes = [value, ...parameters].reduce((total, part) => total + (part.constant?.byteLength ?? 0), 0);
  const byAxis = ranges.get(value) ?? new Map<number | undefined, Ranges>();
  const range = byAxis.get(axis) ?? rangesOf(tensor, axis);
  ranges.set(value, byAxis.set(axis, range));
  return {
    name: node.label,
    op: node.opType,
    weight: value.name,
    shape: tensor.dims,
    parameters: count,
    bytes,
    dtype: tensor.dtype,
    ...range,
  };
}

type Ranges = Pick<LayerFacts, "weight_min" | "weight_max" | "channel_range_spread" | "dead_channels">;

const NO_RANGES: Ranges = { weight_min: null, weight_max: null, channel_range_spread: null, dead_channels: null };

/**
 * Of the layer's largest weight: smaller ones are below half a unit in the last place of a float32 sum with it. Training with weight decay leaves
 * channels of 1e-38 and less behind, which say nothing about how the others spread.
 */
const DEAD_BELOW = 2 ** -24;

/** Smallest and largest value, and how far the channels' largest magnitudes lie apart. Values that are not finite are left out. */
function rangesOf(tensor: Tensor, axis: number | undefined): Ranges {
  if (!isFloat(tensor.dtype)) return NO_RANGES;
  const values = floatsOf(tensor);
  const { dims } = tensor;
  const channels = axis === undefined ? 1 : (dims[axis] ?? 1);
  const inner = axis === undefined ? values.length : elementCount(dims.slice(axis + 1));
  // Of a channel without finite values it stays -1.
  const magnitudes = new Float64Array(channels).fill(-1);
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  for (let start = 0, channel = 0; start < values.length; start += inner, channel = (channel + 1) % channels) {
    let largest = magnitudes[channel]!;
    for (let i = start; i < start + inner; i++) {
      const value = values[i]!;
      if (!Number.isFinite(value)) continue;
      if (value < min) min = value;
      if (value > max) max = value;
      const magnitude = Math.abs(value);
      if (magnitude > largest) largest = magnitude;
    }
    magnitudes[channel] = largest;
  }
  if (min > max) return NO_RANGES;
  const range = { weight_min: min, weight_max: max };
  if (axis === undefined) return { ...range, channel_range_spread: null, dead_channels: null };
  const largest = magnitudes.reduce(larger);
  const finite = magnitudes.filter((magnitude) => magnitude >= 0);
  const alive = finite.filter((magnitude) => magnitude > DEAD_BELOW * largest);
  const spread = alive.length === 0 ? null : largest / alive.reduce(smaller);
  return { ...range, channel_range_spread: spread, dead_channels: finite.length - alive.length };
}

const larger = (a: number, b: number) => Math.max(a, b);
const smaller = (a: number, b: number) => Math.min(a, b);
