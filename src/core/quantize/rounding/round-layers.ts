/** Rounds the weights of a model's layers by a rounding that looks at data, layer by layer, each only where it gains by it. */

import { CoreError, checkCancelled } from "../../errors.ts";
import type { NoteCode } from "../../note-codes.ts";
import type { Model, Node } from "../../onnx/ir.ts";
import { tensorOf } from "../../onnx/tensor.ts";
import { type Note, noteOn } from "../../passes/pass.ts";
import type { Choosing } from "../../rounding-notes.ts";
import type { CalibrateOptions, Feeds } from "../calibration/calibrate.ts";
import { StagedRun } from "../calibration/staged-run.ts";
import type { WeightScheme } from "../scheme.ts";
import type { Layout, RoundedWeight } from "./blocks.ts";
import { nearestRound } from "./nearest.ts";
import { dequantized, type LayerStatistics, OutputJudge, type Rounding, type RowMatrix } from "./rounding.ts";
import { driftStatistics, floatStatistics, type LayerSite } from "./statistics.ts";

/** A layer whose weight is rounded. */
export interface RoundingLayer extends LayerSite {
  readonly node: Node;
  /** What its weight is known by. */
  readonly name: string;
  readonly scheme: WeightScheme;
  /** Reads the weight. */
  readonly weight: () => RowMatrix;
  /** Its node in the quantized model, and where and how that holds the weight; undefined: it is taken to see what the float model shows it. */
  readonly twin?:
    | { readonly node: Node; readonly input: number; readonly layout: Layout; readonly dims: readonly number[] }
    | undefined;
}

export interface RoundingRuntime extends Omit<CalibrateOptions, "onBatch"> {
  /** Told the share of layers that are done, and what goes on. */
  readonly onProgress?: (fraction: number, message: string) => void;
}

/** Weights by name: [rows, depth] in row-major order, with parameters [rows, blocks]. */
export type RoundedWeights = ReadonlyMap<string, RoundedWeight>;

/** What became of each layer. */
export type LayerResults = ReadonlyMap<RoundingLayer, LayerResult>;

/** The weights of some layers that are not at their nearest values, by their names. */
export function weightsOf(layers: readonly RoundingLayer[], results: LayerResults): RoundedWeights {
  const weights = new Map<string, RoundedWeight>();
  for (const layer of layers) {
    const { chosen } = results.get(layer)!;
    if (chosen) weights.set(layer.name, chosen);
  }
  return weights;
}

/** Inputs of a layer; the sums over products of a larger one take gigabytes, and its rounding minutes. */
export const MAX_DEPTH = 4096;
/** Products that are summed at a time: more layers than fit take another pass over the samples. */
const MAX_GRAM_BYTES = 512 * 2 ** 20;
/** Rows of a weight by which two roundings of it are compared. */
const COMPARED_ROWS = 64;
/** Samples whose activations are kept, of both models, from one layer to the next. */
const MAX_SEQUENTIAL_RUNS = 32;

interface LayerResult {
  /** Undefined: its weight is rounded to nearest. */
  readonly chosen: RoundedWeight | undefined;
  readonly note: Note;
}

/**
 * Rounds each layer's weight. It keeps the result only if that is better than rounding to nearest on samples that were held out (with less than
 * four, on those it was fitted to). `batches` is asked for once or twice for each pass over the samples. `quantized` has the twins of layers; it is changed.
 * Answers what became of each layer, in the order given. Throws `non_finite` and `cancelled`.
 */
export async function roundLayers(
  model: Model,
  layers: readonly RoundingLayer[],
  rounding: Rounding,
  batches: () => AsyncIterable<Feeds>,
  runtime: RoundingRuntime,
  quantized?: Model,
): Promise<LayerResults> {
  const results = new Map<RoundingLayer, LayerResult>();
  const finish = async (layer: RoundingLayer, statistics: LayerStatistics | undefined) => {
    checkCancelled(runtime.signal);
    runtime.onProgress?.(results.size / layers.length, `${results.size} of ${layers.length} layers rounded`);
    results.set(layer, await roundLayer(layer, rounding, statistics));
  };
  const sequential = layers.filter(({ twin }) => twin && quantized && rounding.sees === "quantized");
  if (sequential.length > 0) await roundInSequence(model, quantized!, sequential, batches(), runtime, finish, results);
  for (const group of grouped(layers.filter((layer) => !results.has(layer)))) {
    let batch = 0;
    const onBatch = () =>
      runtime.onProgress?.(results.size / layers.length, `Statistics of ${group.length} layers: batch ${++batch}`);
    const statistics = await floatStatistics(model, group, batches, { ...runtime, onBatch });
    await using _ = rounding.ahead?.(group.flatMap((layer) => statistics.get(layer.index) ?? []));
    for (const layer of group) await finish(layer, statistics.get(layer.index));
  }
  return new Map(layers.map((layer) => [layer, results.get(layer)!]));
}

/** The name of a rounding that looks at samples. */
function choosing({ name }: Rounding): Choosing {
  if (name === "nearest") throw new CoreError("internal", "Rounding to nearest has nothing to choose.");
  return name;
}

/** What is said of a layer that no rounding but to nearest is for. */
export function notRounded(node: Node, rounding: Rounding): Note {
  const { title } = rounding;
  const message = `Its weights are rounded to nearest: ${title} takes products with a matrix, and convolutions without groups, whose weight nothing else reads and has at most ${MAX_DEPTH} inputs.`;
  return noteOn(node, "simplified", `${choosing(rounding)}_unsupported`, message);
}

/** Layer by layer in the order in which they run, each given what the layers before it make once they are rounded. */
async function roundInSequence(
  model: Model,
  quantized: Model,
  layers: readonly RoundingLayer[],
  batches: AsyncIterable<Feeds>,
  runtime: RoundingRuntime,
  finish: (layer: RoundingLayer, statistics: LayerStatistics) => Promise<void>,
  results: ReadonlyMap<RoundingLayer, LayerResult>,
): Promise<void> {
  const samples: Feeds[] = [];
  for await (const feeds of batches) {
    samples.push(feeds);
    if (samples.length === MAX_SEQUENTIAL_RUNS) break;
  }
  const [float, rounded] = [new StagedRun(model, samples, runtime), new StagedRun(quantized, samples, runtime)];
  for (const layer of layers) {
    const [x, given] = [await float.runBefore(layer.node), await rounded.runBefore(layer.twin!.node)];
    await finish(layer, await driftStatistics(layer.node, layer, x, given, runtime));
    const weight = layer.weight();
    putWeight(layer, weight, results.get(layer)!.chosen ?? nearestRound(weight, layer.scheme));
  }
}

/** Gives the layer's node in the quantized model the rounded weight, as floats. */
function putWeight({ twin, scheme, name }: RoundingLayer, weight: RowMatrix, rounded: RoundedWeight): void {
  const { node, input, layout, dims } = twin!;
  const { rows, depth } = weight;
  const restored = dequantized(weight, rounded, scheme);
  const values = layout === "row-major" ? restored : transposed(restored, rows, depth);
  node.setInput(input, node.graph.addInitializer(`${name}_rounded`, tensorOf("float32", dims, values)));
}

/** [rows, columns] → [columns, rows] */
export function transposed(values: Float32Array, rows: number, columns: number): Float32Array<ArrayBuffer> {
  const result = new Float32Array(values.length);
  for (let row = 0; row < rows; row++)
    for (let i = 0; i < columns; i++) result[i * rows + row] = values[row * columns + i]!;
  return result;
}

function grouped(layers: readonly RoundingLayer[]): RoundingLayer[][] {
  const groups: RoundingLayer[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const layer of layers) {
    const size = 8 * layer.depth ** 2;
    if (bytes + size > MAX_GRAM_BYTES) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)!.push(layer);
    bytes += size;
  }
  return groups;
}

async function roundLayer(
  { node, weight: read, scheme }: RoundingLayer,
  rounding: Rounding,
  statistics: LayerStatistics | undefined,
): Promise<LayerResult> {
  const name = choosing(rounding);
  const { title } = rounding;
  const result = (code: NoteCode, message: string, chosen?: RoundedWeight): LayerResult => {
    return { chosen, note: noteOn(node, "simplified", code, message) };
  };
  if (!statistics) return result(`${name}_unseen`, "No sample reaches it: its weights are rounded to the nearest.");
  const weight = read();
  const rounded = await rounding.round(weight, scheme, statistics);
  if (!rounded)
    return result(`${name}_failed`, "Its inputs are zero or not finite: its weights are rounded to the nearest.");
  const count = Math.min(COMPARED_ROWS, weight.rows);
  const rows = Array.from({ length: count }, (_, i) => Math.floor((i * weight.rows) / count));
  const judge = new OutputJudge(weight, statistics.heldOut, rows);
  const power = judge.power();
  const [before, after] = [nearestRound(weight, scheme), rounded].map((candidate) => {
    const error = judge.error(dequantized(weight, candidate, scheme));
    return 10 * Math.log10(power / error);
  }) as [number, number];
  const samples =
    statistics.heldOut === statistics.fit
      ? "the same samples, for want of others"
      : rounding.name === "stochastic"
        ? "the samples held out to choose by"
        : "samples that it has not used";
  const change = `${before.toFixed(1)} dB when rounded to nearest, ${after.toFixed(1)} dB with ${title}, on ${samples}`;
  return after > before
    ? result(name, `Rounded by ${title}: ${change}.`, rounded)
    : result(`${name}_no_gain`, `Rounded to nearest: ${change}.`);
}
