/**
 * What kernels cost in float and in 8 bits, to tell where 8 bits lose: in networks of small layers and depthwise convolutions, a kernel's own
 * cost and the way to integers and back are more than integers save. A region is what computes in 8 bits without a float in between; it is
 * judged as a whole, because leaving one layer of it in float costs two conversions.
 */
import type { Value } from "../../onnx/ir.ts";
import { elementCount } from "../../onnx/tensor.ts";
import {
  CLIP_COST,
  costsOf,
  DEQUANTIZE_COST,
  FLOAT_TILE,
  QUANTIZE_COST,
  takesInActivation,
  timeOf,
} from "../../targets/onnxruntime-cpu.ts";
import type { Placement, Unit } from "./placement.ts";

export interface Region {
  readonly units: readonly Unit[];
  /** Predicted, in microseconds of the machine that the table was measured on. */
  readonly floatUs: number;
  readonly int8Us: number;
}

/**
 * The regions of a placement, in order. `elementsOf` says how many elements a value has in one run; undefined where it is not known, which counts
 * as none.
 */
export function placedRegions(placement: Placement, elementsOf: (value: Value) => number | undefined): Region[] {
  const { units, values, aliases } = placement;
  const quantized = units.filter((unit) => unit.quantized);
  const makers = new Map(quantized.flatMap((unit) => unit.outputs.map((value) => [value, unit])));
  const baseOf = (value: Value) => aliases.get(value)?.base ?? value;
  const leaders = new Map(quantized.map((unit) => [unit, unit]));
  const leaderOf = (unit: Unit): Unit => {
    const next = leaders.get(unit)!;
    return next === unit ? unit : leaderOf(next);
  };
  const costs = new Map(quantized.map((unit) => [unit, unitCost(unit, elementsOf)]));
  const charged = new Set<Value>();
  for (const unit of quantized) {
    for (const index of unit.rule.activations(unit.node)) {
      const input = unit.node.inputs[index];
      if (!input || input.constant) continue;
      const base = baseOf(input);
      const maker = values.get(base)?.integer ? makers.get(base) : undefined;
      if (maker) leaders.set(leaderOf(unit), leaderOf(maker));
      else if (!charged.has(base)) {
        charged.add(base);
        costs.get(unit)!.int8Us += timeOf(QUANTIZE_COST, 0, elementsOf(base) ?? 0);
      }
    }
  }
  const inside = new Set(quantized.flatMap(({ node, biasAdd, tail }) => [node, biasAdd, ...tail]));
  for (const [value, unit] of makers) {
    const leaves =
      value.isGraphOutput || value.uses.some(({ node }) => !inside.has(node) && !isAlias(node.outputs[0], aliases));
    if (values.get(value)?.integer && leaves)
      costs.get(unit)!.int8Us += timeOf(DEQUANTIZE_COST, 0, elementsOf(value) ?? 0);
  }
  const regions = Map.groupBy(quantized, leaderOf);
  return [...regions.values()].map((members) => ({
    units: members,
    floatUs: members.reduce((sum, unit) => sum + costs.get(unit)!.floatUs, 0),
    int8Us: members.reduce((sum, unit) => sum + costs.get(unit)!.int8Us, 0),
  }));
}

function isAlias(value: Value | undefined, aliases: Placement["aliases"]): boolean {
  return value !== undefined && aliases.has(value);
}

function unitCost({ node, rule, tail, outputs }: Unit, elementsOf: (value: Value) => number | undefined) {
  const elements = elementsOf(outputs[0]!) ?? 0;
  const operand = rule.weight?.(node);
  const dims = operand && node.inputs[operand.input]!.constant!.dims;
  const products = operand && dims ? (elements * elementCount(dims)) / dims[operand.axis]! : 0;
  const costs = costsOf(node, dims);
  const floatProducts = dims?.length === 3 ? products * paddedShare(elements / dims[0]!) : products;
  const clips = takesInActivation(node) ? 0 : tail.length;
  return {
    floatUs: timeOf(costs.float, floatProducts, elements) + clips * timeOf(CLIP_COST, 0, elements),
    int8Us: timeOf(costs.int8, products, elements),
  };
}

/**
 * How much more a convolution of one axis computes in float than it has to: it is a product of matrices whose columns are positions, in whole tiles.
 * (Those of two axes have kernels of their own, which work on channels.)
 */
function paddedShare(positions: number): number {
  return positions > 0 ? (Math.ceil(positions / FLOAT_TILE) * FLOAT_TILE) / positions : 1;
}
