/** Weight-only quantization by GPTQ: which weights of a model can be rounded so, and what each gains by it. */
import { checkCancelled } from "../../errors.ts";
import type { Model, Node } from "../../onnx/ir.ts";
import { exclusionTest, type Note, noteOn, runPasses } from "../../passes/pass.ts";
import { type WeightView, WeightViews } from "../../passes/weight-views.ts";
import type { CalibrateOptions, Feeds } from "../calibration/calibrate.ts";
import type { BlockScheme, WeightMatrix } from "./blocks.ts";
import { QuantizedWeights, type RoundedWeights } from "./codes.ts";
import { gptqRound, nearestRound, outputError, quadratic, type RowMatrix } from "./gptq.ts";
import { type GramSite, type Grams, observeGrams } from "./gram.ts";
import { linearLayer } from "./linear-layer.ts";
import { findWeights, matrixOf, type WeightSlot } from "./slots.ts";
import { type WeightOnlyOptions, weightOnlyPass } from "./weight-only.ts";

export interface GptqRuntime extends Omit<CalibrateOptions, "onBatch"> {
  /** Told the share of layers that are done, and what goes on. */
  readonly onProgress?: (fraction: number, message: string) => void;
}

/** Inputs of a layer; the factor of a larger one takes gigabytes and minutes. */
const MAX_DEPTH = 4096;
/** Products that are summed at a time: more layers than fit take another pass over the samples. */
const MAX_GRAM_BYTES = 512 * 2 ** 20;
/** Rows of a weight by which its two roundings are compared. */
const JUDGED_ROWS = 64;

interface Layer extends GramSite {
  readonly node: Node;
  readonly weight: WeightView;
  readonly matrix: Omit<WeightMatrix, "values">;
  readonly scheme: BlockScheme;
}

/**
 * Rounds the weights that `weightOnlyPass` with the same `options` will store, as far as they belong to a MatMul, a Gemm or a Conv without
 * groups. Each keeps what GPTQ made of it only if that is better on batches that it was not made from (with less than four, on those it was).
 * `model` is simplified, and `batches` is asked for once for each pass over the samples. Answers weights by the names of their constants, and a
 * note for each layer.
 */
export async function gptqWeights(
  model: Model,
  options: WeightOnlyOptions,
  batches: () => AsyncIterable<Feeds>,
  runtime: GptqRuntime,
): Promise<{ readonly weights: RoundedWeights; readonly notes: readonly Note[] }> {
  const { onProgress, signal } = runtime;
  const layers = layersOf(model, options);
  const weights = new Map<string, NonNullable<ReturnType<typeof gptqRound>>>();
  const notes: Note[] = [];
  let done = 0;
  for (const group of grouped(layers)) {
    let batch = 0;
    const grams = await observeGrams(model, group, batches(), {
      ...runtime,
      onBatch: () => onProgress?.(done / layers.length, `Looking at batch ${++batch}`),
    });
    for (const layer of group) {
      checkCancelled(signal);
      onProgress?.(done / layers.length, `${done} of ${layers.length} layers rounded`);
      const result = roundLayer(layer, grams.get(layer.index));
      if (result.rounded) weights.set(layer.weight.sources[0]!.name, result.rounded);
      notes.push(noteOn(layer.node, "simplified", result.code, result.message));
      done++;
    }
  }
  return { weights, notes };
}

/** Layers whose weight is a constant of its own, in the form that it will have in the file. */
function layersOf(model: Model, options: WeightOnlyOptions): Layer[] {
  const planned = new QuantizedWeights();
  runPasses(model, [weightOnlyPass(options, planned)]);
  const views = new WeightViews();
  const indices = new Map([...model.nodes()].map((node, index) => [node, index]));
  const slots = [...findWeights(model, views, exclusionTest(options.exclude), () => {}).values()].flat();
  return slots.flatMap((slot): Layer[] => {
    const product = productOf(slot, views);
    if (!product) return [];
    const { weight, matrix } = product;
    const [source] = weight.sources;
    const forms = planned.formsOf(source!.name);
    if (!weight.whole || forms.length !== 1 || views.readers(source!).length !== 1) return [];
    if (matrix.batches !== 1 || matrix.depth > MAX_DEPTH) return [];
    const { scheme, matrix: cut } = forms[0]!;
    const { node } = slot;
    const index = indices.get(node)!;
    const blockSize = Math.min(scheme.blockSize, cut.depth);
    return [
      { node, index, filters: product.filters, depth: matrix.depth, weight, matrix, scheme: { ...scheme, blockSize } },
    ];
  });
}

function productOf(slot: WeightSlot, views: WeightViews): Pick<Layer, "weight" | "matrix" | "filters"> | undefined {
  const { node, index, view } = slot;
  if (node.opType === "Conv") {
    if (index !== 1 || node.int("group", 1) !== 1) return undefined;
    return { weight: view, matrix: matrixOf(slot), filters: view.dims };
  }
  const layer = linearLayer(slot, views);
  return layer && { weight: layer.weight, matrix: layer.matrix, filters: undefined };
}

function grouped(layers: readonly Layer[]): Layer[][] {
  const groups: Layer[][] = [];
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

function roundLayer({ weight, matrix, scheme }: Layer, grams: Grams | undefined) {
  if (!grams) return { code: "gptq_unseen", message: "No sample reaches it: its weights are rounded to the nearest." };
  const rows = rowsOf(weight.read(), matrix);
  const rounded = gptqRound(rows, grams.fit, scheme);
  if (!rounded)
    return { code: "gptq_failed", message: "Its inputs are not finite: its weights are rounded to the nearest." };
  const some = Array.from({ length: Math.min(JUDGED_ROWS, rows.rows) }, (_, i) =>
    Math.floor((i * rows.rows) / Math.min(JUDGED_ROWS, rows.rows)),
  );
  const signal = some.reduce(
    (sum, row) => sum + quadratic(rows.values.subarray(row * rows.depth, (row + 1) * rows.depth), grams.judge),
    0,
  );
  const [nearest, better] = [nearestRound(rows, scheme), rounded].map((codes) =>
    decibels(signal / outputError(rows, codes, scheme, grams.judge, some)),
  ) as [number, number];
  const judged = grams.judge === grams.fit ? "the same samples, for want of others" : "samples that it has not used";
  const change = `${nearest.toFixed(1)} dB with the nearest codes, ${better.toFixed(1)} dB with GPTQ, on ${judged}`;
  return better > nearest
    ? { rounded, code: "gptq", message: `Rounded by GPTQ: ${change}.` }
    : { code: "gptq_no_gain", message: `Rounded to the nearest: ${change}.` };
}

function decibels(ratio: number): number {
  return 10 * Math.log10(ratio);
}

/** A weight as [rows, depth]. */
function rowsOf(values: Float32Array, { rows, depth, layout }: Omit<WeightMatrix, "values">): RowMatrix {
  if (layout === "row-major") return { values, rows, depth };
  const turned = new Float32Array(values.length);
  for (let i = 0; i < depth; i++)
    for (let row = 0; row < rows; row++) turned[row * depth + i] = values[i * rows + row]!;
  return { values: turned, rows, depth };
}
