import type { Node } from "../onnx/ir.ts";
import { floatsOf, type Tensor } from "../onnx/tensor.ts";
import type { OperatorRecord, Records } from "./operator-record.ts";
import { fromAttribute, UNKNOWN } from "./result-types.ts";

type Rest = Partial<OperatorRecord>;

/** A function of each element of one input. */
function unary<const T extends Rest>(since: number, rest: T) {
  return { since, channels: "unary", ...rest } as const;
}

/** A function of the elements at one position of inputs that are broadcast to one shape. */
function broadcast<const T extends Rest>(since: number, rest: T) {
  return { since, channels: "elementwise", folds: "broadcast", ...rest } as const;
}

/** As `broadcast`, giving out truths. */
function comparison<const T extends Rest>(since: number, rest: T) {
  return { since, results: ["bool"], derivative: "zero", folds: "broadcast", ...rest } as const;
}

/** What is compared, or rounded to whole numbers, is another answer when it was rounded before. */
const COMPARES = { exact: [0, 1], absorbs: true } as const;
const ROUNDS = { exact: [0], magnitude: (_: Node, [x = 0]: readonly number[]) => x + 1 } as const;

const BOTH = { 0: "bias", 1: "bias" } as const;
const FACTORS = { 0: "scale", 1: "scale" } as const;

const sum = (numbers: readonly number[]) => numbers.reduce((total, it) => total + it, 0);
const largest = { magnitude: "largest", masks: true } as const;

/** The smallest magnitude of a constant. */
function leastOf(constant: Tensor): number {
  return floatsOf(constant).reduce((least, x) => Math.min(least, Math.abs(x)), Number.POSITIVE_INFINITY);
}

function quotientMagnitude({ inputs: [, divisor] }: Node, [x = 0]: readonly number[]): number {
  const least = divisor?.constant ? leastOf(divisor.constant) : 0;
  return least > 0 ? x / least : Number.POSITIVE_INFINITY;
}

/** The logarithm of float32 numbers above zero. */
const LOG_MAGNITUDE = 104;

const FOLDED = { folds: "unchanged" } as const;

export const ELEMENTWISE = {
  Add: broadcast(1, {
    constants: BOTH,
    pointwise: () => (a: number, b: number) => a + b,
    affine: (shift: number) => ({ factor: 1, shift }),
    small: "pass",
    masks: true,
    magnitude: (_: Node, [a = 0, b = 0]: readonly number[]) => a + b,
  }),
  Sub: broadcast(1, {
    constants: BOTH,
    pointwise: () => (a: number, b: number) => a - b,
    affine: (c: number, at: 0 | 1) => (at === 1 ? { factor: 1, shift: -c } : { factor: -1, shift: c }),
    small: "pass",
    masks: true,
    magnitude: (_: Node, [a = 0, b = 0]: readonly number[]) => a + b,
  }),
  Mul: broadcast(1, {
    constants: FACTORS,
    pointwise: () => (a: number, b: number) => a * b,
    affine: (factor: number) => ({ factor, shift: 0 }),
    small: "pass",
    masks: true,
    // A product with a bound of zero is zero, however large the other factor may be.
    magnitude: (_: Node, [a = 0, b = 0]: readonly number[]) => (a === 0 || b === 0 ? 0 : a * b),
  }),
  Div: broadcast(1, {
    constants: { 1: "scale" },
    pointwise: () => (a: number, b: number) => a / b,
    affine: (divisor: number, at: 0 | 1) => (at === 1 ? { factor: 1 / divisor, shift: 0 } : undefined),
    small: "pass",
    masks: true,
    magnitude: quotientMagnitude,
    poles: [1],
  }),
  Pow: broadcast(1, { small: "pass" }),
  Mod: { since: 10, folds: "broadcast", exact: [0, 1] },
  Max: broadcast(1, { small: "pass", limits: true, ...largest }),
  Min: broadcast(1, { small: "pass", limits: true, ...largest }),
  Sum: {
    since: 1,
    channels: "elementwise",
    small: "pass",
    magnitude: (_: Node, all: readonly number[]) => sum(all),
  },
  Mean: { since: 1, channels: "elementwise", small: "pass" },
  Where: broadcast(9, { results: [1], chooses: true, small: "pass" }),
  Equal: comparison(1, { channels: "elementwise", ...COMPARES }),
  Greater: comparison(1, { channels: "elementwise", ...COMPARES }),
  GreaterOrEqual: comparison(12, COMPARES),
  Less: comparison(1, { channels: "elementwise", ...COMPARES }),
  LessOrEqual: comparison(12, COMPARES),
  And: comparison(1, { channels: "elementwise" }),
  Or: comparison(1, { channels: "elementwise" }),
  Xor: comparison(1, {}),
  Not: { since: 1, results: ["bool"], derivative: "zero", channels: "elementwise", folds: "unchanged" },
  IsNaN: { since: 9, results: ["bool"], derivative: "zero" },
  IsInf: { since: 10, results: ["bool"], derivative: "zero" },
  RegexFullMatch: { since: 20, results: ["bool"] },
  Abs: unary(1, { ...FOLDED, pointwise: () => Math.abs, small: "pass", magnitude: "largest" }),
  Neg: unary(1, { ...FOLDED, pointwise: () => (x: number) => -x, small: "linear", ...largest }),
  Exp: unary(1, {
    ...FOLDED,
    pointwise: () => Math.exp,
    absorbs: true,
    magnitude: (_: Node, [x = 0]: readonly number[]) => Math.exp(x),
  }),
  Log: unary(1, { ...FOLDED, magnitude: LOG_MAGNITUDE, poles: [0] }),
  Sqrt: unary(1, {
    ...FOLDED,
    small: "pass",
    magnitude: (_: Node, [x = 0]: readonly number[]) => Math.max(1, x),
  }),
  Reciprocal: unary(1, { ...FOLDED, poles: [0] }),
  Sign: { since: 9, derivative: "zero", ...FOLDED },
  Floor: { since: 1, derivative: "zero", ...FOLDED, ...ROUNDS },
  Ceil: { since: 1, derivative: "zero", ...FOLDED, ...ROUNDS },
  Round: { since: 11, ...FOLDED, ...ROUNDS },
  Sin: { since: 7, exact: [0], periodic: true, magnitude: 1 },
  Cos: { since: 7, exact: [0], periodic: true, magnitude: 1 },
  Tan: { since: 7, exact: [0], periodic: true },
  Asin: { since: 7 },
  Acos: { since: 7 },
  Atan: { since: 7 },
  Sinh: { since: 9 },
  Cosh: { since: 9 },
  Asinh: { since: 9 },
  Acosh: { since: 9 },
  Atanh: { since: 9 },
  BitShift: { since: 11 },
  BitwiseAnd: { since: 18 },
  BitwiseOr: { since: 18 },
  BitwiseXor: { since: 18 },
  BitwiseNot: { since: 18 },
  BitCast: { since: 26, results: [UNKNOWN], exact: [0] },
  Cast: unary(1, { results: [fromAttribute("to")], ...FOLDED, small: "linear", ...largest }),
  CastLike: { since: 15, results: [1] },
  CumSum: { since: 11, exact: [0] },
  CumProd: { since: 26, exact: [0] },
} as const satisfies Records;
