import { didYouMean, nearestNames } from "../nearest-names.ts";
import type { Model } from "../onnx/ir.ts";
import { nodesByName } from "../onnx/labels.ts";
import { EXCLUDED, type Exclusions, type Note, noteOn } from "./pass.ts";

/** A name that nothing in the model has. */
export interface UnknownName {
  readonly list: keyof Exclusions;
  /** Where in the list. */
  readonly index: number;
  readonly name: string;
  /** A sentence or two, with the nearest names there are. */
  readonly message: string;
}

/** So many unknown names get their nearest ones looked for. */
const MAX_EXPLAINED = 20;

/**
 * What a user has excluded, as labels of nodes (`labelNodes`) and operators of the model that was uploaded, which `model` is: as it was
 * read. A node is named by its name, or, where it has none, by its first output; a name that several nodes have stands for all of them.
 */
export function resolveExclusions(
  model: Model,
  asked: Exclusions,
): { readonly exclude: Exclusions; readonly unknown: readonly UnknownName[] } {
  const byName = asked.nodes.length > 0 ? nodesByName(model) : new Map<string, never>();
  const operators = new Set([...model.nodes()].map(({ opType }) => opType));
  const labels: string[] = [];
  const unknown: UnknownName[] = [];
  for (const [index, name] of asked.nodes.entries()) {
    const nodes = byName.get(name);
    if (nodes) labels.push(...nodes.map(({ label }) => label));
    else {
      const hint = unknown.length < MAX_EXPLAINED ? hintFor(name, model, byName.keys()) : "";
      unknown.push({ list: "nodes", index, name, message: `The model has no node ${JSON.stringify(name)}.${hint}` });
    }
  }
  for (const [index, name] of asked.ops.entries()) {
    if (operators.has(name)) continue;
    const hint = unknown.length < MAX_EXPLAINED ? didYouMean(nearestNames(name, operators)) : "";
    unknown.push({
      list: "ops",
      index,
      name,
      message: `The model has no operator ${JSON.stringify(name)}.${hint}`,
    });
  }
  return { exclude: { nodes: [...new Set(labels)], ops: asked.ops }, unknown };
}

/** The nearest names; for the name of a value, the node that makes it. */
function hintFor(name: string, model: Model, known: Iterable<string>): string {
  for (const node of model.nodes()) {
    if (node.outputs.some((value) => value.name === name)) {
      return ` That is a value; the node that makes it is ${JSON.stringify(node.label)}.`;
    }
  }
  return didYouMean(nearestNames(name, known));
}

/** Notes on the nodes of `original` that a job excludes by name and that `notes` do not mention: there was nothing to do in them. */
export function untouchedExclusions(original: Model, exclude: Exclusions, notes: readonly Note[]): Note[] {
  const message = `${EXCLUDED.message} This method would not have changed it.`;
  return untouched(original, exclude.nodes, notes, EXCLUDED.code, message);
}

/** The same of nodes that a job says the precision of, by their labels. */
export function untouchedLayers(original: Model, labels: readonly string[], notes: readonly Note[]): Note[] {
  const message =
    "The job says what it computes in; it computes as in the original anyway, and has no weights to store.";
  return untouched(original, labels, notes, "asked", message);
}

function untouched(
  original: Model,
  labels: readonly string[],
  notes: readonly Note[],
  code: Note["code"],
  message: string,
): Note[] {
  if (labels.length === 0) return [];
  const mentioned = new Set(notes.filter(({ outcome }) => outcome !== "simplified").map(({ name }) => name));
  const wanted = new Set(labels);
  return [...original.nodes()]
    .filter(({ label }) => wanted.has(label) && !mentioned.has(label))
    .map((node) => noteOn(node, "skipped", code, message));
}
