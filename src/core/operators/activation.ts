import type { Node } from "../onnx/ir.ts";
import type { OperatorRecord, Records } from "./operator-record.ts";

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const hardSigmoid = (x: number, alpha: number, beta: number) => Math.min(Math.max(alpha * x + beta, 0), 1);

function clip(x: number, low?: number, high?: number): number {
  return Math.min(Math.max(x, low ?? Number.NEGATIVE_INFINITY), high ?? Number.POSITIVE_INFINITY);
}

/** A function of each element, with nothing else to read. */
function unary<const T extends Partial<OperatorRecord>>(since: number, rest: T) {
  return { since, channels: "unary", ...rest } as const;
}

/** Limits that are not constant do not make anything larger. */
function clippedMagnitude({ inputs: [, low, high] }: Node, [x = 0, ofLow = 0, ofHigh = 0]: readonly number[]): number {
  return low?.constant && high?.constant ? Math.max(ofLow, ofHigh) : x;
}

const RECTIFIER = { homogeneous: true, small: "pass", rectifies: true } as const;
const SATURATES = { absorbs: true, magnitude: 1 } as const;
const HARD_SIGMOID = { alpha: 0.2, beta: 0.5 };
const LEAKY_RELU = { alpha: 0.01 };

export const ACTIVATION = {
  Relu: unary(1, {
    folds: "unchanged",
    pointwise: () => (x: number) => Math.max(x, 0),
    clamps: () => ({ low: 0 }),
    magnitude: "largest",
    ...RECTIFIER,
  }),
  LeakyRelu: unary(1, {
    defaults: LEAKY_RELU,
    ...RECTIFIER,
    pointwise: (node: Node) => {
      const alpha = node.float("alpha", LEAKY_RELU.alpha);
      return (x: number) => (x < 0 ? alpha * x : x);
    },
  }),
  PRelu: { since: 1, constants: { 1: "slope" }, channels: "elementwise", ...RECTIFIER },
  Elu: unary(1, { defaults: { alpha: 1 }, rectifies: true }),
  Selu: unary(1, { defaults: { alpha: 1.6732631921768188, gamma: 1.0507010221481323 }, rectifies: true }),
  Celu: { since: 12, defaults: { alpha: 1 } },
  ThresholdedRelu: { since: 10, defaults: { alpha: 1 } },
  Sigmoid: unary(1, { folds: "unchanged", pointwise: () => sigmoid, shares: true, ...SATURATES }),
  HardSigmoid: unary(1, {
    defaults: HARD_SIGMOID,
    shares: true,
    ...SATURATES,
    pointwise: (node: Node) => {
      const [alpha, beta] = [node.float("alpha", HARD_SIGMOID.alpha), node.float("beta", HARD_SIGMOID.beta)];
      return (x: number) => hardSigmoid(x, alpha, beta);
    },
  }),
  HardSwish: unary(14, { pointwise: () => (x: number) => x * hardSigmoid(x, 1 / 6, 0.5), rectifies: true }),
  Tanh: unary(1, { folds: "unchanged", pointwise: () => Math.tanh, ...SATURATES }),
  Erf: unary(9, { folds: "unchanged", ...SATURATES }),
  Gelu: unary(20, { rectifies: true }),
  Mish: unary(18, { rectifies: true }),
  Softplus: unary(1, { rectifies: true }),
  Softsign: unary(1, SATURATES),
  Swish: { since: 24, defaults: { alpha: 1 } },
  Shrink: { since: 9, defaults: { bias: 0, lambd: 0.5 } },
  /** Before version 11 its limits are attributes. */
  Clip: unary(1, {
    steering: [1, 2],
    folds: "unchanged",
    pointwise: () => clip,
    clamps: (node: Node) => ({ low: node.inputs[1] ?? node.float("min"), high: node.inputs[2] ?? node.float("max") }),
    small: "pass",
    rectifies: true,
    limits: true,
    magnitude: clippedMagnitude,
  }),
  Dropout: unary(1, { results: [0, "bool"], steering: [1], float32: [1] }),
} as const satisfies Records;
