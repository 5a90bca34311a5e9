/** Weights that hold what no method can round and no training can learn from. */
import { nonFiniteName } from "../data/content.ts";
import type { NonFiniteWeight } from "../facts.ts";
import type { Model, Node, Value } from "../onnx/ir.ts";
import { arrayOf, floatsOf, isFloat, type Tensor } from "../onnx/tensor.ts";
import { layersByWeight } from "./layer-facts.ts";
import { weightsOf } from "./model-weights.ts";

/** A record holds so many; of a model that diverged all weights are broken, and these tell it. */
const MAX_LISTED = 100;

/**
 * The float weights with NaN, and the layers' weights with infinities, in order of first use. Infinities of other weights are left out: masks and
 * biases that forbid an answer are made of them. Every weight is read once.
 */
export function findNonFiniteWeights(model: Model): NonFiniteWeight[] {
  const layers = layersByWeight(model);
  const found: NonFiniteWeight[] = [];
  for (const { value, tensor } of weightsOf(model)) {
    if (found.length === MAX_LISTED) break;
    if (!isFloat(tensor.dtype)) continue;
    const weight = nonFiniteIn(value, tensor, layers.get(value) ?? []);
    if (weight) found.push(weight);
  }
  return found;
}

function nonFiniteIn({ name }: Value, tensor: Tensor, nodes: readonly Node[]): NonFiniteWeight | undefined {
  const values = tensor.dtype === "float64" ? arrayOf(tensor, "float64") : floatsOf(tensor);
  const isLayer = nodes.length > 0;
  let count = 0;
  let first = -1;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    // NaN and infinities alone give NaN here.
    if (value - value === 0 || !(isLayer || Number.isNaN(value))) continue;
    if (count++ === 0) first = i;
  }
  if (count === 0) return undefined;
  return {
    name,
    layers: nodes.map(({ label, opType }) => ({ name: label, op: opType })),
    shape: tensor.dims,
    count,
    first: { index: indexOf(first, tensor.dims), value: nonFiniteName(values[first]!) },
  };
}

/** The index along each axis of the element at `position`. */
function indexOf(position: number, dims: readonly number[]): number[] {
  const index: number[] = [];
  for (const size of dims.toReversed()) {
    index.unshift(position % size);
    position = Math.floor(position / size);
  }
  return index;
}
