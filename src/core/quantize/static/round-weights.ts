/** Which weights of a statically quantized model are rounded by data. */
import type { Model, Node } from "../../onnx/ir.ts";
import type { Note } from "../../passes/pass.ts";
import { WeightViews } from "../../passes/weight-views.ts";
import type { Feeds } from "../calibration/calibrate.ts";
import {
  MAX_DEPTH,
  notRounded,
  type RoundingLayer,
  type RoundingRuntime,
  roundLayers,
  weightsOf,
} from "../rounding/round-layers.ts";
import type { Rounding } from "../rounding/rounding.ts";
import { storedLayers } from "../weights/round-weights.ts";
import type { Calibration } from "./calibration.ts";
import { kernelScheme, weightRows } from "./channel-weights.ts";
import type { EmittedWeight } from "./emission.ts";
import { placeStatic, type StaticOptions, type StaticRounded } from "./quantize-static.ts";

/**
 * Rounds the weights of layers without groups that one node reads: of those that kernels read, at the scales that they have when they are rounded to
 * nearest, and of those that are stored in 4 or 2 bits, in their blocks. Undefined when rounding to nearest is all that is asked for.
 */
export async function roundWeights(
  float: Model,
  calibration: Calibration,
  options: StaticOptions,
  rounding: Rounding | undefined,
  batches: () => AsyncIterable<Feeds>,
  runtime: RoundingRuntime,
): Promise<{ readonly rounded: StaticRounded; readonly notes: readonly Note[] } | undefined> {
  if (!rounding || rounding.sees === "weights") return undefined;
  // Run in parts, weights that are unpacked in the first would be inputs of the others: onnxruntime 1.30 crashed on a convolution network so run.
  const unpacked = { ...options, unpacked: true };
  const { model, weights: emitted, storage, finish } = placeStatic(float, calibration, unpacked, unpacked);
  const views = new WeightViews();
  // In 8 bits, nearest is near enough for what is computed in float.
  const inFewBits = storage(views).filter(({ weights }) => weights.some(({ form }) => form.scheme.bits < 8));
  const nodes = new Map([...float.nodes()].map((node, index) => [node.name, { node, index }]));
  const left: Note[] = [];
  const leave = (node: Node) => left.push(notRounded(node, rounding));
  const inMain = new Map(model.graph.nodes.map((node) => [node.name, node]));
  const siteOf = (name: string) => {
    const found = nodes.get(name)!;
    return { ...found, twin: found.node.graph === float.graph ? inMain.get(name) : undefined };
  };
  const ofKernels = emitted.flatMap((weight): RoundingLayer[] => {
    const [reader, other] = weight.readers;
    const site = siteOf(reader!);
    const layer = other === undefined ? layerOf(weight, site, options) : [];
    if (layer.length === 0) leave(site.node);
    return layer;
  });
  const stored = storedLayers(inFewBits, views, ({ name }) => siteOf(name), leave);
  finish(model);
  const layers = [...ofKernels, ...stored].toSorted((a, b) => a.index - b.index);
  const results = await roundLayers(float, layers, rounding, batches, runtime, model);
  const notes = [...results.values()].map(({ note }) => note);
  const rounded = { kernels: weightsOf(ofKernels, results), stored: weightsOf(stored, results) };
  return { rounded, notes: [...notes, ...left] };
}

function layerOf(
  { name, weight, context, input }: EmittedWeight,
  { node, index, twin }: { readonly node: Node; readonly index: number; readonly twin: Node | undefined },
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
