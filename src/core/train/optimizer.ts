/**
 * Optimizers as one pass over typed arrays: gradient in, parameter and state changed in place. Weight decay λ, learning rate η, step t from 1.
 *
 *   SGD    v ← μv + g + λp;  p ← p − ηv   (Nesterov: p ← p − η(g + λp + μv))
 *   Adam   g ← g + λp;  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  p ← p − η·(m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε)      (Kingma and Ba 2015)
 *   AdamW  as Adam, but p ← p(1 − ηλ) first instead of adding λp to g                                        (Loshchilov and Hutter 2019)
 */

import type { Floats } from "./parameter-kernels.ts";
import { updateAdam } from "./parameter-kernels.ts";

export type OptimizerSpec =
  | { readonly kind: "sgd"; readonly momentum: number; readonly nesterov: boolean }
  | { readonly kind: "adam" | "adamw"; readonly beta1: number; readonly beta2: number; readonly epsilon: number };

/** The usual settings of each optimizer. */
export const OPTIMIZERS = {
  sgd: { kind: "sgd", momentum: 0.9, nesterov: false },
  adam: { kind: "adam", beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
  adamw: { kind: "adamw", beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
} as const satisfies { [K in OptimizerSpec["kind"]]: OptimizerSpec & { kind: K } };

export interface Update {
  readonly learningRate: number;
  readonly weightDecay: number;
  /** Counts from 1. */
  readonly step: number;
  /** Gradients are multiplied by it first: the factor of clipping. */
  readonly gradientScale: number;
}

/** How many arrays of state an optimizer keeps for each parameter. */
export function slotCount(spec: OptimizerSpec): number {
  if (spec.kind === "sgd") return spec.momentum === 0 ? 0 : 1;
  return 2;
}

/** Moves one parameter along its gradient. `parameter` and `slots` are of `allocateParameters`; `slots` start as zeros. */
export function applyUpdate(
  spec: OptimizerSpec,
  parameter: Floats,
  gradient: Float32Array,
  slots: readonly Floats[],
  update: Update,
): void {
  if (spec.kind === "sgd") applySgd(spec, parameter, gradient, slots[0], update);
  else applyAdam(spec, parameter, gradient, slots as readonly [Floats, Floats], update);
}

function applySgd(
  { momentum, nesterov }: OptimizerSpec & { kind: "sgd" },
  p: Floats,
  gradient: Float32Array,
  v: Floats | undefined,
  { learningRate, weightDecay, gradientScale }: Update,
): void {
  for (let i = 0; i < p.length; i++) {
    const g = gradient[i]! * gradientScale + weightDecay * p[i]!;
    if (!v) {
      p[i]! -= learningRate * g;
      continue;
    }
    const next = momentum * v[i]! + g;
    v[i] = next;
    p[i]! -= learningRate * (nesterov ? g + momentum * next : next);
  }
}

function applyAdam(
  { kind, beta1, beta2, epsilon }: OptimizerSpec & { kind: "adam" | "adamw" },
  p: Floats,
  gradient: Float32Array,
  [m, v]: readonly [Floats, Floats],
  { learningRate, weightDecay, gradientScale, step }: Update,
): void {
  updateAdam(p, gradient, m, v, {
    scale: gradientScale,
    coupled: kind === "adam" ? weightDecay : 0,
    kept: kind === "adamw" ? 1 - learningRate * weightDecay : 1,
    beta1,
    rest1: 1 - beta1,
    beta2,
    rest2: 1 - beta2,
    rate: learningRate / (1 - beta1 ** step),
    correction: 1 / Math.sqrt(1 - beta2 ** step),
    epsilon,
  });
}

/** average ← d·average + (1 − d)·values: running statistics, and the moving average of weights. */
export function moveAverage(average: Floats, values: Float32Array, decay: number): void {
  const rest = 1 - decay;
  for (let i = 0; i < average.length; i++) average[i] = decay * average[i]! + rest * values[i]!;
}
