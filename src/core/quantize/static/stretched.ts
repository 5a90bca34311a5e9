/**
 * Finds layers whose results are stretched: they reach a logarithm, a root, an exponential or a denominator. A spectrum on its way to decibels holds
 * values of very different size, and the small ones, which eight bits round to zero, count as much as the large ones behind the logarithm.
 * Such layers stay in float, unless the outputs are measured to be as good without that (`chooseStretched`).
 *
 * Whether an operator stretches is told by what was seen of its input: f(x̂) of the values rounded to 8 bits is compared with f(x). The square
 * root of a variance that is never small (LayerNormalization written out) stretches nothing.
 *
 * From the operator back, everything that lets small values through belongs to it: sums, products, squares, moves, up to the layers that make
 * the values. Layers in front of those belong to it too as long as everything between them is linear or a square: resampling before a bank of
 * filters, the bank before the mel matrix. A Relu between layers ends the walk, or whole networks with a logarithm at their end would stay in
 * float.
 */
import type { Model, Node, Value } from "../../onnx/ir.ts";
import { arrayOf } from "../../onnx/tensor.ts";
import { entryFor, isOneOf, type OpType, operatorOf } from "../../operators/operators.ts";
import type { ActivationObserver } from "../calibration/observers.ts";
import { observedRange } from "../calibration/thresholds.ts";
import { isFloatConstant, type Refusal, ruleFor, scalarOf } from "./operators.ts";
import type { FloatNode } from "./storage.ts";

/** An operator that may stretch what it reads. */
export interface Stretch {
  readonly node: Node;
  readonly input: Value;
  readonly becomes: (x: number) => number;
  /** It is the small values that suffer, not all of them. */
  readonly ofSmall: boolean;
}

/** Below this, what an operator makes of rounded values counts as destroyed. */
const MIN_SQNR_DB = 30;
const STEPS = 255;
/** Of the width of the bin above zero: no smaller value is expected where none is known to be the smallest. */
const SMALLEST_SHARE = 1e-3;

const STRETCHES: Readonly<Partial<Record<OpType, (node: Node) => Omit<Stretch, "node"> | undefined>>> = {
  Log: ({ inputs }) => stretch(inputs[0], Math.log),
  ReduceLogSum: ({ inputs }) => stretch(inputs[0], Math.log),
  Sqrt: ({ inputs }) => stretch(inputs[0], Math.sqrt),
  Reciprocal: ({ inputs }) => stretch(inputs[0], (x) => 1 / x),
  Div: ({ inputs }) => stretch(inputs[1], (x) => 1 / x),
  Exp: ({ inputs }) => stretch(inputs[0], Math.exp, false),
  Pow({ inputs }) {
    const base = scalarOf(inputs[0]);
    if (base !== undefined) return stretch(inputs[1], (x) => base ** x, false);
    const exponent = leastOf(inputs[1]);
    // Magnitudes: odd powers of negative numbers are as large.
    return exponent === undefined || exponent >= 1 ? undefined : stretch(inputs[0], (x) => Math.abs(x) ** exponent);
  },
};

function stretch(input: Value | undefined, becomes: (x: number) => number, ofSmall = true) {
  return input && !input.constant ? { input, becomes, ofSmall } : undefined;
}

/** The least of a constant's numbers. */
function leastOf(value: Value | undefined): number | undefined {
  if (!isFloatConstant(value)) return undefined;
  const numbers = arrayOf(value!.constant!, "float32");
  return numbers.length > 0 ? numbers.reduce((a, b) => Math.min(a, b)) : undefined;
}

/** Operators of the model that may stretch what they read; what they read has to be observed to know. */
export function stretchesIn(model: Model): Stretch[] {
  return [...model.nodes()].flatMap((node) => {
    const found = entryFor(STRETCHES, node)?.(node);
    return found ? [{ node, ...found }] : [];
  });
}

/** The nodes in front of one operator that stretches what they make. */
export interface StretchedGroup {
  /** The name of the operator's node. */
  readonly operator: string;
  readonly nodes: ReadonlySet<string>;
  /** Why they should stay in float. */
  readonly reason: Refusal;
}

/** The groups of nodes whose results would be destroyed. Of operators whose input was not seen nothing is known. */
export function stretchedGroups(
  model: Model,
  seen: (name: string) => ActivationObserver | undefined,
): StretchedGroup[] {
  return stretchesIn(model).flatMap(({ node, input, becomes, ofSmall }) => {
    const observer = seen(input.name);
    if (!observer || observer.histogram.count === 0) return [];
    const sqnrDb = roundedSqnrDb(observer, becomes, isSquared(input));
    if (sqnrDb >= MIN_SQNR_DB) return [];
    // A product that gives out floats is no coarser than its operands, which is fine where small values count for nothing.
    const makers = [...makersOf(input)].filter((maker) => ofSmall || !ruleFor(maker)?.floatOutput);
    if (makers.length === 0) return [];
    const left = sqnrDb > 0 ? `an SQNR of ${sqnrDb.toFixed(1)} dB` : "nothing";
    const reason: Refusal = {
      code: "stretched",
      message: `Its result reaches ${node.opType} "${node.label}": of 8-bit values, that would leave ${left}.`,
    };
    return [{ operator: node.name, nodes: new Set(makers.map(({ name }) => name)), reason }];
  });
}

/**
 * What becomes of the nodes in front of an operator that stretches small values: `float`, `stored` (computed in float, of weights that are
 * stored in 8 bits) or `quantized` like all others.
 */
export type StretchedForm = "float" | "stored" | "quantized";

/** By the operators of groups; those that are not named stay in float. */
export type StretchedForms = ReadonlyMap<string, StretchedForm>;

/** The nodes of `groups` that stay in float. A node in front of several operators has the most careful of their forms. */
export function nodesInFloat(
  groups: readonly StretchedGroup[],
  forms: StretchedForms = new Map(),
): Map<string, FloatNode> {
  const found = new Map<string, FloatNode>();
  for (const { operator, nodes, reason } of groups) {
    const form = forms.get(operator) ?? "float";
    if (form === "quantized") continue;
    for (const name of nodes) {
      const known = found.get(name);
      if (!known || (known.storesWeights && form === "float")) {
        found.set(name, { ...reason, storesWeights: form === "stored" });
      }
    }
  }
  return found;
}

/** What the outputs may lose by a cheaper form: a sixth of a bit, and what few samples can tell. */
const MAX_LOSS_DB = 1;
/** With more operators all of them have one form. */
const MAX_CHOICES = 8;

/**
 * The cheapest forms with which the outputs are as good as with all groups in float: `sqnrDb` says how good they are with some forms. Answers
 * also how good they are with everything quantized, and as chosen.
 */
export async function chooseStretched(
  groups: readonly StretchedGroup[],
  sqnrDb: (forms: StretchedForms) => Promise<number>,
): Promise<{ readonly forms: StretchedForms; readonly quantizedDb: number; readonly chosenDb: number }> {
  const operators = groups.map(({ operator }) => operator);
  const all = (form: StretchedForm) => new Map(operators.map((operator) => [operator, form]));
  const quantizedDb = await sqnrDb(all("quantized"));
  const floatDb = await sqnrDb(all("float"));
  const least = floatDb - MAX_LOSS_DB;
  if (quantizedDb >= least) return { forms: all("quantized"), quantizedDb, chosenDb: quantizedDb };
  let forms: StretchedForms = all("float");
  let chosenDb = floatDb;
  const attempt = async (candidate: StretchedForms): Promise<boolean> => {
    const reached = await sqnrDb(candidate);
    if (!(reached >= least)) return false;
    forms = candidate;
    chosenDb = reached;
    return true;
  };
  await attempt(all("stored"));
  if (operators.length > 1 && operators.length <= MAX_CHOICES) {
    for (const operator of operators) {
      if (await attempt(new Map([...forms, [operator, "quantized"]]))) continue;
      if (forms.get(operator) === "float") await attempt(new Map([...forms, [operator, "stored"]]));
    }
  }
  return { forms, quantizedDb, chosenDb };
}

/**
 * 10·log10 of Σ n·f(x)² over Σ n·(f(x) − f(x̂))², x̂ being x on a grid of 8 bits over the observed range; -Infinity where f(x̂) is no number. Of
 * squares it is the root, of either sign, that is rounded.
 */
function roundedSqnrDb({ histogram }: ActivationObserver, f: (x: number) => number, squared: boolean): number {
  const { min, max } = observedRange(histogram);
  const step = squared ? (2 * Math.sqrt(max)) / STEPS : (max - min) / STEPS;
  if (!(step > 0)) return Number.POSITIVE_INFINITY;
  const rounded = (x: number) =>
    squared ? (Math.round(Math.sqrt(Math.max(x, 0)) / step) * step) ** 2 : Math.round(x / step) * step;
  const { centres, counts, width } = histogram.points();
  // Values of many sizes share the bin above zero: it is they that are stretched.
  const smallest = Math.sqrt(Math.max(histogram.min, SMALLEST_SHARE * width) * width);
  let signal = 0;
  let noise = 0;
  for (let i = 0; i < centres.length; i++) {
    if (counts[i] === 0) continue;
    const centre = centres[i]! > 0 && centres[i]! < width ? smallest : centres[i]!;
    const x = f(centre);
    if (!Number.isFinite(x)) continue;
    signal += counts[i]! * x * x;
    noise += counts[i]! * (x - f(rounded(centre))) ** 2;
  }
  if (noise === 0) return Number.POSITIVE_INFINITY;
  return Number.isFinite(noise) ? 10 * Math.log10(signal / noise) : Number.NEGATIVE_INFINITY;
}

// ---- the way back ----------------------------------------------------------------------------------------------------

const WITH_CONSTANT: ReadonlySet<OpType> = new Set<OpType>(["Add", "Sub", "Mul"]);
const SUMS: ReadonlySet<OpType> = new Set<OpType>(["Add", "Sum"]);
const SUMS_OF_ANY: ReadonlySet<OpType> = new Set<OpType>([...SUMS, "ReduceSum", "ReduceMean"]);

function isMove(node: Node): boolean {
  return operatorOf(node)?.moves !== undefined;
}

/** A magnitude or its square, which is small where its input is. */
function isPower(node: Node | undefined): boolean {
  if (node?.domain !== "") return false;
  const { opType, inputs } = node;
  if (opType === "Mul") return inputs[0] === inputs[1];
  return opType === "Abs" || (opType === "Pow" && (leastOf(inputs[1]) ?? 0) >= 1);
}

/** Whether a value is a sum of squares, moved about or not, and constants. */
function isSquared(value: Value): boolean {
  const node = value.producer;
  if (!node) return false;
  if (node.opType === "ReduceSumSquare" || (node.opType !== "Abs" && isPower(node))) return true;
  if (!isMove(node) && !isOneOf(node, SUMS_OF_ANY)) return false;
  const inputs = node.inputs.filter((input) => input && !input.constant);
  return inputs.length > 0 && inputs.every((input) => isSquared(input!));
}

function isLinear(node: Node): boolean {
  if (isMove(node) || operatorOf(node)?.small === "linear" || isPower(node)) return true;
  if (isOneOf(node, WITH_CONSTANT) && node.inputs.some((input) => input?.constant)) return true;
  if (node.domain === "" && node.opType === "Div") return node.inputs[1]?.constant !== undefined;
  return isOneOf(node, SUMS) && node.inputs.every((input) => isPower(input?.producer));
}

/** Layers and pointwise nodes, on the way back from a value, that make what it is. */
function makersOf(start: Value): Set<Node> {
  const makers = new Set<Node>();
  const visited = new Map<Value, boolean>();
  const visit = (value: Value | undefined, behindLayer: boolean): void => {
    // Seen on the way to a layer, it was followed at least as far as behind one.
    if (!value || value.constant || visited.get(value) === false || visited.get(value) === behindLayer) return;
    visited.set(value, behindLayer);
    const node = value.producer;
    if (!node) return;
    const rule = ruleFor(node);
    const weight = rule?.weight?.(node);
    // Moves go with what they move.
    if (weight || (rule && rule.kind !== "movement" && (!behindLayer || isLinear(node)))) makers.add(node);
    if (weight) visit(node.inputs[rule!.activations(node)[0]!], true);
    else if (behindLayer ? isLinear(node) : operatorOf(node)?.small || isMove(node)) {
      for (const input of node.inputs) visit(input, behindLayer);
    }
  };
  visit(start, false);
  return makers;
}
