/**
 * What float16 must not touch because its numbers are exact, or must be: whole numbers that became floats (ids, positions, sizes, masks),
 * and what is compared, counted, made an index, or an angle. And what does not fit into float16 however often it is rounded: masks.
 */
import { DTYPES } from "../onnx/dtype.ts";
import type { Model, Node, Value } from "../onnx/ir.ts";
import { elementCount, floatsOf } from "../onnx/tensor.ts";
import { operatorOf } from "../operators/operators.ts";
import type { KeptReason } from "./float16-policy.ts";
import type { DTypes } from "./value-dtypes.ts";

export const MAX_HALF = 65504;
/** Up to here a number may stand beside others, a mask on top of a mask, without leaving float16. */
const MAX_SAFE = 2 ** 15;
/** From here on a sum keeps no fractions in float16: of a row that is all masked with -10000 nothing would be left. */
const MAX_ADDEND = 2 ** 11;
/** A table of so many elements holds weights, whatever reads it. */
const MIN_TABLE_ELEMENTS = 4096;

const COUNTS: KeptReason = {
  code: "exact",
  message: "It computes with whole numbers or masks, which float16 rounds from 2048 on and cannot hold past 65504.",
};
const DECIDES: KeptReason = {
  code: "exact",
  message: "It compares, counts or selects: what it reads, rounded to float16, would give another answer.",
};

export interface ExactParts {
  readonly kept: ReadonlyMap<Node, KeptReason>;
  /** float32 values that may be larger than float16 can hold; where one is cast to it, it must be limited first. */
  readonly wide: ReadonlySet<Value>;
}

/** The parts of a model that must stay float32 for what they compute. `kept` only grows: nodes that are kept already may be in it. */
export function findExactParts(model: Model, types: DTypes): ExactParts {
  return new Search(model, types).run();
}

class Search {
  readonly #model: Model;
  readonly #types: DTypes;
  readonly #kept = new Map<Node, KeptReason>();
  readonly #wide = new Set<Value>();
  /** Largest magnitude of values that are computed from integers and constants alone, before weights join. */
  readonly #counted = new Map<Value, number>();
  /** The same, and with weights. */
  readonly #derived = new Set<Value>();

  constructor(model: Model, types: DTypes) {
    this.#model = model;
    this.#types = types;
  }

  run(): ExactParts {
    for (const node of this.#model.nodes()) this.#count(node);
    for (const value of this.#counted.keys()) this.#keep(value.producer!, COUNTS);
    for (const node of this.#model.nodes()) this.#decide(node);
    for (const node of this.#model.nodes()) this.#bound(node);
    return { kept: this.#kept, wide: this.#wide };
  }

  #keep(node: Node, reason: KeptReason): void {
    if (!this.#kept.has(node)) this.#kept.set(node, reason);
  }

  #isFloat32(value: Value | undefined): value is Value {
    return value !== undefined && this.#types.get(value) === "float32";
  }

  #floatInputs(node: Node): Value[] {
    return node.inputs.filter((value) => this.#isFloat32(value)).filter(({ constant }) => !constant);
  }

  // ---- whole numbers -----------------------------------------------------------------------------------------------

  #count(node: Node): void {
    const outputs = node.outputs.filter((value) => this.#isFloat32(value));
    if (outputs.length === 0 || node.bodies().length > 0 || node.domain !== "") return;
    const [input] = node.inputs;
    if (node.opType === "Cast") {
      const bound = input && (isWhole(this.#types, input) ? this.#wholeBound(input) : this.#counted.get(input));
      if (bound !== undefined) this.#add(outputs, bound);
      return;
    }
    const reads = this.#floatInputs(node);
    if (reads.length === 0 || !reads.every((value) => this.#derived.has(value))) return;
    for (const value of outputs) this.#derived.add(value);
    if (!reads.every((value) => this.#counted.has(value)) || joinsWeights(node)) return;
    const bound = resultBound(node, (value) => this.#boundOf(value));
    for (const value of outputs) this.#counted.set(value, bound);
  }

  #add(outputs: readonly Value[], bound: number): void {
    for (const value of outputs) {
      this.#counted.set(value, bound);
      this.#derived.add(value);
    }
  }

  #boundOf(value: Value | undefined): number {
    if (!value) return 0;
    if (value.constant) return this.#isFloat32(value) ? largestOf(value) : 0;
    return this.#counted.get(value) ?? Number.POSITIVE_INFINITY;
  }

  /** The largest magnitude of an integer or boolean value, as far as its type or the type that it was cast from tells. */
  #wholeBound(value: Value): number {
    const dtype = this.#types.get(value)!;
    const { kind, bits } = DTYPES[dtype];
    const ofType = kind === "bool" ? 1 : 2 ** (kind === "int" ? bits - 1 : bits);
    const { producer } = value;
    if (producer?.domain !== "" || !isWhole(this.#types, producer.inputs[0])) return ofType;
    if (producer.opType !== "Cast" && operatorOf(producer)?.moves !== "first") return ofType;
    return Math.min(ofType, this.#wholeBound(producer.inputs[0]!));
  }

  // ---- decisions ---------------------------------------------------------------------------------------------------

  #decide(node: Node): void {
    const { exact = [], float32 = [] } = operatorOf(node) ?? {};
    const isCast = node.opType === "Cast" && node.domain === "" && !isFloatType(this.#types, node.outputs[0]!);
    for (const index of isCast ? [0] : exact) {
      const value = node.inputs[index];
      if (!this.#isFloat32(value)) continue;
      // Scales of a Resize are float32 in a float16 Resize as well.
      if (!float32.includes(index)) this.#keep(node, DECIDES);
      this.#trace(value, node);
    }
  }

  /** Keeps what computes `value`, back to where weights join, for the sake of `sink`. */
  #trace(value: Value, sink: Node): void {
    const message = `It computes what "${sink.label}" (${sink.opType}) reads, which may not be rounded.`;
    const isAngle = operatorOf(sink)?.periodic;
    const seen = new Set<Value>();
    const open = [value];
    for (let next = open.pop(); next; next = open.pop()) {
      const { producer } = next;
      if (seen.has(next) || !producer || next.constant || !this.#isFloat32(next)) continue;
      seen.add(next);
      if (readsTable(producer)) continue;
      if (joinsWeights(producer) && !(isAngle && this.#derived.has(next))) continue;
      this.#keep(producer, { code: "exact", message });
      open.push(...this.#floatInputs(producer));
      const index = producer.outputs.indexOf(next);
      if (producer.opType === "If") open.push(...producer.bodies().map(({ outputs }) => outputs[index]!));
    }
  }

  // ---- numbers that are too large ----------------------------------------------------------------------------------

  #bound(node: Node): void {
    const { estimates, limits, magnitude } = operatorOf(node) ?? {};
    if (node.domain !== "" || node.bodies().length > 0) return;
    const outputs = node.outputs.filter((value) => this.#isFloat32(value));
    const own = outputs[0] && this.#counted.get(outputs[0]);
    if (own !== undefined) {
      if (own > MAX_SAFE) for (const value of outputs) this.#wide.add(value);
      return;
    }
    const counted = this.#floatInputs(node).find(
      (value) => (this.#counted.get(value) ?? 0) > (isSum(node) ? MAX_ADDEND : MAX_SAFE),
    );
    const huge = estimates || limits ? undefined : node.inputs.find((value) => this.#isHuge(node, value));
    const filled = node.opType === "ConstantOfShape" ? Math.abs(filling(node)) : 0;
    if (!counted && !huge && !(filled > MAX_SAFE && filled < Number.POSITIVE_INFINITY)) return;
    this.#keep(node, counted ? COUNTS : tooLarge(huge));
    if (estimates || typeof magnitude === "number") return;
    for (const value of outputs) {
      this.#wide.add(value);
      this.#absorb(value);
    }
  }

  #isHuge(node: Node, value: Value | undefined): boolean {
    if (!this.#isFloat32(value) || !value.constant) return false;
    return largestOf(value) > (isSum(node) ? MAX_ADDEND : onlyMoves(node) ? MAX_SAFE : MAX_HALF);
  }

  /** Keeps the way of a value that may be too large to the Softmax, or the like, that makes it small. Answers whether there is one. */
  #absorb(value: Value, seen = new Set<Value>()): boolean {
    if (seen.has(value)) return false;
    seen.add(value);
    let found = false;
    for (const { node } of value.uses) {
      const { absorbs, masks, magnitude } = operatorOf(node) ?? {};
      const outputs = node.outputs.filter((output) => this.#isFloat32(output));
      const leads =
        absorbs || ((masks || onlyMoves(node)) && outputs.map((output) => this.#absorb(output, seen)).some((it) => it));
      if (!leads) continue;
      found = true;
      this.#keep(node, MASKED);
      if (typeof magnitude !== "number") for (const output of outputs) this.#wide.add(output);
    }
    return found;
  }
}

function isSum({ opType }: Node): boolean {
  return opType === "Add" || opType === "Sub";
}

const MASKED: KeptReason = {
  code: "mask",
  message: "What it reads is masked with numbers that float16 cannot hold.",
};

function tooLarge(value: Value | undefined): KeptReason {
  const what = value ? `"${value.name}" holds ${largestOf(value).toPrecision(6)}` : "It fills a tensor with a number";
  return {
    code: "mask",
    message: `${what}, which float16 cannot add to others: it has no fractions past 2048, and ends at ${MAX_HALF}.`,
  };
}

function filling(node: Node): number {
  const value = node.tensor("value");
  return value?.dtype === "float32" ? floatsOf(value)[0]! : 0;
}

function isWhole(types: DTypes, value: Value | undefined): boolean {
  const dtype = value && types.get(value);
  return dtype !== undefined && ["int", "uint", "bool"].includes(DTYPES[dtype].kind);
}

function isFloatType(types: DTypes, value: Value): boolean {
  const dtype = types.get(value);
  return dtype === undefined || !["int", "uint", "bool", "string"].includes(DTYPES[dtype].kind);
}

/** The largest finite magnitude of a constant. */
function largestOf(value: Value): number {
  let largest = 0;
  for (const x of floatsOf(value.constant!)) {
    const magnitude = Math.abs(x);
    if (magnitude > largest && magnitude < Number.POSITIVE_INFINITY) largest = magnitude;
  }
  return largest;
}

function readsTable(node: Node): boolean {
  const [data] = node.inputs;
  return (
    operatorOf(node)?.indexes === true &&
    data?.constant !== undefined &&
    elementCount(data.constant.dims) >= MIN_TABLE_ELEMENTS
  );
}

/** Whether a node sums over weights. A product of a column and a row does not: frequencies and positions meet so. */
function joinsWeights(node: Node): boolean {
  if (!operatorOf(node)?.estimates) return false;
  if (!["MatMul", "Gemm", "Einsum", "FusedMatMul"].includes(node.opType)) return true;
  const [left, right] = node.inputs;
  if (node.opType === "Einsum") {
    const [terms = "", result] = node.string("equation", "").replaceAll(" ", "").split("->");
    return result === undefined || [...terms].some((letter) => /\w/.test(letter) && !result.includes(letter));
  }
  const row = right?.shape;
  const column = left?.shape;
  const summed = [
    column?.at(node.int("transA", 0) ? -2 : -1),
    row?.at(row.length > 1 && !node.int("transB", 0) ? -2 : -1),
  ];
  return !summed.includes(1);
}

/** What |result| cannot exceed, for operators on whole numbers; infinity where that is not known. */
function resultBound(node: Node, of: (value: Value | undefined) => number): number {
  const { magnitude = onlyMoves(node) ? "largest" : Number.POSITIVE_INFINITY } = operatorOf(node) ?? {};
  if (typeof magnitude === "number") return magnitude;
  const all = node.inputs.map(of);
  return magnitude === "largest" ? Math.max(...all) : magnitude(node, all);
}

/** Whether it computes no elements of its own. */
function onlyMoves(node: Node): boolean {
  const { moves, chooses } = operatorOf(node) ?? {};
  return moves !== undefined || chooses === true;
}
