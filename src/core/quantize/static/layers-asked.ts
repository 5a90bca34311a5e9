import type { Model } from "../../onnx/ir.ts";
import { exclusionTest } from "../../passes/pass.ts";
import { LAYER_PRECISIONS, type LayerPrecision } from "./layer-precisions.ts";
import type { FloatNode } from "./storage.ts";

/** What becomes of a node in each. */
export const FORMS: Readonly<Record<LayerPrecision, FloatNode>> = {
  float32: { code: "asked", message: "The job asks for it in float." },
  int8_weights: {
    ...{ code: "asked", message: "The job asks for it in float, with weights in 8 bits." },
    ...{ storesWeights: true, weightBits: 8 },
  },
  int4_weights: {
    ...{ code: "asked", message: "The job asks for it in float, with weights in 4 bits." },
    ...{ storesWeights: true, weightBits: 4 },
  },
};

/** The nodes of `model`, by name, that stand for the nodes a job speaks of, by label, and what becomes of them. */
export function layersAsked(
  model: Model,
  layers: Readonly<Record<string, LayerPrecision>>,
): ReadonlyMap<string, FloatNode> {
  const found = new Map<string, FloatNode>();
  for (const precision of LAYER_PRECISIONS) {
    const nodes = Object.keys(layers).filter((label) => layers[label] === precision);
    if (nodes.length === 0) continue;
    const isAsked = exclusionTest({ nodes, ops: [] });
    for (const node of model.nodes()) if (isAsked(node)) found.set(node.name, FORMS[precision]);
  }
  return found;
}
