import { buildGradients } from "../autodiff/gradient.ts";
import { CoreError } from "../errors.ts";
import { dimsOf, GraphBuilder, int } from "../onnx/graph-builder.ts";
import type { Node, Value } from "../onnx/ir.ts";
import { modelToBytes } from "../onnx/save.ts";
import { elementCount, type Tensor } from "../onnx/tensor.ts";
import { Random } from "../random.ts";
import type { OpenSession } from "../runtime/session.ts";
import { blockConvolutions, blockOnThisMachine } from "./blocked-convolutions.ts";
import { useFewerProducts } from "./fewer-products.ts";
import { allocateParameters, type ParameterArrays } from "./parameter-kernels.ts";
import { liveTensor, type Parameter } from "./parameters.ts";
import { batchStatistics, dropout, type Rewrite, type StepPart } from "./rewrites.ts";
import { scatterWholeRows } from "./scattered-rows.ts";
import { shareNormalizations } from "./shared-normalizations.ts";
import { resolveStatics } from "./statics.ts";
import { mergeNetworks, prepareNetwork, type StepNetwork } from "./step-networks.ts";
import type { TrainableModel } from "./trainable.ts";

/** One part of the loss: `weight` · `value`, where value is a scalar. */
export interface LossTerm {
  readonly name: string;
  readonly weight: number;
  readonly value: Value;
  /** The prefix of the network in whose history the term is told of; without one it counts for every network that is trained. */
  readonly network?: string;
  /**
   * Whether the value is a mean over samples of what each tells by itself, so that the mean of its values over equal parts of a batch is its value over
   * the batch. It is not where samples are compared with each other, or where some do not count.
   */
  readonly overSamples?: boolean;
}

/** What an objective builds the loss from. All values have shapes. */
export interface ObjectiveContext {
  readonly g: GraphBuilder;
  /** A value of a network, an output or one that was watched, by its name with the network's prefix: `teacher/logits`. */
  readonly value: (name: string) => Value;
  /** What comes with each batch besides the model's inputs: labels, a teacher's outputs. */
  readonly target: (name: string) => Value;
  /** The same value without a gradient: the network that made it learns nothing from what is done with it. */
  readonly detach: (value: Value) => Value;
  /** A parameter of the loss itself, drawn from N(0, 1/fanIn), trained along and left out of the exported model. */
  readonly parameter: (name: string, dims: readonly number[], fanIn: number) => Value;
}

export type Objective = (context: ObjectiveContext) => readonly LossTerm[];

/** A parameter in a step graph. */
export interface StepParameter {
  /** Its name there, with the prefix of its network. */
  readonly name: string;
  readonly parameter: Parameter;
  /** Which of the networks it belongs to; parameters of the loss belong to the first that is trained. */
  readonly network: StepNetwork;
  /** Output with its gradient; undefined where the loss does not depend on it. */
  readonly gradient: string | undefined;
}

/**
 * One training step as an ONNX model for batches of one size: (batch, targets, parameters) -> (losses, gradients, what rewrites read).
 * The update is not part of it: one pass over typed arrays is faster (`bench/train-optimizer.ts`).
 */
export interface StepGraph {
  readonly model: Uint8Array;
  /** Those of the trained networks in their order, then those of the loss. */
  readonly parameters: readonly StepParameter[];
  /** The last of `parameters`: those that belong to the loss itself. */
  readonly lossParameters: readonly Parameter[];
  /** The sum, then each term. */
  readonly loss: string;
  readonly terms: readonly {
    readonly name: string;
    readonly weight: number;
    readonly output: string;
    readonly network: string | undefined;
    readonly overSamples: boolean;
  }[];
  /** How many numbers the networks and the loss compute, gradients left out. */
  readonly values: number;
  /** The most numbers in one of them. */
  readonly largest: number;
  /** Output with Σ g² of each gradient there is, in the order of the parameters: norms, and a watch for what is not finite. */
  readonly squares: string;
  readonly parts: readonly (Omit<StepPart, "outputs"> & { readonly outputs: readonly string[] })[];
  /** What every step is fed besides the batch and the feeds of `parts`, over live memory. */
  readonly feeds: Readonly<Record<string, Tensor>>;
}

/** What training does to every network, unless it is told otherwise. */
export const STEP_REWRITES: readonly Rewrite[] = [dropout, batchStatistics];

export interface StepGraphOptions {
  /** Inputs and targets of one batch; all later ones must have the same shapes. */
  readonly batch: {
    readonly feeds: Readonly<Record<string, Tensor>>;
    readonly targets: Readonly<Record<string, Tensor>>;
  };
  readonly objective: Objective;
  readonly rewrites?: readonly Rewrite[];
  readonly seed: number;
  /** Of the session that will run it; it may be any number unless it is given. */
  readonly threads?: number;
  readonly openSession: OpenSession;
}

/** A network that is trained alone. */
export function soloNetwork(trainable: TrainableModel): StepNetwork {
  return { prefix: "", trainable, trained: true };
}

/** How inputs that hold targets are called, so that they cannot be taken for the model's own. */
const targetName = (name: string) => `target/${name}`;

/** The feeds of a step that come with the batch. */
export function batchFeeds(batch: StepGraphOptions["batch"]): Record<string, Tensor> {
  const targets = Object.entries(batch.targets).map(([name, value]) => [targetName(name), value]);
  return { ...batch.feeds, ...Object.fromEntries(targets) };
}

/**
 * Builds the training step of networks that share a loss. Throws `unsupported` with the node where something cannot be differentiated,
 * `invalid_params` where the objective does not fit the networks.
 */
export async function buildStepGraph(networks: readonly StepNetwork[], options: StepGraphOptions): Promise<StepGraph> {
  const { openSession, seed, threads, rewrites = STEP_REWRITES } = options;
  const batch = options.batch.feeds;
  const prepared = [];
  for (const network of networks) prepared.push(await prepareNetwork(network, { batch, rewrites, seed, openSession }));
  const parts = prepared.flatMap((network) => network.parts);
  const model = mergeNetworks(prepared.map((network) => network.model));
  const { graph } = model;
  const live: Record<string, Tensor> = Object.assign({}, ...prepared.map((network) => network.feeds));
  const feeds: Record<string, Tensor> = Object.assign({ ...live, ...batch }, ...parts.map((part) => part.feeds?.(0)));
  for (const [name, value] of Object.entries(options.batch.targets)) {
    graph.addInput(targetName(name), value.dtype, value.dims);
    feeds[targetName(name)] = value;
  }

  const g = new GraphBuilder(graph);
  const detached = detachedIn(graph.nodes, networks);
  const own: Parameter[] = [];
  const context = contextOf(g, { own, detached, feeds, seed });
  const learned = g.within("loss", () => options.objective(context));
  if (learned.length === 0) throw new CoreError("invalid_params", "The objective has no loss.");
  const terms = [...learned, ...penaltiesOf(networks, context)];
  const weighted = terms.map(({ value, weight }) => (weight === 1 ? value : g.mul(value, weight)));
  const loss = weighted.reduce((sum, term) => g.add(sum, term));
  for (const value of [...graph.outputs]) graph.removeOutput(value);
  for (const value of new Set([loss, ...terms.map((term) => term.value)])) graph.addOutput(value);
  await resolveStatics(model, feeds, openSession);

  const computed = graph.nodes.map(({ outputs }) => (outputs[0] ? sizeOf(outputs[0]) : 0));
  // Not before: finding the shapes of tiles would take the memory of all of them at one time.
  useFewerProducts(graph);
  for (const value of detachedIn(graph.nodes, networks)) detached.add(value);

  const trained = networks.filter((network) => network.trained);
  const parameters = [
    ...trained.flatMap((network) =>
      network.trainable.parameters.map((parameter) => ({ name: network.prefix + parameter.name, parameter, network })),
    ),
    ...own.map((parameter) => ({ name: parameter.name, parameter, network: trained[0]! })),
  ];
  const inputs = new Map(graph.inputs.map((value) => [value.name, value]));
  const values = parameters.map(({ name }) => inputs.get(name)!);
  const gradients = buildGradients(g, loss, values, detached);
  const { names, squares } = giveOut(g, values, gradients);
  const byName = new Map(graph.nodes.flatMap((node) => node.outputs.map((value) => [value.name, value])));
  const read = parts.map((part) => ({ ...part, outputs: (part.outputs ?? []).map(({ name }) => name) }));
  for (const name of read.flatMap(({ outputs }) => outputs)) graph.addOutput(byName.get(name)!);
  const block = await blockOnThisMachine(openSession);
  if (block !== undefined) blockConvolutions(graph, block);
  if (threads === 1) scatterWholeRows(graph);
  else if (threads !== undefined) shareNormalizations(graph);
  return {
    model: modelToBytes(model),
    parameters: parameters.map((parameter, i) => ({ ...parameter, gradient: names[i] })),
    lossParameters: own,
    loss: loss.name,
    terms: terms.map(({ name, weight, value, network, overSamples = false }) => ({
      ...{ name, weight, output: value.name, network, overSamples },
    })),
    values: computed.reduce((sum, size) => sum + size, 0),
    largest: computed.reduce((most, size) => Math.max(most, size), 0),
    squares,
    parts: read,
    feeds: { ...live, ...Object.fromEntries(own.map((parameter) => [parameter.name, liveTensor(parameter)])) },
  };
}

/** How many elements a value has, 0 where that is not known. */
function sizeOf({ shape }: Value): number {
  return shape?.every((dim) => typeof dim === "number") ? elementCount(shape as readonly number[]) : 0;
}

/** What networks keep gradients from flowing through. */
function detachedIn(nodes: readonly Node[], networks: readonly StepNetwork[]): Set<Value> {
  const names = new Set(
    networks.flatMap(({ prefix, trainable }) => trainable.detached?.map((it) => prefix + it) ?? []),
  );
  return new Set(nodes.flatMap(({ outputs }) => outputs.filter(({ name }) => names.has(name))));
}

function penaltiesOf(networks: readonly StepNetwork[], { value }: ObjectiveContext): readonly LossTerm[] {
  return networks
    .filter(({ trained }) => trained)
    .flatMap(({ prefix, trainable: { penalties = [] } }) =>
      penalties.map((it) => ({ ...it, value: value(prefix + it.value), network: prefix, overSamples: true })),
    );
}

/** Makes outputs of the gradients and of Σ g² of each. */
function giveOut(
  g: GraphBuilder,
  values: readonly Value[],
  gradients: ReadonlyMap<Value, Value>,
): { readonly names: readonly (string | undefined)[]; readonly squares: string } {
  const { graph } = g;
  // A gradient that is another value's too (of two added biases) needs a name of its own.
  const given = new Set<Value>(graph.outputs);
  const squares: Value[] = [];
  const names = values.map((value) => {
    const gradient = gradients.get(value);
    if (!gradient) return undefined;
    const result = given.has(gradient) ? g.op("Identity", [gradient]) : gradient;
    given.add(result);
    result.retype("float32", dimsOf(value));
    graph.addOutput(result);
    squares.push(g.reshape(g.op("ReduceSumSquare", [result], { keepdims: int(0) }), [1]));
    return result.name;
  });
  if (squares.length === 0) {
    throw new CoreError("invalid_params", "The loss does not depend on anything that can be trained.");
  }
  const all = g.op("Concat", squares, { axis: int(0) });
  graph.addOutput(all);
  return { names, squares: all.name };
}

function contextOf(
  g: GraphBuilder,
  {
    own,
    detached,
    feeds,
    seed,
  }: {
    readonly own: Parameter[];
    readonly detached: Set<Value>;
    readonly feeds: Record<string, Tensor>;
    readonly seed: number;
  },
): ObjectiveContext {
  const { graph } = g;
  const find = (name: string, what: string): Value => {
    const value =
      graph.inputs.find((candidate) => candidate.name === name) ??
      graph.outputs.find((candidate) => candidate.name === name);
    if (!value) throw new CoreError("invalid_params", `There is no ${what} "${name}".`, name);
    return value;
  };
  return {
    g,
    value: (name) => find(name, "value"),
    target: (name) => find(targetName(name), "target"),
    detach: (value) => {
      const copy = g.op("Identity", [value]);
      copy.retype(value.dtype, value.shape);
      detached.add(copy);
      return copy;
    },
    parameter: (base, dims, fanIn) => {
      const value = graph.addInput(graph.model.freshName(`loss/${base}`), "float32", dims);
      const [arrays] = allocateParameters([elementCount(dims)]) as [ParameterArrays];
      const { data } = arrays;
      new Random(seed, `initial ${value.name}`).fillNormal(data);
      for (let i = 0; i < data.length; i++) data[i]! /= Math.sqrt(fanIn);
      const parameter: Parameter = {
        name: value.name,
        role: "weight",
        dims,
        ...arrays,
        fan: { in: fanIn, out: 1 },
        rectified: false,
      };
      own.push(parameter);
      feeds[value.name] = liveTensor(parameter);
      return value;
    },
  };
}
