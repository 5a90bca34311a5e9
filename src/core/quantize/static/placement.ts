/**
 * Decides which nodes of a float graph compute in 8 bits, which values therefore carry Q/DQ, and which of those share their parameters.
 *
 * All units of the graph (`units.ts`) start quantized; then those that cannot pay are taken back until nothing changes: a pointwise unit must have a quantized convolution chain before it and a quantized consumer behind it, a movement must have
 * one of them. What is left has no pair of Q/DQ that does not feed or follow an integer kernel.
 *
 * A product of two activations, as attention has them, must have quantized convolution chains on both sides. Its operands would be rounded for it
 * alone: on x64 with AVX2 a layer of attention is then as fast as with the product in float up to 128 tokens, and 7 % faster with 512,
 * while the shares of Softmax, most of them below one step of 8 bits, cost a transformer of four layers 2 dB.
 */
import type { Model, Node, Value } from "../../onnx/ir.ts";
import type { Affine } from "../../operators/operator-record.ts";
import { operatorOf } from "../../operators/operators.ts";
import type { Range } from "../calibration/thresholds.ts";
import { AffineGroups } from "./affine-groups.ts";
import { UNLIMITED } from "./epilogue.ts";
import type { Refusal } from "./operators.ts";
import { type FoundUnits, findUnits, type PlacementOptions, type Unit } from "./units.ts";

/** A value with a Q/DQ pair. */
export interface QuantizedValue {
  readonly value: Value;
  /** Where Q reads: before the tail of the unit that makes it. */
  readonly source: Value;
  /** Made by an integer kernel: every reader sees the dequantized value, since no other exists. */
  readonly integer: boolean;
  /** Values of one group have codes of one meaning: each is factor · g + shift of a common g. */
  readonly group: number;
  readonly affine: Affine;
  /** Read by something other than a movement of the group: its range counts. */
  readonly leaf: boolean;
  readonly clip: Range;
  /** The range must not be cut. */
  readonly uncut: boolean;
}

/** A quantized value read through operations with single numbers: the same codes, under another scale and zero point. */
export interface Alias extends Affine {
  readonly base: Value;
  /** The last of the operations: those before it make aliases of the same value. */
  readonly node: Node;
}

/** A value as a number times another, plus a number; `node` is undefined for a value that is nothing but itself. */
type Resolved = Affine & { readonly base: Value; readonly node?: Node };

export interface Placement {
  /** In topological order, bodies after the nodes that own them; quantized or not. */
  readonly units: readonly Unit[];
  readonly values: ReadonlyMap<Value, QuantizedValue>;
  readonly aliases: ReadonlyMap<Value, Alias>;
  /** Nodes without an integer kernel between quantized ones: they cost a way to float and back. */
  readonly islands: readonly Node[];
}

/** Why units are in float that only lost out to their neighbours: under another placement they may be quantized. */
export const RECONSIDERED: ReadonlySet<string> = new Set(["float_neighbours", "float_inputs", "float_outputs"]);

const IDENTITY: Affine = { factor: 1, shift: 0 };

export function placeQuantizers(model: Model, options: PlacementOptions = {}): Placement {
  return new Placer(model, options).place();
}

/** What reads a value: a unit, another node, or the world outside the graph. */
type Reader = Unit | Node | undefined;

class Placer {
  readonly #model: Model;
  readonly #options: PlacementOptions;
  readonly #units: readonly Unit[];
  /** The unit a value comes out of. */
  readonly #makers = new Map<Value, Unit>();
  /** The unit a node is the heart of. */
  readonly #hearts = new Map<Node, Unit>();
  /** Values that are a number times another, plus a number. */
  readonly #affine: FoundUnits["affine"];
  /** What `#resolve` has found, and by base which values those are: when a unit is taken back, they no longer share its codes. */
  readonly #resolved = new Map<Value, Resolved>();
  readonly #sharing = new Map<Value, Value[]>();
  /** Movements that integers come into, until a unit is taken back; and those that none come into, which stays so. */
  readonly #chained = new Set<Unit>();
  readonly #unchained = new Set<Unit>();

  constructor(model: Model, options: PlacementOptions) {
    this.#model = model;
    this.#options = options;
    const { units, affine } = findUnits(model, options);
    this.#units = units;
    this.#affine = affine;
    for (const unit of units) {
      this.#hearts.set(unit.node, unit);
      for (const value of unit.outputs) this.#makers.set(value, unit);
    }
  }

  place(): Placement {
    this.#takeBackAll();
    const values = this.#values();
    const aliases = new Map<Value, Alias>();
    for (const value of this.#affine.keys()) {
      const { node, ...affine } = this.#resolve(value);
      if (node && values.has(affine.base)) aliases.set(value, { node, ...affine });
    }
    return { units: this.#units, values, aliases, islands: this.#islands(values) };
  }

  // ---- what pays ---------------------------------------------------------------------------------------------------

  /** In both directions by turns: what is float spreads along chains, to readers and to makers. */
  #takeBackAll(): void {
    const backwards = [...this.#units].reverse();
    for (let forward = true, calm = 0; calm < 2; forward = !forward) {
      let changed = false;
      for (const unit of forward ? this.#units : backwards) {
        if (!unit.quantized || !this.#takeBack(unit)) continue;
        changed = true;
        this.#chained.clear();
        for (const output of unit.outputs) {
          for (const value of this.#sharing.get(output) ?? []) this.#resolved.delete(value);
          this.#sharing.delete(output);
        }
      }
      calm = changed ? 0 : calm + 1;
    }
  }

  /** Takes a unit back to float when being quantized does not pay; answers whether it did. */
  #takeBack(unit: Unit): boolean {
    const refuse = (code: Refusal["code"], message: string): boolean => {
      unit.quantized = false;
      unit.reason = { code, message };
      return true;
    };
    const inputs = this.#activations(unit);
    if (unit.rule.kind === "compute") {
      if (unit.rule.weight?.(unit.node) || inputs.every((value) => this.#isChained(value))) return false;
      return refuse(
        "float_operands",
        "Both its operands are computed in float, and 8 bits gain nothing in a product of them.",
      );
    }
    const readers = unit.outputs.flatMap((value) => this.#readers(value));
    const hasQuantizedReader = readers.some(isQuantizedUnit);
    if (unit.rule.kind === "movement") {
      if (readers.length > 0 && readers.every(isQuantizedUnit)) return false;
      return inputs.some((value) => this.#isChained(value)) && hasQuantizedReader
        ? false
        : refuse("float_neighbours", "Nothing around it computes in 8 bits.");
    }
    if (!inputs.some((value) => this.#isChained(value))) {
      return refuse("float_inputs", "Its inputs are computed in float.");
    }
    return hasQuantizedReader ? false : refuse("float_outputs", "What reads its output computes in float.");
  }

  /**
   * Whether a value comes as integers from a convolution, directly or by pointwise and movement units. Matrix products do not count: they can
   * give out float at no cost, and what stands between them in a transformer (residual sums, gates) is better left at full precision.
   */
  #isChained(value: Value): boolean {
    const maker = this.#makers.get(this.#resolve(value).base);
    if (!maker?.quantized) return false;
    if (maker.rule.kind === "compute") return !maker.rule.floatOutput;
    if (maker.rule.kind === "pointwise") return true;
    return this.#chainedMovement(maker);
  }

  /** Whether integers come into a movement, through any number of others: a walk of its own, because such chains can be long. */
  #chainedMovement(movement: Unit): boolean {
    if (this.#chained.has(movement) || this.#unchained.has(movement)) return this.#chained.has(movement);
    const seen = new Set([movement]);
    let found = false;
    for (const unit of seen) {
      for (const input of this.#activations(unit)) {
        const maker = this.#makers.get(this.#resolve(input).base);
        if (!maker?.quantized || this.#unchained.has(maker)) continue;
        if (maker.rule.kind === "movement" && !this.#chained.has(maker)) seen.add(maker);
        else found ||= maker.rule.kind !== "compute" || !maker.rule.floatOutput;
      }
      if (found) break;
    }
    if (found) this.#chained.add(movement);
    else for (const unit of seen) this.#unchained.add(unit);
    return found;
  }

  #activations({ node, rule }: Unit): Value[] {
    return rule.activations(node).flatMap((index) => {
      const value = node.inputs[index];
      return value && !value.constant ? [value] : [];
    });
  }

  /** Whether Q reads the unit's output directly. */
  #givesIntegers(unit: Unit): boolean {
    if (!unit.quantized || this.#options.pattern?.outputs === "never") return false;
    if (!unit.rule.floatOutput || this.#options.pattern?.outputs === "always") return true;
    const readers = unit.outputs.flatMap((value) => this.#readers(value));
    // onnxruntime wants either Q alone behind a product or no Q at all. Behind the sum with a bias, Q and others may read side by side.
    return unit.biasAdd ? readers.length > 0 && readers.every(isQuantizedUnit) : readers.some(isQuantizedUnit);
  }

  /** Who reads a value, seen through operations that only change scale or zero point. */
  #readers(value: Value): Reader[] {
    const readers: Reader[] = [];
    const read: Value[] = [value];
    for (const current of read) {
      for (const { node, index } of current.uses) {
        const [output] = node.outputs;
        if (output && this.#resolve(output).node) read.push(output);
        else {
          const unit = this.#hearts.get(node);
          readers.push(unit?.rule.activations(node).includes(index) ? unit : node);
        }
      }
      if (current.isGraphOutput) readers.push(undefined);
    }
    return readers;
  }

  /** The value whose codes this one shares, when that is made by a quantized unit; else the value itself. */
  #resolve(value: Value): Resolved {
    const chain: Value[] = [];
    let at = value;
    for (let next = this.#affine.get(at); next && !this.#resolved.has(at); next = this.#affine.get(at)) {
      chain.push(at);
      at = next.input;
    }
    let resolved: Resolved = this.#resolved.get(at) ?? { base: at, ...IDENTITY };
    for (const made of chain.reverse()) {
      const { node, factor, shift } = this.#affine.get(made)!;
      const maker = this.#makers.get(resolved.base);
      resolved =
        !maker?.quantized || (shift !== 0 && maker.rule.floatOutput)
          ? { base: made, ...IDENTITY }
          : { base: resolved.base, factor: factor * resolved.factor, shift: factor * resolved.shift + shift, node };
      this.#resolved.set(made, resolved);
      if (resolved.base === made) continue;
      const sharing = this.#sharing.get(resolved.base) ?? [];
      sharing.push(made);
      this.#sharing.set(resolved.base, sharing);
    }
    return resolved;
  }

  // ---- values ------------------------------------------------------------------------------------------------------

  #values(): Map<Value, QuantizedValue> {
    const wanted = new Map<Value, { readonly integer: boolean; readonly maker: Unit | undefined }>();
    const groups = new AffineGroups<Value>();
    for (const unit of this.#units) {
      if (!unit.quantized) continue;
      for (const input of this.#activations(unit)) {
        const { base } = this.#resolve(input);
        const maker = this.#makers.get(base);
        const integer = maker !== undefined && this.#givesIntegers(maker);
        if (!wanted.has(base)) wanted.set(base, { integer, maker });
      }
      if (!this.#givesIntegers(unit)) continue;
      for (const output of unit.outputs) wanted.set(output, { integer: true, maker: unit });
      if (unit.rule.kind === "movement" || unit.node.opType === "Concat") this.#share(unit, groups);
    }
    return new Map(
      [...wanted].map(([value, { integer, maker }]) => {
        const { group, ...affine } = groups.find(value);
        const entry: QuantizedValue = {
          value,
          source: integer && maker ? (maker.outputs.length > 1 ? value : maker.result) : value,
          integer,
          group,
          affine,
          leaf: this.#isLeaf(value, groups),
          clip: maker?.clip ?? UNLIMITED,
          // Of shares of a whole the few large ones are what matters.
          uncut: value.producer !== undefined && operatorOf(value.producer)?.shares === true,
        };
        return [value, entry];
      }),
    );
  }

  /** Movements keep the parameters of their input. A value that only feeds a Concat takes those of its output, so that nothing is rounded twice. */
  #share(unit: Unit, groups: AffineGroups<Value>): void {
    for (const input of this.#activations(unit)) {
      const { base, ...affine } = this.#resolve(input);
      const isShared = unit.rule.kind === "movement" || this.#readers(base).every((reader) => reader === unit);
      if (isShared) for (const output of unit.outputs) groups.join(base, affine, output);
    }
  }

  #isLeaf(value: Value, groups: AffineGroups<Value>): boolean {
    const { group } = groups.find(value);
    return this.#readers(value).some(
      (reader) => !isQuantizedUnit(reader) || reader.outputs.every((output) => groups.find(output).group !== group),
    );
  }

  #islands(values: ReadonlyMap<Value, QuantizedValue>): Node[] {
    const isInteger = (value: Value | undefined) =>
      value !== undefined && values.get(this.#resolve(value).base)?.integer;
    const inUnits = new Set(
      this.#units.filter(({ quantized }) => quantized).flatMap(({ node, biasAdd, tail }) => [node, biasAdd, ...tail]),
    );
    return [...this.#model.nodes()].filter(
      (node) =>
        !inUnits.has(node) &&
        !node.isConstant &&
        node.inputs.some(isInteger) &&
        !node.outputs.some((output) => this.#resolve(output).node) &&
        node.outputs.some((output) => this.#readers(output).some(isQuantizedUnit)),
    );
  }
}

function isQuantizedUnit(reader: Reader): reader is Unit {
  return reader !== undefined && "rule" in reader && reader.quantized;
}
