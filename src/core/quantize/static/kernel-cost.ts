/**
 * What kernels cost in float and in 8 bits, to tell where 8 bits lose: in networks of small layers and depthwise convolutions, a kernel's own
 * cost and the way to integers and back are more than integers save. A region is what computes in 8 bits without a float in between; it is
 * judged as a whole, because leaving one layer of it in float costs two conversions.
 *
 * The table is least squares over every node that onnxruntime's profiler saw in PP-OCR's recognizer and classifier (1 thread, x64 with AVX2 and
 * no VNNI, a loaded machine, so only ratios mean something); matrix products have the ratio that they had in a transformer. For eight of ten
 * nodes it says 0.4 to 1.4 times what was measured. Kernels with VNNI win more.
 */
import type { Value } from "../../onnx/ir.ts";
import { elementCount } from "../../onnx/tensor.ts";
import type { Placement, Unit } from "./placement.ts";

/** Microseconds for a call, for 1000 multiplications and for 1000 elements of the output. */
type Cost = readonly [call: number, products: number, elements: number];

interface Costs {
  readonly float: Cost;
  readonly int8: Cost;
}

const CONVOLUTION: Costs = { float: [7.9, 0.0281, 0.036], int8: [12.6, 0.0109, 0.198] };
const DEPTHWISE: Costs = { float: [6.7, 0.0224, 0.32], int8: [21.7, 0.0488, 0.364] };
const PRODUCT: Costs = { float: [7.9, 0.0281, 0.036], int8: [12.6, 0.0138, 0.198] };

const POINTWISE: Readonly<Record<string, Costs>> = {
  Add: { float: [4.4, 0, 0.194], int8: [7, 0, 0.109] },
  Mul: { float: [4.5, 0, 0.223], int8: [7.4, 0, 0.267] },
  HardSigmoid: { float: [3.1, 0, 0.234], int8: [7, 0, 0.109] },
  Sigmoid: { float: [3.1, 0, 0.234], int8: [7.1, 0, 0.382] },
  Concat: { float: [6.7, 0, 0.371], int8: [6.2, 0, 0.307] },
  GlobalAveragePool: { float: [5.6, 0, 19.8], int8: [7.5, 0, 20.1] },
};

/** Operators that were not measured cost the same either way. */
const EVEN: Costs = { float: [0, 0, 0], int8: [0, 0, 0] };

/** Relu or Clip behind anything but a convolution, which takes it in. */
const CLIP: Cost = [3.1, 0, 0.234];
const QUANTIZE: Cost = [3.2, 0, 0.869];
const DEQUANTIZE: Cost = [5, 0, 0.3];

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
        costs.get(unit)!.int8Us += time(QUANTIZE, 0, elementsOf(base) ?? 0);
      }
    }
  }
  const inside = new Set(quantized.flatMap(({ node, biasAdd, tail }) => [node, biasAdd, ...tail]));
  for (const [value, unit] of makers) {
    const leaves =
      value.isGraphOutput || value.uses.some(({ node }) => !inside.has(node) && !isAlias(node.outputs[0], aliases));
    if (values.get(value)?.integer && leaves) costs.get(unit)!.int8Us += time(DEQUANTIZE, 0, elementsOf(value) ?? 0);
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
  const costs = costsOf(node.opType, operand !== undefined, dims?.[1] === 1);
  const floatProducts = dims?.length === 3 ? products * paddedShare(elements / dims[0]!) : products;
  const clips = node.opType === "Conv" ? 0 : tail.length;
  return {
    floatUs: time(costs.float, floatProducts, elements) + clips * time(CLIP, 0, elements),
    int8Us: time(costs.int8, products, elements),
  };
}

/** Positions of the output that a product in float works on at a time. */
const TILE = 16;

/**
 * How much more a convolution of one axis computes in float than it has to: it is a product of matrices whose columns are positions, in whole tiles.
 * (Those of two axes have kernels of their own, which work on channels.)
 */
function paddedShare(positions: number): number {
  return positions > 0 ? (Math.ceil(positions / TILE) * TILE) / positions : 1;
}

function costsOf(opType: string, hasWeight: boolean, oneInput: boolean): Costs {
  if (!hasWeight) return POINTWISE[opType] ?? EVEN;
  if (opType !== "Conv") return PRODUCT;
  return oneInput ? DEPTHWISE : CONVOLUTION;
}

function time([call, perProduct, perElement]: Cost, products: number, elements: number): number {
  return call + (perProduct * products + perElement * elements) / 1000;
}
