/** The gradient table: one entry for each operator, by family. An operator is trainable by being here, or in `expand.ts`. */

import { CONVOLUTION } from "./rules/convolution.ts";
import { ELEMENTWISE } from "./rules/elementwise.ts";
import type { GradientRule } from "./rules/gradient-rule.ts";
import { LINEAR_ALGEBRA } from "./rules/linear-algebra.ts";
import { MOVEMENT } from "./rules/movement.ts";
import { NORMALIZATION } from "./rules/normalization.ts";
import { POOLING } from "./rules/pooling.ts";
import { REDUCTIONS } from "./rules/reductions.ts";
import { RESAMPLING } from "./rules/resampling.ts";
import { ROUNDING } from "./rules/rounding.ts";

export const GRADIENT_RULES: Readonly<Record<string, GradientRule>> = {
  ...ELEMENTWISE,
  ...REDUCTIONS,
  ...LINEAR_ALGEBRA,
  ...CONVOLUTION,
  ...POOLING,
  ...NORMALIZATION,
  ...MOVEMENT,
  ...RESAMPLING,
  ...ROUNDING,
};
