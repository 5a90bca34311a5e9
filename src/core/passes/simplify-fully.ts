/** The method `simplify`: simplifications as far as they go, with nodes that are left alone, and a note on what became of each node. */
import { checkCancelled } from "../errors.ts";
import type { Graph, Model, Node } from "../onnx/ir.ts";
import { type Evaluate, foldConstants } from "./fold-constants.ts";
import { bypassIdentities } from "./identity.ts";
import { checkInvariants, EXCLUDED, type Exclusions, exclusionTest, type Note, noteOn } from "./pass.ts";
import { sealWeights, simplifyPasses } from "./simplify.ts";

export interface SimplifyFullyOptions {
  readonly evaluate: Evaluate;
  readonly exclude: Exclusions;
  readonly signal?: AbortSignal;
}

/** Each round makes the model smaller, or is the last; so many are never needed. */
const MAX_ROUNDS = 20;

/**
 * A copy of a model that computes the same (float results up to rounding, 1e-5 of the largest output) with fewer nodes: constants folded,
 * affine operators fused into layers, what does nothing removed, again and again until nothing changes. Excluded nodes stay as they are;
 * the bodies of an excluded If, Loop or Scan do not.
 */
export async function simplifyFully(
  model: Model,
  { evaluate, exclude, signal }: SimplifyFullyOptions,
): Promise<{ readonly model: Model; readonly notes: readonly Note[] }> {
  const result = model.clone();
  const notes: Note[] = [];
  const unshield = shield(result, exclusionTest(exclude), (note) => notes.push(note));
  for (let round = 0, changed = true; changed && round < MAX_ROUNDS; round++) {
    checkCancelled(signal);
    changed = false;
    for (const pass of [sealWeights, bypassIdentities]) changed = pass.run(result, () => {}) || changed;
    changed = (await foldConstants(result, evaluate)) || changed;
    checkInvariants(result, "fold constants");
    for (const pass of simplifyPasses()) {
      changed = pass.run(result, (note) => notes.push(note)) || changed;
      checkInvariants(result, pass.name);
    }
  }
  unshield();
  checkInvariants(result, "simplify");
  return { model: result, notes: [...notes, ...removedNodes(model, result, notes)] };
}

/** No operator is of this domain: passes leave its nodes alone, whatever they are. */
const SHIELD = "shielded";

/** Puts nodes that no pass knows in the place of those that are excluded. The answer puts back what was there. */
function shield(model: Model, isExcluded: (node: Node) => boolean, note: (note: Note) => void): () => void {
  const shielded = [...model.graphs()].flatMap((graph) => graph.nodes.filter(isExcluded));
  for (const node of shielded) note(noteOn(node, "skipped", EXCLUDED.code, EXCLUDED.message));
  // A Constant has no inputs to change it by. What a node with bodies does is in its bodies.
  const isSimple = (node: Node) => node.bodies().length === 0 && !node.isConstant;
  const places = shielded.filter(isSimple).map((node) => ({ original: node, stand: replace(node, SHIELD) }));
  return () => {
    // One whose results nobody reads is dead code like any other.
    for (const { original, stand } of places) {
      if (stand.graph.nodes.includes(stand)) replace(stand, original.domain, original);
    }
  };
}

/** The same node in another domain, in the same place and with the same names. */
function replace(node: Node, domain: string, like: Node = node): Node {
  const { graph, name, opType, inputs, attrs, outputs } = node;
  const names = outputs.map((value) => value.name);
  const made = graph.insertBefore(node, {
    ...{ opType, domain, name, inputs, attrs: Object.fromEntries(attrs), standsFor: node },
    outputs: outputs.map((value) => (value.name === "" ? "" : graph.model.freshName(`${value.name}_${SHIELD}`))),
    ...(domain === like.domain && like.source && { source: like.source }),
  });
  outputs.forEach((value, i) => {
    const copy = made.outputs[i]!;
    copy.retype(value.dtype, value.shape);
    copy.source = value.source;
    graph.replaceUses(value, copy);
  });
  graph.remove(node);
  made.outputs.forEach((value, i) => {
    value.name = names[i]!;
  });
  return made;
}

/** Notes on the nodes that are gone and that no other note is about. */
function removedNodes(before: Model, after: Model, notes: readonly Note[]): Note[] {
  const known = new Set(notes.map(({ name }) => name));
  for (const { origins } of after.nodes()) for (const label of origins) known.add(label);
  const isOwn = (graph: Graph) => graph.nodes.filter((node) => !node.isConstant);
  const message =
    "It does nothing, or what it computes does not depend on the inputs, or nobody reads it: it is not there any more.";
  return [...before.graphs()]
    .flatMap(isOwn)
    .filter(({ label }) => !known.has(label))
    .map((node) => noteOn(node, "changed", "removed", message));
}
