import { checkCancelled } from "../errors.ts";
import type { Model, Value } from "../onnx/ir.ts";
import { elementCount } from "../onnx/tensor.ts";
import { removeDeadCode } from "./dead-code.ts";
import { mergeDuplicates } from "./dedupe.ts";
import { type Evaluate, foldConstants } from "./fold-constants.ts";
import { foldMoves } from "./fold-moves.ts";
import { fuseAffine } from "./fuse-affine.ts";
import { bypassIdentities } from "./identity.ts";
import { type Condition, checkInvariants, type Note, type Pass, runPasses } from "./pass.ts";

/** Whether a value is a weight, and not a scalar or an integer that can be a real option. */
function isWeight({ constant }: Value): boolean {
  return constant ? constant.dtype.includes("float") && elementCount(constant.dims) > 1 : false;
}

const WEIGHTS_SEALED: Condition = {
  clause: "no weight is among the inputs",
  holds: (model) => model.irVersion >= 4 && [...model.graphs()].every(({ inputs }) => !inputs.some(isWeight)),
};

/**
 * Takes weights off the list of inputs, where old exporters put every initializer so that callers could override it. Nobody does, and a runtime must
 * not fold or pack a weight that may be overridden. Scalars and integers stay: those can be real options, from IR version 4 on, which this
 * raises older models to.
 */
export const sealWeights: Pass = {
  name: "seal weights",
  ensures: [WEIGHTS_SEALED],
  run(model) {
    let changed = model.irVersion < 4;
    for (const graph of model.graphs()) {
      for (const value of graph.inputs.filter(({ constant }) => constant)) {
        if (model.irVersion >= 4 && !isWeight(value)) continue;
        graph.setOverridable(value, false);
        changed = true;
      }
    }
    model.irVersion = Math.max(model.irVersion, 4);
    return changed;
  },
};

/** Leaves out what exporters note about their own source code at every node (stack traces, mostly): it is of no use to whoever runs the model. */
export const dropTraces: Pass = {
  name: "drop traces",
  once: true,
  run(model) {
    const changed = !model.withoutTraces;
    model.withoutTraces = true;
    return changed;
  },
};

export interface SimplifyOptions {
  /** Passes by name that are left out. */
  readonly except?: readonly string[];
}

/** The passes that make a model smaller without changing what it computes, in the order in which they help each other. */
export function simplifyPasses(options: SimplifyOptions = {}): readonly Pass[] {
  const all = [sealWeights, bypassIdentities, foldMoves, fuseAffine, mergeDuplicates, removeDeadCode, dropTraces];
  return all.filter(({ name }) => !options.except?.includes(name));
}

/**
 * A simplified copy of a model: the passes of `simplifyPasses`, and before them constant folding when `evaluate` is given. Float results are
 * the same up to rounding (1e-5 of the largest output).
 */
export async function simplify(
  model: Model,
  options: SimplifyOptions & { readonly evaluate?: Evaluate; readonly signal?: AbortSignal } = {},
): Promise<{ readonly model: Model; readonly notes: readonly Note[] }> {
  const { evaluate, signal } = options;
  if (!evaluate) return runPasses(model, simplifyPasses(options), { settle: true });
  const { model: copy } = runPasses(model, [sealWeights, bypassIdentities]);
  await foldConstants(copy, evaluate);
  checkInvariants(copy, "fold constants");
  checkCancelled(signal);
  return runPasses(copy, simplifyPasses(options), { settle: true });
}
