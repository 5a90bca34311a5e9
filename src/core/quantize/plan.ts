/**
 * What a method decides about a model, as data: which values and weights are quantized to what, what became of each node and why, and where values
 * of the float model are found in the quantized one. Planning makes it, the emitters carry it out, and everything that asks what was decided
 * (errors per layer, the report, `validate_only`, roundings) reads it. It is plain JSON, keyed by names of the float model that was planned.
 */
import type { ValuePlan, WeightPlan } from "../facts.ts";
import type { Note } from "../passes/pass.ts";
import type { AffineParams } from "./params.ts";
import type { WeightScheme } from "./scheme.ts";

/** A value that carries Q/DQ: its type, scale and zero point. */
export interface PlannedValue extends AffineParams {
  readonly dtype: "uint8" | "int8";
}

/** A weight in one form: a constant that is read in several ways may have several. */
export interface PlannedWeight {
  readonly scheme: WeightScheme;
  /** What it looks like in the file: the code of the notes on the nodes that read it so. */
  readonly storage: string;
  /** Labels of the nodes that read it. */
  readonly nodes: readonly string[];
}

/** What became of a node, and why: `changed` nodes are quantized. */
export type NodeDecision = Pick<Note, "outcome" | "op" | "code" | "message">;

export interface QuantizationPlan {
  readonly values: Readonly<Record<string, PlannedValue>>;
  readonly weights: Readonly<Record<string, readonly PlannedWeight[]>>;
  /** By label; a node of which several things are said has several decisions. */
  readonly nodes: Readonly<Record<string, readonly NodeDecision[]>>;
  /** Values whose readers read another one in the quantized model, by name, and that one's name. Others keep their names. */
  readonly results: Readonly<Record<string, string>>;
}

/** Decisions on nodes, by label, in the order of the notes. */
export function nodesOf(notes: readonly Note[]): QuantizationPlan["nodes"] {
  const nodes = new Map<string, NodeDecision[]>();
  for (const { name, outcome, op, code, message } of notes) {
    const said = nodes.get(name) ?? [];
    nodes.set(name, said);
    said.push({ outcome, op, code, message });
  }
  return Object.fromEntries(nodes);
}

/** One use of a weight. */
export interface WeightUse extends Omit<PlannedWeight, "nodes"> {
  readonly name: string;
  readonly node: string;
}

/** Uses of weights by name; those of one form together. */
export function weightsOf(uses: Iterable<WeightUse>): QuantizationPlan["weights"] {
  const weights = new Map<string, Map<string, PlannedWeight & { readonly nodes: string[] }>>();
  for (const { name, node, scheme, storage } of uses) {
    const forms = weights.get(name) ?? new Map<string, PlannedWeight & { readonly nodes: string[] }>();
    weights.set(name, forms);
    const key = JSON.stringify([scheme, storage]);
    const form = forms.get(key) ?? { scheme, storage, nodes: [] };
    forms.set(key, form);
    form.nodes.push(node);
  }
  return Object.fromEntries([...weights].map(([name, forms]) => [name, [...forms.values()]]));
}

/** A plan of nothing but decisions on nodes. */
export function planOf(notes: readonly Note[], uses: Iterable<WeightUse> = []): QuantizationPlan {
  return { values: {}, weights: weightsOf(uses), nodes: nodesOf(notes), results: {} };
}

/** The weights of a plan, as users are told. */
export function weightFacts({ weights }: QuantizationPlan): WeightPlan[] {
  return Object.entries(weights).flatMap(([name, forms]) =>
    forms.map(({ scheme: { bits, signed, symmetric, granularity }, storage, nodes }): WeightPlan => {
      const block = typeof granularity === "object" ? granularity.block : null;
      const shared = typeof granularity === "object" ? "block" : granularity;
      return { name, nodes, bits, signed, symmetric, granularity: shared, block_size: block, storage };
    }),
  );
}

/** The values of a plan that are rounded while the model runs, with what they are rounded to. */
export function valueFacts({
  values,
}: QuantizationPlan): (ValuePlan & { readonly scale: number; readonly zero_point: number })[] {
  return Object.entries(values).map(([name, { dtype, scale, zeroPoint }]) => {
    return { name, dtype, scale, zero_point: zeroPoint };
  });
}
