/** Which weights of a model weight-only quantization can round by data, and what each gains by it. */
import type { Model, Node, Value } from "../../onnx/ir.ts";
import { operatorOf } from "../../operators/operators.ts";
import type { Note } from "../../passes/pass.ts";
import { type WeightView, WeightViews } from "../../passes/weight-views.ts";
import type { Feeds } from "../calibration/calibrate.ts";
import type { WeightMatrix } from "../rounding/blocks.ts";
import {
  MAX_DEPTH,
  notRounded,
  type RoundedWeights,
  type RoundingLayer,
  type RoundingRuntime,
  roundLayers,
  transposed,
  weightsOf,
} from "../rounding/round-layers.ts";
import type { Rounding, RowMatrix } from "../rounding/rounding.ts";
import { blockSizeOf } from "../scheme.ts";
import { linearLayer } from "./linear-layer.ts";
import type { WeightDecision } from "./rewrite.ts";
import { matrixOf, type WeightSlot } from "./slots.ts";
import { planWeightOnly, type WeightOnlyOptions } from "./weight-only.ts";

/**
 * Rounds the weights that `weightOnlyPass` with the same `options` will store, as far as they belong to a MatMul, a Gemm or a Conv without
 * groups and nothing else reads them. `model` is simplified. Answers weights by the names of their constants, and a note for each layer.
 */
export async function roundWeights(
  model: Model,
  options: WeightOnlyOptions,
  rounding: Rounding,
  batches: () => AsyncIterable<Feeds>,
  runtime: RoundingRuntime,
): Promise<{ readonly weights: RoundedWeights; readonly notes: readonly Note[] }> {
  const quantized = rounding.sees === "quantized" ? model.clone() : undefined;
  const left: Note[] = [];
  const views = new WeightViews();
  const { decisions } = planWeightOnly(model, views, options);
  const twins = quantized && [...quantized.nodes()];
  const indices = new Map([...model.nodes()].map((node, index) => [node, index]));
  const siteOf = (node: Node) => {
    const index = indices.get(node)!;
    return { node, index, twin: twins?.[index] };
  };
  const layers = storedLayers(decisions, views, siteOf, (node) => left.push(notRounded(node, rounding)));
  const results = await roundLayers(model, layers, rounding, batches, runtime, quantized);
  const notes = [...results.values()].map(({ note }) => note);
  return { weights: weightsOf(layers, results), notes: [...notes, ...left] };
}

/**
 * Layers whose weight is a constant of its own, in the form that it will have in the file. `siteOf` answers a node's own in the float model, and its twin
 * in the quantized one.
 */
export function storedLayers(
  decisions: readonly WeightDecision[],
  views: WeightViews,
  siteOf: (node: Node) => { readonly node: Node; readonly index: number; readonly twin: Node | undefined },
  onOther: (node: Node) => void,
): RoundingLayer[] {
  return decisions.flatMap(({ node: planned, slots, weights }): RoundingLayer[] => {
    const [slot] = slots;
    const [stored, other] = weights;
    if (!slot || !stored) return [];
    const { node, index, twin } = siteOf(planned);
    const product = other ? undefined : productOf(slot, views);
    if (!product || !isOwn(product.weight, views) || product.matrix.batches !== 1 || product.matrix.depth > MAX_DEPTH) {
      onOther(node);
      return [];
    }
    const { weight, matrix, filters } = product;
    const { form } = stored;
    const block = Math.min(blockSizeOf(form.scheme, form.matrix.depth), form.matrix.depth);
    const isSequential = !node.graph.owner && weight.dtype === "float32" && !node.inputs[0]?.constant;
    return [
      {
        node,
        index,
        filters,
        depth: matrix.depth,
        name: weight.sources[0]!.name,
        scheme: { ...form.scheme, granularity: block < matrix.depth ? { block } : "channel" },
        weight: () => ({ ...rowsOf(weight.read(), matrix), name: weight.sources[0]!.name }),
        twin: twin && isSequential ? twinOf(twin, slot) : undefined,
      },
    ];
  });
}

/** Whether a view is all of a constant that nothing else reads. */
function isOwn({ whole, sources }: WeightView, views: WeightViews): boolean {
  const [source, other] = sources as readonly Value[];
  return whole && source !== undefined && !other && views.readers(source).length === 1;
}

function twinOf(node: Node, slot: WeightSlot): RoundingLayer["twin"] {
  return { node, input: slot.index, layout: matrixOf(slot).layout, dims: slot.view.dims };
}

function productOf(
  slot: WeightSlot,
  views: WeightViews,
):
  | {
      readonly weight: WeightView;
      readonly matrix: Omit<WeightMatrix, "values">;
      readonly filters: readonly number[] | undefined;
    }
  | undefined {
  const { node, index, view } = slot;
  if (operatorOf(node)?.channels === "convolution") {
    if (index !== 1 || node.int("group", 1) !== 1) return undefined;
    return { weight: view, matrix: matrixOf(slot), filters: view.dims };
  }
  const layer = linearLayer(slot, views);
  return layer && { weight: layer.weight, matrix: layer.matrix, filters: undefined };
}

/** A weight as [rows, depth]. */
function rowsOf(values: Float32Array, { rows, depth, layout }: Omit<WeightMatrix, "values">): RowMatrix {
  return { values: layout === "row-major" ? values : transposed(values, depth, rows), rows, depth };
}
