/**
 * What kernels cost in float and in 8 bits, to tell where 8 bits lose: in networks of small layers and depthwise convolutions, a kernel's own
 * cost and the way to integers and back are more than integers save. Costs are measured on the machine at hand, or follow from a table.
 *
 * Which units compute in float is decided for all of them at once. Each costs one thing or the other, and a value costs a conversion where one side of
 * it computes in integers and the other in floats: the cheapest division is a minimal cut.
 */
import { type CutEdge, minCut } from "../../min-cut.ts";
import type { Value } from "../../onnx/ir.ts";
import { elementCount } from "../../onnx/tensor.ts";
import { type CostTable, costsOf, takesInActivation, timeOf } from "../../targets/cost-tables.ts";
import type { Placement } from "./placement.ts";
import type { Unit } from "./units.ts";

/** Microseconds of one run. */
export interface UnitCost {
  readonly floatUs: number;
  readonly int8Us: number;
}

export interface KernelCosts {
  /** Whether they were measured on the machine at hand, or follow from a table. */
  readonly basis: "measured" | "predicted";
  unit(unit: Unit): UnitCost;
  quantizeUs(value: Value): number;
  dequantizeUs(value: Value): number;
}

/** How many elements a value has in one run; undefined where it is not known, which counts as none. */
export type ElementsOf = (value: Value) => number | undefined;

/** Costs by the table of a target, for machines that are not at hand. Only ratios mean something. */
export function predictedCosts(table: CostTable, elementsOf: ElementsOf): KernelCosts {
  return {
    basis: "predicted",
    unit: (unit) => unitCost(table, unit, elementsOf),
    quantizeUs: (value) => timeOf(table.quantize, 0, elementsOf(value) ?? 0),
    dequantizeUs: (value) => timeOf(table.dequantize, 0, elementsOf(value) ?? 0),
  };
}

/** What a unit computes in one run. */
export interface Work {
  /** Of its output. */
  readonly elements: number;
  /** Multiplications in 8 bits, and in float, where some kernels compute more than they have to. */
  readonly products: number;
  readonly floatProducts: number;
  readonly weightDims: readonly number[] | undefined;
}

export function workOf({ node, rule, outputs }: Unit, elementsOf: ElementsOf, floatTile: number): Work {
  const elements = elementsOf(outputs[0]!) ?? 0;
  const operand = rule.weight?.(node);
  const weightDims = operand && node.inputs[operand.input]!.constant!.dims;
  const products = operand && weightDims ? (elements * elementCount(weightDims)) / weightDims[operand.axis]! : 0;
  const padded = weightDims?.length === 3 ? paddedShare(elements / weightDims[0]!, floatTile) : 1;
  return { elements, products, floatProducts: products * padded, weightDims };
}

function unitCost(table: CostTable, unit: Unit, elementsOf: ElementsOf): UnitCost {
  const { node, tail } = unit;
  const { elements, products, floatProducts, weightDims } = workOf(unit, elementsOf, table.floatTile);
  const costs = costsOf(table, node, weightDims);
  const clips = takesInActivation(node) ? 0 : tail.length;
  return {
    floatUs: timeOf(costs.float, floatProducts, elements) + clips * timeOf(table.clip, 0, elements),
    int8Us: timeOf(costs.int8, products, elements),
  };
}

/**
 * How much more a convolution of one axis computes in float than it has to: it is a product of matrices whose columns are positions, in whole tiles.
 * (Those of two axes have kernels of their own, which work on channels.)
 */
function paddedShare(positions: number, tile: number): number {
  return positions > 0 ? (Math.ceil(positions / tile) * tile) / positions : 1;
}

/** Units that compute in 8 bits and should not, those that hang together in one part. */
export interface SlowPart {
  readonly units: readonly Unit[];
  /** What they cost either way, conversions that only they need included. */
  readonly floatUs: number;
  readonly int8Us: number;
}

/** The cheapest division of a placement's quantized units: what should compute in float. */
export function slowParts(placement: Placement, costs: KernelCosts): SlowPart[] {
  const network = new Division(placement, costs);
  const inFloat = network.cheapest();
  if (inFloat.size === 0) return [];
  return network.partsOf(inFloat).map((units) => {
    const part = new Set(units);
    const others = new Set([...inFloat].filter((unit) => !part.has(unit)));
    return { units, floatUs: network.costAround(part, inFloat), int8Us: network.costAround(part, others) };
  });
}

/** What a placement costs in one run, its float units and the rest of the graph left out. */
export function placementCost(placement: Placement, costs: KernelCosts, inFloat: ReadonlySet<Unit>): number {
  return new Division(placement, costs).total(inFloat);
}

/** A value that has a maker and readers, some of which may compute in integers. */
interface Crossing {
  readonly value: Value;
  /** Undefined for what is made in float whatever is decided. */
  readonly maker: Unit | undefined;
  readonly readers: ReadonlySet<Unit>;
  /** Something reads floats whatever is decided. */
  readonly isReadInFloat: boolean;
}

class Division {
  readonly #units: readonly Unit[];
  readonly #costs: KernelCosts;
  readonly #crossings: readonly Crossing[];
  readonly #unitCosts: ReadonlyMap<Unit, UnitCost>;

  constructor(placement: Placement, costs: KernelCosts) {
    this.#units = placement.units.filter((unit) => unit.quantized);
    this.#costs = costs;
    this.#crossings = crossingsOf(placement, this.#units);
    this.#unitCosts = new Map(this.#units.map((unit) => [unit, costs.unit(unit)]));
  }

  /** The units that compute in float where all cost least together. */
  cheapest(): ReadonlySet<Unit> {
    const [source, sink] = [0, 1];
    const places = new Map(this.#units.map((unit, i) => [unit, i + 2]));
    const edges: CutEdge[] = [];
    let count = this.#units.length + 2;
    // The side of the source computes in integers.
    for (const [unit, { floatUs, int8Us }] of this.#unitCosts) {
      edges.push({ from: source, to: places.get(unit)!, capacity: floatUs });
      edges.push({ from: places.get(unit)!, to: sink, capacity: int8Us });
    }
    for (const { value, maker, readers, isReadInFloat } of this.#crossings) {
      const made = maker ? places.get(maker)! : sink;
      const apart = (from: number, to: number) => edges.push({ from, to, capacity: Number.POSITIVE_INFINITY });
      if (maker) {
        // Floats are made of the codes once, when the first reader wants them.
        const floats = count++;
        edges.push({ from: made, to: floats, capacity: this.#costs.dequantizeUs(value) });
        for (const reader of readers) apart(floats, places.get(reader)!);
        if (isReadInFloat) apart(floats, sink);
      }
      const codes = count++;
      edges.push({ from: codes, to: made, capacity: this.#costs.quantizeUs(value) });
      for (const reader of readers) apart(places.get(reader)!, codes);
    }
    const integers = minCut(count, edges, source, sink);
    return new Set(this.#units.filter((unit) => !integers[places.get(unit)!]));
  }

  #conversionUs({ value, maker, readers, isReadInFloat }: Crossing, inFloat: ReadonlySet<Unit>): number {
    const someFloat = isReadInFloat || [...readers].some((reader) => inFloat.has(reader));
    const someInteger = [...readers].some((reader) => !inFloat.has(reader));
    if (maker && !inFloat.has(maker)) return someFloat ? this.#costs.dequantizeUs(value) : 0;
    return someInteger ? this.#costs.quantizeUs(value) : 0;
  }

  #unitUs(unit: Unit, inFloat: ReadonlySet<Unit>): number {
    const { floatUs, int8Us } = this.#unitCosts.get(unit)!;
    return inFloat.has(unit) ? floatUs : int8Us;
  }

  total(inFloat: ReadonlySet<Unit>): number {
    return (
      this.#units.reduce((sum, unit) => sum + this.#unitUs(unit, inFloat), 0) +
      this.#crossings.reduce((sum, crossing) => sum + this.#conversionUs(crossing, inFloat), 0)
    );
  }

  /** What the units of `part` cost, and the conversions of the values that they make and read. */
  costAround(part: ReadonlySet<Unit>, inFloat: ReadonlySet<Unit>): number {
    const touched = this.#crossings.filter(
      ({ maker, readers }) => (maker && part.has(maker)) || [...readers].some((reader) => part.has(reader)),
    );
    return (
      [...part].reduce((sum, unit) => sum + this.#unitUs(unit, inFloat), 0) +
      touched.reduce((sum, crossing) => sum + this.#conversionUs(crossing, inFloat), 0)
    );
  }

  /** Units of `some` that values lead from one to the other, together. */
  partsOf(some: ReadonlySet<Unit>): readonly (readonly Unit[])[] {
    const leaders = new Map([...some].map((unit) => [unit, unit]));
    const leaderOf = (unit: Unit): Unit => {
      let at = unit;
      for (let next = leaders.get(at)!; next !== at; next = leaders.get(at)!) {
        leaders.set(at, leaders.get(next)!);
        at = next;
      }
      return at;
    };
    for (const { maker, readers } of this.#crossings) {
      const [first, ...others] = [...(maker ? [maker] : []), ...readers].filter((unit) => some.has(unit));
      for (const other of others) leaders.set(leaderOf(other), leaderOf(first!));
    }
    return [...Map.groupBy(some, leaderOf).values()];
  }
}

function crossingsOf(placement: Placement, units: readonly Unit[]): Crossing[] {
  const { values, aliases } = placement;
  const makers = new Map(units.flatMap((unit) => unit.outputs.map((value) => [value, unit])));
  const readers = new Map<Value, Set<Unit>>();
  for (const unit of units) {
    for (const index of unit.rule.activations(unit.node)) {
      const input = unit.node.inputs[index];
      if (!input || input.constant) continue;
      const base = aliases.get(input)?.base ?? input;
      const known = readers.get(base);
      if (known) known.add(unit);
      else readers.set(base, new Set([unit]));
    }
  }
  const inside = new Set(units.flatMap(({ node, biasAdd, tail }) => [node, biasAdd, ...tail]));
  const isAlias = (value: Value | undefined) => value !== undefined && aliases.has(value);
  return [...new Set([...readers.keys(), ...makers.keys()])].flatMap((value): Crossing[] => {
    // A kernel that gives out floats computes in integers all the same.
    const maker = values.get(value)?.integer ? makers.get(value) : undefined;
    const read = readers.get(value) ?? new Set<Unit>();
    const isReadInFloat =
      value.isGraphOutput || value.uses.some(({ node }) => !inside.has(node) && !isAlias(node.outputs[0]));
    return maker || read.size > 0 ? [{ value, maker, readers: read, isReadInFloat }] : [];
  });
}
