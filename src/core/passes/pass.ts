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
  /** What must hold before it runs. */
  readonly requires?: readonly Condition[];
  /** What holds after it has run, and until the run of passes that it is one of is over. */
  readonly ensures?: readonly Condition[];
  /** It is run once where others are run until nothing changes: it reads weights, or what it does it does at once. */
  readonly once?: true;
  /** Answers whether anything changed; what runs it relies on that. Throws `CoreError` and never leaves a broken graph. */
  run(model: Model, note: NoteSink): boolean;
}

/** Something that can hold of a model, as a clause: "all weights are constants". */
export interface Condition {
  readonly clause: string;
  holds(model: Model): boolean;
}

/** A note about a node. `code` is stable snake_case, `message` a sentence. */
export function noteOn(node: Node, outcome: Note["outcome"], code: Note["code"], message: string): Note {
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

/** More rounds than chains of passes that help each other are long; every round but the last removes or replaces nodes. */
const MAX_ROUNDS = 16;

/**
 * Runs passes in order on a copy of `model` (tensors are shared). With `settle` they are run again, those that may be, until none changes
 * anything: what one pass removes can be all that was in the way of another. Answers the new model, every note in order, and the names
 * of the passes that changed something.
 * Throws `internal` when a pass leaves a broken graph, is run where what it requires does not hold, or when what one ensures does not hold
 * after a later one.
 */
export function runPasses(
  model: Model,
  passes: readonly Pass[],
  options: { readonly settle?: boolean } = {},
): { readonly model: Model; readonly notes: readonly Note[]; readonly changedBy: readonly string[] } {
  const run = new PassRun(model.clone());
  let changed = run.round(passes);
  const repeated = passes.filter(({ once }) => !once);
  for (let round = 1; options.settle && changed && round < MAX_ROUNDS; round++) changed = run.round(repeated);
  return { model: run.model, notes: run.notes, changedBy: [...run.changedBy] };
}

class PassRun {
  readonly model: Model;
  readonly changedBy = new Set<string>();
  #notes: { readonly pass: Pass; readonly note: Note }[] = [];
  readonly #ensured = new Set<Condition>();

  constructor(model: Model) {
    this.model = model;
  }

  get notes(): readonly Note[] {
    return this.#notes.map(({ note }) => note);
  }

  /** Answers whether anything changed. What passes left alone in an earlier round, and why, is as they say now. */
  round(passes: readonly Pass[]): boolean {
    this.#notes = this.#notes.filter(({ pass, note }) => note.outcome !== "skipped" || !passes.includes(pass));
    let changed = false;
    for (const pass of passes) changed = this.#run(pass) || changed;
    return changed;
  }

  #run(pass: Pass): boolean {
    for (const condition of pass.requires ?? []) this.#check(condition, `Before "${pass.name}"`);
    const changed = pass.run(this.model, (note) => this.#notes.push({ pass, note }));
    for (const condition of pass.ensures ?? []) this.#ensured.add(condition);
    if (changed) {
      this.changedBy.add(pass.name);
      checkInvariants(this.model, pass.name);
    }
    for (const condition of changed ? this.#ensured : (pass.ensures ?? []))
      this.#check(condition, `After "${pass.name}"`);
    return changed;
  }

  #check({ clause, holds }: Condition, when: string): void {
    if (!holds(this.model)) throw new CoreError("internal", `${when} it does not hold that ${clause}.`);
  }
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
