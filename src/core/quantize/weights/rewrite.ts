import { byteLengthOf } from "../../onnx/dtype.ts";
import type { Model } from "../../onnx/ir.ts";
import { upgradeOpset } from "../../onnx/opset.ts";
import { elementCount } from "../../onnx/tensor.ts";
import { removeDeadCode } from "../../passes/dead-code.ts";
import { type NodeTest, type NoteSink, noteOn } from "../../passes/pass.ts";
import { sealWeights } from "../../passes/simplify.ts";
import type { WeightViews } from "../../passes/weight-views.ts";
import { findWeights, type WeightSlot } from "./slots.ts";

/** One way to store the weights of a node. */
export interface Rewrite {
  /** What the weights and the operators they need will take up in the file, about. */
  readonly bytes: number;
  /** Stable name of the form, and a sentence about it, for the report. */
  readonly code: string;
  readonly message: string;
  /** Rewrites the graph. */
  apply(): void;
}

/** Answers how the weights of one node (all of its slots) can be stored, or undefined when this form does not suit them. */
export type RewriteForm = (slots: readonly WeightSlot[]) => Rewrite | undefined;

/** The first operator set in which Sub and Mul broadcast as everywhere else: forms of storage are made of them. */
const BROADCASTING_OPSET = 7;

/**
 * Rewrites every weight in the first form that suits it, where that makes the file smaller. `formsFor` is told all weights that may be
 * rewritten. Answers whether anything was.
 */
export function rewriteWeights(
  model: Model,
  views: WeightViews,
  isExcluded: NodeTest,
  formsFor: (slots: readonly WeightSlot[]) => readonly RewriteForm[],
  note: NoteSink,
): boolean {
  const found = findWeights(model, views, isExcluded, note);
  const forms = formsFor([...found.values()].flat());
  let changed = false;
  for (const [node, slots] of found) {
    const rewrite = firstSuiting(forms, slots);
    if (!rewrite) {
      note(
        noteOn(
          node,
          "skipped",
          "unsupported_weight",
          `There is no quantized form of ${node.opType} for weights like these.`,
        ),
      );
      continue;
    }
    const before = slots.reduce((sum, { view }) => sum + byteLengthOf(view.dtype, elementCount(view.dims)), 0);
    if (rewrite.bytes >= before) {
      note(noteOn(node, "skipped", "no_gain", `Its ${before} bytes of weights would not become smaller.`));
      continue;
    }
    if (!changed) upgradeOpset(model, BROADCASTING_OPSET);
    changed = true;
    rewrite.apply();
    note(noteOn(node, "changed", rewrite.code, rewrite.message));
  }
  if (changed) {
    // What goes are the weights as they were, even where they are listed as inputs, and what made them.
    sealWeights.run(model, note);
    removeDeadCode.run(model, note);
  }
  return changed;
}

function firstSuiting(forms: readonly RewriteForm[], slots: readonly WeightSlot[]): Rewrite | undefined {
  for (const form of forms) {
    const rewrite = form(slots);
    if (rewrite) return rewrite;
  }
  return undefined;
}
