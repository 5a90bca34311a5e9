import { createHash } from "node:crypto";
import type { KernelFacts } from "../../facts.ts";
import type { Attr, Model, Node, Value } from "../../onnx/ir.ts";
import { elementCount } from "../../onnx/tensor.ts";
import type { CostTable } from "../../targets/cost-tables.ts";
import type { Cost } from "../../targets/target.ts";
import { type ElementsOf, predictedCosts, type UnitCost } from "./kernel-cost.ts";
import { conversionCosts, type ProfiledCosts } from "./measured-costs.ts";
import type { Placement } from "./placement.ts";
import type { Unit } from "./units.ts";

/**
 * What was found about the speed of kernels on machines of one kind, for models to come: by what each kernel computes, and for whole models by all that
 * makes a difference to their speed. What is in it stays as it is, so that the same model is always made in the same way.
 */
export interface KernelBook {
  readonly units: Map<string, UnitCost>;
  /** Microseconds of a conversion, by its kind and elements. */
  readonly conversions: Map<string, number>;
  readonly models: Map<string, KernelVerdict>;
}

export type MeasuredKernels = Omit<KernelFacts, "nodes" | "layers" | "cached">;

/** What was found about a model. */
export interface KernelVerdict {
  readonly facts: MeasuredKernels;
  /** Undefined where profiles did not tell. `units` are in the order of the placement. */
  readonly costs?: (ConversionCosts & { readonly units: readonly UnitCost[] }) | undefined;
}

export interface ConversionCosts {
  readonly quantize: Cost;
  readonly dequantize: Cost;
  /** Into the layout that float convolutions compute in, or out of it; nothing where no kernel has a layout of its own. */
  readonly reorder: Cost;
}

export type Conversion = keyof ConversionCosts;

export function emptyBook(): KernelBook {
  return { units: new Map(), conversions: new Map(), models: new Map() };
}

/** What else the speed of a model depends on. */
export interface KernelSetting {
  readonly activationDType: string;
  readonly perChannel: boolean;
  readonly reduceRange: boolean;
  readonly threads: number;
}

/** Small integers are shapes and axes, which kernels depend on. */
const MAX_LISTED = 64;

function hashOf(content: unknown): string {
  return createHash("sha256").update(JSON.stringify(content)).digest("base64url").slice(0, 22);
}

/** Types of attributes that are plain data; what is in tensors and bodies shows elsewhere, or makes no difference to speed. */
const PLAIN: ReadonlySet<Attr["type"]> = new Set<Attr["type"]>(["int", "float", "string", "ints", "floats", "strings"]);

function attributesOf(node: Node): readonly unknown[] {
  return [...node.attrs]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, { type, value }]) => [name, type, PLAIN.has(type) ? value : null]);
}

function operandOf(value: Value | undefined, elementsOf: ElementsOf): unknown {
  if (!value) return null;
  const { constant } = value;
  if (!constant) {
    const shape = value.shape?.map((dim) => (typeof dim === "number" ? dim : null));
    return [value.dtype ?? null, shape ?? null, Math.round(elementsOf(value) ?? 0)];
  }
  const { dtype, dims } = constant;
  const isListed = dtype.startsWith("int") && elementCount(dims) <= MAX_LISTED;
  return [dtype, dims, isListed ? Buffer.from(constant.bytes).toString("base64") : null];
}

function shownNode(node: Node, elementsOf: ElementsOf): readonly unknown[] {
  return [
    ...[node.domain, node.opType, attributesOf(node)],
    node.inputs.map((input) => operandOf(input, elementsOf)),
    node.outputs.map((output) => operandOf(output, elementsOf)),
  ];
}

/** What a unit's kernels compute, and what reads their result: kernels take in what stands behind them. */
function unitKey({ node, biasAdd, tail, outputs }: Unit, elementsOf: ElementsOf, setting: KernelSetting): string {
  const parts = [node, ...(biasAdd ? [biasAdd] : []), ...tail].map((part) => shownNode(part, elementsOf));
  const readers = outputs.map(({ uses }) => uses.map(({ node }) => node.opType).toSorted());
  return hashOf([parts, readers, setting]);
}

/** What a model computes, but for the numbers in it: equal for models that take the same time. */
export function structureKey(model: Model): string {
  return graphKey(model, (node) => shownNode(node, () => undefined), null);
}

function conversionKey(kind: Conversion, elements: number, { threads }: KernelSetting): string {
  return hashOf([kind, elements, threads]);
}

/** Everything about a model, and which of its nodes can compute in 8 bits, that its speed depends on: not the weights, nor any name. */
export function modelKey(float: Model, { units }: Placement, elementsOf: ElementsOf, setting: KernelSetting): string {
  const quantized = new Set(units.flatMap(({ node, quantized }) => (quantized ? [node.name] : [])));
  return graphKey(float, (node) => [shownNode(node, elementsOf), quantized.has(node.name)], setting);
}

/** Values are told by where they first come up, not by their names. */
function graphKey(model: Model, shown: (node: Node) => unknown, setting: unknown): string {
  const places = new Map<Value, number>();
  const placeOf = (value: Value) => {
    if (!places.has(value)) places.set(value, places.size);
    return places.get(value)!;
  };
  const nodes = [...model.nodes()].map((node) => [
    shown(node),
    ...[node.inputs.map((input) => input && placeOf(input)), node.outputs.map(placeOf)],
  ]);
  return hashOf([nodes, model.graph.outputs.map(placeOf), setting]);
}

/** What the units of a model cost by a book. Units of the same key cost the same. */
export function costsOfUnits(
  units: readonly Unit[],
  elementsOf: ElementsOf,
  setting: KernelSetting,
  table: CostTable,
  book: KernelBook,
) {
  const keys = units.map((unit) => unitKey(unit, elementsOf, setting));
  const inBook = (values: Iterable<number>) =>
    [...new Set(values)].flatMap((elements) =>
      (["quantize", "dequantize", "reorder"] as const).flatMap((kind) => {
        const us = book.conversions.get(conversionKey(kind, elements, setting));
        return us === undefined ? [] : [{ kind, elements, us }];
      }),
    );
  return {
    /** Undefined where the book does not have all of them. */
    known(): KernelVerdict["costs"] {
      const known = keys.map((key) => book.units.get(key));
      if (!known.every((cost) => cost !== undefined)) return undefined;
      const values = units.flatMap(({ node, outputs }) => [...node.inputs, ...outputs]);
      const seen = inBook(values.flatMap((value) => (value ? [Math.round(elementsOf(value) ?? 0)] : [])));
      const predicted = predictedCosts(table, elementsOf);
      const sum = (of: (unit: Unit, i: number) => number) => units.reduce((total, unit, i) => total + of(unit, i), 0);
      const ratio =
        sum((_, i) => known[i]!.int8Us) /
        Math.max(
          1,
          sum((unit) => predicted.unit(unit).int8Us),
        );
      return { units: known, ...conversionCosts(seen, table, ratio) };
    },
    /** Adds to the book what it does not have. */
    with(profiled: ProfiledCosts | undefined): KernelVerdict["costs"] {
      if (!profiled) return undefined;
      const groups = Map.groupBy(units.keys(), (i) => keys[i]!);
      const own = new Map<string, UnitCost>();
      for (const [key, members] of groups) {
        const costs = members.map((i) => profiled.units.get(units[i]!)!);
        const mean = (of: keyof UnitCost) => rounded(costs.reduce((sum, it) => sum + it[of], 0) / costs.length);
        const cost = book.units.get(key) ?? { floatUs: mean("floatUs"), int8Us: mean("int8Us") };
        own.set(key, cost);
        if (!members.some((i) => profiled.guessed.has(units[i]!))) book.units.set(key, cost);
      }
      const byKey = Map.groupBy(profiled.conversions, ({ kind, elements }) => conversionKey(kind, elements, setting));
      const seen = [...byKey].map(([key, same]) => {
        const [{ kind, elements }] = same as [(typeof same)[0]];
        const us = book.conversions.get(key) ?? rounded(same.reduce((sum, it) => sum + it.us, 0) / same.length);
        book.conversions.set(key, us);
        return { kind, elements, us };
      });
      return { units: keys.map((key) => own.get(key)!), ...conversionCosts(seen, table, profiled.ratio) };
    },
  };
}

/** To a hundredth of a microsecond: profilers tell whole ones. */
function rounded(us: number): number {
  return Math.round(us * 100) / 100;
}
