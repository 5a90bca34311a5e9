/**
 * The networks of one training step, brought into one graph. Each is prepared by itself: its shapes are found, what has no gradient of its
 * own is rewritten, and the step's rewrites are applied. Then all its names get its prefix, and the graphs are put side by side; the
 * inputs that take data are shared.
 */
import { expandOperators } from "../autodiff/expand.ts";
import { fuseOperators } from "../autodiff/fuse.ts";
import { CoreError } from "../errors.ts";
import { GraphBuilder } from "../onnx/graph-builder.ts";
import { Model, type Value } from "../onnx/ir.ts";
import type { Tensor } from "../onnx/tensor.ts";
import type { OpenSession } from "../runtime/session.ts";
import type { Rewrite, StepPart } from "./rewrites.ts";
import { resolveStatics } from "./statics.ts";
import type { TrainableModel } from "./trainable.ts";

type Named = Readonly<Record<string, Tensor>>;

export interface StepNetwork {
  /** What its values are called by in the step graph, in front of their own names: "" for a network alone, `teacher/` beside others. */
  readonly prefix: string;
  readonly trainable: TrainableModel;
  /** Whether the loss changes it. One that is not trained computes as a trained one does, with batch statistics and dropout. */
  readonly trained: boolean;
  /** Whether it is fed data of its own, under names with its prefix, instead of what the other networks see. */
  readonly ownInputs?: boolean;
}

/** A network in the step graph. */
export interface PreparedNetwork {
  readonly network: StepNetwork;
  readonly model: Model;
  readonly parts: readonly StepPart[];
  /** What it is fed besides the batch, by the names in the step graph; parameters and statistics over their own memory. */
  readonly feeds: Record<string, Tensor>;
}

/** `batch` feeds the data inputs by the names in the step graph. Throws as `buildStepGraph` does. */
export async function prepareNetwork(
  network: StepNetwork,
  options: {
    readonly batch: Named;
    readonly rewrites: readonly Rewrite[];
    readonly seed: number;
    readonly openSession: OpenSession;
  },
): Promise<PreparedNetwork> {
  const { trainable, prefix } = network;
  const { batch, rewrites, seed, openSession } = options;
  const model = trainable.graph.clone();
  const { graph } = model;
  const own = new Set(Object.keys(trainable.feeds));
  const data = graph.inputs.filter(({ name, constant }) => !constant && !own.has(name));
  const feeds: Record<string, Tensor> = { ...trainable.feeds };
  for (const { name } of data) {
    const fed = batch[dataName(network, name)];
    if (fed) feeds[name] = fed;
  }
  await resolveStatics(model, feeds, openSession);
  fuseOperators(graph);
  if (expandOperators(graph)) await resolveStatics(model, feeds, openSession);
  const parts = rewrites.flatMap(({ apply }) => apply({ g: new GraphBuilder(graph), network, seed }) ?? []);
  const shared = new Set<Value>(network.ownInputs ? [] : data);
  if (prefix !== "") addPrefix(model, prefix, shared);
  return {
    network,
    model,
    parts,
    feeds: Object.fromEntries(Object.entries(trainable.feeds).map(([name, value]) => [prefix + name, value])),
  };
}

/** What the data input `name` of a network is called in the step graph. */
function dataName({ prefix, ownInputs }: Pick<StepNetwork, "prefix" | "ownInputs">, name: string): string {
  return ownInputs ? prefix + name : name;
}

/** A copy of a model whose names all begin with `prefix`, those of its inputs excepted. */
export function withPrefix(source: Model, prefix: string): Model {
  const model = source.clone();
  addPrefix(model, prefix, new Set(model.graph.inputs.filter(({ constant }) => !constant)));
  return model;
}

function addPrefix(model: Model, prefix: string, shared: ReadonlySet<Value>): void {
  for (const graph of model.graphs()) {
    const values = [...graph.inputs, ...graph.initializers, ...graph.nodes.flatMap(({ outputs }) => outputs)];
    for (const value of new Set(values)) if (!shared.has(value) && value.name !== "") value.name = prefix + value.name;
    for (const node of graph.nodes) if (node.name !== "") node.name = prefix + node.name;
  }
}

/** One graph of several. Throws `unsupported` where two of them bring functions of their own. */
export function mergeNetworks(models: readonly Model[]): Model {
  if (models.length === 1) return models[0]!;
  const withFunctions = models.filter(({ functions }) => functions.length > 0);
  if (new Set(withFunctions.map(({ functions }) => functions)).size > 1) {
    throw new CoreError("unsupported", "Models with functions of their own cannot be trained together.");
  }
  const merged = new Model({
    irVersion: Math.max(...models.map(({ irVersion }) => irVersion)),
    opsets: models[0]!.opsets,
    graphName: "step",
    functions: withFunctions[0]?.functions ?? [],
  });
  for (const { graph, opsets } of models) {
    for (const [domain, version] of opsets) merged.requireOpset(domain, version);
    for (const { name } of graph.initializers) merged.claimName(name);
    const known = new Map(merged.graph.inputs.map((value) => [value.name, value]));
    const values = new Map<Value, Value>();
    for (const value of graph.inputs) {
      // Both were fed the same tensor.
      const same = known.get(value.name);
      if (same) values.set(value, same);
    }
    graph.copyInto(merged.graph, values);
  }
  return merged;
}
