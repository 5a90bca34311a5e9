import { CoreError } from "../../errors.ts";
import type { NoteCode } from "../../note-codes.ts";
import { byteLengthOf } from "../../onnx/dtype.ts";
import type { Model, Node } from "../../onnx/ir.ts";
import { upgradeOpset } from "../../onnx/opset.ts";
import { elementCount } from "../../onnx/tensor.ts";
import { removeDeadCode } from "../../passes/dead-code.ts";
import { type NodeTest, type Note, type NoteSink, noteOn } from "../../passes/pass.ts";
import { sealWeights } from "../../passes/simplify.ts";
import type { WeightView, WeightViews } from "../../passes/weight-views.ts";
import type { WeightUse } from "../plan.ts";
import type { QuantizedForm } from "./codes.ts";
import { findWeights, type WeightSlot } from "./slots.ts";

/** One way to store the weights of a node. */
export interface Rewrite {
  /** What the weights and the operators they need will take up in the file, about. */
  readonly bytes: number;
  /** Stable name of the form, and a sentence about it, for the report. */
  readonly code: NoteCode;
  readonly message: string;
  /** How the weights are quantized and stored. */
  readonly weights: readonly { readonly view: WeightView; readonly form: QuantizedForm }[];
  /** Rewrites the graph. */
  apply(): void;
}

/** Answers how the weights of one node (all of its slots) can be stored, or undefined when this form does not suit them. */
export type RewriteForm = (slots: readonly WeightSlot[]) => Rewrite | undefined;

/** The first operator set in which Sub and Mul broadcast as everywhere else: forms of storage are made of them. */
const BROADCASTING_OPSET = 7;
/** What becomes of the weights of a node. */
export interface WeightDecision {
  readonly node: Node;
  readonly slots: readonly WeightSlot[];
  /** Undefined: nothing, for the reason in the note. */
  readonly form: RewriteForm | undefined;
  readonly weights: Rewrite["weights"];
  readonly note: Note;
}

/**
 * Decides for every node with weights: the first form that suits it, where that makes the file smaller. `formsFor` is told all weights that may be
 * rewritten. Nothing is changed. Nodes whose weights may not be touched are in the notes only.
 */
export function planWeights(
  model: Model,
  views: WeightViews,
  isExcluded: NodeTest,
  formsFor: (slots: readonly WeightSlot[]) => readonly RewriteForm[],
): { readonly decisions: readonly WeightDecision[]; readonly notes: readonly Note[] } {
  const left: Note[] = [];
  const found = findWeights(model, views, isExcluded, (note) => left.push(note));
  const forms = formsFor([...found.values()].flat());
  const decisions = [...found].map(([node, slots]): WeightDecision => {
    const form = forms.find((candidate) => candidate(slots) !== undefined);
    const rewrite = form?.(slots);
    const kept = (code: NoteCode, message: string): WeightDecision => {
      return { node, slots, form: undefined, weights: [], note: noteOn(node, "skipped", code, message) };
    };
    if (!rewrite)
      return kept("unsupported_weight", `There is no quantized form of ${node.opType} for weights like these.`);
    const before = slots.reduce((sum, { view }) => sum + byteLengthOf(view.dtype, elementCount(view.dims)), 0);
    if (rewrite.bytes >= before) return kept("no_gain", `Its ${before} bytes of weights would not become smaller.`);
    const note = noteOn(node, "changed", rewrite.code, rewrite.message);
    return { node, slots, form, weights: rewrite.weights, note };
  });
  return { decisions, notes: [...left, ...decisions.map(({ note }) => note)] };
}

/** The weights that are quantized by these decisions. */
function usesOf(decisions: readonly WeightDecision[]): WeightUse[] {
  return decisions.flatMap(({ weights, note }) =>
    weights.map(({ view, form }) => ({
      name: view.sources[0]!.name,
      node: note.name,
      scheme: form.scheme,
      storage: note.code,
    })),
  );
}

/** Plans the weights of a model and rewrites it so. Answers the weights that are quantized. */
export function rewriteWeights(
  model: Model,
  views: WeightViews,
  isExcluded: NodeTest,
  formsFor: (slots: readonly WeightSlot[]) => readonly RewriteForm[],
  note: NoteSink,
): readonly WeightUse[] {
  const { decisions, notes } = planWeights(model, views, isExcluded, formsFor);
  let changed = false;
  for (const { form, slots, node } of decisions) {
    if (!form) continue;
    if (!changed) upgradeOpset(model, BROADCASTING_OPSET);
    // Asked again: what the node reads may have been replaced since.
    const rewrite = form(slots);
    if (!rewrite) throw new CoreError("internal", "A weight cannot be stored as it was planned.", node.label);
    rewrite.apply();
    changed = true;
  }
  notes.forEach(note);
  const uses = usesOf(decisions);
  if (changed) {
    // What goes are the weights as they were, even where they are listed as inputs, and what made them.
    sealWeights.run(model, note);
    removeDeadCode.run(model, note);
  }
  return uses;
}
