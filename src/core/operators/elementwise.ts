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

const FOLDED = { folds: "unchanged" } as const;

export const ELEMENTWISE = {
  Add: broadcast(1, { constants: { 0: "bias", 1: "bias" }, pointwise: () => (a: number, b: number) => a + b }),
  Sub: broadcast(1, { constants: { 0: "bias", 1: "bias" }, pointwise: () => (a: number, b: number) => a - b }),
  Mul: broadcast(1, { constants: { 0: "scale", 1: "scale" }, pointwise: () => (a: number, b: number) => a * b }),
  Div: broadcast(1, { constants: { 1: "scale" }, pointwise: () => (a: number, b: number) => a / b }),
  Pow: broadcast(1, {}),
  Mod: { since: 10, folds: "broadcast" },
  Max: broadcast(1, {}),
  Min: broadcast(1, {}),
  Sum: { since: 1, channels: "elementwise" },
  Mean: { since: 1, channels: "elementwise" },
  Where: broadcast(9, { results: [1] }),
  Equal: comparison(1, { channels: "elementwise" }),
  Greater: comparison(1, { channels: "elementwise" }),
  GreaterOrEqual: comparison(12, {}),
  Less: comparison(1, { channels: "elementwise" }),
  LessOrEqual: comparison(12, {}),
  And: comparison(1, { channels: "elementwise" }),
  Or: comparison(1, { channels: "elementwise" }),
  Xor: comparison(1, {}),
  Not: { since: 1, results: ["bool"], derivative: "zero", channels: "elementwise", folds: "unchanged" },
  IsNaN: { since: 9, results: ["bool"], derivative: "zero" },
  IsInf: { since: 10, results: ["bool"], derivative: "zero" },
  RegexFullMatch: { since: 20, results: ["bool"] },
  Abs: unary(1, { ...FOLDED, pointwise: () => Math.abs }),
  Neg: unary(1, { ...FOLDED, pointwise: () => (x: number) => -x }),
  Exp: unary(1, { ...FOLDED, pointwise: () => Math.exp }),
  Log: unary(1, FOLDED),
  Sqrt: unary(1, FOLDED),
  Reciprocal: unary(1, FOLDED),
  Sign: { since: 9, derivative: "zero", ...FOLDED },
  Floor: { since: 1, derivative: "zero", ...FOLDED },
  Ceil: { since: 1, derivative: "zero", ...FOLDED },
  Round: { since: 11, ...FOLDED },
  Sin: { since: 7 },
  Cos: { since: 7 },
  Tan: { since: 7 },
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
  BitCast: { since: 26, results: [UNKNOWN] },
  Cast: unary(1, { results: [fromAttribute("to")], ...FOLDED }),
  CastLike: { since: 15, results: [1] },
  CumSum: { since: 11 },
  CumProd: { since: 26 },
} as const satisfies Records;
