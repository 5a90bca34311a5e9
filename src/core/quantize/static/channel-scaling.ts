/**
 * Where the channels of a tensor can be scaled against each other without changing what the model computes.
 *
 * A layer's output x_c = (W₁ z + b)_c, divided by s_c, and the weights that meet channel c multiplied by it:
 *
 *     W₂ · f(W₁ z + b) = (W₂ diag(s)) · f(diag(1/s) (W₁ z + b))        for s > 0 and f(a·x) = a·f(x)
 *
 * f may be any sequence of operators that treat channels alike and are positively homogeneous: Relu, pooling, a product with a gate that comes
 * from elsewhere. All readers must be layers with weights of their own. A normalization with gain and shift is as good a producer as a layer.
 *
 * Where a normalization is read by layers and by something else (the residual sum of a transformer that normalizes sums, as BERT does), its
 * gain cannot be scaled. There a product with 1/s may be inserted, which the layers read and the others do not.
 *
 * Clip(0, m), the Relu6 of mobile networks, is not homogeneous: channel c would have to be clipped at m / s_c. One limit does for all channels
 * when each is scaled by the largest value it takes: a channel that reaches m is then clipped where it was, and one that stays below m at
 * the largest value that was ever seen of it.
 */
import type { Model, Node, Use, Value } from "../../onnx/ir.ts";
import { arrayOf, elementCount, lazyTensor, tensorOf } from "../../onnx/tensor.ts";
import { type OpType, operatorOf } from "../../operators/operators.ts";
import { addBehind, isBiasFor } from "../bias-add.ts";
import type { ChannelFactors } from "../calibration/summaries.ts";
import { clipBounds, isFloatConstant, ruleFor, type WeightOperand } from "./operators.ts";

/** A layer that reads the channels. */
export interface ChannelConsumer {
  readonly node: Node;
  readonly operand: WeightOperand;
  /** What it reads. */
  readonly input: Value;
}

export interface ScalingSite {
  /** The node whose channels are scaled: a layer, or the gain of a normalization. */
  readonly producer: Node;
  /** The producer's weight; undefined for a normalization. */
  readonly producerOperand: WeightOperand | undefined;
  readonly channels: number;
  readonly consumers: readonly ChannelConsumer[];
  /** Everything whose channels are divided by the scales, from the producer's output to what the consumers read; that output alone, if it inserts. */
  readonly values: readonly ChannelValue[];
  /** A product is inserted in front of the consumers: it takes time in every run. */
  readonly inserts: boolean;
  /** There is a Clip(0, m) on the way: the scales must be the largest value of each channel, or more. */
  readonly isClipped: boolean;
  /** Divides the channels by `scales` and multiplies the weights that meet them. Answers the values that are others than before. */
  apply(scales: ArrayLike<number>): ReadonlyMap<string, ScaledValue>;
}

/** A value that has the channels along `axis`. */
export interface ChannelValue {
  readonly value: Value;
  readonly axis: number;
  /** It is behind a Clip. */
  readonly isClipped: boolean;
}

/** What a value of a scaled model is, by a value of the model before: that one with its channels multiplied, or as it was, under another name. */
export interface ScaledValue {
  readonly base: string;
  readonly by: ChannelFactors | undefined;
}

/** A parameter of a node whose elements belong to channels: those along `axis`, or, for the weight of a grouped layer, the input channels it meets. */
interface ChannelParameter {
  readonly node: Node;
  readonly input: number;
  readonly axis: number | WeightOperand;
}

interface Producer {
  readonly node: Node;
  readonly output: Value;
  readonly channels: number;
  /** 1, or -1 for the last. */
  readonly channelAxis: number;
  readonly operand: WeightOperand | undefined;
  readonly parameters: readonly ChannelParameter[];
}

/**
 * All sites of the model, in the order of their producers; with `inserting` also those that need a product of their own. Applying one leaves
 * the others valid.
 */
export function scalingSites(model: Model, { inserting = false } = {}): ScalingSite[] {
  return [...model.nodes()].flatMap((node) => {
    const producer = node.domain === "" ? PRODUCERS[node.opType]?.(node) : undefined;
    const site = producer && (siteOf(producer) ?? (inserting ? insertingSite(producer) : undefined));
    return site ? [site] : [];
  });
}

/** The layers that read a normalization beside others. */
function insertingSite({ node, output, channels, channelAxis, operand }: Producer): ScalingSite | undefined {
  if (operand) return undefined;
  const consumers = output.uses.flatMap((use): ChannelConsumer[] => {
    const layer = layerReading(use, channelAxis, channels);
    return layer && use.node.graph === output.graph ? [{ ...layer, input: output }] : [];
  });
  const layers = new Set(consumers.map((consumer) => consumer.node));
  if (layers.size === 0 || layers.size !== consumers.length) return undefined;
  const values = [{ value: output, axis: channelAxis, isClipped: false }];
  return {
    ...{ producer: node, producerOperand: undefined, channels, consumers, values, isClipped: false, inserts: true },
    apply(scales) {
      const base = output.name;
      const product = insertProduct(output, layers, scales);
      for (const consumer of consumers) scaleConsumer(consumer, scales);
      const by = { factors: inverseOf(scales), limit: Number.POSITIVE_INFINITY };
      const renamed: [string, ScaledValue][] = output.name === base ? [] : [[output.name, { base, by: undefined }]];
      return new Map([[product.name, { base, by }], ...renamed]);
    },
  };
}

function inverseOf(scales: ArrayLike<number>): Float64Array {
  return Float64Array.from(scales, (scale) => 1 / scale);
}

/** Lets the layers read `value` divided by the scales. That has the name of the value from then on, unless the model gives it out. */
function insertProduct(value: Value, layers: ReadonlySet<Node>, scales: ArrayLike<number>): Value {
  const { graph, name, producer } = value;
  const { model } = graph;
  const behind = graph.nodes[graph.nodes.indexOf(producer!) + 1]!;
  const inverse = tensorOf(
    "float32",
    [scales.length],
    Float32Array.from(scales, (scale) => 1 / scale),
  );
  const product = graph.insertBefore(behind, {
    opType: "Mul",
    name: model.freshName(`${producer!.name}_balance`),
    standsFor: producer!,
    inputs: [value, graph.addInitializer(`${name}_balance`, inverse)],
    outputs: [`${name}_balanced`],
  }).outputs[0]!;
  product.retype(value.dtype, value.shape);
  for (const layer of layers) layer.setInput(0, product);
  if (value.isGraphOutput) return product;
  value.name = model.freshName(`${name}_unbalanced`);
  product.name = name;
  return product;
}

function siteOf(producer: Producer): ScalingSite | undefined {
  const readers = readersOf(producer);
  if (!readers || !producer.parameters.every(({ node, input }) => isOwn(node.inputs[input]))) return undefined;
  const { consumers, clips, values } = readers;
  // A layer may read the channels along two paths, but its weights can be scaled once only.
  const layers = new Set(consumers.map(({ node }) => node));
  if (layers.size !== consumers.length || producer.parameters.some(({ node }) => layers.has(node))) return undefined;
  const { node, channels, channelAxis, operand: producerOperand, parameters } = producer;
  // Before the bias.
  const product = { value: node.outputs[0]!, axis: channelAxis, isClipped: false };
  const all = [...(node.outputs[0] === producer.output ? [] : [product]), ...values];
  return {
    producer: node,
    producerOperand,
    channels,
    consumers,
    values: all,
    isClipped: clips.length > 0,
    inserts: false,
    apply(scales) {
      const inverse = inverseOf(scales);
      for (const parameter of parameters) scaleParameter(parameter, inverse);
      for (const consumer of consumers) scaleConsumer(consumer, scales);
      for (const clip of clips) {
        clip.setInput(2, clip.graph.addInitializer(`${clip.label}_limit`, tensorOf("float32", [], [CLIPPED_LIMIT])));
      }
      return new Map(
        all.map(({ value: { name }, isClipped }) => {
          const limit = isClipped ? CLIPPED_LIMIT : Number.POSITIVE_INFINITY;
          return [name, { base: name, by: { factors: inverse, limit } }];
        }),
      );
    },
  };
}

/** Of channels that were divided by the largest value they take. */
const CLIPPED_LIMIT = 1;

// ---- producers -----------------------------------------------------------------------------------------------------

function layer(node: Node): Producer | undefined {
  const operand = ruleFor(node)?.weight?.(node);
  const weight = operand && node.inputs[operand.input]?.constant;
  if (!operand || !weight || ruleFor(node)!.refuse?.(node)) return undefined;
  const parameters: ChannelParameter[] = [{ node, input: operand.input, axis: operand.axis }];
  let output = node.outputs[0]!;
  const channels = weight.dims[operand.axis]!;
  if (node.inputs[2]?.constant) parameters.push({ node, input: 2, axis: -1 });
  const add = node.opType === "MatMul" ? biasBehind(output, channels) : undefined;
  if (add) {
    parameters.push(add);
    output = add.node.outputs[0]!;
  }
  return { node, output, channels, channelAxis: operand.activationAxis, operand, parameters };
}

/** What is added behind a product or a gain: a constant with one number for each of several channels along the last axis. */
function biasBehind(output: Value, channels: number): ChannelParameter | undefined {
  const add = addBehind(output);
  const bias = add?.node.inputs[add.index];
  const isBias = channels > 1 && isFloatConstant(bias) && isBiasFor(channels, bias!.constant!.dims);
  return isBias ? { node: add!.node, input: add!.index, axis: -1 } : undefined;
}

const PRODUCERS: Readonly<Record<string, (node: Node) => Producer | undefined>> = {
  Conv: layer,
  Gemm: layer,
  MatMul: layer,
  LayerNormalization(node) {
    const [, gain, shift] = node.inputs;
    const axis = node.int("axis", -1);
    if (!isFloatConstant(gain) || (shift && !isFloatConstant(shift)) || gain!.constant!.dims.length !== 1)
      return undefined;
    if (axis !== -1 && axis !== (node.inputs[0]?.shape?.length ?? 0) - 1) return undefined;
    if (node.outputs.slice(1).some((value) => value.uses.length > 0)) return undefined;
    return {
      node,
      output: node.outputs[0]!,
      channels: gain!.constant!.dims[0]!,
      channelAxis: -1,
      operand: undefined,
      parameters: [1, 2].flatMap((input) => (node.inputs[input] ? [{ node, input, axis: -1 }] : [])),
    };
  },
  /** The gain of a normalization that is written out, with its shift behind it. */
  Mul(node) {
    const input = node.inputs[0]?.constant ? 0 : 1;
    const gain = isFloatConstant(node.inputs[input]) ? node.inputs[input]!.constant! : undefined;
    const channels = gain ? elementCount(gain.dims) : 0;
    if (channels <= 1 || !isBiasFor(channels, gain!.dims)) return undefined;
    let output = node.outputs[0]!;
    const shift = biasBehind(output, channels);
    if (shift) output = shift.node.outputs[0]!;
    const parameters = [{ node, input, axis: -1 }, ...(shift ? [shift] : [])];
    return { node, output, channels, channelAxis: -1, operand: undefined, parameters };
  },
} satisfies Partial<Record<OpType, (node: Node) => Producer | undefined>>;

// ---- consumers -----------------------------------------------------------------------------------------------------

/** The layers that read the producer's channels, the limits and the values on the way; undefined when something else reads them. */
function readersOf({
  output,
  channels,
  channelAxis,
}: Producer): { consumers: ChannelConsumer[]; clips: Node[]; values: readonly ChannelValue[] } | undefined {
  const reached = new Map<Value, Omit<ChannelValue, "value">>([[output, { axis: channelAxis, isClipped: false }]]);
  const gated: Node[] = [];
  const consumers: ChannelConsumer[] = [];
  const clips: Node[] = [];
  for (const [value, { axis, isClipped }] of reached) {
    if (value.isGraphOutput || value.uses.length === 0) return undefined;
    for (const { node, index } of value.uses) {
      if (node.graph !== output.graph || node.domain !== "") return undefined;
      if (ruleFor(node)?.weight?.(node)) {
        const layer = layerReading({ node, index }, axis, channels);
        if (!layer) return undefined;
        consumers.push({ ...layer, input: value });
      } else if (operatorOf(node)?.homogeneous && index === 0 && node.outputs.length === 1) {
        reached.set(node.outputs[0]!, { axis, isClipped });
      } else if (node.opType === "Flatten" && value.producer?.opType === "GlobalAveragePool") {
        reached.set(node.outputs[0]!, { axis: -1, isClipped });
      } else if (node.opType === "Mul" && node.inputs.every((input) => input && !input.constant)) {
        gated.push(node);
        reached.set(node.outputs[0]!, { axis, isClipped: false });
      } else if (index === 0 && clipBounds(node)?.min === 0) {
        clips.push(node);
        reached.set(node.outputs[0]!, { axis, isClipped: true });
      } else return undefined;
    }
  }
  // A product of two scaled tensors would be scaled twice.
  const isGate = ({ inputs }: Node) => inputs.filter((input) => reached.has(input!)).length === 1;
  if (!gated.every(isGate)) return undefined;
  return { consumers, clips, values: [...reached].map(([value, of]) => ({ value, ...of })) };
}

/** The layer that reads channels along `axis`, if it is one whose weight can be scaled. */
function layerReading(
  { node, index }: Use,
  axis: number,
  channels: number,
): Omit<ChannelConsumer, "input"> | undefined {
  const operand = node.domain === "" ? ruleFor(node)?.weight?.(node) : undefined;
  if (!operand || index !== 0 || operand.activationAxis !== axis || !isOwn(node.inputs[operand.input]))
    return undefined;
  return inputCount(node, operand) === channels ? { node, operand } : undefined;
}

function inputCount(node: Node, operand: WeightOperand): number {
  return (node.inputs[operand.input]?.constant?.dims[operand.inputAxis] ?? 0) * operand.groups;
}

/**
 * Calls `visit` with every pair of an output channel and an input channel (over all groups) that a layer's weight of `dims` joins: the weights
 * of the pair, one for each position of the window, lie from `start` on.
 */
export function visitPairs(
  dims: readonly number[],
  { axis, inputAxis, groups }: WeightOperand,
  visit: (output: number, input: number, start: number, window: number) => void,
): void {
  const outputs = dims[axis]!;
  const inputs = dims[inputAxis]!;
  const window = elementCount(dims) / outputs / inputs;
  const perGroup = outputs / groups;
  const [outer, inner] = axis < inputAxis ? [outputs, inputs] : [inputs, outputs];
  for (let i = 0, start = 0; i < outer; i++) {
    for (let j = 0; j < inner; j++, start += window) {
      const output = axis < inputAxis ? i : j;
      const input = axis < inputAxis ? j : i;
      visit(output, groups === 1 ? input : Math.floor(output / perGroup) * inputs + input, start, window);
    }
  }
}

// ---- parameters ----------------------------------------------------------------------------------------------------

/** A float32 constant that nothing else reads. */
function isOwn(value: Value | undefined): boolean {
  return isFloatConstant(value) && value!.uses.length === 1 && !value!.isGraphOutput;
}

/** Multiplies the weights that meet the channels. */
function scaleConsumer({ node, operand }: ChannelConsumer, scales: ArrayLike<number>): void {
  const axis = operand.groups === 1 ? operand.inputAxis : operand;
  scaleParameter({ node, input: operand.input, axis }, scales);
}

/** Multiplies slices of `inner` elements by their factors, which come again and again. */
function scaleSlices(values: Float32Array, factors: ArrayLike<number>, inner: number): void {
  const count = factors.length;
  for (let i = 0; i < values.length; ) {
    for (let c = 0; c < count; c++) {
      const factor = factors[c]!;
      for (const end = i + inner; i < end; i++) values[i]! *= factor;
    }
  }
}

function scaleParameter({ node, input, axis }: ChannelParameter, factors: ArrayLike<number>): void {
  const value = node.inputs[input]!;
  const unscaled = value.constant!;
  const { dims } = unscaled;
  // Not computed before it is needed: a large model would be held twice.
  const scaled = lazyTensor("float32", dims, () => {
    const result = arrayOf(unscaled, "float32").slice();
    if (typeof axis === "object") {
      visitPairs(dims, axis, (_, channel, start, window) => {
        for (let i = start; i < start + window; i++) result[i]! *= factors[channel]!;
      });
    } else {
      const inner = elementCount(dims.slice(axis < 0 ? axis + dims.length + 1 : axis + 1));
      scaleSlices(result, factors, inner);
    }
    return new Uint8Array(result.buffer, result.byteOffset, result.byteLength);
  });
  const { name, graph } = value;
  const replacement = graph.addInitializer(`${name}_scaled`, scaled);
  node.setInput(input, replacement);
  if (value.producer) graph.remove(value.producer);
  else graph.removeInitializer(value);
  // Plans and reports speak of weights by their names.
  replacement.name = name;
}
