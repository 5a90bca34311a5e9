import { CoreError } from "../errors.ts";
import type { NodeNote } from "../facts.ts";
import type { Graph, Model, Node, Value } from "../onnx/ir.ts";

/**
 * What became of a node: `changed` counts as covered, `skipped` is reported with its reason. `simplified` is what happened to it before
 * the method that was asked for.
 */
export interface Note extends NodeNote {
  readonly outcome: "changed" | "skipped" | "simplified";
}

export type NoteSink = (note: Note) => void;

/**
 * One rewrite of a model, in place. It keeps what the model computes, up to what its name says (a quantizing pass changes numbers, a
 * simplifying one does not), and says why for every node that it was meant for and left alone.
 */
export interface Pass {
  readonly name: string;
  /** Answers whether anything changed. Throws `CoreError` and never leaves a broken graph. */
  run(model: Model, note: NoteSink): boolean;
}

/** A note about a node. `code` is stable snake_case, `message` a sentence. */
export function noteOn(node: Node, outcome: Note["outcome"], code: string, message: string): Note {
  return { outcome, name: node.label, op: node.originalOp, code, message };
}

/** The notes without repetition: what is said of each node that an uploaded one was rewritten to is said once. */
export function distinctNotes(notes: readonly Note[]): Note[] {
  const byKey = new Map(
    notes.map((note) => [JSON.stringify([note.outcome, note.name, note.op, note.code, note.message]), note]),
  );
  return [...byKey.values()];
}

/** What a note says when it is about something that happened before the method that was asked for. */
export function asSimplified(note: Note): Note {
  return { ...note, outcome: "simplified" };
}

/** Nodes that a job leaves alone: by label in the model that was uploaded, and by operator. `resolveExclusions` makes them of what users write. */
export interface Exclusions {
  readonly nodes: readonly string[];
  readonly ops: readonly string[];
}

export type NodeTest = (node: Node) => boolean;

/**
 * A test whether a node is excluded: it, or a node that was fused into it, by label; by operator it alone, as it was uploaded or as it is now.
 * (Excluding Add must not take with it every layer that has taken in a bias.)
 */
export function exclusionTest(exclude: Exclusions): NodeTest {
  const nodes = new Set(exclude.nodes);
  const ops = new Set(exclude.ops);
  return (node) => ops.has(node.opType) || ops.has(node.originalOp) || node.origins.some((label) => nodes.has(label));
}

/** Why a job leaves an excluded node alone. */
export const EXCLUDED = { code: "excluded", message: "The job excludes this node." } as const;

/**
 * Runs passes in order on a copy of `model` (tensors are shared) and checks the graph after each.
 * Answers the new model and every note, in order.
 */
export function runPasses(
  model: Model,
  passes: readonly Pass[],
): { readonly model: Model; readonly notes: readonly Note[] } {
  const result = model.clone();
  const notes: Note[] = [];
  for (const pass of passes) {
    pass.run(result, (note) => notes.push(note));
    checkInvariants(result, pass.name);
  }
  return { model: result, notes };
}

/**
 * Throws `internal` unless every value is defined before it is read, every use is recorded, and names are unique among the values
 * that a node can see.
 */
export function checkInvariants(model: Model, after: string): void {
  checkGraph(model.graph, new Map(), after);
}

function checkGraph(graph: Graph, outer: ReadonlyMap<string, Value>, after: string): void {
  const visible = new Map(outer);
  const define = (value: Value) => {
    if (value.name === "") return;
    const other = visible.get(value.name);
    if (other && other.graph === graph && other !== value) fail(`two values are called "${value.name}"`, value.name);
    visible.set(value.name, value);
  };
  const fail = (what: string, subject: string): never => {
    throw new CoreError("internal", `After "${after}": ${what}.`, subject);
  };
  for (const value of graph.initializers) define(value);
  for (const value of graph.inputs) define(value);
  for (const node of graph.nodes) {
    node.inputs.forEach((value, index) => {
      if (!value) return;
      if (visible.get(value.name) !== value)
        fail(`"${node.label}" reads "${value.name}" before it is defined`, node.label);
      if (!node.isLinked(index)) {
        fail(`the use of "${value.name}" by "${node.label}" is not recorded`, node.label);
      }
    });
    for (const body of node.bodies()) checkGraph(body, visible, after);
    for (const value of node.outputs) define(value);
  }
  for (const value of graph.outputs) {
    if (visible.get(value.name) !== value) fail(`the output "${value.name}" is not defined`, value.name);
  }
}
