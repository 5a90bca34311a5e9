/**
 * Costs of units from profiles of a float model and of the same model with all in 8 bits. onnxruntime runs other nodes than the model has: kernels are
 * told by the names of the nodes or values that they come from. A pointwise unit or a movement that has no kernel was taken into another one, and
 * costs nothing; a layer without one costs what the table says, in the measure in which the table is right about the others.
 */
import type { Value } from "../../onnx/ir.ts";
import { type KernelTime, originOf } from "../../runtime/kernel-profile.ts";
import { DEQUANTIZE_COST, QUANTIZE_COST, REORDER_COST, timeOf } from "../../targets/onnxruntime-cpu.ts";
import type { Cost } from "../../targets/target.ts";
import { type ElementsOf, type KernelCosts, predictedCosts, type UnitCost } from "./kernel-cost.ts";
import type { Placement, Unit } from "./placement.ts";

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

/** What was measured, as plain data. */
export interface MeasuredCosts {
  /** By the names of nodes that units are called by. */
  readonly units: Readonly<Record<string, UnitCost>>;
  /** How much longer these take than the table says; 0 for reordering where no kernel has a layout of its own. */
  readonly ratios: { readonly quantize: number; readonly dequantize: number; readonly reorder: number };
}

/** Costs of the quantized units of a placement. Answers undefined where too few layers are found in the profiles. */
export function measureCosts(
  placement: Placement,
  times: KernelTimes,
  elementsOf: ElementsOf,
): MeasuredCosts | undefined {
  const units = placement.units.filter((unit) => unit.quantized);
  const kernels = { float: withoutOverhead(times.float), int8: withoutOverhead(times.int8) };
  const [float, int8] = [attribute(units, kernels.float), attribute(units, kernels.int8)];
  const layers = units.filter(({ rule, outputs }) => rule.kind === "compute" && elementsOf(outputs[0]!) !== undefined);
  const found = layers.filter((unit) => float.has(unit) && int8.has(unit));
  if (found.length === 0 || found.length < LEAST_FOUND * layers.length) return undefined;
  const table = predictedCosts(elementsOf);
  const sum = (us: (unit: Unit) => number) => found.reduce((total, unit) => total + us(unit), 0);
  const ratios = {
    float: sum((unit) => float.get(unit)!) / sum((unit) => table.unit(unit).floatUs),
    int8: sum((unit) => int8.get(unit)!) / sum((unit) => table.unit(unit).int8Us),
  };
  const unseen = ({ rule }: Unit, predicted: number, ratio: number) =>
    rule.kind === "compute" ? predicted * ratio : 0;
  const costs = units.map((unit): [string, UnitCost] => {
    const predicted = table.unit(unit);
    return [
      unit.node.name,
      {
        floatUs: float.get(unit) ?? unseen(unit, predicted.floatUs, ratios.float),
        int8Us: int8.get(unit) ?? unseen(unit, predicted.int8Us, ratios.int8),
      },
    ];
  });
  return {
    units: Object.fromEntries(costs),
    ratios: {
      quantize: ratioOf(kernels.int8, (op) => op === "QuantizeLinear", QUANTIZE_COST) ?? ratios.int8,
      dequantize: ratioOf(kernels.int8, (op) => op === "DequantizeLinear", DEQUANTIZE_COST) ?? ratios.int8,
      reorder: ratioOf(kernels.float, (op) => op.startsWith("Reorder"), REORDER_COST) ?? 0,
    },
  };
}

/** How much longer kernels take than the table says; undefined where there are none. */
function ratioOf(kernels: readonly KernelTime[], isOne: (op: string) => boolean, cost: Cost): number | undefined {
  const seen = kernels.filter(({ op, elements }) => isOne(op) && elements > 0);
  const predicted = seen.reduce((sum, { elements }) => sum + timeOf(cost, 0, elements), 0);
  return seen.length > 0 ? seen.reduce((sum, { us }) => sum + us, 0) / predicted : undefined;
}

/** Costs by what was measured of the same model. */
export function measuredCosts({ units, ratios }: MeasuredCosts, elementsOf: ElementsOf): KernelCosts {
  const table = predictedCosts(elementsOf);
  const reorderUs = (value: Value) =>
    touchesConvolution(value) ? ratios.reorder * timeOf(REORDER_COST, 0, elementsOf(value) ?? 0) : 0;
  return {
    basis: "measured",
    unit: (unit) => units[unit.node.name] ?? table.unit(unit),
    quantizeUs: (value) => ratios.quantize * table.quantizeUs(value) + reorderUs(value),
    dequantizeUs: (value) => ratios.dequantize * table.dequantizeUs(value) + reorderUs(value),
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
