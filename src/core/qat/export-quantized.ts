/** What a quantization-aware training has made, in the form in which it is deployed. */
import { GraphBuilder } from "../onnx/graph-builder.ts";
import type { Model, Node, Value } from "../onnx/ir.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../onnx/tensor.ts";
import { type CodeRange, roundHalfEven } from "../quantize/params.ts";
import type { WeightStart } from "../quantize/static/channel-weights.ts";
import type { MarkedWeight } from "../quantize/static/emission.ts";
import { addStoredWeight, type WeightBits, weightRange } from "../quantize/static/stored-weights.ts";
import type { Floats } from "../train/parameter-kernels.ts";
import { exportTrained, type TrainableModel, type TrainedValues } from "../train/trainable.ts";
import { limitToFourBits } from "./activation-ranges.ts";
import { activationScales, markerNamed, replaceMarker, valueNamed } from "./markers.ts";

/** A scale that is learned: `initial` · exp(the parameter). */
export interface LearnedScale {
  readonly parameter: string;
  readonly initial: Floats;
}

/** The model with trained values: its weights rounded and stored in few bits, its activations with the scales that were learned. */
export function exportQuantized({
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
  readonly options: {
    readonly weightBits: WeightBits;
    readonly activationBits: 8 | 4;
    /** Weights that started at given values may be bounded by them. */
    readonly starts?: ReadonlyMap<string, WeightStart> | undefined;
  };
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
