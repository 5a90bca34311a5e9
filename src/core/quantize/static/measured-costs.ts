/**
 * Costs of units from profiles of a float model and of the same model with all in 8 bits. onnxruntime runs other nodes than the model has: kernels are
 * told by the names of the nodes or values that they come from. A pointwise unit or a movement that has no kernel was taken into another one, and
 * costs nothing; a layer without one costs what the table says, in the measure in which the table is right about the others.
 */
import type { Value } from "../../onnx/ir.ts";
import { type KernelTime, originOf } from "../../runtime/kernel-profile.ts";
import { type CostTable, timeOf } from "../../targets/cost-tables.ts";
import type { Cost } from "../../targets/target.ts";
import type { Conversion, ConversionCosts } from "./kernel-book.ts";
import { type ElementsOf, type KernelCosts, predictedCosts, type UnitCost } from "./kernel-cost.ts";
import type { Placement } from "./placement.ts";
import type { Unit } from "./units.ts";

/** The kernels of a model, and how long a run of it takes without the profiler, in microseconds. */
export interface ProfiledModel {
  readonly kernels: readonly KernelTime[];
  readonly wallUs: number;
}

export interface KernelTimes {
  readonly float: ProfiledModel;
  readonly int8: ProfiledModel;
}

/** Layers that are found in both profiles, of those that are asked for: with fewer, profiles tell nothing. */
const LEAST_FOUND = 0.5;

/** What was measured, as plain data: of units by the names of their nodes. */
export interface MeasuredCosts extends ConversionCosts {
  readonly units: Readonly<Record<string, UnitCost>>;
}

/** What profiles tell. */
export interface ProfiledCosts {
  /** Of every quantized unit of a placement. */
  readonly units: ReadonlyMap<Unit, UnitCost>;
  /** Those that have no kernel in the profiles, and are not known to be part of another: what they cost is a guess. */
  readonly guessed: ReadonlySet<Unit>;
  /** Of each conversion that was seen. */
  readonly conversions: readonly { readonly kind: Conversion; readonly elements: number; readonly us: number }[];
  /** How much longer 8-bit kernels take than the table says. */
  readonly ratio: number;
}

/** Costs of the quantized units of a placement. Answers undefined where too few layers are found in the profiles. */
export function readProfiles(
  placement: Placement,
  times: KernelTimes,
  elementsOf: ElementsOf,
  table: CostTable,
): ProfiledCosts | undefined {
  const units = placement.units.filter((unit) => unit.quantized);
  const kernels = { float: withoutOverhead(times.float), int8: withoutOverhead(times.int8) };
  const [float, int8] = [attribute(units, kernels.float), attribute(units, kernels.int8)];
  const layers = units.filter(({ rule, outputs }) => rule.kind === "compute" && elementsOf(outputs[0]!) !== undefined);
  const found = layers.filter((unit) => float.has(unit) && int8.has(unit));
  if (found.length === 0 || found.length < LEAST_FOUND * layers.length) return undefined;
  const predicted = predictedCosts(table, elementsOf);
  const sum = (us: (unit: Unit) => number) => found.reduce((total, unit) => total + us(unit), 0);
  const ratios = {
    float: sum((unit) => float.get(unit)!) / sum((unit) => predicted.unit(unit).floatUs),
    int8: sum((unit) => int8.get(unit)!) / sum((unit) => predicted.unit(unit).int8Us),
  };
  const isCompute = ({ rule }: Unit) => rule.kind === "compute";
  const costOf = (unit: Unit): UnitCost => {
    const { floatUs, int8Us } = isCompute(unit) ? predicted.unit(unit) : NOTHING;
    return {
      floatUs: float.get(unit) ?? floatUs * ratios.float,
      int8Us: int8.get(unit) ?? int8Us * ratios.int8,
    };
  };
  const isSeen = (unit: Unit) => float.has(unit) && int8.has(unit);
  const conversions = [...kernels.int8, ...kernels.float.filter(({ op }) => CONVERSIONS[op] === "reorder")];
  return {
    units: new Map(units.map((unit) => [unit, costOf(unit)])),
    guessed: new Set(units.filter((unit) => isCompute(unit) && !isSeen(unit))),
    conversions: conversions.flatMap(({ op, elements, us }) => {
      const kind = CONVERSIONS[op];
      return kind && elements > 0 ? [{ kind, elements, us }] : [];
    }),
    ratio: ratios.int8,
  };
}

const NOTHING: UnitCost = { floatUs: 0, int8Us: 0 };

/** Conversions among onnxruntime's kernels. */
const CONVERSIONS: Readonly<Record<string, Conversion>> = {
  QuantizeLinear: "quantize",
  DequantizeLinear: "dequantize",
  ReorderInput: "reorder",
  ReorderOutput: "reorder",
};

/** What conversions cost: as the table says, longer by as much as those take longer that were seen; `otherwise` of a kind that was not. */
export function conversionCosts(
  seen: ProfiledCosts["conversions"],
  table: CostTable,
  otherwise: number,
): ConversionCosts {
  const scaled = (kind: Conversion, fallback: number): Cost => {
    const own = seen.filter((it) => it.kind === kind);
    const predicted = own.reduce((sum, { elements }) => sum + timeOf(table[kind], 0, elements), 0);
    const ratio = own.length > 0 ? own.reduce((sum, { us }) => sum + us, 0) / predicted : fallback;
    const [call, products, element] = table[kind];
    return [ratio * call, ratio * products, ratio * element];
  };
  return {
    quantize: scaled("quantize", otherwise),
    dequantize: scaled("dequantize", otherwise),
    reorder: scaled("reorder", 0),
  };
}

/** Costs by what was measured of the same model. What was not is decided by its neighbours. */
export function measuredCosts(measured: MeasuredCosts, elementsOf: ElementsOf): KernelCosts {
  const us = (kind: Conversion, value: Value) => timeOf(measured[kind], 0, elementsOf(value) ?? 0);
  const reorderUs = (value: Value) => (touchesConvolution(value) ? us("reorder", value) : 0);
  return {
    basis: "measured",
    unit: (unit) => measured.units[unit.node.name] ?? NOTHING,
    quantizeUs: (value) => us("quantize", value) + reorderUs(value),
    dequantizeUs: (value) => us("dequantize", value) + reorderUs(value),
  };
}

/** No kernel takes less than this share of what the profiler has seen, and the profiler takes no longer for it. */
const LEAST_SHARE = 0.1;
const MAX_OVERHEAD_US = 5;

/** The same times less what the profiler itself takes for every kernel: they add up to a run without it. */
function withoutOverhead({ kernels, wallUs }: ProfiledModel): KernelTime[] {
  const sum = kernels.reduce((total, { us }) => total + us, 0);
  const overhead = Math.max(0, Math.min(MAX_OVERHEAD_US, (sum - wallUs) / kernels.length));
  return kernels.map((kernel) => ({ ...kernel, us: Math.max(kernel.us * LEAST_SHARE, kernel.us - overhead) }));
}

/** Layouts that convolutions compute in: values are brought into them, and back. */
const REORDERS: ReadonlySet<string> = new Set(["ReorderInput", "ReorderOutput", "Transpose"]);

/** A node of the model may have such an operator as well: those that onnxruntime adds are named after it. */
function isReorder({ name, op }: KernelTime): boolean {
  return REORDERS.has(op) && originOf(name) === op;
}

/** What the kernels of each unit take; units without any are not in it. */
function attribute(units: readonly Unit[], kernels: readonly KernelTime[]): Map<Unit, number> {
  const byName = new Map<string, Unit>();
  for (const unit of units) {
    const { node, biasAdd, tail, result, outputs } = unit;
    for (const part of [node, ...(biasAdd ? [biasAdd] : []), ...tail]) {
      for (const { name } of [part, ...part.outputs]) if (name !== "") byName.set(name, unit);
    }
    for (const { name } of [result, ...outputs]) byName.set(name, unit);
  }
  const owners = kernels.map(({ name }) => byName.get(name) ?? byName.get(originOf(name)));
  const found = new Map<Unit, number>();
  for (const [i, { op, us }] of kernels.entries()) {
    // A value is reordered for what reads it next, or behind what has made it.
    const owner = owners[i] ?? (isReorder(kernels[i]!) ? owners[op === "ReorderInput" ? i + 1 : i - 1] : undefined);
    if (owner) found.set(owner, (found.get(owner) ?? 0) + us);
  }
  // A kernel that took in what stands behind it has that one's name.
  const byNode = new Map(units.map((unit) => [unit.node, unit]));
  for (const unit of units) {
    if (unit.rule.kind !== "compute" || found.has(unit)) continue;
    const [use] = unit.outputs[0]!.uses;
    const behind = use && byNode.get(use.node);
    const us = behind && behind.rule.kind !== "compute" ? found.get(behind) : undefined;
    if (us === undefined) continue;
    found.set(unit, us);
    found.set(behind!, 0);
  }
  return found;
}

function touchesConvolution(value: Value): boolean {
  return value.producer?.opType === "Conv" || value.uses.some(({ node }) => node.opType === "Conv");
}
