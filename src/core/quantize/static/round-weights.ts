/** Which weights of a statically quantized model are rounded by data. */
import type { Model, Node } from "../../onnx/ir.ts";
import type { Note } from "../../passes/pass.ts";
import type { Feeds } from "../calibration/calibrate.ts";
import {
  MAX_DEPTH,
  notRounded,
  type RoundedWeights,
  type RoundingLayer,
  type RoundingRuntime,
  roundLayers,
} from "../rounding/round-layers.ts";
import type { Rounding } from "../rounding/rounding.ts";
import type { Calibration } from "./calibration.ts";
import { kernelScheme, weightRows } from "./channel-weights.ts";
import type { EmittedWeight } from "./emission.ts";
import { quantizeStatic, type StaticOptions } from "./quantize-static.ts";

/**
 * Rounds the weights of layers without groups that one node reads, at the scales that they have when they are rounded to nearest. Undefined when
 * rounding to nearest is all that is asked for.
 */
export async function roundWeights(
  float: Model,
  calibration: Calibration,
  options: StaticOptions,
  rounding: Rounding | undefined,
  batches: () => AsyncIterable<Feeds>,
  runtime: RoundingRuntime,
): Promise<{ readonly weights: RoundedWeights; readonly notes: readonly Note[] } | undefined> {
  if (!rounding || rounding.sees === "weights") return undefined;
  // Run in parts, weights that are unpacked in the first would be inputs of the others: onnxruntime 1.30 crashed on a convolution network so run.
  const quantized = quantizeStatic(float, calibration, { ...options, unpacked: true });
  const nodes = new Map([...float.nodes()].map((node, index) => [node.name, { node, index }]));
  const twins = new Map(quantized.model.graph.nodes.map((node) => [node.name, node]));
  const left: Note[] = [];
  const layers = quantized.weights.flatMap((emitted): RoundingLayer[] => {
    const [reader, other] = emitted.readers;
    const found = nodes.get(reader!)!;
    const twin = found.node.graph === float.graph ? twins.get(reader!) : undefined;
    const layer = other === undefined ? layerOf(emitted, found, twin, options) : [];
    if (layer.length === 0) left.push(notRounded(found.node, rounding));
    return layer;
  });
  const { weights, notes } = await roundLayers(float, layers, rounding, batches, runtime, quantized.model);
  return { weights, notes: [...notes, ...left] };
}

function layerOf(
  { name, weight, context, input }: EmittedWeight,
  { node, index }: { readonly node: Node; readonly index: number },
  twin: Node | undefined,
  options: StaticOptions,
): RoundingLayer[] {
  const { axis, groups } = context.layout;
  const depth = weight.dims.reduce((product, dim) => product * dim, 1) / weight.dims[axis]!;
  if (groups !== 1 || depth > MAX_DEPTH) return [];
  const layout = axis === 0 ? "row-major" : "column-major";
  return [
    {
      node,
      index,
      depth,
      filters: node.opType === "Conv" ? weight.dims : undefined,
      name,
      scheme: { ...kernelScheme(options), reduceRange: false, granularity: "channel" },
      weight: () => weightRows(weight, context, options, name),
      twin: twin && { node: twin, input, layout, dims: weight.dims },
    },
  ];
}
