/**
 * Costs of units from profiles of a float model and of the same model with all in 8 bits. onnxruntime runs other nodes than the model has: kernels are
 * told by the names of the nodes or values that they come from. A pointwise unit or a movement that has no kernel was taken into another one, and
 * costs nothing; a layer without one costs what the table says, in the measure in which the table is right about the others.
 */
import type { Value } from "../../onnx/ir.ts";
import { type KernelTime, originOf } from "../../runtime/kernel-profile.ts";
import { DEQUANTIZE_COST, QUANTIZE_COST, REORDER_COST, timeOf } from "../../targets/onnxruntime-cpu.ts";
import { type ElementsOf, type KernelCosts, predictedCosts } from "./kernel-cost.ts";
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

/** Answers undefined where too few layers are found in the profiles. */
export function measuredCosts(
  placement: Placement,
  times: KernelTimes,
  elementsOf: ElementsOf,
): KernelCosts | undefined {
  const units = placement.units.filter((unit) => unit.quantized);
  const [float, int8] = [times.float, times.int8].map((model) => attribute(units, withoutOverhead(model)));
  const layers = units.filter(({ rule, outputs }) => rule.kind === "compute" && elementsOf(outputs[0]!) !== undefined);
  const found = layers.filter((unit) => float!.has(unit) && int8!.has(unit));
  if (found.length === 0 || found.length < LEAST_FOUND * layers.length) return undefined;
  const table = predictedCosts(elementsOf);
  const sum = (us: (unit: Unit) => number) => found.reduce((total, unit) => total + us(unit), 0);
  const ratios = {
    float: sum((unit) => float!.get(unit)!) / sum((unit) => table.unit(unit).floatUs),
    int8: sum((unit) => int8!.get(unit)!) / sum((unit) => table.unit(unit).int8Us),
  };
  const unseen = ({ rule }: Unit, predicted: number, ratio: number) =>
    rule.kind === "compute" ? predicted * ratio : 0;
  const converts = conversions(withoutOverhead(times.int8), ratios.int8);
  const reorders = reordersOf(withoutOverhead(times.float));
  const between = (value: Value, conversion: number) => {
    const elements = elementsOf(value) ?? 0;
    return conversion + (touchesConvolution(value) ? reorders(elements) : 0);
  };
  return {
    basis: "measured",
    unit(unit) {
      const predicted = table.unit(unit);
      return {
        floatUs: float!.get(unit) ?? unseen(unit, predicted.floatUs, ratios.float),
        int8Us: int8!.get(unit) ?? unseen(unit, predicted.int8Us, ratios.int8),
      };
    },
    quantizeUs: (value) => between(value, converts.quantize * table.quantizeUs(value)),
    dequantizeUs: (value) => between(value, converts.dequantize * table.dequantizeUs(value)),
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

/** How much longer conversions take than the table says. */
function conversions(kernels: readonly KernelTime[], otherwise: number): { quantize: number; dequantize: number } {
  const ratioOf = (op: string, cost: typeof QUANTIZE_COST) => {
    const seen = kernels.filter((kernel) => kernel.op === op && kernel.elements > 0);
    const predicted = seen.reduce((sum, { elements }) => sum + timeOf(cost, 0, elements), 0);
    return seen.length > 0 ? seen.reduce((sum, { us }) => sum + us, 0) / predicted : otherwise;
  };
  return {
    quantize: ratioOf("QuantizeLinear", QUANTIZE_COST),
    dequantize: ratioOf("DequantizeLinear", DEQUANTIZE_COST),
  };
}

/** What it takes to bring so many elements into the layout of a float convolution; nothing where convolutions have no layout of their own. */
function reordersOf(kernels: readonly KernelTime[]): (elements: number) => number {
  const seen = kernels.filter(({ op, elements }) => op.startsWith("Reorder") && elements > 0);
  if (seen.length === 0) return () => 0;
  const predicted = seen.reduce((sum, { elements }) => sum + timeOf(REORDER_COST, 0, elements), 0);
  const ratio = seen.reduce((sum, { us }) => sum + us, 0) / predicted;
  return (elements) => ratio * timeOf(REORDER_COST, 0, elements);
}

function touchesConvolution(value: Value): boolean {
  return value.producer?.opType === "Conv" || value.uses.some(({ node }) => node.opType === "Conv");
}
